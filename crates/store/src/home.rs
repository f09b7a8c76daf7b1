//! Where the memory of a shard is: in files of the store's folder, or in private memory where the
//! folder has no files that can be mapped.

use mainstay_shm::Access;
use mainstay_storage::Folder;

use crate::{
    error::{Error, Result},
    format::{StoreHeader, index_name, live_name, parse_memory_name},
    index::Index,
    limits::{ADDRESS_BYTES, RECORDS_MAX},
    live::{Control, header, read_header, ring_bytes},
    memory::Memory,
    table::{Home, Table},
    view::{Shape, Tables, View},
};

/// The memory of one shard.
pub(crate) struct InFolder<'a, F> {
    pub(crate) folder: &'a F,
    pub(crate) shard: u32,
}

impl<F: Folder> Home for InFolder<'_, F> {
    fn index(&self, generation: u32, bytes: u64) -> Result<Memory> {
        let name = index_name(self.shard, generation);
        self.folder.remove(&name).map_err(Error::io(&*name))?;
        match self.folder.mapped(&name).map_err(Error::io(&*name))? {
            Some(file) => {
                let memory = Memory::over(file, bytes, Access::ReadWrite)?;
                memory.grow(bytes)?;
                Ok(memory)
            }
            None => Memory::private(bytes),
        }
    }

    fn drop_index(&self, generation: u32) -> Result<()> {
        let name = index_name(self.shard, generation);
        self.folder.remove(&name).map_err(Error::io(name))
    }
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

impl<F: Folder> InFolder<'_, F> {
    /// What the last process that had the store left of this shard, if it is to be believed.
    pub(crate) fn left(&self, store: &StoreHeader) -> Result<Option<Table>> {
        let name = live_name(self.shard);
        let Some(file) = self.folder.mapped(&name).map_err(Error::io(&*name))? else {
            return Ok(None);
        };
        let boot = self.folder.boot().map_err(Error::io("the name of this run"))?;
        let memory = Memory::over(file, reserved(store), Access::ReadWrite)?;
        let expected = crate::format::sealed(&header(store, self.shard, boot));
        let is_it =
            read_header(&memory).is_some_and(|found| crate::format::sealed(&found) == expected);
        if !is_it && !crate::planted::is(crate::planted::Fault::BootIgnored) {
            return Ok(None);
        }
        let open = |generation: u32| {
            let name = index_name(self.shard, generation);
            self.folder.mapped(&name).map_err(Error::io(name))
        };
        match view(store, self.shard, memory, Access::ReadWrite, open)? {
            Some(view) => Table::adopt(view, ring_bytes(store.segment_bytes.get())),
            None => Ok(None),
        }
    }

    /// Memory to be filled. Whoever reads the old one is told.
    pub(crate) fn fresh(&self, store: &StoreHeader, expected: u64) -> Result<Table> {
        let name = live_name(self.shard);
        if let Some(file) = self.folder.mapped(&name).map_err(Error::io(&*name))? {
            let old = Memory::over(file, reserved(store), Access::ReadWrite)?;
            if let Some(control) = Control::of(&old) {
                control.retire();
            }
        }
        self.folder.remove(&name).map_err(Error::io(&*name))?;
        let memory = match self.folder.mapped(&name).map_err(Error::io(&*name))? {
            Some(file) => (Memory::over(file, reserved(store), Access::ReadWrite)?, true),
            None => (Memory::private(reserved(store))?, false),
        };
        let ring = ring_bytes(store.segment_bytes.get());
        Table::new(self.shard, shape(store), memory, ring, expected, self)
    }

    /// Removes the files of indexes that the shard does not use.
    pub(crate) fn tidy(&self, table: &Table) -> Result<()> {
        let used = table.control()?.tables();
        for name in self.folder.names().map_err(Error::io("the directory"))? {
            let Some((shard, Some(generation))) = parse_memory_name(&name) else { continue };
            if shard == self.shard && generation != used.0 && generation != used.1 {
                self.folder.remove(&name).map_err(Error::io(name))?;
            }
        }
        Ok(())
    }
}

/// Looks at a memory with the indexes that it names. `None` if they are not there.
pub(crate) fn view(
    store: &StoreHeader,
    shard: u32,
    memory: Memory,
    access: Access,
    mut open: impl FnMut(u32) -> Result<Option<std::fs::File>>,
) -> Result<Option<View>> {
    let Some(control) = Control::of(&memory) else { return Ok(None) };
    let (new, old) = control.tables();
    let mut index = |generation| -> Result<Option<std::sync::Arc<Index>>> {
        let Some(file) = open(generation)? else { return Ok(None) };
        index_of(generation, file, access)
    };
    let Some(new_index) = index(new)? else { return Ok(None) };
    let old_index = if old == 0 { None } else { index(old)? };
    if old != 0 && old_index.is_none() {
        return Ok(None);
    }
    let tables = Tables { new: new_index, old: old_index };
    let (shape, tables) = (shape(store), arc_swap::ArcSwap::from_pointee(tables));
    Ok(Some(View { shard, shape, memory, tables }))
}

/// The index in a file; `None` if it is none.
pub(crate) fn index_of(
    generation: u32,
    file: std::fs::File,
    access: Access,
) -> Result<Option<std::sync::Arc<Index>>> {
    let bytes = file.metadata().map_err(Error::io("the file of an index"))?.len();
    let words = usize::try_from(bytes / size_of::<u64>() as u64).unwrap_or(0);
    if !words.is_power_of_two() {
        return Ok(None);
    }
    let memory = Memory::over(file, bytes, access)?;
    Ok(Index::new(generation, memory, words).map(std::sync::Arc::new))
}
