//! A mark that all of a log was durable, beside the log: the damage of its last writes is told from
//! their never having been finished (A4), and no write of the history is needed to say so. The log of
//! a follower has its leader's writes and no others.

use mainstay_storage::{Folder, Storage};

use super::{Log, Shard};
use crate::{
    error::{Error, Result},
    format::{COPY_AT, HEADER_LEN, SegmentHeader, read_headers, sealed, segment_name},
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

    /// The same, if nothing was written since this was called last, and all is durable anyway.
    pub(crate) fn vouch_if_idle(&self) -> Result<()> {
        let mut log = self.writer();
        let (was, now) = (log.considered, log.sequence);
        log.considered = now;
        if was != now || log.vouched >= was || !self.is_durable(was) {
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
        self.sync(sequence, || log.file.write_synced_at(COPY_AT, &mark(&header, sequence)))?;
        log.vouched = sequence;
        Ok(())
    }
}
