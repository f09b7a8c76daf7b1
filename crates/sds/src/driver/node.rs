//! The task that owns a participant.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

use sha2::{Digest, Sha256};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use super::{
    clock::Clock,
    error::{Error, Result, fits},
    event::{Event, Events, WAITING_MAX},
    handle::{Command, Handle, MessageId},
    transport::{Heard, Transport},
};
use crate::{
    channel::Sent,
    config::Config,
    limits::MESSAGE_LEN_MAX_MIN,
    nim_snapshot::NimSnapshot,
    output::Output,
    participant::Participant,
    persist::{Change, Persistence},
    time::Now,
    wire::FIELDS_LEN,
};

/// Commands that may wait.
const COMMANDS_MAX: usize = 64;

/// Pauses after a failure to receive: they double from the first to the last.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A node before it runs.
///
/// ```
/// use mainstay_sds::{Config, Keep, driver::{Bus, Node}, persist::Memory};
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let node = Node::new(b"alice", Bus::new().join())?.keep(Memory::new()).tell_sent();
/// let (alice, _events) = node.spawn();
/// let mut config = Config::lip();
/// config.keep = Keep::Durable;
/// alice.join("room", config).await?;
/// alice.send("room", b"kept before it is sent").await?;
/// # Ok::<(), mainstay_sds::driver::Error>(())
/// # }).unwrap();
/// ```
pub struct Node<T> {
    transport: T,
    inside: Inside,
    tell_sent: bool,
}

impl<T> std::fmt::Debug for Node<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("participant", &self.inside.participant)
            .finish_non_exhaustive()
    }
}

/// What a node has done so far.
///
/// ```
/// use mainstay_sds::{Config, driver::{Bus, Node}};
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let (alice, _) = Node::new(b"alice", Bus::new().join())?.spawn();
/// alice.join("room", Config::lip()).await?;
/// alice.send("room", b"hello").await?;
/// let statistics = alice.statistics().await?;
/// assert_eq!((statistics.sent, statistics.refused), (1, 0));
/// # Ok::<(), mainstay_sds::driver::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Messages sent.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Messages that could not be sent.
    pub not_sent: u64,
    /// Messages that arrived.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Those of them that were not taken.
    pub refused: u64,
    /// Changes that could not be kept.
    pub not_kept: u64,
}

/// What commands can reach.
pub(super) struct Inside {
    pub(super) participant: Participant,
    pub(super) statistics: Statistics,
    pub(super) is_ending: bool,
    keeper: Option<Box<dyn Persistence + Send>>,
    /// Saving takes its time, and is done on another thread.
    saves_aside: bool,
    message_len_max: usize,
    ids: u64,
    /// Makes ids differ also between processes that start at the same moment.
    salt: u64,
}

impl<T: Transport + 'static> Node<T> {
    /// A node of the participant `own_id`, which is in no channel yet.
    ///
    /// # Errors
    /// Those of [`Participant::new`].
    ///
    /// Example: see [`driver`](super).
    pub fn new(own_id: &[u8], transport: T) -> Result<Self> {
        let inside = Inside {
            participant: Participant::new(own_id)?,
            statistics: Statistics::default(),
            is_ending: false,
            keeper: None,
            saves_aside: false,
            message_len_max: transport.message_len_max(),
            ids: 0,
            salt: random(),
        };
        Ok(Self { transport, inside, tell_sent: false })
    }

    /// Keeps changes there, of those channels whose configuration says so. It is called from the
    /// node's task, which waits for it: meant for places as fast as memory. Others are kept
    /// [aside](Self::keep_aside).
    ///
    /// Example: see [`Node`].
    #[must_use]
    pub fn keep(mut self, keeper: impl Persistence + Send + 'static) -> Self {
        self.inside.keeper = Some(Box::new(keeper));
        self
    }

    /// The same for a place that takes its time, like a store that waits for the disk: changes are
    /// saved on one of the runtime's threads for such work, so that nobody else waits. The node
    /// itself does, and so does the loading of a channel that is joined.
    ///
    /// ```
    /// use mainstay_sds::{Config, Keep, driver::{Bus, Node}, persist::{Durability, StorePersistence}};
    /// let folder = tempfile::tempdir().unwrap();
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// let place = StorePersistence::open(folder.path(), Durability::Group)?;
    /// let (alice, _events) = Node::new(b"alice", Bus::new().join())?.keep_aside(place).spawn();
    /// let mut config = Config::lip();
    /// config.keep = Keep::Durable;
    /// alice.join("room", config).await?;
    /// alice.send("room", b"on the disk before it is sent").await?;
    /// # Ok::<(), mainstay_sds::driver::Error>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn keep_aside(mut self, keeper: impl Persistence + Send + 'static) -> Self {
        self.inside.keeper = Some(Box::new(keeper));
        self.inside.saves_aside = true;
        self
    }

    /// Tells also what is sent, and why ([`Event::Sent`]).
    ///
    /// Example: see [`Node`].
    #[must_use]
    pub fn tell_sent(mut self) -> Self {
        self.tell_sent = true;
        self
    }

    /// Starts the node on the runtime that this is called from.
    ///
    /// # Panics
    /// Without a tokio runtime, or with one that has no timers.
    ///
    /// Example: see [`driver`](super).
    #[must_use]
    pub fn spawn(self) -> (Handle, Events) {
        let (handle, events, _task) = self.spawn_with_task();
        (handle, events)
    }

    /// The same, with the task, for those who wait for its end.
    ///
    /// # Panics
    /// Without a tokio runtime, or with one that has no timers.
    ///
    /// ```
    /// use mainstay_sds::driver::{Bus, Node};
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// let (alice, _, task) = Node::new(b"alice", Bus::new().join())?.spawn_with_task();
    /// alice.end().await?;
    /// task.await.unwrap();
    /// # Ok::<(), mainstay_sds::driver::Error>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn spawn_with_task(self) -> (Handle, Events, JoinHandle<()>) {
        let (commands, to_do) = mpsc::channel(COMMANDS_MAX);
        let (events, taken) = mpsc::channel(WAITING_MAX);
        let running = Running {
            transport: self.transport,
            inside: self.inside,
            tell_sent: self.tell_sent,
            clock: Clock::start(),
            events,
            deaf_until: None,
            pause: PAUSE_MIN,
        };
        let task = tokio::spawn(running.run(to_do));
        (Handle::new(commands), Events(taken), task)
    }
}

impl Inside {
    pub(super) fn join(&mut self, now: Now, name: &str, config: Config) -> Result<()> {
        let config = self.fitted(config);
        let saved = match &mut self.keeper {
            Some(keeper) => keeper.load(name)?,
            None => Vec::new(),
        };
        if saved.is_empty() {
            self.participant.join(name, config)?;
        } else {
            self.participant.load(name, config, now, &saved)?;
        }
        Ok(())
    }

    pub(super) fn import_nim(
        &mut self,
        now: Now,
        name: &str,
        config: Config,
        snapshot: &NimSnapshot,
    ) -> Result<()> {
        if let Some(keeper) = &mut self.keeper
            && !keeper.load(name)?.is_empty()
        {
            return Err(crate::Error::ChannelExists { name: name.to_owned() }.into());
        }
        let config = self.fitted(config);
        Ok(self.participant.import_nim(name, config, now, snapshot)?)
    }

    /// A configuration with what is the node's to say.
    fn fitted(&self, mut config: Config) -> Config {
        if config.seed == 0 {
            config.seed = random();
        }
        // What the transport does not carry is not sent.
        let carried = self.message_len_max.max(MESSAGE_LEN_MAX_MIN);
        config.message_len_max = config.message_len_max.min(carried);
        config
    }

    pub(super) fn send(&mut self, now: Now, name: &str, id: &[u8], content: &[u8]) -> Result<Sent> {
        let channel = self.participant.channel(now, name)?;
        fits(channel.wire_len(id, content), channel.config().message_len_max)?;
        let sent = channel.send(now, id, content)?;
        self.participant.touched(name);
        Ok(sent)
    }

    pub(super) fn send_ephemeral(
        &mut self,
        now: Now,
        name: &str,
        id: &[u8],
        content: &[u8],
    ) -> Result<()> {
        let channel = self.participant.channel(now, name)?;
        let len = content.len() + id.len() + channel.name().len() + channel.own_id().len();
        fits(len + FIELDS_LEN, self.message_len_max)?;
        channel.send_ephemeral(id, content)?;
        self.participant.touched(name);
        Ok(())
    }

    /// An id that nobody else uses: of who sends, when, and how many times before.
    pub(super) fn fresh_id(&mut self, now: Now) -> MessageId {
        self.ids += 1;
        let hash = Sha256::new()
            .chain_update(self.participant.own_id())
            .chain_update(now.wall_ms.to_le_bytes())
            .chain_update(self.salt.to_le_bytes())
            .chain_update(self.ids.to_le_bytes())
            .finalize();
        let id = hash.iter().take(16).fold(String::with_capacity(32), |mut text, byte| {
            use std::fmt::Write as _;
            let _infallible = write!(text, "{byte:02x}");
            text
        });
        MessageId(id)
    }
}

/// 64 bits from the system's source, by way of the standard library's hash keys.
pub(super) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// What stopped [`Running::drain`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Drained {
    /// There is no more output.
    All,
    /// The application has to take events first.
    Blocked,
}

struct Running<T> {
    transport: T,
    inside: Inside,
    tell_sent: bool,
    clock: Clock,
    events: mpsc::Sender<Event>,
    deaf_until: Option<Instant>,
    pause: Duration,
}

impl<T: Transport> Running<T> {
    async fn run(mut self, mut to_do: mpsc::Receiver<Command>) {
        let mut message = Vec::new();
        let mut has_handles = true;
        loop {
            let drained = self.drain().await;
            if self.inside.is_ending {
                return;
            }
            // V1: nothing that makes events is taken in while they cannot be handed out.
            let is_free = drained == Drained::All;
            let due = self.inside.participant.poll_timeout().map(|ms| self.clock.at(ms));
            let deaf_until = self.deaf_until;
            let hears = is_free && deaf_until.is_none();
            tokio::select! {
                command = to_do.recv(), if has_handles => match command {
                    Some(command) => command(&mut self.inside, self.clock.now()),
                    None => has_handles = false,
                },
                received = self.transport.receive(&mut message), if hears => {
                    if self.received(received, &message) { return }
                }
                () = until(deaf_until), if deaf_until.is_some() => self.deaf_until = None,
                () = until(due), if is_free && due.is_some() => {
                    self.inside.participant.handle_timeout(self.clock.now());
                }
                () = room(&self.events), if !is_free => {}
                () = self.events.closed(), if !has_handles => return,
            }
        }
    }

    /// Whether the node has to end.
    fn received(&mut self, received: Result<Heard>, message: &[u8]) -> bool {
        match received {
            Ok(Heard::Newcomer) => {
                self.mention(Event::Newcomer);
                false
            }
            Ok(Heard::Message) => {
                self.pause = PAUSE_MIN;
                let Inside { participant, statistics, .. } = &mut self.inside;
                statistics.received += 1;
                statistics.received_bytes += message.len() as u64;
                if let Err(error) = participant.receive(self.clock.now(), message) {
                    statistics.refused += 1;
                    self.mention(Event::Refused { error });
                }
                false
            }
            Err(Error::Ended) => true,
            Err(error) => {
                self.deaf_until = Some(Instant::now() + self.pause);
                self.pause = (2 * self.pause).min(PAUSE_MAX);
                self.mention(Event::Deaf { error });
                false
            }
        }
    }

    /// Tells something if there is room: strangers must not be able to fill the queue.
    fn mention(&self, event: Event) {
        if self.events.capacity() > WAITING_MAX / 2 {
            let _closed = self.events.try_send(event);
        }
    }

    /// Does, and hands out, what the channels have to say.
    async fn drain(&mut self) -> Drained {
        use mpsc::error::TrySendError::{Closed, Full};
        loop {
            let permit = match self.events.try_reserve() {
                Ok(permit) => Some(permit),
                Err(Full(())) => return Drained::Blocked,
                Err(Closed(())) => None,
            };
            let Inside { participant, statistics, keeper, saves_aside, .. } = &mut self.inside;
            let Some((name, output)) = participant.poll_output() else { return Drained::All };
            let event = match output {
                Output::Broadcast(broadcast) => {
                    let len = broadcast.bytes.len();
                    let (channel, id) = (|| name.to_owned(), || broadcast.id.to_vec());
                    match self.transport.broadcast(broadcast.bytes).await {
                        Ok(()) => {
                            statistics.sent += 1;
                            statistics.sent_bytes += len as u64;
                            let reason = broadcast.reason;
                            self.tell_sent.then(|| Event::Sent {
                                channel: channel(),
                                id: id(),
                                reason,
                                len,
                            })
                        }
                        Err(error) => {
                            statistics.not_sent += 1;
                            Some(Event::NotSent { channel: channel(), id: id(), error })
                        }
                    }
                }
                Output::Persist(change) => {
                    let (number, channel) = (change.number, name.to_owned());
                    let kept = match keeper {
                        Some(keeper) if !*saves_aside => keeper.save(name, &change),
                        _ => save_aside(keeper, &channel, change.bytes.to_vec()).await,
                    };
                    let now = self.clock.now();
                    if let Ok(kept_of) = participant.channel(now, &channel) {
                        match kept {
                            Ok(()) => kept_of.persisted(number),
                            Err(_) => kept_of.persist_failed(now, number),
                        }
                    }
                    participant.touched(&channel);
                    kept.err().map(|error| {
                        statistics.not_kept += 1;
                        Event::NotKept { channel, error }
                    })
                }
                output => Event::of(name, &output),
            };
            if let (Some(permit), Some(event)) = (permit, event) {
                permit.send(event);
            }
        }
    }
}

/// Saves a change on a thread where nobody waits for anything else.
async fn save_aside(
    keeper: &mut Option<Box<dyn Persistence + Send>>,
    channel: &str,
    bytes: Vec<u8>,
) -> crate::Result<()> {
    let Some(mut place) = keeper.take() else { return Err(nowhere()) };
    let channel = channel.to_owned();
    let saving = tokio::task::spawn_blocking(move || {
        let change = Change::parse(&channel, &bytes);
        let saved = change.and_then(|change| place.save(&channel, &change));
        (place, saved)
    });
    match saving.await {
        Ok((place, saved)) => {
            *keeper = Some(place);
            saved
        }
        Err(gone) => {
            let what = format!("the place for changes has failed: {gone}; start the node again");
            Err(crate::Error::Persistence { what })
        }
    }
}

fn nowhere() -> crate::Error {
    let what = "the channel wants its changes kept and the node has no place for them; give it one \
                with Node::keep, or configure keep = Nothing";
    crate::Error::Persistence { what: what.to_owned() }
}

/// Until an event can be handed out, or nobody wants any.
async fn room(events: &mpsc::Sender<Event>) {
    let _given_back = events.reserve().await;
}

/// Until then; not at all without a time.
pub(super) async fn until(time: Option<Instant>) {
    if let Some(time) = time {
        sleep_until(time).await;
    }
}
