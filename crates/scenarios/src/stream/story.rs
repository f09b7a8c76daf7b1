//! Clients, an operator who promotes and restores, and whoever checks.

use super::{
    Flaw,
    kept::Kept,
    member::{Member, Setting},
    oracle::Oracle,
    order::{Journal, KEYS, Order, Report, Wrote},
    shelf::{Backup, VALUE, Vouched},
};
use crate::registry::{Options, Outcome};
use mainstay_base::Rng;
use mainstay_replica::limits::PART_BYTES;
use mainstay_sim::{
    Boot, Chance, Error, Fault, FaultSet, Faults, Happening, NodeId, Setup, Story, Time, World,
    stream,
};
use mainstay_store::Position;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

const NODES: u32 = 3;
const BEGINNING: Duration = Duration::from_secs(1);
const SAFETY: Duration = Duration::from_secs(60);
const LIVENESS: Duration = Duration::from_secs(600);
const LOOK_EVERY: Duration = Duration::from_secs(2);

const WRITE: u64 = 1;
const OPERATE: u64 = 2;
const LOOK: u64 = 3;
const STAND_STILL: u64 = 4;
const REDIRECT: u64 = 10;

/// What the operator is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Plan {
    Nothing,
    /// Followers are stopped, and then the one that is furthest is promoted.
    Halting {
        since: Time,
    },
    /// Until it says that it leads, or has died without: a promotion is not called off.
    Promoting {
        node: NodeId,
    },
}

struct Watcher {
    setting: Setting,
    rng: Rng,
    oracle: Oracle,
    tickets: u64,
    written: u64,
    pause: Duration,
    leader: NodeId,
    /// The highest epoch that was given to a leader.
    epoch: u64,
    plan: Plan,
    halted: BTreeSet<NodeId>,
    /// Acknowledged writes, as long as no backup was put in their place.
    acked: BTreeSet<u64>,
    /// Who has said that it is replaced, and as the leader of which epoch: a backup that was put
    /// back on another host leads with the epoch it was made in.
    replaced: BTreeSet<(NodeId, u64)>,
    journal: Journal,
    vouched: Vouched,
    known: BTreeMap<NodeId, u64>,
    backup: Option<Backup>,
    restores: bool,
    /// Who was told to put a backup back, and has not said that it did.
    restoring: Option<NodeId>,
    /// A backup was put in place of a store: nothing that is acknowledged counts any more.
    is_restored: bool,
    /// Where each shard of each node was last.
    last: BTreeMap<(NodeId, u32), Option<Position>>,
    whole: BTreeMap<(NodeId, u32), Position>,
    healing: bool,
    agreed: bool,
    why_not: String,
}

impl Watcher {
    fn new(setting: Setting, mut rng: Rng, (journal, vouched): (Journal, Vouched)) -> Self {
        Self {
            setting,
            oracle: Oracle::new(setting.shards, setting.is_any),
            tickets: 0,
            written: 0,
            pause: Duration::from_millis(rng.between(20, 400)),
            leader: setting.first,
            epoch: 0,
            plan: Plan::Nothing,
            halted: BTreeSet::new(),
            acked: BTreeSet::new(),
            replaced: BTreeSet::new(),
            journal,
            vouched,
            known: BTreeMap::new(),
            backup: None,
            restores: rng.chance(300_000),
            restoring: None,
            is_restored: false,
            last: BTreeMap::new(),
            whole: BTreeMap::new(),
            healing: false,
            agreed: false,
            why_not: "nobody has looked".to_owned(),
            rng,
        }
    }

    fn others(&self) -> impl Iterator<Item = NodeId> + use<> {
        let leader = self.leader;
        (0..NODES).map(NodeId).filter(move |node| *node != leader)
    }

    fn write(&mut self, world: &mut World<Member>) {
        // Clients that have not heard of the new leader write to the old one.
        let to =
            if self.rng.chance(100_000) { NodeId(self.rng.below(3) as u32) } else { self.leader };
        let burst = if self.rng.chance(50_000) { self.rng.between(10, 120) } else { 1 };
        for _ in 0..burst {
            self.write_one(world, to);
        }
        world.alarm(self.pause, WRITE);
    }

    fn write_one(&mut self, world: &mut World<Member>, to: NodeId) {
        let Some(store) = world.node(to).and_then(Member::store) else { return };
        let first = self.rng.below(KEYS.len() as u64) as u8;
        let Ok(shard) = store.shard(&[KEYS[first as usize]]) else { return };
        let mut keys = vec![first];
        for _ in 0..self.rng.below(3) {
            let key = self.rng.below(KEYS.len() as u64) as u8;
            if store.shard(&[KEYS[key as usize]]).ok() == Some(shard) {
                keys.push(key);
            }
        }
        let ticket = self.tickets;
        self.tickets += 1;
        let mut changes = Vec::new();
        for (index, key) in keys.into_iter().enumerate() {
            let mut value = vec![index as u8; VALUE];
            value[..8].copy_from_slice(&ticket.to_le_bytes());
            changes.push((key, (!self.rng.chance(250_000)).then_some(value)));
        }
        self.oracle.asked(ticket, shard, changes.clone());
        world.command(to, Order::Write { ticket, changes });
    }

    /// Where a node's shards are, if it has a store and all are at a place.
    fn places(&self, world: &World<Member>, node: NodeId) -> Option<Vec<Position>> {
        let store = world.node(node)?.store()?;
        let place = |shard| store.history(shard).ok()?.position();
        (0..self.setting.shards).map(place).collect()
    }

    fn operate(&mut self, world: &mut World<Member>) {
        world.alarm(Duration::from_millis(self.rng.between(2_000, 12_000)), OPERATE);
        match self.rng.below(10) {
            0..=3 if self.plan == Plan::Nothing => self.halt(world),
            4 => world.command(self.leader, Order::BackUp),
            5 if self.restores => self.restore(world),
            _ => {}
        }
    }

    fn restore(&mut self, world: &mut World<Member>) {
        if let Some(backup) = self.backup.clone() {
            self.restoring = Some(self.leader);
            world.command(self.leader, Order::Restore(backup));
        }
    }

    fn halt(&mut self, world: &mut World<Member>) {
        world.note(&format!("the followers of {} are to stop", self.leader));
        self.plan = Plan::Halting { since: world.now() };
        self.halted.clear();
        for node in self.others() {
            world.command(node, Order::Halt);
        }
    }

    /// All followers stand: the one that is ahead of all others is the next leader, if all are at
    /// a place.
    fn choose(&mut self, world: &mut World<Member>) {
        let mut places: Vec<(NodeId, Vec<Position>)> = Vec::new();
        for node in self.others().filter(|node| self.halted.contains(node)) {
            let Some(at) = self.places(world, node) else {
                return self.call_off(world);
            };
            places.push((node, at));
        }
        let is_ahead = |one: &[Position], other: &[Position]| {
            let pairs = || one.iter().zip(other);
            pairs().all(|(one, other)| (one.epoch, one.sequence) >= (other.epoch, other.sequence))
        };
        let best =
            places.iter().find(|(_, at)| places.iter().all(|(_, other)| is_ahead(at, other)));
        let Some((best, _)) = best else { return self.call_off(world) };
        let best = *best;
        world.note(&format!("{best} is to lead: {places:?}"));
        self.plan = Plan::Promoting { node: best };
        let drawn = self.rng.next_u64() as u16;
        world.command(best, Order::Promote { drawn, above: self.epoch });
    }

    fn call_off(&mut self, world: &mut World<Member>) {
        self.plan = Plan::Nothing;
        for node in self.others() {
            world.command(node, Order::Follow(self.leader));
        }
    }

    fn promoted(&mut self, world: &mut World<Member>, node: NodeId) {
        world.note(&format!("{node} leads"));
        let epoch = world.node(node).and_then(Member::store).map_or(0, |store| store.epoch());
        self.epoch = self.epoch.max(epoch);
        self.plan = Plan::Nothing;
        self.leader = node;
        for other in self.others() {
            let after = Duration::from_millis(self.rng.between(1, 15_000));
            world.alarm(after, REDIRECT + u64::from(other.0));
        }
    }

    fn told(
        &mut self,
        world: &mut World<Member>,
        node: NodeId,
        report: Report,
    ) -> Result<(), String> {
        match report {
            Report::Acked { ticket } => {
                if !self.is_restored {
                    self.acked.insert(ticket);
                }
            }
            Report::Halted => {
                if self.plan != Plan::Nothing {
                    self.halted.insert(node);
                }
                let all = self.others().all(|node| self.halted.contains(&node));
                if all && matches!(self.plan, Plan::Halting { .. }) {
                    self.choose(world);
                }
            }
            Report::Promoted => {
                if self.plan == (Plan::Promoting { node }) {
                    self.promoted(world, node);
                }
            }
            Report::Declined => {
                if self.plan == (Plan::Promoting { node }) {
                    self.call_off(world);
                }
            }
            Report::Replaced { epoch } => {
                self.replaced.insert((node, epoch));
                if node == self.leader && self.plan == Plan::Nothing {
                    self.halt(world);
                }
            }
            Report::BackedUp(backup) => self.backup = Some(backup),
            Report::Restored => self.restored(node),
            Report::Joined { epoch, known } => {
                let seen = self.known.entry(node).or_default();
                if epoch < *seen {
                    return Err(format!("Y4: {node} knew of epoch {seen}, and follows {epoch}"));
                }
                *seen = (*seen).max(epoch).max(known);
            }
            Report::Wrong(what) => return Err(format!("Y6: {what}")),
        }
        Ok(())
    }

    /// A backup was put in place of what this node had, or of some of it.
    fn restored(&mut self, node: NodeId) {
        self.restoring = None;
        self.acked.clear();
        self.is_restored = true;
        self.forget(node);
        self.known.remove(&node);
        // Its epochs begin again.
        self.replaced.clear();
    }

    fn hear_of_writes(&mut self) -> Result<(), String> {
        for Wrote { node, ticket, before, after } in self.journal.take() {
            self.written += 1;
            if self.replaced.contains(&(node, after.epoch)) {
                return Err(format!("Y4: {node} was replaced, and has written {after:?}"));
            }
            self.oracle.wrote(ticket, before, after)?;
        }
        Ok(())
    }

    fn forget(&mut self, node: NodeId) {
        self.last.retain(|(of, _), _| *of != node);
        self.whole.retain(|(of, _), _| *of != node);
    }

    /// What an operator does in the end: somebody leads, all others follow.
    fn settle(&mut self, world: &mut World<Member>) -> Result<(), String> {
        let now = world.now();
        match self.plan {
            Plan::Halting { since } => {
                if now.since(since) > Duration::from_secs(20) {
                    self.plan = Plan::Nothing;
                }
                return Ok(());
            }
            Plan::Promoting { .. } => return Ok(()),
            Plan::Nothing => {}
        }
        let leads = world.node(self.leader).is_some_and(Member::leads);
        if !leads {
            // One that is only down comes again.
            if world.node(self.leader).is_some_and(|leader| leader.store().is_some()) {
                self.lead_somehow(world);
            }
            return Ok(());
        }
        for node in self.others() {
            world.command(node, Order::Follow(self.leader));
        }
        let Some(tip) = self.places(world, self.leader) else { return Ok(()) };
        for node in self.others() {
            let at = self.places(world, node);
            if at.as_ref() != Some(&tip) {
                self.why_not = format!("{} is at {tip:?}, {node} at {at:?}", self.leader);
                return Ok(());
            }
        }
        for ticket in &self.acked {
            let Some((shard, place)) = self.oracle.place_of(*ticket) else {
                return Err(format!("Y3: write {ticket} was acknowledged, and nobody wrote it"));
            };
            let tip = tip[shard as usize];
            if !self.oracle.lineage(shard, tip).any(|(at, _)| at == place) {
                return Err(format!("Y3: {place:?} was acknowledged, and {tip:?} is without it"));
            }
        }
        self.agreed = true;
        Ok(())
    }

    /// The leader leads no more: of those that are whole and at a place the furthest one does. If a
    /// restore was interrupted and nobody else had all, it is done again.
    fn lead_somehow(&mut self, world: &mut World<Member>) {
        let mut best: Option<(Vec<(u64, u64)>, NodeId)> = None;
        for node in (0..NODES).map(NodeId) {
            let is_whole = |member: &Member| member.store().is_some_and(Kept::is_whole);
            if !world.node(node).is_some_and(is_whole) {
                continue;
            }
            let Some(at) = self.places(world, node) else { continue };
            let at = at.iter().map(|at| (at.epoch, at.sequence)).collect();
            if best.as_ref().is_none_or(|(most, _)| *most < at) {
                best = Some((at, node));
            }
        }
        if let Some((_, node)) = best {
            self.leader = node;
            world.note(&format!("{node} has to lead"));
            self.plan = Plan::Promoting { node };
            let drawn = self.rng.next_u64() as u16;
            world.command(node, Order::Promote { drawn, above: self.epoch });
        } else if self.is_restored {
            self.restore(world);
        }
    }
}

impl Story<Member> for Watcher {
    fn happens(
        &mut self,
        world: &mut World<Member>,
        what: Happening<Report>,
    ) -> Result<(), String> {
        match what {
            Happening::Report { node, report } => self.told(world, node, report)?,
            Happening::Alarm(WRITE) if !self.healing => self.write(world),
            Happening::Alarm(OPERATE) if !self.healing => self.operate(world),
            Happening::Alarm(STAND_STILL) if !self.healing => {
                let node = NodeId(self.rng.below(NODES.into()) as u32);
                let time = Duration::from_millis(self.rng.between(100, 6_000));
                world.command(node, Order::StandStill(time));
                world.alarm(Duration::from_millis(self.rng.between(500, 20_000)), STAND_STILL);
            }
            Happening::Alarm(LOOK) => {
                self.settle(world)?;
                if !self.agreed {
                    world.alarm(LOOK_EVERY, LOOK);
                }
            }
            Happening::Alarm(number @ REDIRECT..) => {
                let node = NodeId((number - REDIRECT) as u32);
                if self.plan == Plan::Nothing {
                    world.command(node, Order::Follow(self.leader));
                }
            }
            Happening::Alarm(_) => {}
            Happening::Restarted(node) => {
                self.forget(node);
                if self.restoring == Some(node) {
                    // It may have died in the middle.
                    self.restored(node);
                }
                let leads = world.node(node).is_some_and(Member::leads);
                if self.plan == (Plan::Promoting { node }) {
                    // What it had to say has died with it.
                    if leads { self.promoted(world, node) } else { self.call_off(world) }
                }
                match self.plan {
                    // One that has just started follows nobody.
                    Plan::Halting { .. } => world.command(node, Order::Halt),
                    // Nor is it told to: what it acknowledged to the old leader now, the new one
                    // would not have.
                    Plan::Promoting { .. } => {}
                    _ if node != self.leader => world.command(node, Order::Follow(self.leader)),
                    _ if !leads => self.halt(world),
                    _ => {}
                }
            }
            Happening::Ended(_) => {}
        }
        Ok(())
    }

    /// Y1, Y5, Y7.
    fn check(&mut self, world: &World<Member>) -> Result<(), String> {
        self.hear_of_writes()?;
        for node in (0..NODES).map(NodeId) {
            let Some(member) = world.node(node) else { continue };
            let Some(store) = member.store() else { continue };
            for shard in 0..self.setting.shards {
                let Ok(history) = store.history(shard) else { continue };
                let at = history.position();
                if self.last.insert((node, shard), at) == Some(at) {
                    continue;
                }
                let Some(at) = at else { continue };
                let expected = self.oracle.records(shard, at)?;
                if let Some(vouched) = self.vouched.borrow().get(&(node, shard))
                    && !self.oracle.lineage(shard, at).any(|(place, _)| place == *vouched)
                {
                    return Err(format!(
                        "Y7: shard {shard} of {node} held {vouched:?} to be durable, and is at {at:?}"
                    ));
                }
                // What the node could not read is still there.
                let disk = world.disk(node);
                let faults = disk.faults();
                disk.set_faults(mainstay_sim::DiskFaults::NONE);
                let found = store.contents(shard);
                disk.set_faults(faults);
                let Some(found) = found else { continue };
                if found != *expected {
                    return Err(format!(
                        "Y1: shard {shard} of {node} is at {at:?} with {} records, and not those \
                         {} that are there",
                        found.len(),
                        expected.len()
                    ));
                }
                let was = self.whole.insert((node, shard), at);
                if let Some(was) = was.filter(|was| *was != at && member.follows().is_some()) {
                    self.oracle.check_given_up(world.disk(node), shard, was, at)?;
                }
            }
        }
        Ok(())
    }
}

fn play(world: &mut World<Member>, watcher: &mut Watcher, seed: u64) -> Result<(), Error> {
    world.run(BEGINNING, watcher)?;
    for node in watcher.others() {
        world.command(node, Order::Follow(watcher.leader));
    }
    // A wrong bit ends a channel; misdirected and torn sectors are for the store's own tests.
    let allowed =
        FaultSet::NETWORK | FaultSet::PROCESS | FaultSet::DISK | FaultSet::of(&[Fault::Damage]);
    let mut faults = Faults::drawn(seed, allowed);
    faults.once_in = faults.once_in.max(Duration::from_secs(1));
    world.unleash(&faults);
    world.alarm(watcher.pause, WRITE);
    world.alarm(Duration::from_secs(5), OPERATE);
    if watcher.rng.chance(400_000) {
        world.alarm(Duration::from_secs(3), STAND_STILL);
    }
    world.run(SAFETY, watcher)?;
    world.heal();
    watcher.healing = true;
    world.alarm(LOOK_EVERY, LOOK);
    let (agreed, _) = world.run_until(LIVENESS, watcher, |watcher, _| watcher.agreed)?;
    if agreed {
        return Ok(());
    }
    let what = format!("Y2: {LIVENESS:?} after all was mended: {}", watcher.why_not);
    Err(Error::Failed { at: world.now(), what })
}

pub(super) fn run(seed: u64, options: &Options) -> Outcome {
    let mut rng = stream(seed, "set-up");
    // With more than one shard no single follower need be ahead in all of them.
    let acks = rng.between(1, 2) as usize;
    let shards = if acks == 1 { 1 } else { 2 };
    let is_any = stream(seed, "kind").chance(500_000);
    let part_bytes = [64, 300, 1_000, PART_BYTES][stream(seed, "parts").below(4) as usize];
    // Some stores are looked after so rarely that what they have is in memory only for long.
    let tend = Duration::from_millis(*stream(seed, "tend").pick(&[200, 200, 3_000]));
    let (first, flaw) = (NodeId(0), Flaw::of(options));
    let setting = Setting { shards, acks, first, flaw, is_any, part_bytes, tend };
    let known = (Journal::default(), Vouched::default());
    let theirs = known.clone();
    let make = move |boot: Boot| Member::new(boot, setting, theirs.clone());
    let mut world = World::new(seed, Setup::default(), make);
    if let Some(sink) = options.sink() {
        world.trace_to(sink);
    }
    world.add_nodes(NODES as usize);
    let mut watcher = Watcher::new(setting, rng, known);
    let result = play(&mut world, &mut watcher, seed);
    Outcome {
        result: result.map_err(|error| error.to_string()),
        trace_hash: world.trace_hash(),
        events: world.events(),
        simulated: world.now().since(Time::START),
        worked: watcher.written,
    }
}
