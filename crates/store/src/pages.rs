//! Reading from a disk that cannot read all of a file.

use mainstay_storage::Storage;

/// Bytes that are given up together.
const PAGE: usize = 4096;
/// What they are then: no frame and no block begins so.
const UNREAD: u8 = 0xFF;

/// What is said of them.
pub(crate) const UNREADABLE: &str = "the disk cannot read it";

/// So many bytes of a file. `unread` hears where the disk cannot read them.
pub(crate) fn read_pages(
    file: &impl Storage,
    at: u64,
    len: usize,
    mut unread: impl FnMut(u64),
) -> Vec<u8> {
    let mut bytes = vec![0; len];
    if bytes.is_empty() || file.read_at(at, &mut bytes).is_ok() {
        return bytes;
    }
    let mut from = 0;
    while from < len {
        // As the file is cut, whatever is asked for.
        let to = len.min(from + PAGE - ((at + from as u64) % PAGE as u64) as usize);
        if file.read_at(at + from as u64, &mut bytes[from..to]).is_err() {
            bytes[from..to].fill(UNREAD);
            unread(at + from as u64);
        }
        from = to;
    }
    bytes
}
