//! The runtime that moves bytes between sockets and queues.

use crate::{Error, Result};
use std::sync::{Mutex, PoisonError};
use tokio::runtime::{Builder, Handle, Runtime};

/// Two can read and write at full speed; a node with many channels is bound by the network.
const THREADS: usize = 2;

static RUNTIME: Mutex<Option<Runtime>> = Mutex::new(None);

/// The process's runtime for channels, started when it is first asked for.
pub(super) fn handle() -> Result<Handle> {
    let mut runtime = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(runtime) = &*runtime {
        return Ok(runtime.handle().clone());
    }
    let started = Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("mainstay-net")
        .enable_all()
        .build()
        .map_err(|source| Error::Network {
            address: "this process".to_owned(),
            action: "start the threads for the network",
            source,
            hint: "raise the limits on threads and open files",
        })?;
    Ok(runtime.insert(started).handle().clone())
}

/// Runs `work` on the runtime and blocks for what it comes to; also from within another runtime,
/// whose thread is then blocked.
pub(super) fn run<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Result<Option<T>> {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    handle()?.spawn(async move {
        // Nobody waits any more: then nobody wants it.
        let _ = sender.send(work.await);
    });
    Ok(receiver.recv().ok())
}
