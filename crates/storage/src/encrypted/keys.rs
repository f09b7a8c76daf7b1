//! Keys of the user, from files, and rings of them.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    sync::Arc,
};

use aes_gcm::{Aes256Gcm, KeyInit};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use super::KeyError;

/// Bytes of a key: AES-256.
pub(crate) const KEY_LEN: usize = 32;

/// Bytes that are random to anybody else.
pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes)
}

/// What a key is called: the first eight bytes of a hash of it, which say nothing of the rest.
///
/// Example: see [`Key`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId(pub(crate) [u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// A key that the keys of files are encrypted under. Its bytes are overwritten when it is dropped.
///
/// ```
/// use mainstay_storage::Key;
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("key");
/// let made = Key::create(&path)?;
/// assert_eq!(Key::read(&path)?.id(), made.id());
/// assert_eq!(made.id().to_string().len(), 16);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Key {
    pub(crate) cipher: Arc<Aes256Gcm>,
    id: KeyId,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

impl Key {
    /// The key with these bytes, which must be random: a password is no key.
    ///
    /// ```
    /// use mainstay_storage::Key;
    /// assert_ne!(Key::new(&[1; 32]).id(), Key::new(&[2; 32]).id());
    /// ```
    #[must_use]
    pub fn new(bytes: &[u8; KEY_LEN]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"mainstay key id");
        hash.update(bytes);
        let mut id = [0; 8];
        id.copy_from_slice(&hash.finalize()[..8]);
        Self { cipher: Arc::new(Aes256Gcm::new(bytes.into())), id: KeyId(id) }
    }

    /// Makes a key, and a file with it as 64 hexadecimal digits that only its owner can read. There
    /// must be no such file.
    ///
    /// Example: see [`Key`].
    ///
    /// # Errors
    /// [`KeyError::Io`], also if there is such a file already.
    pub fn create(path: &Path) -> Result<Self, KeyError> {
        let make = || {
            let bytes = Zeroizing::new(random::<KEY_LEN>()?);
            let mut text = Zeroizing::new(String::with_capacity(2 * KEY_LEN + 1));
            for byte in bytes.iter() {
                for digit in [byte >> 4, byte & 15] {
                    text.extend(char::from_digit(digit.into(), 16));
                }
            }
            text.push('\n');
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            Ok(Self::new(&bytes))
        };
        make().map_err(|source| KeyError::Io { path: path.to_owned(), source })
    }

    /// Reads a key: 32 bytes, or 64 hexadecimal digits with or without white space around them.
    ///
    /// Example: see [`Key`].
    ///
    /// # Errors
    /// [`KeyError::Exposed`] if others than the owner have any right to the file;
    /// [`KeyError::NotAKey`]; [`KeyError::Io`].
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let failed = |source| KeyError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed { path: path.to_owned(), mode });
        }
        // One byte more than can be right; with all the room at once, so that no copy stays behind.
        let mut text = Zeroizing::new(Vec::with_capacity(256));
        file.take(256).read_to_end(&mut text).map_err(failed)?;
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        if text.len() == KEY_LEN {
            bytes.copy_from_slice(&text);
        } else if !from_hex(text.trim_ascii(), &mut bytes) {
            return Err(KeyError::NotAKey { path: path.to_owned() });
        }
        Ok(Self::new(&bytes))
    }

    /// What it is called.
    ///
    /// Example: see [`Key`].
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }
}

/// False, and nothing in `bytes`, if these are not exactly the digits of that many.
fn from_hex(text: &[u8], bytes: &mut [u8; KEY_LEN]) -> bool {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let is_it = text.len() == 2 * KEY_LEN
        && text.chunks_exact(2).zip(bytes.iter_mut()).all(|(pair, byte)| {
            let both = digit(pair[0]).zip(digit(pair[1]));
            both.map(|(high, low)| *byte = high << 4 | low).is_some()
        });
    if !is_it {
        bytes.zeroize();
    }
    is_it
}

/// The keys that files may be encrypted under: one for what is made from now on, and older ones for
/// what still is under those.
///
/// ```
/// use mainstay_storage::{Key, Keys};
/// let (old, new) = (Key::new(&[1; 32]), Key::new(&[2; 32]));
/// let keys = Keys::new(new.clone()).with_older(old);
/// assert_eq!(keys.current().id(), new.id());
/// ```
#[derive(Clone, Debug)]
pub struct Keys {
    current: Key,
    older: Vec<Key>,
}

impl Keys {
    /// One key.
    ///
    /// Example: see [`Keys`].
    #[must_use]
    pub fn new(current: Key) -> Self {
        Self { current, older: Vec::new() }
    }

    /// And an older one.
    ///
    /// Example: see [`Keys`].
    #[must_use]
    pub fn with_older(mut self, key: Key) -> Self {
        self.older.push(key);
        self
    }

    /// The same keys, all of them older than this one.
    ///
    /// ```
    /// use mainstay_storage::{Key, Keys};
    /// let new = Key::new(&[2; 32]);
    /// let keys = Keys::new(Key::new(&[1; 32])).under(new.clone());
    /// assert_eq!(keys.current().id(), new.id());
    /// ```
    #[must_use]
    pub fn under(&self, key: Key) -> Self {
        let older = std::iter::once(&self.current).chain(&self.older).cloned().collect();
        Self { current: key, older }
    }

    /// The key for what is made from now on.
    ///
    /// Example: see [`Keys`].
    #[must_use]
    pub fn current(&self) -> &Key {
        &self.current
    }

    pub(crate) fn find(&self, id: KeyId) -> Option<&Key> {
        std::iter::once(&self.current).chain(&self.older).find(|key| key.id == id)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn file(bytes: &[u8], mode: u32) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (dir, path)
    }

    #[test]
    fn a_key_is_the_same_as_bytes_and_as_digits() {
        let bytes: [u8; 32] = std::array::from_fn(|at| 7 * at as u8 + 1);
        let digits: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
        let id = Key::new(&bytes).id();
        for text in [&bytes[..], digits.as_bytes(), format!(" {digits}\n").as_bytes()] {
            let (_dir, path) = file(text, 0o600);
            assert_eq!(Key::read(&path).unwrap().id(), id);
        }
    }

    #[test]
    fn what_is_no_key_is_refused_by_name() {
        let digits = [b'a'; 64];
        let texts: [&[u8]; 6] =
            [b"", &[1; 31], &[1; 33], &digits[..63], &[b'g'; 64], &[b'a'; 1_000]];
        for text in texts {
            let (_dir, path) = file(text, 0o600);
            let error = Key::read(&path).unwrap_err();
            assert!(matches!(&error, KeyError::NotAKey { path: of } if *of == path), "{error}");
        }
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        for mode in [0o640, 0o604, 0o620, 0o601] {
            let (_dir, path) = file(&[1; 32], mode);
            assert!(matches!(Key::read(&path), Err(KeyError::Exposed { .. })), "{mode:o}");
        }
        let (_dir, path) = file(&[1; 32], 0o400);
        assert!(Key::read(&path).is_ok());
    }

    #[test]
    fn a_new_key_is_its_owners_alone_and_takes_the_place_of_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let made = Key::create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(Key::create(&path), Err(KeyError::Io { .. })));
        assert_eq!(Key::read(&path).unwrap().id(), made.id());
        assert_ne!(Key::create(&dir.path().join("other")).unwrap().id(), made.id());
    }

    #[test]
    fn a_key_does_not_show_its_bytes() {
        let shown = format!("{:?}", Keys::new(Key::new(&[0xab; 32])));
        assert!(!shown.contains("ab, ab") && !shown.contains("171"), "{shown}");
    }
}
