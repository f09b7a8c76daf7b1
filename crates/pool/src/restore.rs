//! Putting a block back that was elsewhere: what import and other copies of a pool need.

use crate::{BlockId, Error, Pool, Result, allocate::Life};
use uuid::Uuid;

/// Fingerprints have 63 bits.
const FINGERPRINT_MAX: u64 = u64::MAX >> 1;

/// A block as it was in another pool.
///
/// Example: see [`Pool::restore`].
#[derive(Clone, Copy, Debug)]
pub struct Restored<'a> {
    /// Its UUID. Whether another block has the same is for the caller to know.
    pub uuid: Uuid,
    /// Type of the data, 0 none; less than 2^63.
    pub fingerprint: u64,
    /// It belonged to a `PoolBox`.
    pub exclusive: bool,
    /// How many bytes are in use.
    pub used_len: usize,
    /// Its data. What is missing up to the block size is zeros.
    pub data: &'a [u8],
}

impl Pool {
    /// Makes a parked, recoverable block with the identity, the type and the data of another. It
    /// appears to other processes with all of them, or not at all.
    ///
    /// ```
    /// use mainstay_pool::{PoolOptions, Restored, Uuid};
    /// let pool = PoolOptions::new("copy", 64).create_memfd()?;
    /// let uuid = Uuid::from_u128(7);
    /// let block = Restored { uuid, fingerprint: 0, exclusive: false, used_len: 2, data: b"hi" };
    /// let id = pool.restore(block)?;
    /// assert_eq!(pool.attach_uuid(uuid)?.id(), id);
    /// assert_eq!(pool.attach(id)?.to_vec()?, b"hi");
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    ///
    /// # Errors
    /// `OutOfBlock` when there is more data than a block has room for, `Limit` when the
    /// fingerprint is none, and as [`Pool::allocate`].
    pub fn restore(&self, block: Restored<'_>) -> Result<BlockId> {
        let block_size = self.block_size();
        let len = block.data.len().max(block.used_len);
        if len > block_size {
            return Err(Error::OutOfBlock { offset: 0, len, block_size });
        }
        if block.fingerprint > FINGERPRINT_MAX {
            let (value, max) = (block.fingerprint, FINGERPRINT_MAX);
            return Err(Error::Limit { what: "type fingerprint", value, min: 0, max });
        }
        let Restored { uuid, fingerprint, exclusive, .. } = block;
        let length = block.used_len as u32;
        self.inner().restore(uuid, Life { kind: None, exclusive, fingerprint, length }, block.data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PoolOptions, State};

    fn a_block(data: &[u8]) -> Restored<'_> {
        let uuid = Uuid::from_u128(0x0123_4567_89AB_CDEF_0123_4567_89AB_CDEF);
        Restored { uuid, fingerprint: 9, exclusive: true, used_len: data.len(), data }
    }

    #[test]
    fn a_restored_block_is_parked_and_has_everything_it_had() {
        let pool = PoolOptions::new("restored", 100).create_memfd().unwrap();
        let id = pool.restore(a_block(&[7; 100])).unwrap();
        let (info, data) = pool.copy_block(id.number).unwrap().unwrap();
        assert_eq!((info.id, info.state), (id, State::Parked));
        assert_eq!(info.uuid, a_block(&[]).uuid);
        assert_eq!((info.fingerprint, info.exclusive, info.used_len), (9, true, 100));
        assert_eq!(data, [7; 100]);
    }

    #[test]
    fn a_reused_block_shows_nothing_of_its_last_life_behind_the_restored_data() {
        let pool = PoolOptions::new("restored", 100).max_blocks(1).create_memfd().unwrap();
        let old = pool.allocate(crate::Kind::Recoverable).unwrap();
        old.write(0, &[0xFF; 100]).unwrap();
        let number = old.number();
        old.free().unwrap();
        let id = pool.restore(a_block(b"new")).unwrap();
        assert_eq!(id.number, number);
        let (_, data) = pool.copy_block(number).unwrap().unwrap();
        assert_eq!(&data[..3], b"new");
        assert!(data[3..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn what_does_not_fit_is_refused_and_takes_no_block() {
        let pool = PoolOptions::new("restored", 100).create_memfd().unwrap();
        assert!(matches!(pool.restore(a_block(&[1; 101])), Err(Error::OutOfBlock { .. })));
        let overlong = Restored { used_len: 101, ..a_block(b"") };
        assert!(matches!(pool.restore(overlong), Err(Error::OutOfBlock { .. })));
        let wild = Restored { fingerprint: FINGERPRINT_MAX + 1, ..a_block(b"") };
        assert!(matches!(pool.restore(wild), Err(Error::Limit { .. })));
        assert_eq!(pool.info().unwrap().counts.parked, 0);
    }
}
