//! Making a store of a copy.

use std::{path::Path, sync::Arc};

use mainstay_storage::{Folder, Storage};

use super::{
    backup::copy_segment,
    compact::list_header,
    copy::{Copied, is_called_copy},
    format::{ANY_FILE, AnyHeader, Kind, ListEntry, LogHeader, Past, write_list},
    options::LogOptions,
    raw::{RawLogStore, begin_any},
    shard::{Log, hint_header},
};
use crate::{
    error::{Error, Result},
    format::write_header,
    keyed::Ring,
    mark::{Maker, unmark},
    planted::{self, Fault},
    read_only::ReadOnly,
};

impl<F: Folder> RawLogStore<F> {
    /// Makes a store of a [copy](Self::backup) in a folder in which there is none, durably, and opens
    /// it. Every checksum is looked at. `told` hears how many bytes were copied, and of how many.
    ///
    /// Example: see [`backup`](Self::backup).
    ///
    /// # Errors
    /// [`Error::NotACopy`]; [`Error::NotWhole`]; [`Error::Exists`]; [`Error::Damaged`] with the first place of the copy
    /// that is not as it was written; what the disk says. Then there is no store.
    pub fn restore<G: Folder>(
        from: &G,
        to: F,
        options: &LogOptions,
        told: impl FnMut(u64, u64),
    ) -> Result<Self> {
        restore_into(from, &to, told)?;
        Self::open(to, options)
    }
}

impl<G: Folder> RawLogStore<G> {
    /// Reads all of a [copy](Self::backup), and looks at every checksum.
    ///
    /// ```
    /// use mainstay_sim::Disk;
    /// use mainstay_store::{LogOptions, RawLogStore};
    /// let store = RawLogStore::create(Disk::new(7), &LogOptions::default())?;
    /// let copy = Disk::new(8);
    /// store.backup(&copy, |_, _| {})?;
    /// RawLogStore::check_copy(&copy, |_done, _all| {})?;
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NotACopy`]; [`Error::NotWhole`]; [`Error::Damaged`] with the first place that is not as it was written;
    /// what the disk says.
    pub fn check_copy(copy: &G, mut told: impl FnMut(u64, u64)) -> Result<()> {
        let copied = Copied::complete(copy)?;
        let all = copied.entries.iter().map(|entry| entry.bytes.get()).sum();
        let mut done = 0;
        for entry in &copied.entries {
            let name = entry.name();
            let file = copy.file(&name).map_err(Error::io(&*name))?;
            let head = entry.header_in(&file, &copied.store)?;
            entry.read(&file, &copied.store, &head, |_, _, _| Ok(()))?;
            done += entry.bytes.get();
            told(done, all);
        }
        Ok(())
    }
}

/// Is there a copy of a store with values of any size in a directory? Its files are named like one: what
/// they say, and under which key, is for [`restore`](crate::restore()) to find out.
///
/// ```
/// use mainstay_store::{Directory, LogOptions, LogStore, is_log_copy};
/// # let (dir, copy) = (tempfile::tempdir()?, tempfile::tempdir()?);
/// let store = LogStore::<u64, String>::create(dir.path(), &LogOptions::default())?;
/// store.raw().backup(&Directory::lock(copy.path())?, |_, _| {})?;
/// assert!(is_log_copy(copy.path())?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::NotAStore`] if there is no such directory; [`Error::Locked`]; what the disk says.
pub fn is_log_copy(path: &Path) -> Result<bool> {
    is_called_copy(&ReadOnly::open(path, Ring::NONE)?)
}

/// The same without opening it.
pub(crate) fn restore_into<G: Folder, F: Folder>(
    from: &G,
    to: &F,
    mut told: impl FnMut(u64, u64),
) -> Result<()> {
    let copied = Copied::complete(from)?;
    let is_ours = begin_any(Maker::Copy, to)?;
    let all = copied.entries.iter().map(|entry| entry.bytes.get()).sum();
    let mut done = 0;
    let mut told = |bytes| {
        done += bytes;
        told(done, all);
    };
    for of_shard in copied.entries.chunk_by(|one, next| one.shard == next.shard) {
        let mut listed = Vec::new();
        let mut last = None;
        for entry in of_shard {
            let (name, shard) = (entry.name(), entry.shard.get());
            let source = from.file(&name).map_err(Error::io(&*name))?;
            let target = to.file(&name).map_err(Error::io(&*name))?;
            let target = Arc::new(target);
            let mut log = Log::new(Arc::clone(&target), entry.number.get());
            log.past = Past::from_bytes(&entry.header_in(&source, &copied.store)?.past);
            copy_segment((&source, &*target), entry, &copied.store, 0, &mut told, |at, frame| {
                // What is no frame is refused where it is copied.
                let Some(contents) = frame.contents() else { return };
                for record in &contents.records {
                    log.hint.note(at as u32 + record.at as u32, &record.change, record.end);
                }
                let (epoch, sequence) = (frame.header.epoch.get(), frame.header.sequence.get());
                (log.past, _) = contents.follow(log.past, epoch, sequence);
            })?;
            if !planted::is(Fault::CopyUnsynced) {
                target.sync().map_err(Error::io(&*name))?;
            }
            (log.first, log.sequence) = (entry.first.get(), entry.last.get());
            (log.at, log.chain) = (entry.bytes.get(), entry.chain.get());
            if log.sequence >= log.first {
                write_hint(to, &copied.store, shard, &log)?;
            }
            listed.push(ListEntry {
                number: entry.number,
                first: entry.first,
                last: entry.last,
                bytes: entry.bytes,
                chain: entry.chain,
                reserved: 0.into(),
            });
            last = Some(entry.header_in(&*target, &copied.store)?);
        }
        // The last one was in use, and is again.
        listed.pop();
        let Some(last) = last else { continue };
        write_list_of(to, &copied.store, &last, &listed)?;
    }
    // The header last: from then on it is a store.
    let header = AnyHeader { generation: 1.into(), ..copied.store };
    let publish = || {
        to.sync_names()?;
        let file = to.file(ANY_FILE)?;
        write_header(&file, &header)?;
        file.sync()?;
        to.sync_names()
    };
    publish().map_err(Error::io(ANY_FILE))?;
    if is_ours { unmark(to) } else { Ok(()) }
}

fn write_hint<F: Folder>(to: &F, store: &AnyHeader, shard: u32, log: &Log<F::File>) -> Result<()> {
    let name = Kind::Hint.name(shard, log.segment);
    let write = || log.hint.write(&to.file(&name)?, hint_header(store, shard, log));
    write().map_err(Error::io(&*name))
}

/// Writes which full segments a shard has before the one with this header.
pub(super) fn write_list_of<F: Folder>(
    to: &F,
    store: &AnyHeader,
    last: &LogHeader,
    listed: &[ListEntry],
) -> Result<()> {
    let shard = last.shard.get();
    let through = last.number.get().saturating_sub(1);
    let sealed = (through, last.first_sequence.get() - 1, last.chain.get());
    let header = list_header(store, shard, 1, sealed);
    let name = Kind::List.name(shard, 1);
    let write = || write_list(&to.file(&name)?, header, listed);
    write().map_err(Error::io(&*name))
}
