//! What a power cut may leave: one drawn, or all of them.

use super::{
    Disk, DiskFaults,
    contents::{Choice, Contents},
    names::InDoubt,
};
use crate::Chance;
use mainstay_base::Rng;
use std::collections::BTreeMap;

/// A manner of losing what was not synced. Drawing each sector on its own would hardly ever leave
/// everything, nothing, or a clean cut in a long series of writes, and faults hide there too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    Everything,
    Nothing,
    /// All writes up to some point in time; the next one torn.
    After,
    /// Each sector on its own.
    Anything,
}

impl Loss {
    pub(super) fn drawn(rng: &mut Rng) -> Self {
        *rng.pick(&[Self::Everything, Self::Nothing, Self::After, Self::After, Self::Anything])
    }

    pub(super) fn choose(self, contents: &Contents, rng: &mut Rng) -> Choice {
        let dirty = contents.dirty.values();
        match self {
            Self::Everything => Choice { sectors: dirty.map(|_| 0).collect(), length: 0 },
            Self::Nothing => Choice {
                sectors: dirty.map(|dirty| dirty.versions.len()).collect(),
                length: contents.lengths.len(),
            },
            Self::After => after(contents, rng),
            Self::Anything => Choice {
                sectors: dirty.map(|dirty| any(dirty.versions.len(), rng)).collect(),
                length: any(contents.lengths.len(), rng),
            },
        }
    }
}

pub(super) fn any(versions: usize, rng: &mut Rng) -> usize {
    rng.between(0, versions as u64) as usize
}

fn after(contents: &Contents, rng: &mut Rng) -> Choice {
    let dirty = || contents.dirty.values();
    let in_sectors = dirty().flat_map(|dirty| &dirty.versions).map(|(operation, _)| *operation);
    let in_length = contents.lengths.iter().map(|(operation, _)| *operation);
    let mut operations: Vec<u64> = in_sectors.chain(in_length).collect();
    operations.sort_unstable();
    operations.dedup();
    let Some(torn) = operations.get(any(operations.len(), rng)).copied() else {
        return Loss::Nothing.choose(contents, rng);
    };
    let mut upto = |made_by: &mut dyn Iterator<Item = u64>| {
        let limit = torn + u64::from(rng.chance(500_000));
        made_by.filter(|operation| *operation < limit).count()
    };
    Choice {
        sectors: dirty().map(|dirty| upto(&mut dirty.versions.iter().map(|(op, _)| *op))).collect(),
        length: upto(&mut contents.lengths.iter().map(|(op, _)| *op)),
    }
}

/// The disks that a power cut could leave. See [`Disk::crash_images`].
///
/// Example: see [`Disk`].
pub struct CrashImages {
    files: InDoubt,
    faults: DiskFaults,
    rng: Rng,
    left: usize,
    /// The next one to show if all are shown in turn.
    counter: Option<Vec<Choice>>,
}

impl CrashImages {
    pub(super) fn new(files: InDoubt, faults: DiskFaults, rng: Rng, max: usize) -> Self {
        let named = &files.named;
        let all = named.values().flat_map(wheels).try_fold(1_usize, usize::checked_mul);
        let damages = faults.misdirect_ppm > 0 || faults.shred_ppm > 0 || files.loses_names();
        let all = all.filter(|all| *all <= max && !damages);
        let mut none = Rng::seeded(0);
        let counter = all.map(|_| {
            named.values().map(|contents| Loss::Everything.choose(contents, &mut none)).collect()
        });
        Self { files, faults, rng, left: all.unwrap_or(max), counter }
    }

    /// Is every possible image among them?
    ///
    /// ```
    /// use mainstay_sim::{Disk, Storage};
    /// let disk = Disk::new(7);
    /// disk.file("log").write_at(0, &[1; 2_000])?;
    /// assert!(disk.crash_images(100).is_all());
    /// assert!(!disk.crash_images(10).is_all());
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.counter.is_some()
    }
}

impl Iterator for CrashImages {
    type Item = Disk;

    fn next(&mut self) -> Option<Disk> {
        self.left = self.left.checked_sub(1)?;
        let files = match &mut self.counter {
            None => self.files.after_power_cut(&self.faults, &mut self.rng),
            Some(choices) => {
                let shown = self.files.named.iter().zip(&*choices);
                let shown =
                    shown.map(|((name, contents), choice)| (name.clone(), contents.with(choice)));
                let shown = shown.collect();
                turn(&self.files.named, choices);
                shown
            }
        };
        Some(Disk::with(files, Rng::seeded(self.rng.next_u64())))
    }
}

/// How many versions each dirty sector and the length can have.
fn wheels(contents: &Contents) -> impl Iterator<Item = usize> {
    let sectors = contents.dirty.values().map(|dirty| dirty.versions.len() + 1);
    sectors.chain([contents.lengths.len() + 1])
}

/// Turns the first wheel by one, and the next when one has come round.
fn turn(files: &BTreeMap<String, Contents>, choices: &mut [Choice]) {
    for (contents, choice) in files.values().zip(choices) {
        let shown = choice.sectors.iter_mut().chain([&mut choice.length]);
        for (shown, versions) in shown.zip(wheels(contents)) {
            *shown = (*shown + 1) % versions;
            if *shown > 0 {
                return;
            }
        }
    }
}
