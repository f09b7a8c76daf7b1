//! What a store needs of a file: five calls, made of a real file or of a simulated one.

use std::{fs::File, io, os::unix::fs::FileExt};

/// A file: bytes at offsets, which survive a power cut once they are synced, and not before.
///
/// Written for code that is to run over a real file ([`File`] is one) and over a simulated
/// [`DiskFile`](crate::DiskFile) that loses, tears and refuses. All calls take `&self`, as those
/// of a real file do.
///
/// ```
/// use mainstay_sim::{Disk, Storage};
/// fn remember(file: &impl Storage, what: &[u8]) -> std::io::Result<()> {
///     file.write_at(0, what)?;
///     file.sync()
/// }
/// let disk = Disk::new(7);
/// remember(&disk.file("log"), b"kept")?;
/// let mut found = [0; 4];
/// disk.file("log").read_at(0, &mut found)?;
/// assert_eq!(&found, b"kept");
/// # std::io::Result::Ok(())
/// ```
pub trait Storage {
    /// Fills `bytes` from `offset` on.
    ///
    /// Example: see [`Storage`].
    ///
    /// # Errors
    /// `UnexpectedEof` if the file ends before; what the disk says otherwise.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;

    /// Writes all of `bytes` from `offset` on; the file grows as far as needed, with zeros
    /// between. After an error, any part of it may have been written.
    ///
    /// Example: see [`Storage`].
    ///
    /// # Errors
    /// What the disk says.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// How many bytes the file has.
    ///
    /// ```
    /// use mainstay_sim::{Disk, Storage};
    /// assert_eq!(Disk::new(7).file("log").len()?, 0);
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    /// What the disk says.
    fn len(&self) -> io::Result<u64>;

    /// Has the file no bytes?
    ///
    /// ```
    /// use mainstay_sim::{Disk, Storage};
    /// assert!(Disk::new(7).file("log").is_empty()?);
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    /// What the disk says.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts the file off at `len`, or makes it longer by zeros.
    ///
    /// ```
    /// use mainstay_sim::{Disk, Storage};
    /// let file = Disk::new(7).file("log");
    /// file.set_len(100)?;
    /// assert_eq!(file.len()?, 100);
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    /// What the disk says.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Returns when everything written before is safe from a power cut. After an error, nobody
    /// knows what is, and a second try proves nothing.
    ///
    /// Example: see [`Storage`].
    ///
    /// # Errors
    /// What the disk says.
    fn sync(&self) -> io::Result<()>;
}

impl Storage for File {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(bytes, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Self::set_len(self, len)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
