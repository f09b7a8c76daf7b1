//! Streams: reliable, ordered bytes between two processes, until they break. What TCP does, at the
//! level at which a program sees it.
//!
//! * A stream delivers what was written, in order and once, or breaks. Where the bytes are cut is
//!   decided by the seed. A lost message is one that takes longer.
//! * A writer has as much room as the reader has read: a reader that pauses stops the writer.
//! * While the way is cut, the writer's side tries again; it breaks after
//!   [`Setup::break_after`](crate::Setup::break_after). The reader's side learns nothing of it: it
//!   is half open, as a real one, until it writes.
//! * A process that is killed leaves a finished or a reset stream, by the seed, as the kernel does.
//!   A host that loses power leaves nothing: the peer learns of it when it writes.

use super::{Event, Fact, World};
use crate::{
    Broken, Chance, Error, Input, Node, NodeId, StreamAction, StreamEvent, StreamId, Time,
    node::{flip_a_bit, show_bytes},
};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// The first pause before bytes that did not get through are sent again, and the longest.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(3);

/// How far apart pieces come that arrived together.
const STEP: Duration = Duration::from_micros(2);

#[derive(Default)]
pub(super) struct Streams {
    all: BTreeMap<u64, Stream>,
    made: u64,
    names: BTreeMap<(NodeId, StreamId), (u64, usize)>,
}

impl Streams {
    #[cfg(test)]
    pub(super) fn are_none(&self) -> bool {
        self.all.is_empty() && self.names.is_empty()
    }
}

struct Stream {
    /// The one who opened it first.
    ends: [End; 2],
    connected: bool,
    dials: u32,
}

struct End {
    node: NodeId,
    name: StreamId,
    /// The process there knows the stream and has not been told that it is gone.
    open: bool,
    paused: bool,
    /// What may still be written.
    room: usize,
    /// Bytes on their way to the other end, and when they arrive.
    under_way: VecDeque<(Time, Vec<u8>)>,
    /// The last of them; nothing overtakes it.
    last_arrival: Time,
    finishes: bool,
    /// The other end has been told that this one has finished.
    finished: bool,
    /// A pump waits in the queue.
    pumping: bool,
    /// Room that the other end has made and this one was not told of.
    owed: usize,
    telling: bool,
    /// Since when nothing got through, and how long the next pause is.
    stalled: Option<Time>,
    pause: Duration,
}

impl End {
    fn new(node: NodeId, name: StreamId) -> Self {
        Self {
            node,
            name,
            open: false,
            paused: false,
            room: 0,
            under_way: VecDeque::new(),
            last_arrival: Time::START,
            finishes: false,
            finished: false,
            pumping: false,
            owed: 0,
            telling: false,
            stalled: None,
            pause: RETRY_MIN,
        }
    }

    fn moves(&mut self) {
        (self.stalled, self.pause) = (None, RETRY_MIN);
    }
}

impl<N: Node> World<N> {
    /// The process that a stream's event is for.
    pub(super) fn wanted_by_stream<M, C>(&self, event: &Event<M, C>) -> Option<NodeId> {
        let (stream, end) = match event {
            Event::Dial { stream } => (stream, 1),
            Event::Dialled { stream } | Event::GiveUp { stream } => (stream, 0),
            Event::Pump { stream, from } => (stream, 1 - *from),
            Event::Room { stream, to } => (stream, *to),
            Event::Break { stream, end, .. } => (stream, *end),
            _ => return None,
        };
        self.streams.all.get(stream).map(|stream| stream.ends[end].node)
    }

    /// Does what a node asked for.
    pub(super) fn act(&mut self, node: NodeId, name: StreamId, action: StreamAction) {
        if let StreamAction::Connect { to } = action {
            self.connect(node, name, to);
            return;
        }
        let Some(&(id, end)) = self.streams.names.get(&(node, name)) else { return };
        match action {
            StreamAction::Connect { .. } => {}
            StreamAction::Write(bytes) => self.write(id, end, bytes),
            StreamAction::Pause => self.set_paused(id, end, true),
            StreamAction::Resume => self.set_paused(id, end, false),
            StreamAction::Finish => self.finish(id, end),
            StreamAction::Abort => {
                self.record(node, name, 1, || "is thrown away".into());
                self.leave(id, end, true);
            }
        }
    }

    fn connect(&mut self, node: NodeId, name: StreamId, to: NodeId) {
        let wrong = if !name.is_outgoing() {
            Some("it was opened by another node; name it with `StreamId::outgoing`")
        } else if self.streams.names.contains_key(&(node, name)) {
            Some("there is one of that name; number each new stream anew")
        } else if to.index() >= self.places.len() {
            Some("it goes to a node that does not exist")
        } else {
            None
        };
        if let Some(why) = wrong {
            self.fail(Error::Stream { at: self.now, node, stream: name, why });
            return;
        }
        self.record(node, name, 2, || format!("is dialled, to {to}"));
        let id = self.streams.made;
        self.streams.made += 1;
        let mut ends = [End::new(node, name), End::new(to, StreamId::incoming(id))];
        ends[0].open = true;
        self.streams.names.insert((node, name), (id, 0));
        self.streams.all.insert(id, Stream { ends, connected: false, dials: 0 });
        self.queue.push(self.now + self.setup.connect_timeout, Event::GiveUp { stream: id });
        let arrives = self.net.arrival(self.now, node, to, 0);
        self.queue.push(arrives, Event::Dial { stream: id });
    }

    /// The dialler's first packet, at the other host.
    pub(super) fn dial(&mut self, id: u64) {
        let Some(stream) = self.streams.all.get_mut(&id) else { return };
        let [dialler, target] = [stream.ends[0].node, stream.ends[1].node];
        if !stream.ends[0].open {
            self.reap(id);
            return;
        }
        stream.dials += 1;
        let again = RETRY_MIN * (1 << stream.dials.min(4));
        if self.is_lost(dialler, target) || self.place(target).dark {
            self.queue.push(self.now + again, Event::Dial { stream: id });
            return;
        }
        if self.place(target).process.is_none() {
            self.break_later(id, 0, Broken::Refused);
            return;
        }
        let room = self.setup.window_bytes;
        let Some(stream) = self.streams.all.get_mut(&id) else { return };
        let end = &mut stream.ends[1];
        (end.open, end.room) = (true, room);
        let name = end.name;
        self.streams.names.insert((target, name), (id, 1));
        let back = self.net.arrival(self.now, target, dialler, 0);
        self.queue.push(back, Event::Dialled { stream: id });
        self.end_mut(id, 1, |end| end.last_arrival = back + STEP);
        self.happens_to(id, 1, StreamEvent::Accepted { from: dialler, room });
    }

    /// The answer, back at the dialler.
    pub(super) fn dialled(&mut self, id: u64) {
        let Some(stream) = self.streams.all.get(&id) else { return };
        let [dialler, target] = [stream.ends[0].node, stream.ends[1].node];
        if !stream.ends[0].open || stream.connected {
            return;
        }
        if self.is_lost(target, dialler) {
            self.queue.push(self.now + RETRY_MIN, Event::Dialled { stream: id });
            return;
        }
        let room = self.setup.window_bytes;
        if let Some(stream) = self.streams.all.get_mut(&id) {
            stream.connected = true;
            stream.ends[0].room = room;
        }
        self.happens_to(id, 0, StreamEvent::Connected { room });
    }

    /// The dialler has waited long enough.
    pub(super) fn give_up(&mut self, id: u64) {
        if self.streams.all.get(&id).is_some_and(|stream| !stream.connected) {
            self.tell_broken(id, 0, Broken::TimedOut);
        }
    }

    fn write(&mut self, id: u64, end: usize, bytes: Vec<u8>) {
        let now = self.now;
        let Some(stream) = self.streams.all.get_mut(&id) else { return };
        let (from, to) = (stream.ends[end].node, stream.ends[1 - end].node);
        let writer = &mut stream.ends[end];
        let (name, room) = (writer.name, writer.room);
        if writer.finishes {
            let why = "it was finished; write before that";
            self.fail(Error::Stream { at: now, node: from, stream: name, why });
            return;
        }
        if bytes.len() > room {
            self.fail(Error::Overruns { at: now, node: from, bytes: bytes.len(), room });
            return;
        }
        if bytes.is_empty() {
            return;
        }
        writer.room -= bytes.len();
        let digest = crate::digest(&bytes);
        let facts = [Fact::Stream as u64, u64::from(from.0), name.bits(), digest];
        self.trace.record(now, facts, || format!("{from} {name}: writes {}", show_bytes(&bytes)));
        let mut arrives = self.net.arrival(now, from, to, bytes.len());
        let loss = self.net.links(from, to).loss_ppm;
        let mut pause = RETRY_MIN;
        while from != to && pause < RETRY_MAX && self.net.rng().chance(loss) {
            arrives += pause;
            pause *= 2;
        }
        self.end_mut(id, end, |writer| {
            writer.last_arrival = writer.last_arrival.max(arrives);
            writer.under_way.push_back((writer.last_arrival, bytes));
        });
        self.pump_at(id, end, arrives);
    }

    fn finish(&mut self, id: u64, end: usize) {
        let Some(stream) = self.streams.all.get_mut(&id) else { return };
        let (from, to) = (stream.ends[end].node, stream.ends[1 - end].node);
        let name = stream.ends[end].name;
        if std::mem::replace(&mut stream.ends[end].finishes, true) {
            return;
        }
        self.record(from, name, 3, || "finishes".into());
        let arrives = self.net.arrival(self.now, from, to, 0);
        self.end_mut(id, end, |end| end.last_arrival = end.last_arrival.max(arrives));
        self.pump_at(id, end, arrives);
    }

    fn set_paused(&mut self, id: u64, end: usize, paused: bool) {
        self.end_mut(id, end, |end| end.paused = paused);
        if !paused {
            self.pump_at(id, 1 - end, self.now);
        }
    }

    /// Something of what end `from` has written may have arrived.
    pub(super) fn pump(&mut self, id: u64, from: usize) {
        let now = self.now;
        let Some(stream) = self.streams.all.get_mut(&id) else { return };
        stream.ends[from].pumping = false;
        let [writer, reader] = [&stream.ends[from], &stream.ends[1 - from]];
        let (nodes, known) = ((writer.node, reader.node), reader.open);
        let next = writer.under_way.front().map(|(at, _)| *at);
        let next = next.or((writer.finishes && !writer.finished).then_some(writer.last_arrival));
        let Some(next) = next else { return };
        if next > now {
            self.pump_at(id, from, next);
            return;
        }
        let waits = known && (reader.paused || (from == 1 && !stream.connected));
        let must_retry = !reader.paused && waits;
        if self.net.is_cut(nodes.0, nodes.1) || (!known && self.place(nodes.1).dark) || must_retry {
            self.stall(id, from);
        } else if !known {
            self.write_to_nobody(id, from);
        } else if waits {
            self.end_mut(id, from, End::moves);
        } else {
            self.hand_over(id, from);
        }
    }

    /// The other side's host is there and knows of no such stream.
    fn write_to_nobody(&mut self, id: u64, from: usize) {
        let Some(stream) = self.streams.all.get_mut(&id) else { return };
        if stream.ends[from].under_way.is_empty() && stream.ends[1 - from].finished {
            // Both have finished; this end is told nothing more.
            self.forget(id, from);
            return;
        }
        stream.ends[from].under_way.clear();
        self.break_later(id, from, Broken::Reset);
    }

    fn hand_over(&mut self, id: u64, from: usize) {
        let now = self.now;
        let Some(stream) = self.streams.all.get_mut(&id) else { return };
        let (writer, reader) = (stream.ends[from].node, stream.ends[1 - from].node);
        stream.ends[from].moves();
        let Some((_, piece)) = stream.ends[from].under_way.pop_front() else {
            stream.ends[from].finished = true;
            self.happens_to(id, 1 - from, StreamEvent::Finished);
            self.forget_if_over(id);
            return;
        };
        let links = *self.net.links(writer, reader);
        let mut bytes = self.cut(id, from, piece, links.chop_ppm);
        if self.net.rng().chance(links.damage_ppm) {
            flip_a_bit(&mut bytes, self.net.rng());
        }
        let read = bytes.len();
        self.end_mut(id, from, |writer| writer.owed += read);
        let back = self.net.arrival(now, reader, writer, 0);
        self.tell_room_at(id, from, back);
        self.happens_to(id, 1 - from, StreamEvent::Data(bytes));
        self.pump_at(id, from, now + STEP);
    }

    /// How much of what has arrived is read at once: a part of the piece, or more than one piece.
    fn cut(&mut self, id: u64, from: usize, mut piece: Vec<u8>, chop_ppm: u32) -> Vec<u8> {
        let now = self.now;
        let rng = self.net.rng();
        if piece.len() > 1 && rng.chance(chop_ppm) {
            let most = piece.len() as u64 - 1;
            let cut = if rng.chance(250_000) { 1 } else { rng.between(1, most) };
            let rest = piece.split_off(cut as usize);
            self.end_mut(id, from, |writer| writer.under_way.push_front((now, rest)));
            return piece;
        }
        let joins = rng.chance(chop_ppm.max(250_000));
        self.end_mut(id, from, |writer| {
            while joins && writer.under_way.front().is_some_and(|(at, _)| *at <= now) {
                if let Some((_, next)) = writer.under_way.pop_front() {
                    piece.extend(next);
                }
            }
        });
        piece
    }

    /// The reader has read, and its host says so.
    pub(super) fn room(&mut self, id: u64, to: usize) {
        let Some(stream) = self.streams.all.get_mut(&id) else { return };
        stream.ends[to].telling = false;
        if !stream.ends[to].open {
            return;
        }
        let (writer, reader) = (stream.ends[to].node, stream.ends[1 - to].node);
        if self.net.is_cut(reader, writer) {
            self.stall(id, to);
            return;
        }
        let mut made = 0;
        self.end_mut(id, to, |end| {
            made = std::mem::take(&mut end.owed);
            end.room += made;
            end.moves();
        });
        if made > 0 {
            self.happens_to(id, to, StreamEvent::Writable(made));
        }
    }

    /// Nothing gets through from `end`, or no answer gets back to it.
    fn stall(&mut self, id: u64, end: usize) {
        let now = self.now;
        let Some(stream) = self.streams.all.get_mut(&id) else { return };
        let writer = &mut stream.ends[end];
        let since = *writer.stalled.get_or_insert(now);
        if now.since(since) >= self.setup.break_after {
            writer.under_way.clear();
            self.tell_broken(id, end, Broken::TimedOut);
            return;
        }
        let again = now + writer.pause;
        writer.pause = (writer.pause * 2).min(RETRY_MAX);
        if writer.owed > 0 {
            self.tell_room_at(id, end, again);
        }
        self.pump_at(id, end, again);
    }

    fn pump_at(&mut self, id: u64, from: usize, at: Time) {
        let mut needed = false;
        self.end_mut(id, from, |end| needed = !std::mem::replace(&mut end.pumping, true));
        if needed {
            self.queue.push(at.max(self.now), Event::Pump { stream: id, from });
        }
    }

    fn tell_room_at(&mut self, id: u64, to: usize, at: Time) {
        let mut needed = false;
        self.end_mut(id, to, |end| needed = !std::mem::replace(&mut end.telling, true));
        if needed {
            self.queue.push(at, Event::Room { stream: id, to });
        }
    }

    /// The stream is gone for the process at `end`; it hears so, if it has not left itself.
    pub(super) fn tell_broken(&mut self, id: u64, end: usize, why: Broken) {
        let Some(stream) = self.streams.all.get(&id) else { return };
        if !stream.ends[end].open {
            self.reap(id);
            return;
        }
        self.happens_to(id, end, StreamEvent::Broken(why));
        self.forget(id, end);
    }

    /// The news travels from the other end's host.
    fn break_later(&mut self, id: u64, end: usize, why: Broken) {
        let Some(stream) = self.streams.all.get(&id) else { return };
        let (from, to) = (stream.ends[1 - end].node, stream.ends[end].node);
        let at = self.net.arrival(self.now, from, to, 0);
        self.queue.push(at, Event::Break { stream: id, end, why });
    }

    /// The process at `end` has nothing to do with the stream any more; its host resets it.
    fn leave(&mut self, id: u64, end: usize, resets: bool) {
        let Some(stream) = self.streams.all.get_mut(&id) else { return };
        let (from, to) = (stream.ends[end].node, stream.ends[1 - end].node);
        stream.ends[end].under_way.clear();
        let other_knows = stream.ends[1 - end].open;
        self.forget(id, end);
        if resets && other_knows && !self.is_lost(from, to) {
            self.break_later(id, 1 - end, Broken::Reset);
        }
    }

    /// All streams of a process that has ended.
    pub(super) fn hang_up(&mut self, node: NodeId, silently: bool) {
        let first = (node, StreamId::outgoing(0));
        let mine = self.streams.names.range(first..).take_while(|((of, _), _)| *of == node);
        let mine: Vec<_> = mine.map(|(_, place)| *place).collect();
        for (id, end) in mine {
            let in_order = !silently && self.net.rng().chance(500_000);
            if in_order {
                // What was written is still sent, and then the end.
                self.finish(id, end);
                self.forget(id, end);
            } else {
                self.leave(id, end, !silently);
            }
        }
    }

    /// Breaks some stream, with what is on its way from some point on.
    pub(super) fn break_any(&mut self) {
        let streams = self.streams.all.len() as u64;
        let chosen = self.fault_rng.below(streams) as usize;
        let Some((&id, _)) = self.streams.all.iter().nth(chosen) else { return };
        self.fault(id, || format!("stream {id} breaks"));
        for end in 0..2 {
            let after = self.fault_rng.within(Duration::from_millis(50));
            let at = self.now + after;
            let Some(stream) = self.streams.all.get_mut(&id) else { return };
            let keep = self.fault_rng.below(stream.ends[end].under_way.len() as u64 + 1);
            stream.ends[end].under_way.truncate(keep as usize);
            // What follows would stand behind a gap.
            stream.ends[end].last_arrival = Time::NEVER;
            self.queue.push(at, Event::Break { stream: id, end, why: Broken::Reset });
        }
    }

    /// Both ends have finished, and all has arrived.
    fn forget_if_over(&mut self, id: u64) {
        if self.streams.all.get(&id).is_some_and(|s| s.ends.iter().all(|end| end.finished)) {
            self.forget(id, 0);
            self.forget(id, 1);
        }
    }

    /// The process at `end` does not hear of the stream again.
    fn forget(&mut self, id: u64, end: usize) {
        let Some(stream) = self.streams.all.get_mut(&id) else { return };
        // One that is closed already has no name: by now it may be that of another stream.
        if std::mem::replace(&mut stream.ends[end].open, false) {
            let key = (stream.ends[end].node, stream.ends[end].name);
            self.streams.names.remove(&key);
        }
        self.reap(id);
    }

    fn reap(&mut self, id: u64) {
        let gone = self.streams.all.get(&id).is_some_and(|s| s.ends.iter().all(|end| !end.open));
        if gone {
            self.streams.all.remove(&id);
        }
    }

    fn end_mut(&mut self, id: u64, end: usize, change: impl FnOnce(&mut End)) {
        if let Some(stream) = self.streams.all.get_mut(&id) {
            change(&mut stream.ends[end]);
        }
    }

    fn is_lost(&mut self, from: NodeId, to: NodeId) -> bool {
        let loss = self.net.links(from, to).loss_ppm;
        from != to && (self.net.is_cut(from, to) || self.net.rng().chance(loss))
    }

    fn happens_to(&mut self, id: u64, end: usize, event: StreamEvent) {
        let Some(stream) = self.streams.all.get(&id) else { return };
        let (node, name) = (stream.ends[end].node, stream.ends[end].name);
        let (fact, about) = match &event {
            StreamEvent::Connected { .. } => (4, 0),
            StreamEvent::Accepted { from, .. } => (5, u64::from(from.0)),
            StreamEvent::Data(bytes) => (6, crate::digest(bytes)),
            StreamEvent::Writable(bytes) => (7, *bytes as u64),
            StreamEvent::Finished => (8, 0),
            StreamEvent::Broken(why) => (9, *why as u64),
        };
        self.record(node, name, fact << 56 ^ about, || match &event {
            StreamEvent::Data(bytes) => format!("has {}", show_bytes(bytes)),
            other => format!("{other:?}"),
        });
        self.input(node, Input::Stream { stream: name, event });
    }

    fn record(&mut self, node: NodeId, name: StreamId, fact: u64, line: impl FnOnce() -> String) {
        let facts = [Fact::Stream as u64, u64::from(node.0), name.bits(), fact];
        self.trace.record(self.now, facts, || format!("{node} {name}: {}", line()));
    }
}
