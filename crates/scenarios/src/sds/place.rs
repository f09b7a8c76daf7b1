//! A place for changes on a simulated disk: one file a generation, a base at its start, the changes
//! after it behind it.
//!
//! * A change is kept when its sync has returned well. After a failed one nobody knows what the disk
//!   has, so the next change has to be a base, in a new file.
//! * What stands behind the last whole change is what a death or a power cut left of another one.

use mainstay_sds::persist::Change;
use mainstay_sim::{Disk, DiskFile, Storage};
use std::io;

/// How often a disk that fails is asked again when a channel is loaded.
const TRIES_MAX: usize = 50;

/// Before each change stands how long it is.
const LEN_BYTES: usize = 4;

pub(super) struct Place {
    disk: Disk,
    generation: u64,
    file: Option<DiskFile>,
    len: u64,
    /// A planted fault: says that it keeps what a power cut takes.
    pub(super) never_syncs: bool,
}

fn name(generation: u64) -> String {
    format!("changes-{generation:08}")
}

impl Place {
    /// What the disk has: the place, and the changes of the newest generation that begins with a
    /// whole base.
    pub(super) fn open(disk: Disk) -> (Self, Vec<Vec<u8>>) {
        let generations = |disk: &Disk| {
            let numbers = disk.names();
            let mut numbers: Vec<u64> = numbers
                .iter()
                .filter_map(|name| name.strip_prefix("changes-")?.parse().ok())
                .collect();
            numbers.sort_unstable();
            numbers
        };
        let all = generations(&disk);
        let newest = all.last().copied().unwrap_or_default();
        let mut place = Self { disk, generation: newest, file: None, len: 0, never_syncs: false };
        for generation in all.into_iter().rev() {
            let file = place.disk.file(&name(generation));
            let changes = tries(|| read(&file));
            if changes.first().is_some_and(|bytes| is_base(bytes)) {
                // The file is not added to: nobody knows what is behind the last whole change.
                tries(|| place.copy(&changes));
                return (place, changes);
            }
        }
        place.generation = newest;
        (place, Vec::new())
    }

    /// What was found may be what a killed process wrote and nobody synced, and a sync that failed
    /// before may do nothing now. It is believed when a new file has it: one that has a base at its
    /// start only when all the rest is safe.
    fn copy(&mut self, changes: &[Vec<u8>]) -> io::Result<()> {
        self.generation += 1;
        let own = name(self.generation);
        let file = self.disk.file(&own);
        let bytes = changes.iter().map(|change| record(change)).collect::<Vec<_>>().concat();
        let (start, rest) = bytes.split_at(LEN_BYTES);
        let result = file
            .write_at(LEN_BYTES as u64, rest)
            .and_then(|()| file.sync())
            .and_then(|()| file.write_at(0, start))
            .and_then(|()| file.sync());
        for other in self.disk.names() {
            if (other == own) != result.is_ok() {
                self.disk.remove(&other);
            }
        }
        result
    }

    pub(super) fn save(&mut self, change: &Change<'_>) -> io::Result<()> {
        let result = self.try_save(change);
        if result.is_err() {
            self.file = None;
        }
        result
    }

    fn try_save(&mut self, change: &Change<'_>) -> io::Result<()> {
        if change.base {
            self.generation += 1;
            self.file = Some(self.disk.file(&name(self.generation)));
            self.len = 0;
        }
        let file = self.file.as_ref().ok_or_else(|| io::Error::other("there is no base yet"))?;
        let record = record(change.bytes);
        file.write_at(self.len, &record)?;
        if !self.never_syncs {
            file.sync()?;
        }
        self.len += record.len() as u64;
        if change.base {
            for other in self.disk.names() {
                if other != name(self.generation) {
                    self.disk.remove(&other);
                }
            }
        }
        Ok(())
    }
}

fn tries<T>(mut act: impl FnMut() -> io::Result<T>) -> T {
    (0..TRIES_MAX)
        .find_map(|_| act().ok())
        .expect("a disk that can be used at all fails fifty times in a row")
}

fn record(change: &[u8]) -> Vec<u8> {
    [&(change.len() as u32).to_le_bytes(), change].concat()
}

fn is_base(bytes: &[u8]) -> bool {
    Change::parse("room", bytes).is_ok_and(|change| change.base)
}

/// The whole changes at the front of a file.
fn read(file: &DiskFile) -> io::Result<Vec<Vec<u8>>> {
    let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
    file.read_at(0, &mut bytes)?;
    let (mut changes, mut rest) = (Vec::new(), &bytes[..]);
    while let Some((len, behind)) = rest.split_first_chunk::<LEN_BYTES>()
        && let Some((change, others)) = behind.split_at_checked(u32::from_le_bytes(*len) as usize)
        && Change::parse("room", change).is_ok()
    {
        changes.push(change.to_vec());
        rest = others;
    }
    Ok(changes)
}
