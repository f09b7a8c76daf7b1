//! A store of either kind: of fixed sizes, or of any.

use super::target::failed;
use crate::error::Result;
use mainstay::store::{Directory, Durability, OnDisk, RawLogStore, RawStore, Token};
use std::path::{Path, PathBuf};

/// One that is only looked at.
pub(super) enum View {
    Fixed(OnDisk),
    /// Its values are on the disk, so it is opened.
    Any(PathBuf, RawLogStore<Directory>),
}

impl View {
    /// Bytes of a key and of a value, where they are fixed.
    pub(super) fn lengths(&self) -> Option<(usize, usize)> {
        match self {
            Self::Fixed(view) => Some(view.lengths()),
            Self::Any(..) => None,
        }
    }

    /// Are keys and values exactly what was put, with no zeros behind it?
    pub(super) fn is_exact(&self) -> bool {
        self.lengths().is_none()
    }

    pub(super) fn get(&self, key: &[u8]) -> mainstay::store::Result<Option<Vec<u8>>> {
        match self {
            Self::Fixed(view) => view.get(key),
            Self::Any(_, store) => Ok(store.get(key)?.map(|value| value.to_vec())),
        }
    }

    pub(super) fn records(&self) -> u64 {
        match self {
            Self::Fixed(view) => view.shards().map(|shard| shard.records).sum(),
            Self::Any(_, store) => store.stats().iter().map(|shard| shard.records).sum(),
        }
    }

    pub(super) fn for_each(&self, show: impl FnMut(&[u8], &[u8])) -> mainstay::store::Result<()> {
        match self {
            Self::Fixed(view) => view.for_each(show),
            Self::Any(_, store) => store.for_each(show),
        }
    }

    /// Leaves it as whoever had it open before did.
    pub(super) fn close(self) -> Result<()> {
        match self {
            Self::Fixed(_) => Ok(()),
            Self::Any(path, store) => store.close().map_err(failed(&path)),
        }
    }
}

/// One that is written to.
pub(super) enum Opened {
    Fixed(RawStore<Directory>),
    Any(RawLogStore<Directory>),
}

impl Opened {
    pub(super) fn lengths(&self) -> Option<(usize, usize)> {
        match self {
            Self::Fixed(store) => Some(store.lengths()),
            Self::Any(_) => None,
        }
    }

    pub(super) fn get(&self, key: &[u8]) -> mainstay::store::Result<Option<Vec<u8>>> {
        match self {
            Self::Fixed(store) => store.get(key),
            Self::Any(store) => Ok(store.get(key)?.map(|value| value.to_vec())),
        }
    }

    pub(super) fn put(
        &self,
        key: &[u8],
        value: &[u8],
        durability: Durability,
    ) -> mainstay::store::Result<Token> {
        match self {
            Self::Fixed(store) => store.put(key, value, durability),
            Self::Any(store) => store.put(key, value, durability),
        }
    }

    pub(super) fn insert(
        &self,
        key: &[u8],
        value: &[u8],
    ) -> mainstay::store::Result<Option<Token>> {
        match self {
            Self::Fixed(store) => store.insert(key, value, Durability::Group),
            Self::Any(store) => store.insert(key, value, Durability::Group),
        }
    }

    pub(super) fn replace(
        &self,
        key: &[u8],
        old: &[u8],
        new: &[u8],
    ) -> mainstay::store::Result<Option<Token>> {
        let (old, new) = (Some(old), Some(new));
        match self {
            Self::Fixed(store) => store.compare_and_swap(key, old, new, Durability::Group),
            Self::Any(store) => store.compare_and_swap(key, old, new, Durability::Group),
        }
    }

    pub(super) fn delete(&self, key: &[u8]) -> mainstay::store::Result<Option<Token>> {
        match self {
            Self::Fixed(store) => store.delete(key, Durability::Memory),
            Self::Any(store) => store.delete(key, Durability::Memory),
        }
    }

    pub(super) fn close(self) -> mainstay::store::Result<()> {
        match self {
            Self::Fixed(store) => store.close(),
            Self::Any(store) => store.close(),
        }
    }
}

/// Is there a store of any sizes at this path?
pub(super) fn is_any(path: &Path) -> bool {
    path.join("any").is_file()
}
