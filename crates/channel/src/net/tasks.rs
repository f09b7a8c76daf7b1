//! What all ways of driving a channel share: its tasks, and how it ends.

use crate::{Why, limits::LINGER, queue::Queue};
use std::{
    future::poll_fn,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};
use tokio::task::AbortHandle;

/// The two tasks of a channel.
pub(super) struct Tasks {
    pub(super) reader: AbortHandle,
    pub(super) writer: AbortHandle,
    pub(super) left: Arc<Left>,
}

/// How many tasks are left.
pub(super) struct Left {
    count: Mutex<u32>,
    changed: Condvar,
}

impl Left {
    pub(super) fn two() -> Arc<Self> {
        Arc::new(Self { count: Mutex::new(2), changed: Condvar::new() })
    }
}

/// Counts a task as gone, however it ends.
pub(super) struct Leaving(pub(super) Arc<Left>);

impl Drop for Leaving {
    fn drop(&mut self) {
        *self.0.count.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.changed.notify_all();
    }
}

impl Tasks {
    pub(super) fn abort(&self) {
        self.reader.abort();
        self.writer.abort();
    }

    pub(super) fn wait(&self, time: Duration) -> bool {
        let count = self.left.count.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = self.left.changed.wait_timeout_while(count, time, |count| *count > 0);
        *outcome.unwrap_or_else(PoisonError::into_inner).0 == 0
    }
}

#[derive(Clone)]
pub(super) struct Queues {
    pub(super) outgoing: Arc<Queue>,
    pub(super) incoming: Arc<Queue>,
}

/// How reading came to its end.
#[derive(Clone)]
pub(super) enum Ended {
    /// The peer said that it closes.
    ByPeer,
    /// Our user wants no more.
    Here,
    /// Any other way.
    Lost(Why),
}

impl Queues {
    pub(super) fn of(outgoing: &Arc<Queue>, incoming: &Arc<Queue>) -> Self {
        Self { outgoing: Arc::clone(outgoing), incoming: Arc::clone(incoming) }
    }

    /// Whoever is told by a receive must not be able to send after it: so sending ends first.
    pub(super) fn end(&self, ended: Ended) {
        match ended {
            Ended::ByPeer => {
                self.outgoing.close_reader(Why::ClosedByPeer, Why::ClosedByPeer);
                self.incoming.close_writer(Why::ClosedByPeer, Why::ClosedByPeer);
            }
            Ended::Here => {}
            Ended::Lost(why) => {
                tracing::debug!(%why, "a channel was lost");
                self.outgoing.abort(why.clone(), why.clone());
                self.incoming.abort(why.clone(), why);
            }
        }
    }
}

pub(super) fn lost(what: &str) -> Ended {
    Ended::Lost(Why::Lost { what: what.to_owned() })
}

/// Ends when what was sent before a close has had its time.
pub(super) async fn linger(outgoing: &Queue) {
    poll_fn(|cx| outgoing.poll_ended(cx)).await;
    tokio::time::sleep(LINGER).await;
}
