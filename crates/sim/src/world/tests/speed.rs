//! A group of a thousand must be cheap. The figure is generous, because tests run on busy machines
//! and without all optimisations; the example `speed` measures it.

use super::*;
use std::{rc::Rc, time::Instant};

/// Hears everything and says something now and then.
struct Member {
    heard: u64,
    says: bool,
    at: Option<Time>,
}

impl Node for Member {
    type Message = Rc<[u8]>;
    type Command = ();
    type Report = ();

    fn handle(&mut self, now: Now, input: Input<Rc<[u8]>, ()>) {
        match input {
            Input::Message { .. } => self.heard += 1,
            Input::Tick => {
                self.says = true;
                self.at = Some(now.monotonic + SECOND);
            }
            _ => {}
        }
    }

    fn poll(&mut self, _: Now) -> Option<Output<Rc<[u8]>, ()>> {
        std::mem::take(&mut self.says).then(|| Output::Broadcast([7; 64][..].into()))
    }

    fn deadline(&self) -> Option<Time> {
        self.at
    }
}

#[test]
fn a_thousand_nodes_that_broadcast_are_simulated_faster_than_they_would_run() {
    let make = |mut boot: Boot| {
        let first = boot.now.monotonic + boot.rng.within(SECOND);
        Member { heard: 0, says: false, at: Some(first) }
    };
    let mut world = World::new(1, Setup::default(), make);
    world.add_nodes(1_000);
    let lossy = Links { loss_ppm: 10_000, ..Links::default() };
    world.set_links(lossy);
    let started = Instant::now();
    let mut story = |_: &mut World<Member>, _: Happening<()>| Ok(());
    let events = world.run(SECOND, &mut story).unwrap();
    let rate = events as f64 / started.elapsed().as_secs_f64();
    assert!(events > 900_000, "{events} events");
    assert!(rate > 200_000.0, "{rate:.0} events a second");
    let heard = world.nodes().filter_map(|node| world.node(node)).map(|member| member.heard);
    assert!(heard.min().unwrap() > 900);
}
