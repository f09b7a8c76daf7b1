//! A file.

use std::io;

/// A file: bytes at offsets, which survive a power cut once they are synced, and not before.
///
/// [`std::fs::File`] is one, and so is the file of a simulated disk. All calls take `&self`, as
/// those of a real file do.
///
/// ```
/// use mainstay_storage::Storage;
/// fn remember(file: &impl Storage, what: &[u8]) -> std::io::Result<()> {
///     file.write_at(0, what)?;
///     file.sync()
/// }
/// let file = tempfile::tempfile()?;
/// remember(&file, b"kept")?;
/// let mut found = [0; 4];
/// file.read_at(0, &mut found)?;
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

    /// Writes as [`write_at`](Self::write_at) does, and returns when these bytes, and nothing else
    /// for certain, are safe from a power cut. After an error it is as after one of
    /// [`sync`](Self::sync).
    ///
    /// ```
    /// use mainstay_storage::Storage;
    /// let file = tempfile::tempfile()?;
    /// file.write_synced_at(0, b"kept")?;
    /// assert_eq!(file.len()?, 4);
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    /// What the disk says.
    fn write_synced_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_at(offset, bytes)?;
        self.sync()
    }

    /// How many bytes the file has.
    ///
    /// ```
    /// use mainstay_storage::Storage;
    /// assert_eq!(tempfile::tempfile()?.len()?, 0);
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    /// What the disk says.
    fn len(&self) -> io::Result<u64>;

    /// Has the file no bytes?
    ///
    /// ```
    /// use mainstay_storage::Storage;
    /// assert!(tempfile::tempfile()?.is_empty()?);
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
    /// use mainstay_storage::Storage;
    /// let file = tempfile::tempfile()?;
    /// Storage::set_len(&file, 100)?;
    /// assert_eq!(file.len()?, 100);
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    /// What the disk says.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Has room for `len` bytes, all zeros, in a file that is empty: later writes there are not refused
    /// for want of it. Other than by writing zeros, room may be had that the file system still has to
    /// note as used at the first sync after each write.
    ///
    /// ```
    /// use mainstay_storage::Storage;
    /// let file = tempfile::tempfile()?;
    /// file.allocate(8_192)?;
    /// let mut byte = [1];
    /// file.read_at(8_191, &mut byte)?;
    /// assert_eq!((file.len()?, byte), (8_192, [0]));
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    /// What the disk says.
    fn allocate(&self, len: u64) -> io::Result<()> {
        write_zeros(self, len)
    }

    /// What was synced will not be read soon: its memory can be used for something else. Nothing has
    /// to come of it.
    ///
    /// ```
    /// use mainstay_storage::Storage;
    /// let file = tempfile::tempfile()?;
    /// file.write_synced_at(0, b"kept")?;
    /// file.forget();
    /// let mut kept = [0; 4];
    /// file.read_at(0, &mut kept)?;
    /// assert_eq!(&kept, b"kept");
    /// # std::io::Result::Ok(())
    /// ```
    fn forget(&self) {}

    /// Returns when everything written before is safe from a power cut. After an error, nobody
    /// knows what is, and a second try proves nothing.
    ///
    /// Example: see [`Storage`].
    ///
    /// # Errors
    /// What the disk says.
    fn sync(&self) -> io::Result<()>;
}

/// Fills the first `len` bytes of a file with zeros.
///
/// ```
/// use mainstay_storage::{Storage, write_zeros};
/// let file = tempfile::tempfile()?;
/// write_zeros(&file, 3 << 20)?;
/// assert_eq!(file.len()?, 3 << 20);
/// # std::io::Result::Ok(())
/// ```
///
/// # Errors
/// What the disk says.
pub fn write_zeros<S: Storage + ?Sized>(file: &S, len: u64) -> io::Result<()> {
    let zeros = vec![0; len.min(ZEROS_BYTES) as usize];
    let mut at = 0;
    while at < len {
        let part = zeros.len().min((len - at) as usize);
        file.write_at(at, &zeros[..part])?;
        at += part as u64;
    }
    Ok(())
}

/// So many zeros are written at a time.
const ZEROS_BYTES: u64 = 1 << 20;
