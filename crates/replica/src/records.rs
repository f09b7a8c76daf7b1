//! Records and changes as they are in messages, of fixed lengths or of any.

use mainstay_store::{Change, Identity, read_changes, read_records};

use crate::traits::Mended;

/// A record of a message: its key, what else there is of it as a store shows it, and the put that
/// makes it.
pub(crate) struct Line<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) rest: &'a [u8],
    pub(crate) put: Mended<'a>,
}

/// Appends a record to those of a message.
pub(crate) fn put_record(identity: &Identity, key: &[u8], rest: &[u8], out: &mut Vec<u8>) {
    // One of any lengths has its key in it.
    if !identity.is_any() {
        out.extend_from_slice(key);
    }
    out.extend_from_slice(rest);
}

/// So many records that are all there is in a message; none if they are not that.
pub(crate) fn lines<'a>(identity: &Identity, count: u32, bytes: &'a [u8]) -> Option<Vec<Line<'a>>> {
    if !identity.is_any() {
        let record = identity.key_len + identity.value_len;
        let split = |record: &'a [u8]| {
            let (key, rest) = record.split_at(identity.key_len);
            Line { key, rest, put: (Change::Put(key, rest), 0) }
        };
        let fits = bytes.len() == count as usize * record;
        return fits.then(|| bytes.chunks_exact(record).map(split).collect());
    }
    let mut lines = Vec::new();
    let mut at = 0;
    for put in read_records(bytes, count)? {
        let Change::Put(key, value) = put.0 else { return None };
        let end = if put.1 == 0 { 0 } else { size_of::<u64>() };
        let len = RECORD_HEAD + key.len() + end + value.len();
        let rest = bytes.get(at..at + len)?;
        at += len;
        lines.push(Line { key, rest, put });
    }
    Some(lines)
}

/// Bytes before the key of a record of any lengths.
const RECORD_HEAD: usize = 12;

/// The changes of a write; none if it is not made of so many.
pub(crate) fn changes<'a>(
    identity: &Identity,
    count: u32,
    bytes: &'a [u8],
) -> Option<Vec<Mended<'a>>> {
    if identity.is_any() {
        return read_records(bytes, count);
    }
    let (lengths, mut changes) = ((identity.key_len, identity.value_len), Vec::new());
    let used = read_changes(bytes, count, lengths, |change| changes.push((change, 0)));
    (used == Some(bytes.len())).then_some(changes)
}
