//! Reading a store in place, from any process of the host, beside the one that has it open.

use std::{fs::File, io, path::Path};

use mainstay_shm::Access;

use crate::{
    error::{Error, Result},
    folder::boot_id,
    format::{STORE_FILE, StoreHeader, index_name, live_name, sealed},
    home::{index_reserved, reserved, shape},
    live::{header, read_header},
    memory::Memory,
    recover::newest_header,
    store::check_header,
    table::SCAN_RECORDS,
    view::View,
};

/// How often a shard is looked at while its owner makes its memory anew.
const ATTEMPTS: usize = 100;

/// The records of a store as its owner has them at this moment, at the speed of memory: nothing is
/// asked of the owner, nothing is locked, and nothing is written.
///
/// It reads what is visible to the owner's own readers, so also writes that are not durable yet. If
/// the owner is dead or has closed the store, it reads what was there last. It cannot read a store
/// that nobody has opened since the machine was started.
///
/// ```
/// use mainstay_store::{Durability, FixedStore, Options, Reader};
/// let dir = tempfile::tempdir()?;
/// let store = FixedStore::<u64, u64>::create(dir.path(), &Options::default())?;
/// // In this process or another one:
/// let reader = Reader::open(dir.path())?;
/// store.put(&1, &2, Durability::Memory)?;
/// let mut value = [0; 8];
/// assert!(reader.read_into(&1_u64.to_le_bytes(), &mut value)?);
/// assert_eq!(u64::from_le_bytes(value), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Reader {
    header: StoreHeader,
    shards: Vec<View>,
}

fn open(path: &Path) -> Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path.display().to_string())(error)),
    }
}

impl Reader {
    /// Looks at the store of a directory.
    ///
    /// Example: see [`Reader`].
    ///
    /// # Errors
    /// [`Error::NotAStore`], [`Error::NotInMemory`], or what the operating system says.
    pub fn open(path: &Path) -> Result<Self> {
        let file = open(&path.join(STORE_FILE))?.ok_or(Error::NotAStore)?;
        let header = newest_header(&file)?;
        check_header(&header)?;
        let boot = boot_id().map_err(Error::io("the name of this run"))?;
        let shards = (0..header.shards.get()).map(|shard| look(path, &header, shard, boot));
        let shards = shards.collect::<Result<_>>()?;
        Ok(Self { header, shards })
    }

    /// Bytes of a key, and of a value.
    ///
    /// ```
    /// # use mainstay_store::{FixedStore, Options, Reader};
    /// # let dir = tempfile::tempdir()?;
    /// let store = FixedStore::<u64, u32>::create(dir.path(), &Options::default())?;
    /// assert_eq!(Reader::open(dir.path())?.lengths(), (8, 4));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn lengths(&self) -> (usize, usize) {
        (self.header.key_len.get() as usize, self.header.value_len.get() as usize)
    }

    /// Do its values begin with the time at which the record ends? See
    /// [`split_end`](crate::split_end).
    ///
    /// ```
    /// # use mainstay_store::{FixedStore, Options, Reader};
    /// # let dir = tempfile::tempdir()?;
    /// let _store = FixedStore::<u64, u32>::create(dir.path(), &Options::default())?;
    /// assert!(!Reader::open(dir.path())?.has_ends());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn has_ends(&self) -> bool {
        self.header.has_ends()
    }

    /// How many writes were made since the store was created: as long as it stays the same, nothing has
    /// changed.
    ///
    /// ```
    /// # use mainstay_store::{Durability, FixedStore, Options, Reader};
    /// # let dir = tempfile::tempdir()?;
    /// let store = FixedStore::<u8, u8>::create(dir.path(), &Options::default())?;
    /// let reader = Reader::open(dir.path())?;
    /// let before = reader.writes()?;
    /// store.put(&1, &2, Durability::Memory)?;
    /// assert_eq!(reader.writes()?, before + 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`read_into`](Self::read_into).
    pub fn writes(&self) -> Result<u64> {
        let mut count = 0_u64;
        for view in &self.shards {
            let control = view.control()?;
            if control.is_retired() {
                return Err(Error::OtherMemory);
            }
            count = count.wrapping_add(control.applied());
        }
        Ok(count)
    }

    /// Copies the value of a key into `value`, which has its length. False if the key is not there.
    ///
    /// Example: see [`Reader`].
    ///
    /// # Errors
    /// [`Error::OutOfLimits`] if the key or `value` is of another length, [`Error::OtherMemory`] if the
    /// owner began anew with other memory, [`Error::Damaged`] if somebody wrote into the memory who
    /// must not.
    pub fn read_into(&self, key: &[u8], value: &mut [u8]) -> Result<bool> {
        let lengths = self.lengths();
        for (what, found, must_be) in [
            ("the length of the key", key.len(), lengths.0),
            ("the length of the value", value.len(), lengths.1),
        ] {
            if found != must_be {
                let must = "that of the store's";
                return Err(Error::OutOfLimits { what, value: found as u64, must });
            }
        }
        let (hash, shard) = self.header.route().find(key);
        let view = &self.shards[shard];
        let control = view.control()?;
        if control.is_retired() {
            return Err(Error::OtherMemory);
        }
        Ok(view.copy(hash, key, value)?.is_some())
    }

    /// The value of a key.
    ///
    /// ```
    /// # use mainstay_store::{Durability, FixedStore, Options, Reader};
    /// # let dir = tempfile::tempdir()?;
    /// let store = FixedStore::<u8, u8>::create(dir.path(), &Options::default())?;
    /// store.put(&1, &2, Durability::Memory)?;
    /// assert_eq!(Reader::open(dir.path())?.get(&[1])?, Some(vec![2]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`read_into`](Self::read_into).
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut value = vec![0; self.lengths().1];
        Ok(self.read_into(key, &mut value)?.then_some(value))
    }

    /// Shows every record to a closure, in no order. The owner goes on: a record that is neither
    /// written nor deleted meanwhile is shown exactly once.
    ///
    /// ```
    /// # use mainstay_store::{Durability, FixedStore, Options, Reader};
    /// # let dir = tempfile::tempdir()?;
    /// let store = FixedStore::<u8, u8>::create(dir.path(), &Options::default())?;
    /// store.put(&1, &2, Durability::Memory)?;
    /// let reader = Reader::open(dir.path())?;
    /// reader.for_each(|key, value| assert_eq!((key, value), (&[1][..], &[2][..])))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`read_into`](Self::read_into).
    pub fn for_each(&self, mut show: impl FnMut(&[u8], &[u8])) -> Result<()> {
        let mut records = Vec::new();
        for view in &self.shards {
            let mut slot = Some(0);
            while let Some(from) = slot {
                if view.control()?.is_retired() {
                    return Err(Error::OtherMemory);
                }
                records.clear();
                slot = view.chunk(from, SCAN_RECORDS, &mut records)?.1;
                for record in records.chunks_exact(view.shape.record()) {
                    let (key, value) = record[size_of::<u64>()..].split_at(self.lengths().0);
                    show(key, value);
                }
            }
        }
        Ok(())
    }
}

/// A shard in memory.
fn look(path: &Path, store: &StoreHeader, shard: u32, boot: [u8; 16]) -> Result<View> {
    for _ in 0..ATTEMPTS {
        let Some(file) = open(&path.join(live_name(shard)))? else { break };
        let memory = Memory::over(file, reserved(store), Access::ReadOnly)?;
        let Some(found) = read_header(&memory) else { break };
        if sealed(&found) != sealed(&header(store, shard, boot)) {
            break;
        }
        let Some(file) = open(&path.join(index_name(shard)))? else { continue };
        let index = Memory::over(file, index_reserved(store), Access::ReadOnly)?;
        let view = View { shard, shape: shape(store), memory, index };
        // If the owner has begun anew meanwhile, the index may be one of another memory.
        if !view.control()?.is_retired() {
            return Ok(view);
        }
    }
    Err(Error::NotInMemory { shard })
}
