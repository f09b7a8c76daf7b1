//! TLS between the frames of a channel and its socket.
//!
//! R1. Whatever is to be written goes through the one session, in its order: so it makes no
//!     difference whether a thread or a task, or who of those who read, hands it to the socket.
//! R2. What has arrived is decrypted at once, as far as records are whole; of an unfinished record
//!     the session keeps what is there, and nothing else stays in here.
//! R3. The lock is held for work and never for waiting: the socket is not a blocking one.
//!
//! Both directions share the session's state, so they share a lock; whoever finds it taken waits
//! for some microseconds of cryptography.

use super::batch::{BATCH_BYTES, Batch, SLICES_MAX};
use crate::frame::Decoder;
use rustls::Connection;
use std::{
    io::{self, BufRead, IoSlice, Read, Write},
    net::TcpStream,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// What is read from the socket at once, at first and when much comes: eight records of the
/// greatest length. The session asks for a quarter of one at a time, which would be a system call
/// each.
const AHEAD_MIN: usize = 4 << 10;
const AHEAD_MAX: usize = 128 << 10;

/// A session whose handshake is through.
pub(super) struct Records {
    session: Mutex<Connection>,
}

/// Where records are read to: belongs to whoever reads.
pub(super) struct Arrived(Vec<u8>);

impl Arrived {
    pub(super) fn new() -> Self {
        Self(vec![0; AHEAD_MIN])
    }
}

impl Records {
    /// Takes over from the handshake; what has come with it already goes to the decoder.
    pub(super) fn new(mut session: Connection, decoder: &mut Decoder) -> io::Result<Self> {
        // Whole batches are encrypted at once.
        session.set_buffer_limit(Some(BATCH_BYTES + (64 << 10)));
        hand_over(&mut session, decoder)?;
        Ok(Self { session: Mutex::new(session) })
    }

    /// Reads and decrypts what is there; says how many bytes that were on the wire, none at the end
    /// of the stream. `WouldBlock` when nothing is there.
    pub(super) fn read(
        &self,
        mut socket: &TcpStream,
        arrived: &mut Arrived,
        decoder: &mut Decoder,
    ) -> io::Result<usize> {
        let Arrived(buffer) = arrived;
        let len = loop {
            match socket.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => break outcome?,
            }
        };
        let mut session = self.session();
        let decrypted = decrypt(&mut session, &buffer[..len], decoder);
        // An answer to what was read, or an alert that says what is wrong with it. What the socket
        // does not take now is written by whoever writes next: see `has_output`.
        if session.wants_write() {
            let _ = write_on(&mut session, socket);
        }
        decrypted?;
        if len == buffer.len() && len < AHEAD_MAX {
            buffer.resize(2 * len, 0);
        }
        Ok(len)
    }

    /// Encrypts and writes as much as can be written without waiting; whether that was everything.
    pub(super) fn write_now(&self, batch: &mut Batch, socket: &TcpStream) -> io::Result<bool> {
        batch.seal();
        let mut session = self.session();
        loop {
            if !write_on(&mut session, socket)? {
                return Ok(false);
            }
            if !batch.is_unwritten() {
                batch.forget();
                return Ok(true);
            }
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = batch.fill(&mut slices);
            let taken = session.writer().write_vectored(&slices[..count])?;
            batch.advance(taken)?;
        }
    }

    /// Whether there is something that the socket has not taken yet.
    pub(super) fn has_output(&self) -> bool {
        self.session().wants_write()
    }

    /// The last word on this side; it still has to be written.
    pub(super) fn say_end(&self) {
        self.session().send_close_notify();
    }

    // A session that panicked in the middle of its work would find its records out of order, and
    // say so.
    fn session(&self) -> MutexGuard<'_, Connection> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands what is encrypted to the socket; whether that was everything.
fn write_on(session: &mut Connection, mut socket: &TcpStream) -> io::Result<bool> {
    while session.wants_write() {
        match session.write_tls(&mut socket) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// R2.
fn decrypt(session: &mut Connection, mut rest: &[u8], decoder: &mut Decoder) -> io::Result<()> {
    while !rest.is_empty() {
        if session.read_tls(&mut rest)? == 0 {
            // The peer has ended its side: nothing behind that counts.
            return Ok(());
        }
        session.process_new_packets().map_err(io::Error::other)?;
        hand_over(session, decoder)?;
    }
    Ok(())
}

/// Moves what is decrypted to the decoder.
fn hand_over(session: &mut Connection, decoder: &mut Decoder) -> io::Result<()> {
    loop {
        let mut reader = session.reader();
        let len = match reader.fill_buf() {
            Ok(bytes) => {
                decoder.feed(bytes);
                bytes.len()
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        if len == 0 {
            return Ok(());
        }
        reader.consume(len);
    }
}

#[cfg(test)]
mod tests;
