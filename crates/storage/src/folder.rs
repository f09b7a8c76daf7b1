//! A set of files.

use std::{fs::File, io};

use crate::Storage;

/// A flat set of named files. Names become durable by [`Folder::sync_names`], contents by the sync
/// of each file.
///
/// ```
/// use mainstay_storage::{Folder, Storage};
/// fn remember(folder: &impl Folder, what: &[u8]) -> std::io::Result<()> {
///     let file = folder.file("memory")?;
///     file.write_at(0, what)?;
///     file.sync()?;
///     folder.sync_names()
/// }
/// ```
pub trait Folder: Send + Sync {
    /// What its files are.
    type File: Storage + Send + Sync;

    /// Opens a file; one that is not there is made, empty.
    ///
    /// Example: see [`Folder`].
    ///
    /// # Errors
    /// What the operating system says.
    fn file(&self, name: &str) -> io::Result<Self::File>;

    /// The names of all files.
    ///
    /// Example: see [`Folder`].
    ///
    /// # Errors
    /// What the operating system says.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Removes a file, if it is there.
    ///
    /// Example: see [`Folder`].
    ///
    /// # Errors
    /// What the operating system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Returns when the names of all files made and removed before are safe from a power cut.
    ///
    /// Example: see [`Folder`].
    ///
    /// # Errors
    /// What the operating system says.
    fn sync_names(&self) -> io::Result<()>;

    /// Opens a file to be mapped, which keeps what a process wrote when the process dies; one that
    /// is not there is made, empty. `None` where there are none: then memory is private.
    ///
    /// Example: see [`Folder`].
    ///
    /// # Errors
    /// What the operating system says.
    fn mapped(&self, name: &str) -> io::Result<Option<File>> {
        let _ = name;
        Ok(None)
    }

    /// Which running of the machine this is: what mapped files had in another one is not to be
    /// believed, since the power may have been cut between.
    ///
    /// Example: see [`Folder`].
    ///
    /// # Errors
    /// What the operating system says.
    fn boot(&self) -> io::Result<[u8; 16]> {
        Ok([0; 16])
    }
}
