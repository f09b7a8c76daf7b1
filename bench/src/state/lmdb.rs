//! LMDB by `heed`, without any sync: a read is a read transaction, in which the value is used where
//! it lies.

use std::path::Path;

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env};

use super::value::{Keeper, Reader, Size, Writer, bytes, stamp_of};
use crate::{Outcome, raw};

pub(super) const KEEPER: Keeper = Keeper {
    name: "lmdb",
    writer: |folder, size| Ok(Box::new(create(folder, size)?)),
    reader: |folder, _| Ok(Box::new(Records::open(folder)?)),
};

const MAP_BYTES: usize = 1 << 28;
const KEY: &[u8] = b"value";

/// An environment and its one database.
pub(super) struct Records {
    /// Kept until the process ends: the database borrows it.
    env: &'static Env,
    database: Database<'static, Bytes, Bytes>,
}

fn create(folder: &Path, size: Size) -> Outcome<Records> {
    let mut records = Records::create(folder)?;
    records.commit(&vec![0; size.words])?;
    Ok(records)
}

impl Records {
    /// Makes an empty database in `folder`.
    pub(super) fn create(folder: &Path) -> Outcome<Records> {
        let env: &'static Env = Box::leak(Box::new(raw::open_lmdb_unsynced(folder, MAP_BYTES)?));
        let txn = env.write_txn()?;
        let made = env.create_databases_and_commit(txn, |maker, txn| {
            let records: Database<'_, Bytes, Bytes> = maker.create_database(txn, None)?;
            heed::Result::Ok(CommitOrAbort::<_, ()>::Commit(records))
        })?;
        let database = made.commit().ok_or("LMDB did not commit an empty database")?;
        Ok(Records { env, database })
    }

    /// Opens what another process has made.
    fn open(folder: &Path) -> Outcome<Records> {
        let env: &'static Env = Box::leak(Box::new(raw::open_lmdb_unsynced(folder, MAP_BYTES)?));
        let txn = env.read_txn()?;
        let opened = env.open_databases_and_commit(txn, |opener, txn| {
            let records: Option<Database<'_, Bytes, Bytes>> = opener.open_database(txn, None)?;
            heed::Result::Ok(CommitOrAbort::<_, ()>::Commit(records))
        })?;
        let database = opened.commit().flatten().ok_or("the environment has no database")?;
        Ok(Records { env, database })
    }

    /// Puts two values in one transaction.
    pub(super) fn commit_two(&mut self, value: &[u64]) -> Outcome<()> {
        let mut txn = self.env.write_txn()?;
        self.database.put(&mut txn, b"one", bytes(value))?;
        self.database.put(&mut txn, b"two", bytes(value))?;
        Ok(txn.commit()?)
    }
}

impl Writer for Records {
    fn commit(&mut self, value: &[u64]) -> Outcome<()> {
        let mut txn = self.env.write_txn()?;
        self.database.put(&mut txn, KEY, bytes(value))?;
        Ok(txn.commit()?)
    }
}

impl Reader for Records {
    #[inline]
    fn read(&mut self) -> Outcome<u64> {
        let txn = self.env.read_txn()?;
        let value = self.database.get(&txn, KEY)?.ok_or("the value is gone")?;
        // LMDB aligns values to two bytes only.
        let word = |chunk: Option<&[u8; 8]>| chunk.map_or(0, |chunk| u64::from_le_bytes(*chunk));
        Ok(stamp_of(&[word(value.first_chunk()), word(value.last_chunk())]))
    }
}
