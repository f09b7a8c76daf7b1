//! Images of a shard, behind which its log is cut (A6).

use mainstay_storage::{Folder, Storage};

use super::Shard;
use crate::{
    error::{Error, Result},
    format::{Header, ImageHeader, StoreHeader, VERSION, image_name, segment_name, write_header},
    image::Chunks,
    planted::{self, Fault},
};

/// An image that is being written.
pub(crate) struct Unfinished<S> {
    file: S,
    name: String,
    number: u64,
    /// The last write that is in it for certain.
    from: u64,
    chunks: Chunks,
    /// Where to go on from; none: all records are in it.
    slot: Option<u32>,
}

impl<F: Folder> Shard<F> {
    /// Is the log so long, compared with the records, that an image is worth its writing?
    pub(crate) fn is_long(&self, store: &StoreHeader) -> bool {
        let log = self.writer();
        let live = self.table.len() * self.table.record() as u64;
        // Those that an image made needless, and followers still want, do not count.
        let image = log.image.map_or(0, |(_, from)| from);
        let behind = log.segments.iter().filter(|segment| segment.first > image.max(1)).count();
        behind as u64 * store.segment_bytes.get() > live.max(2 * store.segment_bytes.get())
    }

    /// Writes an image of all there is now, and cuts the log (A6). Writers go on.
    pub(crate) fn compact(&self, folder: &F, store: &StoreHeader) -> Result<()> {
        // An image that was begun before lets less of the log go.
        self.stop_compacting(folder);
        let mut upkeep = self.upkeep();
        self.go_on(folder, store, &mut upkeep, u64::MAX).map(drop)
    }

    /// Writes some `bytes_max` of an image, if one was begun or the log is long, and cuts the log
    /// when it is finished. How many it was.
    pub(crate) fn compact_some(
        &self,
        folder: &F,
        store: &StoreHeader,
        bytes_max: u64,
    ) -> Result<u64> {
        let mut upkeep = self.upkeep();
        if upkeep.is_none() && !self.is_long(store) {
            return Ok(0);
        }
        self.go_on(folder, store, &mut upkeep, bytes_max)
    }

    /// Was an image begun that is not finished?
    pub(crate) fn is_compacting(&self) -> bool {
        self.upkeep().is_some()
    }

    /// Gives up an image that was begun.
    pub(crate) fn stop_compacting(&self, folder: &F) {
        if let Some(begun) = self.upkeep().take() {
            give_up(folder, &begun.name);
        }
    }

    fn go_on(
        &self,
        folder: &F,
        store: &StoreHeader,
        upkeep: &mut Option<Unfinished<F::File>>,
        bytes_max: u64,
    ) -> Result<u64> {
        let mut image = match upkeep.take() {
            Some(begun) => begun,
            None => self.begin_image(folder)?,
        };
        let before = image.chunks.at();
        match self.write_image(folder, store, &mut image, bytes_max) {
            Ok(true) => self.cut_log(folder, (image.number, image.from))?,
            Ok(false) => return Ok(upkeep.insert(image).chunks.at() - before),
            Err(error) => {
                give_up(folder, &image.name);
                return Err(error);
            }
        }
        Ok(image.chunks.at() - before)
    }

    fn begin_image(&self, folder: &F) -> Result<Unfinished<F::File>> {
        self.group.check_sound()?;
        let (number, from) = {
            let mut log = self.writer();
            log.next_number += 1;
            (log.next_number - 1, log.sequence)
        };
        let name = image_name(self.number, number);
        let file = folder.file(&name).map_err(Error::io(&*name))?;
        let chunks = Chunks::new(number, name.clone());
        Ok(Unfinished { file, name, number, from, chunks, slot: Some(0) })
    }

    /// Nothing behind the image's `from` is in the image for certain.
    fn cut_log(&self, folder: &F, (number, from): (u64, u64)) -> Result<()> {
        let mut log = self.writer();
        let wanted = log.retain.map_or(from, |retain| retain.min(from));
        let keep = log.segments.iter().rposition(|one| one.first <= wanted + 1).unwrap_or(0);
        let old = log.segments.drain(..keep).map(|one| segment_name(self.number, one.number));
        let mut old: Vec<String> = old.collect();
        let replaced = log.image.replace((number, from));
        old.extend(replaced.map(|(number, _)| image_name(self.number, number)));
        drop(log);
        for name in old {
            folder.remove(&name).map_err(Error::io(name))?;
        }
        folder.sync_names().map_err(Error::io("the directory"))
    }

    /// Writes some `bytes_max` of an image, and says whether that was all of it.
    fn write_image(
        &self,
        folder: &F,
        store: &StoreHeader,
        image: &mut Unfinished<F::File>,
        bytes_max: u64,
    ) -> Result<bool> {
        self.group.check_sound()?;
        let Unfinished { file, name, number, from, chunks, slot } = image;
        let failed = |error| Error::io(&**name)(error);
        if let Some(at) = *slot {
            let some = (bytes_max, self.table.record());
            let next = |slot, max, out: &mut Vec<u8>| self.table.chunk(slot, max, out);
            *slot = chunks.write_some(file, at, some, next)?;
            if slot.is_some() {
                // What is on its way to the disk is bounded as well, so that a sync of the log need
                // not wait for all of it.
                file.sync().map_err(failed)?;
                return Ok(false);
            }
        }
        let (chunks, records, bytes) = chunks.finish(file)?;
        let through = self.written();
        if planted::is(Fault::ImageDatedLate) {
            *from = through;
        }
        if !planted::is(Fault::ImageAhead) {
            self.wait(through)?;
        }
        let finish = |header: &ImageHeader| {
            if planted::is(Fault::LogCutEarly) {
                return write_header(file, header);
            }
            if !planted::is(Fault::ImageHeaderEarly) {
                file.sync()?;
            }
            if !planted::is(Fault::CutBeforeName) {
                folder.sync_names()?;
            }
            write_header(file, header)?;
            file.sync()
        };
        finish(&ImageHeader {
            magic: ImageHeader::MAGIC,
            version: VERSION.into(),
            flags: 0.into(),
            id: store.id,
            shard: self.number.into(),
            chunks: chunks.into(),
            number: (*number).into(),
            epoch: store.epoch,
            from: (*from).into(),
            through: through.into(),
            records: records.into(),
            bytes: bytes.into(),
            reserved: [0; 36],
            checksum: 0.into(),
        })
        .map_err(failed)?;
        Ok(true)
    }
}

/// Unfinished, an image is in nobody's way; removed, it takes no room.
fn give_up(folder: &impl Folder, name: &str) {
    let _unfinished = folder.remove(name);
}
