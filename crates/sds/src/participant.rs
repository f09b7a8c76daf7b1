//! One participant in many channels.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
};

use crate::{
    channel::{Channel, Hibernated},
    config::Config,
    error::{Error, Result, shown, within},
    limits::{CHANNELS_MAX, ID_LEN_MAX},
    nim_snapshot::NimSnapshot,
    output::{Output, Received},
    time::Now,
    wire::Profile,
};

/// The channels of one participant, behind one door: bytes are given to the channel they name, and
/// one timer wakes whichever is due. Strangers cannot create channels.
///
/// A channel that sleeps ([`hibernate`](Self::hibernate)) wakes up when something happens to it.
///
/// ```
/// use mainstay_sds::{Config, Now, Output, Participant};
/// let now = Now::zero();
/// let mut alice = Participant::new(b"alice")?;
/// let mut bob = Participant::new(b"bob")?;
/// alice.join("room", Config::lip())?;
/// bob.join("room", Config::lip())?;
///
/// alice.channel(now, "room")?.send(now, b"m1", b"hello")?;
/// alice.touched("room");
/// while let Some((_, output)) = alice.poll_output() {
///     if let Output::Broadcast(broadcast) = output {
///         bob.receive(now, broadcast.bytes)?;
///     }
/// }
/// let Some(("room", Output::Deliver(delivery))) = bob.poll_output() else { panic!() };
/// assert_eq!(delivery.content, b"hello");
/// # Ok::<(), mainstay_sds::Error>(())
/// ```
#[derive(Debug)]
pub struct Participant {
    own_id: Box<[u8]>,
    channels: Vec<Option<Slot>>,
    names: HashMap<Box<str>, u32>,
    free: Vec<u32>,
    /// Channels that may have output, each once.
    busy: VecDeque<u32>,
    /// When channels want to be woken; entries that do not count any more are skipped.
    wakes: BinaryHeap<Reverse<(u64, u32)>>,
}

#[derive(Debug)]
struct Slot {
    name: Box<str>,
    state: State,
    is_busy: bool,
    /// The time in `wakes` that counts.
    wake_at: Option<u64>,
    used_at: u64,
}

#[derive(Debug)]
enum State {
    Awake(Box<Channel>),
    Asleep(Box<Hibernated>),
    /// Only while it changes from one to the other.
    Moving,
}

impl Participant {
    /// A participant in no channel yet.
    ///
    /// # Errors
    /// [`Error::Limit`] if the id is too long.
    ///
    /// Example: see [`Participant`].
    pub fn new(own_id: &[u8]) -> Result<Self> {
        within("length of the participant's id", own_id.len() as u64, 0, ID_LEN_MAX as u64)?;
        Ok(Self {
            own_id: own_id.into(),
            channels: Vec::new(),
            names: HashMap::new(),
            free: Vec::new(),
            busy: VecDeque::new(),
            wakes: BinaryHeap::new(),
        })
    }

    /// The id of this participant.
    ///
    /// ```
    /// use mainstay_sds::Participant;
    /// assert_eq!(Participant::new(b"alice")?.own_id(), b"alice");
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    #[must_use]
    pub fn own_id(&self) -> &[u8] {
        &self.own_id
    }

    /// Takes part in the channel `name` from now on.
    ///
    /// # Errors
    /// [`Error::ChannelExists`], [`Error::Limit`], [`Error::Config`].
    ///
    /// Example: see [`Participant`].
    pub fn join(&mut self, name: &str, config: Config) -> Result<()> {
        self.check_new(name)?;
        let channel = Channel::new(name, &self.own_id, config)?;
        self.insert(channel, 0);
        Ok(())
    }

    /// Takes part in a channel that was kept: see [`Channel::load`].
    ///
    /// # Errors
    /// [`Error::ChannelExists`], [`Error::Saved`], [`Error::Limit`], [`Error::Config`].
    ///
    /// ```
    /// use mainstay_sds::{Config, Now, Participant, persist::{Memory, Persistence}};
    /// let mut memory = Memory::new();
    /// let mut alice = Participant::new(b"alice")?;
    /// alice.load("room", Config::lip(), Now::zero(), &memory.load("room")?)?;
    /// assert!(alice.names().eq(["room"]));
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    pub fn load(
        &mut self,
        name: &str,
        config: Config,
        now: Now,
        changes: &[impl AsRef<[u8]>],
    ) -> Result<()> {
        self.check_new(name)?;
        let channel = Channel::load(name, &self.own_id, config, now, changes)?;
        self.insert(channel, now.mono_ms);
        Ok(())
    }

    /// Takes part in a channel that `nim-sds` kept: see [`Channel::import_nim`].
    ///
    /// # Errors
    /// [`Error::ChannelExists`], and those of [`Channel::import_nim`].
    ///
    /// ```
    /// use mainstay_sds::{Config, NimSnapshot, Now, Participant};
    /// let snapshot = NimSnapshot::parse(&[0x0a, 0x04, 0x08, 0x01, 0x10, 0x2a])?;
    /// let mut alice = Participant::new(b"alice")?;
    /// alice.import_nim("room", Config::nim(), Now::zero(), &snapshot)?;
    /// assert_eq!(alice.channel(Now::zero(), "room")?.counts().lamport, 42);
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    pub fn import_nim(
        &mut self,
        name: &str,
        config: Config,
        now: Now,
        snapshot: &NimSnapshot,
    ) -> Result<()> {
        self.check_new(name)?;
        let channel = Channel::import_nim(name, &self.own_id, config, now, snapshot)?;
        self.insert(channel, now.mono_ms);
        Ok(())
    }

    fn check_new(&self, name: &str) -> Result<()> {
        if self.names.contains_key(name) {
            return Err(Error::ChannelExists { name: name.to_owned() });
        }
        within("number of channels", self.names.len() as u64 + 1, 1, CHANNELS_MAX as u64)
    }

    fn insert(&mut self, channel: Channel, used_at: u64) {
        let name: Box<str> = channel.name().into();
        let state = State::Awake(Box::new(channel));
        let slot = Some(Slot { name: name.clone(), state, is_busy: false, wake_at: None, used_at });
        let at = match self.free.pop() {
            Some(at) => {
                self.channels[at as usize] = slot;
                at
            }
            None => {
                self.channels.push(slot);
                (self.channels.len() - 1) as u32
            }
        };
        self.names.insert(name, at);
        self.settle(at);
    }

    /// Leaves a channel and drops all that is known of it. What was kept elsewhere stays there.
    ///
    /// # Errors
    /// [`Error::UnknownChannel`].
    ///
    /// ```
    /// use mainstay_sds::{Config, Participant};
    /// let mut alice = Participant::new(b"alice")?;
    /// alice.join("room", Config::lip())?;
    /// alice.leave("room")?;
    /// assert!(alice.leave("room").is_err());
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    pub fn leave(&mut self, name: &str) -> Result<()> {
        let at = self.find(name)?;
        self.names.remove(name);
        self.channels[at as usize] = None;
        self.busy.retain(|&busy| busy != at);
        self.free.push(at);
        Ok(())
    }

    /// The names of all channels, in any order.
    ///
    /// Example: see [`Participant::load`].
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(|name| &**name)
    }

    /// A channel, awake. After giving it an input, say so ([`touched`](Self::touched)).
    ///
    /// # Errors
    /// [`Error::UnknownChannel`].
    ///
    /// Example: see [`Participant`].
    pub fn channel(&mut self, now: Now, name: &str) -> Result<&mut Channel> {
        let at = self.find(name)?;
        self.awake(now, at)
    }

    /// Something was done to a channel directly: it may have outputs, or another timer.
    ///
    /// Example: see [`Participant`].
    pub fn touched(&mut self, name: &str) {
        if let Ok(at) = self.find(name) {
            self.settle(at);
        }
    }

    fn find(&self, name: &str) -> Result<u32> {
        let unknown = || Error::UnknownChannel { name: name.to_owned() };
        self.names.get(name).copied().ok_or_else(unknown)
    }

    fn awake(&mut self, now: Now, at: u32) -> Result<&mut Channel> {
        let gone = || Error::UnknownChannel { name: String::new() };
        let slot = self.channels[at as usize].as_mut().ok_or_else(gone)?;
        slot.used_at = now.mono_ms;
        if let State::Asleep(_) = slot.state {
            let State::Asleep(asleep) = std::mem::replace(&mut slot.state, State::Moving) else {
                return Err(gone());
            };
            let copy = asleep.clone();
            match asleep.wake(now) {
                Ok(channel) => slot.state = State::Awake(Box::new(channel)),
                Err(error) => {
                    slot.state = State::Asleep(copy);
                    return Err(error);
                }
            }
        }
        match &mut slot.state {
            State::Awake(channel) => Ok(channel),
            _ => Err(gone()),
        }
    }

    /// Gives a message to the channel that it names.
    ///
    /// # Errors
    /// [`Error::UnknownChannel`] if this participant is not in it, and those of
    /// [`Channel::receive`].
    ///
    /// Example: see [`Participant`].
    pub fn receive(&mut self, now: Now, bytes: &[u8]) -> Result<Received> {
        let profile = Profile::sniff(bytes)
            .ok_or(Error::Malformed { what: "no field 2, which all messages have", at: 0 })?;
        let name = profile.channel_of(bytes).unwrap_or_default();
        let unknown = || Error::UnknownChannel { name: shown(name) };
        let name = std::str::from_utf8(name).map_err(|_| unknown())?;
        let at = self.find(name)?;
        let received = self.awake(now, at)?.receive(now, bytes);
        self.settle(at);
        received
    }

    /// Does what is due in all channels.
    ///
    /// Example: see [`Participant::poll_timeout`].
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(&Reverse((wake_at, at))) = self.wakes.peek()
            && wake_at <= now.mono_ms
        {
            self.wakes.pop();
            let counts = self.channels[at as usize]
                .as_ref()
                .is_some_and(|slot| slot.wake_at == Some(wake_at));
            if !counts {
                continue;
            }
            if let Some(slot) = &mut self.channels[at as usize] {
                slot.wake_at = None;
            }
            if let Ok(channel) = self.awake(now, at) {
                channel.handle_timeout(now);
            }
            self.settle(at);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called, by the monotonic clock;
    /// `None` if no channel has anything planned.
    ///
    /// ```
    /// use mainstay_sds::{Config, Now, Participant};
    /// let mut alice = Participant::new(b"alice")?;
    /// alice.join("room", Config::lip())?;
    /// assert_eq!(alice.poll_timeout(), None);
    /// alice.channel(Now::zero(), "room")?.send(Now::zero(), b"m1", b"hello")?;
    /// alice.touched("room");
    /// let at = alice.poll_timeout().expect("it has to be sent again if nobody acknowledges it");
    /// alice.handle_timeout(Now::zero().after(at));
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    #[must_use]
    pub fn poll_timeout(&mut self) -> Option<u64> {
        while let Some(&Reverse((wake_at, at))) = self.wakes.peek() {
            let slot = self.channels[at as usize].as_ref();
            if slot.is_some_and(|slot| slot.wake_at == Some(wake_at)) {
                return Some(wake_at);
            }
            self.wakes.pop();
        }
        None
    }

    /// The next output of any channel, with the channel's name.
    ///
    /// Example: see [`Participant`].
    pub fn poll_output(&mut self) -> Option<(&str, Output<'_>)> {
        let at = loop {
            let at = *self.busy.front()?;
            let slot = self.channels[at as usize].as_mut()?;
            if matches!(&slot.state, State::Awake(channel) if channel.has_output()) {
                break at;
            }
            slot.is_busy = false;
            self.busy.pop_front();
        };
        let Slot { name, state, .. } = self.channels[at as usize].as_mut()?;
        let State::Awake(channel) = state else { return None };
        channel.poll_output().map(|output| (&**name, output))
    }

    /// Puts channels to sleep that nothing happened to for `idle_ms`, have nothing planned, and
    /// nothing to say. How many.
    ///
    /// ```
    /// use mainstay_sds::{Config, Now, Participant};
    /// let mut alice = Participant::new(b"alice")?;
    /// alice.join("room", Config::lip())?;
    /// assert_eq!(alice.hibernate(Now::zero().after(60_000), 60_000), 1);
    /// assert_eq!(alice.channel(Now::zero(), "room")?.name(), "room", "it wakes up by itself");
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    pub fn hibernate(&mut self, now: Now, idle_ms: u64) -> usize {
        let mut count = 0;
        for slot in self.channels.iter_mut().flatten() {
            let idle = now.mono_ms.saturating_sub(slot.used_at) >= idle_ms;
            if !idle || slot.is_busy || !matches!(slot.state, State::Awake(_)) {
                continue;
            }
            let State::Awake(channel) = std::mem::replace(&mut slot.state, State::Moving) else {
                continue;
            };
            slot.state = match channel.hibernate() {
                Ok(asleep) => {
                    count += 1;
                    State::Asleep(Box::new(asleep))
                }
                Err(channel) => State::Awake(Box::new(channel)),
            };
        }
        count
    }

    /// The bytes of memory that all channels take, about.
    ///
    /// ```
    /// use mainstay_sds::{Config, Participant};
    /// let mut alice = Participant::new(b"alice")?;
    /// assert_eq!(alice.memory_bytes(), 0);
    /// alice.join("room", Config::lip())?;
    /// assert!(alice.memory_bytes() > 0);
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let bytes = |slot: &Slot| match &slot.state {
            State::Awake(channel) => channel.counts().memory_bytes,
            State::Asleep(asleep) => asleep.memory_bytes(),
            State::Moving => 0,
        };
        self.channels.iter().flatten().map(bytes).sum()
    }

    /// After an input: takes over the channel's outputs and its timer.
    fn settle(&mut self, at: u32) {
        let Some(slot) = self.channels[at as usize].as_mut() else { return };
        let State::Awake(channel) = &slot.state else { return };
        if channel.has_output() && !slot.is_busy {
            slot.is_busy = true;
            self.busy.push_back(at);
        }
        let wake_at = channel.poll_timeout();
        if wake_at != slot.wake_at {
            slot.wake_at = wake_at;
            if let Some(wake_at) = wake_at {
                self.wakes.push(Reverse((wake_at, at)));
            }
        }
    }
}
