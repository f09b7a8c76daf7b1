//! Faults come, do what they say, and are over when the world is healed.

use super::*;
use crate::{DiskFaults, limits::EVENTS_WAITING_MAX};

fn only(faults: &[Fault]) -> Faults {
    Faults {
        set: FaultSet::of(faults),
        once_in: Duration::from_millis(300),
        lasts_max: SECOND,
        jump_max: SECOND,
        drift_ppm_max: 1_000,
        ..Faults::none()
    }
}

/// Goes on for a minute with these faults, and counts what happened.
fn a_minute_of(faults: &Faults) -> (Stage, Memory) {
    let mut world = stage(5);
    world.unleash(faults);
    let memory = goes_on(&mut world, SECOND * 60);
    (world, memory)
}

fn ended(memory: &Memory) -> usize {
    memory.happened.iter().filter(|(_, what)| matches!(what, Happening::Ended(_))).count()
}

#[test]
fn processes_die_and_come_back_about_as_often_as_they_are_told_to() {
    for fault in [Fault::Kill, Fault::PowerCut] {
        let (_, memory) = a_minute_of(&only(&[fault]));
        assert!((40..=400).contains(&ended(&memory)), "{fault}: {}", ended(&memory));
    }
}

#[test]
fn no_more_nodes_are_down_at_a_time_than_allowed() {
    struct Counting(usize);
    impl Story<Puppet> for Counting {
        fn happens(&mut self, _: &mut Stage, _: Happening<&'static str>) -> Result<(), String> {
            Ok(())
        }

        fn check(&mut self, world: &Stage) -> Result<(), String> {
            let down = world.nodes().filter(|node| world.node(*node).is_none()).count();
            self.0 = self.0.max(down);
            Ok(())
        }
    }
    for allowed in [1, 2, 5] {
        let mut world = stage(5);
        let faults = only(&[Fault::Kill, Fault::PowerCut]);
        world.unleash(&Faults { down_max: allowed, lasts_max: SECOND * 5, ..faults });
        let mut story = Counting(0);
        world.run(SECOND * 120, &mut story).unwrap();
        assert_eq!(story.0, allowed);
    }
}

#[test]
fn w5_after_healing_all_is_up_and_reached_and_stays_so() {
    for seed in 0..50 {
        let mut world = stage_with(seed, 5, Setup::default());
        world.unleash(&Faults::drawn(seed, FaultSet::of(&Fault::ALL)));
        for node in world.nodes() {
            world.disk(node).die_after(50);
        }
        goes_on(&mut world, SECOND * 20);
        world.heal();
        goes_on(&mut world, SECOND * 60);
        for node in world.nodes() {
            says(&mut world, node, Output::Broadcast(b"after".to_vec()));
        }
        let memory = goes_on(&mut world, SECOND);
        assert_eq!(memory.happened, [], "seed {seed}");
        for node in world.nodes() {
            let messages = puppet(&world, node).messages();
            let heard = messages.iter().filter(|message| **message == b"after").count();
            assert_eq!(heard, 4, "seed {seed}: {node}");
            assert_eq!(world.disk(node).faults(), DiskFaults::NONE);
        }
    }
}

#[test]
fn wall_clocks_jump_and_monotonic_ones_only_drift() {
    let (world, _) = a_minute_of(&only(&[Fault::Jump, Fault::Drift]));
    for node in world.nodes() {
        let now = world.clock(node);
        let off = now.monotonic.since(Time::START).as_secs_f64() / 60.0 - 1.0;
        assert!(off.abs() <= 0.001, "{off}");
        let wall = now.wall_unix_ns - Setup::default().wall_unix_ns;
        assert_ne!(wall, now.monotonic.as_nanos(), "it has jumped");
    }
}

#[test]
fn a_process_may_die_between_two_things_it_says() {
    let (mut all, mut none, mut some) = (false, false, false);
    for seed in 0..200 {
        let mut world = stage_with(seed, 3, Setup::default());
        let faults = Faults { once_in: Duration::from_millis(1), ..only(&[Fault::Kill]) };
        world.unleash(&faults);
        let both = [B, C].map(|to| Output::Send { to, message: b"both".to_vec() });
        world.command(A, Order::Say(both.to_vec()));
        world.faults.down_max = 0;
        world.place_mut(A).inputs_left = Some(1);
        goes_on(&mut world, SECOND * 5);
        let heard = [B, C].map(|node| puppet(&world, node).messages().len());
        match heard {
            [1, 1] => all = true,
            [0, 0] => none = true,
            [1, 0] => some = true,
            other => panic!("{other:?}"),
        }
    }
    assert!(all && none && some);
}

#[test]
fn a_process_dies_in_the_middle_of_what_it_does_with_its_disk_and_is_not_heard() {
    let mut world = stage(1);
    world.disk(A).die_after(1);
    world.command(A, Order::Save(b"something"));
    let memory = goes_on(&mut world, SECOND * 5);
    let happened: Vec<_> = memory.happened.iter().map(|(_, what)| what.clone()).collect();
    assert_eq!(happened, [Happening::Ended(A), Happening::Restarted(A)]);
    // It was killed between writing and syncing: the page cache still has it.
    assert_eq!(puppet(&world, A).found, b"something");
}

#[test]
fn a_power_cut_takes_what_was_not_synced_and_a_kill_does_not() {
    let mut lost = 0;
    for seed in 0..100 {
        let mut world = stage_with(seed, 1, Setup::default());
        world.disk(A).die_after(1);
        world.place_mut(A).doom = Some(Doom::PowerCut);
        world.command(A, Order::Save(b"something"));
        goes_on(&mut world, SECOND * 5);
        lost += usize::from(puppet(&world, A).found != b"something");
    }
    assert!((20..80).contains(&lost), "{lost}");
}

#[test]
fn a_process_that_gives_up_is_started_again_after_a_while() {
    let mut world = stage(1);
    let outputs = vec![Output::Exit("tired".into()), Output::Report("not heard")];
    world.command(A, Order::Say(outputs));
    let memory = goes_on(&mut world, SECOND * 5);
    let restart_after = Setup::default().restart_after;
    let expected = [
        (Time::START, Happening::Ended(A)),
        (Time::START + restart_after, Happening::Restarted(A)),
    ];
    assert_eq!(memory.happened, expected);
}

#[test]
fn messages_are_lost_doubled_and_damaged_about_as_often_as_they_are_told_to() {
    let mut world = stage(2);
    let links = Links {
        loss_ppm: 200_000,
        duplicate_ppm: 200_000,
        damage_ppm: 100_000,
        ..Links::default()
    };
    world.set_links(links);
    for _ in 0..1_000 {
        sends(&mut world, A, B, b"message");
    }
    goes_on(&mut world, SECOND);
    let messages = puppet(&world, B).messages();
    // 800 arrive, 160 of them twice.
    assert!((880..1_040).contains(&messages.len()), "{}", messages.len());
    let wrong = messages.iter().filter(|message| **message != b"message").count();
    assert!((50..150).contains(&wrong), "{wrong}");
}

#[test]
fn a_message_may_overtake_another_only_where_there_is_jitter() {
    let overtaken = |links: Links| {
        let mut world = stage(2);
        world.set_links(links);
        for number in 0..50 {
            sends(&mut world, A, B, &[number]);
            goes_on(&mut world, Duration::from_micros(1));
        }
        goes_on(&mut world, SECOND);
        let messages = puppet(&world, B).messages();
        assert_eq!(messages.len(), 50);
        messages.windows(2).any(|pair| pair[0] > pair[1])
    };
    let steady = Links { jitter: Duration::ZERO, ..Links::default() };
    assert!(!overtaken(steady));
    assert!(overtaken(Links::default()));
    let late = Duration::from_millis(1);
    assert!(overtaken(Links { reorder_ppm: 100_000, reorder_by: late, ..steady }));
}

#[test]
fn a_world_that_is_flooded_with_messages_says_so_one_past_the_limit_of_what_may_wait() {
    /// Broadcasts as often as it is told to.
    struct Loud(usize);
    impl Node for Loud {
        type Message = std::rc::Rc<[u8]>;
        type Command = usize;
        type Report = ();

        fn handle(&mut self, _: Now, input: Input<Self::Message, usize>) {
            if let Input::Command(times) = input {
                self.0 = times;
            }
        }

        fn poll(&mut self, _: Now) -> Option<Output<Self::Message, ()>> {
            self.0 = self.0.checked_sub(1)?;
            Some(Output::Broadcast([][..].into()))
        }

        fn deadline(&self) -> Option<Time> {
            None
        }
    }
    const OTHERS: usize = 1 << 16;
    for flooded in [false, true] {
        let mut world = World::new(1, Setup::default(), |_: Boot| Loud(0));
        world.add_nodes(1 + OTHERS);
        world.command(A, EVENTS_WAITING_MAX / OTHERS);
        if flooded {
            world.alarm(SECOND, 1);
        }
        let mut story = |_: &mut World<Loud>, _: Happening<()>| Ok(());
        let ended = world.run(Duration::from_nanos(1), &mut story);
        let waiting = EVENTS_WAITING_MAX + 1;
        let expected =
            if flooded { Err(Error::Flooded { at: Time::START, waiting }) } else { Ok(1) };
        assert_eq!(ended, expected);
    }
}
