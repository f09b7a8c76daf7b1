//! The header of an encrypted file: its data key, encrypted under a key of the user's. The table is
//! in `docs/format/encryption.md`.
//!
//! There are two copies, in sectors of their own; each is enough.

use std::io;

use aes_gcm::{Aes256Gcm, KeyInit, aead::AeadInOut};
use mainstay_checksum::crc32c;
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout,
    little_endian::{U32, U64},
};
use zeroize::Zeroizing;

use super::{
    KeyError, KeyId, Keys,
    keys::{KEY_LEN, Key, random},
    sector::{HEADERS_LEN, NONCE_LEN, SECTOR_LEN, TAG_LEN},
};
use crate::Storage;

pub(crate) const MAGIC: [u8; 8] = *b"MAINSENC";
pub(crate) const VERSION: u32 = 1;
pub(crate) const HEADER_LEN: usize = 128;

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Header {
    magic: [u8; 8],
    version: U32,
    flags: U32,
    key: [u8; 8],
    reserved_64: U64,
    nonce: [u8; NONCE_LEN],
    reserved_32: U32,
    data_key: [u8; KEY_LEN],
    tag: [u8; TAG_LEN],
    reserved: [u8; 28],
    checksum: U32,
}

const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<Header>() == HEADER_LEN);
    assert!(offset_of!(Header, version) == 8);
    assert!(offset_of!(Header, flags) == 12);
    assert!(offset_of!(Header, key) == 16);
    assert!(offset_of!(Header, reserved_64) == 24);
    assert!(offset_of!(Header, nonce) == 32);
    assert!(offset_of!(Header, data_key) == 48);
    assert!(offset_of!(Header, tag) == 80);
    assert!(offset_of!(Header, reserved) == 96);
    assert!(offset_of!(Header, checksum) == 124);
};

impl Header {
    /// Wraps a data key for a file of this name.
    pub(crate) fn wrap(data_key: &[u8; KEY_LEN], key: &Key, name: &str) -> io::Result<Self> {
        let mut header = Self {
            magic: MAGIC,
            version: VERSION.into(),
            flags: 0.into(),
            key: key.id().0,
            reserved_64: 0.into(),
            nonce: random()?,
            reserved_32: 0.into(),
            data_key: *data_key,
            tag: [0; TAG_LEN],
            reserved: [0; 28],
            checksum: 0.into(),
        };
        let (aad, mut bytes) = (header.aad(name), *data_key);
        let sealed = key.cipher.encrypt_inout_detached(
            (&header.nonce).into(),
            &aad,
            bytes.as_mut_slice().into(),
        );
        let tag = sealed.map_err(|_| io::Error::other("a data key could not be encrypted"))?;
        header.data_key = bytes;
        header.tag.copy_from_slice(&tag);
        header.checksum = crc32c(&header.as_bytes()[..HEADER_LEN - 4]).into();
        Ok(header)
    }

    /// What cannot be changed without the key: the front of the header, and the name of the file.
    fn aad(&self, name: &str) -> Vec<u8> {
        let mut aad = self.as_bytes()[..32].to_vec();
        aad.extend_from_slice(name.as_bytes());
        aad
    }

    /// The data key, if the key is the right one and nothing was changed.
    pub(crate) fn unwrap(&self, key: &Key, name: &str) -> Option<Zeroizing<[u8; KEY_LEN]>> {
        let mut bytes = Zeroizing::new(self.data_key);
        let opened = key.cipher.decrypt_inout_detached(
            (&self.nonce).into(),
            &self.aad(name),
            bytes.as_mut_slice().into(),
            (&self.tag).into(),
        );
        opened.ok().map(|()| bytes)
    }

    pub(crate) fn key(&self) -> KeyId {
        KeyId(self.key)
    }

    /// A sector with a copy.
    pub(crate) fn sector(&self) -> [u8; SECTOR_LEN] {
        let mut sector = [0; SECTOR_LEN];
        sector[..HEADER_LEN].copy_from_slice(self.as_bytes());
        sector
    }

    /// The copy in a sector, if its checksum is right; an error if it is of another version.
    fn read(sector: &[u8], name: &str) -> Result<Option<Self>, KeyError> {
        let Ok((header, rest)) = Self::read_from_prefix(sector) else { return Ok(None) };
        let sum = crc32c(&sector[..HEADER_LEN - 4]);
        let is_whole = rest.len() == SECTOR_LEN - HEADER_LEN && rest.iter().all(|byte| *byte == 0);
        if header.magic != MAGIC || header.checksum.get() != sum || !is_whole {
            return Ok(None);
        }
        let version = header.version.get();
        if version != VERSION || header.flags.get() != 0 {
            return Err(KeyError::Version { file: name.to_owned(), version });
        }
        Ok(Some(header))
    }
}

/// What stands where the copies of a header are to be.
pub(crate) struct Headers {
    /// Each copy, if it is sound.
    pub(crate) copies: [Option<Header>; 2],
    /// Is there anything that was meant to be a copy?
    is_meant: bool,
    /// Is there nothing at all?
    is_blank: bool,
}

impl Headers {
    pub(crate) fn read(file: &impl Storage, name: &str) -> io::Result<Self> {
        let len = file.len()?.min(HEADERS_LEN) as usize;
        let mut bytes = vec![0; len];
        if len > 0 {
            file.read_at(0, &mut bytes)?;
        }
        Ok(Self::of(&bytes, name)?)
    }

    /// Of the front of a file.
    pub(crate) fn of(bytes: &[u8], name: &str) -> Result<Self, KeyError> {
        let sector = |at: usize| bytes.get(at..).unwrap_or_default();
        let one = |at| Header::read(&sector(at)[..sector(at).len().min(SECTOR_LEN)], name);
        let copies = [one(0)?, one(SECTOR_LEN)?];
        let is_begun = |front: &[u8]| !front.is_empty() && MAGIC.starts_with(front);
        let front = |at| &sector(at)[..sector(at).len().min(MAGIC.len())];
        let is_meant = [0, SECTOR_LEN].iter().any(|at| is_begun(front(*at)));
        Ok(Self { copies, is_meant, is_blank: bytes.iter().all(|byte| *byte == 0) })
    }

    /// The first copy that a key opens, and the data key. None only if the file has no content, of
    /// which `len` is the length, and no sound header: whoever was to write it did not come to that.
    pub(crate) fn open(
        &self,
        keys: &Keys,
        name: &str,
        len: u64,
    ) -> Result<Option<Opened>, KeyError> {
        let file = || name.to_owned();
        let mut missing = None;
        for header in self.copies.iter().flatten() {
            let Some(key) = keys.find(header.key()) else {
                missing.get_or_insert(header.key());
                continue;
            };
            if let Some(data_key) = header.unwrap(key, name) {
                return Ok(Some(Opened { header: *header, data_key }));
            }
        }
        match missing {
            Some(wanted) => Err(KeyError::Missing { file: file(), wanted }),
            None if len == 0 && (self.is_meant || self.is_blank) => Ok(None),
            None if self.is_meant => Err(KeyError::Damaged { file: file() }),
            None => Err(KeyError::NotEncrypted { file: file() }),
        }
    }
}

/// A copy of a header, and the key in it.
pub(crate) struct Opened {
    pub(crate) header: Header,
    pub(crate) data_key: Zeroizing<[u8; KEY_LEN]>,
}

impl Opened {
    /// With a new data key.
    pub(crate) fn make(keys: &Keys, name: &str) -> io::Result<Self> {
        let data_key = Zeroizing::new(random::<KEY_LEN>()?);
        Ok(Self { header: Header::wrap(&data_key, keys.current(), name)?, data_key })
    }

    pub(crate) fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new((&*self.data_key).into())
    }
}
