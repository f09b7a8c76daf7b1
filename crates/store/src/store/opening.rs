//! How a store begins: made anew, or opened as its files and its memory say (A1).

use std::{
    sync::{Arc, Mutex},
    thread,
};

use mainstay_storage::{Folder, Storage};

use super::RawStore;
use crate::{
    any::is_called_copy,
    error::{Error, Result},
    follow::Identity,
    format::{
        ENDS, Header, IMPLAUSIBLE, NUMBERS_END, STORE_FILE, StoreHeader, VERSION, are_shard_bits,
        first_bits, is_memory_name, parse_name, write_header,
    },
    home::InFolder,
    hooks::Hooks,
    limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX},
    mark::{Maker, begin, check_whole},
    open_files,
    options::Options,
    parts::Parts,
    planted,
    progress::Progress,
    rank::{Ranked, Role, Standing, first_role, write_next},
    recover::{adopt, load, rescue, store_header},
    shard::{self, Shard},
};

impl<F: Folder> RawStore<F> {
    /// Makes a store for keys of `key_len` bytes and values of `value_len`.
    ///
    /// Example: see [`RawStore`].
    ///
    /// # Errors
    /// [`Error::OutOfLimits`], [`Error::Exists`], or what the disk says; then there is no store.
    pub fn create(folder: F, key_len: usize, value_len: usize, options: &Options) -> Result<Self> {
        Self::create_anew(folder, (key_len, value_len), false, options)
    }

    /// A store like no other.
    pub(crate) fn create_anew(
        folder: F,
        (key_len, value_len): (usize, usize),
        has_ends: bool,
        options: &Options,
    ) -> Result<Self> {
        let of = new_identity((key_len, value_len), has_ends, options)?;
        Self::create_as(folder, &of, Role::Leader, options)
    }

    /// The same in a folder that is known to have none, and may have a mark.
    pub(crate) fn create_begun(
        folder: F,
        lengths: (usize, usize),
        has_ends: bool,
        options: &Options,
    ) -> Result<Self> {
        let of = new_identity(lengths, has_ends, options)?;
        check_identity(&of, options)?;
        Self::create_in(folder, &of, Role::Leader, options)
    }

    pub(crate) fn create_as(
        folder: F,
        of: &Identity,
        role: Role,
        options: &Options,
    ) -> Result<Self> {
        check_identity(of, options)?;
        clear_for_fixed(&folder)?;
        Self::create_in(folder, of, role, options)
    }

    /// The same in a folder that is known to have none.
    fn create_in(folder: F, of: &Identity, role: Role, options: &Options) -> Result<Self> {
        let &Identity { id, key_len, value_len, shards, shard_bits, has_ends } = of;
        let header = StoreHeader {
            magic: StoreHeader::MAGIC,
            version: VERSION.into(),
            flags: (first_bits(shard_bits) | if has_ends { ENDS } else { 0 }).into(),
            id,
            key_len: (key_len as u32).into(),
            value_len: (value_len as u32).into(),
            shards: shards.into(),
            shard_bits: shard_bits.into(),
            segment_bytes: options.segment_bytes.into(),
            epoch: 0.into(),
            generation: 1.into(),
            known_epoch: 0.into(),
            role: first_role(role).into(),
            reserved: [0; 40],
            checksum: 0.into(),
        };
        for shard in 0..shards {
            shard::create(&folder, &header, shard)?;
        }
        // The header last: from then on it is a store.
        let publish = || {
            let file = folder.file(STORE_FILE)?;
            write_header(&file, &header)?;
            file.sync()?;
            folder.sync_names()
        };
        publish().map_err(Error::io(STORE_FILE))?;
        match Begun::of(&folder, options, None) {
            Ok(begun) => Self::over(folder, options, begun),
            Err(error) => {
                // As far as it can be taken back: with other options it can be tried again.
                let _stays = folder.remove(STORE_FILE).and_then(|()| folder.sync_names());
                Err(error)
            }
        }
    }

    /// Opens a store, and makes it what its log and images say (A1). Shards are read in parallel.
    ///
    /// ```
    /// # use mainstay_store::{Durability, Options, RawStore};
    /// let disk = mainstay_sim::Disk::new(7);
    /// let store = RawStore::create(disk.clone(), 1, 1, &Options::default())?;
    /// store.put(b"k", b"v", Durability::Each)?;
    /// disk.power_cut();
    /// let store = RawStore::open(disk, &Options::default())?;
    /// assert_eq!(store.get(b"k")?, Some(b"v".to_vec()));
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NotAStore`]; [`Error::Damaged`] if what was durable is not as it was written; what
    /// the disk says.
    pub fn open(folder: F, options: &Options) -> Result<Self> {
        check_whole(&folder)?;
        let begun = Begun::of(&folder, options, None)?;
        Self::over(folder, options, begun)
    }

    /// The same, and tells how far it is: how many bytes of the log and the images of all shards it has
    /// come through, and how many there are. It begins with 0, and ends with all. The threads that read
    /// shards wait for `told`, which should do little.
    ///
    /// ```
    /// use mainstay_store::{Directory, FixedStore, Options, RawStore};
    /// let (dir, options) = (tempfile::tempdir()?, Options::default());
    /// FixedStore::<u64, u64>::create(dir.path(), &options)?.close()?;
    /// let (folder, mut last) = (Directory::lock(dir.path())?, (0, 0));
    /// let raw = RawStore::open_with_progress(folder, &options, |done, all| last = (done, all))?;
    /// let store = FixedStore::<u64, u64>::over(raw, &options)?;
    /// assert!(last.0 == last.1 && store.get(&1)?.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with_progress(
        folder: F,
        options: &Options,
        mut told: impl FnMut(u64, u64) + Send,
    ) -> Result<Self> {
        check_whole(&folder)?;
        let begun = Begun::of(&folder, options, Some(&mut told))?;
        Self::over(folder, options, begun)
    }

    fn over(folder: F, options: &Options, begun: Begun<F>) -> Result<Self> {
        let Begun { header, hooks, shards, parts } = begun;
        let store = Self {
            folder,
            header,
            shards,
            standing: Standing::of(header),
            snapshot_bytes_max: options.snapshot_bytes_max,
            compact_bytes: options.compact_bytes(),
            compaction: Mutex::default(),
            checking: Mutex::default(),
            hooks,
            notify: Arc::default(),
        };
        store.finish_batches(&parts)?;
        Ok(store)
    }
}

/// What tells a new store from all others.
pub(crate) fn new_id() -> Result<[u8; 16]> {
    let mut id = [0; 16];
    getrandom::fill(&mut id)
        .map_err(|error| Error::io("random numbers")(std::io::Error::other(error.to_string())))?;
    Ok(id)
}

/// That of a store like no other.
fn new_identity(
    (key_len, value_len): (usize, usize),
    has_ends: bool,
    options: &Options,
) -> Result<Identity> {
    let (shards, shard_bits) = (options.shards, options.shard_bits);
    Ok(Identity { id: new_id()?, key_len, value_len, shards, shard_bits, has_ends })
}

/// Can there be such a store?
fn check_identity(of: &Identity, options: &Options) -> Result<()> {
    options.check()?;
    let refuse =
        |what, value: usize, must| Err(Error::OutOfLimits { what, value: value as u64, must });
    if !(1..=KEY_BYTES_MAX).contains(&of.key_len) {
        return refuse("the length of a key", of.key_len, "1 to 256 bytes");
    }
    if of.value_len > VALUE_BYTES_MAX {
        return refuse("the length of a value", of.value_len, "at most 4096 bytes");
    }
    if !are_bits_of(of.key_len, of.shard_bits) {
        let must = "at most the bits of a key";
        return refuse("shard_bits", of.shard_bits as usize, must);
    }
    Ok(())
}

/// What there is of a store as soon as all of its shards are there.
struct Begun<F: Folder> {
    header: StoreHeader,
    hooks: Arc<Hooks>,
    shards: Vec<Shard<F>>,
    parts: Vec<Option<Parts>>,
}

impl<F: Folder> Begun<F> {
    fn of(
        folder: &F,
        options: &Options,
        told: Option<&mut (dyn FnMut(u64, u64) + Send)>,
    ) -> Result<Self> {
        options.check_running()?;
        let mut header = store_header(folder)?;
        check_header(&header)?;
        // A new epoch, durable before anything is acknowledged in it; the other copy stays.
        header.epoch = (header.epoch.get() + 1).into();
        write_next(folder, &mut header)?;
        let hooks = Arc::new(Hooks::default());
        let shard_of = |name: &str| parse_name(name).map(|(shard, ..)| shard);
        let progress = match told {
            Some(told) => Progress::of(folder, header.shards.get(), shard_of, told)?,
            None => Progress::NONE,
        };
        let resume = |number| {
            let part = progress.shard(number);
            let told = |bytes| part.read(bytes);
            let mut loaded = match adopt(folder, &header, number, &told)? {
                Some(loaded) => loaded,
                None => {
                    let durable = rescue(folder, &header, number)?;
                    let home = InFolder { folder, shard: number };
                    let fresh = |records| home.fresh(&header, records);
                    load(folder, &header, number, (None, durable), fresh, &told)?
                }
            };
            let parts = loaded.parts.take();
            let shard = Shard::resume(folder, &header, number, (options, &hooks), loaded)?;
            part.end();
            Ok((shard, parts))
        };
        let count = header.shards.get();
        let resumed = in_parallel(count, options.threads, resume);
        let (shards, parts) = open_files::counted(resumed, count, || 0)?.into_iter().unzip();
        Ok(Self { header, hooks, shards, parts })
    }
}

/// Removes what was left by who did not come to its end, from a folder in which there is no store and
/// no copy of one: `found` is what was looked for as its header.
pub(crate) fn clear_for<H>(
    folder: &impl Folder,
    found: Result<H>,
    is_leftover: impl Fn(&str) -> bool,
) -> Result<()> {
    check_whole(folder)?;
    match found {
        Err(Error::NotAStore) if !is_called_copy(folder)? => {}
        Err(Error::NotAStore | Error::OtherKind { .. }) | Ok(_) => return Err(Error::Exists),
        Err(error) => return Err(error),
    }
    for name in folder.names().map_err(Error::io("the directory"))? {
        if is_leftover(&name) {
            folder.remove(&name).map_err(Error::io(name))?;
        }
    }
    Ok(())
}

fn is_leftover(name: &str) -> bool {
    parse_name(name).is_some() || is_memory_name(name)
}

/// The same for a store of fixed sizes.
fn clear_for_fixed(folder: &impl Folder) -> Result<()> {
    clear_for(folder, store_header(folder), is_leftover)
}

/// The same, with a mark of who makes it; see [`begin`].
pub(crate) fn begin_fixed<F: Folder>(maker: Maker, folder: &F) -> Result<bool> {
    let is_of_it = |name: &str| name == STORE_FILE || is_leftover(name);
    begin(maker, folder, is_of_it, clear_for_fixed)
}

/// Has a key so many bits?
fn are_bits_of(key_len: usize, shard_bits: u32) -> bool {
    shard_bits as usize <= 8 * key_len
}

/// Whoever wrote the header had the checksum right; the numbers are checked all the same.
pub(crate) fn check_header(header: &StoreHeader) -> Result<()> {
    let options = Options {
        shards: header.shards.get(),
        segment_bytes: header.segment_bytes.get(),
        ..Options::default()
    };
    let lengths = (header.key_len.get() as usize, header.value_len.get() as usize);
    let is_sound = options.check().is_ok()
        && (1..=KEY_BYTES_MAX).contains(&lengths.0)
        && lengths.1 <= VALUE_BYTES_MAX
        && header.generation.get() < NUMBERS_END
        && are_bits_of(lengths.0, header.shard_bits.get())
        && are_shard_bits(header.shard_bits.get(), header.flags.get())
        && header.has_rank();
    if is_sound { Ok(()) } else { Err(Error::damaged(STORE_FILE, 0, IMPLAUSIBLE)) }
}

/// Does the work for 0 to `count` on so many threads; 0: as many as there are processors.
pub(crate) fn in_parallel<T: Send>(
    count: u32,
    threads: u32,
    work: impl Fn(u32) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let processors = || thread::available_parallelism().map_or(1, |count| count.get() as u32);
    let threads = if threads == 0 { processors() } else { threads };
    let (threads, fault, work) = (threads.min(count), planted::current(), &work);
    let mut done: Vec<(u32, Result<T>)> = thread::scope(|scope| {
        let part = |first| {
            move || {
                planted::plant(fault);
                (first..count)
                    .step_by(threads as usize)
                    .map(|number| (number, work(number)))
                    .collect::<Vec<_>>()
            }
        };
        let threads: Vec<_> = (1..threads).map(|first| scope.spawn(part(first))).collect();
        let mut done = part(0)();
        for thread in threads {
            match thread.join() {
                Ok(part) => done.extend(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    });
    done.sort_unstable_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}
