//! What can go wrong with followers.

/// The result of everything in this crate.
///
/// Example: see [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Each variant says what was wrong, where, and what to do.
///
/// ```
/// use mainstay_replica::{Error, FollowSettings, Follower};
/// use mainstay_store::{Options, RawStore};
/// use std::{sync::Arc, time::Duration};
/// let leads = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
/// let refused = Follower::new(Arc::new(leads), FollowSettings::default(), 7, Duration::ZERO);
/// assert!(matches!(refused, Err(Error::Store(mainstay_store::Error::Leads))));
/// # Ok::<(), mainstay_store::Error>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store refused something.
    #[error(transparent)]
    Store(#[from] mainstay_store::Error),
    /// The channel refused something.
    #[error(transparent)]
    Channel(#[from] mainstay_channel::Error),
    /// The two ends do not fit together.
    #[error("{by} refused: {why}; make both ends replicas of one store, of one release")]
    Refused {
        /// Who.
        by: &'static str,
        /// Why, with the values of both ends.
        why: String,
    },
    /// Too few followers have a write in time.
    #[error(
        "not {want} followers had the write after {after:?}; it is in this store and may reach \
         them later: read it there before writing it again"
    )]
    TooFew {
        /// How many were asked for.
        want: usize,
        /// How long was waited.
        after: std::time::Duration,
    },
    /// The operating system refused something.
    #[error("{what}: {source}; raise the limits of this process, then try again")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What it said.
        source: std::io::Error,
    },
}
