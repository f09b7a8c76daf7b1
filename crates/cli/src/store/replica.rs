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
    fn promote_above(self, known: u64, drawn: u16) -> Result<Self>;
    fn set_whole(&self, is_whole: bool) -> Result<()>;
    fn tend(&self) -> Result<()>;
    fn sync(&self) -> Result<()>;

    /// Makes all durable, and notes it where there is a place for that.
    fn vouch(&self) -> Result<()>;

    /// Makes the write that a line says.
    fn write(&self, line: &[u8]) -> Result<()>;
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

        fn promote_above(self, known: u64, drawn: u16) -> Result<Self> {
            Self::promote_above(self, known, drawn)
        }

        fn set_whole(&self, is_whole: bool) -> Result<()> {
            Self::set_whole(self, is_whole)
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

    fn write(&self, line: &[u8]) -> Result<()> {
        let (key_len, value_len) = without_end(self.lengths(), self.has_ends());
        let fill = |given: &[u8], len: usize| {
            let mut bytes = given.to_vec();
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

    fn write(&self, line: &[u8]) -> Result<()> {
        match change(line) {
            Some((key, Some(value))) => {
                self.put(key, value, Durability::Interval)?;
            }
            Some((key, None)) => {
                self.delete(key, Durability::Interval)?;
            }
            None => {}
        }
        Ok(())
    }
}

/// What a line says of a key: its value, or that it is to go.
fn change(line: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match line.iter().position(|byte| *byte == b' ') {
        Some(at) => Some((&line[..at], Some(&line[at + 1..]))),
        None => (!line.is_empty()).then_some((line, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_bytes_and_a_blank_behind_the_key_begins_a_value() {
        assert_eq!(change(b"de 49"), Some((&b"de"[..], Some(&b"49"[..]))));
        assert_eq!(change(b"de 4 9 \r"), Some((&b"de"[..], Some(&b"4 9 "[..]))));
        assert_eq!(change(b"de "), Some((&b"de"[..], Some(&b""[..]))));
        assert_eq!(change(b"de\xff \xfe"), Some((&b"de\xff"[..], Some(&b"\xfe"[..]))));
        assert_eq!(change(b"de"), Some((&b"de"[..], None)));
        assert_eq!(change(b"\r"), None);
    }
}
