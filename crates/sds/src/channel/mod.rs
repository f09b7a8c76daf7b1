//! One participant's side of one channel.
//!
//! The contract: give it one input (`send`, `receive`, `handle_timeout`, ...), then poll outputs
//! until there are none, then wait until the next input or the time that `poll_timeout` says.
//! Whatever the channel needs from outside (time, bytes, a place to keep changes) arrives as an
//! argument; it has no clock, no socket and no thread.
//!
//! Guarantees:
//!
//! * D1. Content is delivered at most once, and never before what it depends on, apart from what
//!   was given up; ephemeral content, which has no place in it, once among the last few dozen
//!   ephemeral messages. (LIP-109, Receive Message; Deliver Message)
//! * D2. All participants that have the same messages have them in the same order: by (Lamport
//!   time, message id). (LIP-109, Resolve Conflicts)
//! * D3. Sync and ephemeral messages are in no log, no filter, no causal history and no buffer.
//!   (LIP-109, Periodic Sync Message; Ephemeral Messages)
//! * D4. What is refused changes nothing (but that what a message depends on is asked for, if it was
//!   asked for itself and came from too far ahead), and no input makes a channel grow past its
//!   limits.
//! * D5. A channel without news has no timer.

mod agenda;
mod changes;
mod dependencies;
mod evict;
mod load;
mod order;
mod out;
mod own;
mod receive;
mod repairs;
mod send;
mod sync;
mod table;
mod tick;

pub use load::Hibernated;
pub use send::Sent;

use std::collections::VecDeque;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use mainstay_base::{Rng, mix64};

use agenda::Agenda;
use changes::Changes;
use dependencies::Dependency;
use evict::Holder;
use order::{Edges, Log, Ready};
use out::Outputs;
use own::{Outgoing, Verdict};
use sync::Sync;
use table::{State, Table, flag};

use crate::{
    bloom::{Params, RollingFilter},
    config::Config,
    error::{Error, Result, within},
    limits::{HINT_LEN_MAX, ID_LEN_MAX},
    output::Output,
    persist::codec::Scalars,
    planted,
};

/// One participant's side of one channel: see the head of this module for the contract.
///
/// ```
/// use mainstay_sds::{Channel, Config, Now, Output};
/// let now = Now { mono_ms: 0, wall_ms: 1_760_000_000_000 };
/// let mut alice = Channel::new("room", b"alice", Config::lip())?;
/// alice.send(now, b"m1", b"hello")?;
/// while let Some(output) = alice.poll_output() {
///     match output {
///         Output::Broadcast(broadcast) => println!("{} bytes to all", broadcast.bytes.len()),
///         other => println!("{other:?}"),
///     }
/// }
/// let wake_me_at = alice.poll_timeout().expect("nobody has acknowledged it yet");
/// alice.handle_timeout(now.after(wake_me_at - now.mono_ms));
/// # Ok::<(), mainstay_sds::Error>(())
/// ```
#[derive(Debug)]
pub struct Channel {
    config: Config,
    name: Box<str>,
    own_id: Box<[u8]>,
    rng: Rng,

    table: Table,
    log: Log,
    edges: Edges,
    ready: Ready,
    /// Ids that left the log or were given up, oldest first.
    tombstones: VecDeque<(u32, u32)>,
    filter: RollingFilter,
    /// What a filter without parameters has.
    filter_params: Params,
    outgoing: Outgoing,
    scalars: Scalars,

    /// Messages that wait, by sender.
    holders: HashMap<u64, Holder, FixedState>,
    buffered: usize,
    buffered_bytes: usize,
    unknown: usize,
    /// Missing messages that only sync messages cite, oldest first.
    heard_of: VecDeque<(u32, u32)>,

    /// Delivered, but maybe cited by nobody: those that left the log's tail before they were.
    uncited: VecDeque<(u32, u32)>,
    /// How often others have shown that they wait for something.
    needed: u64,
    unconfirmed: VecDeque<(u64, u32)>,
    /// The ephemeral messages delivered last, by the hashes of their ids.
    ephemeral: VecDeque<u64>,

    agenda: Agenda,
    /// Requests whose time has come, earliest first, and those that have no place yet.
    due: VecDeque<(u32, u32)>,
    unarmed: VecDeque<(u32, u32)>,
    wanted: usize,
    answers: usize,
    next_answer_at: u64,
    /// Until when this participant is new: what it does not know is from before its time.
    joining_until: u64,
    sync: Sync,
    filter_sent_at: u64,
    filter_skipped: u32,

    changes: Changes,
    outputs: Outputs,
    scratch: Vec<Dependency>,
    own_cited: Vec<u32>,
    looked_up: Vec<u32>,
    look_ups: u64,
    verdicts: Vec<(u32, Verdict)>,
}

impl Channel {
    /// A new channel called `name`, seen by the participant `own_id`.
    ///
    /// With an empty `own_id` messages name no sender, and this participant takes no part in
    /// repair.
    ///
    /// # Errors
    /// [`Error::Limit`] or [`Error::Config`].
    ///
    /// Example: see [`Channel`].
    pub fn new(name: &str, own_id: &[u8], config: Config) -> Result<Self> {
        config.check()?;
        within("length of the channel's name", name.len() as u64, 0, ID_LEN_MAX as u64)?;
        within("length of the participant's id", own_id.len() as u64, 0, ID_LEN_MAX as u64)?;
        let filter = config.filter()?;
        // Names go into the seed, so that channels of one configuration do not act in step.
        let seed = name.bytes().chain(own_id.iter().copied());
        let seed = seed.fold(config.seed, |seed, byte| mix64(seed ^ u64::from(byte)));
        Ok(Self {
            name: name.into(),
            own_id: own_id.into(),
            rng: Rng::seeded(seed),
            table: Table::new(seed),
            log: Log::default(),
            edges: Edges::new(),
            ready: Ready::default(),
            tombstones: VecDeque::new(),
            filter_params: filter.params(),
            filter,
            outgoing: Outgoing::new(config.profile),
            scalars: Scalars::default(),
            holders: HashMap::with_hasher(FixedState::with_seed(seed)),
            buffered: 0,
            buffered_bytes: 0,
            unknown: 0,
            heard_of: VecDeque::new(),
            uncited: VecDeque::new(),
            needed: 0,
            unconfirmed: VecDeque::new(),
            ephemeral: VecDeque::new(),
            agenda: Agenda::default(),
            due: VecDeque::new(),
            unarmed: VecDeque::new(),
            wanted: 0,
            answers: 0,
            next_answer_at: 0,
            joining_until: table::NEVER,
            sync: Sync::new(),
            filter_sent_at: 0,
            filter_skipped: u32::MAX,
            changes: Changes::new(),
            outputs: Outputs::default(),
            scratch: Vec::new(),
            own_cited: Vec::new(),
            looked_up: Vec::new(),
            look_ups: 0,
            verdicts: Vec::new(),
            config,
        })
    }

    /// Its name.
    ///
    /// ```
    /// use mainstay_sds::{Channel, Config};
    /// let channel = Channel::new("room", b"alice", Config::lip())?;
    /// assert_eq!((channel.name(), channel.own_id()), ("room", &b"alice"[..]));
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The id of this participant.
    ///
    /// Example: see [`Channel::name`].
    #[must_use]
    pub fn own_id(&self) -> &[u8] {
        &self.own_id
    }

    /// What it was told when it was made.
    ///
    /// ```
    /// use mainstay_sds::{Channel, Config};
    /// let channel = Channel::new("room", b"alice", Config::lip())?;
    /// assert_eq!(channel.config(), &Config::lip());
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// There are about so many participants now ([`Config::participants`]).
    ///
    /// # Errors
    /// [`Error::Limit`] for a channel without any.
    ///
    /// ```
    /// use mainstay_sds::{Channel, Config};
    /// let mut channel = Channel::new("room", b"alice", Config::lip())?;
    /// channel.set_participants(2)?;
    /// assert_eq!(channel.config().participants, 2);
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    pub fn set_participants(&mut self, participants: u32) -> Result<()> {
        let config = Config { participants, ..self.config.clone() };
        config.check()?;
        self.config = config;
        Ok(())
    }

    /// The next output, in the order in which things happened; `None` when there is none that
    /// could be handed out now.
    ///
    /// Example: see [`Output`].
    pub fn poll_output(&mut self) -> Option<Output<'_>> {
        let is_early = planted("output-before-kept") && self.has_queued();
        if self.has_change() && !is_early {
            return Some(self.take_change());
        }
        if self.has_queued() { self.outputs.pop() } else { None }
    }

    /// Whether [`poll_output`](Self::poll_output) has something.
    ///
    /// ```
    /// use mainstay_sds::{Channel, Config, Now};
    /// let mut channel = Channel::new("room", b"alice", Config::lip())?;
    /// assert!(!channel.has_output());
    /// channel.send(Now::zero(), b"m1", b"hello")?;
    /// assert!(channel.has_output());
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    #[must_use]
    pub fn has_output(&self) -> bool {
        self.has_change() || self.has_queued()
    }

    fn has_queued(&self) -> bool {
        self.outputs.is_ready(self.changes.released())
    }

    /// The log, in the order that all participants share.
    ///
    /// ```
    /// use mainstay_sds::{Channel, Config, Now};
    /// let mut channel = Channel::new("room", b"alice", Config::lip())?;
    /// channel.send(Now::zero(), b"m1", b"hello")?;
    /// channel.send(Now::zero(), b"m2", b"again")?;
    /// assert!(channel.log().map(|entry| entry.id).eq([b"m1", b"m2"]));
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    pub fn log(&self) -> impl DoubleEndedIterator<Item = LogEntry<'_>> {
        self.log.slots().map(|slot| {
            let record = self.table.get(slot);
            LogEntry {
                id: record.id(),
                sender: record.sender(),
                lamport: record.lamport,
                content: record.content(),
            }
        })
    }

    /// A message of the log as others would get it when they ask for it: for a store node, or a
    /// transport that answers queries.
    ///
    /// ```
    /// use mainstay_sds::{Channel, Config, Now, wire::{Message, Profile}};
    /// let mut channel = Channel::new("room", b"alice", Config::lip())?;
    /// channel.send(Now::zero(), b"m1", b"hello")?;
    /// let copy = channel.copy_of(b"m1").unwrap();
    /// assert_eq!(Message::decode(Profile::Lip, &copy)?.filter, None);
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    #[must_use]
    pub fn copy_of(&self, id: &[u8]) -> Option<Vec<u8>> {
        let record = self.table.get(self.table.find(id)?);
        if record.body.is_empty() {
            return None;
        }
        let mut out = Vec::with_capacity(record.body.len() + 4);
        record.parts.copy(&mut out, self.config.profile, &record.body);
        Some(out)
    }

    /// Whether nobody has to wait for the message: it is in the log, was there, or was given up.
    ///
    /// ```
    /// use mainstay_sds::{Channel, Config, Now};
    /// let mut channel = Channel::new("room", b"alice", Config::lip())?;
    /// channel.send(Now::zero(), b"m1", b"hello")?;
    /// channel.mark_known(Now::zero(), b"m2")?;
    /// assert!(channel.is_known(b"m1") && channel.is_known(b"m2") && !channel.is_known(b"m3"));
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    #[must_use]
    pub fn is_known(&self, id: &[u8]) -> bool {
        let state = self.table.find(id).map(|slot| self.table.get(slot).state);
        matches!(state, Some(State::Logged | State::Tombstone))
    }

    /// Whether the message is here, or need not come: it is in the log, waits for others, was there
    /// or was given up.
    ///
    /// ```
    /// use mainstay_sds::{Channel, Config, Now};
    /// let mut channel = Channel::new("room", b"alice", Config::lip())?;
    /// channel.send(Now::zero(), b"m1", b"hello")?;
    /// assert!(channel.is_here(b"m1") && !channel.is_here(b"m2"));
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    #[must_use]
    pub fn is_here(&self, id: &[u8]) -> bool {
        let state = self.table.find(id).map(|slot| self.table.get(slot).state);
        matches!(state, Some(State::Logged | State::Tombstone | State::Buffered))
    }

    /// The ids that a message would cite if it was sent now: the log's end, and before it what
    /// nobody cites, as far as a message has room for it and some more.
    ///
    /// ```
    /// use mainstay_sds::{Channel, Config, Now};
    /// let mut channel = Channel::new("room", b"alice", Config::lip())?;
    /// channel.send(Now::zero(), b"m1", b"hello")?;
    /// assert!(channel.citable().eq([b"m1"]));
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    pub fn citable(&self) -> impl Iterator<Item = &[u8]> {
        let tail: Vec<u32> = self.log.tail(self.config.causal).collect();
        let count = 2 * send::UNCITED_ON_CONTENT_MAX + tail.len();
        let uncited = self.uncited.iter().take(count).filter(|(slot, generation)| {
            self.is_uncited(*slot, *generation) && !tail.contains(slot)
        });
        let slots: Vec<u32> = uncited.map(|(slot, _)| *slot).chain(tail.iter().copied()).collect();
        slots.into_iter().map(|slot| self.table.get(slot).id())
    }

    /// How much there is of everything that has a limit.
    ///
    /// ```
    /// use mainstay_sds::{Channel, Config, Now};
    /// let mut channel = Channel::new("room", b"alice", Config::lip())?;
    /// channel.send(Now::zero(), b"m1", b"hello")?;
    /// assert_eq!((channel.counts().logged, channel.counts().outgoing), (1, 1));
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            logged: self.log.len(),
            outgoing: self.outgoing.len(),
            buffered: self.buffered,
            buffered_bytes: self.buffered_bytes,
            missing: self.unknown,
            wanted: self.wanted,
            answers: self.answers,
            remembered: self.tombstones.len(),
            known: self.table.len(),
            unconfirmed: self.unconfirmed.len(),
            needed: self.needed,
            lamport: self.scalars.lamport,
            memory_bytes: self.memory(),
        }
    }

    /// How the filter looks now: for tools.
    ///
    /// ```
    /// use mainstay_sds::{Channel, Config};
    /// let channel = Channel::new("room", b"alice", Config::lip())?;
    /// assert!(channel.filter().is_empty());
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    #[must_use]
    pub fn filter(&self) -> &RollingFilter {
        &self.filter
    }

    fn memory(&self) -> usize {
        size_of::<Self>()
            + self.table.memory()
            + self.log.memory()
            + self.edges.memory()
            + self.filter.memory()
            + self.outgoing.memory()
            + self.agenda.memory()
            + self.changes.memory()
            + self.outputs.memory()
    }

    /// How a message can be found by those who miss it: goes along whenever the message is cited
    /// (LIP-109, Send Message: `retrieval_hint`). Whether the message is known.
    ///
    /// # Errors
    /// [`Error::Limit`] if the hint is too long.
    ///
    /// ```
    /// use mainstay_sds::{Channel, Config, Now};
    /// let mut channel = Channel::new("room", b"alice", Config::lip())?;
    /// channel.send(Now::zero(), b"m1", b"hello")?;
    /// assert!(channel.set_retrieval_hint(b"m1", b"hash of the envelope")?);
    /// assert!(!channel.set_retrieval_hint(b"m2", b"hash of the envelope")?);
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    pub fn set_retrieval_hint(&mut self, id: &[u8], hint: &[u8]) -> Result<bool> {
        within("length of a retrieval hint", hint.len() as u64, 0, HINT_LEN_MAX as u64)?;
        let Some(slot) = self.table.find(id) else { return Ok(false) };
        self.table.get_mut(slot).set_hint(hint);
        if matches!(self.table.get(slot).state, State::Logged | State::Buffered) {
            self.note_put(slot);
        }
        Ok(true)
    }

    /// The application is done with all deliveries up to `number`; after a restart they do not come
    /// again. Only with [`Config::confirm`].
    ///
    /// An application that keeps the number together with what it did gets each message exactly
    /// once: after a restart it confirms the number it has, and goes on with those that come.
    ///
    /// # Errors
    /// [`Error::Limit`] if there was no such delivery.
    ///
    /// ```
    /// use mainstay_sds::{Channel, Config, Keep};
    /// let mut config = Config::lip();
    /// (config.keep, config.confirm) = (Keep::Durable, true);
    /// let mut channel = Channel::new("room", b"alice", config)?;
    /// assert!(channel.confirm(1).is_err(), "nothing was delivered yet");
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    pub fn confirm(&mut self, number: u64) -> Result<()> {
        within("number of the delivery", number, 0, self.scalars.delivered)?;
        if number > self.scalars.confirmed {
            self.scalars.confirmed = number;
            self.note_scalars();
            while let Some(&(first, slot)) = self.unconfirmed.front()
                && first <= number
            {
                self.unconfirmed.pop_front();
                self.unpin(slot);
            }
        }
        Ok(())
    }

    /// Refuses an input while too much output waits.
    fn check_drained(&self) -> Result<()> {
        let bytes = self.outputs.bytes();
        if self.outputs.is_empty() || bytes <= crate::limits::OUTPUT_BYTES_MAX {
            return Ok(());
        }
        Err(Error::Undrained { bytes })
    }

    /// Every input begins here: what is queued from now on waits for the change it belongs to.
    fn begin(&mut self) -> Result<()> {
        self.check_drained()?;
        self.set_after();
        Ok(())
    }

    fn set_after(&mut self) {
        self.outputs.after =
            if self.config.keep == crate::config::Keep::Durable { self.changes.next() } else { 0 };
    }

    /// The slot is the record's, and not that of another one that came later.
    fn is_current(&self, slot: u32, generation: u32) -> bool {
        self.table.get(slot).generation == generation
    }

    fn set_flag(&mut self, slot: u32, flag: u8) {
        self.table.get_mut(slot).flags |= flag;
    }

    /// Nobody is waiting to hear of the message any more (see [`flag::CITED`]).
    fn cited(&mut self, slot: u32) {
        self.set_flag(slot, flag::CITED);
    }
}

/// One message of the log.
///
/// Example: see [`Channel::log`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogEntry<'a> {
    /// Its id.
    pub id: &'a [u8],
    /// Who sent it first, by its own word.
    pub sender: &'a [u8],
    /// Its Lamport time, in units of the profile.
    pub lamport: u64,
    /// Its content.
    pub content: &'a [u8],
}

/// How much there is of everything that has a limit.
///
/// Example: see [`Channel::counts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Messages in the log.
    pub logged: usize,
    /// Own messages that are not acknowledged.
    pub outgoing: usize,
    /// Messages that wait for others.
    pub buffered: usize,
    /// Their bytes.
    pub buffered_bytes: usize,
    /// Missing messages.
    pub missing: usize,
    /// Those of them that are being asked for.
    pub wanted: usize,
    /// Messages that are about to be sent again for others.
    pub answers: usize,
    /// Ids that left the log and still count as known.
    pub remembered: usize,
    /// All ids together.
    pub known: usize,
    /// Deliveries that are not confirmed.
    pub unconfirmed: usize,
    /// How often others have shown that they wait for something that this participant may help
    /// with: an acknowledgement, a message, the news. Who leaves may wait until it grows no more.
    pub needed: u64,
    /// The Lamport time.
    pub lamport: u64,
    /// Bytes of memory, about.
    pub memory_bytes: usize,
}
