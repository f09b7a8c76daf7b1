//! A follower's thread, and one that syncs for it.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use mainstay_channel::Channel;

use super::{LOOK, TAKEN_MAX, metrics::OfFollower, spawn};
use crate::{
    error::Result,
    follower::{self, FollowSettings, Follower, Status},
    traits::Sink,
    wire::Way,
};

/// How soon a thread that waits for a message looks whether what it has is durable.
const SYNC_LOOK: Duration = Duration::from_micros(300);

type Dial = dyn FnMut() -> mainstay_channel::Result<Arc<dyn Channel>> + Send;

/// A follower that is driven; ends when it is dropped.
///
/// Example: see [the module](super).
pub struct Following {
    ends: Arc<AtomicBool>,
    status: Arc<Mutex<Vec<Status>>>,
    thread: Option<JoinHandle<()>>,
}

/// Starts to follow. `dial` makes a channel to the leader; `told` is called by the same thread. A
/// clone of the sink is the same store: while it syncs, the other one takes writes.
///
/// Example: see [the module](super).
///
/// # Errors
/// [`mainstay_store::Error::Leads`] if the store takes writes itself; [`crate::Error::Io`].
pub fn follow<K: Sink + Clone + Send + 'static>(
    sink: K,
    dial: impl FnMut() -> mainstay_channel::Result<Arc<dyn Channel>> + Send + 'static,
    settings: FollowSettings,
    told: impl FnMut(follower::Told) + Send + 'static,
) -> Result<Following> {
    // Pauses of two followers must differ, also where all processes have the same number.
    let seed = RandomState::new().build_hasher().finish();
    let identity = sink.identity();
    let shards = identity.shards;
    let syncer = Syncer::start(sink.clone())?;
    let readier = Readier::of(sink.clone(), shards);
    let core = Follower::new(sink, settings, seed, Duration::ZERO)?;
    let ends = Arc::new(AtomicBool::new(false));
    let status = Arc::new(Mutex::new((0..shards).filter_map(|at| core.status(at)).collect()));
    let seat = Seat {
        gauges: OfFollower::new(&identity),
        core,
        shards,
        start: Instant::now(),
        dial: Box::new(dial),
        channel: None,
        syncer,
        readier,
        status: Arc::clone(&status),
        told: Box::new(told),
    };
    let asked = Arc::clone(&ends);
    let thread = spawn("store follower", move || seat.run(&asked))?;
    Ok(Following { ends, status, thread: Some(thread) })
}

impl Following {
    /// How it is with each shard.
    ///
    /// ```
    /// # use mainstay_replica::{FollowSettings, drive};
    /// # use mainstay_store::{Options, RawStore};
    /// # use std::{io, sync::Arc};
    /// # let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// # let store = Arc::new(store.demote()?);
    /// # let nobody = || mainstay_channel::memory::try_group(1 << 20).map(|_| unreachable!());
    /// let follower = drive::follow(store, nobody, FollowSettings::default(), |_| {})?;
    /// assert!(follower.status().iter().all(|shard| !shard.is_caught_up));
    /// # Ok::<(), mainstay_replica::Error>(())
    /// ```
    #[must_use]
    pub fn status(&self) -> Vec<Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes all that was taken durable, and ends; how it then is with each shard.
    ///
    /// Example: see [the module](super).
    pub fn stop(mut self) -> Vec<Status> {
        self.end();
        self.status()
    }

    fn end(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of a follower had panicked");
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.end();
    }
}

struct Seat<K: Sink> {
    gauges: OfFollower,
    core: Follower<K>,
    shards: u32,
    start: Instant,
    dial: Box<Dial>,
    channel: Option<Arc<dyn Channel>>,
    syncer: Syncer,
    readier: Readier<K>,
    status: Arc<Mutex<Vec<Status>>>,
    told: Box<dyn FnMut(follower::Told) + Send>,
}

impl<K: Sink + Clone + Send + 'static> Seat<K> {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn run(mut self, ends: &AtomicBool) {
        while !ends.load(Ordering::SeqCst) {
            self.drain();
            let now = self.now();
            let due = self.core.deadline(now).unwrap_or(now + LOOK);
            let look = if self.syncer.is_busy { SYNC_LOOK } else { LOOK };
            self.receive(due.saturating_sub(now).min(look));
            let now = self.now();
            if let Some(is_done) = self.syncer.is_done() {
                self.core.handle(now, follower::Input::Synced(is_done));
            }
            if self.core.deadline(now).is_some_and(|due| due <= now) {
                self.core.handle(now, follower::Input::Tick);
            }
            self.publish();
        }
        self.readier.end();
        self.syncer.end();
        match self.core.sink().sync() {
            Ok(()) => {
                self.core.all_synced();
                // That it could not be noted as whole is told too.
                self.drain();
            }
            Err(error) => {
                tracing::warn!(%error, "the last writes of a follower may not be durable");
            }
        }
        self.publish();
        if let Some(channel) = &self.channel {
            channel.close();
        }
    }

    fn receive(&mut self, wait: Duration) {
        let Some(channel) = self.channel.clone() else {
            thread::sleep(wait);
            return;
        };
        let (mut wait, mut begun) = (wait, None);
        for _ in 0..TAKEN_MAX {
            match channel.receive(wait) {
                Ok(Some(bytes)) => {
                    let now = self.now();
                    self.core.handle(now, follower::Input::Message(&bytes));
                    wait = Duration::ZERO;
                    // What takes long is answered before there is more of it.
                    if self.now() - *begun.get_or_insert(now) > LOOK {
                        return;
                    }
                }
                Ok(None) => return,
                Err(_) => {
                    self.channel = None;
                    let now = self.now();
                    self.core.handle(now, follower::Input::Lost);
                    return;
                }
            }
        }
    }

    fn drain(&mut self) {
        loop {
            let now = self.now();
            let Some(output) = self.core.poll(now) else { return };
            match output {
                follower::Output::Connect => match (self.dial)() {
                    Ok(channel) => {
                        self.channel = Some(channel);
                        let now = self.now();
                        self.core.handle(now, follower::Input::Connected);
                    }
                    Err(error) => {
                        tracing::debug!(%error, "the leader could not be reached");
                        let now = self.now();
                        self.core.handle(now, follower::Input::Lost);
                    }
                },
                follower::Output::Send(bytes) => {
                    if let Some(channel) = &self.channel {
                        // One that is gone is found when it is read from.
                        let _gone = channel.send(bytes);
                    }
                }
                follower::Output::Disconnect => {
                    if let Some(channel) = self.channel.take() {
                        channel.close();
                    }
                }
                follower::Output::Sync => self.syncer.ask(),
                follower::Output::Told(told) => {
                    if matches!(told, follower::Told::Way { way, .. } if way != Way::Resume) {
                        self.readier.start();
                    }
                    (self.told)(told);
                }
            }
        }
    }

    fn publish(&mut self) {
        let status: Vec<_> = (0..self.shards).filter_map(|shard| self.core.status(shard)).collect();
        let now = self.now();
        self.gauges.tell(&status, now);
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }
}

/// Syncs when it is asked to, in a thread of its own.
struct Syncer {
    asks: Option<Sender<()>>,
    answers: Receiver<bool>,
    is_busy: bool,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    fn start<K: Sink + Send + 'static>(sink: K) -> Result<Self> {
        let (asks, asked) = channel();
        let (answer, answers) = channel();
        let run = move || {
            for () in asked {
                let synced = sink.sync();
                if let Err(error) = &synced {
                    tracing::warn!(%error, "a follower could not make its writes durable");
                }
                if answer.send(synced.is_ok()).is_err() {
                    return;
                }
            }
        };
        let thread = Some(spawn("store syncer", run)?);
        Ok(Self { asks: Some(asks), answers, is_busy: false, thread })
    }

    fn ask(&mut self) {
        // It ends after this only.
        self.is_busy = self.asks.as_ref().is_some_and(|asks| asks.send(()).is_ok());
    }

    /// The answer, once.
    fn is_done(&mut self) -> Option<bool> {
        let is_done = self.answers.try_recv().ok()?;
        self.is_busy = false;
        Some(is_done)
    }

    fn end(&mut self) {
        drop(self.asks.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that syncs for a follower had panicked");
        }
    }
}

/// Has memory ready before records come, in a thread of its own: the one that takes them in would wait
/// for a page at a time.
struct Readier<K> {
    sink: K,
    shards: u32,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl<K: Sink + Clone + Send + 'static> Readier<K> {
    fn of(sink: K, shards: u32) -> Self {
        Self { sink, shards, ends: Arc::default(), thread: None }
    }

    /// All shards expect something at the same time, and one thread sees to all of them.
    fn start(&mut self) {
        if self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        let (sink, shards, ends) = (self.sink.clone(), self.shards, Arc::clone(&self.ends));
        let run = move || {
            let mut waiting: Vec<u32> = (0..shards).collect();
            for piece in 0.. {
                waiting.retain(|shard| {
                    let is_over = ends.load(Ordering::Relaxed);
                    !is_over && sink.make_ready(*shard, piece).unwrap_or(false)
                });
                if waiting.is_empty() {
                    return;
                }
            }
        };
        match spawn("store readier", run) {
            Ok(thread) => self.thread = Some(thread),
            // It goes without, more slowly.
            Err(error) => tracing::debug!(%error, "no memory is made ready"),
        }
    }
}

impl<K> Readier<K> {
    fn end(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that has memory ready for a follower had panicked");
        }
    }
}
