//! A store of either kind as one that leads or follows.

use super::opened::without_end;
use mainstay::store::{
    Directory, Durability, History, Identity, RawLogStore, RawStore, Result, Role,
};

/// The functions are those of the stores with the same names.
pub(super) trait Replica: Sized + Send + Sync + 'static {
    fn role(&self) -> Role;
    fn epoch(&self) -> u64;
    fn known_epoch(&self) -> u64;
    fn identity(&self) -> Identity;
    fn history(&self, shard: u32) -> Result<History>;
    fn fence(&self, epoch: u64) -> Result<()>;
    fn demote(self) -> Result<Self>;
    fn promote(self, drawn: u16) -> Result<Self>;
    fn tend(&self) -> Result<()>;
    fn sync(&self) -> Result<()>;

    /// Makes all durable, and notes it where there is a place for that.
    fn vouch(&self) -> Result<()>;

    /// Makes the write that a line says.
    fn write(&self, line: &str) -> Result<()>;
}

macro_rules! same {
    () => {
        fn role(&self) -> Role {
            Self::role(self)
        }

        fn epoch(&self) -> u64 {
            Self::epoch(self)
        }

        fn known_epoch(&self) -> u64 {
            Self::known_epoch(self)
        }

        fn identity(&self) -> Identity {
            Self::identity(self)
        }

        fn history(&self, shard: u32) -> Result<History> {
            Self::history(self, shard)
        }

        fn fence(&self, epoch: u64) -> Result<()> {
            Self::fence(self, epoch)
        }

        fn demote(self) -> Result<Self> {
            Self::demote(self)
        }

        fn promote(self, drawn: u16) -> Result<Self> {
            Self::promote(self, drawn)
        }

        fn tend(&self) -> Result<()> {
            Self::tend(self)
        }

        fn sync(&self) -> Result<()> {
            Self::sync(self).map(drop)
        }
    };
}

impl Replica for RawStore<Directory> {
    same!();

    fn vouch(&self) -> Result<()> {
        Self::vouch(self)
    }

    fn write(&self, line: &str) -> Result<()> {
        let (key_len, value_len) = without_end(self.lengths(), self.has_ends());
        let fill = |text: &str, len: usize| {
            let mut bytes = text.as_bytes().to_vec();
            if bytes.len() < len {
                bytes.resize(len, 0);
            }
            bytes
        };
        match change(line) {
            Some((key, Some(value))) => {
                let mut value = fill(value, value_len);
                if self.has_ends() {
                    // For good.
                    value.splice(..0, [0; size_of::<u64>()]);
                }
                self.put(&fill(key, key_len), &value, Durability::Interval)?;
            }
            Some((key, None)) => {
                self.delete(&fill(key, key_len), Durability::Interval)?;
            }
            None => {}
        }
        Ok(())
    }
}

impl Replica for RawLogStore<Directory> {
    same!();

    fn vouch(&self) -> Result<()> {
        Self::vouch(self)
    }

    fn write(&self, line: &str) -> Result<()> {
        match change(line) {
            Some((key, Some(value))) => {
                self.put(key.as_bytes(), value.as_bytes(), Durability::Interval)?;
            }
            Some((key, None)) => {
                self.delete(key.as_bytes(), Durability::Interval)?;
            }
            None => {}
        }
        Ok(())
    }
}

/// What a line says of a key: its value, or that it is to go.
fn change(line: &str) -> Option<(&str, Option<&str>)> {
    let line = line.trim_end();
    match line.split_once(' ') {
        Some((key, value)) => Some((key, Some(value))),
        None => (!line.is_empty()).then_some((line, None)),
    }
}
