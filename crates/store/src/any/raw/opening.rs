//! How a store of any sizes begins: made anew, or opened as its log says (V1).

use std::sync::Arc;

use mainstay_storage::{Folder, Storage};

use super::RawLogStore;
use crate::{
    any::{
        cache::Cache,
        compact::list_header,
        format::{ANY_FILE, AnyHeader, Entry, Kind, ListHeader, parse_name, write_list},
        options::LogOptions,
        parts::Parts,
        recover::{How, any_header, load},
        shard::{Shard, Why, log_header, make_file},
    },
    ends::unix_ms,
    error::{Error, Result},
    format::{
        Header, IMPLAUSIBLE, NUMBERS_END, VERSION, are_shard_bits, chain_start, first_bits,
        write_header,
    },
    history::{History, Position},
    mark::{Maker, begin, check_whole},
    open_files,
    progress::Progress,
    rank::{Ranked, Role, Standing, first_role, write_next},
    store::{clear_for, in_parallel, new_id},
};

impl<F: Folder> RawLogStore<F> {
    /// Makes a store.
    ///
    /// Example: see [`RawLogStore`].
    ///
    /// # Errors
    /// [`Error::OutOfLimits`], [`Error::Exists`], or what the disk says; then there is no store.
    pub fn create(folder: F, options: &LogOptions) -> Result<Self> {
        Self::create_as(folder, new_id()?, Role::Leader, options)
    }

    /// Makes a store in a folder that is known to have none, and may have a mark.
    pub(in crate::any) fn create_begun(folder: F, options: &LogOptions) -> Result<Self> {
        Self::create_in(folder, new_id()?, Role::Leader, options)
    }

    pub(crate) fn create_as(
        folder: F,
        id: [u8; 16],
        role: Role,
        options: &LogOptions,
    ) -> Result<Self> {
        options.check()?;
        clear_for_any(&folder)?;
        Self::create_in(folder, id, role, options)
    }

    /// The same in a folder that is known to have none.
    fn create_in(folder: F, id: [u8; 16], role: Role, options: &LogOptions) -> Result<Self> {
        let header = AnyHeader {
            magic: AnyHeader::MAGIC,
            version: VERSION.into(),
            flags: first_bits(options.shard_bits).into(),
            id,
            shards: options.shards.into(),
            shard_bits: options.shard_bits.into(),
            segment_bytes: options.segment_bytes.into(),
            epoch: 0.into(),
            generation: 1.into(),
            known_epoch: 0.into(),
            role: first_role(role).into(),
            reserved: [0; 48],
            checksum: 0.into(),
        };
        for shard in 0..options.shards {
            create_shard(&folder, &header, shard)?;
        }
        // The header last: from then on it is a store.
        let publish = || {
            folder.sync_names()?;
            let file = folder.file(ANY_FILE)?;
            write_header(&file, &header)?;
            file.sync()?;
            folder.sync_names()
        };
        publish().map_err(Error::io(ANY_FILE))?;
        match Begun::of(&folder, options, None) {
            Ok(begun) => Self::over(folder, begun),
            Err(error) => {
                // As far as it can be taken back: with other options it can be tried again.
                let _stays = folder.remove(ANY_FILE).and_then(|()| folder.sync_names());
                Err(error)
            }
        }
    }

    /// Opens a store, and makes it what its log says (V1). Shards are read in parallel, and values
    /// only where the store was not closed.
    ///
    /// ```
    /// # use mainstay_store::{Durability, LogOptions, RawLogStore};
    /// let disk = mainstay_sim::Disk::new(7);
    /// let store = RawLogStore::create(disk.clone(), &LogOptions::default())?;
    /// store.put(b"k", b"v", Durability::Each)?;
    /// disk.power_cut();
    /// let store = RawLogStore::open(disk, &LogOptions::default())?;
    /// assert_eq!(store.get(b"k")?.as_deref(), Some(&b"v"[..]));
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NotAStore`]; [`Error::OtherKind`]; [`Error::Unfinished`] if a
    /// [salvage](Self::salvage) was to make it and did not come to its end; [`Error::Damaged`] if what
    /// was durable is not as it was written; what the disk says.
    pub fn open(folder: F, options: &LogOptions) -> Result<Self> {
        check_whole(&folder)?;
        let begun = Begun::of(&folder, options, None)?;
        Self::over(folder, begun)
    }

    /// The same, and tells how far it is: how many bytes of the log of all shards it has come through,
    /// and how many there are. It begins with 0, and ends with all. The threads that read shards wait
    /// for `told`, which should do little.
    ///
    /// ```
    /// use mainstay_store::{Directory, LogOptions, LogStore, RawLogStore};
    /// let (dir, options) = (tempfile::tempdir()?, LogOptions::default());
    /// LogStore::<u64, String>::create(dir.path(), &options)?.close()?;
    /// let (folder, mut last) = (Directory::lock(dir.path())?, (0, 0));
    /// let raw = RawLogStore::open_with_progress(folder, &options, |done, all| last = (done, all))?;
    /// let store = LogStore::<u64, String>::over(raw, &options)?;
    /// assert!(last.0 == last.1 && store.get(&1)?.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with_progress(
        folder: F,
        options: &LogOptions,
        mut told: impl FnMut(u64, u64) + Send,
    ) -> Result<Self> {
        check_whole(&folder)?;
        let begun = Begun::of(&folder, options, Some(&mut told))?;
        Self::over(folder, begun)
    }

    fn over(folder: F, begun: Begun<F>) -> Result<Self> {
        let Begun { header, options, shards, parts } = begun;
        let cache = Cache::new(options.cache_bytes);
        let (hooks, clock) = (Arc::default(), Box::new(unix_ms));
        let store = Self {
            folder,
            header,
            shards,
            cache,
            options,
            hooks,
            standing: Standing::of(header),
            notify: Arc::default(),
            clock,
        };
        store.finish_batches(&parts)?;
        store.begin_histories()?;
        Ok(store)
    }
}

/// What there is of a store as soon as all of its shards are there.
struct Begun<F: Folder> {
    header: AnyHeader,
    options: LogOptions,
    shards: Vec<Shard<F>>,
    /// What the last frame of each has of others.
    parts: Vec<Option<Parts>>,
}

impl<F: Folder> Begun<F> {
    fn of(
        folder: &F,
        options: &LogOptions,
        told: Option<&mut (dyn FnMut(u64, u64) + Send)>,
    ) -> Result<Self> {
        let mut header = any_header(folder)?;
        check_header(&header)?;
        let mut options = options.clone();
        (options.shards, options.shard_bits) = (header.shards.get(), header.shard_bits.get());
        options.segment_bytes = header.segment_bytes.get();
        options.check()?;
        // A new epoch, durable before anything is acknowledged in it; the other copy stays.
        header.epoch = (header.epoch.get() + 1).into();
        write_next(folder, &mut header)?;
        let shard_of = |name: &str| match parse_name(name) {
            Some((shard, _, Kind::Log)) => Some(shard),
            _ => None,
        };
        let progress = match told {
            Some(told) => Progress::of(folder, options.shards, shard_of, told)?,
            None => Progress::NONE,
        };
        let resume = |number| {
            let (how, part) = (How::Open { ordered: options.ordered }, progress.shard(number));
            let mut found = load(folder, &header, number, how, &mut |bytes| part.read(bytes))?;
            let parts = found.parts.take();
            part.end();
            Ok((Shard::resume(number, found), parts))
        };
        let shards = in_parallel(options.shards, options.threads, resume);
        // All segments stay open.
        let files = || folder.names().map_or(0, |names| names.len());
        let shards = open_files::counted(shards, options.shards, files)?;
        let (shards, parts) = shards.into_iter().unzip();
        Ok(Self { header, options, shards, parts })
    }
}

/// Makes sure that a store can be made in a folder.
fn clear_for_any(folder: &impl Folder) -> Result<()> {
    clear_for(folder, any_header(folder), |name| parse_name(name).is_some())
}

/// The same, with a mark of who makes it; see [`begin`].
pub(in crate::any) fn begin_any<F: Folder>(maker: Maker, folder: &F) -> Result<bool> {
    let is_of_it = |name: &str| name == ANY_FILE || parse_name(name).is_some();
    begin(maker, folder, is_of_it, clear_for_any)
}

impl<F: Folder> RawLogStore<F> {
    /// Shards of a store of before there were histories begin theirs here: at a place that only one
    /// with the same log can be at. What was written before is in no history, and reaches replicas
    /// by comparing.
    fn begin_histories(&self) -> Result<()> {
        for shard in &self.shards {
            let mut log = shard.writer();
            if log.past.is_some() {
                continue;
            }
            let (epoch, sequence) = (self.header.epoch.get(), log.sequence);
            let position = Position { epoch, sequence, sum: u64::from(log.chain) };
            let note = Some(History::At(position));
            let entry = Entry { note, ..Entry::new(&[], 0) };
            shard.append(self.store(), &mut log, &entry, Why::New)?;
        }
        Ok(())
    }
}

/// Whoever wrote the header had the checksum right; the numbers are checked all the same.
pub(in crate::any) fn check_header(header: &AnyHeader) -> Result<()> {
    let options = LogOptions {
        shards: header.shards.get(),
        segment_bytes: header.segment_bytes.get(),
        ..LogOptions::default()
    };
    let is_sound = options.check().is_ok()
        && are_shard_bits(header.shard_bits.get(), header.flags.get())
        && header.generation.get() < NUMBERS_END
        && header.has_rank();
    if is_sound { Ok(()) } else { Err(Error::damaged(ANY_FILE, 0, IMPLAUSIBLE)) }
}

fn create_shard<F: Folder>(folder: &F, store: &AnyHeader, shard: u32) -> Result<()> {
    let name = Kind::Log.name(shard, 1);
    let list = Kind::List.name(shard, 1);
    let make = || {
        let file = make_file(folder, &name)?;
        let begin = || {
            write_header(&file, &log_header(store, shard, 1))?;
            file.sync()
        };
        begin().map_err(Error::io(&*name))
    };
    make()?;
    let header: ListHeader = list_header(store, shard, 1, (0, 0, chain_start(&store.id, shard)));
    let write = || write_list(&folder.file(&list)?, header, &[]);
    write().map_err(Error::io(&*list))
}
