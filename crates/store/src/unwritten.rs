//! The newest writes of a process that is dead by now, for who only looks: those that are in the
//! ring of a memory and in no file.

use mainstay_shm::Access;
use mainstay_storage::Folder;

use crate::{
    error::{Error, Result},
    format::{DATA_AT, StoreHeader, live_name},
    home::reserved,
    live::{Control, has_frames_of, header, read_header, ring_bytes, ring_read},
    log::Frame,
    memory::Memory,
};

/// Frames that continue a segment.
pub(crate) struct Unwritten {
    segment: u64,
    from: u64,
    frames: Vec<u8>,
    durable: u64,
}

impl Unwritten {
    /// What the memory of a shard has of them, if it is to be believed.
    pub(crate) fn find<F: Folder>(
        folder: &F,
        store: &StoreHeader,
        shard: u32,
    ) -> Result<Option<Self>> {
        let name = live_name(shard);
        let names = folder.names().map_err(Error::io("the directory"))?;
        if !names.contains(&name) {
            return Ok(None);
        }
        let Some(file) = folder.mapped(&name).map_err(Error::io(&*name))? else {
            return Ok(None);
        };
        let memory = Memory::over(file, reserved(store), Access::ReadOnly)?;
        let boot = folder.boot().map_err(Error::io("the name of this run"))?;
        let expected = header(store, shard, boot);
        if read_header(&memory).is_none_or(|found| !has_frames_of(&found, &expected)) {
            return Ok(None);
        }
        let Some(control) = Control::of(&memory) else { return Ok(None) };
        let Some(place) = control.committed() else { return Ok(None) };
        let from = match control.written() {
            (segment, at) if segment == place.segment => at,
            (segment, _) if segment > place.segment => return Ok(None),
            _ => DATA_AT,
        };
        let ring = ring_bytes(store.segment_bytes.get());
        let is_sound = (DATA_AT..=place.at).contains(&from) && place.at - from <= ring;
        // What cannot be is not believed.
        let durable = Some(control.durable()).filter(|durable| *durable <= place.sequence);
        Ok(is_sound.then(|| Self {
            segment: place.segment,
            from,
            frames: ring_read(&memory, ring, from, place.at),
            durable: durable.unwrap_or(0),
        }))
    }

    /// The segment that the last write is in, and the last write that was durable.
    pub(crate) fn durable(&self) -> (u64, u64) {
        (self.segment, self.durable)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Puts those behind `end`, where the sound frames of a segment end, into its bytes, if they go
    /// on from there: after a sequence, with a chain, of a shard. Whether they do.
    pub(crate) fn complete(
        &self,
        (segment, end): (u64, usize),
        bytes: &mut [u8],
        after: (u64, u32, u32),
    ) -> bool {
        let known = (end as u64).checked_sub(self.from).filter(|_| segment == self.segment);
        let Some(frames) = known.and_then(|known| self.frames.get(known as usize..)) else {
            return false;
        };
        let goes_on = Frame::read(frames).is_some_and(|Frame { header, .. }| {
            let (sequence, chain, shard) = after;
            header.sequence.get().checked_sub(1) == Some(sequence)
                && (header.chain.get(), header.shard.get()) == (chain, shard)
        });
        // One that the memory does not have as it was is none, and no damage of the file.
        let mut len = 0;
        while let Some(frame) = Frame::read(&frames[len..]) {
            len += frame.header.len.get() as usize;
        }
        let place = bytes.get_mut(end..end + len).filter(|_| goes_on);
        place.map(|place| place.copy_from_slice(&frames[..len])).is_some()
    }
}
