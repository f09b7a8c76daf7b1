//! How a stream ends: finished by both, broken, or left by a process that has ended.

use crate::{
    Broken, Chance, Node, NodeId, StreamEvent, StreamId, Time,
    world::{Event, World},
};
use std::time::Duration;

impl<N: Node> World<N> {
    pub(super) fn finish(&mut self, id: u64, end: usize) {
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

    /// The stream is gone for the process at `end`; it hears so, if it has not left itself.
    pub(in crate::world) fn tell_broken(&mut self, id: u64, end: usize, why: Broken) {
        let Some(stream) = self.streams.all.get(&id) else { return };
        if !stream.ends[end].open {
            self.reap(id);
            return;
        }
        self.happens_to(id, end, StreamEvent::Broken(why));
        self.forget(id, end);
    }

    /// The news travels from the other end's host.
    pub(super) fn break_later(&mut self, id: u64, end: usize, why: Broken) {
        let Some(stream) = self.streams.all.get(&id) else { return };
        let (from, to) = (stream.ends[1 - end].node, stream.ends[end].node);
        let at = self.net.arrival(self.now, from, to, 0);
        self.queue.push(at, Event::Break { stream: id, end, why });
    }

    /// The process at `end` has nothing to do with the stream any more; its host resets it.
    pub(super) fn leave(&mut self, id: u64, end: usize, resets: bool) {
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
    pub(in crate::world) fn hang_up(&mut self, node: NodeId, silently: bool) {
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
    pub(in crate::world) fn break_any(&mut self) {
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
    pub(super) fn forget_if_over(&mut self, id: u64) {
        if self.streams.all.get(&id).is_some_and(|s| s.ends.iter().all(|end| end.finished)) {
            self.forget(id, 0);
            self.forget(id, 1);
        }
    }

    /// The process at `end` does not hear of the stream again.
    pub(super) fn forget(&mut self, id: u64, end: usize) {
        let Some(stream) = self.streams.all.get_mut(&id) else { return };
        // One that is closed already has no name: by now it may be that of another stream.
        if std::mem::replace(&mut stream.ends[end].open, false) {
            let key = (stream.ends[end].node, stream.ends[end].name);
            self.streams.names.remove(&key);
        }
        self.reap(id);
    }

    pub(super) fn reap(&mut self, id: u64) {
        let gone = self.streams.all.get(&id).is_some_and(|s| s.ends.iter().all(|end| !end.open));
        if gone {
            self.streams.all.remove(&id);
        }
    }
}
