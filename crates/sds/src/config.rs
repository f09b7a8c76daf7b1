//! What a channel is told when it is made.

use crate::{
    bloom::{self, Params, RollingFilter},
    error::{Error, Result, within},
    limits,
    repair::response_groups,
    wire::Profile,
};

/// Whether a new participant was there from the channel's first message on.
///
/// A message names what it depends on, but not when that was sent: "before I came" cannot be told
/// from "lost on the way", so it has to be said.
///
/// ```
/// use mainstay_sds::{Config, Start};
/// assert_eq!(Config::lip().start, Start::Beginning);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// All of the channel's history is wanted. What the first messages depend on is asked for, and
    /// what that depends on, as far back as the others remember.
    Beginning,
    /// The channel is older than this participant: what the first message depends on is from before
    /// its time. It is reported once as missing and then counts as known.
    Joining,
}

/// Whether, and how strictly, changes are to be kept by somebody.
///
/// Example: see [`Output::Persist`](crate::Output::Persist).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Keep {
    /// Nothing outlives the process.
    Nothing,
    /// Changes are handed out, and nothing waits for them: a failure delays no message.
    Relaxed,
    /// No message is sent or delivered before the change it caused is kept.
    Durable,
}

/// When a message of content carries the filter.
///
/// ```
/// use mainstay_sds::{Config, FilterPolicy};
/// assert_eq!(Config::lip().filter_policy, FilterPolicy::Always);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FilterPolicy {
    /// Always, as the specification says ("MUST include the current `bloom_filter`").
    Always,
    /// Every 16th message, and one in ten seconds. Deviates from the specification, saves most of
    /// the bytes on the wire; sync messages still carry it.
    Sparse,
}

/// How a channel behaves. Start from [`Config::lip`] or one of its kin and change what you need.
///
/// ```
/// use mainstay_sds::{Channel, Config};
/// let mut config = Config::lip();
/// config.participants = 1000;
/// config.seed = 42;
/// let channel = Channel::new("room", b"alice", config)?;
/// # Ok::<(), mainstay_sds::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// The dialect of the group.
    pub profile: Profile,
    /// Whether all peers are Mainstay's: then the filter may have any size in both profiles.
    pub only_own_peers: bool,
    /// About how many participants there are; decides response groups and when to stop syncing.
    pub participants: u32,
    /// Whether older messages are wanted.
    pub start: Start,
    /// Seed of the secret key that ids are looked up under, and of jitter. Give each process a
    /// random one: who knows it can slow the channel down.
    pub seed: u64,

    /// Ids the filter is made for, and its error rate when it holds as many.
    pub filter_capacity: u32,
    /// See [`filter_capacity`](Self::filter_capacity).
    pub filter_error_rate: f64,
    /// When messages carry the filter.
    pub filter_policy: FilterPolicy,
    /// Messages in the log. Twice as many ids are remembered after they have left it.
    pub history: usize,
    /// Entries of the log's end that each message cites. LIP-109 recommends 2.
    pub causal: usize,
    /// The same for sync messages: more, as they are what tells others of late messages.
    pub sync_causal: usize,

    /// How long to wait before an unacknowledged message is sent again.
    pub resend_ms: u64,
    /// The same when it is possibly acknowledged.
    pub resend_possibly_ms: u64,
    /// How often it is sent again before it is reported as failed.
    pub resend_attempts: u8,

    /// Whether sync messages are sent.
    pub sync: bool,
    /// About how long a channel with news is silent before somebody sends a sync message.
    pub sync_interval_ms: u64,

    /// Whether to ask for missing messages and to answer others who do (SDS-R).
    pub repair: bool,
    /// LIP-109, SDS-R global state: T_min and T_max, common to all members of a group.
    pub t_min_ms: u64,
    /// See [`t_min_ms`](Self::t_min_ms).
    pub t_max_ms: u64,
    /// LIP-109, SDS-R global state: `num_response_groups`; `None` takes the one for the number of
    /// [`participants`](Self::participants).
    pub response_groups: Option<u32>,
    /// Requests in a message of content, and in a sync message.
    pub requests: usize,
    /// See [`requests`](Self::requests).
    pub sync_requests: usize,

    /// Whether the application is told to fetch missing messages from elsewhere.
    pub fetch: bool,
    /// How long after the first time it is told again; then twice as long, up to sixteen times.
    pub fetch_interval_ms: u64,
    /// When a missing message is given up, and what depends on it delivered without it; `None`
    /// never does. LIP-109, Periodic Incoming Buffer Sweep ("irretrievably lost").
    pub lost_after_ms: Option<u64>,

    /// How far past the wall clock a Lamport time may be.
    pub lamport_ahead_ms: u64,
    /// How far past the channel's own Lamport time one may be, in units of the profile.
    pub lamport_gap: u64,
    /// How far past the wall clock the first message may be that one who joins hears.
    pub lamport_join_ahead_ms: u64,

    /// The longest message that is sent, in bytes: what the transport carries. Content that would
    /// make a longer one is refused; what sync messages cite is shortened until they fit.
    pub message_len_max: usize,
    /// Own messages that may wait for an acknowledgement.
    pub outgoing_max: usize,
    /// Messages that may wait for what they depend on, and their bytes.
    pub incoming_max: usize,
    /// See [`incoming_max`](Self::incoming_max).
    pub incoming_bytes_max: usize,
    /// The same for the messages of one sender.
    pub incoming_per_sender_max: usize,
    /// See [`incoming_per_sender_max`](Self::incoming_per_sender_max).
    pub incoming_per_sender_bytes_max: usize,

    /// Whether deliveries have to be confirmed, and come again after a restart until they are.
    pub confirm: bool,
    /// Whether changes are to be kept.
    pub keep: Keep,
}

impl Config {
    /// The specification's profile, with a filter that `@waku/sds` reads.
    ///
    /// Example: see [`Config`].
    #[must_use]
    pub fn lip() -> Self {
        Self {
            profile: Profile::Lip,
            only_own_peers: false,
            participants: 100,
            start: Start::Beginning,
            seed: 0,
            filter_capacity: 10_000,
            filter_error_rate: 0.001,
            filter_policy: FilterPolicy::Always,
            history: 1000,
            causal: 10,
            sync_causal: 50,
            resend_ms: 60_000,
            resend_possibly_ms: 240_000,
            resend_attempts: 5,
            sync: true,
            sync_interval_ms: 30_000,
            repair: true,
            t_min_ms: 30_000,
            t_max_ms: 120_000,
            response_groups: None,
            requests: 3,
            sync_requests: 16,
            fetch: false,
            fetch_interval_ms: 10_000,
            lost_after_ms: Some(3_600_000),
            lamport_ahead_ms: 3_600_000,
            lamport_gap: 3_600_000,
            lamport_join_ahead_ms: 30 * 24 * 3_600_000,
            message_len_max: limits::MESSAGE_LEN_MAX,
            outgoing_max: 8192,
            incoming_max: limits::INCOMING_MAX,
            incoming_bytes_max: limits::INCOMING_BYTES_MAX,
            incoming_per_sender_max: 1024,
            incoming_per_sender_bytes_max: 4 << 20,
            confirm: false,
            keep: Keep::Nothing,
        }
    }

    /// The profile of `nim-sds`, for a group that such peers are in: their repair times and one
    /// response group, and no sync messages, which they would deliver as empty content.
    ///
    /// ```
    /// assert!(!mainstay_sds::Config::nim().sync);
    /// ```
    #[must_use]
    pub fn nim() -> Self {
        Self {
            profile: Profile::Nim,
            sync: false,
            t_max_ms: 300_000,
            response_groups: Some(1),
            lamport_gap: 100_000,
            // They count seconds up faster than time goes: a busy channel is years ahead.
            lamport_join_ahead_ms: 10 * 365 * 24 * 3_600_000,
            ..Self::lip()
        }
    }

    /// The profile of `nim-sds` for a group of Mainstay's own peers, with all that they can do.
    ///
    /// ```
    /// assert!(mainstay_sds::Config::nim_own().sync);
    /// ```
    #[must_use]
    pub fn nim_own() -> Self {
        let own = Self::lip();
        Self {
            only_own_peers: true,
            sync: own.sync,
            t_max_ms: own.t_max_ms,
            response_groups: own.response_groups,
            ..Self::nim()
        }
    }

    /// A filter as small as its purpose allows: to acknowledge messages of the time in which they
    /// are sent again, in a channel of about `rate` messages a second.
    ///
    /// ```
    /// let config = mainstay_sds::Config::nim().filter_for_rate(0.2);
    /// assert_eq!(config.filter_capacity, 1000);
    /// ```
    #[must_use]
    pub fn filter_for_rate(mut self, rate: f64) -> Self {
        let horizon_s = self.resend_ms as f64 / 1e3 * f64::from(self.resend_attempts);
        self.filter_capacity = (1.5 * rate * horizon_s).clamp(1000.0, 10_000.0) as u32;
        self.filter_error_rate = 0.001;
        self
    }

    /// Response groups in use.
    pub(crate) fn groups(&self) -> u32 {
        self.response_groups.unwrap_or_else(|| response_groups(self.participants))
    }

    /// After how many sync messages without news nobody needs another: the chance that one of the
    /// participants missed all of them is below a millionth when a fifth of all messages is lost.
    pub(crate) fn syncs_without_news_max(&self) -> u32 {
        let others = f64::from(self.participants.max(2) - 1);
        (((others / 1e-6).ln() / 5_f64.ln()).ceil() as u32).max(1)
    }

    /// The longer silence of large groups, in which several would start before they hear another.
    pub(crate) fn sync_window_ms(&self) -> u64 {
        self.sync_interval_ms.max(u64::from(self.participants) * 100 / 3)
    }

    /// Checks everything and makes the filter.
    pub(crate) fn filter(&self) -> Result<RollingFilter> {
        let max = u64::from(limits::FILTER_CAPACITY_MAX);
        within("capacity of the filter", u64::from(self.filter_capacity), 1, max)?;
        let params = Params::new(self.filter_capacity, self.filter_error_rate)?;
        bloom::checked(self.profile, params, self.only_own_peers)
    }

    pub(crate) fn check(&self) -> Result<()> {
        let entries = limits::CAUSAL_MAX as u64;
        let requests = limits::REQUESTS_MAX as u64;
        let bytes = limits::INCOMING_BYTES_MAX as u64;
        let incoming = limits::INCOMING_MAX as u64;
        let (short, long) = (limits::MESSAGE_LEN_MAX_MIN as u64, limits::MESSAGE_LEN_MAX as u64);
        for (what, value, min, max) in [
            ("number of participants", u64::from(self.participants), 1, u64::from(u32::MAX)),
            ("length of the history", self.history as u64, 1, limits::HISTORY_MAX as u64),
            ("number of entries cited", self.causal as u64, 1, entries / 2),
            ("number of entries cited by a sync message", self.sync_causal as u64, 1, entries / 2),
            ("time until a message is sent again", self.resend_ms, 1, u64::from(u32::MAX)),
            (
                "time until a possibly acknowledged message is sent again",
                self.resend_possibly_ms,
                1,
                u64::from(u32::MAX),
            ),
            ("time between sync messages", self.sync_interval_ms, 100, u64::from(u32::MAX)),
            ("time T_min", self.t_min_ms, 1, u64::from(u32::MAX)),
            ("time T_max", self.t_max_ms, self.t_min_ms, u64::from(u32::MAX)),
            ("number of response groups", u64::from(self.groups()), 1, u64::from(u32::MAX)),
            ("number of requests", self.requests as u64, 0, requests),
            ("number of requests of a sync message", self.sync_requests as u64, 0, requests),
            ("time between fetches", self.fetch_interval_ms, 1, u64::from(u32::MAX)),
            ("time a Lamport time may be ahead", self.lamport_ahead_ms, 0, 1 << 48),
            ("gap a Lamport time may leave", self.lamport_gap, 1, 1 << 48),
            ("time the first Lamport time may be ahead", self.lamport_join_ahead_ms, 0, 1 << 48),
            ("length of the longest message", self.message_len_max as u64, short, long),
            ("limit of own messages", self.outgoing_max as u64, 1, limits::OUTGOING_MAX as u64),
            ("limit of messages that wait", self.incoming_max as u64, 1, incoming),
            ("limit of bytes that wait", self.incoming_bytes_max as u64, 1, bytes),
            ("limit of messages a sender", self.incoming_per_sender_max as u64, 1, incoming),
            ("limit of bytes a sender", self.incoming_per_sender_bytes_max as u64, 1, bytes),
        ] {
            within(what, value, min, max)?;
        }
        if let Some(lost) = self.lost_after_ms {
            within("time until a message is given up", lost, 1, u64::from(u32::MAX))?;
        }
        if self.confirm && self.keep == Keep::Relaxed {
            return Err(Error::Config {
                what: "deliveries that are to be confirmed need keep = Durable: a delivery whose \
                       message is not kept cannot come again",
            });
        }
        Ok(())
    }
}
