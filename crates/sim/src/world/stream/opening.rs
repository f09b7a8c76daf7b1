//! How a stream comes about, or does not.

use super::{End, RETRY_MIN, STEP, Stream};
use crate::{
    Broken, Error, Node, NodeId, StreamEvent, StreamId,
    world::{Event, World},
};

impl<N: Node> World<N> {
    pub(super) fn connect(&mut self, node: NodeId, name: StreamId, to: NodeId) {
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
    pub(in crate::world) fn dial(&mut self, id: u64) {
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
    pub(in crate::world) fn dialled(&mut self, id: u64) {
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
    pub(in crate::world) fn give_up(&mut self, id: u64) {
        if self.streams.all.get(&id).is_some_and(|stream| !stream.connected) {
            self.tell_broken(id, 0, Broken::TimedOut);
        }
    }
}
