//! Driving the nodes: events become inputs, outputs become events.

use super::{Doom, Event, Fact, Happening, Place, World};
use crate::{
    Boot, Error, Input, Node, NodeId, Output, Payload, Time, digest,
    limits::{OUTPUTS_PER_INPUT_MAX, WAKES_AT_ONE_TIME_MAX},
    random::stream,
};
use mainstay_base::mix64;
use std::{collections::VecDeque, time::Duration};

type EventOf<N> = Event<<N as Node>::Message, <N as Node>::Command>;
type InputOf<N> = Input<<N as Node>::Message, <N as Node>::Command>;
type OutputOf<N> = Output<<N as Node>::Message, <N as Node>::Report>;

impl<M, C> Event<M, C> {
    /// The process that has to be awake for it, where that can be told from the event alone.
    fn wants(&self) -> Option<NodeId> {
        match self {
            Self::Message { to, .. } | Self::Command { to, .. } => Some(*to),
            Self::Wake { node, .. } => Some(*node),
            _ => None,
        }
    }
}

impl<N: Node> World<N> {
    pub(super) fn carry_out(&mut self, event: EventOf<N>) {
        let wants = event.wants().or_else(|| self.wanted_by_stream(&event));
        if let Some(node) = wants.filter(|node| self.place(*node).is_busy(self.now)) {
            self.hold(node, event);
            return;
        }
        match event {
            Event::Message { to, from, number, message } => {
                self.deliver(to, from, number, message);
            }
            Event::Wake { node, number } => self.wake(node, number),
            Event::Command { to, command } => {
                let facts = [Fact::Command as u64, u64::from(to.0), 0, 0];
                self.trace.record(self.now, facts, || format!("{to} is told something"));
                self.input(to, Input::Command(command));
            }
            Event::Alarm(number) => {
                let facts = [Fact::Alarm as u64, number, 0, 0];
                self.trace.record(self.now, facts, || format!("alarm {number}"));
                self.happenings.push_back(Happening::Alarm(number));
            }
            Event::Free(node) => self.free(node),
            Event::Start(node) => self.start_as_planned(node),
            Event::Dial { stream } => self.dial(stream),
            Event::Dialled { stream } => self.dialled(stream),
            Event::GiveUp { stream } => self.give_up(stream),
            Event::Pump { stream, from } => self.pump(stream, from),
            Event::Room { stream, to } => self.room(stream, to),
            Event::Break { stream, end, why } => self.tell_broken(stream, end, why),
            Event::Weather { number, fault } => self.weather(number, fault),
            Event::Mend(partition) => self.mend(partition),
        }
    }

    pub(super) fn place(&self, node: NodeId) -> &Place<N> {
        &self.places[node.index()]
    }

    pub(super) fn place_mut(&mut self, node: NodeId) -> &mut Place<N> {
        &mut self.places[node.index()]
    }

    /// A process that stands still gets it when it goes on.
    fn hold(&mut self, node: NodeId, event: EventOf<N>) {
        self.place_mut(node).held.push_back(event);
    }

    /// The process stands still for `time` from now. An event will free it.
    pub(super) fn occupy(&mut self, node: NodeId, time: Duration) {
        let until = self.now + time;
        let place = self.place_mut(node);
        if until > place.busy_until {
            place.busy_until = until;
            self.queue.push(until, Event::Free(node));
        }
    }

    /// Gives out what waited for the disk, then takes in what came meanwhile.
    fn free(&mut self, node: NodeId) {
        let now = self.now;
        let place = self.place_mut(node);
        if now < place.busy_until {
            return;
        }
        let outputs = std::mem::take(&mut place.outputs);
        self.give_out(node, outputs);
        // One by one: each may stop the process again.
        while self.now >= self.place(node).busy_until {
            let Some(event) = self.place_mut(node).held.pop_front() else { break };
            let rest = std::mem::take(&mut self.place_mut(node).held);
            self.carry_out(event);
            if self.place(node).process.is_some() {
                self.place_mut(node).held.extend(rest);
            } else {
                self.let_go(rest);
            }
        }
    }

    /// W4. What was meant for a process that has ended is lost; what its host does goes on.
    fn let_go(&mut self, held: VecDeque<EventOf<N>>) {
        for event in held {
            if event.wants().is_none() {
                self.queue.push(self.now, event);
            }
        }
    }

    fn deliver(&mut self, to: NodeId, from: NodeId, number: u64, message: N::Message) {
        let up = self.place(to).process.is_some();
        let fact = if up { Fact::Deliver } else { Fact::Lose };
        let facts = [fact as u64, u64::from(to.0), number, 0];
        self.trace.record(self.now, facts, || {
            let why = if up { "" } else { " is lost: the process is down" };
            format!("{to} <- {from} #{number}{why}")
        });
        if up {
            self.input(to, Input::Message { from, message });
        }
    }

    fn wake(&mut self, node: NodeId, number: u64) {
        let now = self.now;
        let place = self.place_mut(node);
        if place.armed_number != number {
            return;
        }
        place.armed = None;
        let deadline = place.process.as_ref().and_then(Node::deadline);
        let Some(deadline) = deadline else { return };
        if place.clock.when(deadline) > now {
            self.arm(node);
            return;
        }
        if place.woken_at != now {
            (place.woken_at, place.wakes) = (now, 0);
        }
        place.wakes += 1;
        if place.wakes > WAKES_AT_ONE_TIME_MAX {
            let wakes = place.wakes;
            self.fail(Error::Spins { at: now, node, wakes });
            return;
        }
        let facts = [Fact::Tick as u64, u64::from(node.0), 0, 0];
        self.trace.record(now, facts, || format!("{node} wakes up"));
        self.input(node, Input::Tick);
    }

    /// Hands one input to a node that is up and awake, and drains it.
    pub(super) fn input(&mut self, node: NodeId, input: InputOf<N>) {
        let now = self.now;
        let place = self.place_mut(node);
        let Some(process) = &mut place.process else { return };
        process.handle(place.clock.now(now), input);
        self.drain(node);
    }

    /// W3.
    fn drain(&mut self, node: NodeId) {
        let mut outputs = std::mem::take(&mut self.outputs);
        let now = self.now;
        let place = self.place_mut(node);
        let clocks = place.clock.now(now);
        if let Some(process) = &mut place.process {
            while let Some(output) = process.poll(clocks) {
                outputs.push(output);
                if outputs.len() > OUTPUTS_PER_INPUT_MAX {
                    let outputs = outputs.len();
                    self.fail(Error::Talks { at: now, node, outputs });
                    return;
                }
            }
        }
        if self.dies_while_speaking(node) {
            let said = self.fault_rng.below(outputs.len() as u64 + 1) as usize;
            outputs.truncate(said);
            self.give_out(node, outputs);
            let doom = self.place(node).doom.unwrap_or(Doom::Kill);
            self.fall(node, doom);
            return;
        }
        let place = self.place_mut(node);
        let (busy, died) = place.disk.look();
        if died {
            // It died in the middle: nothing of what it was about to say is heard.
            outputs.clear();
            let doom = place.doom.unwrap_or(Doom::Kill);
            self.fall(node, doom);
        } else if busy > Duration::ZERO {
            place.outputs.append(&mut outputs);
            self.occupy(node, busy);
        } else {
            outputs = self.give_out(node, outputs);
        }
        self.outputs = outputs;
        self.arm(node);
    }

    /// Some of what it was about to say is heard, and the rest is not.
    fn dies_while_speaking(&mut self, node: NodeId) -> bool {
        let place = self.place_mut(node);
        let Some(left) = &mut place.inputs_left else { return false };
        *left = left.saturating_sub(1);
        *left == 0 && place.process.is_some()
    }

    /// Sees to it that the node is woken at its deadline.
    pub(super) fn arm(&mut self, node: NodeId) {
        let now = self.now;
        let place = self.place_mut(node);
        let Some(deadline) = place.process.as_ref().and_then(Node::deadline) else { return };
        let when = place.clock.when(deadline).max(now);
        // An earlier wake-up looks at the deadline again: no need for a second one.
        if place.armed.is_some_and(|armed| armed <= when) {
            return;
        }
        place.armed = Some(when);
        place.armed_number += 1;
        let number = place.armed_number;
        self.queue.push(when, Event::Wake { node, number });
    }

    fn give_out(&mut self, node: NodeId, mut outputs: Vec<OutputOf<N>>) -> Vec<OutputOf<N>> {
        for output in outputs.drain(..) {
            match output {
                Output::Send { to, message } => self.send(node, to, message),
                Output::Broadcast(message) => self.broadcast(node, &message),
                Output::Stream { stream, action } => self.act(node, stream, action),
                Output::Report(report) => {
                    let facts = [Fact::Report as u64, u64::from(node.0), 0, 0];
                    self.trace.record(self.now, facts, || format!("{node} reports"));
                    self.happenings.push_back(Happening::Report { node, report });
                }
                Output::Note(what) => {
                    let digest = digest(what.as_bytes());
                    let facts = [Fact::Note as u64, u64::from(node.0), digest, 0];
                    self.trace.record(self.now, facts, || format!("{node}: {what}"));
                }
                Output::Exit(why) => {
                    self.note(&format!("{node} gives up: {why}"));
                    self.fall(node, Doom::Kill);
                    break;
                }
            }
        }
        outputs
    }

    fn number(&mut self, from: NodeId, to: Option<NodeId>, message: &N::Message) -> u64 {
        self.messages += 1;
        let number = self.messages;
        let target = to.map_or(u64::MAX, |to| u64::from(to.0));
        let facts = [Fact::Send as u64, u64::from(from.0), target, message.digest()];
        self.trace.record(self.now, facts, || {
            let to = to.map_or("all".to_owned(), |to| to.to_string());
            format!("{from} -> {to} #{number} {}", message.show())
        });
        number
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: N::Message) {
        let number = self.number(from, Some(to), &message);
        self.send_one(from, to, number, message.size_bytes(), &message);
    }

    fn broadcast(&mut self, from: NodeId, message: &N::Message) {
        let number = self.number(from, None, message);
        let bytes = message.size_bytes();
        for to in self.nodes().filter(|to| *to != from) {
            self.send_one(from, to, number, bytes, message);
        }
    }

    fn send_one(
        &mut self,
        from: NodeId,
        to: NodeId,
        number: u64,
        bytes: usize,
        message: &N::Message,
    ) {
        if to.index() >= self.places.len() {
            return;
        }
        let fate = self.net.fate(self.now, from, to, bytes);
        let [once, again] = fate.arrivals;
        let message =
            if fate.damaged { message.damaged(self.net.rng()) } else { Some(message.clone()) };
        let (Some(once), Some(message)) = (once, message) else {
            let facts = [Fact::Lose as u64, u64::from(to.0), number, 1];
            self.trace.record(self.now, facts, || format!("{from} -x {to} #{number} is lost"));
            return;
        };
        if let Some(again) = again {
            let message = message.clone();
            self.queue.push(again, Event::Message { to, from, number, message });
        }
        self.queue.push(once, Event::Message { to, from, number, message });
    }

    /// Starts a process where there is none.
    pub(super) fn start(&mut self, node: NodeId) {
        let (now, seed) = (self.now, self.seed);
        let place = self.place_mut(node);
        debug_assert!(place.process.is_none(), "W4: one process at a time");
        place.dark = false;
        let restarts = place.restarts;
        let life = u64::from(node.0) << 32 | u64::from(restarts);
        let boot = Boot {
            id: node,
            restarts,
            now: place.clock.now(now),
            disk: place.disk.clone(),
            rng: stream(mix64(seed ^ mix64(life)), "node"),
        };
        let facts = [Fact::Start as u64, u64::from(node.0), u64::from(restarts), 0];
        self.trace.record(now, facts, || {
            let again = if restarts > 0 { " again" } else { "" };
            format!("{node} starts{again}")
        });
        let process = (self.make)(boot);
        self.place_mut(node).process = Some(process);
        self.drain(node);
    }

    fn start_as_planned(&mut self, node: NodeId) {
        let place = self.place_mut(node);
        if !place.start_planned {
            return;
        }
        place.start_planned = false;
        if place.process.is_none() {
            self.restart(node);
        }
    }

    /// Starts a process again after `after`.
    pub(super) fn plan_start(&mut self, node: NodeId, after: Duration) {
        self.place_mut(node).start_planned = true;
        self.queue.push(self.now + after, Event::Start(node));
    }

    /// Starts the process of a node that is down. The disk is as its last life left it.
    ///
    /// ```
    /// use mainstay_sim::{Boot, Setup, World, example::Register};
    /// let mut world = World::new(7, Setup::default(), |boot: Boot| Register::new(boot, 1));
    /// let node = world.add_nodes(1);
    /// world.power_cut(node);
    /// world.restart(node);
    /// assert!(world.node(node).is_some());
    /// ```
    pub fn restart(&mut self, node: NodeId) {
        if self.place(node).process.is_some() {
            return;
        }
        let place = self.place_mut(node);
        place.restarts += 1;
        place.start_planned = false;
        self.happenings.push_back(Happening::Restarted(node));
        self.start(node);
    }

    /// Kills the process of a node. Its host goes on: streams are closed, the disk keeps what was
    /// written. It stays down until [`World::restart`].
    ///
    /// Example: see [`World::node`].
    pub fn kill(&mut self, node: NodeId) {
        self.end(node, Doom::Kill);
    }

    /// Cuts the power of a node: nobody is told, and the disk loses what was not synced. It stays
    /// down until [`World::restart`].
    ///
    /// Example: see [`World::restart`].
    pub fn power_cut(&mut self, node: NodeId) {
        self.end(node, Doom::PowerCut);
    }

    /// Lets the process of a node stand still for some time. What comes meanwhile waits.
    ///
    /// ```
    /// use mainstay_sim::{Boot, Setup, World, example::Register};
    /// use std::{collections::VecDeque, time::Duration};
    /// let mut world = World::new(7, Setup::default(), |boot: Boot| Register::new(boot, 1));
    /// let node = world.add_nodes(1);
    /// world.pause(node, Duration::from_secs(20));
    /// ```
    pub fn pause(&mut self, node: NodeId, time: Duration) {
        self.fault(u64::from(node.0), || format!("{node} stands still for {time:?}"));
        self.occupy(node, time);
    }

    /// Sets a node's monotonic clock to be too fast (or too slow), in parts per million.
    ///
    /// ```
    /// use mainstay_sim::{Boot, Setup, World, example::Register};
    /// let mut world = World::new(7, Setup::default(), |boot: Boot| Register::new(boot, 1));
    /// let node = world.add_nodes(1);
    /// world.drift(node, -200);
    /// ```
    pub fn drift(&mut self, node: NodeId, ppm: i32) {
        self.fault(u64::from(node.0), || format!("{node}'s clock drifts by {ppm} ppm"));
        let now = self.now;
        let place = self.place_mut(node);
        place.clock.drift(now, ppm);
        // The wake-up that waits was meant for the old speed.
        place.armed = None;
        place.armed_number += 1;
        self.arm(node);
    }

    /// Sets a node's wall clock forward or back.
    ///
    /// ```
    /// use mainstay_sim::{Boot, Setup, World, example::Register};
    /// let mut world = World::new(7, Setup::default(), |boot: Boot| Register::new(boot, 1));
    /// let node = world.add_nodes(1);
    /// let before = world.clock(node).wall_unix_ns;
    /// world.jump(node, -1_000);
    /// assert_eq!(world.clock(node).wall_unix_ns, before - 1_000);
    /// ```
    pub fn jump(&mut self, node: NodeId, by_ns: i64) {
        self.fault(u64::from(node.0), || format!("{node}'s wall clock jumps by {by_ns} ns"));
        self.place_mut(node).clock.jump(by_ns);
    }

    /// W4. The process ends; nothing starts it again by itself.
    fn end(&mut self, node: NodeId, doom: Doom) {
        let now = self.now;
        let place = self.place_mut(node);
        // Dropped last, so that nothing of it can be asked any more.
        let process = place.process.take();
        let held = std::mem::take(&mut place.held);
        place.outputs.clear();
        place.busy_until = now;
        place.armed = None;
        place.armed_number += 1;
        (place.doom, place.inputs_left) = (None, None);
        match doom {
            Doom::Kill => place.disk.kill(),
            Doom::PowerCut => {
                place.dark = true;
                place.disk.power_cut();
            }
        }
        self.let_go(held);
        if process.is_none() {
            return;
        }
        let facts = [Fact::End as u64, u64::from(node.0), doom as u64, 0];
        self.trace.record(now, facts, || match doom {
            Doom::Kill => format!("{node} is killed"),
            Doom::PowerCut => format!("{node} loses power"),
        });
        self.hang_up(node, doom == Doom::PowerCut);
        self.happenings.push_back(Happening::Ended(node));
    }

    /// The process ends, and something will start it again.
    pub(super) fn fall(&mut self, node: NodeId, doom: Doom) {
        self.end(node, doom);
        let after = self.down_time();
        self.plan_start(node, after);
    }
}

impl<N: Node> Place<N> {
    /// Also while what was held is not yet taken in, and while what waited for the disk is not yet
    /// given out: nothing overtakes either, also not in the very moment the disk is done.
    fn is_busy(&self, now: Time) -> bool {
        now < self.busy_until || !self.held.is_empty() || !self.outputs.is_empty()
    }
}
