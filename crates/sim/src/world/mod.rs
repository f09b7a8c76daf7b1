//! The world itself: one thread, one queue, one seed.
//!
//! W1. A run is decided by its seed and by what the story does: the same again gives the same
//!     trace, record for record. No clock, no thread, no address and no hash order takes part.
//! W2. Time never goes back, and goes on only between events.
//! W3. The drain contract: after each input a node is polled until it is silent, then asked for
//!     its deadline; a deadline is kept by the node's own clock.
//! W4. A process that has ended is silent: what it had not given out is lost, and what was meant
//!     for it does not reach its next life, except a message still on its way.
//! W5. After [`World::heal`] every node is up, every link is good and every disk works; what was
//!     delayed arrives.
//! W6. A stream delivers what was written, in order, once, or breaks; see the streams' own file.

mod drive;
mod nemesis;
mod story;
mod stream;

#[cfg(test)]
mod tests;

use crate::{
    Boot, Disk, Error, Faults, Links, Node, NodeId, Now, PartitionId, Result, Time, Ways,
    clock::Clock, limits::NODES_MAX, net::Net, queue::Queue, random::stream as numbers,
    trace::Trace,
};
use mainstay_base::mix64;
use std::{collections::VecDeque, fmt, time::Duration};
use stream::Streams;

pub use story::{Happening, Setup, Story};

type Making<N> = Box<dyn FnMut(Boot) -> N>;

/// A world of nodes, links, disks and clocks, whose whole story is decided by a seed.
///
/// ```
/// use mainstay_sim::{Boot, FaultSet, Faults, Happening, Setup, World, example::Register};
/// use std::time::Duration;
///
/// fn story(seed: u64) -> Result<u64, mainstay_sim::Error> {
///     let mut world = World::new(seed, Setup::default(), |boot: Boot| Register::new(boot, 3));
///     world.add_nodes(3);
///     world.unleash(&Faults::drawn(seed, FaultSet::NETWORK | FaultSet::PROCESS));
///     world.run(Duration::from_secs(10), &mut |_: &mut World<_>, _: Happening<_>| Ok(()))?;
///     Ok(world.trace_hash())
/// }
/// assert_eq!(story(7)?, story(7)?);
/// # Ok::<(), mainstay_sim::Error>(())
/// ```
pub struct World<N: Node> {
    seed: u64,
    setup: Setup,
    now: Time,
    queue: Queue<Event<N::Message, N::Command>>,
    places: Vec<Place<N>>,
    net: Net,
    streams: Streams,
    faults: Faults,
    /// Counts changes of the faults, so that those planned before are not carried out after.
    weather: u64,
    fault_rng: mainstay_base::Rng,
    trace: Trace,
    happenings: VecDeque<Happening<N::Report>>,
    make: Making<N>,
    /// Room for outputs, kept so that draining a node allocates nothing.
    outputs: Vec<crate::Output<N::Message, N::Report>>,
    messages: u64,
    events: u64,
    failure: Option<Error>,
}

/// A host, and the process on it.
struct Place<N: Node> {
    process: Option<N>,
    /// Without power.
    dark: bool,
    restarts: u32,
    clock: Clock,
    disk: Disk,
    /// The wake-up that waits in the queue, and its number: another number is out of date.
    armed: Option<Time>,
    armed_number: u64,
    wakes: u32,
    woken_at: Time,
    /// The process stands still, or waits for its disk, until then.
    busy_until: Time,
    /// What came meanwhile.
    held: VecDeque<Event<N::Message, N::Command>>,
    /// What it will give out then.
    outputs: Vec<crate::Output<N::Message, N::Report>>,
    /// How it dies, when its disk says that it does or it has taken in a number of inputs.
    doom: Option<Doom>,
    inputs_left: Option<u64>,
    start_planned: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Doom {
    Kill,
    PowerCut,
}

enum Event<M, C> {
    Message { to: NodeId, from: NodeId, number: u64, message: M },
    Wake { node: NodeId, number: u64 },
    Command { to: NodeId, command: C },
    Alarm(u64),
    Free(NodeId),
    Start(NodeId),
    Dial { stream: u64 },
    Dialled { stream: u64 },
    GiveUp { stream: u64 },
    Pump { stream: u64, from: usize },
    Room { stream: u64, to: usize },
    Break { stream: u64, end: usize, why: crate::Broken },
    Weather { number: u64, fault: crate::Fault },
    Mend(PartitionId),
}

/// What is recorded, as a number in the trace.
#[derive(Clone, Copy)]
enum Fact {
    Start = 1,
    End,
    Send,
    Lose,
    Deliver,
    Tick,
    Command,
    Report,
    Note,
    Fault,
    Stream,
    Alarm,
}

impl<N: Node> World<N> {
    /// An empty world. `make` makes the nodes, at first and after each of their crashes.
    ///
    /// Example: see [`World`].
    #[must_use]
    pub fn new(seed: u64, setup: Setup, make: impl FnMut(Boot) -> N + 'static) -> Self {
        Self {
            seed,
            now: Time::START,
            queue: Queue::new(),
            places: Vec::new(),
            net: Net::new(seed, setup.links),
            streams: Streams::default(),
            faults: Faults::none(),
            weather: 0,
            fault_rng: numbers(seed, "faults"),
            trace: Trace::new(seed),
            happenings: VecDeque::new(),
            make: Box::new(make),
            outputs: Vec::new(),
            messages: 0,
            events: 0,
            failure: None,
            setup,
        }
    }

    /// Hands each line of the trace to `sink` from now on. Lines are made only for this; the
    /// number is the same without.
    ///
    /// ```
    /// use mainstay_sim::{Boot, Setup, World, example::Register};
    /// let (send, lines) = std::sync::mpsc::channel();
    /// let mut world = World::new(7, Setup::default(), |boot: Boot| Register::new(boot, 1));
    /// world.trace_to(move |line| send.send(line.to_owned()).expect("the test reads"));
    /// world.add_nodes(1);
    /// assert_eq!(lines.recv().as_deref(), Ok("0.000000000 n0 starts"));
    /// ```
    pub fn trace_to(&mut self, sink: impl FnMut(&str) + 'static) {
        self.trace.set_sink(Box::new(sink));
    }

    /// Adds nodes, and starts them. Returns the first one's id; the others follow.
    ///
    /// Example: see [`World`].
    ///
    /// # Panics
    /// If there would be more than [`limits::NODES_MAX`](crate::limits::NODES_MAX).
    pub fn add_nodes(&mut self, count: usize) -> NodeId {
        let first = self.places.len();
        assert!(first + count <= NODES_MAX, "a world has room for {NODES_MAX} nodes");
        for index in first..first + count {
            let id = NodeId(index as u32);
            let disk = Disk::new(mix64(self.seed ^ u64::from(id.0)));
            disk.set_faults(self.faults.disks);
            self.places.push(Place {
                process: None,
                dark: false,
                restarts: 0,
                clock: Clock::new(self.now, self.setup.wall_unix_ns),
                disk,
                armed: None,
                armed_number: 0,
                wakes: 0,
                woken_at: Time::START,
                busy_until: Time::START,
                held: VecDeque::new(),
                outputs: Vec::new(),
                doom: None,
                inputs_left: None,
                start_planned: false,
            });
            self.start(id);
        }
        NodeId(first as u32)
    }

    /// What time it is, on no node's clock.
    ///
    /// Example: see [`World::run`].
    #[must_use]
    pub fn now(&self) -> Time {
        self.now
    }

    /// What a node's own clocks show.
    ///
    /// ```
    /// use mainstay_sim::{Boot, Setup, Time, World, example::Register};
    /// let mut world = World::new(7, Setup::default(), |boot: Boot| Register::new(boot, 1));
    /// let node = world.add_nodes(1);
    /// assert_eq!(world.clock(node).monotonic, Time::START);
    /// ```
    ///
    /// # Panics
    /// If there is no such node, as all calls that name one.
    #[must_use]
    pub fn clock(&self, node: NodeId) -> Now {
        self.places[node.index()].clock.now(self.now)
    }

    /// All nodes, up or not.
    ///
    /// ```
    /// use mainstay_sim::{Boot, Setup, World, example::Register};
    /// let mut world = World::new(7, Setup::default(), |boot: Boot| Register::new(boot, 3));
    /// world.add_nodes(3);
    /// assert_eq!(world.nodes().count(), 3);
    /// ```
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + use<N> {
        (0..self.places.len() as u32).map(NodeId)
    }

    /// The process of a node, if it is up: for checks that look inside.
    ///
    /// ```
    /// use mainstay_sim::{Boot, Setup, World, example::Register};
    /// let mut world = World::new(7, Setup::default(), |boot: Boot| Register::new(boot, 1));
    /// let node = world.add_nodes(1);
    /// assert!(world.node(node).is_some());
    /// world.kill(node);
    /// assert!(world.node(node).is_none());
    /// ```
    #[must_use]
    pub fn node(&self, node: NodeId) -> Option<&N> {
        self.places[node.index()].process.as_ref()
    }

    /// The disk of a node.
    ///
    /// ```
    /// use mainstay_sim::{Boot, Setup, World, example::Register};
    /// let mut world = World::new(7, Setup::default(), |boot: Boot| Register::new(boot, 1));
    /// let node = world.add_nodes(1);
    /// assert_eq!(world.disk(node).names(), ["register"]);
    /// ```
    #[must_use]
    pub fn disk(&self, node: NodeId) -> &Disk {
        &self.places[node.index()].disk
    }

    /// Tells a node something, now. A node that is down does not hear it.
    ///
    /// ```
    /// use mainstay_sim::{Boot, Happening, Setup, World, example::{Register, Wish}};
    /// use std::time::Duration;
    /// let mut world = World::new(7, Setup::default(), |boot: Boot| Register::new(boot, 1));
    /// let node = world.add_nodes(1);
    /// world.command(node, Wish::Read);
    /// let mut answers = 0;
    /// world.run(Duration::from_secs(1), &mut |_: &mut World<_>, _: Happening<_>| {
    ///     answers += 1;
    ///     Ok(())
    /// })?;
    /// assert_eq!(answers, 1);
    /// # Ok::<(), mainstay_sim::Error>(())
    /// ```
    pub fn command(&mut self, node: NodeId, command: N::Command) {
        self.queue.push(self.now, Event::Command { to: node, command });
    }

    /// Tells the story in `after` from now that it is time, with a number to know it by.
    ///
    /// ```
    /// use mainstay_sim::{Boot, Happening, Setup, Time, World, example::Register};
    /// use std::time::Duration;
    /// let mut world = World::new(7, Setup::default(), |boot: Boot| Register::new(boot, 1));
    /// world.alarm(Duration::from_secs(3), 42);
    /// world.run(Duration::from_secs(9), &mut |world: &mut World<_>, what: Happening<_>| {
    ///     assert_eq!(what, Happening::Alarm(42));
    ///     assert_eq!(world.now().to_string(), "3.000000000");
    ///     Ok(())
    /// })?;
    /// # Ok::<(), mainstay_sim::Error>(())
    /// ```
    pub fn alarm(&mut self, after: Duration, number: u64) {
        self.queue.push(self.now + after, Event::Alarm(number));
    }

    /// Goes on for some time. Returns how many events there were.
    ///
    /// ```
    /// use mainstay_sim::{Boot, Happening, Setup, World, example::Register};
    /// use std::time::Duration;
    /// let mut world = World::new(7, Setup::default(), |boot: Boot| Register::new(boot, 1));
    /// world.run(Duration::from_secs(9), &mut |_: &mut World<_>, _: Happening<_>| Ok(()))?;
    /// assert_eq!(world.now().to_string(), "9.000000000");
    /// # Ok::<(), mainstay_sim::Error>(())
    /// ```
    ///
    /// # Errors
    /// What the story finds wrong, and what breaks the rules of the world.
    pub fn run(&mut self, time: Duration, story: &mut impl Story<N>) -> Result<u64> {
        self.run_until(time, story, |_, _| false).map(|(_, events)| events)
    }

    /// Goes on until `done` says so, but no longer than `time`. Returns whether it did, and how
    /// many events there were.
    ///
    /// ```
    /// use mainstay_sim::{Boot, Happening, Setup, World, example::Register};
    /// use std::time::Duration;
    /// let mut world = World::new(7, Setup::default(), |boot: Boot| Register::new(boot, 1));
    /// world.alarm(Duration::from_secs(3), 42);
    /// let mut story = |_: &mut World<_>, _: Happening<_>| Ok(());
    /// let (done, _) = world.run_until(Duration::from_secs(9), &mut story, |_, world| {
    ///     world.now().to_string() == "3.000000000"
    /// })?;
    /// assert!(done);
    /// # Ok::<(), mainstay_sim::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`World::run`].
    pub fn run_until<S: Story<N>>(
        &mut self,
        time: Duration,
        story: &mut S,
        mut done: impl FnMut(&S, &Self) -> bool,
    ) -> Result<(bool, u64)> {
        let until = self.now + time;
        let before = self.events;
        loop {
            self.tell(story)?;
            if done(story, self) {
                return Ok((true, self.events - before));
            }
            if !self.step(until)? {
                self.now = until;
                return Ok((false, self.events - before));
            }
        }
    }

    fn tell(&mut self, story: &mut impl Story<N>) -> Result<()> {
        let at = self.now;
        let failed = |what| Error::Failed { at, what };
        while let Some(what) = self.happenings.pop_front() {
            story.happens(self, what).map_err(failed)?;
        }
        story.check(self).map_err(failed)
    }

    /// Carries out the next event, if it is due by `until`.
    fn step(&mut self, until: Time) -> Result<bool> {
        let Some((at, event)) = self.queue.pop(until) else { return Ok(false) };
        debug_assert!(at >= self.now, "W2");
        self.now = at;
        self.events += 1;
        self.carry_out(event);
        if self.queue.is_flooded() {
            self.fail(Error::Flooded { at, waiting: self.queue.waiting() });
        }
        match self.failure.take() {
            None => Ok(true),
            Some(failure) => Err(failure),
        }
    }

    /// The first failure is the one that counts.
    fn fail(&mut self, error: Error) {
        self.failure.get_or_insert(error);
    }

    /// A number that tells this run from every other: two runs of a seed have the same.
    ///
    /// Example: see [`World`].
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.trace.hash()
    }

    /// How many records the trace has.
    ///
    /// ```
    /// use mainstay_sim::{Boot, Setup, World, example::Register};
    /// let mut world = World::new(7, Setup::default(), |boot: Boot| Register::new(boot, 1));
    /// world.add_nodes(1);
    /// assert_eq!(world.trace_records(), 1);
    /// ```
    #[must_use]
    pub fn trace_records(&self) -> u64 {
        self.trace.records()
    }

    /// How many events there were since the beginning.
    ///
    /// ```
    /// use mainstay_sim::{Boot, Happening, Setup, World, example::Register};
    /// use std::time::Duration;
    /// let mut world = World::new(7, Setup::default(), |boot: Boot| Register::new(boot, 1));
    /// world.alarm(Duration::from_secs(3), 42);
    /// world.run(Duration::from_secs(9), &mut |_: &mut World<_>, _: Happening<_>| Ok(()))?;
    /// assert_eq!(world.events(), 1);
    /// # Ok::<(), mainstay_sim::Error>(())
    /// ```
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Writes a line of the story into the trace.
    ///
    /// ```
    /// use mainstay_sim::{Boot, Setup, World, example::Register};
    /// let mut world = World::new(7, Setup::default(), |boot: Boot| Register::new(boot, 1));
    /// let before = world.trace_hash();
    /// world.note("client 3 gives up");
    /// assert_ne!(world.trace_hash(), before);
    /// ```
    pub fn note(&mut self, what: &str) {
        let facts = [Fact::Note as u64, u64::MAX, crate::digest(what.as_bytes()), 0];
        self.trace.record(self.now, facts, || what.to_owned());
    }

    /// Sets what all links are like from now on, but those of [`World::set_link`].
    ///
    /// Example: see [`World::set_link`].
    pub fn set_links(&mut self, links: Links) {
        self.net.set_links(links);
    }

    /// Sets what the link from one node to another is like from now on, whatever the others are.
    ///
    /// ```
    /// use mainstay_sim::{Boot, Links, NodeId, Setup, World, example::Register};
    /// let mut world = World::new(7, Setup::default(), |boot: Boot| Register::new(boot, 3));
    /// world.add_nodes(3);
    /// world.set_links(Links { loss_ppm: 10_000, ..Links::default() });
    /// world.set_link(NodeId(0), NodeId(1), Links { loss_ppm: 900_000, ..Links::default() });
    /// ```
    pub fn set_link(&mut self, from: NodeId, to: NodeId, links: Links) {
        self.net.set_link(from, to, links);
    }

    /// Cuts the nodes named off from all others.
    ///
    /// ```
    /// use mainstay_sim::{Boot, NodeId, Setup, Ways, World, example::Register};
    /// let mut world = World::new(7, Setup::default(), |boot: Boot| Register::new(boot, 3));
    /// world.add_nodes(3);
    /// let cut = world.partition(&[NodeId(0)], Ways::Both);
    /// world.mend(cut);
    /// ```
    pub fn partition(&mut self, named: &[NodeId], ways: Ways) -> PartitionId {
        let cut = self.net.cut(self.places.len(), named, ways);
        let names = || named.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        self.fault(named.len() as u64, || format!("partition {ways:?}: {}", names()));
        cut
    }

    /// Ends a partition.
    ///
    /// Example: see [`World::partition`].
    pub fn mend(&mut self, partition: PartitionId) {
        self.net.mend(partition);
        self.fault(0, || "partition mended".into());
    }

    /// Lets what goes from one node to another stand still for some time, and arrive then.
    ///
    /// ```
    /// use mainstay_sim::{Boot, NodeId, Setup, World, example::Register};
    /// use std::time::Duration;
    /// let mut world = World::new(7, Setup::default(), |boot: Boot| Register::new(boot, 3));
    /// world.add_nodes(3);
    /// world.clog(NodeId(0), NodeId(1), Duration::from_secs(5));
    /// ```
    pub fn clog(&mut self, from: NodeId, to: NodeId, time: Duration) {
        self.net.clog(from, to, self.now + time);
        let pair = u64::from(from.0) << 32 | u64::from(to.0);
        self.fault(pair, || format!("{from} -> {to} is clogged for {time:?}"));
    }

    /// Notes a fault in the trace.
    fn fault(&mut self, about: u64, line: impl FnOnce() -> String) {
        self.trace
            .record(self.now, [Fact::Fault as u64, about, 0, 0], || format!("fault: {}", line()));
    }
}

impl<N: Node> fmt::Debug for World<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("seed", &self.seed)
            .field("now", &self.now)
            .field("nodes", &self.places.len())
            .field("events", &self.events)
            .finish_non_exhaustive()
    }
}
