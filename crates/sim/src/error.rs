//! What can go wrong in a world.

use crate::{NodeId, Time};

/// The result of everything in this crate.
///
/// Example: see [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a run ended before its time.
///
/// ```
/// use mainstay_sim::{Error, Time};
/// let error = Error::Failed { at: Time::from_nanos(5), what: "two leaders in term 3".into() };
/// assert_eq!(error.to_string(), "at 0.000000005: two leaders in term 3");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The story says that what was simulated is wrong.
    #[error("at {at}: {what}")]
    Failed {
        /// When it was seen.
        at: Time,
        /// What is wrong.
        what: String,
    },
    /// A node keeps asking to be woken at a time that has passed.
    #[error(
        "at {at}: {node} was woken {wakes} times without time going on; let `deadline` return a \
         later time once a wake-up has been handled"
    )]
    Spins {
        /// When.
        at: Time,
        /// Which node.
        node: NodeId,
        /// How often.
        wakes: u32,
    },
    /// A node gives outputs without end.
    #[error(
        "at {at}: {node} gave {outputs} outputs for one input; let `poll` return `None` when all \
         is said"
    )]
    Talks {
        /// When.
        at: Time,
        /// Which node.
        node: NodeId,
        /// How many.
        outputs: usize,
    },
    /// More events wait than a world can hold.
    #[error(
        "at {at}: {waiting} events wait for their time; look for a message that is answered by \
         more than one, and for ever"
    )]
    Flooded {
        /// When.
        at: Time,
        /// How many.
        waiting: usize,
    },
    /// A node wrote more into a stream than the window let it.
    #[error(
        "at {at}: {node} wrote {bytes} bytes into a stream with room for {room}; write what \
         `Connected`, `Accepted` and `Writable` allow"
    )]
    Overruns {
        /// When.
        at: Time,
        /// Which node.
        node: NodeId,
        /// How much it wrote.
        bytes: usize,
        /// How much it might have written.
        room: usize,
    },
    /// A node used a stream identifier that it may not use.
    #[error("at {at}: {node} used {stream}: {why}")]
    Stream {
        /// When.
        at: Time,
        /// Which node.
        node: NodeId,
        /// Which stream.
        stream: crate::StreamId,
        /// What is wrong with it.
        why: &'static str,
    },
}
