//! A host with a store: it leads, follows, or waits to be told.

use super::{
    Flaw,
    kept::Kept,
    line::Line,
    shelf::{Backup, Shelf, Vouched, back_up, restore},
};
use mainstay_base::Rng;
use mainstay_replica::{
    FollowSettings, Follower, LeadSettings, Leader, Level,
    follower::{self, Told},
    leader,
};
use mainstay_sim::{
    Boot, Disk, Input, Node, NodeId, Now, Output, StreamAction, StreamEvent, StreamId, Time,
};
use mainstay_store::{Change, Error, Position, Role, Token};
use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    time::Duration,
};

/// A write: changes of one shard; none: a delete.
pub(super) type Wanted = Vec<(u8, Option<Vec<u8>>)>;

/// A write that was made, and from where to where it led.
pub(super) struct Wrote {
    pub(super) node: NodeId,
    pub(super) ticket: u64,
    pub(super) before: Position,
    pub(super) after: Position,
}

/// What the story knows at once, while reports wait for disks and die with their hosts.
pub(super) type Journal = Rc<RefCell<Vec<Wrote>>>;

/// What the story tells a host.
#[derive(Clone, Debug)]
pub(super) enum Order {
    /// A client writes.
    Write { ticket: u64, changes: Wanted },
    /// Follow that one.
    Follow(NodeId),
    /// Follow nobody.
    Halt,
    /// Lead, above all epochs that the operator knows of: of the last leader this host may not
    /// have heard.
    Promote { drawn: u16, above: u64 },
    /// Make a backup.
    BackUp,
    /// Put a backup in place of what is there.
    Restore(Backup),
    /// Take nothing in for a while: messages wait.
    StandStill(Duration),
}

/// What a host tells the story.
#[derive(Clone, Debug)]
pub(super) enum Report {
    /// The leader and enough followers have it durably.
    Acked {
        ticket: u64,
    },
    Halted,
    Promoted,
    /// It is not to lead: it is catching up.
    Declined,
    Replaced {
        epoch: u64,
    },
    BackedUp(Backup),
    Restored,
    /// A follower has joined a leader of this epoch, and knew of that one.
    Joined {
        epoch: u64,
        known: u64,
    },
    Wrong(String),
}

type Outputs = VecDeque<Output<Vec<u8>, Report>>;

const WINDOW: u64 = 8 << 10;

/// The most that may wait for one follower: its window and a message, with what the line adds.
const WAITING_MAX: usize = WINDOW as usize + (20 << 10);

#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub(super) shards: u32,
    /// How many followers acknowledge.
    pub(super) acks: usize,
    /// Lead from the beginning.
    pub(super) first: NodeId,
    pub(super) flaw: Option<Flaw>,
    /// Keys and values have any sizes, for the store.
    pub(super) is_any: bool,
    /// How often the store is looked after.
    pub(super) tend: Duration,
}

enum Part {
    Idle,
    Lead {
        core: Box<Leader<Shelf>>,
        waiting: Vec<(u64, Position, Token)>,
    },
    Follow {
        core: Box<Follower<Shelf>>,
        leader: NodeId,
        stream: Option<StreamId>,
    },
    /// Its store could not be opened.
    Broken(String),
}

pub(super) struct Member {
    id: NodeId,
    setting: Setting,
    disk: Disk,
    rng: Rng,
    now: Time,
    shelf: Option<Shelf>,
    part: Part,
    lines: BTreeMap<StreamId, (NodeId, Line)>,
    dialled: u32,
    tend_at: Time,
    still_until: Time,
    journal: Journal,
    vouched: Vouched,
    outputs: Outputs,
}

fn at(now: Time) -> Duration {
    Duration::from_nanos(now.as_nanos())
}

impl Member {
    pub(super) fn new(
        boot: Boot,
        setting: Setting,
        (journal, vouched): (Journal, Vouched),
    ) -> Self {
        let mut member = Self {
            id: boot.id,
            setting,
            disk: boot.disk,
            rng: boot.rng,
            now: boot.now.monotonic,
            shelf: None,
            part: Part::Idle,
            lines: BTreeMap::new(),
            dialled: 0,
            tend_at: boot.now.monotonic + setting.tend,
            still_until: Time::START,
            journal,
            vouched,
            outputs: VecDeque::new(),
        };
        member.open(boot.now.monotonic);
        if boot.restarts == 0 && boot.id == setting.first {
            member.promote(0, 0, boot.now.monotonic);
        }
        member.drain(boot.now.monotonic);
        member
    }

    /// The store, if it could be opened.
    pub(super) fn store(&self) -> Option<&Kept> {
        self.shelf.as_ref().map(|shelf| &shelf.store)
    }

    pub(super) fn leads(&self) -> bool {
        matches!(&self.part, Part::Lead { core, .. } if core.replaced_by().is_none())
    }

    pub(super) fn follows(&self) -> Option<NodeId> {
        match &self.part {
            Part::Follow { leader, .. } => Some(*leader),
            _ => None,
        }
    }

    fn report(&mut self, report: Report) {
        self.outputs.push_back(Output::Report(report));
    }

    fn open(&mut self, now: Time) {
        let Setting { shards, is_any, flaw, .. } = self.setting;
        let vouched = (self.id, Vouched::clone(&self.vouched));
        match Shelf::open(&self.disk, (shards, is_any), flaw, vouched) {
            Ok(shelf) => {
                if shelf.store.role() == Role::Leader {
                    self.lead(shelf.clone(), now);
                }
                self.shelf = Some(shelf);
            }
            Err(error @ (Error::Damaged { .. } | Error::Version { .. })) => {
                self.part = Part::Broken(error.to_string());
                self.report(Report::Wrong(format!("{}: {error}", self.id)));
            }
            Err(error) => self.part = Part::Broken(error.to_string()),
        }
    }

    fn lead(&mut self, shelf: Shelf, now: Time) {
        let settings = LeadSettings { replay_max: 20, ..LeadSettings::default() };
        let core = Box::new(Leader::new(shelf, settings, at(now)));
        self.part = Part::Lead { core, waiting: Vec::new() };
    }

    fn hang_up(&mut self) {
        for stream in std::mem::take(&mut self.lines).into_keys() {
            self.outputs.push_back(Output::Stream { stream, action: StreamAction::Abort });
        }
    }

    fn exit(&mut self, why: &Error) {
        self.outputs.push_back(Output::Exit(why.to_string()));
    }

    fn promote(&mut self, drawn: u16, above: u64, now: Time) {
        self.hang_up();
        self.part = Part::Idle;
        let Some(shelf) = self.shelf.take() else { return self.report(Report::Declined) };
        let Some(promoted) = shelf.with(|store| store.promote(above, drawn)) else { return };
        match promoted {
            Ok(shelf) => {
                self.lead(shelf.clone(), now);
                self.shelf = Some(shelf);
                self.report(Report::Promoted);
            }
            Err(Error::Mending { .. }) => {
                self.open(now);
                self.report(Report::Declined);
            }
            Err(error) => self.exit(&error),
        }
    }

    fn follow(&mut self, leader: NodeId, now: Time) {
        if self.follows() == Some(leader) || leader == self.id {
            return;
        }
        self.hang_up();
        self.part = Part::Idle;
        let Some(mut shelf) = self.shelf.take() else { return };
        if shelf.store.role() == Role::Leader {
            let Some(demoted) = shelf.with(Kept::demote) else { return };
            match demoted {
                Ok(demoted) => shelf = demoted,
                Err(error) => return self.exit(&error),
            }
        }
        let sink = shelf.to_follow();
        self.shelf = Some(shelf);
        let window = if self.setting.flaw == Some(Flaw::NoAllowance) { 1 << 40 } else { WINDOW };
        let settings = FollowSettings { window_bytes: window, ..FollowSettings::default() };
        match Follower::new(sink, settings, self.rng.next_u64(), at(now)) {
            Ok(core) => self.part = Part::Follow { core: Box::new(core), leader, stream: None },
            Err(error) => self.outputs.push_back(Output::Exit(error.to_string())),
        }
    }

    fn order(&mut self, order: Order, now: Time) {
        match order {
            Order::Write { ticket, changes } => self.write(ticket, &changes),
            Order::Follow(leader) => self.follow(leader, now),
            Order::Halt => {
                if !matches!(self.part, Part::Lead { .. }) {
                    self.hang_up();
                    self.part = Part::Idle;
                    self.report(Report::Halted);
                }
            }
            Order::Promote { drawn, above } => self.promote(drawn, above, now),
            Order::BackUp => {
                if let Ok(backup) = back_up(&self.disk) {
                    self.report(Report::BackedUp(backup));
                }
            }
            Order::Restore(backup) => {
                self.hang_up();
                (self.part, self.shelf) = (Part::Idle, None);
                self.vouched.borrow_mut().retain(|(node, _), _| *node != self.id);
                self.report(Report::Restored);
                let restored = restore(&self.disk, &backup);
                self.outputs
                    .push_back(Output::Exit(format!("a backup was put back: {restored:?}")));
            }
            Order::StandStill(time) => self.still_until = now + time,
        }
    }

    fn write(&mut self, ticket: u64, changes: &Wanted) {
        let Part::Lead { waiting, .. } = &mut self.part else { return };
        let Some(shelf) = &self.shelf else { return };
        let changes: Vec<_> = changes.iter().map(change_of).collect();
        let Some(shard) = changes.first().and_then(|one| shelf.store.shard(one.key()).ok()) else {
            return;
        };
        let place = || shelf.store.history(shard).ok().and_then(|history| history.position());
        let before = place();
        match shelf.store.batch(&changes) {
            Ok(Some(token)) => {
                if let (Some(before), Some(after)) = (before, place()) {
                    waiting.push((ticket, after, token));
                    self.journal.borrow_mut().push(Wrote { node: self.id, ticket, before, after });
                }
            }
            Err(error @ Error::Poisoned { .. }) => self.exit(&error),
            Ok(None) | Err(_) => {}
        }
    }

    fn stream(&mut self, stream: StreamId, event: StreamEvent, now: Time) {
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
    fn take_in(&mut self, now: Time) {
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
                        Part::Follow { core, .. } => {
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
    fn drain(&mut self, now: Time) {
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
            let Part::Follow { core, leader, stream } = &mut self.part else { return };
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

    /// Remembers what its follower holds to be durable (Y7).
    fn note_durable(&self) {
        let Part::Follow { core, .. } = &self.part else { return };
        for shard in 0..self.setting.shards {
            let status = core.status(shard);
            let at = status.and_then(|status| status.at.filter(|at| status.durable >= at.sequence));
            if let Some(at) = at {
                core.sink().vouch(shard, at);
            }
        }
    }

    fn tend(&mut self, now: Time) {
        if self.tend_at > now {
            return;
        }
        self.tend_at = now + self.setting.tend;
        let Some(shelf) = &self.shelf else { return };
        if let Err(error @ Error::Poisoned { .. }) = shelf.store.tend() {
            self.exit(&error);
        }
    }
}

fn leader_epoch(core: &Leader<Shelf>) -> u64 {
    mainstay_replica::Source::epoch(core.source())
}

pub(super) fn change_of((key, value): &(u8, Option<Vec<u8>>)) -> Change<'_> {
    let key = std::slice::from_ref(&KEYS[*key as usize]);
    Change::of(key, value.as_deref())
}

/// All keys.
pub(super) static KEYS: [u8; 32] = {
    let mut keys = [0; 32];
    let mut at = 0;
    while at < keys.len() {
        keys[at] = at as u8;
        at += 1;
    }
    keys
};

impl Node for Member {
    type Message = Vec<u8>;
    type Command = Order;
    type Report = Report;

    fn handle(&mut self, now: Now, input: Input<Vec<u8>, Order>) {
        let now = now.monotonic;
        self.now = now;
        match input {
            Input::Tick => match &mut self.part {
                Part::Lead { core, .. } => core.handle(at(now), leader::Input::Tick),
                Part::Follow { core, .. } => core.handle(at(now), follower::Input::Tick),
                _ => {}
            },
            Input::Command(order) => self.order(order, now),
            Input::Stream { stream, event } => self.stream(stream, event, now),
            Input::Message { .. } => {}
        }
        self.tend(now);
        self.take_in(now);
        self.drain(now);
    }

    fn poll(&mut self, _: Now) -> Option<Output<Vec<u8>, Report>> {
        self.outputs.pop_front()
    }

    fn deadline(&self) -> Option<Time> {
        let core = match &self.part {
            Part::Lead { core, .. } => Some(core.deadline(at(self.now))),
            Part::Follow { core, .. } => core.deadline(at(self.now)),
            _ => None,
        };
        let core = core.map(|due| Time::START + due);
        let still = Some(self.still_until).filter(|until| *until > self.now);
        core.into_iter().chain(still).chain([self.tend_at]).min()
    }
}
