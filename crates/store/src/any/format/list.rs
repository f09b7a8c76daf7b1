//! Lists: which full segments a shard has.

use mainstay_base::crc32c;
use mainstay_storage::Storage;
use zerocopy::{FromBytes, IntoBytes};

use super::{ListEntry, ListHeader};
use crate::{
    error::{Error, Result},
    format::{DATA_AT, write_header},
};

/// A file whose last sync failed may have a length that is taken for safe and is not: it is written
/// only if it changes.
pub(super) fn begin_anew(file: &impl Storage) -> std::io::Result<()> {
    file.set_len(0)
}

/// Writes a list durably.
pub(crate) fn write_list(
    file: &impl Storage,
    mut header: ListHeader,
    entries: &[ListEntry],
) -> std::io::Result<()> {
    let body = entries.as_bytes();
    header.count = (entries.len() as u32).into();
    header.body_sum = crc32c(body).into();
    begin_anew(file)?;
    file.set_len(DATA_AT + body.len() as u64)?;
    file.write_at(DATA_AT, body)?;
    write_header(file, &header)?;
    file.sync()
}

/// Reads one, if it is sound.
pub(crate) fn read_list(
    file: &impl Storage,
    header: &ListHeader,
    name: &str,
) -> Result<Option<Vec<ListEntry>>> {
    let len = file.len().map_err(Error::io(name))?;
    let bytes = u64::from(header.count.get()) * size_of::<ListEntry>() as u64;
    if DATA_AT + bytes != len {
        return Ok(None);
    }
    let mut body = vec![0; bytes as usize];
    file.read_at(DATA_AT, &mut body).map_err(Error::io(name))?;
    if crc32c(&body) != header.body_sum.get() {
        return Ok(None);
    }
    let entries = body.chunks_exact(size_of::<ListEntry>());
    Ok(entries.map(|entry| ListEntry::read_from_bytes(entry).ok()).collect())
}
