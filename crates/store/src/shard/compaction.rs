//! Images of a shard, behind which its log is cut (A6).

use mainstay_storage::{Folder, Storage};

use super::Shard;
use crate::{
    error::{Error, Result},
    format::{Header, ImageHeader, StoreHeader, VERSION, image_name, segment_name, write_header},
    image,
    planted::{self, Fault},
};

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

    /// Writes an image and cuts the log (A6). Writers go on.
    pub(crate) fn compact(&self, folder: &F, store: &StoreHeader) -> Result<()> {
        let _upkeep = self.upkeep();
        self.group.check_sound()?;
        let (number, from) = {
            let mut log = self.writer();
            log.next_number += 1;
            (log.next_number - 1, log.sequence)
        };
        let name = image_name(self.number, number);
        let written = self.write_image(folder, store, &name, (number, from));
        if let Err(error) = written {
            // Unfinished, it is in nobody's way; removed, it takes no room.
            let _unfinished = folder.remove(&name);
            return Err(error);
        }
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

    fn write_image(
        &self,
        folder: &F,
        store: &StoreHeader,
        name: &str,
        (number, from): (u64, u64),
    ) -> Result<()> {
        let failed = |error| Error::io(name)(error);
        let file = folder.file(name).map_err(failed)?;
        let (chunks, records, bytes) =
            image::write_chunks(&file, number, name, |slot, max, out| {
                self.table.chunk(slot, max, out)
            })?;
        let through = self.written();
        if !planted::is(Fault::ImageAhead) {
            self.wait(through)?;
        }
        let finish = |header: &ImageHeader| {
            if planted::is(Fault::LogCutEarly) {
                return write_header(&file, header);
            }
            if !planted::is(Fault::ImageHeaderEarly) {
                file.sync()?;
            }
            folder.sync_names()?;
            write_header(&file, header)?;
            file.sync()
        };
        finish(&ImageHeader {
            magic: ImageHeader::MAGIC,
            version: VERSION.into(),
            flags: 0.into(),
            id: store.id,
            shard: self.number.into(),
            chunks: chunks.into(),
            number: number.into(),
            epoch: store.epoch,
            from: from.into(),
            through: through.into(),
            records: records.into(),
            bytes: bytes.into(),
            reserved: [0; 36],
            checksum: 0.into(),
        })
        .map_err(failed)
    }
}
