//! Files that appear complete or not at all.

use crate::error::{CliError, Result};
use std::{
    fs::{self, File},
    io::{BufWriter, ErrorKind, Write},
    path::Path,
};
use tempfile::NamedTempFile;

/// Refuses a path at which something is that is not a file, or a file that is not to be replaced.
pub(crate) fn refuse_what_is_there(path: &Path, replace: bool) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => Err(CliError::NotAFile(path.to_owned())),
        Ok(_) if !replace => Err(CliError::FileExists(path.to_owned())),
        _ => Ok(()),
    }
}

/// Makes a file of what `write` writes, private to its user, and durable when this returns; tells
/// how many bytes it has. An `Output` error of `write` is taken for one of the file.
pub(crate) fn write_whole<T>(
    path: &Path,
    replace: bool,
    write: impl FnOnce(&mut dyn Write) -> Result<T>,
) -> Result<(T, u64)> {
    refuse_what_is_there(path, replace)?;
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let failed = |action| CliError::file(path, action, "name another place; nothing was written");
    let mut file = tempfile::Builder::new()
        .prefix(".mainstay-export-")
        .tempfile_in(folder)
        .map_err(failed("create a file beside it"))?;
    let mut buffered = BufWriter::with_capacity(1 << 20, &mut file);
    let written = write(&mut buffered).map_err(|error| match error {
        CliError::Output(source) => failed("write it")(source),
        other => other,
    })?;
    buffered.flush().map_err(failed("write it"))?;
    drop(buffered);
    file.as_file().sync_all().map_err(failed("write it to the disk"))?;
    let bytes = file.as_file().metadata().map_or(0, |metadata| metadata.len());
    publish(file, path, replace)?;
    // The name is on the disk only when the folder is.
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(CliError::file(folder, "write the folder to the disk", "check the disk"))?;
    Ok((written, bytes))
}

fn publish(file: NamedTempFile, path: &Path, replace: bool) -> Result<()> {
    let published = if replace { file.persist(path) } else { file.persist_noclobber(path) };
    let Err(refused) = published else { return Ok(()) };
    if refused.error.kind() == ErrorKind::AlreadyExists {
        return Err(CliError::FileExists(path.to_owned()));
    }
    Err(CliError::file(path, "give it its name", "name another place")(refused.error))
}
