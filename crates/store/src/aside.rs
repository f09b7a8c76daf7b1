//! Records that a replica is about to lose, in a file beside it.

use mainstay_storage::{Folder, Storage};

use crate::{
    error::{Error, Result},
    history::Position,
};

/// A record as it is kept, and when it ends; 0: never.
pub(crate) type Kept<'a> = (&'a [u8], &'a [u8], u64);

/// Appends records durably to the file `aside-SHARD-EPOCH-SEQUENCE`: a line of JSON each, with
/// `key` and `value` in hexadecimal, and `end` in milliseconds since 1970 if it has one.
pub(crate) fn set_aside<'a>(
    folder: &impl Folder,
    shard: u32,
    from: Position,
    records: impl IntoIterator<Item = Kept<'a>>,
) -> Result<()> {
    let hex = |out: &mut String, bytes: &[u8]| {
        for byte in bytes {
            for digit in [byte >> 4, byte & 15] {
                out.extend(char::from_digit(digit.into(), 16));
            }
        }
    };
    let mut lines = String::new();
    for (key, value, end) in records {
        lines.push_str(r#"{"key":""#);
        hex(&mut lines, key);
        lines.push_str(r#"","value":""#);
        hex(&mut lines, value);
        lines.push('"');
        if end != 0 {
            lines.push_str(&format!(r#","end":{end}"#));
        }
        lines.push_str("}\n");
    }
    let name = format!("aside-{shard:04}-{:x}-{}", from.epoch, from.sequence);
    let mut keep = || {
        let file = folder.file(&name)?;
        let (end, mut last) = (file.len()?, *b"\n");
        if end > 0 {
            file.read_at(end - 1, &mut last)?;
        }
        // What an earlier call could not write to its end must not swallow a record of this one.
        if last != *b"\n" {
            lines.insert(0, '\n');
        }
        file.write_at(end, lines.as_bytes())?;
        file.sync()?;
        folder.sync_names()
    };
    keep().map_err(Error::io(&*name))
}
