//! The cores over channels, with threads: one for a leader, and two for each of its followers; one
//! for a follower.
//!
//! ```
//! use mainstay_channel::{Channel, memory};
//! use mainstay_replica::{FollowSettings, LeadSettings, Level, drive};
//! use mainstay_sim::Disk;
//! use mainstay_store::{Durability, Options, RawStore};
//! use std::{sync::{Arc, Mutex}, time::Duration};
//! let options = Options::default();
//! let ours = Arc::new(RawStore::create(Disk::new(1), 2, 3, &options)?);
//! let copy = Arc::new(RawStore::create_replica(Disk::new(2), &ours.identity(), &options)?);
//! let leader = drive::lead(Arc::clone(&ours), LeadSettings::default(), |_| {})?;
//! ours.on_write(leader.waker());
//! let (here, there) = memory::pair();
//! leader.attach(Arc::new(here));
//! let there = Mutex::new(Some(there));
//! let dial = move || Ok(Arc::new(there.lock().unwrap().take().unwrap()) as Arc<dyn Channel>);
//! let follower = drive::follow(Arc::clone(&copy), dial, FollowSettings::default(), |_| {})?;
//! let token = ours.put(b"de", b"049", Durability::Memory)?;
//! let sequence = ours.history(token.shard)?.position().unwrap().sequence;
//! leader.wait(token.shard, sequence, Level::Durable, 1, Duration::from_secs(20))?;
//! assert_eq!(copy.get(b"de")?, Some(b"049".to_vec()));
//! assert_eq!(follower.stop()[token.shard as usize].durable, sequence);
//! # Ok::<(), mainstay_replica::Error>(())
//! ```

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bytes::Bytes;
use mainstay_channel::Channel;
use mainstay_store::Position;

use crate::{
    error::{Error, Result},
    follower::{self, FollowSettings, Follower, Status},
    leader::{self, Lag, LeadSettings, Leader},
    traits::{Level, Sink, Source},
    wire::{Hello, Message, decode, encode},
};

/// What the leader's thread may have before it; whoever brings more waits.
const INBOX: usize = 4_096;
/// How soon a thread that waits for a message looks whether it is to end.
const LOOK: Duration = Duration::from_millis(100);
/// How many messages are taken in before they are answered.
const TAKEN_MAX: usize = 256;

type Dial = dyn FnMut() -> mainstay_channel::Result<Arc<dyn Channel>> + Send;

enum Post {
    Attach(Arc<dyn Channel>),
    Message { peer: u64, line: u64, bytes: Bytes },
    Lost { peer: u64, line: u64 },
    Wake,
    Wait(Waits),
    Look(Sender<Vec<Seen>>),
    Stop,
}

/// A follower, as its leader sees it.
///
/// Example: see [`Leading::followers`].
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which node it is.
    pub peer: u64,
    /// How far it is behind, shard by shard.
    pub lags: Vec<Lag>,
}

/// A leader that is driven; ends when it is dropped.
///
/// Example: see [the module](self).
pub struct Leading {
    inbox: SyncSender<Post>,
    is_awake: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Starts to lead. `told` is called by the leader's thread.
///
/// Example: see [the module](self).
///
/// # Errors
/// [`Error::Io`] if there can be no further thread.
pub fn lead<S: Source<Tail: Send> + Send + 'static>(
    source: S,
    settings: LeadSettings,
    told: impl FnMut(leader::Told) + Send + 'static,
) -> Result<Leading> {
    let (inbox, posts) = sync_channel(INBOX);
    let is_awake = Arc::new(AtomicBool::new(false));
    let start = Instant::now();
    let desk = Desk {
        core: Leader::new(source, settings, Duration::ZERO),
        start,
        inbox: inbox.clone(),
        lines: BTreeMap::new(),
        opened: 0,
        waits: Vec::new(),
        told: Box::new(told),
    };
    let awake = Arc::clone(&is_awake);
    let run = move || desk.run(&posts, &awake);
    let thread = spawn("store leader", run)?;
    Ok(Leading { inbox, is_awake, thread: Some(thread) })
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let what = "the thread of a follower or leader";
    let builder = thread::Builder::new().name(name.to_owned());
    builder.spawn(run).map_err(|source| Error::Io { what, source })
}

impl Leading {
    /// Takes on a follower, by its channel.
    ///
    /// Example: see [the module](self).
    pub fn attach(&self, channel: Arc<dyn Channel>) {
        let _gone = self.inbox.send(Post::Attach(channel));
    }

    /// What to call after each write, so that followers hear of it at once.
    ///
    /// Example: see [the module](self).
    pub fn waker(&self) -> impl Fn() + Send + Sync + 'static + use<> {
        let (inbox, is_awake) = (self.inbox.clone(), Arc::clone(&self.is_awake));
        move || {
            if !is_awake.swap(true, Ordering::SeqCst) {
                // A full inbox is as good.
                let _full = inbox.try_send(Post::Wake);
            }
        }
    }

    /// Returns when so many followers have a write of a shard.
    ///
    /// Example: see [the module](self).
    ///
    /// # Errors
    /// [`Error::TooFew`] after `timeout`.
    pub fn wait(
        &self,
        shard: u32,
        sequence: u64,
        level: Level,
        count: usize,
        timeout: Duration,
    ) -> Result<()> {
        let (done, is_done) = channel();
        let until = Instant::now().checked_add(timeout);
        let waits = Waits { shard, sequence, level, count, until, done };
        let _gone = self.inbox.send(Post::Wait(waits));
        let late = |_| Error::TooFew { want: count, after: timeout };
        is_done.recv_timeout(timeout).map_err(late)
    }

    /// The followers that are there.
    ///
    /// ```
    /// # use mainstay_replica::{LeadSettings, drive};
    /// # use mainstay_store::{Options, RawStore};
    /// # use std::sync::Arc;
    /// # let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// let leader = drive::lead(Arc::new(store), LeadSettings::default(), |_| {})?;
    /// assert!(leader.followers().is_empty());
    /// # Ok::<(), mainstay_replica::Error>(())
    /// ```
    #[must_use]
    pub fn followers(&self) -> Vec<Seen> {
        let (answer, answered) = channel();
        let _gone = self.inbox.send(Post::Look(answer));
        answered.recv().unwrap_or_default()
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        let _gone = self.inbox.send(Post::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of a leader had panicked");
        }
    }
}

struct Line {
    number: u64,
    channel: Arc<dyn Channel>,
    /// What is to be sent; bounded by the follower's allowance.
    out: Sender<Bytes>,
}

struct Waits {
    shard: u32,
    sequence: u64,
    level: Level,
    count: usize,
    /// When nobody waits any more.
    until: Option<Instant>,
    done: Sender<()>,
}

struct Desk<S: Source> {
    core: Leader<S>,
    start: Instant,
    inbox: SyncSender<Post>,
    lines: BTreeMap<u64, Line>,
    opened: u64,
    waits: Vec<Waits>,
    told: Box<dyn FnMut(leader::Told) + Send>,
}

impl<S: Source> Desk<S> {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn run(mut self, posts: &Receiver<Post>, is_awake: &AtomicBool) {
        loop {
            let now = self.now();
            let wait = self.core.deadline(now).saturating_sub(now);
            match posts.recv_timeout(wait) {
                Ok(Post::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(post) => {
                    self.take(post);
                    for _ in 0..TAKEN_MAX {
                        match posts.try_recv() {
                            Ok(Post::Stop) => return self.end(),
                            Ok(post) => self.take(post),
                            Err(_) => break,
                        }
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    let now = self.now();
                    self.core.handle(now, leader::Input::Tick);
                }
            }
            // Whoever writes from here on wakes this thread again.
            is_awake.store(false, Ordering::SeqCst);
            self.drain();
        }
        self.end();
    }

    fn end(self) {
        for line in self.lines.values() {
            line.channel.close();
        }
    }

    fn take(&mut self, post: Post) {
        let now = self.now();
        match post {
            Post::Attach(channel) => self.attach(channel),
            Post::Message { peer, line, bytes } => {
                if self.lines.get(&peer).is_some_and(|now| now.number == line) {
                    self.core.handle(now, leader::Input::Message { peer, bytes: &bytes });
                }
            }
            Post::Lost { peer, line } => {
                if self.lines.get(&peer).is_some_and(|now| now.number == line) {
                    self.lines.remove(&peer);
                    self.core.handle(now, leader::Input::Lost { peer });
                }
            }
            Post::Wait(waits) => self.waits.push(waits),
            Post::Look(answer) => {
                let shards = self.core.source().identity().shards;
                let seen = |peer| Seen {
                    peer,
                    lags: (0..shards).filter_map(|at| self.core.lag(peer, at, now)).collect(),
                };
                let _gone = answer.send(self.core.followers().map(seen).collect());
            }
            Post::Wake | Post::Stop => {}
        }
    }

    fn attach(&mut self, channel: Arc<dyn Channel>) {
        let peer = channel.peer().node.0;
        self.opened += 1;
        let number = self.opened;
        let (out, sent) = channel_of_bytes();
        let (reads, writes) = (Arc::clone(&channel), Arc::clone(&channel));
        let inbox = self.inbox.clone();
        let read = move || {
            loop {
                match reads.receive(LOOK) {
                    Ok(Some(bytes)) => {
                        if inbox.send(Post::Message { peer, line: number, bytes }).is_err() {
                            return;
                        }
                    }
                    Ok(None) => {}
                    Err(_) => break,
                }
            }
            let _gone = inbox.send(Post::Lost { peer, line: number });
        };
        let write = move || {
            for bytes in sent {
                if writes.send(bytes).is_err() {
                    return;
                }
            }
            // Nothing follows: what was sent is delivered first.
            writes.close();
        };
        if spawn("store sender", write).is_err() || spawn("store receiver", read).is_err() {
            channel.close();
            return;
        }
        if let Some(old) = self.lines.insert(peer, Line { number, channel, out }) {
            old.channel.abort();
        }
        let now = self.now();
        self.core.handle(now, leader::Input::Connected { peer });
    }

    fn drain(&mut self) {
        let now = self.now();
        while let Some(output) = self.core.poll(now) {
            match output {
                leader::Output::Send { peer, bytes } => {
                    if let Some(line) = self.lines.get(&peer) {
                        // One that is gone is told of by its reader.
                        let _gone = line.out.send(bytes);
                    }
                }
                leader::Output::Close { peer } => drop(self.lines.remove(&peer)),
                leader::Output::Told(told) => (self.told)(told),
            }
        }
        if self.waits.is_empty() {
            return;
        }
        let (core, now) = (&self.core, Instant::now());
        self.waits.retain(|wait| {
            if core.have(wait.shard, wait.sequence, wait.level) >= wait.count {
                // One that waits no longer has gone.
                let _gone = wait.done.send(());
                return false;
            }
            wait.until.is_none_or(|until| now < until)
        });
    }
}

fn channel_of_bytes() -> (Sender<Bytes>, Receiver<Bytes>) {
    channel()
}

/// A follower that is driven; ends when it is dropped.
///
/// Example: see [the module](self).
pub struct Following {
    ends: Arc<AtomicBool>,
    status: Arc<Mutex<Vec<Status>>>,
    thread: Option<JoinHandle<()>>,
}

/// Starts to follow. `dial` makes a channel to the leader; `told` is called by the same thread.
///
/// Example: see [the module](self).
///
/// # Errors
/// [`mainstay_store::Error::Leads`] if the store takes writes itself; [`Error::Io`].
pub fn follow<K: Sink + Send + 'static>(
    sink: K,
    dial: impl FnMut() -> mainstay_channel::Result<Arc<dyn Channel>> + Send + 'static,
    settings: FollowSettings,
    told: impl FnMut(follower::Told) + Send + 'static,
) -> Result<Following> {
    // Pauses of two followers must differ, and need not be secret.
    let seed = mainstay_base::mix64(u64::from(std::process::id()));
    let shards = sink.identity().shards;
    let core = Follower::new(sink, settings, seed, Duration::ZERO)?;
    let ends = Arc::new(AtomicBool::new(false));
    let status = Arc::new(Mutex::new((0..shards).filter_map(|at| core.status(at)).collect()));
    let seat = Seat {
        core,
        shards,
        start: Instant::now(),
        dial: Box::new(dial),
        channel: None,
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
    /// Example: see [the module](self).
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
    core: Follower<K>,
    shards: u32,
    start: Instant,
    dial: Box<Dial>,
    channel: Option<Arc<dyn Channel>>,
    status: Arc<Mutex<Vec<Status>>>,
    told: Box<dyn FnMut(follower::Told) + Send>,
}

impl<K: Sink> Seat<K> {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn run(mut self, ends: &AtomicBool) {
        while !ends.load(Ordering::SeqCst) {
            self.drain();
            let now = self.now();
            let due = self.core.deadline(now).unwrap_or(now + LOOK);
            self.receive(due.saturating_sub(now).min(LOOK));
            let now = self.now();
            if self.core.deadline(now).is_some_and(|due| due <= now) {
                self.core.handle(now, follower::Input::Tick);
            }
            self.publish();
        }
        match self.core.sink().sync() {
            Ok(()) => self.core.all_synced(),
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
        let mut wait = wait;
        for _ in 0..TAKEN_MAX {
            match channel.receive(wait) {
                Ok(Some(bytes)) => {
                    let now = self.now();
                    self.core.handle(now, follower::Input::Message(&bytes));
                    wait = Duration::ZERO;
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
                follower::Output::Sync => {
                    let synced = self.core.sink().sync();
                    if let Err(error) = &synced {
                        tracing::warn!(%error, "a follower could not make its writes durable");
                    }
                    let now = self.now();
                    self.core.handle(now, follower::Input::Synced(synced.is_ok()));
                }
                follower::Output::Told(told) => (self.told)(told),
            }
        }
    }

    fn publish(&self) {
        let status = (0..self.shards).filter_map(|shard| self.core.status(shard)).collect();
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }
}

/// Asks a leader what its store is, for a follower that has none yet.
///
/// ```
/// use mainstay_channel::memory;
/// use mainstay_replica::{LeadSettings, drive};
/// use mainstay_store::{Options, RawStore};
/// use std::{sync::Arc, time::Duration};
/// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
/// let identity = store.identity();
/// let leader = drive::lead(Arc::new(store), LeadSettings::default(), |_| {})?;
/// let (here, there) = memory::pair();
/// leader.attach(Arc::new(here));
/// assert_eq!(drive::ask(&there, Duration::from_secs(20))?.identity, identity);
/// # Ok::<(), mainstay_replica::Error>(())
/// ```
///
/// # Errors
/// [`Error::Refused`] if there is no answer in time, or another one.
pub fn ask(channel: &dyn Channel, timeout: Duration) -> Result<Hello> {
    let refused = |why: String| Error::Refused { by: "the leader", why };
    let hello = Hello { is_blank: true, ..Hello::default() };
    channel.send(encode(0, &Message::Hello(hello)))?;
    let Some(bytes) = channel.receive(timeout)? else {
        return Err(refused("it has not answered".to_owned()));
    };
    match decode(&bytes) {
        Ok((_, Message::Welcome(hello))) => Ok(hello),
        Ok((_, Message::Refused(refusal))) => Err(refused(refusal.to_string())),
        Ok(_) => Err(refused("it answered something else".to_owned())),
        Err(error) => Err(refused(error.to_string())),
    }
}

/// The place of a shard as text, for people.
///
/// ```
/// use mainstay_replica::drive::place;
/// use mainstay_store::Position;
/// assert_eq!(place(None), "catching up");
/// assert_eq!(place(Some(Position { epoch: 1, sequence: 7, sum: 9 })), "7");
/// ```
#[must_use]
pub fn place(at: Option<Position>) -> String {
    at.map_or_else(|| "catching up".to_owned(), |at| at.sequence.to_string())
}
