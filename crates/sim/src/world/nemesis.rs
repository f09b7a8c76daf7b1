//! Faults that come and go: when, where, and for how long.

use super::{Doom, Event, World};
use crate::{
    Chance, DiskFaults, Fault, FaultSet, Faults, Node, NodeId, Ways, queue::Ties, time::nanos_of,
};
use std::time::Duration;

/// What comes and goes. The others are as they are as long as the weather lasts.
const COMES_AND_GOES: FaultSet = FaultSet::of(&[
    Fault::Clog,
    Fault::Partition,
    Fault::OneWay,
    Fault::Break,
    Fault::Kill,
    Fault::PowerCut,
    Fault::Pause,
    Fault::Jump,
]);

/// How many inputs, or operations on its disk, a process lives on at most when it is to die in one.
const LEFT_MAX: u64 = 20;

impl<N: Node> World<N> {
    /// Lets these faults loose, until [`World::heal`]: the safety phase, in which little may work
    /// but nothing may go wrong.
    ///
    /// Example: see [`World`].
    pub fn unleash(&mut self, faults: &Faults) {
        self.faults = *faults;
        self.weather += 1;
        self.fault(self.weather, || format!("from now on: {}", faults.set));
        // A world may have been set up slower than the faults would make it.
        self.net.set_links(if faults.links == Faults::none().links {
            self.setup.links
        } else {
            faults.links
        });
        if faults.set.has(Fault::Ties) {
            let secret = self.fault_rng.next_u64();
            self.queue.set_ties(Ties::Shuffled(secret));
        }
        for node in self.nodes() {
            self.place(node).disk.set_faults(faults.disks);
            if faults.set.has(Fault::Drift) {
                let most = u64::from(faults.drift_ppm_max);
                let ppm = self.fault_rng.between(0, 2 * most) as i64 - most as i64;
                self.drift(node, ppm as i32);
            }
        }
        for fault in Fault::ALL {
            if faults.set.has(fault) && COMES_AND_GOES.has(fault) {
                self.plan(fault);
            }
        }
    }

    /// Ends all faults and mends what they did: links are good, disks work, all nodes are up and
    /// nothing stands still. Only clocks stay as they are. Now the liveness phase begins: what was
    /// promised to happen in the end has to happen.
    ///
    /// ```
    /// use mainstay_sim::{Boot, Setup, World, example::Register};
    /// let mut world = World::new(7, Setup::default(), |boot: Boot| Register::new(boot, 1));
    /// let node = world.add_nodes(1);
    /// world.power_cut(node);
    /// world.heal();
    /// assert!(world.node(node).is_some());
    /// ```
    pub fn heal(&mut self) {
        self.weather += 1;
        self.fault(self.weather, || "no more of them: all is mended".into());
        self.faults = Faults::none();
        self.net.set_links(self.setup.links);
        self.net.clear();
        self.queue.set_ties(Ties::InOrder);
        for node in self.nodes() {
            let now = self.now;
            let place = self.place_mut(node);
            place.disk.set_faults(DiskFaults::NONE);
            place.disk.spare();
            (place.doom, place.inputs_left) = (None, None);
            if place.busy_until > now {
                place.busy_until = now;
                self.queue.push(now, Event::Free(node));
            }
            self.restart(node);
        }
    }

    /// What was let loose last.
    ///
    /// ```
    /// use mainstay_sim::{Boot, Faults, Setup, World, example::Register};
    /// let world = World::new(7, Setup::default(), |boot: Boot| Register::new(boot, 1));
    /// assert_eq!(*world.faults(), Faults::none());
    /// ```
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    fn plan(&mut self, fault: Fault) {
        let at = self.now + self.fault_rng.once_in(self.faults.once_in);
        self.queue.push(at, Event::Weather { number: self.weather, fault });
    }

    /// The time of a fault has come; the next one is planned.
    pub(super) fn weather(&mut self, number: u64, fault: Fault) {
        if number != self.weather {
            return;
        }
        self.plan(fault);
        match fault {
            Fault::Clog => self.clog_any(),
            Fault::Partition => self.partition_any(false),
            Fault::OneWay => self.partition_any(true),
            Fault::Break => self.break_any(),
            Fault::Kill => self.fell_any(Doom::Kill),
            Fault::PowerCut => self.fell_any(Doom::PowerCut),
            Fault::Pause => {
                if let Some(node) = self.any_that_is_up() {
                    let time = self.fault_rng.within(self.faults.lasts_max);
                    self.pause(node, time);
                }
            }
            Fault::Jump => {
                if let Some(node) = self.any_that_is_up() {
                    let most = nanos_of(self.faults.jump_max);
                    let by = self.fault_rng.between(0, 2 * most) as i64 - most as i64;
                    self.jump(node, by);
                }
            }
            // The others do not come and go.
            _ => {}
        }
    }

    fn clog_any(&mut self) {
        let nodes = self.places.len() as u64;
        let from = NodeId(self.fault_rng.below(nodes) as u32);
        let to = NodeId(self.fault_rng.below(nodes) as u32);
        if from != to {
            let time = self.fault_rng.within(self.faults.lasts_max);
            self.clog(from, to, time);
        }
    }

    fn partition_any(&mut self, one_way: bool) {
        let mut nodes: Vec<_> = self.nodes().collect();
        if nodes.len() < 2 {
            return;
        }
        self.fault_rng.shuffle(&mut nodes);
        let named = self.fault_rng.between(1, nodes.len() as u64 - 1);
        nodes.truncate(named as usize);
        let ways = if one_way { *self.fault_rng.pick(&[Ways::In, Ways::Out]) } else { Ways::Both };
        let cut = self.partition(&nodes, ways);
        let time = self.fault_rng.within(self.faults.lasts_max);
        self.queue.push(self.now + time, Event::Mend(cut));
    }

    /// Between two events, in the middle of what the process does with its disk, or of what it says.
    fn fell_any(&mut self, doom: Doom) {
        let down = self.places.iter().filter(|place| place.process.is_none()).count();
        let doomed: Vec<_> = self.nodes().filter(|node| self.place(*node).doom.is_some()).collect();
        if down + doomed.len() >= self.faults.down_max {
            // One that does nothing does not die of it: then it dies now.
            if let Some(node) = doomed.first() {
                self.fall(*node, doom);
            }
            return;
        }
        // Now and then the whole site, where that is allowed.
        let may_fell_all = self.faults.down_max >= self.places.len();
        if doom == Doom::PowerCut && may_fell_all && self.fault_rng.chance(125_000) {
            let up: Vec<_> = self.nodes().filter(|node| self.node(*node).is_some()).collect();
            up.into_iter().for_each(|node| self.fall(node, doom));
            return;
        }
        let Some(node) = self.any_that_is_up() else { return };
        let (how, left) = (self.fault_rng.below(4), self.fault_rng.between(1, LEFT_MAX));
        let place = self.place_mut(node);
        if place.doom.is_some() || how == 0 {
            self.fall(node, doom);
            return;
        }
        place.doom = Some(doom);
        if how < 3 {
            place.disk.die_after(left - 1);
        } else {
            place.inputs_left = Some(left);
        }
    }

    fn any_that_is_up(&mut self) -> Option<NodeId> {
        let up: Vec<_> = self.nodes().filter(|node| self.node(*node).is_some()).collect();
        (!up.is_empty()).then(|| *self.fault_rng.pick(&up))
    }

    /// How long a process that ended stays down.
    pub(super) fn down_time(&mut self) -> Duration {
        if self.faults.set == FaultSet::NONE {
            return self.setup.restart_after;
        }
        Duration::from_millis(1) + self.fault_rng.within(self.faults.lasts_max)
    }
}
