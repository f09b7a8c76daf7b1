//! The follower's side: one leader, all shards over one channel.
//!
//! * O1. A write is made only behind the one it follows: its place is computed here and compared
//!   with the one the leader says (N1).
//! * O2. A shard is told to be at a place again, after comparing, only at the place that the leader
//!   names when all of it is here (N1).
//! * O3. What a message shows of the epoch is looked at first (N4), once the other end has shown that it
//!   has the same store.
//! * O4. Nobody who hung up is called again before a pause that doubles, from 1 s to 30 s
//!   unless it is set up otherwise.
//! * O5. What comes in parts is looked at when all of it is here, and each part follows the one
//!   before; what a lost channel brought of it is forgotten.
//! * O6. Before the first change that leads elsewhere than the log does, the store says durably that it
//!   is not whole. It says that it is when all shards have caught up, and that is durable.
//! * O7. Records are looked through in steps, between which it says that it is alive and hears what the
//!   other end says; what comes for its shards meanwhile waits, within the allowance.
//!
//! The core is fed by [`Follower::handle`], then asked by [`Follower::poll`] until it has nothing
//! more to say, then for its [`Follower::deadline`]. Drivers that take in all messages that are
//! there before they poll save acknowledgements.

mod ends;
mod greeting;
mod joint;
mod place;
mod whole;
mod working;

use std::{collections::VecDeque, time::Duration};

use mainstay_base::Rng;
use mainstay_channel::dial::Backoff;
use mainstay_shm::hook;
use mainstay_store::History;

use crate::{
    error::Result,
    limits::BESIDE_BYTES,
    traits::Sink,
    wire::{self, Acked, Hello, Message, decode, decode_joined, encode},
};
pub use ends::{FollowSettings, Input, Output, Status, Told};
use joint::Joint;
use place::{Answer, Place, Taken, Wrong};
use working::Working;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Waiting { until: Duration },
    Dialling,
    Greeting,
    Open,
}

/// See the head of the module.
pub struct Follower<K: Sink> {
    sink: K,
    settings: FollowSettings,
    rng: Rng,
    backoff: Backoff,
    link: Link,
    hello: Hello,
    known: u64,
    shards: Vec<Place<K::Scan>>,
    working: Working,
    joint: Joint,
    outputs: VecDeque<Output>,
    heard: Duration,
    spoke: Duration,
    /// Bytes of this channel that were taken in, and count.
    taken: u64,
    ack_due: bool,
    unsynced: u64,
    unsynced_since: Option<Duration>,
    /// A sync was asked for, and has not ended.
    is_syncing: bool,
    /// As the store says (O6).
    is_whole: bool,
    /// All shards have caught up, and the store is to say so after a sync.
    is_whole_due: bool,
}

impl<K: Sink> Follower<K> {
    /// A follower that has not begun. `seed` is for its pauses. What the store has is made durable:
    /// it may have led until now, or followed somebody else, and what it had then counts.
    ///
    /// Example: see [the crate](crate).
    ///
    /// # Errors
    /// [`mainstay_store::Error::Leads`] if the store takes writes of its own, and
    /// [`Poisoned`](mainstay_store::Error::Poisoned) if it cannot say what of it is durable: open it
    /// anew.
    pub fn new(sink: K, settings: FollowSettings, seed: u64, now: Duration) -> Result<Self> {
        if !sink.follows() {
            return Err(mainstay_store::Error::Leads.into());
        }
        let identity = sink.identity();
        let hello = Hello { identity, write_bytes_max: sink.write_bytes_max(), ..Hello::default() };
        let mut shards = Vec::new();
        for shard in 0..identity.shards {
            shards.push(Place::new(shard, sink.history(shard)?));
        }
        // What was in memory only when it stopped to lead, or to follow, is told to be durable next.
        sink.sync()?;
        Ok(Self {
            known: sink.known_epoch(),
            is_whole: sink.is_whole(),
            is_whole_due: false,
            sink,
            settings,
            rng: Rng::seeded(seed),
            backoff: Backoff::between(settings.pause_min, settings.pause_max),
            link: Link::Waiting { until: now },
            hello,
            shards,
            working: Working::default(),
            joint: Joint::default(),
            outputs: VecDeque::new(),
            heard: now,
            spoke: now,
            taken: 0,
            ack_due: false,
            unsynced: 0,
            unsynced_since: None,
            is_syncing: false,
        })
    }

    /// The store.
    ///
    /// Example: see [`Follower::status`].
    pub fn sink(&self) -> &K {
        &self.sink
    }

    /// Is there a channel to a leader that fits?
    ///
    /// Example: see [`Follower::status`].
    #[must_use]
    pub fn is_joined(&self) -> bool {
        self.link == Link::Open
    }

    /// How it is with a shard; none if there is no such shard.
    ///
    /// ```
    /// # use mainstay_replica::{FollowSettings, Follower};
    /// # use mainstay_store::{Options, Position, RawStore};
    /// # use std::{sync::Arc, time::Duration};
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// let store = Arc::new(store.demote()?);
    /// let follower = Follower::new(store, FollowSettings::default(), 7, Duration::ZERO)?;
    /// let status = follower.status(0).unwrap();
    /// assert_eq!((status.at, status.tip), (Some(Position::START), 0));
    /// assert!(!follower.is_joined());
    /// assert_eq!(follower.sink().records(0)?, 0);
    /// # Ok::<(), mainstay_replica::Error>(())
    /// ```
    #[must_use]
    pub fn status(&self, shard: u32) -> Option<Status> {
        let place = self.shards.get(shard as usize)?;
        let (at, acked) = (place.at(), place.acked());
        let (durable, tip) = (acked.durable, place.tip());
        Some(Status { at, durable, tip, is_caught_up: place.is_caught_up() && self.is_joined() })
    }

    /// Takes in what happened.
    ///
    /// Example: see [the crate](crate).
    pub fn handle(&mut self, now: Duration, input: Input<'_>) {
        match input {
            Input::Tick => self.tick(now),
            Input::Connected => {
                if self.link == Link::Dialling {
                    (self.link, self.heard, self.taken) = (Link::Greeting, now, 0);
                    self.send(now, &Message::Hello(self.hello));
                }
            }
            Input::Lost => {
                if self.link != Link::Dialling {
                    self.outputs.push_back(Output::Told(Told::Lost));
                }
                self.wait(now);
            }
            Input::Synced(is_done) => self.synced(is_done),
            Input::Message(bytes) => {
                if !matches!(self.link, Link::Greeting | Link::Open) {
                    return;
                }
                self.heard = now;
                if let Err(wrong) = self.message(now, bytes) {
                    self.give_up(now, wrong);
                }
            }
        }
    }

    fn send(&mut self, now: Duration, message: &Message<'_>) {
        self.spoke = now;
        self.outputs.push_back(Output::Send(encode(self.known, message)));
    }

    /// The channel is over: another one after a pause.
    fn wait(&mut self, now: Duration) {
        if !matches!(self.link, Link::Waiting { .. }) {
            let pause = self.backoff.next_pause(self.rng.next_u64());
            self.link = Link::Waiting { until: now + pause };
        }
        self.ack_due = false;
        self.working = Working::default();
        self.joint.forget();
        self.shards.iter_mut().for_each(Place::disconnected);
    }

    fn message(&mut self, now: Duration, bytes: &[u8]) -> Result<(), Wrong> {
        let (epoch, message) = decode(bytes).map_err(|error| Wrong::Protocol(error.to_string()))?;
        if let Message::Welcome(theirs) = message {
            return self.welcome(now, epoch, &theirs);
        }
        if self.link != Link::Open {
            return match message {
                Message::Refused(refusal) => {
                    self.refused(now, epoch, &refusal);
                    Ok(())
                }
                // Whose it is has not been said.
                Message::Alive { .. } => Ok(()),
                _ => Err(Wrong::Protocol("a message before a welcome".to_owned())),
            };
        }
        if !self.check_epoch(now, epoch)? {
            return Ok(());
        }
        match message {
            Message::Refused(refusal) => {
                self.refused(now, epoch, &refusal);
                Ok(())
            }
            Message::Alive { tips } => {
                for (place, tip) in self.shards.iter_mut().zip(wire::hashes(tips)) {
                    place.saw_tip(tip);
                }
                Ok(())
            }
            _ if self.working.is_busy() => self.working.put_off(self.settings.window_bytes, bytes),
            message => self.of_shards(now, bytes.len(), message),
        }
    }

    fn of_shards(&mut self, now: Duration, len: usize, message: Message<'_>) -> Result<(), Wrong> {
        match message {
            Message::Part { shard, whole, at, bytes: part } => {
                let max = self.hello.write_bytes_max.saturating_add(BESIDE_BYTES);
                let whole = self.joint.take(max, shard, (whole, at), part)?;
                self.count(len);
                let Some(whole) = whole else { return Ok(()) };
                let (_, message) =
                    decode_joined(&whole).map_err(|error| Wrong::Protocol(error.to_string()))?;
                self.of_a_shard(now, &message)?;
                self.backoff.reset();
                return Ok(());
            }
            _ if self.joint.is_open() => {
                return Err(Wrong::Protocol("a message in the middle of another".to_owned()));
            }
            _ => {}
        }
        let is_counted = matches!(
            message,
            Message::Records { .. } | Message::Stale { .. } | Message::Writes { .. }
        );
        self.of_a_shard(now, &message)?;
        if is_counted {
            self.count(len);
            // It has proved useful.
            self.backoff.reset();
        }
        Ok(())
    }

    /// What became of a message, or of the work for it.
    fn note(&mut self, now: Duration, Taken { changed, told }: Taken, answers: &[Answer]) {
        self.outputs.extend(told.into_iter().map(Output::Told));
        for answer in answers {
            self.send(now, &answer.message());
        }
        if changed {
            self.ack_due = true;
            self.unsynced += 1;
            self.unsynced_since.get_or_insert(now);
        }
    }

    /// So many bytes were taken in, and more may come.
    fn count(&mut self, bytes: usize) {
        self.taken += bytes as u64;
        self.ack_due = true;
    }

    fn of_a_shard(&mut self, now: Duration, message: &Message<'_>) -> Result<(), Wrong> {
        let shard = match *message {
            Message::Info { shard, .. }
            | Message::Differ { shard, .. }
            | Message::Records { shard, .. }
            | Message::Stale { shard, .. }
            | Message::Round { shard }
            | Message::Writes { shard, .. }
            | Message::CaughtUp { shard, .. } => shard,
            _ => return Err(Wrong::Protocol("a message that leaders do not send".to_owned())),
        };
        // From here on the leader knows what to make of an acknowledgement: what is here may be all
        // that it waits for.
        self.ack_due |= matches!(message, Message::Info { .. });
        if self.is_whole && self.leads_away(shard, message) {
            self.sink.set_whole(false)?;
            self.is_whole = false;
        }
        let Some(place) = self.shards.get_mut(shard as usize) else {
            return Err(Wrong::Protocol("a shard that is not there".to_owned()));
        };
        let mut answers = Vec::new();
        let taken = place.take(&self.sink, message, &mut answers)?;
        self.working.shard = place.is_working().then_some(shard);
        self.note(now, taken, &answers);
        if matches!(message, Message::CaughtUp { .. }) {
            self.is_whole_due = !self.is_whole && self.is_caught_up();
            if self.is_whole_due && hook::planted("stream-whole-unsynced") {
                self.is_whole_due = false;
                self.note_whole();
            }
        }
        Ok(())
    }

    fn synced(&mut self, is_done: bool) {
        // What is in doubt is not acknowledged; the driver will have told.
        if std::mem::take(&mut self.is_syncing) && is_done {
            self.shards.iter_mut().for_each(Place::synced);
            self.ack_due = true;
            self.note_whole();
        }
    }

    /// From here on a sync is under way, for what is there now.
    fn begin_sync(&mut self) {
        (self.unsynced, self.unsynced_since, self.is_whole_due) = (0, None, false);
        self.is_syncing = true;
        self.shards.iter_mut().for_each(Place::sync_begins);
    }

    /// Everything that was taken is durable: the store was synced, and nothing came meanwhile.
    pub(crate) fn all_synced(&mut self) {
        self.begin_sync();
        self.synced(true);
    }

    fn tick(&mut self, now: Duration) {
        match self.link {
            Link::Waiting { until } if until <= now => {
                self.link = Link::Dialling;
                self.outputs.push_back(Output::Connect);
            }
            Link::Greeting | Link::Open if now >= self.heard + self.settings.silence => {
                self.outputs.push_back(Output::Disconnect);
                self.outputs.push_back(Output::Told(Told::Lost));
                self.wait(now);
            }
            Link::Open if now >= self.spoke + self.settings.heartbeat => {
                self.send(now, &Message::Alive { tips: &[] });
            }
            _ => {}
        }
    }

    fn sync_due(&self) -> Option<Duration> {
        if self.is_syncing {
            return None;
        }
        if self.is_whole_due {
            return Some(Duration::ZERO);
        }
        let since = self.unsynced_since?;
        let is_much = self.unsynced >= self.settings.sync_messages;
        Some(if is_much { since } else { since + self.settings.sync_after })
    }

    /// What to do next; none: all is said for now.
    ///
    /// Example: see [the crate](crate).
    pub fn poll(&mut self, now: Duration) -> Option<Output> {
        loop {
            if let Some(output) = self.outputs.pop_front() {
                return Some(output);
            }
            if self.ack_due && self.link == Link::Open {
                self.ack_due = false;
                let acks: Vec<Acked> = self.shards.iter_mut().filter_map(Place::ack_due).collect();
                let allowance = self.taken + self.settings.window_bytes;
                self.send(now, &Message::Ack { allowance, acks: &Message::acks(&acks) });
                continue;
            }
            if self.sync_due().is_some_and(|due| due <= now) {
                self.begin_sync();
                return Some(Output::Sync);
            }
            if !self.work(now) && self.outputs.is_empty() {
                return None;
            }
        }
    }

    /// When [`Input::Tick`] is due.
    ///
    /// ```
    /// # use mainstay_replica::{FollowSettings, Follower, follower::{Input, Output}};
    /// # use mainstay_store::{Options, RawStore};
    /// # use std::{sync::Arc, time::Duration};
    /// # let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// # let store = Arc::new(store.demote()?);
    /// let mut follower = Follower::new(store, FollowSettings::default(), 7, Duration::ZERO)?;
    /// let due = follower.deadline(Duration::ZERO).unwrap();
    /// follower.handle(due, Input::Tick);
    /// assert!(matches!(follower.poll(due), Some(Output::Connect)));
    /// # Ok::<(), mainstay_replica::Error>(())
    /// ```
    #[must_use]
    pub fn deadline(&self, now: Duration) -> Option<Duration> {
        let has_more = self.ack_due || self.working.is_busy();
        if !self.outputs.is_empty() || (has_more && self.link == Link::Open) {
            return Some(now);
        }
        let link = match self.link {
            Link::Waiting { until } => Some(until),
            Link::Dialling => None,
            Link::Greeting => Some(self.heard + self.settings.silence),
            Link::Open => {
                let silence = self.heard + self.settings.silence;
                Some(silence.min(self.spoke + self.settings.heartbeat))
            }
        };
        [link, self.sync_due()].into_iter().flatten().min()
    }

    /// Where a shard is, as its store says.
    ///
    /// Example: see [`Follower::status`].
    ///
    /// # Errors
    /// If there is no such shard.
    pub fn history(&self, shard: u32) -> Result<History> {
        Ok(self.sink.history(shard)?)
    }
}
