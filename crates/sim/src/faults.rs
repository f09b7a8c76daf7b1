//! Which faults a world has: each seed its own mixture.
//!
//! A world with every fault at once hardly gets anything done, and hides what only one fault
//! without the others would show. So each seed switches each kind on or off, and draws how strong
//! it is (Groce and others, "Swarm Testing", 2012).

use crate::{Chance, DiskFaults, random::stream};
use mainstay_base::Rng;
use std::{fmt, ops::BitOr, time::Duration};

/// A kind of fault, which a seed may have or not.
///
/// ```
/// use mainstay_sim::{Fault, FaultSet};
/// let some = FaultSet::of(&[Fault::Loss, Fault::Kill]);
/// assert!(some.has(Fault::Loss) && !some.has(Fault::Clog));
/// assert_eq!(some.to_string(), "loss, kill");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Fault {
    /// Messages are lost; streams are slowed by it.
    Loss,
    /// Messages arrive twice.
    Duplicate,
    /// Some messages take much longer than others.
    Reorder,
    /// Everything takes long.
    Slow,
    /// Links carry few bytes a second.
    Narrow,
    /// Messages arrive with a wrong bit, streams carry one.
    Damage,
    /// A link stands still for a while, and then delivers what it had.
    Clog,
    /// Two groups of nodes do not reach each other.
    Partition,
    /// Two groups of nodes, and only one of them reaches the other.
    OneWay,
    /// Streams break.
    Break,
    /// Streams are cut into small pieces.
    Chop,
    /// Processes are killed and started again.
    Kill,
    /// Hosts lose power, and what their disks did not have.
    PowerCut,
    /// Processes stand still for a while, and go on as if nothing had been.
    Pause,
    /// Clocks are too fast or too slow.
    Drift,
    /// Wall clocks are set forward or back.
    Jump,
    /// Reads and writes fail.
    DiskError,
    /// Syncs fail.
    SyncError,
    /// Disks are full at times.
    NoSpace,
    /// Disks are slow.
    SlowDisk,
    /// A power cut tears sectors inside.
    Shred,
    /// A power cut leaves sectors in wrong places.
    Misdirect,
    /// What happens at one point in time happens in any order.
    Ties,
}

impl Fault {
    /// All there are.
    ///
    /// ```
    /// use mainstay_sim::Fault;
    /// assert!(Fault::ALL.contains(&Fault::Clog));
    /// ```
    pub const ALL: [Self; 23] = [
        Self::Loss,
        Self::Duplicate,
        Self::Reorder,
        Self::Slow,
        Self::Narrow,
        Self::Damage,
        Self::Clog,
        Self::Partition,
        Self::OneWay,
        Self::Break,
        Self::Chop,
        Self::Kill,
        Self::PowerCut,
        Self::Pause,
        Self::Drift,
        Self::Jump,
        Self::DiskError,
        Self::SyncError,
        Self::NoSpace,
        Self::SlowDisk,
        Self::Shred,
        Self::Misdirect,
        Self::Ties,
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = format!("{self:?}");
        for (at, letter) in name.char_indices() {
            if at > 0 && letter.is_ascii_uppercase() {
                f.write_str("-")?;
            }
            write!(f, "{}", letter.to_ascii_lowercase())?;
        }
        Ok(())
    }
}

/// Some kinds of faults.
///
/// Example: see [`Fault`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FaultSet(u32);

impl FaultSet {
    /// No faults.
    ///
    /// ```
    /// use mainstay_sim::{Fault, FaultSet};
    /// assert!(!FaultSet::NONE.has(Fault::Loss));
    /// ```
    pub const NONE: Self = Self(0);

    /// What can happen to messages and links.
    ///
    /// ```
    /// use mainstay_sim::{Fault, FaultSet};
    /// assert!(FaultSet::NETWORK.has(Fault::OneWay) && !FaultSet::NETWORK.has(Fault::Kill));
    /// ```
    pub const NETWORK: Self = Self::of(&[
        Fault::Loss,
        Fault::Duplicate,
        Fault::Reorder,
        Fault::Slow,
        Fault::Narrow,
        Fault::Clog,
        Fault::Partition,
        Fault::OneWay,
        Fault::Break,
        Fault::Chop,
        Fault::Ties,
    ]);

    /// What can happen to processes, hosts and clocks.
    ///
    /// ```
    /// use mainstay_sim::{Fault, FaultSet};
    /// assert!(FaultSet::PROCESS.has(Fault::PowerCut));
    /// ```
    pub const PROCESS: Self =
        Self::of(&[Fault::Kill, Fault::PowerCut, Fault::Pause, Fault::Drift, Fault::Jump]);

    /// What a disk does that a store has to survive: errors, fullness, slowness.
    ///
    /// ```
    /// use mainstay_sim::{Fault, FaultSet};
    /// assert!(FaultSet::DISK.has(Fault::SyncError) && !FaultSet::DISK.has(Fault::Misdirect));
    /// ```
    pub const DISK: Self =
        Self::of(&[Fault::DiskError, Fault::SyncError, Fault::NoSpace, Fault::SlowDisk]);

    /// These.
    ///
    /// Example: see [`Fault`].
    #[must_use]
    pub const fn of(faults: &[Fault]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < faults.len() {
            bits |= 1 << faults[at] as u32;
            at += 1;
        }
        Self(bits)
    }

    /// Is this one among them?
    ///
    /// Example: see [`Fault`].
    #[must_use]
    pub const fn has(self, fault: Fault) -> bool {
        self.0 & (1 << fault as u32) != 0
    }

    /// All but these.
    ///
    /// ```
    /// use mainstay_sim::{Fault, FaultSet};
    /// let calm = FaultSet::NETWORK.without(FaultSet::of(&[Fault::Loss]));
    /// assert!(!calm.has(Fault::Loss) && calm.has(Fault::Clog));
    /// ```
    #[must_use]
    pub const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    fn iter(self) -> impl Iterator<Item = Fault> {
        Fault::ALL.into_iter().filter(move |fault| self.has(*fault))
    }
}

impl BitOr for FaultSet {
    type Output = Self;

    fn bitor(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }
}

impl fmt::Display for FaultSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, fault) in self.iter().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            write!(f, "{comma}{fault}")?;
        }
        if *self == Self::NONE { f.write_str("none") } else { Ok(()) }
    }
}

/// How messages and streams fare between two nodes.
///
/// ```
/// use mainstay_sim::Links;
/// use std::time::Duration;
/// let far = Links { latency_max: Duration::from_millis(150), ..Links::default() };
/// assert_eq!(far.loss_ppm, 0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Links {
    /// How long a message takes at least, between the closest pair of nodes.
    pub latency_min: Duration,
    /// The same between the pair that is furthest apart. Each directed pair has its place between.
    pub latency_max: Duration,
    /// What a message may take longer than another on the same link.
    pub jitter: Duration,
    /// How many of a million messages are lost.
    pub loss_ppm: u32,
    /// How many of a million messages arrive twice.
    pub duplicate_ppm: u32,
    /// How many of a million messages take up to `reorder_by` longer.
    pub reorder_ppm: u32,
    /// See `reorder_ppm`.
    pub reorder_by: Duration,
    /// How many of a million messages, or pieces of a stream, have a wrong bit.
    pub damage_ppm: u32,
    /// What a link carries, in bytes a second.
    pub bytes_per_second: u64,
    /// How many of a million pieces of a stream are cut short.
    pub chop_ppm: u32,
}

impl Default for Links {
    /// A good local network.
    fn default() -> Self {
        Self {
            latency_min: Duration::from_micros(50),
            latency_max: Duration::from_micros(500),
            jitter: Duration::from_micros(100),
            loss_ppm: 0,
            duplicate_ppm: 0,
            reorder_ppm: 0,
            reorder_by: Duration::ZERO,
            damage_ppm: 0,
            bytes_per_second: u64::MAX,
            chop_ppm: 0,
        }
    }
}

/// The mixture of faults that one seed has, and how strong each of them is.
///
/// ```
/// use mainstay_sim::{FaultSet, Faults};
/// let one = Faults::drawn(7, FaultSet::NETWORK | FaultSet::PROCESS);
/// assert_eq!(one, Faults::drawn(7, FaultSet::NETWORK | FaultSet::PROCESS));
/// assert_eq!(Faults::drawn(7, FaultSet::NONE), Faults::none());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Faults {
    /// Which kinds there are.
    pub set: FaultSet,
    /// What links are like.
    pub links: Links,
    /// What disks are like.
    pub disks: DiskFaults,
    /// Clocks are at most so much too fast or too slow, in parts per million.
    pub drift_ppm_max: u32,
    /// Wall clocks are set forward or back by at most so much.
    pub jump_max: Duration,
    /// How often a fault that comes and goes comes, over the whole world: once in this time.
    pub once_in: Duration,
    /// How long it stays at most.
    pub lasts_max: Duration,
    /// How many nodes may be down at a time, at most.
    pub down_max: usize,
}

impl Faults {
    /// A world without faults.
    ///
    /// Example: see [`Faults`].
    #[must_use]
    pub fn none() -> Self {
        Self {
            set: FaultSet::NONE,
            links: Links::default(),
            disks: DiskFaults::NONE,
            drift_ppm_max: 0,
            jump_max: Duration::ZERO,
            once_in: Duration::MAX,
            lasts_max: Duration::ZERO,
            down_max: usize::MAX,
        }
    }

    /// The mixture of a seed: each kind that is allowed with a chance of a half, from weak to strong.
    ///
    /// Example: see [`Faults`].
    #[must_use]
    pub fn drawn(seed: u64, allowed: FaultSet) -> Self {
        let mut rng = stream(seed, "swarm");
        // Drawn for each kind, allowed or not, so that allowing one more changes no other.
        let coins = rng.next_u64();
        let chosen = Fault::ALL.into_iter().filter(|fault| coins >> *fault as u32 & 1 == 1);
        let set = chosen.filter(|fault| allowed.has(*fault)).collect::<Vec<_>>();
        let mut faults = Self { set: FaultSet::of(&set), ..Self::none() };
        if faults.set == FaultSet::NONE {
            return faults;
        }
        faults.once_in = Duration::from_millis(log_between(&mut rng, 200, 5_000));
        faults.lasts_max = Duration::from_millis(log_between(&mut rng, 100, 20_000));
        for fault in Fault::ALL {
            let mut strength = stream(seed, &fault.to_string());
            if faults.set.has(fault) {
                faults.strengthen(fault, &mut strength);
            }
        }
        faults
    }

    fn strengthen(&mut self, fault: Fault, rng: &mut Rng) {
        let Self { links, disks, .. } = self;
        let millis = Duration::from_millis;
        match fault {
            Fault::Loss => links.loss_ppm = ppm(rng, 1_000, 300_000),
            Fault::Duplicate => links.duplicate_ppm = ppm(rng, 1_000, 300_000),
            Fault::Reorder => {
                links.reorder_ppm = ppm(rng, 1_000, 300_000);
                links.reorder_by = millis(log_between(rng, 1, 2_000));
            }
            Fault::Slow => {
                links.latency_max = millis(log_between(rng, 1, 500));
                links.jitter = millis(log_between(rng, 1, 200));
            }
            Fault::Narrow => links.bytes_per_second = log_between(rng, 20_000, 10_000_000),
            Fault::Damage => links.damage_ppm = ppm(rng, 100, 20_000),
            Fault::Chop => links.chop_ppm = ppm(rng, 50_000, 1_000_000),
            Fault::Drift => self.drift_ppm_max = log_between(rng, 10, 100_000) as u32,
            Fault::Jump => self.jump_max = millis(log_between(rng, 10, 86_400_000)),
            Fault::DiskError => {
                disks.read_error_ppm = ppm(rng, 100, 20_000);
                disks.write_error_ppm = ppm(rng, 100, 20_000);
            }
            Fault::SyncError => disks.sync_error_ppm = ppm(rng, 2_000, 200_000),
            Fault::NoSpace => disks.no_space_ppm = ppm(rng, 100, 50_000),
            Fault::SlowDisk => {
                disks.access_time = Duration::from_micros(log_between(rng, 1, 1_000));
                disks.sync_time = millis(log_between(rng, 1, 200));
            }
            Fault::Shred => disks.shred_ppm = ppm(rng, 100_000, 1_000_000),
            Fault::Misdirect => disks.misdirect_ppm = ppm(rng, 20_000, 500_000),
            // They come and go, or are as they are.
            Fault::Clog
            | Fault::Partition
            | Fault::OneWay
            | Fault::Break
            | Fault::Kill
            | Fault::PowerCut
            | Fault::Pause
            | Fault::Ties => {}
        }
    }
}

fn ppm(rng: &mut Rng, least: u64, most: u64) -> u32 {
    log_between(rng, least, most) as u32
}

/// A number from `least` to `most`, in which each doubling is as likely as the next.
fn log_between(rng: &mut Rng, least: u64, most: u64) -> u64 {
    let doublings = u64::from((most / least.max(1)).max(1).ilog2());
    let low = least << rng.between(0, doublings);
    rng.between(low, (low * 2).min(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_on_in_about_half_of_the_seeds_and_off_in_the_others() {
        let all = FaultSet::of(&Fault::ALL);
        for fault in Fault::ALL {
            let on = (0..400).filter(|seed| Faults::drawn(*seed, all).set.has(fault)).count();
            assert!((140..260).contains(&on), "{fault}: {on}");
        }
    }

    #[test]
    fn allowing_one_more_kind_changes_no_other() {
        for seed in 0..100 {
            let network = Faults::drawn(seed, FaultSet::NETWORK);
            let more = Faults::drawn(seed, FaultSet::NETWORK | FaultSet::DISK);
            assert_eq!(more.set.without(FaultSet::DISK), network.set);
            assert_eq!(more.links, network.links);
        }
    }

    #[test]
    fn what_is_not_chosen_is_as_in_a_world_without_faults() {
        for seed in 0..100 {
            let faults = Faults::drawn(seed, FaultSet::of(&[Fault::Loss]));
            let lossless = Links { loss_ppm: 0, ..faults.links };
            assert_eq!(lossless, Links::default());
            assert_eq!(faults.links.loss_ppm > 0, faults.set.has(Fault::Loss));
            assert_eq!(faults.disks, DiskFaults::NONE);
        }
    }

    #[test]
    fn strengths_are_spread_over_their_range() {
        let mut rng = Rng::seeded(1);
        let drawn: Vec<u64> = (0..1_000).map(|_| log_between(&mut rng, 10, 10_000)).collect();
        assert!(drawn.iter().all(|n| (10..=10_000).contains(n)));
        assert!(drawn.iter().filter(|n| **n < 100).count() > 150);
        assert!(drawn.iter().filter(|n| **n > 1_000).count() > 150);
    }
}
