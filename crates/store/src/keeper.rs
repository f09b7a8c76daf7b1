//! The thread that looks after a store: the timer of [`Durability::Interval`], segments in advance,
//! compaction.
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
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    pub(crate) fn start<F: Folder + 'static>(
        store: Arc<RawStore<F>>,
        interval: Duration,
    ) -> Result<Self> {
        let (stop, stopped) = channel::<()>();
        let run = move || {
            let mut was_well = true;
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                let tended = store.tend();
                if let (true, Err(error)) = (was_well, &tended) {
                    tracing::warn!(%error, "the store could not be tended");
                }
                was_well = tended.is_ok();
            }
        };
        let thread = thread::Builder::new()
            .name("store keeper".to_owned())
            .spawn(run)
            .map_err(Error::io("the thread that looks after the store"))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that looked after the store had panicked");
        }
    }
}
