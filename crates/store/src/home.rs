//! Where the memory of a shard is: in files of the store's folder, or in private memory where the
//! folder has no files that can be mapped.

use std::fs::File;

use mainstay_shm::Access;
use mainstay_storage::Folder;

use crate::{
    error::{Error, Result},
    format::{StoreHeader, index_name, live_name},
    index::end_of,
    limits::{ADDRESS_BYTES, RECORDS_MAX},
    live::{Control, header, read_header, ring_bytes},
    memory::Memory,
    table::Table,
    view::{Shape, View},
};

/// The memory of one shard.
pub(crate) struct InFolder<'a, F> {
    pub(crate) folder: &'a F,
    pub(crate) shard: u32,
}

/// Sizes of the records of a store.
pub(crate) fn shape(store: &StoreHeader) -> Shape {
    let (key_len, value_len) = (store.key_len.get() as usize, store.value_len.get() as usize);
    Shape::new(key_len, value_len, ring_bytes(store.segment_bytes.get()))
}

/// Addresses kept for the memory of a shard.
pub(crate) fn reserved(store: &StoreHeader) -> u64 {
    let most = ADDRESS_BYTES / u64::from(store.shards.get());
    shape(store).bytes(u64::from(RECORDS_MAX)).min(most)
}

/// Addresses kept for the index of a shard.
pub(crate) fn index_reserved(store: &StoreHeader) -> u64 {
    let slots = shape(store).slots_in(reserved(store));
    // A table is begun when three quarters of one are filled.
    let most = ADDRESS_BYTES / u64::from(store.shards.get());
    end_of(slots + slots / 3).min(most)
}

impl<F: Folder> InFolder<'_, F> {
    fn mapped(&self, name: &str) -> Result<Option<File>> {
        self.folder.mapped(name).map_err(Error::io(name))
    }

    /// What the last process that had the store left of this shard, if it is to be believed.
    pub(crate) fn left(&self, store: &StoreHeader) -> Result<Option<Table>> {
        let name = live_name(self.shard);
        let Some(file) = self.mapped(&name)? else { return Ok(None) };
        let boot = self.folder.boot().map_err(Error::io("the name of this run"))?;
        let memory = Memory::over(file, reserved(store), Access::ReadWrite)?;
        let expected = crate::format::sealed(&header(store, self.shard, boot));
        let is_it =
            read_header(&memory).is_some_and(|found| crate::format::sealed(&found) == expected);
        let is_ignored = crate::planted::is(crate::planted::Fault::BootIgnored);
        if Control::of(&memory).is_none() || !(is_it || is_ignored) {
            return Ok(None);
        }
        let Some(file) = self.mapped(&index_name(self.shard))? else { return Ok(None) };
        let index = Memory::over(file, index_reserved(store), Access::ReadWrite)?;
        let view = View::new(self.shard, shape(store), (memory, index))?;
        Table::adopt(view, ring_bytes(store.segment_bytes.get()))
    }

    /// Memory to be filled. Whoever reads the old one is told.
    pub(crate) fn fresh(&self, store: &StoreHeader, expected: u64) -> Result<Table> {
        let name = live_name(self.shard);
        if let Some(file) = self.mapped(&name)? {
            let old = Memory::over(file, reserved(store), Access::ReadWrite)?;
            if let Some(control) = Control::of(&old) {
                control.retire();
            }
        }
        let index_name = index_name(self.shard);
        for name in [&name, &index_name] {
            self.folder.remove(name).map_err(Error::io(&**name))?;
        }
        let memory = match (self.mapped(&name)?, self.mapped(&index_name)?) {
            (Some(file), Some(index)) => (
                Memory::over(file, reserved(store), Access::ReadWrite)?,
                Memory::over(index, index_reserved(store), Access::ReadWrite)?,
                true,
            ),
            _ => {
                (Memory::private(reserved(store))?, Memory::private(index_reserved(store))?, false)
            }
        };
        let ring = ring_bytes(store.segment_bytes.get());
        Table::new(self.shard, shape(store), memory, ring, expected)
    }
}
