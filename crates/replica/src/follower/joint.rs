//! A message that comes in parts (O5): nothing of it is made before all of it is here.

use super::place::Wrong;

/// What has come of a message.
#[derive(Default)]
pub(super) struct Joint {
    shard: u32,
    whole: u64,
    bytes: Vec<u8>,
}

impl Joint {
    /// The rest of a message has not come.
    pub(super) fn is_open(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// What there is of it will not be followed by the rest.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Adds a part; with the last one, all of them.
    pub(super) fn take(
        &mut self,
        max: u64,
        shard: u32,
        (whole, at): (u64, u64),
        bytes: &[u8],
    ) -> Result<Option<Vec<u8>>, Wrong> {
        if !self.is_open() {
            if whole > max {
                let what = format!("a message of {whole} bytes, longer than any ({max})");
                return Err(Wrong::Protocol(what));
            }
            // Memory that nothing was written to yet is none.
            (self.shard, self.whole, self.bytes) =
                (shard, whole, Vec::with_capacity(whole as usize));
        }
        if (self.shard, self.whole, self.bytes.len() as u64) != (shard, whole, at) {
            return Err(Wrong::Protocol("a part that does not follow the one before".to_owned()));
        }
        self.bytes.extend_from_slice(bytes);
        let is_all = self.bytes.len() as u64 == self.whole;
        Ok(is_all.then(|| std::mem::take(self).bytes))
    }
}
