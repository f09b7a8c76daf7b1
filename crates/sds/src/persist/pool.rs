//! Changes in the blocks of a pool: they outlive the process, and whoever comes next finds them.

use std::{collections::BTreeMap, path::Path};

use super::{
    Change, Persistence,
    blocks::{Key, Record, Records, Use, failed},
};
use crate::{
    error::{Result, within},
    limits::ID_LEN_MAX,
    planted,
};

/// Keeps changes in a set of pools, which are files or memory shared by processes.
///
/// Each change is a record of its own, whole or not there, so a process can be killed at any
/// instruction. The one that opens the set next has all that was kept; while one has it open, others
/// are refused. This holds against the death of processes. Against the loss of power
/// it is as good as the file system under the files.
///
/// ```
/// use mainstay_sds::{Channel, Config, Keep, Now, Output};
/// use mainstay_sds::persist::{Persistence, PoolPersistence};
/// let folder = tempfile::tempdir()?;
/// let mut config = Config::lip();
/// config.keep = Keep::Durable;
///
/// let mut place = PoolPersistence::open(folder.path(), "sds")?;
/// let mut channel = Channel::new("room", b"alice", config.clone())?;
/// channel.send(Now::zero(), b"m1", b"hello")?;
/// let Some(Output::Persist(change)) = channel.poll_output() else { panic!() };
/// place.save("room", &change)?;
/// drop((place, channel));
///
/// let mut place = PoolPersistence::open(folder.path(), "sds")?;
/// let saved = place.load("room")?;
/// let channel = Channel::load("room", b"alice", config, Now::zero(), &saved)?;
/// assert_eq!(channel.counts().outgoing, 1, "it will be sent again");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PoolPersistence {
    // Let go of before the lock is (K3).
    channels: BTreeMap<String, Vec<(u64, Record)>>,
    records: Records,
}

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Records").finish_non_exhaustive()
    }
}

impl PoolPersistence {
    /// Opens or creates the pools `NAME.SIZE.pool` in `folder`.
    ///
    /// # Errors
    /// [`Error::Persistence`](crate::Error::Persistence) if they cannot be opened or read, or another
    /// one has them open.
    ///
    /// Example: see [`PoolPersistence`].
    pub fn open(folder: impl AsRef<Path>, name: &str) -> Result<Self> {
        Self::of(Records::open(folder.as_ref(), name, Use::Change)?)
    }

    /// Pools in memory: as long as one of their handles is held, by whatever process.
    ///
    /// # Errors
    /// [`Error::Persistence`](crate::Error::Persistence) if they cannot be made.
    ///
    /// ```
    /// use mainstay_sds::persist::{Persistence, PoolPersistence};
    /// let mut place = PoolPersistence::in_memory("sds")?;
    /// assert!(place.channels()?.is_empty());
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    pub fn in_memory(name: &str) -> Result<Self> {
        Self::of(Records::in_memory(name, Use::Change)?)
    }

    fn of((records, found): (Records, BTreeMap<Key, Record>)) -> Result<Self> {
        let mut channels: BTreeMap<String, Vec<(u64, Record)>> = BTreeMap::new();
        for ((_, name, number), record) in found {
            let Ok(name) = String::from_utf8(name) else {
                return Err(failed("a record has no readable name; restore the pool"));
            };
            channels.entry(name).or_default().push((number, record));
        }
        let mut place = Self { channels, records };
        let names: Vec<String> = place.channels.keys().cloned().collect();
        for name in names {
            place.drop_superseded(&name)?;
        }
        Ok(place)
    }

    /// A process that died right after it kept a base has not freed what that replaces; one that
    /// died while it dropped a channel has left changes without a base.
    fn drop_superseded(&mut self, name: &str) -> Result<()> {
        if planted("replaced-stays") {
            return Ok(());
        }
        let Some(changes) = self.channels.get_mut(name) else { return Ok(()) };
        let mut last_base = None;
        for (index, (_, record)) in changes.iter().enumerate() {
            if Change::parse(name, &record.read()?)?.base {
                last_base = Some(index);
            }
        }
        for (_, record) in changes.drain(..last_base.unwrap_or(changes.len())) {
            record.free()?;
        }
        if changes.is_empty() {
            self.channels.remove(name);
        }
        Ok(())
    }
}

impl Persistence for PoolPersistence {
    fn save(&mut self, channel: &str, change: &Change<'_>) -> Result<()> {
        within("length of the channel's name", channel.len() as u64, 0, ID_LEN_MAX as u64)?;
        if change.base && planted("replaced-first") {
            self.forget(channel)?;
        }
        let key = (Use::Change, channel.as_bytes().to_vec(), change.number);
        let record = self.records.write(&key, change.bytes)?;
        let changes = self.channels.entry(channel.to_owned()).or_default();
        let replaced = if change.base { std::mem::take(changes) } else { Vec::new() };
        changes.push((change.number, record));
        for (_, record) in replaced {
            record.free()?;
        }
        Ok(())
    }

    fn load(&mut self, channel: &str) -> Result<Vec<Vec<u8>>> {
        let changes = self.channels.get(channel).map(Vec::as_slice).unwrap_or_default();
        changes.iter().map(|(_, record)| record.read()).collect()
    }

    fn forget(&mut self, channel: &str) -> Result<()> {
        let Some(changes) = self.channels.remove(channel) else { return Ok(()) };
        // The base first: the others mean nothing without it.
        for (_, record) in changes {
            record.free()?;
        }
        Ok(())
    }

    fn channels(&mut self) -> Result<Vec<String>> {
        Ok(self.channels.keys().cloned().collect())
    }
}
