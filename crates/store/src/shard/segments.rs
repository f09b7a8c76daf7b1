//! The segments of a shard's log: made of zeros, begun by a header, one after another.

use std::sync::Arc;

use mainstay_storage::{Folder, Storage, write_zeros};

use super::{Log, Segment, Shard};
use crate::{
    backup::End,
    error::{Error, Result},
    format::{
        DATA_AT, Header, SegmentHeader, StoreHeader, VERSION, chain_start, segment_name,
        write_header,
    },
    history::{History, Position},
    planted::{self, Fault},
};

/// How a segment gets its zeros.
#[derive(Clone, Copy)]
enum Filling {
    /// Written, so that a sync of frames has nothing to note but their bytes.
    Written,
    /// As the file system likes. A shard that mends is filled as fast as its disk takes it, nobody
    /// waits for a sync of one frame, and what is written twice takes twice as long.
    Allocated,
}

impl Filling {
    fn of(history: History) -> Self {
        if history.position().is_some() { Self::Written } else { Self::Allocated }
    }
}

/// Makes a segment of zeros, durably. A file whose making failed is in doubt for good, and never
/// made again: the next try takes another number.
fn make_segment<F: Folder>(
    folder: &F,
    name: &str,
    bytes: u64,
    filling: Filling,
) -> Result<F::File> {
    let make = || {
        let file = folder.file(name)?;
        match filling {
            Filling::Written => write_zeros(&file, bytes)?,
            Filling::Allocated => file.allocate(bytes)?,
        }
        file.sync()?;
        if !planted::is(Fault::NamesUnsynced) {
            folder.sync_names()?;
        }
        Ok(file)
    };
    make().map_err(|error| {
        // It is blank: if it stays, the next opening removes it.
        let _in_doubt = folder.remove(name);
        Error::io(name)(error)
    })
}

fn segment_header(store: &StoreHeader, shard: u32, number: u64) -> SegmentHeader {
    SegmentHeader {
        magic: SegmentHeader::MAGIC,
        version: VERSION.into(),
        flags: 0.into(),
        id: store.id,
        shard: shard.into(),
        chain: chain_start(&store.id, shard).into(),
        number: number.into(),
        epoch: store.epoch,
        first_sequence: 1.into(),
        bytes: store.segment_bytes,
        origin: History::At(Position::START).to_bytes(),
        vouched: 0.into(),
        reserved: [0; 16],
        checksum: 0.into(),
    }
}

/// Makes the first segment of a new shard.
pub(crate) fn create<F: Folder>(folder: &F, store: &StoreHeader, shard: u32) -> Result<()> {
    make_begun(folder, store, &segment_header(store, shard, 1))
}

/// Makes the segment of a shard behind what an image has of it.
pub(crate) fn create_behind<F: Folder>(
    folder: &F,
    store: &StoreHeader,
    (shard, number): (u32, u64),
    end: &End,
) -> Result<()> {
    let mut header = segment_header(store, shard, number);
    header.chain = end.chain.into();
    header.first_sequence = (end.sequence + 1).into();
    header.origin = end.history.to_bytes();
    make_begun(folder, store, &header)
}

fn make_begun<F: Folder>(folder: &F, store: &StoreHeader, header: &SegmentHeader) -> Result<()> {
    let name = segment_name(header.shard.get(), header.number.get());
    let file = make_segment(folder, &name, store.segment_bytes.get(), Filling::Written)?;
    write_header(&file, header).and_then(|()| file.sync()).map_err(Error::io(name))
}

impl<F: Folder> Shard<F> {
    /// Goes on in a new segment. An error before it is begun changes nothing.
    pub(super) fn rotate(
        &self,
        folder: &F,
        store: &StoreHeader,
        log: &mut Log<F::File>,
    ) -> Result<()> {
        let (number, file) = match log.spare.take() {
            Some(spare) => spare,
            None => {
                let number = log.next_number;
                log.next_number += 1;
                let name = segment_name(self.number, number);
                let filling = Filling::of(log.history);
                (number, make_segment(folder, &name, store.segment_bytes.get(), filling)?)
            }
        };
        self.drain(log)?;
        if !planted::is(Fault::RotationWithoutSync) {
            self.sync(log.sequence, || log.file.sync())?;
        }
        let mut header = segment_header(store, self.number, number);
        header.chain = log.chain.into();
        header.first_sequence = (log.sequence + 1).into();
        header.origin = log.history.to_bytes();
        write_header(&file, &header)
            .and_then(|()| file.sync())
            .map_err(|error| self.group.poison("beginning a segment", &error))?;
        let (first, origin) = (log.sequence + 1, log.history);
        log.segments.push(Segment { number, first, origin });
        if log.history.position().is_none() {
            // Nobody reads the log of a shard that mends; its pages are as good for the next segment.
            log.file.forget();
        }
        log.file = Arc::new(file);
        (log.at, log.drained, log.saved) = (DATA_AT, DATA_AT, DATA_AT);
        self.note_written(log, DATA_AT)
    }

    /// Makes a segment in advance once the present one is half full.
    pub(crate) fn prepare(&self, folder: &F, store: &StoreHeader) -> Result<()> {
        let _upkeep = self.upkeep();
        let bytes = store.segment_bytes.get();
        let (number, filling) = {
            let mut log = self.writer();
            if log.spare.is_some() || log.at < bytes / 2 {
                return Ok(());
            }
            log.next_number += 1;
            (log.next_number - 1, Filling::of(log.history))
        };
        let name = segment_name(self.number, number);
        let file = make_segment(folder, &name, bytes, filling)?;
        let mut log = self.writer();
        // A segment that was begun meanwhile has a higher number, and this one would come before.
        if log.segments.iter().any(|begun| begun.number > number) {
            drop(log);
            return folder.remove(&name).map_err(Error::io(name));
        }
        log.spare = Some((number, file));
        Ok(())
    }
}
