//! How a leader is set up, what happens to it, and what it does.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    error::Error,
    limits::{PART_BYTES, WRITE_BYTES_MAX},
};

/// How a leader is to be.
///
/// ```
/// use mainstay_replica::LeadSettings;
/// let settings = LeadSettings::default();
/// assert!(settings.silence > 2 * settings.heartbeat);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct LeadSettings {
    /// How long it says nothing at most.
    pub heartbeat: Duration,
    /// After which silence a follower is given up.
    pub silence: Duration,
    /// How much log is kept for a follower that catches up by comparing; one that is slower begins
    /// anew.
    pub retain_bytes_max: u64,
    /// How many writes a follower without records is sent one by one; for more it is sent records.
    pub replay_max: u64,
    /// How many bytes of writes and records may be on their way to a follower at most, whatever it
    /// allows.
    pub window_max: u64,
    /// How many bytes of writes or records are sent as one; of what is longer parts are, each so long,
    /// up to [`WRITE_BYTES_MAX`].
    pub part_bytes: usize,
}

impl LeadSettings {
    /// The bytes of a part as they can be.
    pub(super) fn of_a_part(&self) -> usize {
        self.part_bytes.clamp(1, WRITE_BYTES_MAX)
    }
}

impl Default for LeadSettings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(2),
            silence: Duration::from_secs(7),
            retain_bytes_max: 1 << 30,
            replay_max: 10_000,
            window_max: 64 << 20,
            part_bytes: PART_BYTES,
        }
    }
}

/// What happens to a leader.
///
/// Example: see [the crate](crate).
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// The deadline has come.
    Tick,
    /// A follower is there. Peers are numbered by the driver; one number is one follower, whose
    /// earlier channel is over when it has a new one.
    Connected {
        /// Who.
        peer: u64,
    },
    /// A follower says something.
    Message {
        /// Who.
        peer: u64,
        /// What.
        bytes: &'a [u8],
    },
    /// A follower's channel is gone.
    Lost {
        /// Whose.
        peer: u64,
    },
}

/// What a leader does.
///
/// Example: see [the crate](crate).
#[derive(Debug)]
pub enum Output {
    /// Send this.
    Send {
        /// To whom.
        peer: u64,
        /// What.
        bytes: Bytes,
        /// It can be sent without a thread of its own if nothing waits before it: the follower has
        /// taken all but a few kilobytes of what there was, as it says, so that there is room for it.
        /// Where there is none it has to wait elsewhere: nobody else waits for a follower.
        at_once: bool,
    },
    /// End the channel, when what was sent has been delivered.
    Close {
        /// To whom.
        peer: u64,
    },
    /// Something that people want to know.
    Told(Told),
}

/// What a leader tells.
///
/// Example: see [`Output`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Told {
    /// A follower is there, and fits.
    Joined {
        /// Who.
        peer: u64,
    },
    /// A follower is not there any more.
    Left {
        /// Who.
        peer: u64,
        /// Why.
        why: String,
    },
    /// There is another leader (E3).
    Replaced {
        /// Its epoch.
        by: u64,
    },
    /// The store refused something.
    Failed(Error),
}
