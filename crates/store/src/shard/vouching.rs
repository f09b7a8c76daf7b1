//! A mark that all of a log was durable, beside the log: the damage of its last writes is told from
//! their never having been finished (A4), and no write of the history is needed to say so. The log of
//! a follower has its leader's writes and no others; that of a leader ends with a frame that vouches
//! for those before it, which is lost with them if they are in one sector.

use mainstay_storage::{Folder, Storage};

use super::{Log, Shard};
use crate::{
    error::{Error, Result},
    format::{COPY_AT, HEADER_LEN, SegmentHeader, read_headers, sealed, segment_name},
    planted::{self, Fault},
};

/// The header of a segment with the mark.
pub(super) fn mark(header: &SegmentHeader, sequence: u64) -> [u8; HEADER_LEN] {
    sealed(&SegmentHeader { vouched: sequence.into(), ..*header })
}

impl<F: Folder> Shard<F> {
    /// Makes everything durable, and says so in the header of the segment.
    pub(crate) fn vouch(&self) -> Result<()> {
        let mut log = self.writer();
        if log.vouched >= log.sequence {
            return Ok(());
        }
        self.sync_now(&mut log)?;
        self.note_vouched(&mut log)
    }

    /// The same, if nothing was written while this was called so many times, and all is durable anyway.
    pub(crate) fn vouch_if_idle(&self, looks: u32) -> Result<()> {
        let mut log = self.writer();
        let ((was, times), now) = (log.considered, log.sequence);
        let times = if was == now { times.saturating_add(1) } else { 0 };
        log.considered = (now, times);
        let is_durable = self.is_durable(was) || planted::is(Fault::VouchedUnsynced);
        if times < looks || log.vouched >= was || !is_durable {
            return Ok(());
        }
        self.note_vouched(&mut log)
    }

    /// Nothing is written meanwhile. The first copy of the header stays as it is: whatever becomes of
    /// the second one, the segment can be read.
    fn note_vouched(&self, log: &mut Log<F::File>) -> Result<()> {
        let name = segment_name(self.number, log.segment());
        let Some(header) = read_headers::<SegmentHeader>(&*log.file, &name)?.pop() else {
            return Err(Error::damaged(&name, 0, "neither copy of the header is sound"));
        };
        let sequence = log.sequence;
        if planted::is(Fault::VouchedUnsynced) {
            return log.file.write_at(COPY_AT, &mark(&header, sequence)).map_err(Error::io(name));
        }
        self.sync(sequence, || log.file.write_synced_at(COPY_AT, &mark(&header, sequence)))?;
        log.vouched = sequence;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Durability, Options, RawStore, planted, planted::Fault};
    use mainstay_sim::Disk;
    use std::collections::BTreeMap;

    const SECTOR: usize = 512;

    fn options() -> Options {
        Options { shards: 1, segment_bytes: 16 << 10, ..Options::default() }
    }

    fn opened(disk: &Disk) -> Result<usize> {
        let store = RawStore::open(disk.clone(), &options())?;
        let mut found = BTreeMap::new();
        store.for_each(|key, value| drop(found.insert(key.to_vec(), value.to_vec())))?;
        Ok(found.len())
    }

    /// A store of six records whose last sector is lost, or overwritten: the frame of the last write, and
    /// the one behind it. `end` says how the store is left.
    fn without_its_last_sector(byte: u8, end: impl FnOnce(RawStore<Disk>)) -> Result<usize> {
        let disk = Disk::new(7);
        let store = RawStore::create(disk.clone(), 1, 3, &options()).unwrap();
        for key in 0..6_u8 {
            store.put(&[key], b"049", Durability::Each).unwrap();
        }
        end(store);
        let image = disk.crash_images(1).next().unwrap();
        assert_eq!(opened(&image).unwrap(), 6);
        let file = Folder::file(&disk, &segment_name(0, 1)).unwrap();
        let mut bytes = vec![0; Storage::len(&file).unwrap() as usize];
        file.read_at(0, &mut bytes).unwrap();
        let last = bytes.iter().rposition(|byte| *byte != 0).unwrap() / SECTOR * SECTOR;
        assert!(last >= 4_096, "it is of the log");
        file.write_at(last as u64, &[byte; SECTOR]).unwrap();
        file.sync().unwrap();
        opened(&disk)
    }

    #[test]
    fn a4_the_last_sector_of_a_log_is_missed_though_what_vouches_for_it_is_gone_with_it() {
        let closed = |store: RawStore<Disk>| store.close().unwrap();
        let idle = |store: RawStore<Disk>| (0..3).for_each(|_| store.upkeep().unwrap());
        assert!(matches!(without_its_last_sector(0, closed), Err(Error::Damaged { .. })));
        assert!(matches!(without_its_last_sector(0, idle), Err(Error::Damaged { .. })));
        // One that died in the middle of its work is vouched for up to the last sync but one; and by what
        // lies there, if that is not zeros.
        assert!(without_its_last_sector(0, drop).unwrap() < 6);
        assert!(matches!(without_its_last_sector(7, drop), Err(Error::Damaged { .. })));
        planted::plant(Some(Fault::EndUnmarked));
        assert!(without_its_last_sector(0, closed).unwrap() < 6, "the fault is found");
        planted::plant(Some(Fault::EndUnlooked));
        assert!(without_its_last_sector(7, drop).unwrap() < 6, "the fault is found");
        planted::plant(None);
    }
}
