//! Channels between two processes of one host, through shared memory.
//!
//! One process makes the memory, as a file or as a memfd whose descriptor it passes on, and another
//! joins it. Messages are frames in two rings, one each way; a checksum guards against a peer that
//! has gone mad, a lease (a lock that the kernel drops) tells a peer that has died from one that is
//! slow.
//!
//! Example: see [`create_memfd`].

mod end;
mod layout;

use crate::{
    Bounds, Bytes, Channel, Error, NodeId, Payload, Peer, Proof, Result, Statistics, Transport,
    spin::Spin,
};
use end::End;
use layout::{Header, Side};
use mainstay_shm::{Access, Atomic64, Backing, Mapping, Unpublished, lease};
use std::{
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::{Duration, Instant},
};

/// A channel's memory that nobody has joined yet.
///
/// Example: see [`create_memfd`].
#[derive(Debug)]
pub struct Offer {
    end: Arc<End>,
    /// Our end was given out.
    given: bool,
}

/// One end of a channel in shared memory. A clone is the same end; the last one dropped closes it.
///
/// Example: see [`create_memfd`].
#[derive(Clone)]
pub struct ShmChannel {
    handle: Arc<Handle>,
}

struct Handle {
    end: Arc<End>,
    peer: Peer,
    spin: Spin,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.end.close();
    }
}

/// Makes memory without a name; pass its descriptor to the process that is to join.
///
/// ```
/// use mainstay_channel::{Bounds, Channel, NodeId, shm};
/// use std::time::Duration;
/// let mut offer = shm::create_memfd(NodeId(1), Bounds::default())?;
/// // In another process, with the descriptor as it was inherited or received:
/// let theirs = shm::join_fd(offer.descriptor()?, NodeId(2))?;
/// let ours = offer.accept(Duration::from_secs(1))?.expect("it has joined");
/// ours.send("ringing".into())?;
/// assert_eq!(theirs.receive(Duration::from_secs(1))?.unwrap(), "ringing");
/// assert_eq!((ours.peer().node, theirs.peer().node), (NodeId(2), NodeId(1)));
/// # Ok::<(), mainstay_channel::Error>(())
/// ```
///
/// # Errors
/// `Bounds`, `Memory`.
pub fn create_memfd(node: NodeId, bounds: Bounds) -> Result<Offer> {
    let header = Header::new(bounds.check()?, node);
    let backing = Backing::memfd("mainstay-channel")?;
    let mapping = prepare(&backing, header)?;
    Ok(Offer { end: Arc::new(End::new(mapping, backing, header, Side::Creator)), given: false })
}

/// Makes memory with a name, which appears in one step and complete. Whoever may open the file can
/// join: its mode is 0600.
///
/// ```
/// use mainstay_channel::{Bounds, Channel, NodeId, shm};
/// # use std::time::Duration;
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = &folder.path().join("calls.channel");
/// let mut offer = shm::create(path, NodeId(1), Bounds::default())?;
/// assert!(offer.accept(Duration::ZERO)?.is_none(), "nobody yet");
/// let theirs = shm::join(path, NodeId(2))?;
/// let ours = offer.accept(Duration::from_secs(1))?.expect("it has joined");
/// theirs.send("ringing".into())?;
/// assert_eq!(ours.receive(Duration::from_secs(1))?.unwrap(), "ringing");
/// assert!(shm::join(path, NodeId(3)).is_err(), "for two processes only");
/// # Ok::<(), mainstay_channel::Error>(())
/// ```
///
/// # Errors
/// `Bounds`, `Memory`.
pub fn create(path: &Path, node: NodeId, bounds: Bounds) -> Result<Offer> {
    let header = Header::new(bounds.check()?, node);
    let unpublished = Unpublished::create(path, 0o600)?;
    let mapping = prepare(unpublished.backing(), header)?;
    let backing = unpublished.publish()?;
    Ok(Offer { end: Arc::new(End::new(mapping, backing, header, Side::Creator)), given: false })
}

/// Joins the memory of this name.
///
/// Example: see [`create`].
///
/// # Errors
/// `NotAChannel` when the file is none; `EndTaken`; `Memory`.
pub fn join(path: &Path, node: NodeId) -> Result<ShmChannel> {
    join_backing(Backing::open(path, Access::ReadWrite)?, node)
}

/// Joins the memory of this descriptor.
///
/// Example: see [`create_memfd`].
///
/// # Errors
/// `NotAChannel` when the file is none; `EndTaken`; `Memory`.
pub fn join_fd(fd: OwnedFd, node: NodeId) -> Result<ShmChannel> {
    join_backing(Backing::from_fd(fd, Access::ReadWrite)?, node)
}

/// Fills the file and maps it, with the creator's lease.
fn prepare(backing: &Backing, header: Header) -> Result<Mapping> {
    backing.allocate(0, header.file_len())?;
    let (mapping, _slot) = lease::acquire(backing, header.file_len(), &[Side::Creator.slot()])?;
    mapping.refresh(backing)?;
    mapping.write(0, &header.encode())?;
    Ok(mapping)
}

fn join_backing(backing: Backing, node: NodeId) -> Result<ShmChannel> {
    let path = backing.describe();
    let taken = || Error::EndTaken { path: path.clone() };
    // Read through a mapping without a lease: only a channel is worth one.
    let look = Mapping::new(&backing.reopen()?, 4_096, Access::ReadOnly)?;
    look.refresh(&backing)?;
    let header = Header::read(&path, &look)?;
    let (found, expected) = (backing.len()?, header.file_len());
    if found < expected {
        return Err(Error::NotAChannel { path, field: "length", found, expected });
    }
    let (mapping, _slot) = match lease::acquire(&backing, header.file_len(), &[Side::Joiner.slot()])
    {
        Err(mainstay_shm::Error::SlotsTaken { .. }) => return Err(taken()),
        acquired => acquired?,
    };
    mapping.refresh(&backing)?;
    // Two that come one after the other: the first has left its name.
    let order = Ordering::AcqRel;
    layout::joined(&mapping)?
        .compare_exchange(0, node.0.max(1), order, Ordering::Acquire)
        .map_err(|_| taken())?;
    let end = Arc::new(End::new(mapping, backing, header, Side::Joiner));
    end.greet();
    let peer = Peer::new(header.creator, Proof::SharedMemory, Transport::SharedMemory);
    Ok(ShmChannel { handle: Arc::new(Handle { end, peer, spin: Spin::new() }) })
}

impl Offer {
    /// A descriptor of the memory, to be passed to the process that is to join.
    ///
    /// Example: see [`create_memfd`].
    ///
    /// # Errors
    /// `Memory`.
    pub fn descriptor(&self) -> Result<OwnedFd> {
        Ok(self.end.backing.reopen()?)
    }

    /// Waits until somebody has joined, at most `timeout`; then this end of the channel. Once it is
    /// given out, there is no other.
    ///
    /// Example: see [`create`].
    ///
    /// # Errors
    /// `EndTaken` when this end was given out already, `Memory`.
    pub fn accept(&mut self, timeout: Duration) -> Result<Option<ShmChannel>> {
        if self.given {
            return Err(Error::EndTaken { path: self.end.backing.describe() });
        }
        let deadline = Instant::now().checked_add(timeout);
        loop {
            let seen = self.end.about_to_sleep()?;
            let node = layout::joined(&self.end.mapping)?.load(Ordering::Acquire);
            if node != 0 {
                self.given = true;
                let end = Arc::clone(&self.end);
                let peer = Peer::new(NodeId(node), Proof::SharedMemory, Transport::SharedMemory);
                return Ok(Some(ShmChannel {
                    handle: Arc::new(Handle { end, peer, spin: Spin::new() }),
                }));
            }
            let left =
                deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Ok(None);
            }
            self.end.sleep_alone(seen, left)?;
        }
    }
}

impl ShmChannel {
    fn end(&self) -> &Arc<End> {
        &self.handle.end
    }

    /// Tries `look` until it gives something, the time is over, or the channel.
    fn wait<T>(
        &self,
        deadline: Option<Instant>,
        mut look: impl FnMut() -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        if let Some(found) = self.handle.spin.find(&mut look)? {
            return Ok(Some(found));
        }
        loop {
            let seen = self.end().about_to_sleep()?;
            if let Some(found) = look()? {
                return Ok(Some(found));
            }
            let left =
                deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Ok(None);
            }
            self.end().sleep(seen, left)?;
        }
    }

    fn wait_to_send(&self, message: &mut Option<Payload>) -> Result<()> {
        if self.end().push(message)? {
            return Ok(());
        }
        self.end().counters.waited();
        self.wait(None, || self.end().push(message).map(|done| done.then_some(())))?;
        Ok(())
    }
}

impl Channel for ShmChannel {
    fn poll_send(&self, cx: &mut Context<'_>, message: &mut Option<Payload>) -> Poll<Result<()>> {
        let mut attempt = || match self.end().push(message) {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        };
        if let Poll::Ready(sent) = attempt() {
            return Poll::Ready(sent);
        }
        match self.end().about_to_sleep() {
            Ok(seen) => self.end().wake_later(cx.waker(), seen),
            Err(error) => return Poll::Ready(Err(error)),
        }
        let again = attempt();
        if again.is_pending() {
            self.end().counters.waited();
        }
        again
    }

    fn poll_receive(&self, cx: &mut Context<'_>) -> Poll<Result<Bytes>> {
        let attempt = || match self.end().pop() {
            Ok(Some(message)) => Poll::Ready(Ok(message)),
            Ok(None) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        };
        if let Poll::Ready(received) = attempt() {
            return Poll::Ready(received);
        }
        match self.end().about_to_sleep() {
            Ok(seen) => self.end().wake_later(cx.waker(), seen),
            Err(error) => return Poll::Ready(Err(error)),
        }
        attempt()
    }

    fn close(&self) {
        self.end().close();
    }

    fn abort(&self) {
        self.end().abort();
    }

    fn is_open(&self) -> bool {
        self.end().is_open()
    }

    fn peer(&self) -> &Peer {
        &self.handle.peer
    }

    fn statistics(&self) -> Statistics {
        let (messages_unsent, messages_waiting) = self.end().waiting();
        let mut statistics =
            Statistics { messages_unsent, messages_waiting, ..Statistics::default() };
        self.end().counters.add_to(&mut statistics);
        statistics
    }

    fn send(&self, message: Bytes) -> Result<()> {
        self.wait_to_send(&mut Some(Payload::One(message)))
    }

    fn send_vectored(&self, parts: &[Bytes]) -> Result<()> {
        self.wait_to_send(&mut Some(Payload::of_parts(parts)?))
    }

    fn try_send(&self, message: Bytes) -> Result<Option<Bytes>> {
        let mut message = Some(Payload::One(message));
        self.end().push(&mut message)?;
        Ok(message.map(Payload::into_bytes))
    }

    fn receive(&self, timeout: Duration) -> Result<Option<Bytes>> {
        let received = self.end().pop()?;
        if received.is_some() || timeout.is_zero() {
            return Ok(received);
        }
        self.wait(Instant::now().checked_add(timeout), || self.end().pop())
    }
}

impl std::fmt::Debug for ShmChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ShmChannel(to {}, open: {})", self.peer().node, self.is_open())
    }
}

impl std::fmt::Debug for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "End({:?} of {})", self.side, self.backing.describe())
    }
}
