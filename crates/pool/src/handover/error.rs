//! What can go wrong with a hand-over.

use std::{ffi::OsString, io, time::Duration};

/// Why a descriptor was not handed over. No descriptor is lost or leaked by an error.
///
/// ```
/// use mainstay_pool::handover::{HandoverError, fdstore_take};
/// let refused = fdstore_take("calls:live");
/// assert!(matches!(refused, Err(HandoverError::FdName { .. })));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandoverError {
    /// A name the service manager would not store a descriptor under.
    #[error(
        "descriptor name {name:?} is not allowed: {fault}; use 1 to 255 ASCII characters \
         without control characters and ':'"
    )]
    FdName {
        /// The name.
        name: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// No service manager listens to this process.
    #[error(
        "NOTIFY_SOCKET is not set: no service manager listens to this process; start it as a \
         unit with Type=notify and FileDescriptorStoreMax="
    )]
    NotManaged,
    /// The service manager's socket is of a kind that cannot carry descriptors.
    #[error(
        "NOTIFY_SOCKET is {address:?}; only a path or '@' and an abstract name can carry \
         descriptors"
    )]
    ManagerAddress {
        /// What `NOTIFY_SOCKET` says.
        address: OsString,
    },
    /// The service manager did not answer in time. Whether it has the descriptor is not known.
    #[error(
        "cannot {action}: it took more than {timeout:?}; see whether the manager is busy or \
         stopped, then repeat (a descriptor it already has is kept once)"
    )]
    ManagerTimedOut {
        /// What was being done.
        action: &'static str,
        /// How long it was waited for.
        timeout: Duration,
    },
    /// `LISTEN_PID`, `LISTEN_FDS`, `LISTEN_FDNAMES` and the open descriptors do not agree.
    #[error(
        "the descriptors announced in LISTEN_FDS and LISTEN_FDNAMES cannot be taken: {0}; take \
         them before anything else closes or reuses them"
    )]
    PassedFds(#[source] io::Error),
    /// More descriptors than one message may carry.
    #[error(
        "{count} descriptors in one message, at most {limit} are allowed; send them in several \
         messages"
    )]
    TooManyFds {
        /// How many there were.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// The kernel cut descriptors off a received message.
    #[error(
        "the sender passed more descriptors than could be received ({arrived} arrived and were \
         closed, at most {limit} are allowed, and the process's limit of open files counts \
         too); send fewer or raise `ulimit -n`"
    )]
    FdsTruncated {
        /// How many came through.
        arrived: usize,
        /// How many there may be.
        limit: usize,
    },
    /// Descriptors were to be sent or received without a byte of payload.
    #[error(
        "descriptors need at least one byte of payload to travel with; pass a payload, or a \
         buffer to receive one"
    )]
    EmptyPayload,
    /// The system refused a step of a hand-over.
    #[error("cannot {action}: {source}; check the peer and its socket")]
    System {
        /// What was being done.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}
