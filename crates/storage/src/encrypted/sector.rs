//! Sectors, each sealed by itself, and where they are in a file.

use std::io;

use aes_gcm::{Aes256Gcm, aead::AeadInOut};

use super::{
    KeyError,
    keys::random,
    planted::{self, Fault},
};
use crate::limits::SECTOR_WRITES_MAX;

pub(crate) const SECTOR_LEN: usize = 512;
pub(crate) const NONCE_LEN: usize = 12;
pub(crate) const TAG_LEN: usize = 16;
/// Bytes of content of a sector.
pub(crate) const CONTENT_LEN: usize = SECTOR_LEN - CONTENT_AT;
/// Where the content is in it, behind nonce and tag.
pub(crate) const CONTENT_AT: usize = NONCE_LEN + TAG_LEN;
/// The two copies of the header.
pub(crate) const HEADERS_LEN: u64 = 2 * SECTOR_LEN as u64;

/// What stands for the content of a sector that is not as it was written: no format has a magic, a
/// kind, or a length that can be, of such bytes, and no checksum is right over them.
pub(crate) const UNREADABLE: u8 = 0xfd;

pub(crate) type Content = [u8; CONTENT_LEN];

/// Bytes of a file whose content has `len`. Behind the last sector there are as many bytes as it has
/// of content: so the length says what it would without encryption, no sector depends on it, and a
/// write of which a part came through leaves no more content than was to be written.
pub(crate) fn stored_len(len: u64) -> u64 {
    match last_sector(len) {
        None => HEADERS_LEN,
        Some(last) => place_of(last + 1) + (len - last * CONTENT_LEN as u64),
    }
}

/// Bytes of content of a file that has so many, whatever their number.
pub(crate) fn content_len(stored: u64) -> u64 {
    let body = stored.saturating_sub(HEADERS_LEN);
    let (sectors, rest) = (body / SECTOR_LEN as u64, body % SECTOR_LEN as u64);
    let whole = CONTENT_LEN as u64;
    sectors.checked_sub(1).map_or(0, |before| before * whole + rest.min(whole))
}

/// Where a sector is in the file.
pub(crate) fn place_of(sector: u64) -> u64 {
    HEADERS_LEN + sector * SECTOR_LEN as u64
}

/// The last sector of that much content.
pub(crate) fn last_sector(len: u64) -> Option<u64> {
    Some(len.checked_sub(1)? / CONTENT_LEN as u64)
}

/// Numbers that are used once: from a random one on.
pub(crate) struct Nonces {
    /// Of 96 bits.
    next: u128,
    left: u64,
}

impl Nonces {
    pub(crate) fn draw() -> io::Result<Self> {
        Ok(Self::from(u128::from_le_bytes(random()?), SECTOR_WRITES_MAX))
    }

    pub(crate) fn from(next: u128, left: u64) -> Self {
        Self { next, left }
    }

    /// Refuses so many if there are not as many left.
    pub(crate) fn check(&self, count: u64, file: &str) -> io::Result<()> {
        if count <= self.left {
            return Ok(());
        }
        Err(KeyError::Used { file: file.to_owned(), max: SECTOR_WRITES_MAX }.into())
    }

    /// The next one; the caller has checked that there is one.
    fn take(&mut self) -> [u8; NONCE_LEN] {
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&self.next.to_le_bytes()[..NONCE_LEN]);
        if !planted::is(Fault::NonceRepeated) {
            self.next = self.next.wrapping_add(1);
        }
        self.left = self.left.saturating_sub(1);
        nonce
    }
}

/// A sector with its number: in another place it is not sound.
fn aad(number: u64) -> [u8; 8] {
    if planted::is(Fault::PlaceIgnored) { [0; 8] } else { number.to_le_bytes() }
}

/// Appends a sector to `out`.
pub(crate) fn seal(
    cipher: &Aes256Gcm,
    nonces: &mut Nonces,
    number: u64,
    content: &Content,
    out: &mut Vec<u8>,
) -> io::Result<()> {
    let (nonce, at) = (nonces.take(), out.len());
    out.extend_from_slice(&nonce);
    out.extend_from_slice(&[0; TAG_LEN]);
    out.extend_from_slice(content);
    let (head, body) = out[at..].split_at_mut(CONTENT_AT);
    let tag = cipher
        .encrypt_inout_detached((&nonce).into(), &aad(number), body.into())
        .map_err(|_| io::Error::other("a sector could not be encrypted"))?;
    head[NONCE_LEN..].copy_from_slice(&tag);
    Ok(())
}

/// The content of a sector: zeros if it was never written, and of one that is not as it was written
/// bytes that nobody takes for anything.
pub(crate) fn open(cipher: &Aes256Gcm, number: u64, sector: &mut [u8; SECTOR_LEN]) {
    if sector.iter().all(|byte| *byte == 0) {
        return;
    }
    let (head, body) = sector.split_at_mut(CONTENT_AT);
    let (mut nonce, mut tag) = ([0; NONCE_LEN], [0; TAG_LEN]);
    nonce.copy_from_slice(&head[..NONCE_LEN]);
    tag.copy_from_slice(&head[NONCE_LEN..]);
    if planted::is(Fault::TagIgnored) {
        // The same bytes are added again, and so taken away.
        let _tag = cipher.encrypt_inout_detached((&nonce).into(), &aad(number), body.into());
        return;
    }
    let opened =
        cipher.decrypt_inout_detached((&nonce).into(), &aad(number), body.into(), (&tag).into());
    if opened.is_err() {
        body.fill(UNREADABLE);
    }
}
