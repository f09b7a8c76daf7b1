//! How a follower is set up, what happens to it, what it does, and how it is.

use std::time::Duration;

use bytes::Bytes;
use mainstay_channel::limits::{BACKOFF_MAX, BACKOFF_MIN};
use mainstay_store::Position;

use crate::{error::Error, wire::Way};

/// How a follower is to be.
///
/// ```
/// use mainstay_replica::FollowSettings;
/// let settings = FollowSettings::default();
/// assert!(settings.silence > 2 * settings.heartbeat);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct FollowSettings {
    /// How long it says nothing at most.
    pub heartbeat: Duration,
    /// After which silence a leader is given up.
    pub silence: Duration,
    /// How many bytes of writes and records may be on their way to it.
    pub window_bytes: u64,
    /// How long what it has taken may be in memory only.
    pub sync_after: Duration,
    /// How many messages of writes may be.
    pub sync_messages: u64,
    /// How long it waits before it calls a leader again (O4), the first time.
    pub pause_min: Duration,
    /// The same, at most.
    pub pause_max: Duration,
    /// Is it to be a copy of one moment? From the first write on it is not
    /// [whole](crate::Sink::is_whole) until all shards have caught up; otherwise that is so only if
    /// records are compared, and if it is new.
    pub as_one: bool,
}

impl Default for FollowSettings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(2),
            silence: Duration::from_secs(7),
            window_bytes: 1 << 20,
            sync_after: Duration::from_millis(10),
            sync_messages: 1_000,
            pause_min: BACKOFF_MIN,
            pause_max: BACKOFF_MAX,
            as_one: false,
        }
    }
}

/// What happens to a follower.
///
/// Example: see [the crate](crate).
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// The deadline has come.
    Tick,
    /// The channel that was asked for is there.
    Connected,
    /// The leader says something.
    Message(&'a [u8]),
    /// The channel is gone, or did not come about.
    Lost,
    /// The sync that was asked for is done; `false`: it failed.
    Synced(bool),
}

/// What a follower does.
///
/// Example: see [the crate](crate).
#[derive(Debug)]
pub enum Output {
    /// Call the leader.
    Connect,
    /// Send this.
    Send(Bytes),
    /// End the channel, when what was sent has been delivered.
    Disconnect,
    /// Make all that was taken durable, and say so ([`crate::Sink::sync`]).
    Sync,
    /// Something that people want to know.
    Told(Told),
}

/// What a follower tells.
///
/// Example: see [`Output`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Told {
    /// A leader is there, and fits.
    Joined {
        /// Its epoch.
        epoch: u64,
    },
    /// How a shard gets on.
    Way {
        /// Which shard.
        shard: u32,
        /// How.
        way: Way,
        /// Where it was.
        was: Option<Position>,
    },
    /// A shard has all that there was when this was sent.
    CaughtUp {
        /// Which shard.
        shard: u32,
    },
    /// Records that the leader does not have were set aside (N5).
    SetAside {
        /// Of which shard.
        shard: u32,
        /// How many.
        records: u64,
    },
    /// A leader was refused: there is one of a higher epoch.
    StaleLeader {
        /// Its epoch.
        epoch: u64,
        /// The highest one known.
        known: u64,
    },
    /// The two do not fit, or one of them has broken the protocol.
    Refused(Error),
    /// The channel is gone.
    Lost,
    /// The store refused something.
    Failed(Error),
}

/// How a follower is with a shard.
///
/// Example: see [`crate::Follower::status`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Where it is; none: on its way by comparing.
    pub at: Option<Position>,
    /// The last write that is durable; 0: unknown.
    pub durable: u64,
    /// The leader's last write, as far as is known.
    pub tip: u64,
    /// It has had all that there was, on this channel.
    pub is_caught_up: bool,
}
