//! The threads that look after a store: one is the timer of [`Durability::Interval`] and does
//! nothing else, so that nothing delays it; the other makes segments in advance and compacts.
//!
//! [`Durability::Interval`]: crate::Durability::Interval

use std::{
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use mainstay_storage::Folder;

use crate::{
    error::{Error, Result},
    store::RawStore,
};

/// Runs until it is dropped.
pub(crate) struct Keeper {
    threads: Vec<(Sender<()>, JoinHandle<()>)>,
}

impl Keeper {
    pub(crate) fn start<F: Folder + 'static>(
        store: Arc<RawStore<F>>,
        interval: Duration,
    ) -> Result<Self> {
        let synced = Arc::clone(&store);
        Self::of(interval, move || synced.sync().map(drop), move || store.upkeep())
    }

    /// The same for any store.
    pub(crate) fn of(
        interval: Duration,
        sync: impl Fn() -> Result<()> + Send + 'static,
        upkeep: impl Fn() -> Result<()> + Send + 'static,
    ) -> Result<Self> {
        let mut keeper = Self { threads: Vec::new() };
        keeper.spawn("store timer", interval, sync)?;
        keeper.spawn("store keeper", interval, upkeep)?;
        Ok(keeper)
    }

    /// A thread that does the work again and again.
    pub(crate) fn spawn(
        &mut self,
        name: &str,
        interval: Duration,
        work: impl Fn() -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let (stop, stopped) = channel::<()>();
        let run = move || {
            let mut was_well = true;
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                let done = work();
                if let (true, Err(error)) = (was_well, &done) {
                    tracing::warn!(%error, "the store could not be looked after");
                }
                was_well = done.is_ok();
            }
        };
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(run)
            .map_err(Error::io("a thread that looks after the store"))?;
        self.threads.push((stop, thread));
        Ok(())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        for (stop, thread) in self.threads.drain(..) {
            drop(stop);
            if thread.join().is_err() {
                tracing::error!("a thread that looked after the store had panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::atomic::{AtomicBool, Ordering},
        time::Instant,
    };

    use mainstay_sim::{Disk, DiskFile};
    use mainstay_storage::Storage;

    use super::*;
    use crate::{Durability, Options, limits::SEGMENT_BYTES_MIN};

    /// A disk on which writing an image takes as long as `holds` says.
    #[derive(Clone)]
    struct Slow {
        disk: Disk,
        holds: Arc<AtomicBool>,
        writes_image: Arc<AtomicBool>,
    }

    struct SlowFile(DiskFile, Option<Slow>);

    impl Folder for Slow {
        type File = SlowFile;

        fn file(&self, name: &str) -> io::Result<SlowFile> {
            let slow = name.ends_with(".image").then(|| self.clone());
            Ok(SlowFile(Folder::file(&self.disk, name)?, slow))
        }

        fn names(&self) -> io::Result<Vec<String>> {
            Folder::names(&self.disk)
        }

        fn remove(&self, name: &str) -> io::Result<()> {
            Folder::remove(&self.disk, name)
        }

        fn sync_names(&self) -> io::Result<()> {
            self.disk.sync_names()
        }
    }

    impl Storage for SlowFile {
        fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
            self.0.read_at(offset, bytes)
        }

        fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
            if let Some(slow) = &self.1 {
                slow.writes_image.store(true, Ordering::SeqCst);
                while slow.holds.load(Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(1));
                }
            }
            self.0.write_at(offset, bytes)
        }

        fn len(&self) -> io::Result<u64> {
            self.0.len()
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.0.set_len(len)
        }

        fn sync(&self) -> io::Result<()> {
            self.0.sync()
        }
    }

    #[test]
    fn a_compaction_that_takes_long_delays_no_sync() {
        let flag = || Arc::new(AtomicBool::new(true));
        let slow = Slow { disk: Disk::new(1), holds: flag(), writes_image: flag() };
        slow.writes_image.store(false, Ordering::SeqCst);
        let options = Options { shards: 1, segment_bytes: SEGMENT_BYTES_MIN, ..Options::default() };
        let store = Arc::new(RawStore::create(slow.clone(), 8, 64, &options).unwrap());
        for number in 0..2_000_u64 {
            store.put(&[1; 8], &[number as u8; 64], Durability::Memory).unwrap();
        }
        let keeper = Keeper::start(Arc::clone(&store), Duration::from_millis(2)).unwrap();
        let end = Instant::now() + Duration::from_secs(60);
        while !slow.writes_image.load(Ordering::SeqCst) {
            assert!(Instant::now() < end, "nobody compacts");
            thread::sleep(Duration::from_millis(1));
        }
        let token = store.put(&[1; 8], &[7; 64], Durability::Interval).unwrap();
        while !store.is_durable(token).unwrap() {
            assert!(Instant::now() < end, "nobody syncs while a compaction goes on");
            thread::sleep(Duration::from_millis(1));
        }
        slow.holds.store(false, Ordering::SeqCst);
        drop(keeper);
        assert!(store.stats()[0].image > 0);
    }
}
