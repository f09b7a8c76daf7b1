//! The cores over channels, with threads: one for a leader, and two for each of its followers; one
//! for a follower, and one that syncs for it. With the feature `metrics` they set gauges: how far
//! each follower is behind with each shard, in events, bytes and seconds
//! (`mainstay_replica_lag_events`, `_bytes`, `_seconds`, by `store`, `follower` and `shard`), which
//! are there (`_connected`), what is held for them (`_held_bytes`), and at a follower `_caught_up`,
//! `_behind_events` and `_undurable_events`.
//!
//! ```
//! use mainstay_channel::{Channel, memory};
//! use mainstay_replica::{FollowSettings, LeadSettings, Level, drive};
//! use mainstay_sim::Disk;
//! use mainstay_store::{Durability, Options, RawStore};
//! use std::{sync::{Arc, Mutex}, time::Duration};
//! let options = Options::default();
//! let ours = Arc::new(RawStore::create(Disk::new(1), 2, 3, &options)?);
//! let copy = Arc::new(RawStore::create_replica(Disk::new(2), &ours.identity(), &options)?);
//! let leader = drive::lead(Arc::clone(&ours), LeadSettings::default(), |_| {})?;
//! let (here, there) = memory::pair();
//! leader.attach(Arc::new(here));
//! let there = Mutex::new(Some(there));
//! let dial = move || Ok(Arc::new(there.lock().unwrap().take().unwrap()) as Arc<dyn Channel>);
//! let follower = drive::follow(Arc::clone(&copy), dial, FollowSettings::default(), |_| {})?;
//! let token = ours.put(b"de", b"049", Durability::Memory)?;
//! leader.wait_for(&[token], Level::Durable, 1, Duration::from_secs(20))?;
//! assert_eq!(copy.get(b"de")?, Some(b"049".to_vec()));
//! assert_eq!(follower.stop()[token.shard as usize].durable, ours.sequence_of(token)?);
//! # Ok::<(), mainstay_replica::Error>(())
//! ```
//!
//! Whoever drives a store does not look after it: a [`RawStore`](mainstay_store::RawStore) or
//! [`RawLogStore`](mainstay_store::RawLogStore) that leads or follows is synced for
//! [`Durability::Interval`](mainstay_store::Durability::Interval), compacted and swept only when the
//! program calls its `tend` from time to time. Typed stores have threads that do it, and lead and
//! follow by what their `shared` returns, in both roles and while these change:
//!
//! ```
//! use mainstay_channel::{Channel, memory};
//! use mainstay_replica::{FollowSettings, LeadSettings, Level, drive};
//! use mainstay_store::{Directory, Durability, FixedStore, Options, RawStore};
//! use std::{sync::{Arc, Mutex}, time::Duration};
//! let (dir, options) = (tempfile::tempdir()?, Options::default());
//! let mut ours = FixedStore::<u64, u32>::create(&dir.path().join("ours"), &options)?;
//! let leader = drive::lead(Arc::clone(ours.shared()), LeadSettings::default(), |_| {})?;
//! let (here, there) = memory::pair();
//! leader.attach(Arc::new(here));
//!
//! // Elsewhere:
//! let identity = drive::ask(&there, Duration::from_secs(20))?.identity;
//! let folder = Directory::lock(&dir.path().join("copy"))?;
//! let copy = RawStore::create_replica(folder, &identity, &options)?;
//! let mut copy = FixedStore::<u64, u32>::over(copy, &options)?;
//! let there = Mutex::new(Some(there));
//! let dial = move || Ok(Arc::new(there.lock().unwrap().take().unwrap()) as Arc<dyn Channel>);
//! let shared = Arc::clone(copy.shared());
//! let follower = drive::follow(shared, dial, FollowSettings::default(), |_| {})?;
//!
//! let token = ours.put(&7, &49, Durability::Interval)?;
//! leader.wait_for(&[token], Level::Durable, 1, Duration::from_secs(20))?;
//! assert_eq!(copy.get(&7)?, Some(49));
//!
//! // They change places.
//! drop((leader, follower));
//! copy.promote(4711)?;
//! ours.demote()?;
//! copy.put(&7, &50, Durability::Interval)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod follow;
mod lead;
mod metrics;

use std::{
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use mainstay_channel::Channel;
use mainstay_store::Position;

use crate::{
    error::{Error, Result},
    wire::{Hello, Message, decode, encode},
};

pub use follow::{Following, follow};
pub use lead::{Leading, Seen, lead};

/// How soon a thread that waits for a message looks whether it is to end.
const LOOK: Duration = Duration::from_millis(100);
/// How many messages are taken in before they are answered.
const TAKEN_MAX: usize = 256;

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let what = "the thread of a follower or leader";
    let builder = thread::Builder::new().name(name.to_owned());
    builder.spawn(run).map_err(|source| Error::Io { what, source })
}

/// Asks a leader what its store is, for a follower that has none yet.
///
/// ```
/// use mainstay_channel::memory;
/// use mainstay_replica::{LeadSettings, drive};
/// use mainstay_store::{Options, RawStore};
/// use std::{sync::Arc, time::Duration};
/// let store = RawStore::create(mainstay_sim::Disk::new(7), 2, 3, &Options::default())?;
/// let identity = store.identity();
/// let leader = drive::lead(Arc::new(store), LeadSettings::default(), |_| {})?;
/// let (here, there) = memory::pair();
/// leader.attach(Arc::new(here));
/// assert_eq!(drive::ask(&there, Duration::from_secs(20))?.identity, identity);
/// # Ok::<(), mainstay_replica::Error>(())
/// ```
///
/// # Errors
/// [`Error::Refused`] if there is no answer in time, or another one.
pub fn ask(channel: &dyn Channel, timeout: Duration) -> Result<Hello> {
    let refused = |why: String| Error::Refused { by: "the leader", why };
    let hello = Hello { is_blank: true, ..Hello::default() };
    channel.send(encode(0, &Message::Hello(hello)))?;
    let until = Instant::now() + timeout;
    let bytes = loop {
        let left = until.saturating_duration_since(Instant::now());
        let Some(bytes) = channel.receive(left)? else {
            return Err(refused("it has not answered".to_owned()));
        };
        // A leader that is busy may say that it is alive before it answers.
        if !matches!(decode(&bytes), Ok((_, Message::Alive { .. }))) {
            break bytes;
        }
    };
    match decode(&bytes) {
        Ok((_, Message::Welcome(hello))) => Ok(hello),
        Ok((_, Message::Refused(refusal))) => Err(refused(refusal.to_string())),
        Ok(_) => Err(refused("it answered something else".to_owned())),
        Err(error) => Err(refused(error.to_string())),
    }
}

/// The place of a shard as text, for people.
///
/// ```
/// use mainstay_replica::drive::place;
/// use mainstay_store::Position;
/// assert_eq!(place(None), "catching up");
/// assert_eq!(place(Some(Position { epoch: 1, sequence: 7, sum: 9 })), "7");
/// ```
#[must_use]
pub fn place(at: Option<Position>) -> String {
    at.map_or_else(|| "catching up".to_owned(), |at| at.sequence.to_string())
}
