//! The world, with puppets for nodes: they do what they are told and remember what they are given.

mod faults;
mod speed;
mod streams;

use super::*;
use crate::{
    Chance, Fault, FaultSet, Input, Output, Storage, StreamAction, StreamId,
    limits::{OUTPUTS_PER_INPUT_MAX, WAKES_AT_ONE_TIME_MAX},
};
use std::collections::VecDeque;

pub(super) const A: NodeId = NodeId(0);
pub(super) const B: NodeId = NodeId(1);
pub(super) const C: NodeId = NodeId(2);

pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) type PuppetInput = Input<Vec<u8>, Order>;
pub(super) type PuppetOutput = Output<Vec<u8>, &'static str>;

/// What a puppet is told to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    Say(Vec<PuppetOutput>),
    WakeAt(Time),
    /// Do not forget the deadline when it comes.
    Spin,
    Save(&'static [u8]),
}

pub(super) struct Puppet {
    pub(super) inputs: Vec<(Now, PuppetInput)>,
    pub(super) restarts: u32,
    pub(super) found: Vec<u8>,
    disk: Disk,
    says: VecDeque<PuppetOutput>,
    wakes: Option<Time>,
    spins: bool,
}

impl Puppet {
    pub(super) fn new(boot: Boot) -> Self {
        let file = boot.disk.file("file");
        let mut found = vec![0; file.len().unwrap_or(0) as usize];
        let _ = file.read_at(0, &mut found);
        Self {
            inputs: Vec::new(),
            restarts: boot.restarts,
            found,
            disk: boot.disk,
            says: VecDeque::new(),
            wakes: None,
            spins: false,
        }
    }

    pub(super) fn messages(&self) -> Vec<&[u8]> {
        let messages = self.inputs.iter().filter_map(|(_, input)| match input {
            Input::Message { message, .. } => Some(&**message),
            _ => None,
        });
        messages.collect()
    }
}

impl Node for Puppet {
    type Message = Vec<u8>;
    type Command = Order;
    type Report = &'static str;

    fn handle(&mut self, now: Now, input: PuppetInput) {
        match &input {
            Input::Command(Order::Say(outputs)) => self.says.extend(outputs.iter().cloned()),
            Input::Command(Order::WakeAt(time)) => self.wakes = Some(*time),
            Input::Command(Order::Spin) => (self.wakes, self.spins) = (Some(now.monotonic), true),
            Input::Command(Order::Save(bytes)) => {
                let file = self.disk.file("file");
                let saved = file.write_at(0, bytes).and_then(|()| file.sync());
                self.says.push_back(Output::Report(if saved.is_ok() { "saved" } else { "failed" }));
            }
            Input::Tick if !self.spins => self.wakes = None,
            _ => {}
        }
        self.inputs.push((now, input));
    }

    fn poll(&mut self, _: Now) -> Option<PuppetOutput> {
        self.says.pop_front()
    }

    fn deadline(&self) -> Option<Time> {
        self.wakes
    }
}

pub(super) type Stage = World<Puppet>;

/// What a story of puppets remembers.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) happened: Vec<(Time, Happening<&'static str>)>,
}

impl Story<Puppet> for Memory {
    fn happens(&mut self, world: &mut Stage, what: Happening<&'static str>) -> Result<(), String> {
        self.happened.push((world.now(), what));
        Ok(())
    }
}

pub(super) fn stage_with(seed: u64, nodes: usize, setup: Setup) -> Stage {
    let mut world = World::new(seed, setup, Puppet::new);
    world.add_nodes(nodes);
    world
}

pub(super) fn stage(nodes: usize) -> Stage {
    stage_with(1, nodes, Setup::default())
}

pub(super) fn goes_on(world: &mut Stage, time: Duration) -> Memory {
    let mut memory = Memory::default();
    world.run(time, &mut memory).unwrap();
    memory
}

pub(super) fn puppet(world: &Stage, node: NodeId) -> &Puppet {
    world.node(node).expect("the puppet is up")
}

pub(super) fn says(world: &mut Stage, node: NodeId, output: PuppetOutput) {
    world.command(node, Order::Say(vec![output]));
}

pub(super) fn sends(world: &mut Stage, from: NodeId, to: NodeId, message: &[u8]) {
    says(world, from, Output::Send { to, message: message.to_vec() });
}

#[test]
fn a_message_arrives_within_the_latency_and_a_broadcast_everywhere_but_at_its_sender() {
    let mut world = stage(3);
    sends(&mut world, A, B, b"one");
    says(&mut world, C, Output::Broadcast(b"all".to_vec()));
    goes_on(&mut world, SECOND);
    assert_eq!(puppet(&world, A).messages(), [b"all"]);
    assert_eq!(puppet(&world, C).messages(), [b""; 0]);
    let mut at_b = puppet(&world, B).messages();
    at_b.sort_unstable();
    assert_eq!(at_b, [b"all", b"one"]);
    let (now, _) = puppet(&world, A).inputs[1];
    assert!((50_000..=700_000).contains(&now.monotonic.as_nanos()), "{now:?}");
}

#[test]
fn w1_one_seed_is_one_trace_and_another_seed_another() {
    let story = |seed| {
        let mut world = stage_with(seed, 5, Setup::default());
        let all = FaultSet::of(&Fault::ALL);
        world.unleash(&Faults::drawn(seed, all));
        for node in world.nodes() {
            says(&mut world, node, Output::Broadcast(vec![node.0 as u8; 100]));
            world.command(node, Order::Save(b"something"));
        }
        goes_on(&mut world, SECOND * 20);
        (world.trace_hash(), world.trace_records(), world.events())
    };
    for seed in 0..50 {
        assert_eq!(story(seed), story(seed));
    }
    assert_ne!(story(1), story(2));
}

#[test]
fn w1_reading_the_trace_does_not_change_it() {
    let story = |read: bool| {
        let mut world: Stage = World::new(1, Setup::default(), Puppet::new);
        if read {
            world.trace_to(|line| assert!(!line.is_empty()));
        }
        world.add_nodes(3);
        says(&mut world, A, Output::Broadcast(b"all".to_vec()));
        goes_on(&mut world, SECOND);
        world.trace_hash()
    };
    assert_eq!(story(true), story(false));
}

#[test]
fn w3_a_deadline_is_kept_by_the_nodes_own_clock_also_when_its_speed_changes() {
    let mut world = stage(1);
    world.drift(A, -500_000);
    world.command(A, Order::WakeAt(Time::START + SECOND));
    goes_on(&mut world, SECOND);
    assert_eq!(puppet(&world, A).inputs.len(), 1, "half of the time has passed");
    world.drift(A, 500_000);
    goes_on(&mut world, SECOND);
    let (now, input) = &puppet(&world, A).inputs[1];
    assert_eq!(*input, Input::Tick);
    let late = now.monotonic.since(Time::START + SECOND);
    assert!(late <= Duration::from_nanos(1), "a clock is read in whole nanoseconds: {late:?}");
    assert_eq!(world.clock(A).monotonic, Time::START + SECOND * 2);
}

#[test]
fn w3_a_node_that_always_wants_to_be_woken_at_once_is_told_apart() {
    let mut world = stage(1);
    world.command(A, Order::Spin);
    let error = world.run(SECOND, &mut Memory::default()).unwrap_err();
    let wakes = WAKES_AT_ONE_TIME_MAX + 1;
    assert_eq!(error, Error::Spins { at: Time::START, node: A, wakes });
    assert_eq!(puppet(&world, A).inputs.len(), 1 + WAKES_AT_ONE_TIME_MAX as usize);
}

#[test]
fn w3_a_node_may_say_so_much_for_one_input_and_not_one_more() {
    let mut world = stage(1);
    let mut say = |outputs| {
        world.command(A, Order::Say(vec![Output::Report("said"); outputs]));
        let mut memory = Memory::default();
        world.run(SECOND, &mut memory).map(|_| memory.happened.len())
    };
    assert_eq!(say(OUTPUTS_PER_INPUT_MAX), Ok(OUTPUTS_PER_INPUT_MAX));
    let outputs = OUTPUTS_PER_INPUT_MAX + 1;
    assert_eq!(say(outputs), Err(Error::Talks { at: Time::START + SECOND, node: A, outputs }));
}

#[test]
#[should_panic = "a world has room for"]
fn a_world_has_its_limit_of_nodes_and_not_one_more() {
    let mut world = World::new(1, Setup::default(), |_: Boot| Silent);
    world.add_nodes(NODES_MAX);
    assert_eq!(world.nodes().count(), NODES_MAX);
    world.add_nodes(1);
}

/// Does nothing, and has nothing.
pub(super) struct Silent;

impl Node for Silent {
    type Message = Vec<u8>;
    type Command = ();
    type Report = ();

    fn handle(&mut self, _: Now, _: Input<Vec<u8>, ()>) {}

    fn poll(&mut self, _: Now) -> Option<Output<Vec<u8>, ()>> {
        None
    }

    fn deadline(&self) -> Option<Time> {
        None
    }
}

#[test]
fn w4_what_is_meant_for_a_dead_process_does_not_reach_its_next_life() {
    let mut world = stage(2);
    world.command(B, Order::WakeAt(Time::START + SECOND));
    goes_on(&mut world, SECOND / 2);
    world.pause(B, SECOND * 9);
    sends(&mut world, A, B, b"held");
    goes_on(&mut world, SECOND);
    world.kill(B);
    sends(&mut world, A, B, b"too late");
    goes_on(&mut world, SECOND);
    world.restart(B);
    sends(&mut world, A, B, b"in time");
    let memory = goes_on(&mut world, SECOND * 10);
    assert_eq!(puppet(&world, B).restarts, 1);
    assert_eq!(puppet(&world, B).messages(), [b"in time"]);
    assert_eq!(puppet(&world, B).inputs.len(), 1, "its deadline died with it");
    assert_eq!(memory.happened[0].1, Happening::Restarted(B));
}

#[test]
fn what_comes_to_a_process_that_stands_still_waits_in_order() {
    let mut world = stage(2);
    world.pause(B, SECOND);
    for number in 0..20 {
        sends(&mut world, A, B, &[number]);
        goes_on(&mut world, Duration::from_millis(10));
    }
    assert!(puppet(&world, B).inputs.is_empty());
    goes_on(&mut world, SECOND);
    let inputs = &puppet(&world, B).inputs;
    assert!(inputs.iter().all(|(now, _)| now.monotonic == Time::START + SECOND));
    let expected: Vec<_> = (0..20).map(|number| vec![number]).collect();
    assert_eq!(puppet(&world, B).messages(), expected);
}

#[test]
fn a_process_waits_for_its_disk_and_says_nothing_before() {
    let mut world = stage(1);
    let slow = DiskFaultsOf { sync_time: SECOND, ..DiskFaultsOf::NONE };
    world.disk(A).set_faults(slow);
    world.command(A, Order::Save(b"something"));
    goes_on(&mut world, Duration::from_millis(1));
    sends(&mut world, A, A, b"later");
    let memory = goes_on(&mut world, SECOND);
    let (saved_at, what) = memory.happened[0].clone();
    assert_eq!(what, Happening::Report { node: A, report: "saved" });
    assert!(saved_at >= Time::START + SECOND / 4, "{saved_at}");
    let (told, _) = puppet(&world, A).inputs[1];
    assert!(told.monotonic >= saved_at, "it could not take anything in before");
}

#[test]
fn what_a_process_says_later_does_not_overtake_what_waits_for_its_disk() {
    let mut world = stage(1);
    let slow = DiskFaultsOf { sync_time: SECOND, ..DiskFaultsOf::NONE };
    world.disk(A).set_faults(slow);
    world.command(A, Order::Save(b"something"));
    goes_on(&mut world, Duration::from_millis(1));
    // Both are due in the same moment: this, and that the disk is done.
    world.command(A, Order::Say(vec![Output::Report("later")]));
    world.heal();
    let memory = goes_on(&mut world, SECOND);
    let said: Vec<_> = memory.happened.into_iter().map(|(_, what)| what).collect();
    let report = |report| Happening::Report { node: A, report };
    assert_eq!(said, [report("saved"), report("later")]);
}

type DiskFaultsOf = crate::DiskFaults;

#[test]
fn the_story_ends_the_run_when_it_finds_something_wrong() {
    let mut world = stage(1);
    world.alarm(SECOND, 7);
    let mut story = |_: &mut Stage, what: Happening<_>| Err(format!("{what:?}"));
    let error = world.run(SECOND * 2, &mut story).unwrap_err();
    let at = Time::START + SECOND;
    assert_eq!(error, Error::Failed { at, what: "Alarm(7)".into() });
}

#[test]
fn a_run_ends_as_soon_as_it_is_done_or_its_time_is_over() {
    let mut world = stage(1);
    world.alarm(SECOND, 1);
    world.alarm(SECOND * 2, 2);
    let done = |memory: &Memory, _: &Stage| memory.happened.len() == 1;
    let ended = world.run_until(SECOND * 5, &mut Memory::default(), done).unwrap();
    assert_eq!((ended, world.now()), ((true, 1), Time::START + SECOND));
    let ended = world.run_until(SECOND * 5, &mut Memory::default(), |_, _| false).unwrap();
    assert_eq!((ended, world.now()), ((false, 1), Time::START + SECOND * 6));
}
