//! A channel over a simulated stream: the channel's cores, driven by the world.
//!
//! It does what the drivers of the network transports do, without a clock or a task: the handshake,
//! frames, signs of life, the clean end. To its user it is a [`Channel`], one end of a pair in
//! memory; the link holds the other end and moves what is in it. The drivers themselves are not
//! simulated: they need tasks, threads and a clock, and what they add to the cores is tested over
//! real sockets, by the conformance suite and by `cargo xtask netns`. Blocking calls would wait for
//! ever, since the world stands still meanwhile: use `try_send`, `receive` without a time-out, and
//! the polled face.

use super::Flaw;
use mainstay_channel::{
    Bounds, Bytes, Channel,
    frame::{Decoder, FrameError, Kind, encode},
    handshake::{Agreement, Handshake, Local, Reason, Refusal, Step},
    limits::{HANDSHAKE_LEN_MAX, HANDSHAKE_TIME_DEFAULT, LINGER},
    memory::{self, MemoryChannel},
};
use mainstay_sim::{Broken, StreamAction, StreamEvent, Time};
use std::{collections::VecDeque, time::Duration};

const CONNECT_TIME: Duration = Duration::from_secs(9);
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(2);
pub(super) const SILENCE: Duration = Duration::from_secs(7);

/// What is written ahead of the room there is, so that memory stays bounded.
const BATCH_BYTES: usize = 16 << 10;

pub(super) const BOUNDS: Bounds = Bounds { messages: 16, bytes: 32 << 10, message_len: 48 << 10 };

/// How a link came to its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Ended {
    Refused(Refusal),
    Foreign(FrameError),
    HungUp,
    Broken(Broken),
    Protocol(FrameError),
    Silent,
    ClosedByPeer,
    ClosedHere,
    Dropped,
}

enum Phase {
    /// The dialler's stream does not exist yet.
    Dialling {
        hello: Bytes,
    },
    Shaking,
    Open,
    /// All is said; the stream is left to deliver it, for a while.
    Leaving {
        since: Time,
    },
    Gone,
}

/// One end of a channel over a stream.
pub(super) struct Link {
    flaw: Option<Flaw>,
    phase: Phase,
    accepts: bool,
    handshake: Handshake,
    agreement: Option<Agreement>,
    decoder: Decoder,
    /// The end of the user, and that of the link.
    user: MemoryChannel,
    inner: MemoryChannel,
    /// A message for which the user has no room; nothing is read meanwhile.
    stuck: VecDeque<Bytes>,
    is_paused: bool,
    room: usize,
    unwritten: VecDeque<u8>,
    actions: VecDeque<StreamAction>,
    began: Time,
    heard: Time,
    spoke: Time,
    read_bytes: usize,
    written_bytes: usize,
    finished: bool,
    ended: Option<Ended>,
}

impl Link {
    pub(super) fn dial(
        local: Local,
        expected: mainstay_channel::NodeId,
        nonce: [u8; 32],
        now: Time,
        flaw: Option<Flaw>,
    ) -> Self {
        let (handshake, hello) = Handshake::dial(local, Some(expected), nonce);
        Self::new(handshake, Phase::Dialling { hello }, false, now, flaw)
    }

    pub(super) fn accept(
        local: Local,
        nonce: [u8; 32],
        room: usize,
        now: Time,
        flaw: Option<Flaw>,
    ) -> Self {
        let handshake = Handshake::accept(local, nonce);
        Self { room, ..Self::new(handshake, Phase::Shaking, true, now, flaw) }
    }

    fn new(
        handshake: Handshake,
        phase: Phase,
        accepts: bool,
        now: Time,
        flaw: Option<Flaw>,
    ) -> Self {
        let (user, inner) = memory::pair_with(BOUNDS).expect("BOUNDS are in range, see `Bounds`");
        Self {
            flaw,
            phase,
            accepts,
            handshake,
            agreement: None,
            decoder: Decoder::new(HANDSHAKE_LEN_MAX),
            user,
            inner,
            stuck: VecDeque::new(),
            is_paused: false,
            room: 0,
            unwritten: VecDeque::new(),
            actions: VecDeque::new(),
            began: now,
            heard: now,
            spoke: now,
            read_bytes: 0,
            written_bytes: 0,
            finished: false,
            ended: None,
        }
    }

    /// The user's end, once there is an agreement.
    pub(super) fn channel(&self) -> Option<(&MemoryChannel, &Agreement)> {
        self.agreement.as_ref().map(|agreement| (&self.user, agreement))
    }

    /// How it ended, if it has.
    pub(super) fn ended(&self) -> Option<&Ended> {
        self.ended.as_ref()
    }

    /// Nothing will happen to it any more.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self.phase, Phase::Gone) && self.actions.is_empty()
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// Its handshake has been going on for longer than it may.
    pub(super) fn is_overdue(&self, now: Time) -> bool {
        let shakes = matches!(self.phase, Phase::Dialling { .. } | Phase::Shaking);
        shakes && now.since(self.began) > self.time_to_shake()
    }

    fn time_to_shake(&self) -> Duration {
        match self.phase {
            Phase::Dialling { .. } => CONNECT_TIME,
            _ => HANDSHAKE_TIME_DEFAULT,
        }
    }

    /// Bytes from and to a peer that has not proved anything.
    pub(super) fn bytes_of_a_stranger(&self) -> Option<(usize, usize)> {
        let is_stranger = self.accepts && self.agreement.is_none();
        is_stranger.then_some((self.read_bytes, self.written_bytes + self.unwritten.len()))
    }

    /// What it holds, beside the channel's own queues.
    pub(super) fn held_bytes(&self) -> (usize, usize) {
        let stuck: usize = self.stuck.iter().map(Bytes::len).sum();
        (self.decoder.pending() + stuck, self.unwritten.len())
    }

    pub(super) fn next_action(&mut self) -> Option<StreamAction> {
        self.actions.pop_front()
    }

    /// When [`Link::tick`] is to be called.
    pub(super) fn deadline(&self) -> Option<Time> {
        match self.phase {
            Phase::Dialling { .. } | Phase::Shaking => {
                let minds = self.flaw != Some(Flaw::WaitsForStrangers);
                minds.then(|| self.began + self.time_to_shake())
            }
            Phase::Open => {
                let says = self.flaw != Some(Flaw::NeverSaysAnything);
                let minds = self.flaw != Some(Flaw::NeverMindsSilence) && self.stuck.is_empty();
                let speak = says.then(|| self.spoke + KEEP_ALIVE);
                let mind = minds.then(|| self.heard + SILENCE);
                [speak, mind].into_iter().flatten().min()
            }
            Phase::Leaving { since } => Some(since + LINGER),
            Phase::Gone => None,
        }
    }

    /// Some time has passed.
    pub(super) fn tick(&mut self, now: Time) {
        if self.deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        match self.phase {
            Phase::Dialling { .. } | Phase::Shaking => {
                let step = self.handshake.refuse(Reason::Late);
                self.refused_or(step, now);
            }
            Phase::Open => {
                let minds = self.flaw != Some(Flaw::NeverMindsSilence) && self.stuck.is_empty();
                if minds && now >= self.heard + SILENCE {
                    self.lose(Ended::Silent);
                    return;
                }
                if self.unwritten.is_empty() {
                    self.say(&encode(Kind::KeepAlive, b""));
                }
                // What waits to be written is a sign of life as soon as there is room for it.
                self.spoke = now;
                self.write();
            }
            Phase::Leaving { .. } => self.throw_away(),
            Phase::Gone => {}
        }
    }

    /// Something happened to the stream.
    pub(super) fn handle(&mut self, event: StreamEvent, now: Time) {
        match event {
            StreamEvent::Connected { room } => {
                self.room = room;
                if let Phase::Dialling { hello } = &self.phase {
                    let hello = hello.clone();
                    (self.phase, self.began) = (Phase::Shaking, now);
                    self.say(&hello);
                    self.write();
                }
            }
            StreamEvent::Accepted { .. } => {}
            StreamEvent::Data(bytes) => {
                self.heard = now;
                self.read_bytes += bytes.len();
                if matches!(self.phase, Phase::Shaking | Phase::Open) {
                    self.decoder.feed(&bytes);
                    self.read(now);
                }
            }
            StreamEvent::Writable(bytes) => {
                self.room += bytes;
                self.write();
            }
            StreamEvent::Finished => self.peer_finished(now),
            StreamEvent::Broken(why) => {
                self.lose_channel(Ended::Broken(why));
                self.phase = Phase::Gone;
            }
        }
    }

    /// The peer writes no more. Without a close before it, the channel is lost.
    fn peer_finished(&mut self, now: Time) {
        match self.phase {
            Phase::Open if self.flaw == Some(Flaw::TakesTheEndForAClose) => {
                self.closed_by_peer(now);
                self.phase = Phase::Gone;
            }
            Phase::Open => self.lose(Ended::HungUp),
            Phase::Dialling { .. } | Phase::Shaking => self.lose(Ended::HungUp),
            // Our own end is finished as well: the stream is over.
            Phase::Leaving { .. } => self.phase = Phase::Gone,
            Phase::Gone => {}
        }
    }

    /// The user has sent, received, closed or dropped: moves what can be moved.
    pub(super) fn moves(&mut self, now: Time) {
        if !self.is_open() {
            return;
        }
        let was_full = !self.stuck.is_empty();
        while let Some(message) = self.stuck.pop_front() {
            if let Err(message) = self.hand_over(message) {
                self.stuck.push_front(message);
                break;
            }
        }
        if was_full && self.stuck.is_empty() {
            // Meanwhile nobody listened.
            self.heard = now;
            self.read(now);
            if self.stuck.is_empty() {
                self.set_paused(false);
            }
        }
        self.fill(now);
    }

    /// Throws the channel away, with what is under way.
    pub(super) fn drop_it(&mut self) {
        self.lose(Ended::Dropped);
    }

    /// Takes what the user has sent, as far as there is room ahead.
    fn fill(&mut self, now: Time) {
        while self.is_open() && self.unwritten.len() < BATCH_BYTES {
            match self.inner.receive(Duration::ZERO) {
                Ok(Some(_)) if self.flaw == Some(Flaw::ForgetsOnClose) && !self.user.is_open() => {}
                Ok(Some(message)) => {
                    self.spoke = now;
                    self.say(&encode(Kind::Message, &message));
                }
                Ok(None) => break,
                Err(_) => {
                    self.end(Ended::ClosedHere);
                    self.say_close(now);
                }
            }
        }
        self.write();
    }

    fn say_close(&mut self, now: Time) {
        self.say(&encode(Kind::Close, b""));
        self.phase = Phase::Leaving { since: now };
        self.write();
    }

    fn say(&mut self, bytes: &[u8]) {
        self.unwritten.extend(bytes);
    }

    fn write(&mut self) {
        let now = self.room.min(self.unwritten.len());
        if now > 0 {
            self.room -= now;
            self.written_bytes += now;
            let bytes = self.unwritten.drain(..now).collect();
            self.actions.push_back(StreamAction::Write(bytes));
        }
        let is_last = matches!(self.phase, Phase::Leaving { .. });
        if is_last && self.unwritten.is_empty() && !std::mem::replace(&mut self.finished, true) {
            self.actions.push_back(StreamAction::Finish);
        }
    }

    fn read(&mut self, now: Time) {
        let reads_on = self.flaw == Some(Flaw::ReadsOnWhenFull);
        while matches!(self.phase, Phase::Shaking | Phase::Open) {
            if !self.stuck.is_empty() && !reads_on && self.flaw != Some(Flaw::Overtakes) {
                return;
            }
            let frame = match self.decoder.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => return,
                Err(error) if self.agreement.is_none() => {
                    self.lose(Ended::Foreign(error));
                    return;
                }
                Err(error) => {
                    self.lose(Ended::Protocol(error));
                    return;
                }
            };
            if matches!(self.phase, Phase::Shaking) {
                let step = self.handshake.handle(&frame);
                self.shake(step, now);
                continue;
            }
            match frame.kind {
                Kind::Message => self.take(frame.payload),
                Kind::Close => self.closed_by_peer(now),
                Kind::KeepAlive => {}
                // The other end has found something wrong after this one was content.
                Kind::Refusal => self.lose(Ended::HungUp),
                kind => self.lose(Ended::Protocol(FrameError::Unexpected { kind })),
            }
        }
    }

    /// Hands a message to the user, or keeps it and stops reading.
    fn take(&mut self, message: Bytes) {
        if !self.stuck.is_empty() && self.flaw != Some(Flaw::Overtakes) {
            self.stuck.push_back(message);
            return;
        }
        let Err(message) = self.hand_over(message) else { return };
        if self.flaw == Some(Flaw::ForgetsWhatIsFull) {
            return;
        }
        self.stuck.push_back(message);
        if self.flaw != Some(Flaw::ReadsOnWhenFull) {
            self.set_paused(true);
        }
    }

    fn hand_over(&self, message: Bytes) -> Result<(), Bytes> {
        match self.inner.try_send(message) {
            Ok(Some(message)) => Err(message),
            // Taken; or the user wants no more, which `fill` will see.
            Ok(None) | Err(_) => Ok(()),
        }
    }

    fn set_paused(&mut self, paused: bool) {
        if std::mem::replace(&mut self.is_paused, paused) != paused {
            let action = if paused { StreamAction::Pause } else { StreamAction::Resume };
            self.actions.push_back(action);
        }
    }

    fn closed_by_peer(&mut self, now: Time) {
        self.end(Ended::ClosedByPeer);
        self.inner.close();
        self.say_close(now);
    }

    fn shake(&mut self, step: Step, now: Time) {
        match step {
            Step::Send(mut answer) => {
                if self.accepts && self.flaw == Some(Flaw::AnswersStrangersAtLength) {
                    answer = [answer, encode(Kind::KeepAlive, &[0; 256])].concat().into();
                }
                self.say(&answer);
                self.write();
            }
            Step::Done(agreement, answer) => {
                if let Some(answer) = answer {
                    self.say(&answer);
                }
                self.agree(agreement, now);
                self.write();
            }
            refused @ Step::Refused(..) => self.refused_or(refused, now),
        }
    }

    fn agree(&mut self, agreement: Agreement, now: Time) {
        self.agreement = Some(agreement);
        self.decoder.allow(BOUNDS.message_len);
        self.phase = Phase::Open;
        (self.heard, self.spoke) = (now, now);
    }

    fn refused_or(&mut self, step: Step, now: Time) {
        if let Step::Refused(refusal, answer) = step {
            if let Some(answer) = answer {
                self.say(&answer);
            }
            self.lose_channel(Ended::Refused(refusal));
            if matches!(self.phase, Phase::Dialling { .. }) {
                self.throw_away();
            } else {
                self.phase = Phase::Leaving { since: now };
                self.write();
            }
        }
    }

    fn lose(&mut self, how: Ended) {
        self.lose_channel(how);
        self.throw_away();
    }

    /// What has ended in order before stays so: its user may not have read all of it yet.
    fn lose_channel(&mut self, how: Ended) {
        if self.ended.is_none() && self.flaw != Some(Flaw::LeavesItsUserWaiting) {
            self.inner.abort();
        }
        self.end(how);
    }

    fn throw_away(&mut self) {
        self.actions.push_back(StreamAction::Abort);
        self.unwritten.clear();
        self.phase = Phase::Gone;
    }

    /// The first end is the one that counts.
    fn end(&mut self, how: Ended) {
        self.ended.get_or_insert(how);
    }
}
