//! A host with a store: it leads, follows, or waits to be told.

mod talk;

use super::{
    Flaw,
    kept::Kept,
    line::Line,
    order::{Journal, Order, Report, Wanted, Wrote, change_of},
    parts::Early,
    shelf::{Shelf, Vouched, back_up, restore},
};
use mainstay_base::Rng;
use mainstay_replica::{FollowSettings, Follower, LeadSettings, Leader, follower, leader};
use mainstay_sim::{Boot, Disk, Input, Node, NodeId, Now, Output, StreamAction, StreamId, Time};
use mainstay_store::{Error, Position, Role, Token};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

type Outputs = VecDeque<Output<Vec<u8>, Report>>;

const WINDOW: u64 = 8 << 10;

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
    /// Of messages that are longer parts are sent.
    pub(super) part_bytes: usize,
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
        early: Early,
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
            // Nobody has anything yet, so it lacks nothing.
            if let Some(Err(why)) = member.store().map(|store| store.set_whole(true)) {
                member.exit(&why);
            }
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
            Err(
                error @ (Error::Damaged { .. } | Error::Misplaced { .. } | Error::Version { .. }),
            ) => {
                self.part = Part::Broken(error.to_string());
                self.report(Report::Wrong(format!("{}: {error}", self.id)));
            }
            Err(error) => self.part = Part::Broken(error.to_string()),
        }
    }

    fn lead(&mut self, shelf: Shelf, now: Time) {
        let part_bytes = self.setting.part_bytes;
        let settings = LeadSettings { replay_max: 20, part_bytes, ..LeadSettings::default() };
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
            Err(Error::Mending { .. } | Error::NotWhole) => {
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
            Ok(core) => {
                let (core, early) = (Box::new(core), Early::default());
                self.part = Part::Follow { core, leader, stream: None, early };
            }
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
