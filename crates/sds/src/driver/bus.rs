//! A broadcast among the tasks of one process.

use std::sync::Arc;

use tokio::sync::broadcast::{self, error::RecvError};

use super::{
    error::{Error, Result, fits},
    lossy::{Faults, Lossy},
    transport::{Heard, Transport},
};
use crate::limits::MESSAGE_LEN_MAX;

/// Messages that a slow member may be behind; older ones are lost for it.
const BEHIND_MAX: usize = 1024;

/// A broadcast among the tasks of one process. It loses nothing by itself, unless a member is more
/// than a thousand messages behind; [`join_lossy`](Self::join_lossy) makes it worse.
///
/// Example: see [`driver`](super).
#[derive(Clone, Debug)]
pub struct Bus {
    to_all: broadcast::Sender<(u64, Arc<[u8]>)>,
    next: Arc<std::sync::atomic::AtomicU64>,
}

impl Bus {
    /// One without members.
    ///
    /// Example: see [`driver`](super).
    #[must_use]
    pub fn new() -> Self {
        Self { to_all: broadcast::Sender::new(BEHIND_MAX), next: Arc::default() }
    }

    /// A member, which hears what the others say from now on.
    ///
    /// Example: see [`driver`](super).
    #[must_use]
    pub fn join(&self) -> BusEnd {
        BusEnd {
            number: self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
            to_all: self.to_all.clone(),
            from_all: self.to_all.subscribe(),
        }
    }

    /// A member that hears badly.
    ///
    /// ```
    /// use mainstay_sds::driver::{Bus, Faults, Transport};
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// let bus = Bus::new();
    /// let mut alice = bus.join();
    /// let mut deaf = bus.join_lossy(Faults { loss: 1.0, ..Faults::none(7) });
    /// alice.broadcast(b"hello").await?;
    /// let mut message = Vec::new();
    /// let heard = deaf.receive(&mut message);
    /// let heard = tokio::time::timeout(std::time::Duration::from_millis(20), heard).await;
    /// assert!(heard.is_err(), "nothing came");
    /// # Ok::<(), mainstay_sds::driver::Error>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn join_lossy(&self, faults: Faults) -> Lossy<BusEnd> {
        Lossy::new(self.join(), faults)
    }
}

impl Default for Bus {
    fn default() -> Self {
        Self::new()
    }
}

/// One member of a [`Bus`].
///
/// Example: see [`Transport`].
#[derive(Debug)]
pub struct BusEnd {
    number: u64,
    to_all: broadcast::Sender<(u64, Arc<[u8]>)>,
    from_all: broadcast::Receiver<(u64, Arc<[u8]>)>,
}

impl Transport for BusEnd {
    fn message_len_max(&self) -> usize {
        MESSAGE_LEN_MAX
    }

    async fn broadcast(&mut self, message: &[u8]) -> Result<()> {
        fits(message.len(), self.message_len_max())?;
        // It fails when nobody listens, and then nobody misses it.
        let _heard_by = self.to_all.send((self.number, message.into()));
        Ok(())
    }

    async fn receive(&mut self, message: &mut Vec<u8>) -> Result<Heard> {
        loop {
            match self.from_all.recv().await {
                Ok((from, _)) if from == self.number => {}
                Ok((_, bytes)) => {
                    message.clear();
                    message.extend_from_slice(&bytes);
                    return Ok(Heard::Message);
                }
                // A network loses messages as well.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Err(Error::Ended),
            }
        }
    }
}
