//! Reading a store in place, from any process of the host, beside the one that has it open.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use mainstay_shm::Access;
use mainstay_storage::{Folder, Storage};

use crate::{
    error::{Error, Result},
    folder::boot_id,
    format::{
        ImageHeader, SegmentHeader, StoreHeader, index_name, live_name, parse_name, read_headers,
        sealed,
    },
    home::{index_reserved, reserved, shape},
    keyed::Ring,
    live::{header, read_header},
    memory::Memory,
    on_disk::ShardFiles,
    read_only::ReadOnly,
    recover::store_header,
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
    path: PathBuf,
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
    /// [`Error::NotAStore`], [`Error::OtherKind`], [`Error::NotInMemory`], or what the operating system
    /// says.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.is_dir() {
            return Err(Error::NotAStore);
        }
        let header = store_header(&ReadOnly::beside(path, Ring::NONE)?)?;
        check_header(&header)?;
        let boot = boot_id().map_err(Error::io("the name of this run"))?;
        let shards = (0..header.shards.get()).map(|shard| look(path, &header, shard, boot));
        let shards = shards.collect::<Result<_>>()?;
        Ok(Self { path: path.to_owned(), header, shards })
    }

    /// What tells this store from all others.
    ///
    /// ```
    /// # use mainstay_store::{FixedStore, Options, Reader};
    /// # let dir = tempfile::tempdir()?;
    /// let store = FixedStore::<u64, u32>::create(dir.path(), &Options::default())?;
    /// let reader = Reader::open(dir.path())?;
    /// assert_eq!(reader.id(), store.raw().identity().id);
    /// assert_eq!((reader.epoch(), reader.shard_bits()), (1, 0));
    /// assert_eq!(reader.segment_bytes(), Options::default().segment_bytes);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn id(&self) -> [u8; 16] {
        self.header.id
    }

    /// How often the store had been opened for writing when this was opened.
    ///
    /// Example: see [`id`](Self::id).
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.header.epoch.get()
    }

    /// Bytes of a segment of its log.
    ///
    /// Example: see [`id`](Self::id).
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        self.header.segment_bytes.get()
    }

    /// How many bits of a key choose its shard; 0: all. See
    /// [`Options::shard_bits`](crate::Options::shard_bits).
    ///
    /// Example: see [`id`](Self::id).
    #[must_use]
    pub fn shard_bits(&self) -> u32 {
        self.header.shard_bits.get()
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

impl Reader {
    /// What each shard has at this moment, in memory and in files. Its owner goes on, so this is about
    /// so; `durable` is what the owner knows to be.
    ///
    /// ```
    /// # use mainstay_store::{Durability, FixedStore, Options, Reader};
    /// # let dir = tempfile::tempdir()?;
    /// let store = FixedStore::<u8, u8>::create(dir.path(), &Options::default())?;
    /// store.put(&1, &2, Durability::Group)?;
    /// let shards = Reader::open(dir.path())?.shards()?;
    /// assert_eq!(shards.iter().map(|shard| shard.records).sum::<u64>(), 1);
    /// assert!(shards.iter().all(|shard| shard.durable <= shard.sequence && shard.segments == 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`read_into`](Self::read_into), and what the disk says.
    pub fn shards(&self) -> Result<Vec<ShardFiles>> {
        let mut shards = self.shards.iter().map(in_memory).collect::<Result<Vec<_>>>()?;
        let folder = ReadOnly::beside(&self.path, Ring::NONE)?;
        for name in folder.names().map_err(Error::io("the directory"))? {
            let Some((shard, _, is_image)) = parse_name(&name) else { continue };
            let Some(found) = shards.get_mut(shard as usize) else { continue };
            let file = match folder.file(&name) {
                // The owner has removed it meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file.map_err(Error::io(&*name))?,
            };
            // Files that were not begun are none.
            if is_image {
                let head = read_headers::<ImageHeader>(&file, &name)?.pop();
                if let Some(head) = head.filter(|head| head.from.get() >= found.image) {
                    (found.image, found.image_bytes) = (head.from.get(), head.bytes.get());
                }
            } else if !read_headers::<SegmentHeader>(&file, &name)?.is_empty() {
                found.segments += 1;
                found.log_bytes += Storage::len(&file).map_err(Error::io(&*name))?;
            }
        }
        Ok(shards)
    }
}

/// What the memory of a shard says; nothing of its files yet.
fn in_memory(view: &View) -> Result<ShardFiles> {
    let control = view.control()?;
    if control.is_retired() {
        return Err(Error::OtherMemory);
    }
    let (durable, sequence) = (control.durable(), control.applied());
    let (mut records, mut slot, mut seen) = (0, Some(0), Vec::new());
    while let Some(from) = slot {
        seen.clear();
        let (count, next) = view.chunk(from, SCAN_RECORDS, &mut seen)?;
        (records, slot) = (records + count as u64, next);
    }
    Ok(ShardFiles { records, sequence, durable, ..ShardFiles::default() })
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
        let view = View::new(shard, shape(store), (memory, index))?;
        // If the owner has begun anew meanwhile, the index may be one of another memory.
        if !view.control()?.is_retired() {
            return Ok(view);
        }
    }
    Err(Error::NotInMemory { shard })
}
