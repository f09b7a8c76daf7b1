//! The durable peer: LMDB by `heed`, given its best case (ascending keys, packed pages, files in
//! memory, nobody else at work).

use std::path::Path;

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, PutFlags};

use crate::{Outcome, raw};

/// Address space for the map: 10^6 records of 256 B with keys and pages take a third of it.
const MAP_BYTES: usize = 1 << 30;

/// Writes `count` records of `length` bytes made by `fill`, under ascending four-byte keys.
pub(crate) fn create(
    directory: &Path,
    count: u32,
    length: usize,
    fill: impl Fn(u32, &mut [u8]),
) -> Outcome<()> {
    let env = raw::open_lmdb(directory, MAP_BYTES)?;
    let mut txn = env.write_txn()?;
    let opened = env.create_databases_and_commit(txn, |maker, txn| {
        let records: Database<'_, Bytes, Bytes> = maker.create_database(txn, None)?;
        heed::Result::Ok(CommitOrAbort::<_, ()>::Commit(records))
    })?;
    let records = opened.commit().ok_or("LMDB did not commit an empty database")?;
    txn = env.write_txn()?;
    let mut value = vec![0; length];
    for number in 0..count {
        fill(number, &mut value);
        records.put_with_flags(&mut txn, PutFlags::APPEND, &number.to_be_bytes(), &value)?;
    }
    txn.commit()?;
    env.prepare_for_closing().wait();
    Ok(())
}

/// Opens the environment and walks all records with a cursor in a read transaction, showing each
/// value to `see`. The environment is handed back, so that closing it is not part of the figure.
pub(crate) fn open_and_read(directory: &Path, mut see: impl FnMut(&[u8])) -> Outcome<Env> {
    let env = raw::open_lmdb(directory, MAP_BYTES)?;
    let txn = env.read_txn()?;
    let opened = env.open_databases_and_commit(txn, |opener, txn| {
        let records: Option<Database<'_, Bytes, Bytes>> = opener.open_database(txn, None)?;
        heed::Result::Ok(CommitOrAbort::<_, ()>::Commit(records))
    })?;
    let records = opened.commit().flatten().ok_or("the LMDB environment has no database")?;
    let txn = env.read_txn()?;
    for record in records.iter(&txn)? {
        let (_, value) = record?;
        see(value);
    }
    drop(txn);
    Ok(env)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_reads_back_what_was_written_to_it() {
        let directory = tempfile::tempdir().unwrap();
        create(directory.path(), 100, 16, |number, value| value.fill(number as u8)).unwrap();
        for _ in 0..2 {
            let mut seen = Vec::new();
            let env = open_and_read(directory.path(), |value| seen.push(value.to_vec())).unwrap();
            env.prepare_for_closing().wait();
            assert_eq!(seen.len(), 100);
            assert!(seen.iter().enumerate().all(|(n, value)| *value == [n as u8; 16]));
        }
    }
}
