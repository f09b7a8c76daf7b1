//! A store of any kind: of fixed sizes, whose records may end or not, or of any sizes.

use super::bytes::{Text, text_of};
use crate::error::warn;
use mainstay::store::{
    Directory, Durability, LogOnDisk, OnDisk, RawExpiring, RawLogStore, RawStore, Reader, Token,
    is_log_copy, split_end,
};
use std::{
    path::Path,
    time::{Duration, SystemTime},
};

/// Bytes of the time in a value of an expiring store.
const STAMP: usize = size_of::<u64>();

/// Milliseconds since 1970, by which records end.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A value, and when it ends: milliseconds since 1970.
pub(super) type Found = (Vec<u8>, Option<u64>);

/// What a value in the files of a store is to people, unless it has ended.
pub(super) fn live(stored: &[u8], has_ends: bool, now: u64) -> Option<(Option<u64>, &[u8])> {
    let (end, value) = if has_ends { split_end(stored) } else { (None, stored) };
    end.is_none_or(|end| end > now).then_some((end, value))
}

/// One that is only looked at.
pub(super) enum View {
    Fixed(OnDisk),
    /// Somebody has it open: as it is in their memory.
    Live(Reader),
    Any(Box<LogOnDisk>),
}

impl View {
    /// Bytes of a key and of a value, where they are fixed.
    pub(super) fn lengths(&self) -> Option<(usize, usize)> {
        match self {
            Self::Fixed(view) => Some(without_end(view.lengths(), view.has_ends())),
            Self::Live(view) => Some(without_end(view.lengths(), view.has_ends())),
            Self::Any(_) => None,
        }
    }

    /// Which text bytes are.
    pub(super) fn text(&self) -> Text {
        text_of(self.lengths())
    }

    /// Can its records end?
    pub(super) fn has_ends(&self) -> bool {
        match self {
            Self::Fixed(view) => view.has_ends(),
            Self::Live(view) => view.has_ends(),
            Self::Any(_) => true,
        }
    }

    pub(super) fn get(&self, key: &[u8]) -> mainstay::store::Result<Option<Found>> {
        let stored = match self {
            Self::Fixed(view) => view.get(key)?,
            Self::Live(view) => view.get(key)?,
            Self::Any(view) => return view.get(key),
        };
        let live = stored.as_deref().and_then(|it| live(it, self.has_ends(), now_ms()));
        Ok(live.map(|(end, value)| (value.to_vec(), end)))
    }

    /// How many records there are; of a store that somebody has open, about.
    pub(super) fn records(&self) -> u64 {
        match self {
            Self::Fixed(view) => view.shards().map(|shard| shard.records).sum(),
            Self::Live(view) => {
                let mut records = 0;
                // Only for who watches the progress; what is wrong is told when they are read.
                let _told = view.for_each(|_, _| records += 1);
                records
            }
            Self::Any(view) => view.records(),
        }
    }

    /// Shows the key of each record that has not ended, in no order. Of values of any size none is
    /// read.
    pub(super) fn for_each_key(&self, mut show: impl FnMut(&[u8])) -> mainstay::store::Result<()> {
        if let Self::Any(view) = self {
            view.for_each_key(show);
            return Ok(());
        }
        self.for_each_while(|key, _, _| {
            show(key);
            true
        })
    }

    /// Shows each record that has not ended, key, value, and when it ends, until `show` says false.
    pub(super) fn for_each_while(
        &self,
        mut show: impl FnMut(&[u8], &[u8], Option<u64>) -> bool,
    ) -> mainstay::store::Result<()> {
        let (has_ends, now) = (self.has_ends(), now_ms());
        // Where sizes are fixed, all is in memory, and what is left of it passes quickly.
        let mut goes_on = true;
        let stored = |key: &[u8], stored: &[u8]| {
            if let Some((end, value)) = live(stored, has_ends, now).filter(|_| goes_on) {
                goes_on = show(key, value, end);
            }
        };
        match self {
            Self::Fixed(view) => view.for_each(stored),
            Self::Live(view) => view.for_each(stored),
            Self::Any(view) => view.for_each_while(show),
        }
    }
}

/// The lengths that people see: the time before a value is none of it.
pub(super) fn without_end((key, value): (usize, usize), has_ends: bool) -> (usize, usize) {
    (key, if has_ends { value.saturating_sub(STAMP) } else { value })
}

/// One that is written to.
pub(super) enum Opened {
    Fixed(RawStore<Directory>),
    Expiring(RawExpiring<Directory>),
    Any(RawLogStore<Directory>),
}

impl Opened {
    /// A store of fixed sizes, whichever it is.
    pub(super) fn fixed(store: RawStore<Directory>) -> mainstay::store::Result<Self> {
        if store.has_ends() {
            return RawExpiring::over(store, now_ms).map(Self::Expiring);
        }
        Ok(Self::Fixed(store))
    }

    pub(super) fn lengths(&self) -> Option<(usize, usize)> {
        match self {
            Self::Fixed(store) => Some(store.lengths()),
            Self::Expiring(store) => Some(store.lengths()),
            Self::Any(_) => None,
        }
    }

    /// Can its records end?
    pub(super) fn has_ends(&self) -> bool {
        !matches!(self, Self::Fixed(_))
    }

    pub(super) fn get(&self, key: &[u8]) -> mainstay::store::Result<Option<Vec<u8>>> {
        match self {
            Self::Fixed(store) => store.get(key),
            Self::Expiring(store) => store.get(key),
            Self::Any(store) => Ok(store.get(key)?.map(|value| value.to_vec())),
        }
    }

    /// For so long, where records can end.
    pub(super) fn put(
        &self,
        key: &[u8],
        value: &[u8],
        ttl: Option<Duration>,
    ) -> mainstay::store::Result<Token> {
        match self {
            Self::Fixed(store) => store.put(key, value, Durability::Group),
            Self::Expiring(store) => store.put(key, value, ttl, Durability::Group),
            Self::Any(store) => store.put_for(key, value, ttl, Durability::Group),
        }
    }

    /// Up to that time, in milliseconds since 1970, where records can end; not durable yet.
    pub(super) fn put_until(
        &self,
        key: &[u8],
        value: &[u8],
        end: Option<u64>,
    ) -> mainstay::store::Result<Token> {
        match self {
            Self::Fixed(store) => store.put(key, value, Durability::Memory),
            Self::Expiring(store) => store.put_until(key, value, end, Durability::Memory),
            Self::Any(store) => store.put_until(key, value, end, Durability::Memory),
        }
    }

    pub(super) fn insert(
        &self,
        key: &[u8],
        value: &[u8],
        ttl: Option<Duration>,
    ) -> mainstay::store::Result<Option<Token>> {
        match self {
            Self::Fixed(store) => store.insert(key, value, Durability::Group),
            Self::Expiring(store) => store.insert(key, value, ttl, Durability::Group),
            Self::Any(store) => store.insert_for(key, value, ttl, Durability::Group),
        }
    }

    /// It ends when what it replaces would have.
    pub(super) fn replace(
        &self,
        key: &[u8],
        old: &[u8],
        new: &[u8],
    ) -> mainstay::store::Result<Option<Token>> {
        let (old, new) = (Some(old), Some(new));
        match self {
            Self::Fixed(store) => store.compare_and_swap(key, old, new, Durability::Group),
            Self::Expiring(store) => store.compare_and_swap(key, old, new, Durability::Group),
            Self::Any(store) => store.compare_and_swap(key, old, new, Durability::Group),
        }
    }

    /// Lets a record end so long from now, or never.
    pub(super) fn touch(
        &self,
        key: &[u8],
        ttl: Option<Duration>,
    ) -> mainstay::store::Result<Option<Token>> {
        match self {
            // Never is when it ends anyway.
            Self::Fixed(_) => Ok(None),
            Self::Expiring(store) => store.touch(key, ttl, Durability::Group),
            Self::Any(store) => store.touch(key, ttl, Durability::Group),
        }
    }

    /// Removes what has ended: how many records.
    pub(super) fn sweep(&self) -> mainstay::store::Result<u64> {
        match self {
            Self::Fixed(_) => Ok(0),
            Self::Expiring(store) => store.sweep_all(),
            Self::Any(store) => store.sweep(usize::MAX),
        }
    }

    pub(super) fn delete(&self, key: &[u8]) -> mainstay::store::Result<Option<Token>> {
        match self {
            Self::Fixed(store) => store.delete(key, Durability::Memory),
            Self::Expiring(store) => store.delete(key, Durability::Memory),
            Self::Any(store) => store.delete(key, Durability::Memory),
        }
    }

    pub(super) fn tend(&self) -> mainstay::store::Result<()> {
        match self {
            Self::Fixed(store) => store.tend(),
            Self::Expiring(store) => store.raw().tend(),
            Self::Any(store) => store.tend(),
        }
    }

    /// Makes all that was written durable.
    pub(super) fn sync(&self) -> mainstay::store::Result<()> {
        match self {
            Self::Fixed(store) => store.sync(),
            Self::Expiring(store) => store.raw().sync(),
            Self::Any(store) => store.sync(),
        }
        .map(drop)
    }

    /// Closes it after all that was asked for is done and durable: then it is no failure of that if
    /// the store cannot be closed as it should be.
    pub(super) fn close_after(self, done: &str, path: &Path) {
        if let Err(error) = self.close() {
            let path = path.display();
            warn(&format!(
                "{path}: {done}, but the store could not be closed as it should: {error}"
            ));
        }
    }

    pub(super) fn close(self) -> mainstay::store::Result<()> {
        match self {
            Self::Fixed(store) => store.close(),
            Self::Expiring(store) => store.close(),
            Self::Any(store) => store.close(),
        }
    }
}

/// Is there a store of any sizes at this path, or what is left of one whose header is gone?
pub(super) fn is_any(path: &Path) -> bool {
    let is_log = |name: &str| name.starts_with("any-") && name.ends_with(".log");
    let has_log = || {
        let mut entries = path.read_dir().into_iter().flatten().flatten();
        entries.any(|entry| entry.file_name().to_str().is_some_and(is_log))
    };
    // A copy has logs, too, and no such header.
    let is_copy = || is_log_copy(path).unwrap_or(false);
    path.join("any").is_file() || !path.join("store").exists() && has_log() && !is_copy()
}
