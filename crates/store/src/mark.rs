//! A file in the folder of a store that is still being made of another one.
//!
//! Its first byte says by whom: what a salvage or a copy makes is nobody's store before it is whole, so
//! nobody opens it, and another one begins anew. What is to take the place of another store has a name of
//! its own up to then (`Replacing`), and is whole when it has its place.

use mainstay_storage::{Folder, Storage};

use crate::{
    error::{Error, Result},
    planted::{self, Fault},
};

pub(crate) const UNFINISHED: &str = "unfinished";

/// By whom a store is being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Maker {
    /// Who puts it in the place of another one.
    Replacing = b'\n',
    /// Who salvages.
    Salvage = b's',
    /// Who copies a store, or makes one of a copy.
    Copy = b'c',
}

/// Says durably that what is in a folder is not all there yet.
pub(crate) fn mark(folder: &impl Folder, maker: Maker) -> Result<()> {
    let begin = || {
        let file = folder.file(UNFINISHED)?;
        file.write_at(0, &[maker as u8])?;
        file.sync()?;
        folder.sync_names()
    };
    begin().map_err(Error::io(UNFINISHED))
}

/// And that it is.
pub(crate) fn unmark(folder: &impl Folder) -> Result<()> {
    let end = || {
        folder.remove(UNFINISHED)?;
        folder.sync_names()
    };
    end().map_err(Error::io(UNFINISHED))
}

/// Who has begun what is in a folder, and has not finished it. A mark that is not all there is none:
/// nothing else was begun before it was.
pub(crate) fn begun_by(folder: &impl Folder) -> Result<Option<Maker>> {
    if !folder.names().map_err(Error::io("the directory"))?.iter().any(|name| name == UNFINISHED) {
        return Ok(None);
    }
    let file = match folder.file(UNFINISHED).map_err(Error::io(UNFINISHED)) {
        Err(Error::Damaged { .. }) => return Ok(None),
        // It went meanwhile.
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(None);
        }
        file => file?,
    };
    if file.len().map_err(Error::io(UNFINISHED))? == 0 {
        return Ok(None);
    }
    let mut first = [0];
    file.read_at(0, &mut first).map_err(Error::io(UNFINISHED))?;
    let makers = [Maker::Replacing, Maker::Salvage, Maker::Copy];
    Ok(makers.into_iter().find(|maker| *maker as u8 == first[0]))
}

/// Prepares a folder for what is to be made there: it has a mark then, and nothing that
/// `is_of_it`. `clear` sees that there is no store, and removes what else is in the way. Is the mark the
/// maker's own? Who is to put the store in the place of another one has a mark already, and ends it.
pub(crate) fn begin<F: Folder>(
    maker: Maker,
    to: &F,
    is_of_it: impl Fn(&str) -> bool,
    clear: impl FnOnce(&F) -> Result<()>,
) -> Result<bool> {
    let begun = begun_by(to)?;
    if begun == Some(maker) {
        // What another one has not finished.
        let failed = "the directory";
        let mut names = to.names().map_err(Error::io(failed))?;
        names.retain(|name| is_of_it(name));
        for name in names {
            to.remove(&name).map_err(Error::io(name))?;
        }
        to.sync_names().map_err(Error::io(failed))?;
    } else {
        clear(to)?;
    }
    let is_ours = begun != Some(Maker::Replacing);
    if is_ours && !planted::is(Fault::MarkLeftOut) {
        mark(to, maker)?;
    }
    Ok(is_ours)
}

/// Refuses what a salvage or a copy has not finished.
pub(crate) fn check_whole(folder: &impl Folder) -> Result<()> {
    match begun_by(folder)? {
        _ if planted::is(Fault::MarkIgnored) => Ok(()),
        Some(Maker::Salvage) => Err(Error::Unfinished),
        Some(Maker::Copy) => Err(Error::NotCopied),
        Some(Maker::Replacing) | None => Ok(()),
    }
}
