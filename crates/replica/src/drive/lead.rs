//! A leader's thread, and two more for each of its followers.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use mainstay_channel::Channel;
use mainstay_store::{Hook, Token};

use super::{LOOK, TAKEN_MAX, metrics::OfLeader, spawn};
use crate::{
    error::{Error, Result},
    leader::{self, Lag, LeadSettings, Leader},
    limits::MESSAGE_BYTES_MAX,
    traits::{Level, Source},
};

/// What the leader's thread may have before it; whoever brings more waits.
const INBOX: usize = 4_096;

enum Post {
    Attach(Arc<dyn Channel>),
    Message {
        peer: u64,
        line: u64,
        bytes: Bytes,
    },
    Lost {
        peer: u64,
        line: u64,
    },
    Wake,
    Wait(Waits),
    /// Which writes of their shards' histories these are.
    Find(Vec<Token>, Sender<Result<Vec<(u32, u64)>>>),
    Look(Sender<Vec<Seen>>),
    Stop,
}

/// How many messages may wait for a follower; one that lets more wait is given up. A window of small
/// writes, and what is said of a thousand shards, are fewer.
const WAITING_MAX: usize = 1 << 16;
/// How many bytes of them may, beside what the leader may have on its way.
const WAITING_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;

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

/// A leader that is driven; ends when it is dropped, and the store can then be led anew.
///
/// Example: see [the module](super).
pub struct Leading {
    /// By what it hears of writes.
    _wakes: Option<Hook>,
    inbox: SyncSender<Post>,
    is_awake: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Starts to lead. `told` is called by the leader's thread. It hears of writes by itself, if the source
/// is a store of this project.
///
/// Example: see [the module](super).
///
/// # Errors
/// [`Error::Io`] if there can be no further thread.
pub fn lead<S: Source<Tail: Send, Scan: Send> + Send + 'static>(
    source: S,
    settings: LeadSettings,
    told: impl FnMut(leader::Told) + Send + 'static,
) -> Result<Leading> {
    let (inbox, posts) = sync_channel(INBOX);
    let is_awake = Arc::new(AtomicBool::new(false));
    let wakes = source.on_write(Box::new(waker(&inbox, &is_awake)));
    let start = Instant::now();
    let gauges = OfLeader::new(&source.identity());
    let desk = Desk {
        gauges,
        core: Leader::new(source, settings, Duration::ZERO),
        start,
        inbox: inbox.clone(),
        lines: BTreeMap::new(),
        opened: 0,
        waits: Vec::new(),
        told: Box::new(told),
        window_max: settings.window_max,
    };
    let awake = Arc::clone(&is_awake);
    let run = move || desk.run(&posts, &awake);
    let thread = spawn("store leader", run)?;
    Ok(Leading { _wakes: wakes, inbox, is_awake, thread: Some(thread) })
}

fn waker(
    inbox: &SyncSender<Post>,
    is_awake: &Arc<AtomicBool>,
) -> impl Fn() + Send + Sync + 'static + use<> {
    let (inbox, is_awake) = (inbox.clone(), Arc::clone(is_awake));
    move || {
        if !is_awake.swap(true, Ordering::SeqCst) {
            // A full inbox is as good.
            let _full = inbox.try_send(Post::Wake);
        }
    }
}

impl Leading {
    /// Takes on a follower, by its channel.
    ///
    /// Example: see [the module](super).
    pub fn attach(&self, channel: Arc<dyn Channel>) {
        let _gone = self.inbox.send(Post::Attach(channel));
    }

    /// What to call after each write of a source that does not tell of writes by itself
    /// ([`Source::on_write`]), so that followers hear of them at once.
    ///
    /// ```
    /// # use mainstay_replica::{LeadSettings, drive};
    /// # use mainstay_store::{Options, RawStore};
    /// # use std::sync::Arc;
    /// # let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// let leader = drive::lead(Arc::new(store), LeadSettings::default(), |_| {})?;
    /// let wake = leader.waker();
    /// wake(); // after a write
    /// # Ok::<(), mainstay_replica::Error>(())
    /// ```
    pub fn waker(&self) -> impl Fn() + Send + Sync + 'static + use<> {
        waker(&self.inbox, &self.is_awake)
    }

    /// Returns when so many followers have a write of a shard, by its number in the history of that.
    ///
    /// ```
    /// # use mainstay_replica::{Error, LeadSettings, Level, drive};
    /// # use mainstay_store::{Durability::Memory, Options, RawStore};
    /// # use std::{sync::Arc, time::Duration};
    /// # let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// # let store = Arc::new(store);
    /// let leader = drive::lead(Arc::clone(&store), LeadSettings::default(), |_| {})?;
    /// let token = store.put(b"de", b"049", Memory)?;
    /// let (sequence, timeout) = (store.sequence_of(token)?, Duration::from_millis(10));
    /// let nobody = leader.wait(token.shard, sequence, Level::Durable, 1, timeout);
    /// assert!(matches!(nobody, Err(Error::TooFew { .. })));
    /// # Ok::<(), mainstay_replica::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::TooFew`] after `timeout`; [`Replaced`](mainstay_store::Error::Replaced) as soon as
    /// another leader has taken its place: who follows that one tells this one nothing any more.
    pub fn wait(
        &self,
        shard: u32,
        sequence: u64,
        level: Level,
        count: usize,
        timeout: Duration,
    ) -> Result<()> {
        self.wait_until(vec![(shard, sequence)], (level, count), timeout)
    }

    /// Returns when so many followers have each of these writes; they need not be the same ones for
    /// writes of different shards, as those of a batch across shards are.
    ///
    /// Example: see [the module](super).
    ///
    /// # Errors
    /// As [`wait`](Self::wait), and [`OtherEpoch`](mainstay_store::Error::OtherEpoch) for a token from
    /// before the store was opened or promoted.
    pub fn wait_for(
        &self,
        tokens: &[Token],
        level: Level,
        count: usize,
        timeout: Duration,
    ) -> Result<()> {
        let (answer, answered) = channel();
        let _gone = self.inbox.send(Post::Find(tokens.to_vec(), answer));
        let gone = |_| Error::TooFew { want: count, after: Duration::ZERO };
        let writes = answered.recv().map_err(gone)??;
        self.wait_until(writes, (level, count), timeout)
    }

    fn wait_until(
        &self,
        writes: Vec<(u32, u64)>,
        (level, count): (Level, usize),
        timeout: Duration,
    ) -> Result<()> {
        let (done, is_done) = channel();
        let until = Instant::now().checked_add(timeout);
        let _gone = self.inbox.send(Post::Wait(Waits { writes, level, count, until, done }));
        is_done.recv_timeout(timeout).unwrap_or(Err(Error::TooFew { want: count, after: timeout }))
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
    waiting: Arc<Waiting>,
}

/// What the sender has before it.
#[derive(Default)]
struct Waiting {
    messages: AtomicUsize,
    bytes: AtomicUsize,
}

impl Line {
    /// Sends it, now or later; false: too much waits. This thread never waits for a follower.
    fn send(&self, bytes: Bytes, at_once: bool, window_max: u64) -> bool {
        let mut bytes = bytes;
        let (messages, held) = (&self.waiting.messages, &self.waiting.bytes);
        if at_once && messages.load(Ordering::Acquire) == 0 {
            // The sender would have to wake up first.
            match self.channel.try_send(bytes) {
                Ok(Some(back)) => bytes = back,
                // One that is gone is told of by its reader.
                Ok(None) | Err(_) => return true,
            }
        }
        let count = messages.fetch_add(1, Ordering::Relaxed);
        let waiting = held.fetch_add(bytes.len(), Ordering::Relaxed);
        let _gone = self.out.send(bytes);
        let bytes_max = usize::try_from(window_max).unwrap_or(usize::MAX);
        count < WAITING_MAX && waiting <= bytes_max.saturating_add(WAITING_BYTES_MAX)
    }
}

struct Waits {
    /// Those that are still waited for, by shard.
    writes: Vec<(u32, u64)>,
    level: Level,
    count: usize,
    /// When nobody waits any more.
    until: Option<Instant>,
    done: Sender<Result<()>>,
}

struct Desk<S: Source> {
    gauges: OfLeader,
    core: Leader<S>,
    start: Instant,
    inbox: SyncSender<Post>,
    lines: BTreeMap<u64, Line>,
    opened: u64,
    waits: Vec<Waits>,
    told: Box<dyn FnMut(leader::Told) + Send>,
    window_max: u64,
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
                        // What takes long is answered before there is more of it.
                        if self.now() - now > wait + LOOK {
                            break;
                        }
                        match posts.try_recv() {
                            Ok(Post::Stop) => return self.end(),
                            Ok(post) => self.take(post),
                            Err(_) => break,
                        }
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            // Also where there is always something to take.
            let now = self.now();
            if self.core.is_tick_due(now) {
                self.core.handle(now, leader::Input::Tick);
            }
            // Whoever writes from here on wakes this thread again.
            is_awake.store(false, Ordering::SeqCst);
            self.drain();
            let now = self.now();
            self.gauges.tell(&self.core, now);
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
            Post::Find(tokens, answer) => {
                let find =
                    |token: &Token| Ok((token.shard, self.core.source().sequence_of(*token)?));
                let _gone = answer.send(tokens.iter().map(find).collect());
            }
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
        let waiting = Arc::<Waiting>::default();
        let before = Arc::clone(&waiting);
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
                let len = bytes.len();
                if writes.send(bytes).is_err() {
                    return;
                }
                before.bytes.fetch_sub(len, Ordering::Relaxed);
                before.messages.fetch_sub(1, Ordering::Release);
            }
            // Nothing follows: what was sent is delivered first.
            writes.close();
        };
        if spawn("store sender", write).is_err() || spawn("store receiver", read).is_err() {
            channel.close();
            return;
        }
        if let Some(old) = self.lines.insert(peer, Line { number, channel, out, waiting }) {
            old.channel.abort();
        }
        let now = self.now();
        self.core.handle(now, leader::Input::Connected { peer });
    }

    fn drain(&mut self) {
        let now = self.now();
        while let Some(output) = self.core.poll(now) {
            match output {
                leader::Output::Send { peer, bytes, at_once } => {
                    let Some(line) = self.lines.get(&peer) else { continue };
                    if !line.send(bytes, at_once, self.window_max) {
                        tracing::warn!(peer, "a follower takes nothing of what it is sent");
                        line.channel.abort();
                        self.lines.remove(&peer);
                        self.core.handle(now, leader::Input::Lost { peer });
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
        self.waits.retain_mut(|wait| {
            let (level, count) = (wait.level, wait.count);
            wait.writes.retain(|(shard, sequence)| core.have(*shard, *sequence, level) < count);
            let result = match core.replaced_by() {
                _ if wait.writes.is_empty() => Ok(()),
                Some(by) => {
                    let epoch = core.source().epoch();
                    Err(mainstay_store::Error::Replaced { epoch, by }.into())
                }
                None => return wait.until.is_none_or(|until| now < until),
            };
            // One that waits no longer has gone.
            let _gone = wait.done.send(result);
            false
        });
    }
}

fn channel_of_bytes() -> (Sender<Bytes>, Receiver<Bytes>) {
    channel()
}
