//! How many deliveries a second: a thousand nodes that broadcast, with loss.
//!
//! ```text
//! cargo run --release -p mainstay-sim --example speed
//! ```

use mainstay_sim::{Boot, Chance, Happening, Input, Links, Node, Now, Output, Setup, Time, World};
use std::{
    rc::Rc,
    time::{Duration, Instant},
};

const NODES: usize = 1_000;
const EVERY: Duration = Duration::from_secs(1);

/// Says something every second, and hears the others.
struct Member {
    says: bool,
    next: Time,
}

impl Node for Member {
    type Message = Rc<[u8]>;
    type Command = ();
    type Report = ();

    fn handle(&mut self, now: Now, input: Input<Rc<[u8]>, ()>) {
        if input == Input::Tick {
            self.says = true;
            self.next = now.monotonic + EVERY;
        }
    }

    fn poll(&mut self, _: Now) -> Option<Output<Rc<[u8]>, ()>> {
        std::mem::take(&mut self.says).then(|| Output::Broadcast([7; 256][..].into()))
    }

    fn deadline(&self) -> Option<Time> {
        Some(self.next)
    }
}

fn main() {
    let make = |mut boot: Boot| {
        let next = boot.now.monotonic + boot.rng.within(EVERY);
        Member { says: false, next }
    };
    let mut world = World::new(1, Setup::default(), make);
    world.add_nodes(NODES);
    world.set_links(Links { loss_ppm: 10_000, ..Links::default() });
    let started = Instant::now();
    let mut story = |_: &mut World<Member>, _: Happening<()>| Ok(());
    match world.run(Duration::from_secs(5), &mut story) {
        Ok(events) => {
            let seconds = started.elapsed().as_secs_f64();
            let rate = events as f64 / seconds / 1e6;
            println!(
                "{NODES} nodes: {events} events in {seconds:.2} s, {rate:.1} million a second"
            );
        }
        Err(error) => println!("{error}"),
    }
}
