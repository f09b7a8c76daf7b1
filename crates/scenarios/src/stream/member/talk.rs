//! What a host has to do with streams: messages to its core, and what the core says.

use super::{Member, Part, WINDOW, at};
use crate::stream::{Flaw, line::Line, order::Report, parts, shelf::Shelf};
use mainstay_replica::{
    Leader, Level,
    follower::{self, Told},
    leader,
};
use mainstay_sim::{NodeId, Output, StreamAction, StreamEvent, StreamId, Time};
use mainstay_store::Error;

/// The most that may wait for one follower: its window and a message, with what the line adds.
const WAITING_MAX: usize = WINDOW as usize + (20 << 10);

impl Member {
    pub(super) fn stream(&mut self, stream: StreamId, event: StreamEvent, now: Time) {
        match event {
            StreamEvent::Accepted { from, room } => {
                let Part::Lead { core, .. } = &mut self.part else {
                    let action = StreamAction::Abort;
                    self.outputs.push_back(Output::Stream { stream, action });
                    return;
                };
                let old: Vec<_> =
                    self.lines.iter().filter(|(_, (with, _))| *with == from).collect();
                let old: Vec<_> = old.into_iter().map(|(stream, _)| *stream).collect();
                for stream in old {
                    self.lines.remove(&stream);
                    let action = StreamAction::Abort;
                    self.outputs.push_back(Output::Stream { stream, action });
                }
                self.lines.insert(stream, (from, Line::with_room(room)));
                core.handle(at(now), leader::Input::Connected { peer: u64::from(from.0) });
            }
            StreamEvent::Connected { room } => {
                if let Some((_, line)) = self.lines.get_mut(&stream) {
                    line.add_room(room);
                    if let Part::Follow { core, .. } = &mut self.part {
                        core.handle(at(now), follower::Input::Connected);
                    }
                }
            }
            StreamEvent::Data(bytes) => {
                if let Some((_, line)) = self.lines.get_mut(&stream) {
                    line.feed(&bytes);
                }
            }
            StreamEvent::Writable(bytes) => {
                if let Some((_, line)) = self.lines.get_mut(&stream) {
                    line.add_room(bytes);
                }
            }
            StreamEvent::Finished => self.lose(stream, now, true),
            StreamEvent::Broken(_) => self.lose(stream, now, false),
        }
    }

    fn lose(&mut self, stream: StreamId, now: Time, abort: bool) {
        self.take_in(now);
        let Some((with, _)) = self.lines.remove(&stream) else { return };
        if abort {
            self.outputs.push_back(Output::Stream { stream, action: StreamAction::Abort });
        }
        match &mut self.part {
            Part::Lead { core, .. } => {
                core.handle(at(now), leader::Input::Lost { peer: u64::from(with.0) });
            }
            Part::Follow { core, stream: current, .. } if *current == Some(stream) => {
                *current = None;
                core.handle(at(now), follower::Input::Lost);
            }
            _ => {}
        }
    }

    /// Hands the core all messages that are there.
    pub(super) fn take_in(&mut self, now: Time) {
        if self.still_until > now {
            return;
        }
        let streams: Vec<_> = self.lines.keys().copied().collect();
        for stream in streams {
            while let Some((with, line)) = self.lines.get_mut(&stream) {
                let with = *with;
                match line.next() {
                    Ok(Some(bytes)) => match &mut self.part {
                        Part::Lead { core, .. } => {
                            let peer = u64::from(with.0);
                            core.handle(at(now), leader::Input::Message { peer, bytes: &bytes });
                        }
                        Part::Follow { core, early, .. } => {
                            if self.setting.flaw == Some(Flaw::PartMadeEarly) {
                                early.take(core.sink(), &bytes);
                            }
                            core.handle(at(now), follower::Input::Message(&bytes));
                        }
                        _ => {}
                    },
                    Ok(None) => break,
                    Err(()) => {
                        *line = Line::default();
                        self.lose(stream, now, true);
                        break;
                    }
                }
            }
        }
    }

    /// Does what the core says.
    pub(super) fn drain(&mut self, now: Time) {
        match &mut self.part {
            Part::Lead { .. } => self.drain_leader(now),
            Part::Follow { .. } => {
                self.drain_follower(now);
                self.note_durable();
            }
            Part::Idle => {}
            Part::Broken(why) => {
                let why = why.clone();
                self.outputs.push_back(Output::Exit(why));
            }
        }
        let mut wrong = None;
        for (stream, (with, line)) in &mut self.lines {
            while let Some(action) = line.write() {
                self.outputs.push_back(Output::Stream { stream: *stream, action });
            }
            if line.unwritten() > WAITING_MAX {
                wrong = Some(format!("{} holds {} bytes for {with}", self.id, line.unwritten()));
            }
        }
        if let Some(wrong) = wrong {
            self.report(Report::Wrong(wrong));
        }
    }

    fn drain_leader(&mut self, now: Time) {
        loop {
            let Part::Lead { core, waiting } = &mut self.part else { return };
            let Some(output) = core.poll(at(now)) else {
                let Some(shelf) = &self.shelf else { return };
                let mut acked = Vec::new();
                waiting.retain(|(ticket, position, token)| {
                    let have = core.have(token.shard, position.sequence, Level::Durable);
                    let is_here = shelf.store.is_durable(*token).unwrap_or(false);
                    let is_acked = have >= self.setting.acks && is_here;
                    if is_acked {
                        acked.push(*ticket);
                    }
                    !is_acked
                });
                for ticket in acked {
                    self.report(Report::Acked { ticket });
                }
                return;
            };
            match output {
                leader::Output::Send { bytes, .. }
                    if self.setting.flaw == Some(Flaw::PartLost) && parts::is_lost(&bytes) => {}
                leader::Output::Send { peer, bytes, .. } => {
                    let to = NodeId(peer as u32);
                    if let Some((_, line)) = self.lines.values_mut().find(|(with, _)| *with == to) {
                        line.say(&bytes);
                    }
                }
                leader::Output::Close { peer } => {
                    let to = NodeId(peer as u32);
                    if let Some((_, line)) = self.lines.values_mut().find(|(with, _)| *with == to) {
                        line.close();
                    }
                }
                leader::Output::Told(leader::Told::Replaced { .. }) => {
                    let epoch = leader_epoch(core);
                    self.report(Report::Replaced { epoch });
                }
                leader::Output::Told(told) => {
                    self.outputs.push_back(Output::Note(format!("{told:?}")));
                }
            }
        }
    }

    fn drain_follower(&mut self, now: Time) {
        loop {
            let Part::Follow { core, leader, stream, .. } = &mut self.part else { return };
            let Some(output) = core.poll(at(now)) else { return };
            match output {
                follower::Output::Connect => {
                    self.dialled += 1;
                    let new = StreamId::outgoing(self.dialled);
                    let (to, old) = (*leader, stream.replace(new));
                    if let Some(old) = old.filter(|old| self.lines.remove(old).is_some()) {
                        let action = StreamAction::Abort;
                        self.outputs.push_back(Output::Stream { stream: old, action });
                    }
                    self.lines.insert(new, (to, Line::default()));
                    let action = StreamAction::Connect { to };
                    self.outputs.push_back(Output::Stream { stream: new, action });
                }
                follower::Output::Send(bytes) => {
                    if let Some((_, line)) = stream.and_then(|stream| self.lines.get_mut(&stream)) {
                        line.say(&bytes);
                    }
                }
                follower::Output::Disconnect => {
                    if let Some((_, line)) = stream.and_then(|stream| self.lines.get_mut(&stream)) {
                        line.close();
                    }
                }
                follower::Output::Sync => {
                    let done = mainstay_replica::Sink::sync(core.sink());
                    core.handle(at(now), follower::Input::Synced(done.is_ok()));
                    if let Err(error @ Error::Poisoned { .. }) = done {
                        return self.exit(&error);
                    }
                }
                follower::Output::Told(told) => {
                    if let Told::Joined { epoch } = &told {
                        let (epoch, known) = (*epoch, core.sink().store.known_epoch());
                        self.report(Report::Joined { epoch, known });
                    }
                    let is_poisoned = |error: &mainstay_replica::Error| {
                        let mainstay_replica::Error::Store(error) = error else { return false };
                        matches!(error, Error::Poisoned { .. })
                    };
                    let dies = matches!(&told, Told::Failed(error) if is_poisoned(error));
                    self.outputs.push_back(Output::Note(format!("{told:?}")));
                    if dies {
                        self.outputs.push_back(Output::Exit("the store is poisoned".to_owned()));
                        return;
                    }
                }
            }
        }
    }
}

fn leader_epoch(core: &Leader<Shelf>) -> u64 {
    mainstay_replica::Source::epoch(core.source())
}
