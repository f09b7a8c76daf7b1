//! A store as its files say, without taking part: nothing is written, no epoch begins.

use std::path::Path;

use mainstay_storage::{Folder, Storage};

use crate::{
    error::{Error, Result},
    format::{FRAME_LEN, StoreHeader, segment_name},
    keyed::Ring,
    log::Frame,
    mark::check_whole,
    open_files,
    parts::complete,
    rank::{Ranked, at_places},
    read_only::ReadOnly,
    recover::{Loaded, load_apart, store_header},
    store::{check_header, in_parallel},
    table::sequence_and_key,
};

/// All records of a store that nobody has open, in memory. Several processes can look at the same
/// time; while one does, the store cannot be opened, and the other way round (A5).
///
/// ```
/// use mainstay_store::{Durability, FixedStore, Options, OnDisk};
/// let dir = tempfile::tempdir()?;
/// let store = FixedStore::<u64, u64>::create(dir.path(), &Options::default())?;
/// store.put(&1, &2, Durability::Group)?;
/// store.close()?;
/// let view = OnDisk::open(dir.path())?;
/// assert_eq!(view.get(&1_u64.to_le_bytes())?, Some(2_u64.to_le_bytes().to_vec()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct OnDisk {
    header: StoreHeader,
    shards: Vec<(Loaded, ShardFiles)>,
    // Last, so that nobody writes before all is forgotten.
    _folder: ReadOnly,
}

/// What the files of a shard hold.
///
/// Example: see [`OnDisk::shards`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShardFiles {
    /// Records.
    pub records: u64,
    /// Writes since the store was created.
    pub sequence: u64,
    /// The last of them that the log itself says was durable.
    pub durable: u64,
    /// Segments of the log.
    pub segments: u64,
    /// Bytes of these segments, those not yet used included.
    pub log_bytes: u64,
    /// Up to which write the image holds everything; 0 if there is none.
    pub image: u64,
    /// Bytes of the image.
    pub image_bytes: u64,
}

impl OnDisk {
    /// Reads a store, its shards in parallel.
    ///
    /// Example: see [`OnDisk`].
    ///
    /// # Errors
    /// [`Error::NotAStore`]; [`Error::Locked`] while somebody has it open; [`Error::NotWhole`] or
    /// [`Error::Mending`] for a copy that has only a part of what it is of; [`Error::Damaged`] as
    /// [`RawStore::open`](crate::RawStore::open).
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_as(path, Ring::NONE)
    }

    /// The same of a store that is encrypted.
    ///
    /// ```
    /// # use mainstay_store::{Directory, Key, Keys, OnDisk, Options, RawStore};
    /// # let dir = tempfile::tempdir()?;
    /// let keys = Keys::new(Key::new(&[7; 32]));
    /// let folder = Directory::lock_with(dir.path(), &keys)?;
    /// RawStore::create(folder, 2, 3, &Options::default())?.close()?;
    /// assert_eq!(OnDisk::open_with(dir.path(), &keys)?.lengths(), (2, 3));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`open`](Self::open); [`Error::OtherKey`]; [`Error::NotEncrypted`].
    #[cfg(feature = "encryption")]
    pub fn open_with(path: &Path, keys: &crate::Keys) -> Result<Self> {
        Self::open_as(path, Ring::of(keys))
    }

    fn open_as(path: &Path, ring: Ring<'_>) -> Result<Self> {
        let folder = ReadOnly::open(path, ring)?;
        check_whole(&folder)?;
        let header = store_header(&folder)?;
        check_header(&header)?;
        header.check_finished()?;
        let read = |number| {
            let loaded = load_apart(&folder, &header, number)?;
            let files = ShardFiles::of(&folder, &loaded, number)?;
            Ok((loaded, files))
        };
        let shards = header.shards.get();
        let shards = open_files::counted(in_parallel(shards, 0, read), shards, || 0)?;
        let loaded: Vec<&Loaded> = shards.iter().map(|(loaded, _)| loaded).collect();
        at_places((0..).zip(loaded.iter().map(|loaded| loaded.history)))?;
        complete(&header, &loaded)?;
        Ok(Self { header, shards, _folder: folder })
    }

    /// Bytes of a key, and of a value.
    ///
    /// ```
    /// # use mainstay_store::{FixedStore, Options, OnDisk};
    /// # let dir = tempfile::tempdir()?;
    /// drop(FixedStore::<u64, u32>::create(dir.path(), &Options::default())?);
    /// assert_eq!(OnDisk::open(dir.path())?.lengths(), (8, 4));
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
    /// # use mainstay_store::{FixedStore, Options, OnDisk};
    /// # let dir = tempfile::tempdir()?;
    /// drop(FixedStore::<u64, u32>::create(dir.path(), &Options::default())?);
    /// assert!(!OnDisk::open(dir.path())?.has_ends());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn has_ends(&self) -> bool {
        self.header.has_ends()
    }

    /// What tells this store from all others.
    ///
    /// ```
    /// # use mainstay_store::{FixedStore, Options, OnDisk};
    /// # let (one, other) = (tempfile::tempdir()?, tempfile::tempdir()?);
    /// drop(FixedStore::<u64, u32>::create(one.path(), &Options::default())?);
    /// drop(FixedStore::<u64, u32>::create(other.path(), &Options::default())?);
    /// assert_ne!(OnDisk::open(one.path())?.id(), OnDisk::open(other.path())?.id());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn id(&self) -> [u8; 16] {
        self.header.id
    }

    /// How often the store was opened for writing.
    ///
    /// ```
    /// # use mainstay_store::{FixedStore, Options, OnDisk};
    /// # let dir = tempfile::tempdir()?;
    /// drop(FixedStore::<u64, u32>::create(dir.path(), &Options::default())?);
    /// assert_eq!(OnDisk::open(dir.path())?.epoch(), 1);
    /// assert_eq!(OnDisk::open(dir.path())?.epoch(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.header.epoch.get()
    }

    /// Bytes of a segment of its log.
    ///
    /// ```
    /// # use mainstay_store::{FixedStore, Options, OnDisk};
    /// # let dir = tempfile::tempdir()?;
    /// drop(FixedStore::<u64, u32>::create(dir.path(), &Options::default())?);
    /// assert_eq!(OnDisk::open(dir.path())?.segment_bytes(), Options::default().segment_bytes);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        self.header.segment_bytes.get()
    }

    /// How many bits of a key choose its shard; 0: all. See
    /// [`Options::shard_bits`](crate::Options::shard_bits).
    ///
    /// ```
    /// # use mainstay_store::{FixedStore, Options, OnDisk};
    /// # let dir = tempfile::tempdir()?;
    /// let options = Options { shard_bits: 16, ..Options::default() };
    /// drop(FixedStore::<u64, u32>::create(dir.path(), &options)?);
    /// assert_eq!(OnDisk::open(dir.path())?.shard_bits(), 16);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn shard_bits(&self) -> u32 {
        self.header.shard_bits.get()
    }

    /// The value of a key.
    ///
    /// Example: see [`OnDisk`].
    ///
    /// # Errors
    /// [`Error::OutOfLimits`] if the key is of another length.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        if key.len() != self.lengths().0 {
            let (what, must) = ("the length of the key", "that of the store's keys");
            return Err(Error::OutOfLimits { what, value: key.len() as u64, must });
        }
        let (hash, shard) = self.header.route().find(key);
        let (loaded, _) = &self.shards[shard];
        loaded.table.get(hash, key)
    }

    /// Shows every record to a closure, in no order.
    ///
    /// ```
    /// # use mainstay_store::{Durability, FixedStore, Options, OnDisk};
    /// # let dir = tempfile::tempdir()?;
    /// # let store = FixedStore::<u8, u8>::create(dir.path(), &Options::default())?;
    /// # store.put(&1, &2, Durability::Memory)?;
    /// # store.close()?;
    /// OnDisk::open(dir.path())?.for_each(|key, value| assert_eq!((key, value), (&[1][..], &[2][..])))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Damaged`] if somebody wrote into the memory of this process who must not.
    pub fn for_each(&self, mut show: impl FnMut(&[u8], &[u8])) -> Result<()> {
        let key_len = self.lengths().0;
        self.shards.iter().try_for_each(|(Loaded { table, .. }, _)| {
            table.each(|record| {
                let (key, value) = sequence_and_key(record).1.split_at(key_len);
                show(key, value);
                Ok(())
            })
        })
    }

    /// What the files of each shard hold.
    ///
    /// ```
    /// # use mainstay_store::{Durability, FixedStore, Options, OnDisk};
    /// # let dir = tempfile::tempdir()?;
    /// let store = FixedStore::<u8, u8>::create(dir.path(), &Options::default())?;
    /// store.put(&1, &2, Durability::Memory)?;
    /// store.close()?;
    /// let view = OnDisk::open(dir.path())?;
    /// assert_eq!(view.shards().map(|shard| shard.records).sum::<u64>(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn shards(&self) -> impl ExactSizeIterator<Item = &ShardFiles> {
        self.shards.iter().map(|(_, files)| files)
    }
}

impl ShardFiles {
    fn of(folder: &ReadOnly, loaded: &Loaded, shard: u32) -> Result<Self> {
        let mut log_bytes = 0;
        for segment in &loaded.segments {
            let name = segment_name(shard, segment.number.get());
            let len = folder.file(&name).and_then(|file| Storage::len(&file));
            log_bytes += len.map_err(Error::io(name))?;
        }
        Ok(Self {
            records: loaded.table.len(),
            sequence: loaded.sequence,
            durable: vouched_for(loaded),
            segments: loaded.segments.len() as u64,
            log_bytes,
            image: loaded.image.map_or(0, |image| image.from.get()),
            image_bytes: loaded.image.map_or(0, |image| image.bytes.get()),
        })
    }
}

/// The last frame says what was durable before it. A segment without frames was begun when all of
/// the log was.
fn vouched_for(loaded: &Loaded) -> u64 {
    let mut at = crate::format::DATA_AT as usize;
    let mut durable = loaded.sequence;
    while let Some(frame) = loaded.tail.get(at..).and_then(Frame::read) {
        durable = frame.header.durable.get();
        at += (frame.header.len.get() as usize).max(FRAME_LEN);
    }
    durable
}
