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

mod ending;
mod opening;

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
