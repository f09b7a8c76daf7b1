//! How far an opening is, for who watches it.

use std::{
    cell::Cell,
    sync::{Mutex, PoisonError},
};

use mainstay_storage::{Folder, Storage};

use crate::error::{Error, Result};

/// Of all shards. Where nobody watches, nothing is counted.
pub(crate) struct Progress<'a> {
    told: Option<Mutex<Telling<'a>>>,
    /// How long the files of each shard are that have its records.
    shards: Vec<u64>,
}

struct Telling<'a> {
    done: u64,
    all: u64,
    told: &'a mut (dyn FnMut(u64, u64) + Send),
}

impl<'a> Progress<'a> {
    pub(crate) const NONE: Self = Self { told: None, shards: Vec::new() };

    /// Which shard a file has records of, is known by its name.
    pub(crate) fn of<F: Folder>(
        folder: &F,
        shards: u32,
        shard_of: impl Fn(&str) -> Option<u32>,
        told: &'a mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<Self> {
        let mut bytes = vec![0_u64; shards as usize];
        for name in folder.names().map_err(Error::io("the directory"))? {
            let Some(sum) = shard_of(&name).and_then(|shard| bytes.get_mut(shard as usize)) else {
                continue;
            };
            // What is wrong with it is told by who reads it.
            let len = folder.file(&name).and_then(|file| file.len()).unwrap_or(0);
            *sum = sum.saturating_add(len);
        }
        let all = bytes.iter().fold(0_u64, |sum, len| sum.saturating_add(*len));
        told(0, all);
        Ok(Self { told: Some(Mutex::new(Telling { done: 0, all, told })), shards: bytes })
    }

    /// For who reads this shard.
    pub(crate) fn shard(&self, shard: u32) -> Part<'_, 'a> {
        let left = self.shards.get(shard as usize).copied().unwrap_or(0);
        Part { progress: self, left: Cell::new(left) }
    }
}

/// Of one shard.
pub(crate) struct Part<'p, 'a> {
    progress: &'p Progress<'a>,
    left: Cell<u64>,
}

impl Part<'_, '_> {
    /// So many bytes more. Never more in all than there are, whoever reads something twice.
    pub(crate) fn read(&self, bytes: u64) {
        let Some(telling) = &self.progress.told else { return };
        let bytes = bytes.min(self.left.get());
        if bytes == 0 {
            return;
        }
        self.left.set(self.left.get() - bytes);
        let mut telling = telling.lock().unwrap_or_else(PoisonError::into_inner);
        telling.done = telling.done.saturating_add(bytes);
        let (done, all) = (telling.done, telling.all);
        (telling.told)(done, all);
    }

    /// The shard is there, whatever of its files needed not be read.
    pub(crate) fn end(&self) {
        self.read(u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use mainstay_sim::Disk;

    use crate::{Durability, Error, LogOptions, Options, RawLogStore, RawStore, Result};

    /// What an opening tells, and how often.
    fn told<T>(
        open: impl FnOnce(&mut (dyn FnMut(u64, u64) + Send)) -> Result<T>,
    ) -> (Result<T>, Vec<(u64, u64)>) {
        let mut seen = Vec::new();
        let opened = open(&mut |done, all| seen.push((done, all)));
        (opened, seen)
    }

    fn check(seen: &[(u64, u64)], least: usize) {
        let all = seen[0].1;
        assert!(all > 0 && seen.iter().all(|(_, of)| *of == all), "{seen:?}");
        assert_eq!((seen[0].0, seen[seen.len() - 1].0), (0, all));
        assert!(seen.is_sorted_by(|one, next| one.0 < next.0), "{seen:?}");
        assert!(seen.len() >= least, "{} calls: {seen:?}", seen.len());
    }

    const VALUE: &[u8] = &[7; 100];

    #[test]
    fn an_opening_of_fixed_sizes_tells_how_far_it_is_from_nothing_to_all() {
        for threads in [1, 4] {
            let options =
                Options { shards: 4, segment_bytes: 16 << 10, threads, ..Options::default() };
            let disk = Disk::new(7);
            let store = RawStore::create(disk.clone(), 8, VALUE.len(), &options).unwrap();
            let put = |numbers: std::ops::Range<u64>| {
                for number in numbers {
                    store.put(&number.to_be_bytes(), VALUE, Durability::Memory).unwrap();
                }
                store.sync().unwrap();
            };
            put(0..4_000);
            // Images, of which all is read as well.
            store.compact().unwrap();
            put(4_000..8_000);
            drop(store);
            let open = |told: &mut (dyn FnMut(u64, u64) + Send)| {
                RawStore::open_with_progress(disk.clone(), &options, told)
            };
            let (store, seen) = told(open);
            // Some segments a shard, and parts of an image.
            check(&seen, 40);
            let records: u64 = store.unwrap().stats().iter().map(|shard| shard.records).sum();
            assert_eq!(records, 8_000);
        }
    }

    #[test]
    fn an_opening_of_any_sizes_tells_how_far_it_is_from_nothing_to_all() {
        for (segment_bytes, is_closed, least) in
            [(64 << 10, false, 20), (64 << 10, true, 20), (256 << 20, false, 6)]
        {
            let options = LogOptions { segment_bytes, ..LogOptions::default() };
            let disk = Disk::new(7);
            let store = RawLogStore::create(disk.clone(), &options).unwrap();
            let long = vec![7; 10_000];
            for number in 0..800_u64 {
                store.put(&number.to_be_bytes(), &long, Durability::Memory).unwrap();
            }
            store.sync().unwrap();
            if is_closed {
                store.close().unwrap();
            } else {
                // No hint and no closing frame.
                std::mem::forget(store);
            }
            let open = |told: &mut (dyn FnMut(u64, u64) + Send)| {
                RawLogStore::open_with_progress(disk.clone(), &options, told)
            };
            let (store, seen) = told(open);
            check(&seen, least);
            let store = store.unwrap();
            assert_eq!(store.get(&799_u64.to_be_bytes()).unwrap().unwrap().len(), long.len());
        }
    }

    #[test]
    fn an_opening_that_is_refused_does_not_tell_that_it_has_all() {
        let options = Options { segment_bytes: 16 << 10, ..Options::default() };
        let disk = Disk::new(7);
        let open = |told: &mut (dyn FnMut(u64, u64) + Send)| {
            RawStore::open_with_progress(disk.clone(), &options, told)
        };
        let (refused, seen) = told(open);
        assert!(matches!(refused.err(), Some(Error::NotAStore)) && seen.is_empty());
        let store = RawStore::create(disk.clone(), 8, 8, &options).unwrap();
        for number in 0..4_000_u64 {
            store.put(&number.to_be_bytes(), &[1; 8], Durability::Memory).unwrap();
        }
        store.close().unwrap();
        let name = crate::format::segment_name(1, 2);
        let file = mainstay_storage::Folder::file(&disk, &name).unwrap();
        mainstay_storage::Storage::write_at(&file, 8_192, &[0xff; 64]).unwrap();
        let (refused, seen) = told(open);
        assert!(matches!(refused.err(), Some(Error::Damaged { .. })));
        assert!(seen.len() > 1 && seen.iter().all(|(done, all)| done < all), "{seen:?}");
    }
}
