//! The leader's side: any number of followers, each where it is.
//!
//! * E1. A follower is sent the writes behind its own place in the order of the log, and nothing
//!   else, if its place is in the log; or else the records it lacks, and then the log behind the
//!   place at which that began (N2).
//! * E2. At most the follower's allowance, or what the leader grants anybody if that is less, and one
//!   message are on their way to it (N6). Who takes none of it is given up, and nobody waits for it.
//! * E3. Whoever shows a higher epoch ends the leader, once it has shown that it has the same store
//!   (N4): the epochs of two stores have nothing to do with each other.
//! * E4. Each leader of a store hears of each write, however often it is led.
//! * E5. Whatever takes long, finding a place in the log and looking through records, is done in steps:
//!   in between, followers are sent what there is, and heard.
//!
//! The core is fed by [`Leader::handle`], then asked by [`Leader::poll`] until it has nothing more
//! to say, then for its [`Leader::deadline`]. Whenever the store was written to, it is polled too.

mod compare;
mod ends;
mod lag;
mod long;
mod session;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Bound,
    time::Duration,
};

use crate::{
    limits::FOLLOWERS_MAX,
    traits::{Level, Source},
    wire::{Acked, Hello, Message, Reason, Refusal, decode, encode},
};
pub use ends::{Input, LeadSettings, Output, Told};
pub use lag::Lag;
use lag::Seen;
use long::Long;
pub(crate) use session::check_fits;
use session::{Session, Stop};

/// See the head of the module.
pub struct Leader<S: Source> {
    source: S,
    settings: LeadSettings,
    hello: Hello,
    epoch: u64,
    sessions: BTreeMap<u64, Session<S>>,
    acks: BTreeMap<u64, Vec<Acked>>,
    seen: Vec<Seen>,
    outputs: VecDeque<Output>,
    /// Whose turn it was.
    turn: u64,
    replaced: Option<u64>,
    has_more: bool,
    next_look: Duration,
}

/// How much is done between two looks at what else there is.
const STEPS_MAX: usize = 16;

impl<S: Source> Leader<S> {
    /// A leader without followers.
    ///
    /// Example: see [the crate](crate).
    #[must_use]
    pub fn new(source: S, settings: LeadSettings, now: Duration) -> Self {
        let identity = source.identity();
        let hello =
            Hello { identity, write_bytes_max: source.write_bytes_max(), ..Hello::default() };
        let epoch = source.epoch();
        let seen = (0..identity.shards).map(|_| Seen::default()).collect();
        Self {
            source,
            settings,
            hello,
            epoch,
            sessions: BTreeMap::new(),
            acks: BTreeMap::new(),
            seen,
            outputs: VecDeque::new(),
            turn: 0,
            replaced: None,
            has_more: false,
            next_look: now + settings.heartbeat / 2,
        }
    }

    /// The store.
    ///
    /// Example: see [`Leader::lag`].
    pub fn source(&self) -> &S {
        &self.source
    }

    /// The epoch of the leader that has taken its place, if one has.
    ///
    /// ```
    /// # use mainstay_replica::{LeadSettings, Leader, leader::Input, wire::{Hello, Message, encode}};
    /// # use mainstay_store::{Options, RawStore};
    /// # use std::{sync::Arc, time::Duration};
    /// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// let store = Arc::new(store);
    /// let mut leader = Leader::new(store.clone(), LeadSettings::default(), Duration::ZERO);
    /// leader.handle(Duration::ZERO, Input::Connected { peer: 1 });
    /// let hello = Hello { identity: store.identity(), ..Hello::default() };
    /// let bytes = encode(99, &Message::Hello(hello));
    /// leader.handle(Duration::ZERO, Input::Message { peer: 1, bytes: &bytes });
    /// assert_eq!(leader.replaced_by(), Some(99));
    /// assert_eq!(store.known_epoch(), 99);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    #[must_use]
    pub fn replaced_by(&self) -> Option<u64> {
        self.replaced
    }

    /// The followers that are there.
    ///
    /// Example: see [`Leader::lag`].
    pub fn followers(&self) -> impl Iterator<Item = u64> + '_ {
        self.sessions.keys().copied()
    }

    /// How far a follower is behind with a shard; none if it is not there.
    ///
    /// ```
    /// # use mainstay_replica::{LeadSettings, Leader, leader::Input};
    /// # use mainstay_store::{Durability::Memory, Options, RawStore};
    /// # use std::{sync::Arc, time::Duration};
    /// let one = Options { shards: 1, ..Options::default() };
    /// let store = Arc::new(RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &one)?);
    /// let mut leader = Leader::new(store, LeadSettings::default(), Duration::ZERO);
    /// leader.handle(Duration::ZERO, Input::Connected { peer: 1 });
    /// leader.source().put(b"de", b"049", Memory)?;
    /// assert_eq!(leader.lag(1, 0, Duration::ZERO).unwrap().events, 1);
    /// assert_eq!(leader.followers().collect::<Vec<_>>(), [1]);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    #[must_use]
    pub fn lag(&self, peer: u64, shard: u32, now: Duration) -> Option<Lag> {
        let session = self.sessions.get(&peer)?;
        let tip = self.source.tip(shard).ok()??.sequence;
        let acked = self.acks.get(&peer).and_then(|acks| acks.get(shard as usize));
        let applied = acked.map_or(0, |acked| acked.applied);
        let time = self.seen.get(shard as usize)?.age(applied, now);
        let bytes = session.behind_bytes(&self.source, shard);
        Some(Lag { events: tip.saturating_sub(applied), bytes, time })
    }

    /// How many followers have a shard's write, as far as they have said so.
    ///
    /// ```
    /// # use mainstay_replica::{LeadSettings, Leader, Level};
    /// # use mainstay_store::{Options, RawStore};
    /// # use std::{sync::Arc, time::Duration};
    /// # let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// let leader = Leader::new(Arc::new(store), LeadSettings::default(), Duration::ZERO);
    /// assert_eq!(leader.have(0, 1, Level::Durable), 0);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    #[must_use]
    pub fn have(&self, shard: u32, sequence: u64, level: Level) -> usize {
        let has = |acks: &&Vec<Acked>| {
            acks.get(shard as usize).is_some_and(|acked| {
                let at = match level {
                    Level::Received => acked.received,
                    Level::Applied => acked.applied,
                    Level::Durable => acked.durable,
                };
                at >= sequence
            })
        };
        self.acks.values().filter(has).count()
    }

    /// Bytes that wait for the driver, and that followers have not taken yet (N6).
    ///
    /// ```
    /// # use mainstay_replica::{LeadSettings, Leader};
    /// # use mainstay_store::{Options, RawStore};
    /// # use std::{sync::Arc, time::Duration};
    /// # let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// let leader = Leader::new(Arc::new(store), LeadSettings::default(), Duration::ZERO);
    /// assert_eq!(leader.held_bytes(), 0);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let waiting = self.outputs.iter().map(|output| match output {
            Output::Send { bytes, .. } => bytes.len(),
            _ => 0,
        });
        let held = self.sessions.values().map(Session::held_bytes).sum::<usize>();
        // What several followers are sent is there once.
        let longs = self.sessions.values().filter_map(Session::long);
        let longs: BTreeSet<(usize, usize)> =
            longs.map(|long| (long.whole().as_ptr() as usize, long.whole().len())).collect();
        waiting.sum::<usize>() + held + longs.iter().map(|(_, len)| len).sum::<usize>()
    }

    /// Takes in what happened.
    ///
    /// Example: see [the crate](crate).
    pub fn handle(&mut self, now: Duration, input: Input<'_>) {
        self.has_more = true;
        match input {
            Input::Tick => self.tick(now),
            Input::Connected { peer } => self.connected(now, peer),
            Input::Lost { peer } => self.left(peer, "its channel is gone"),
            Input::Message { peer, bytes } => self.message(now, peer, bytes),
        }
    }

    fn connected(&mut self, now: Duration, peer: u64) {
        self.left(peer, "it has come again, or another one calls itself by the same number");
        if let Some(by) = self.replaced {
            self.send(peer, &self.replaced_refusal(by));
            self.outputs.push_back(Output::Close { peer });
        } else if self.sessions.len() == FOLLOWERS_MAX {
            let (ours, theirs) = (FOLLOWERS_MAX as u64, FOLLOWERS_MAX as u64 + 1);
            let refusal = Refusal { reason: Reason::Full, ours, theirs, text: "" };
            self.send(peer, &Message::Refused(refusal));
            self.outputs.push_back(Output::Close { peer });
        } else {
            self.sessions.insert(peer, Session::new(now));
        }
    }

    fn replaced_refusal(&self, by: u64) -> Message<'static> {
        let (ours, theirs) = (self.epoch, by);
        Message::Refused(Refusal { reason: Reason::Replaced, ours, theirs, text: "" })
    }

    fn left(&mut self, peer: u64, why: &str) {
        if let Some(session) = self.sessions.remove(&peer) {
            if session.is_joined() {
                self.outputs.push_back(Output::Told(Told::Left { peer, why: why.to_owned() }));
            }
            // What a follower has durably counts when it is gone, but not of ever more of them.
            if self.acks.len() > FOLLOWERS_MAX {
                self.acks.remove(&peer);
            }
            self.retain();
        }
    }

    fn send(&mut self, peer: u64, message: &Message<'_>) {
        let bytes = encode(self.epoch, message);
        self.outputs.push_back(Output::Send { peer, bytes, at_once: false });
    }

    fn message(&mut self, now: Duration, peer: u64, bytes: &[u8]) {
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        session.heard(now);
        let (epoch, message) = match decode(bytes) {
            Ok(decoded) => decoded,
            Err(error) => return self.stop(peer, Stop::Protocol(error.to_string())),
        };
        let is_joined = session.is_joined();
        let has_this_store = match &message {
            Message::Hello(hello) => !hello.is_blank && hello.identity.id == self.hello.identity.id,
            _ => is_joined,
        };
        if has_this_store && epoch > self.epoch {
            return self.replace(peer, epoch);
        }
        if !is_joined && !matches!(message, Message::Hello(_) | Message::Refused(_)) {
            return self.stop(peer, Stop::Protocol("a message before a hello".to_owned()));
        }
        let handled = match message {
            Message::Hello(hello) => {
                let welcome = session.hello(&hello, &self.hello);
                let mut told = None;
                if welcome.is_ok() && !hello.is_blank {
                    told = Some(Output::Told(Told::Joined { peer }));
                }
                if welcome.is_ok() {
                    self.send(peer, &Message::Welcome(self.hello));
                }
                self.outputs.extend(told);
                welcome
            }
            Message::Ack { allowance, acks } => {
                let own = self.acks.entry(peer).or_default();
                own.resize(self.hello.identity.shards as usize, Acked::default());
                session.acked(allowance, acks, own)
            }
            Message::Alive { .. } => Ok(()),
            Message::Refused(refusal) => {
                let why = format!("it refused: {refusal}");
                self.outputs.push_back(Output::Close { peer });
                self.left(peer, &why);
                return;
            }
            message => {
                if let Message::Sync { shard, .. } = message
                    && let Some(acked) =
                        self.acks.get_mut(&peer).and_then(|acks| acks.get_mut(shard as usize))
                {
                    // What it had in another life does not count until it says so again.
                    *acked = Acked { shard, ..Acked::default() };
                }
                let handled = session.handle(&self.source, message);
                self.retain();
                handled
            }
        };
        if let Err(stop) = handled {
            self.stop(peer, stop);
        }
    }

    fn stop(&mut self, peer: u64, stop: Stop) {
        let (reason, ours, theirs, text) = match stop {
            Stop::Misfit { reason, ours, theirs } => (reason, ours, theirs, String::new()),
            Stop::Protocol(what) => (Reason::Protocol, 0, 0, what),
            Stop::Store(error) => {
                let text = error.to_string();
                self.outputs.push_back(Output::Told(Told::Failed(error.into())));
                (Reason::Failed, 0, 0, text)
            }
        };
        let refusal = Refusal { reason, ours, theirs, text: &text };
        self.send(peer, &Message::Refused(refusal));
        self.outputs.push_back(Output::Close { peer });
        self.left(peer, &refusal.to_string());
    }

    fn replace(&mut self, peer: u64, by: u64) {
        match self.source.fence(by) {
            // No leader can have such an epoch.
            Err(error @ mainstay_store::Error::OutOfLimits { .. }) => {
                return self.stop(peer, Stop::Protocol(error.to_string()));
            }
            Err(error) => self.outputs.push_back(Output::Told(Told::Failed(error.into()))),
            Ok(()) => {}
        }
        self.replaced = Some(by);
        let refusal = self.replaced_refusal(by);
        for peer in std::mem::take(&mut self.sessions).into_keys() {
            self.send(peer, &refusal);
            self.outputs.push_back(Output::Close { peer });
        }
        self.retain();
        self.outputs.push_back(Output::Told(Told::Replaced { by }));
    }

    fn tick(&mut self, now: Duration) {
        self.next_look = now + self.settings.heartbeat / 2;
        for shard in 0..self.hello.identity.shards {
            self.note_tip(shard, now);
        }
        let silent = |(peer, session): (&u64, &Session<_>)| {
            (now >= session.heard_at() + self.settings.silence).then_some(*peer)
        };
        let silent: Vec<u64> = self.sessions.iter().filter_map(silent).collect();
        for peer in silent {
            self.outputs.push_back(Output::Close { peer });
            self.left(peer, "it has been silent for too long");
        }
        let quiet = |(peer, session): (&u64, &Session<_>)| {
            let is_quiet = now >= session.spoke_at() + self.settings.heartbeat;
            (session.is_joined() && is_quiet).then_some(*peer)
        };
        let quiet: Vec<u64> = self.sessions.iter().filter_map(quiet).collect();
        if !quiet.is_empty() {
            let tip = |shard| self.source.tip(shard).ok().flatten().map_or(0, |tip| tip.sequence);
            let tips: Vec<u64> = (0..self.hello.identity.shards).map(tip).collect();
            let tips = Message::hashes(&tips);
            for peer in quiet {
                self.send(peer, &Message::Alive { tips: &tips });
                if let Some(session) = self.sessions.get_mut(&peer) {
                    session.spoke(now);
                }
            }
        }
        self.retain();
    }

    fn note_tip(&mut self, shard: u32, now: Duration) {
        if let (Ok(Some(tip)), Some(seen)) =
            (self.source.tip(shard), self.seen.get_mut(shard as usize))
        {
            seen.note(tip.sequence, now);
        }
    }

    /// Keeps the log that followers who compare will want.
    fn retain(&self) {
        for shard in 0..self.hello.identity.shards {
            let wanted = self.sessions.values().filter_map(|session| {
                session.wants_behind(&self.source, shard, self.settings.retain_bytes_max)
            });
            // There is such a shard.
            let _there = self.source.retain(shard, wanted.min());
        }
    }

    /// What to do next; none: all is said for now.
    ///
    /// Example: see [the crate](crate).
    pub fn poll(&mut self, now: Duration) -> Option<Output> {
        for _ in 0..STEPS_MAX {
            if let Some(output) = self.outputs.pop_front() {
                return Some(output);
            }
            if !self.step(now) {
                self.has_more = false;
                return None;
            }
        }
        self.has_more = true;
        None
    }

    /// Does a bit for the next follower that can be served.
    fn step(&mut self, now: Duration) -> bool {
        let after = (Bound::Excluded(self.turn), Bound::Unbounded);
        let after = self.sessions.range(after).map(|(peer, _)| *peer);
        let before = self.sessions.range(..=self.turn).map(|(peer, _)| *peer);
        let order: Vec<u64> = after.chain(before).collect();
        for peer in order {
            let Some(session) = self.sessions.get_mut(&peer) else { continue };
            match session.step(&self.source, &self.settings, now, self.epoch) {
                Ok(None) => {}
                Ok(Some(done)) => {
                    self.turn = peer;
                    if done.begins_long {
                        self.share(peer);
                    }
                    if let Some((shard, sequence)) = done.read {
                        self.seen[shard as usize].note(sequence, now);
                    }
                    let at_once = done.at_once;
                    let send = |bytes| Output::Send { peer, bytes, at_once };
                    self.outputs.extend(done.messages.into_iter().map(send));
                    if done.has_changed {
                        self.retain();
                    }
                    return true;
                }
                Err(stop) => {
                    self.stop(peer, stop);
                    return true;
                }
            }
        }
        false
    }

    /// If another follower is in the middle of the same write, its bytes are here once.
    fn share(&mut self, peer: u64) {
        let Some(mut session) = self.sessions.remove(&peer) else { return };
        if let Some(long) = session.long_mut() {
            let mut others = self.sessions.values().filter_map(Session::long);
            let is_same = |other: &&Long| long.same().is_some() && other.same() == long.same();
            if let Some(other) = others.find(is_same) {
                long.share(other);
            }
        }
        self.sessions.insert(peer, session);
    }

    /// Is it, whatever else there is to do?
    pub(crate) fn is_tick_due(&self, now: Duration) -> bool {
        now >= self.next_look
    }

    /// When [`Input::Tick`] is due.
    ///
    /// ```
    /// # use mainstay_replica::{LeadSettings, Leader, leader::Input};
    /// # use mainstay_store::{Options, RawStore};
    /// # use std::{sync::Arc, time::Duration};
    /// # let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
    /// let mut leader = Leader::new(Arc::new(store), LeadSettings::default(), Duration::ZERO);
    /// let due = leader.deadline(Duration::ZERO);
    /// leader.handle(due, Input::Tick);
    /// assert!(leader.poll(due).is_none());
    /// assert!(leader.deadline(due) > due);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    #[must_use]
    pub fn deadline(&self, now: Duration) -> Duration {
        if self.has_more || !self.outputs.is_empty() { now } else { self.next_look }
    }
}
