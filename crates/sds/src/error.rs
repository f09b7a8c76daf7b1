//! What can go wrong.

use crate::wire::Profile;

/// The result of everything in this crate.
///
/// Example: see [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Each variant says what was wrong, where, and what to do. Whatever is refused changes nothing.
///
/// ```
/// use mainstay_sds::{Channel, Config, Error, Now};
/// let mut channel = Channel::new("room", b"alice", Config::lip())?;
/// let refused = channel.receive(Now::zero(), b"noise");
/// assert!(matches!(refused, Err(Error::Malformed { .. })));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Bytes that are no message of the profile.
    #[error("not a message: {what} at byte {at}; drop it, and check who sends on this channel")]
    Malformed {
        /// What was seen.
        what: &'static str,
        /// Where, in bytes from the start.
        at: usize,
    },
    /// A message of the other profile.
    #[error(
        "a message of the {found} profile on a channel of the {expected} profile: their peers \
         cannot talk to each other; create the channel with the profile of its group"
    )]
    OtherProfile {
        /// What the channel was created with.
        expected: Profile,
        /// What the message is.
        found: Profile,
    },
    /// A message for another channel.
    #[error("a message for channel {found:?}, not {expected:?}: give it to that channel")]
    OtherChannel {
        /// The channel that was asked.
        expected: String,
        /// The channel the message names.
        found: String,
    },
    /// A channel this participant has not joined.
    #[error("no channel is called {name:?}: join it first; strangers cannot create channels")]
    UnknownChannel {
        /// The name.
        name: String,
    },
    /// A channel that is there already.
    #[error("there is a channel {name:?} already: use it, or leave it first")]
    ChannelExists {
        /// The name.
        name: String,
    },
    /// A number or a length is outside of its limits.
    #[error("the {what} is {value}, and must be {min} to {max}: choose another")]
    Limit {
        /// Which number.
        what: &'static str,
        /// What was given.
        value: u64,
        /// The smallest possible.
        min: u64,
        /// The largest possible.
        max: u64,
    },
    /// An id that was used before.
    #[error("message id {id:?} was used before in this channel: give each message its own")]
    DuplicateId {
        /// The id.
        id: String,
    },
    /// Something that the profile has no way to say.
    #[error("the {profile} profile has no {what}: use a channel of the other profile for it")]
    NotInProfile {
        /// Which profile.
        profile: Profile,
        /// What it lacks.
        what: &'static str,
    },
    /// A Lamport time too far ahead of the clock and of the channel.
    #[error(
        "the message's Lamport time {lamport} is past {limit}, the latest that is believed; check \
         the clocks here and there"
    )]
    LamportAhead {
        /// What the message says.
        lamport: u64,
        /// The largest value accepted now.
        limit: u64,
    },
    /// Too many messages of one's own wait to be acknowledged.
    #[error(
        "{count} messages wait to be acknowledged, the limit is {limit}: wait until some are \
         acknowledged or given up"
    )]
    OutgoingFull {
        /// How many wait.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// Too many deliveries wait to be confirmed.
    #[error("{count} deliveries are not confirmed: confirm some before taking in more")]
    Unconfirmed {
        /// How many wait.
        count: usize,
    },
    /// Too much output waits to be polled.
    #[error("{bytes} bytes of output wait: poll all output after each input")]
    Undrained {
        /// How many bytes.
        bytes: usize,
    },
    /// A configuration that contradicts itself.
    #[error("configuration: {what}")]
    Config {
        /// What is wrong and what to do.
        what: &'static str,
    },
    /// A saved state that cannot be read.
    #[error("saved state of channel {channel:?}: {what}; it was not changed")]
    Saved {
        /// Which channel.
        channel: String,
        /// What is wrong.
        what: &'static str,
    },
    /// A place that keeps channels failed.
    #[error("persistence: {what}")]
    Persistence {
        /// What went wrong, where, and what to do.
        what: String,
    },
}

/// An id or a name for people: as text if it is text, in hexadecimal otherwise.
///
/// ```
/// use mainstay_sds::shown;
/// assert_eq!(shown(b"msg1"), "msg1");
/// assert_eq!(shown(&[0xff, 0x80]), "0xff80");
/// ```
#[must_use]
pub fn shown(id: &[u8]) -> String {
    use std::fmt::Write as _;
    match std::str::from_utf8(id) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => id.iter().fold("0x".to_owned(), |mut text, byte| {
            let _infallible = write!(text, "{byte:02x}");
            text
        }),
    }
}

/// Refuses a value outside of `min..=max`.
pub(crate) fn within(what: &'static str, value: u64, min: u64, max: u64) -> Result<()> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(Error::Limit { what, value, min, max })
}
