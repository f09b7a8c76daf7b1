//! Changes in memory: for tests, and for channels that only hibernate.

use std::collections::BTreeMap;

use super::{Change, Persistence};
use crate::{
    error::{Result, within},
    limits::ID_LEN_MAX,
};

/// Keeps changes as long as it lives.
///
/// Example: see [`Persistence`].
#[derive(Clone, Debug, Default)]
pub struct Memory {
    channels: BTreeMap<String, Vec<Vec<u8>>>,
}

impl Memory {
    /// An empty one.
    ///
    /// Example: see [`Persistence`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Persistence for Memory {
    fn save(&mut self, channel: &str, change: &Change<'_>) -> Result<()> {
        within("length of the channel's name", channel.len() as u64, 0, ID_LEN_MAX as u64)?;
        if !self.channels.contains_key(channel) {
            self.channels.insert(channel.to_owned(), Vec::new());
        }
        if let Some(changes) = self.channels.get_mut(channel) {
            if change.base {
                changes.clear();
            }
            changes.push(change.bytes.to_vec());
        }
        Ok(())
    }

    fn load(&mut self, channel: &str) -> Result<Vec<Vec<u8>>> {
        Ok(self.channels.get(channel).cloned().unwrap_or_default())
    }

    fn forget(&mut self, channel: &str) -> Result<()> {
        self.channels.remove(channel);
        Ok(())
    }

    fn channels(&mut self) -> Result<Vec<String>> {
        Ok(self.channels.keys().cloned().collect())
    }
}
