//! Streams deliver what was written, in order and once, or break.

use super::*;
use crate::{Broken, StreamEvent};

const OUT: StreamId = StreamId::outgoing(1);

fn does(world: &mut Stage, node: NodeId, stream: StreamId, action: StreamAction) {
    says(world, node, Output::Stream { stream, action });
}

fn events(world: &Stage, node: NodeId) -> Vec<(StreamId, StreamEvent)> {
    let events = puppet(world, node).inputs.iter().filter_map(|(_, input)| match input {
        Input::Stream { stream, event } => Some((*stream, event.clone())),
        _ => None,
    });
    events.collect()
}

fn read(world: &Stage, node: NodeId) -> Vec<u8> {
    let bytes = events(world, node).into_iter().filter_map(|(_, event)| match event {
        StreamEvent::Data(bytes) => Some(bytes),
        _ => None,
    });
    bytes.flatten().collect()
}

fn last(world: &Stage, node: NodeId) -> Option<StreamEvent> {
    events(world, node).pop().map(|(_, event)| event)
}

/// Two puppets and a stream from A to B; B's name for it.
fn connected_on(mut world: Stage) -> (Stage, StreamId) {
    does(&mut world, A, OUT, StreamAction::Connect { to: B });
    goes_on(&mut world, SECOND);
    let room = Setup::default().window_bytes;
    assert_eq!(events(&world, A), [(OUT, StreamEvent::Connected { room })]);
    let accepted = events(&world, B);
    let [(name, StreamEvent::Accepted { from: A, .. })] = accepted[..] else {
        panic!("{accepted:?}")
    };
    assert!(!name.is_outgoing());
    (world, name)
}

fn connected() -> (Stage, StreamId) {
    connected_on(stage(2))
}

fn write(world: &mut Stage, node: NodeId, stream: StreamId, bytes: &[u8]) {
    does(world, node, stream, StreamAction::Write(bytes.to_vec()));
}

#[test]
fn w6_what_is_written_on_either_end_is_read_on_the_other_in_order() {
    let (mut world, at_b) = connected();
    for part in 0..50_u8 {
        write(&mut world, A, OUT, &[part; 100]);
        write(&mut world, B, at_b, &[part + 100; 10]);
    }
    goes_on(&mut world, SECOND);
    assert_eq!(read(&world, B), (0..50).flat_map(|part| [part; 100]).collect::<Vec<u8>>());
    assert_eq!(read(&world, A), (100..150).flat_map(|part| [part; 10]).collect::<Vec<u8>>());
}

#[test]
fn w6_loss_clogs_chops_and_cuts_delay_what_is_written_and_change_nothing() {
    for seed in 0..100 {
        let mut world = stage_with(seed, 2, Setup::default());
        world.set_links(Links { loss_ppm: 200_000, chop_ppm: 500_000, ..Links::default() });
        does(&mut world, A, OUT, StreamAction::Connect { to: B });
        goes_on(&mut world, SECOND * 5);
        let written: Vec<u8> = (0..2_000_u32).map(|byte| byte as u8).collect();
        for part in written.chunks(100) {
            write(&mut world, A, OUT, part);
        }
        world.clog(A, B, SECOND * 2);
        let cut = world.partition(&[B], Ways::Both);
        goes_on(&mut world, SECOND * 10);
        assert_eq!(read(&world, B), [0; 0]);
        world.mend(cut);
        goes_on(&mut world, SECOND * 20);
        assert_eq!(read(&world, B), written, "seed {seed}");
    }
}

#[test]
fn a_writer_has_as_much_room_as_the_reader_has_read() {
    let (mut world, at_b) = connected();
    let room = Setup::default().window_bytes;
    does(&mut world, B, at_b, StreamAction::Pause);
    goes_on(&mut world, SECOND);
    write(&mut world, A, OUT, &vec![1; room]);
    goes_on(&mut world, SECOND * 100);
    assert_eq!(read(&world, B), [0; 0], "and nothing breaks: the peer is there, and slow");
    does(&mut world, B, at_b, StreamAction::Resume);
    goes_on(&mut world, SECOND);
    assert_eq!(read(&world, B).len(), room);
    assert_eq!(last(&world, A), Some(StreamEvent::Writable(room)));
    write(&mut world, A, OUT, &vec![1; room]);
    goes_on(&mut world, SECOND);
    write(&mut world, A, OUT, &vec![1; room + 1]);
    let error = world.run(SECOND, &mut Memory::default()).unwrap_err();
    let at = world.now();
    assert_eq!(error, Error::Overruns { at, node: A, bytes: room + 1, room });
}

#[test]
fn a_stream_finished_on_both_ends_is_over_and_nothing_written_before_is_lost() {
    let (mut world, at_b) = connected();
    write(&mut world, A, OUT, b"last words");
    does(&mut world, A, OUT, StreamAction::Finish);
    goes_on(&mut world, SECOND);
    assert_eq!(read(&world, B), b"last words");
    assert_eq!(last(&world, B), Some(StreamEvent::Finished));
    write(&mut world, B, at_b, b"mine");
    does(&mut world, B, at_b, StreamAction::Finish);
    goes_on(&mut world, SECOND);
    assert_eq!(read(&world, A), b"mine");
    assert_eq!(last(&world, A), Some(StreamEvent::Finished));
    // The name may be used again now.
    does(&mut world, A, OUT, StreamAction::Connect { to: B });
    goes_on(&mut world, SECOND);
    assert!(matches!(last(&world, A), Some(StreamEvent::Connected { .. })));
}

#[test]
fn an_abort_resets_the_other_end_and_is_not_told_to_the_one_who_did_it() {
    let (mut world, at_b) = connected();
    does(&mut world, A, OUT, StreamAction::Abort);
    write(&mut world, A, OUT, b"into nothing");
    goes_on(&mut world, SECOND);
    assert_eq!(events(&world, A).len(), 1);
    assert_eq!(last(&world, B), Some(StreamEvent::Broken(Broken::Reset)));
    write(&mut world, B, at_b, b"into nothing");
    goes_on(&mut world, SECOND);
    assert_eq!(read(&world, A), [0; 0]);
}

#[test]
fn nobody_listens_at_a_dead_process_and_nobody_answers_at_a_dark_host() {
    for (dark, why) in [(false, Broken::Refused), (true, Broken::TimedOut)] {
        let mut world = stage(2);
        if dark {
            world.power_cut(B);
        } else {
            world.kill(B);
        }
        does(&mut world, A, OUT, StreamAction::Connect { to: B });
        goes_on(&mut world, Setup::default().connect_timeout + SECOND);
        assert_eq!(last(&world, A), Some(StreamEvent::Broken(why)));
    }
}

#[test]
fn a_dial_into_a_cut_comes_through_when_it_is_mended_in_time_and_fails_when_not() {
    for (seconds, comes) in [(3, true), (30, false)] {
        let mut world = stage(2);
        let cut = world.partition(&[A], Ways::Both);
        does(&mut world, A, OUT, StreamAction::Connect { to: B });
        goes_on(&mut world, SECOND * seconds);
        world.mend(cut);
        goes_on(&mut world, SECOND * 5);
        let connected = matches!(last(&world, A), Some(StreamEvent::Connected { .. }));
        assert_eq!(connected, comes);
        assert_eq!(last(&world, A) == Some(StreamEvent::Broken(Broken::TimedOut)), !comes);
    }
}

#[test]
fn a_killed_process_leaves_a_finished_or_a_reset_stream_and_a_dark_host_leaves_nothing() {
    let (mut finished, mut reset) = (0, 0);
    for seed in 0..60 {
        let (mut world, at_b) = connected_on(stage_with(seed, 2, Setup::default()));
        let dark = seed % 3 == 0;
        if dark {
            world.power_cut(A);
        } else {
            world.kill(A);
        }
        goes_on(&mut world, SECOND * 5);
        match last(&world, B) {
            Some(StreamEvent::Finished) if !dark => finished += 1,
            Some(StreamEvent::Broken(Broken::Reset)) if !dark => reset += 1,
            Some(StreamEvent::Accepted { .. }) if dark => {
                // Half open, until it writes to a host that knows nothing of it.
                world.restart(A);
                write(&mut world, B, at_b, b"hello?");
                goes_on(&mut world, SECOND * 5);
                assert_eq!(last(&world, B), Some(StreamEvent::Broken(Broken::Reset)));
            }
            other => panic!("seed {seed}, dark {dark}: {other:?}"),
        }
    }
    assert!(finished > 5 && reset > 5, "{finished} {reset}");
}

#[test]
fn what_a_killed_process_had_written_arrives_before_its_end() {
    let found = (0..20).any(|seed| {
        let (mut world, _) = connected_on(stage_with(seed, 2, Setup::default()));
        write(&mut world, A, OUT, b"last words");
        goes_on(&mut world, Duration::from_nanos(1));
        world.kill(A);
        goes_on(&mut world, SECOND);
        let in_order = last(&world, B) == Some(StreamEvent::Finished);
        assert!(!in_order || read(&world, B) == b"last words");
        in_order
    });
    assert!(found);
}

#[test]
fn a_writer_into_a_cut_that_lasts_is_told_and_the_reader_is_not() {
    for ways in [Ways::Both, Ways::In, Ways::Out] {
        let (mut world, at_b) = connected();
        world.partition(&[A], ways);
        write(&mut world, A, OUT, b"into nothing");
        goes_on(&mut world, Setup::default().break_after + SECOND * 5);
        assert_eq!(last(&world, A), Some(StreamEvent::Broken(Broken::TimedOut)), "{ways:?}");
        // Only the way to A is cut in one case: then the words arrive, and nobody can say so.
        let arrives: &[u8] = if ways == Ways::In { b"into nothing" } else { b"" };
        assert_eq!(read(&world, B), arrives, "{ways:?}");
        assert!(!matches!(last(&world, B), Some(StreamEvent::Broken(_))));
        write(&mut world, B, at_b, b"still there?");
        goes_on(&mut world, Setup::default().break_after + SECOND * 5);
        assert!(matches!(last(&world, B), Some(StreamEvent::Broken(_))), "{ways:?}");
    }
}

#[test]
fn a_break_is_told_to_both_ends_and_what_was_read_is_a_beginning_of_what_was_written() {
    for seed in 0..100 {
        let (mut world, _) = connected_on(stage_with(seed, 2, Setup::default()));
        for part in 0..20 {
            write(&mut world, A, OUT, &[part; 10]);
        }
        goes_on(&mut world, Duration::from_nanos(1));
        world.break_any();
        goes_on(&mut world, SECOND * 60);
        for node in [A, B] {
            let told = events(&world, node)
                .into_iter()
                .filter(|(_, event)| matches!(event, StreamEvent::Broken(Broken::Reset)));
            assert_eq!(told.count(), 1, "seed {seed}: {node}");
        }
        let written: Vec<u8> = (0..20).flat_map(|part| [part; 10]).collect();
        assert!(written.starts_with(&read(&world, B)), "seed {seed}");
    }
}

#[test]
fn the_name_of_a_stream_is_checked() {
    let wrong = |prepare: &dyn Fn(&mut Stage)| {
        let (mut world, _) = connected();
        prepare(&mut world);
        match world.run(SECOND, &mut Memory::default()) {
            Err(Error::Stream { node: A, .. }) => {}
            other => panic!("{other:?}"),
        }
    };
    wrong(&|world| does(world, A, OUT, StreamAction::Connect { to: B }));
    wrong(&|world| does(world, A, StreamId::incoming(9), StreamAction::Connect { to: B }));
    wrong(&|world| {
        does(world, A, StreamId::outgoing(2), StreamAction::Connect { to: NodeId(99) });
    });
    wrong(&|world| {
        does(world, A, OUT, StreamAction::Finish);
        write(world, A, OUT, b"more");
    });
}

#[test]
fn a_node_can_stream_to_itself() {
    let mut world = stage(1);
    does(&mut world, A, OUT, StreamAction::Connect { to: A });
    goes_on(&mut world, SECOND);
    write(&mut world, A, OUT, b"note to self");
    goes_on(&mut world, SECOND);
    assert_eq!(read(&world, A), b"note to self");
}

#[test]
fn streams_that_are_gone_leave_nothing_behind() {
    for seed in 0..30 {
        let mut world = stage_with(seed, 4, Setup::default());
        let allowed = FaultSet::NETWORK | FaultSet::PROCESS;
        world.unleash(&Faults::drawn(seed, allowed));
        for number in 0..40 {
            let (from, to) = (NodeId(number % 4), NodeId(number % 3));
            let stream = StreamId::outgoing(number);
            does(&mut world, from, stream, StreamAction::Connect { to });
            goes_on(&mut world, Duration::from_millis(200));
            let room = events_room(&world, from, stream);
            write(&mut world, from, stream, &vec![1; room.min(1_000)]);
            goes_on(&mut world, Duration::from_millis(200));
        }
        world.heal();
        for node in world.nodes() {
            world.kill(node);
        }
        goes_on(&mut world, SECOND * 120);
        assert!(world.streams.are_none(), "seed {seed}");
    }
}

#[test]
fn the_next_life_of_a_process_may_name_its_streams_as_the_last_one_did() {
    for seed in 0..40 {
        let (mut world, at_b) = connected_on(stage_with(seed, 2, Setup::default()));
        does(&mut world, B, at_b, StreamAction::Finish);
        goes_on(&mut world, SECOND);
        // The end of the old stream is still on its way to B when the new one is dialled.
        world.kill(A);
        world.restart(A);
        does(&mut world, A, OUT, StreamAction::Connect { to: B });
        goes_on(&mut world, SECOND);
        let connected = StreamEvent::Connected { room: Setup::default().window_bytes };
        assert_eq!(events(&world, A), [(OUT, connected)], "seed {seed}");
        write(&mut world, A, OUT, b"new");
        goes_on(&mut world, SECOND);
        assert_eq!(read(&world, B), b"new");
        world.kill(A);
        world.restart(A);
        goes_on(&mut world, SECOND);
        assert_eq!(events(&world, A), [], "nothing of it reaches a later life");
    }
}

/// What a node may write, if it is up and connected.
fn events_room(world: &Stage, node: NodeId, stream: StreamId) -> usize {
    if world.node(node).is_none() {
        return 0;
    }
    let found = events(world, node).into_iter().find_map(|(name, event)| match event {
        StreamEvent::Connected { room } if name == stream => Some(room),
        _ => None,
    });
    found.unwrap_or(0)
}
