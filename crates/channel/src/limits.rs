//! Every limit of the crate. What a user may choose is in [`crate::Bounds`]; this is the range and
//! the default.

use std::time::Duration;

/// The longest message anybody may choose to allow, and the default, in bytes.
///
/// ```
/// use mainstay_channel::{Bounds, limits};
/// assert_eq!(Bounds::default().message_len, limits::MESSAGE_LEN_MAX);
/// ```
pub const MESSAGE_LEN_MAX: usize = 64 << 20;

/// How many messages a channel holds in one direction unless told otherwise.
///
/// Example: see [`crate::Bounds`].
pub const MESSAGES_DEFAULT: usize = 1_024;

/// How many bytes a channel holds in one direction unless told otherwise.
///
/// Example: see [`crate::Bounds`].
pub const BYTES_DEFAULT: usize = 4 << 20;

/// The most messages a bound may allow.
///
/// Example: see [`crate::Bounds`].
pub const MESSAGES_MAX: usize = 1 << 20;

/// The most parts one vectored send may have.
///
/// ```
/// use mainstay_channel::{Bytes, Channel, limits, memory};
/// let (a, _b) = memory::pair();
/// let parts = vec![Bytes::from_static(b"x"); limits::PARTS_MAX + 1];
/// assert!(a.send_vectored(&parts[1..]).is_ok());
/// assert!(a.send_vectored(&parts).is_err());
/// ```
pub const PARTS_MAX: usize = 1_024;

/// The longest purpose, in bytes.
///
/// ```
/// use mainstay_channel::handshake::Purpose;
/// use mainstay_channel::limits::PURPOSE_LEN_MAX;
/// assert!(Purpose::new(&"p".repeat(PURPOSE_LEN_MAX)).is_ok());
/// assert!(Purpose::new(&"p".repeat(PURPOSE_LEN_MAX + 1)).is_err());
/// ```
pub const PURPOSE_LEN_MAX: usize = 64;

/// The shortest shared secret, in bytes: whoever plays one side of a handshake can try guesses at
/// leisure, so it must be too long to guess.
///
/// Example: see [`crate::Secret`].
pub const SECRET_LEN_MIN: usize = 16;

/// The longest shared secret, in bytes.
///
/// Example: see [`crate::Secret`].
pub const SECRET_LEN_MAX: usize = 1_024;

/// How many nodes a group in memory may have.
///
/// ```
/// use mainstay_channel::{limits::GROUP_SIZE_MAX, memory};
/// assert!(memory::try_group(GROUP_SIZE_MAX + 1).is_err());
/// ```
pub const GROUP_SIZE_MAX: usize = 65_536;

/// How many strangers may be in the middle of their handshakes with one listener, unless told
/// otherwise; one more displaces the oldest of the busiest address.
///
/// Example: see [`crate::net::Settings`].
#[cfg(feature = "tcp")]
pub const STRANGERS_DEFAULT: usize = 256;

/// How many authenticated channels wait to be accepted before nobody more is let into a handshake;
/// those who are in theirs (as many as strangers may be) still join them. Whoever comes then waits in
/// the kernel, or for a stream.
///
/// Example: see [`crate::net::Listener`].
#[cfg(feature = "tcp")]
pub const ACCEPTED_WAITING: usize = 64;

/// How long a handshake may take, from the first byte to the last, unless told otherwise.
///
/// Example: see [`crate::net::Settings`].
pub const HANDSHAKE_TIME_DEFAULT: Duration = Duration::from_secs(5);

/// The longest payload of a frame before the peer has proved who it is, in bytes.
///
/// ```
/// use mainstay_channel::{frame::Decoder, limits};
/// let decoder = Decoder::new(limits::HANDSHAKE_LEN_MAX);
/// # drop(decoder);
/// ```
pub const HANDSHAKE_LEN_MAX: usize = 256;

/// How long a clean close waits for the peer to take what is still on its way.
///
/// Example: see [`crate::Channel::close`].
pub const LINGER: Duration = Duration::from_secs(10);

/// The first pause of a dialler after a failure.
///
/// Example: see [`crate::dial::Backoff`].
pub const BACKOFF_MIN: Duration = Duration::from_secs(1);

/// The longest pause of a dialler.
///
/// Example: see [`crate::dial::Backoff`].
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// How many who wait for one queue are remembered; one more wakes all of them, to look again.
pub(crate) const WAITERS_MAX: usize = 256;
