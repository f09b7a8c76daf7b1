//! Streams over TCP: threads that block do their own reading and writing.
//!
//! A task that reads for a thread costs two switches a message, which is more than all the rest. So
//! whoever blocks in `receive` reads from the socket itself, and whoever blocks in `send` writes to
//! it; the tasks do it for everybody else (tasks of the user, `try_send`), and what goes on beside:
//! signs of life, the close, a peer that speaks while nobody listens. Between the frames and the
//! socket there may be TLS.
//!
//! B1. What is read goes through the one decoder, and what is written through the one batch, each
//!     behind its lock: however many threads and tasks there are, frames stay whole and in order.
//! B2. A thread writes past the queue only when the queue is empty and nothing is left in the batch;
//!     it reads past the queue only when the queue is empty.
//! B3. The inbox has one reader at a time: the task while *driven*, threads while *direct*. The mode
//!     changes under the inbox's lock. It becomes direct when a thread asks, and driven again when
//!     no thread has come for a while, or a task asks.
//! B4. A thread that waits for the socket waits for the bell too, which is rung at every end.

mod driven;

#[cfg(feature = "tls")]
use super::records::{Arrived, Records};
use super::{
    NetChannel, NetEnd, Settings,
    batch::Batch,
    socket::{Bell, Wanted, read_into},
    tasks::{Ended, Leaving, Left, Queues, Tasks, linger, lost},
};
use crate::{
    Bounds, Bytes, Error, Payload, Peer, Result, Why,
    endpoint::Endpoint,
    frame::{Decoder, FrameError, Kind},
    handshake::Reason,
    limits::LINGER,
    queue::Queue,
    statistics::Counters,
};
use std::{
    io,
    net::{Shutdown, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed},
        },
    },
    time::{Duration, Instant},
};
use tokio::{sync::Notify, time::timeout};

/// How long no thread must have come before the task takes over, at first and at most.
const LOOK_MIN: Duration = Duration::from_millis(20);
const LOOK_MAX: Duration = Duration::from_secs(1);

/// What the threads and the tasks of a channel share.
pub(super) struct Direct {
    socket: Arc<TcpStream>,
    /// What is between the frames and the socket, if anything is.
    #[cfg(feature = "tls")]
    records: Option<Records>,
    queues: Queues,
    /// Made when a thread first waits.
    bell: OnceLock<Bell>,
    silence: Duration,
    inbox: Mutex<Inbox>,
    outbox: Mutex<Outbox>,
    /// B3. Changed under the inbox's lock.
    pub(super) is_direct: AtomicBool,
    /// A thread wants to read.
    direct_wanted: AtomicBool,
    /// A task wants the reader task to read.
    driven_wanted: AtomicBool,
    /// How often a thread has read.
    uses: AtomicU64,
    /// Something has changed for the reader task.
    changed: Notify,
    /// The outbox was given back, and there is work for the writer task.
    freed: Notify,
    /// What has passed by the queues.
    pub(super) counters: Counters,
}

struct Inbox {
    decoder: Decoder,
    /// Where records are read to.
    #[cfg(feature = "tls")]
    arrived: Arrived,
    heard: Instant,
    /// How reading ended, if a thread has seen it.
    ended: Option<Ended>,
}

#[derive(Default)]
struct Outbox {
    batch: Batch,
    /// How often something was written.
    writes: u64,
}

/// What the next step of a reader is.
enum Next {
    Message(Bytes),
    /// Nothing whole has arrived.
    More,
    End(Ended),
}

/// A stream whose handshake is through.
pub(super) struct Stream {
    pub(super) socket: TcpStream,
    #[cfg(feature = "tls")]
    pub(super) session: Option<rustls::Connection>,
}

impl Stream {
    /// One with nothing between the frames and the socket.
    pub(super) fn plain(stream: tokio::net::TcpStream) -> io::Result<Self> {
        Ok(Self {
            socket: stream.into_std()?,
            #[cfg(feature = "tls")]
            session: None,
        })
    }
}

/// Makes a channel of a stream. Must be called on the runtime.
pub(super) fn start(
    stream: Stream,
    decoder: Decoder,
    peer: Peer,
    message_len_theirs: usize,
    settings: &Settings,
) -> io::Result<NetChannel> {
    let bounds = settings.bounds;
    let message_len = bounds.message_len.min(message_len_theirs);
    let outgoing = Arc::new(Queue::new(Bounds { message_len, ..bounds }));
    let incoming = Arc::new(Queue::new(bounds));
    let mut decoder = decoder;
    decoder.allow(bounds.message_len);
    let direct = Arc::new(Direct {
        socket: Arc::new(stream.socket),
        #[cfg(feature = "tls")]
        records: match stream.session {
            Some(session) => Some(Records::new(session, &mut decoder)?),
            None => None,
        },
        queues: Queues::of(&outgoing, &incoming),
        bell: OnceLock::new(),
        silence: settings.silence,
        inbox: Mutex::new(Inbox {
            decoder,
            #[cfg(feature = "tls")]
            arrived: Arrived::new(),
            heard: Instant::now(),
            ended: None,
        }),
        outbox: Mutex::default(),
        is_direct: AtomicBool::new(false),
        direct_wanted: AtomicBool::new(false),
        driven_wanted: AtomicBool::new(false),
        uses: AtomicU64::new(0),
        changed: Notify::new(),
        freed: Notify::new(),
        counters: Counters::default(),
    });
    let left = Left::two();

    let (leaving, reader) = (Leaving(Arc::clone(&left)), Arc::clone(&direct));
    let reading = tokio::spawn(async move {
        let _leaving = leaving;
        let ended = match reader.read_all().await {
            Ok(ended) => ended,
            Err(error) => lost(&error.to_string()),
        };
        let is_lost = matches!(ended, Ended::Lost(_));
        reader.queues.end(ended);
        reader.ring();
        if is_lost {
            reader.hang_up();
        } else {
            reader.drain().await;
        }
    });
    let reader = reading.abort_handle();

    let (leaving, writer) = (Leaving(Arc::clone(&left)), Arc::clone(&direct));
    let keep_alive = settings.keep_alive;
    let writing = tokio::spawn(async move {
        let _leaving = leaving;
        let outgoing = Arc::clone(&writer.queues.outgoing);
        let written = tokio::select! {
            biased;
            written = writer.write_all(keep_alive) => written,
            () = linger(&outgoing) => Err(io::ErrorKind::TimedOut.into()),
        };
        if let Err(error) = written {
            // The reader knows better why: it may still find a clean end. Senders learn it now.
            let what = Why::Lost { what: error.to_string() };
            outgoing.close_reader(what.clone(), what);
            writer.ring();
        } else if outgoing.is_aborted() {
            writer.hang_up();
        } else {
            let _ = timeout(LINGER, writer.say_close()).await;
            let _ = writer.socket.shutdown(Shutdown::Write);
        }
        let rest = reading.abort_handle();
        if timeout(LINGER, reading).await.is_err() {
            rest.abort();
        }
    });
    let tasks = Tasks { reader, writer: writing.abort_handle(), left };
    let endpoint = Endpoint { outgoing, incoming, peer, spins: None };
    Ok(NetChannel { endpoint: Arc::new(NetEnd { endpoint, tasks, direct: Some(direct) }) })
}

/// What threads do.
impl Direct {
    /// Writes past the queue, if that is possible (B2); whether it was.
    pub(super) fn send(&self, message: &mut Option<Payload>) -> Result<bool> {
        let outgoing = &self.queues.outgoing;
        let Some(payload) = message else { return Ok(true) };
        let len = payload.len();
        outgoing.check_len(len)?;
        if !outgoing.is_idle() {
            return Ok(false);
        }
        let Some(mut outbox) = try_lock(&self.outbox) else { return Ok(false) };
        if !self.is_written(&outbox) || !outgoing.is_idle() {
            return Ok(false);
        }
        // An end comes under no lock of ours: a message that is written in that moment comes
        // before the frame that says it, which is written under this one.
        if !outgoing.is_open() {
            return Err(outgoing.told_to_writer());
        }
        outbox.batch.add(payload);
        *message = None;
        outbox.writes += 1;
        let bell = self.bell();
        let mut waited = false;
        let written = loop {
            match self.write_some(&mut outbox) {
                Ok(true) => break Ok(()),
                Ok(false) if !outgoing.is_open() => break Err(outgoing.told_to_writer()),
                Ok(false) => {
                    if !std::mem::replace(&mut waited, true) {
                        self.counters.waited();
                    }
                    wait(bell, &self.socket, Wanted::Output, LOOK_MAX);
                }
                Err(error) => {
                    let what = Why::Lost { what: error.to_string() };
                    outgoing.close_reader(what.clone(), what);
                    self.ring();
                    break Err(outgoing.told_to_writer());
                }
            }
        };
        drop(outbox);
        // Others may have come to the queue meanwhile, or an end: that is for the task.
        if waited || written.is_err() || !outgoing.is_idle() {
            self.freed.notify_one();
        }
        written?;
        self.counters.sent(len);
        Ok(true)
    }

    /// Reads past the queue, if threads do now (B3). None when the task does, which is then asked
    /// to let threads do it.
    pub(super) fn receive(&self, deadline: Option<Instant>) -> Option<Result<Option<Bytes>>> {
        if self.is_direct.load(Acquire)
            && let Some(mut inbox) = try_lock(&self.inbox)
            && self.is_direct.load(Acquire)
        {
            self.uses.fetch_add(1, Relaxed);
            let received = self.receive_from(&mut inbox, deadline);
            drop(inbox);
            // Another thread may wait for its turn.
            self.queues.incoming.wake_readers();
            return Some(received);
        }
        if !self.is_direct.load(Acquire) && !self.direct_wanted.swap(true, Relaxed) {
            self.changed.notify_one();
        }
        None
    }

    /// May threads read, and does none?
    pub(super) fn can_read(&self) -> bool {
        self.is_direct.load(Acquire) && try_lock(&self.inbox).is_some()
    }

    fn receive_from(&self, inbox: &mut Inbox, deadline: Option<Instant>) -> Result<Option<Bytes>> {
        // B4. There before the queue is looked at: whoever ends it rings after that.
        let bell = self.bell();
        loop {
            // B2. Also tells of an end.
            if let Some(message) = self.queues.incoming.pop()? {
                return Ok(Some(message.into_bytes()));
            }
            match inbox.next() {
                Next::Message(message) => {
                    self.counters.received(message.len());
                    return Ok(Some(message));
                }
                Next::End(ended) => self.end_from_thread(inbox, ended),
                Next::More => match self.read_some(inbox) {
                    Ok(0) => self.end_from_thread(inbox, lost("the peer hung up")),
                    Ok(_) => inbox.heard = Instant::now(),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        let now = Instant::now();
                        let silence = now.saturating_duration_since(inbox.heard);
                        if silence >= self.silence {
                            let why = Why::Silent { silence: self.silence };
                            self.end_from_thread(inbox, Ended::Lost(why));
                            continue;
                        }
                        let left =
                            deadline.map_or(LOOK_MAX, |at| at.saturating_duration_since(now));
                        if left.is_zero() {
                            return Ok(None);
                        }
                        let left = left.min(LOOK_MAX).min(self.silence - silence);
                        wait(bell, &self.socket, Wanted::Input, left);
                    }
                    Err(error) => self.end_from_thread(inbox, lost(&error.to_string())),
                },
            }
        }
    }

    /// Reads what is there; says how many bytes that were, none at the end of the stream.
    fn read_some(&self, inbox: &mut Inbox) -> io::Result<usize> {
        #[cfg(feature = "tls")]
        if let Some(records) = &self.records {
            let read = records.read(&self.socket, &mut inbox.arrived, &mut inbox.decoder);
            if records.has_output() {
                self.freed.notify_one();
            }
            return read;
        }
        read_into(&self.socket, inbox.decoder.space())
    }

    /// Writes as much as can be written without waiting; whether that was everything.
    fn write_some(&self, outbox: &mut Outbox) -> io::Result<bool> {
        #[cfg(feature = "tls")]
        if let Some(records) = &self.records {
            return records.write_now(&mut outbox.batch, &self.socket);
        }
        outbox.batch.write_now(&*self.socket)
    }

    /// Whether the socket has taken everything so far.
    fn is_written(&self, outbox: &Outbox) -> bool {
        #[cfg(feature = "tls")]
        if self.records.as_ref().is_some_and(Records::has_output) {
            return false;
        }
        outbox.batch.len() == 0
    }

    /// The queues are told at once, and the task in its time.
    fn end_from_thread(&self, inbox: &mut Inbox, ended: Ended) {
        self.queues.end(ended.clone());
        inbox.ended = Some(ended);
        self.ring();
    }

    /// None when the system has no descriptor left: then one looks again now and then.
    fn bell(&self) -> Option<&Bell> {
        if self.bell.get().is_none()
            && let Ok(bell) = Bell::new()
        {
            // Another thread may have been faster.
            let _ = self.bell.set(bell);
        }
        self.bell.get()
    }

    /// Tells the peer that there is nothing more to come or to go.
    pub(super) fn hang_up(&self) {
        // An error means that it knows already.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// A task of the user waits for a message: somebody has to read for it.
    pub(super) fn want_driven(&self) {
        if self.is_direct.load(Acquire) {
            self.driven_wanted.store(true, Relaxed);
            self.changed.notify_one();
        }
    }

    /// B4. After the queues have ended in any way.
    pub(super) fn ring(&self) {
        if let Some(bell) = self.bell.get() {
            bell.ring();
        }
        self.changed.notify_one();
        self.freed.notify_one();
    }
}

impl Inbox {
    fn next(&mut self) -> Next {
        loop {
            return match self.decoder.next_frame() {
                Err(error) => Next::End(Ended::Lost(Why::Protocol(error))),
                Ok(None) => Next::More,
                Ok(Some(frame)) => match frame.kind {
                    Kind::Message => Next::Message(frame.payload),
                    Kind::KeepAlive => continue,
                    Kind::Close => Next::End(Ended::ByPeer),
                    Kind::Refusal => Next::End(lost(&Reason::of_peer(&frame.payload).to_string())),
                    kind => {
                        let error = FrameError::Unexpected { kind };
                        Next::End(Ended::Lost(Why::Protocol(error)))
                    }
                },
            };
        }
    }
}

fn wait(bell: Option<&Bell>, socket: &TcpStream, wanted: Wanted, time: Duration) {
    match bell {
        Some(bell) => bell.wait(socket, wanted, time),
        None => std::thread::sleep(time.min(LOOK_MIN)),
    }
}

fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

// What these locks guard is whole whenever somebody could panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What went wrong with the socket before there was a channel.
pub(super) fn unusable(address: std::net::SocketAddr, source: io::Error) -> Error {
    Error::Network {
        address: address.to_string(),
        action: "use the connection",
        source,
        hint: "raise the limit on open files (ulimit -n)",
    }
}
