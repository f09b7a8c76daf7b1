//! An encrypted file.
//!
//! A sector that is written in part is read, opened, changed and sealed anew as a whole. The last one,
//! which a log is appended to, is kept in memory. Whoever writes, or syncs, has `writing`: while a
//! sync sends a sector to the disk nobody changes it, so what is acknowledged is on the disk whole.
//! Whoever reads waits for no sync, and only for the moment in which sectors are copied into the file
//! beneath: it never sees half of one.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use aes_gcm::Aes256Gcm;

use super::{
    Keys,
    header::{Headers, Opened},
    planted::{self, Fault},
    sector::{
        CONTENT_AT, CONTENT_LEN, Content, HEADERS_LEN, Nonces, SECTOR_LEN, content_len,
        last_sector, open, place_of, seal, stored_len,
    },
};
use crate::{Storage, limits::ENCRYPTED_BYTES_MAX};

/// Sectors that are read at a time.
const READ_SECTORS: u64 = 128;
/// What is kept of a long write's memory.
const KEPT_BYTES: usize = 1 << 20;

/// What all who have a file open have of it together. `writing` is taken before `known`.
pub(crate) struct Shared {
    name: String,
    writing: Mutex<Writing>,
    known: RwLock<Known>,
}

struct Writing {
    nonces: Nonces,
    /// The header, if there is one that is sound.
    header: Option<Opened>,
    /// Is it known to be durable, both copies of it?
    has_header: bool,
    /// Sectors on their way into the file.
    sealed: Vec<u8>,
}

/// What there is to be known for reading.
struct Known {
    cipher: Option<Arc<Aes256Gcm>>,
    /// Bytes of content; none after an error, until somebody looks.
    len: Option<u64>,
    /// A sector that was written last, and was the last of the file.
    tail: Option<(u64, Box<Content>)>,
}

impl Shared {
    pub(crate) fn read(file: &impl Storage, name: &str, keys: &Keys) -> io::Result<Self> {
        let len = content_len(file.len()?);
        let header = Headers::read(file, name)?.open(keys, name, len)?;
        let cipher = header.as_ref().map(|header| Arc::new(header.cipher()));
        Ok(Self {
            name: name.to_owned(),
            writing: Mutex::new(Writing {
                nonces: Nonces::draw()?,
                header,
                // Content is written only behind a header that is durable. Of one that is alone
                // nobody knows.
                has_header: len > 0,
                sealed: Vec::new(),
            }),
            known: RwLock::new(Known { cipher, len: Some(len), tail: None }),
        })
    }

    #[cfg(test)]
    pub(crate) fn set_nonces(&self, nonces: Nonces) {
        self.writing().nonces = nonces;
    }

    fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_mut(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn len(&self, file: &impl Storage) -> io::Result<u64> {
        self.len.map_or_else(|| file.len().map(content_len), Ok)
    }

    /// After an error nobody knows how much of what was to be done is done.
    fn doubt(&mut self) {
        self.len = None;
        if !planted::is(Fault::TailTrusted) {
            self.tail = None;
        }
    }
}

/// A file of an [`Encrypted`](super::Encrypted) folder.
///
/// Example: see [`Encrypted`](super::Encrypted).
pub struct EncryptedFile<S> {
    inner: S,
    shared: Arc<Shared>,
    keys: Arc<Keys>,
}

/// How sectors come into the file beneath.
type Write<S> = fn(&S, u64, &[u8]) -> io::Result<()>;

impl<S: Storage> EncryptedFile<S> {
    pub(crate) fn new(inner: S, shared: Arc<Shared>, keys: Arc<Keys>) -> Self {
        Self { inner, shared, keys }
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Sees to it that there is a durable header. One that is there is written again: a sync of it may
    /// have failed, and a second one alone would prove nothing.
    fn begin(&self, writing: &mut Writing) -> io::Result<Arc<Aes256Gcm>> {
        if !writing.has_header {
            let header = match writing.header.take() {
                Some(header) => header,
                None => Opened::make(&self.keys, &self.shared.name)?,
            };
            let sectors = header.header.sector().repeat(2);
            let cipher = Arc::new(header.cipher());
            // Kept also if it fails: then it may be there, and content with it.
            self.shared.known_mut().cipher = Some(cipher);
            writing.header = Some(header);
            self.inner.write_at(0, &sectors)?;
            if !planted::is(Fault::HeaderUnsynced) {
                self.inner.sync()?;
            }
            writing.has_header = true;
        }
        let cipher = self.shared.known().cipher.clone();
        cipher.ok_or_else(|| io::Error::other("the file has no header"))
    }

    fn content(
        &self,
        known: &Known,
        cipher: &Aes256Gcm,
        number: u64,
        out: &mut Content,
    ) -> io::Result<()> {
        if let Some((_, content)) = known.tail.as_ref().filter(|(of, _)| *of == number) {
            out.copy_from_slice(&content[..]);
            return Ok(());
        }
        let mut sector = [0; SECTOR_LEN];
        self.inner.read_at(place_of(number), &mut sector)?;
        open(cipher, number, &mut sector);
        out.copy_from_slice(&sector[CONTENT_AT..]);
        Ok(())
    }

    /// Hands sealed sectors to the file beneath, and notes what is in the last one.
    fn put(
        &self,
        (first, sealed): (u64, &[u8]),
        len: u64,
        tail: Option<(u64, Box<Content>)>,
        write: Write<S>,
    ) -> io::Result<()> {
        let mut known = self.shared.known_mut();
        if planted::is(Fault::TailTrusted) {
            known.tail.clone_from(&tail);
        }
        if let Err(error) = write(&self.inner, place_of(first), sealed) {
            known.doubt();
            return Err(error);
        }
        (known.len, known.tail) = (Some(len), tail);
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8], write: Write<S>) -> io::Result<()> {
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= ENCRYPTED_BYTES_MAX);
        let end = end.ok_or(io::ErrorKind::FileTooLarge)?;
        let Some(last) = last_sector(end).filter(|_| !bytes.is_empty()) else {
            return write(&self.inner, HEADERS_LEN, &[]);
        };
        let writing = &mut *self.shared.writing();
        let cipher = self.begin(writing)?;
        let mut len = self.shared.known().len(&self.inner)?;
        if offset > len {
            self.extend(writing, &cipher, len, offset)?;
            len = offset;
        }
        let first = offset / CONTENT_LEN as u64;
        writing.nonces.check(last + 1 - first, &self.shared.name)?;
        let mut sealed = std::mem::take(&mut writing.sealed);
        sealed.clear();
        let mut content = Box::new([0; CONTENT_LEN]);
        let sealed_all = (|| {
            let known = self.shared.known();
            for number in first..=last {
                let start = number * CONTENT_LEN as u64;
                // Which part of the sector is written, and with which bytes.
                let from = offset.saturating_sub(start).min(CONTENT_LEN as u64) as usize;
                let to = (end - start).min(CONTENT_LEN as u64) as usize;
                let is_whole = from == 0 && to == CONTENT_LEN;
                if !is_whole {
                    content.fill(0);
                    if start < len {
                        self.content(&known, &cipher, number, &mut content)?;
                        cut(&mut content, len - start);
                    }
                }
                let at = (start + from as u64 - offset) as usize;
                content[from..to].copy_from_slice(&bytes[at..at + to - from]);
                seal(&cipher, &mut writing.nonces, number, &content, &mut sealed)?;
            }
            io::Result::Ok(())
        })();
        let new = len.max(end);
        let done = sealed_all.and_then(|()| {
            if end > len {
                // Up to the length that says how much content there is.
                sealed.resize((stored_len(end) - place_of(first)) as usize, 0);
            }
            let is_tail = last_sector(new) == Some(last);
            let kept = self.shared.known().tail.clone().filter(|(tail, _)| *tail > last);
            let tail = if is_tail { Some((last, content)) } else { kept };
            self.put((first, &sealed), new, tail, write)
        });
        sealed.truncate(KEPT_BYTES);
        sealed.shrink_to(KEPT_BYTES);
        writing.sealed = sealed;
        done
    }

    /// Makes the file longer by zeros. What an earlier end has left behind it is none of its content.
    fn extend(
        &self,
        writing: &mut Writing,
        cipher: &Aes256Gcm,
        len: u64,
        new: u64,
    ) -> io::Result<()> {
        let last = last_sector(len);
        let mut first = last.map_or(0, |last| last + 1);
        // Zeros over what is behind the last sector: the next one begins there.
        let behind = self.inner.len()?.saturating_sub(place_of(first)) as usize;
        let (mut sealed, mut tail) = (Vec::new(), None);
        if let Some(last) = last {
            let mut content = Box::new([0; CONTENT_LEN]);
            self.content(&self.shared.known(), cipher, last, &mut content)?;
            if cut(&mut content, len - last * CONTENT_LEN as u64) {
                writing.nonces.check(1, &self.shared.name)?;
                seal(cipher, &mut writing.nonces, last, &content, &mut sealed)?;
                first = last;
            }
            tail = Some((last, content));
        }
        sealed.resize(sealed.len() + behind, 0);
        if !sealed.is_empty() {
            self.put((first, &sealed), len, tail, S::write_at)?;
        }
        self.resize(len, new)
    }

    fn resize(&self, len: u64, new: u64) -> io::Result<()> {
        let mut known = self.shared.known_mut();
        if new < len || last_sector(new) != last_sector(len) {
            known.tail = None;
        }
        if let Err(error) = self.inner.set_len(stored_len(new)) {
            known.doubt();
            return Err(error);
        }
        known.len = Some(new);
        Ok(())
    }
}

/// Makes zeros of what is behind `len`; true if it was something else.
fn cut(content: &mut Content, len: u64) -> bool {
    let Some(rest) = content.get_mut(len as usize..) else { return false };
    let is_cut = rest.iter().any(|byte| *byte != 0) && !planted::is(Fault::CutKept);
    if is_cut {
        rest.fill(0);
    }
    is_cut
}

impl<S: Storage> Storage for EncryptedFile<S> {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let known = self.shared.known();
        let end = offset.checked_add(bytes.len() as u64).ok_or(io::ErrorKind::UnexpectedEof)?;
        if end > known.len(&self.inner)? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some(last) = last_sector(end).filter(|_| !bytes.is_empty()) else { return Ok(()) };
        let cipher = known.cipher.as_deref().ok_or(io::ErrorKind::UnexpectedEof)?;
        let (mut number, mut done) = (offset / CONTENT_LEN as u64, 0);
        let most = (last + 1 - number).min(READ_SECTORS) as usize;
        let mut sectors = vec![0; most * SECTOR_LEN];
        while number <= last {
            let count = (last + 1 - number).min(READ_SECTORS) as usize;
            let sectors = &mut sectors[..count * SECTOR_LEN];
            self.inner.read_at(place_of(number), sectors)?;
            for sector in sectors.as_chunks_mut::<SECTOR_LEN>().0 {
                open(cipher, number, sector);
                let start = number * CONTENT_LEN as u64;
                let from = (offset + done as u64 - start) as usize;
                let to = (end - start).min(CONTENT_LEN as u64) as usize;
                bytes[done..done + to - from].copy_from_slice(&sector[CONTENT_AT..][from..to]);
                (number, done) = (number + 1, done + to - from);
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write(offset, bytes, S::write_at)
    }

    fn forget(&self) {
        self.inner.forget();
    }

    fn write_synced_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write(offset, bytes, S::write_synced_at)
    }

    fn len(&self) -> io::Result<u64> {
        self.shared.known().len(&self.inner)
    }

    fn set_len(&self, new: u64) -> io::Result<()> {
        if new > ENCRYPTED_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let writing = &mut *self.shared.writing();
        let len = self.shared.known().len(&self.inner)?;
        if new > len {
            let cipher = self.begin(writing)?;
            return self.extend(writing, &cipher, len, new);
        }
        if new < len { self.resize(len, new) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let _nobody_writes = self.shared.writing();
        self.inner.sync()
    }
}
