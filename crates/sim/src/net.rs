//! Links: how long a message takes from one node to another, and whether it gets there.
//!
//! L1. Nothing passes a cut, and everything that is neither cut nor lost arrives.
//! L2. What is sent into a clog arrives after it.
//! L3. A link carries no more than its bytes a second.

use crate::{Chance, Links, NodeId, Time, random::stream, time::nanos_of};
use mainstay_base::{Rng, mix64};
use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

/// Which way a partition cuts.
///
/// Example: see [`World::partition`](crate::World::partition).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ways {
    /// Neither side reaches the other.
    Both,
    /// The nodes named reach the others, and are not reached.
    In,
    /// The nodes named do not reach the others, and are reached.
    Out,
}

/// A partition that can be mended.
///
/// Example: see [`World::partition`](crate::World::partition).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartitionId(u64);

struct Cut {
    id: PartitionId,
    named: Vec<bool>,
    ways: Ways,
}

impl Cut {
    fn cuts(&self, from: NodeId, to: NodeId) -> bool {
        let named = |node: NodeId| self.named.get(node.index()).copied().unwrap_or(false);
        match (named(from), named(to)) {
            (true, false) => self.ways != Ways::In,
            (false, true) => self.ways != Ways::Out,
            _ => false,
        }
    }
}

/// What becomes of one message.
pub(crate) struct Fate {
    /// When it arrives: never, once or twice.
    pub(crate) arrivals: [Option<Time>; 2],
    pub(crate) damaged: bool,
}

pub(crate) struct Net {
    seed: u64,
    rng: Rng,
    links: Links,
    special: BTreeMap<(NodeId, NodeId), Links>,
    cuts: Vec<Cut>,
    cuts_made: u64,
    clogs: BTreeMap<(NodeId, NodeId), Time>,
    /// When a link has carried what it was given. Only looked up, never walked through.
    free_at: HashMap<(NodeId, NodeId), Time>,
}

impl Net {
    pub(crate) fn new(seed: u64, links: Links) -> Self {
        Self {
            seed: mix64(seed),
            rng: stream(seed, "network"),
            links,
            special: BTreeMap::new(),
            cuts: Vec::new(),
            cuts_made: 0,
            clogs: BTreeMap::new(),
            free_at: HashMap::new(),
        }
    }

    pub(crate) fn set_links(&mut self, links: Links) {
        self.links = links;
        self.free_at.clear();
    }

    pub(crate) fn set_link(&mut self, from: NodeId, to: NodeId, links: Links) {
        self.special.insert((from, to), links);
    }

    pub(crate) fn cut(&mut self, nodes: usize, named: &[NodeId], ways: Ways) -> PartitionId {
        let id = PartitionId(self.cuts_made);
        self.cuts_made += 1;
        let mut side = vec![false; nodes];
        for node in named {
            if let Some(member) = side.get_mut(node.index()) {
                *member = true;
            }
        }
        self.cuts.push(Cut { id, named: side, ways });
        id
    }

    pub(crate) fn mend(&mut self, id: PartitionId) {
        self.cuts.retain(|cut| cut.id != id);
    }

    pub(crate) fn clog(&mut self, from: NodeId, to: NodeId, until: Time) {
        let clog = self.clogs.entry((from, to)).or_default();
        *clog = until.max(*clog);
    }

    pub(crate) fn clear(&mut self) {
        self.cuts.clear();
        self.clogs.clear();
    }

    pub(crate) fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.cuts.iter().any(|cut| cut.cuts(from, to))
    }

    /// What `from` to `to` is like.
    pub(crate) fn links(&self, from: NodeId, to: NodeId) -> &Links {
        if self.special.is_empty() {
            return &self.links;
        }
        self.special.get(&(from, to)).unwrap_or(&self.links)
    }

    pub(crate) fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// When a message arrives that is sent now and not lost.
    pub(crate) fn arrival(&mut self, now: Time, from: NodeId, to: NodeId, bytes: usize) -> Time {
        if from == to {
            return now + self.links.latency_min;
        }
        let links = *self.links(from, to);
        let sent = self.sent(now, from, to, bytes, links.bytes_per_second);
        let least = nanos_of(links.latency_min);
        let spread = nanos_of(links.latency_max).saturating_sub(least);
        let pair = u64::from(from.0) << 32 | u64::from(to.0);
        let place = mix64(self.seed ^ pair) >> 32;
        let latency = least + ((u128::from(spread) * u128::from(place)) >> 32) as u64;
        let arrival = sent + Duration::from_nanos(latency) + self.rng.within(links.jitter);
        if self.clogs.is_empty() {
            return arrival;
        }
        match self.clogs.get(&(from, to)) {
            Some(until) if *until > now => arrival.max(*until + self.rng.within(links.jitter)),
            _ => arrival,
        }
    }

    /// L3.
    fn sent(&mut self, now: Time, from: NodeId, to: NodeId, bytes: usize, rate: u64) -> Time {
        if rate == u64::MAX {
            return now;
        }
        let nanos = bytes as u128 * 1_000_000_000 / u128::from(rate.max(1));
        let free_at = self.free_at.entry((from, to)).or_default();
        *free_at =
            now.max(*free_at) + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        *free_at
    }

    /// What becomes of a message that is sent now.
    pub(crate) fn fate(&mut self, now: Time, from: NodeId, to: NodeId, bytes: usize) -> Fate {
        let never = Fate { arrivals: [None; 2], damaged: false };
        if from == to {
            let arrival = self.arrival(now, from, to, bytes);
            return Fate { arrivals: [Some(arrival), None], ..never };
        }
        let links = *self.links(from, to);
        if self.is_cut(from, to) || self.rng.chance(links.loss_ppm) {
            return never;
        }
        let once = self.reordered(now, from, to, bytes, &links);
        let twice = self.rng.chance(links.duplicate_ppm);
        let again = twice.then(|| self.reordered(now, from, to, bytes, &links));
        let damaged = self.rng.chance(links.damage_ppm);
        Fate { arrivals: [Some(once), again], damaged }
    }

    fn reordered(
        &mut self,
        now: Time,
        from: NodeId,
        to: NodeId,
        bytes: usize,
        links: &Links,
    ) -> Time {
        let arrival = self.arrival(now, from, to, bytes);
        if self.rng.chance(links.reorder_ppm) {
            return arrival + self.rng.within(links.reorder_by);
        }
        arrival
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(0);
    const B: NodeId = NodeId(1);
    const C: NodeId = NodeId(2);

    fn net(links: Links) -> Net {
        Net::new(7, links)
    }

    fn arrives(net: &mut Net, from: NodeId, to: NodeId) -> bool {
        net.fate(Time::START, from, to, 10).arrivals[0].is_some()
    }

    #[test]
    fn l1_a_partition_cuts_the_ways_it_is_told_to_and_no_other() {
        for (ways, out, back) in
            [(Ways::Both, false, false), (Ways::In, true, false), (Ways::Out, false, true)]
        {
            let mut net = net(Links::default());
            let cut = net.cut(3, &[A], ways);
            assert_eq!(arrives(&mut net, A, B), out, "{ways:?}");
            assert_eq!(arrives(&mut net, B, A), back, "{ways:?}");
            assert!(arrives(&mut net, B, C));
            net.mend(cut);
            assert!(arrives(&mut net, A, B) && arrives(&mut net, B, A));
        }
    }

    #[test]
    fn l2_what_is_sent_into_a_clog_arrives_when_it_is_over() {
        let mut net = net(Links::default());
        let over = Time::START + Duration::from_secs(3);
        net.clog(A, B, over);
        assert!(net.arrival(Time::START, A, B, 1) >= over);
        assert!(net.arrival(Time::START, B, A, 1) < over);
        assert!(net.arrival(over, A, B, 1) < over + Duration::from_millis(1));
    }

    #[test]
    fn l3_a_thousand_bytes_take_a_second_on_a_link_of_a_thousand_bytes_a_second() {
        let mut net = net(Links { bytes_per_second: 1_000, ..Links::default() });
        let second = Duration::from_secs(1);
        for sent in 1..=3 {
            assert!(net.arrival(Time::START, A, B, 1_000) >= Time::START + second * sent);
        }
        assert!(net.arrival(Time::START, B, A, 1_000) < Time::START + second * 2);
    }

    #[test]
    fn a_link_of_its_own_kind_differs_from_the_others() {
        let mut net = net(Links::default());
        net.set_link(A, B, Links { loss_ppm: 1_000_000, ..Links::default() });
        assert!(!arrives(&mut net, A, B));
        assert!(arrives(&mut net, B, A));
    }

    #[test]
    fn every_directed_pair_has_a_latency_of_its_own_between_the_ends() {
        let steady = Links { jitter: Duration::ZERO, ..Links::default() };
        let mut net = net(steady);
        let mut seen = std::collections::BTreeSet::new();
        for (from, to) in (0..10).flat_map(|a| (0..10).map(move |b| (NodeId(a), NodeId(b)))) {
            let latency = net.arrival(Time::START, from, to, 1).since(Time::START);
            assert!((steady.latency_min..=steady.latency_max).contains(&latency));
            assert_eq!(net.arrival(Time::START, from, to, 1).since(Time::START), latency);
            seen.insert(latency);
        }
        assert!(seen.len() > 80);
    }
}
