//! From one key of the user's to another.

use std::io;

use super::{
    KeyError, Keys,
    header::{Header, Headers, Opened},
    planted::{self, Fault},
    sector::{HEADERS_LEN, SECTOR_LEN, content_len},
};
use crate::{Folder, Storage};

/// What a rotation of keys found.
///
/// Example: see [`rekey`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rekeyed {
    /// Files that are under the new key by it.
    pub changed: u64,
    /// Files that were already.
    pub unchanged: u64,
    /// Files that are not encrypted, which nothing was done to: none of an encrypted folder's own.
    pub others: u64,
}

/// Puts all files of a folder under the current key: of each only its header is written, one copy
/// after the other is durable. Killed at any point, it leaves files that can be read with the old and
/// the new key together, and it is run again. Nobody may have the files open meanwhile. `told` hears
/// how many files are done, and of how many.
///
/// ```
/// use mainstay_storage::{Folder, Key, Keys, Rekeyed, rekey};
/// fn rotate(folder: &impl Folder, old: Key, new: Key) -> std::io::Result<Rekeyed> {
///     rekey(folder, &Keys::new(new).with_older(old), |done, all| println!("{done} of {all}"))
/// }
/// ```
///
/// # Errors
/// A [`KeyError`] if neither copy of a header can be read with these keys; what the folder says. The
/// files before are done.
pub fn rekey<F: Folder>(
    folder: &F,
    keys: &Keys,
    mut told: impl FnMut(u64, u64),
) -> io::Result<Rekeyed> {
    let mut names = folder.names()?;
    names.sort_unstable();
    let (mut rekeyed, all) = (Rekeyed::default(), names.len() as u64);
    for (done, name) in (1..).zip(&names) {
        let file = folder.file(name)?;
        let headers = Headers::read(&file, name)?;
        match headers.open(keys, name, content_len(file.len()?)) {
            Err(KeyError::NotEncrypted { .. }) => rekeyed.others += 1,
            Err(error) => return Err(error.into()),
            // Empty, and made under the current key when somebody writes to it. A header that nobody
            // can open, and that names the old key, must not go on asking for it.
            Ok(None) if headers.copies.iter().any(Option::is_some) => {
                file.set_len(0)?;
                file.sync()?;
            }
            Ok(None) => {}
            Ok(Some(_)) if is_done(&headers, keys, name) => rekeyed.unchanged += 1,
            Ok(Some(opened)) => {
                rewrap(&file, &headers, &opened, keys, name)?;
                rekeyed.changed += 1;
            }
        }
        told(done, all);
    }
    Ok(rekeyed)
}

/// Are both copies sound, and under the current key?
fn is_done(headers: &Headers, keys: &Keys, name: &str) -> bool {
    let current = keys.current();
    headers.copies.iter().all(|copy| {
        copy.is_some_and(|copy| copy.key() == current.id() && copy.unwrap(current, name).is_some())
    })
}

fn rewrap(
    file: &impl Storage,
    headers: &Headers,
    opened: &Opened,
    keys: &Keys,
    name: &str,
) -> io::Result<()> {
    let header = Header::wrap(&opened.data_key, keys.current(), name)?;
    // The copy that was not read comes first: the other one is known to be sound.
    let first = usize::from(headers.copies[0].is_some_and(|copy| copy.is(&opened.header)));
    if planted::is(Fault::RewrappedAtOnce) {
        file.write_at(0, &header.sector().repeat(2))?;
        return file.sync();
    }
    for copy in [first, 1 - first] {
        let at = (copy * SECTOR_LEN) as u64;
        let mut before = [0; SECTOR_LEN];
        if file.len()? >= HEADERS_LEN {
            file.read_at(at, &mut before)?;
        }
        let written = file.write_at(at, &header.sector()).and_then(|()| file.sync());
        if let Err(error) = written {
            // What is not known to be durable must not look as if it were done.
            let _in_doubt = file.write_at(at, &before);
            return Err(error);
        }
    }
    Ok(())
}

impl Header {
    fn is(&self, other: &Self) -> bool {
        self.sector() == other.sector()
    }
}
