//! Reading from a socket without waiting, and waiting for one.

use bytes::BytesMut;
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::{Errno, read, write},
};
use std::{
    io,
    net::TcpStream,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};
use tokio::io::{Interest, unix::AsyncFd};

/// Reads what is there to the end of `buffer`, which has room; `WouldBlock` when nothing is.
pub(super) fn read_into(socket: impl AsFd, buffer: &mut BytesMut) -> io::Result<usize> {
    let old = buffer.len();
    let len = loop {
        match read(&socket, buffer.spare_capacity_mut()) {
            Ok((read, _)) => break read.len(),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    };
    // SAFETY: `read` has got the spare capacity, and returned as its first part the `len` bytes of
    // it that the kernel has written; so the first `old + len` bytes are initialised.
    unsafe { buffer.set_len(old + len) };
    Ok(len)
}

/// A socket that the runtime watches, for the task that calls this.
pub(super) fn watched(
    socket: Arc<TcpStream>,
    interest: Interest,
) -> io::Result<AsyncFd<Arc<TcpStream>>> {
    // SAFETY: the descriptor of a `TcpStream` is always the same one, and open as long as the
    // stream lives; the `Arc` keeps it alive until the registration has ended, and nothing reaches
    // into it mutably.
    Ok(unsafe { AsyncFd::register_with_interest(socket, interest) }?)
}

/// What one waits for.
#[derive(Clone, Copy)]
pub(super) enum Wanted {
    Input,
    Output,
}

/// A bell that is rung once: whoever waits for a socket is woken by it as well.
pub(super) struct Bell(OwnedFd);

impl Bell {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    pub(super) fn ring(&self) {
        // It fails only when it has been rung 2^64 - 2 times, and then it is ringing.
        let _ = write(&self.0, &1_u64.to_le_bytes());
    }

    /// Waits until the socket is ready, the bell has been rung, or the time is over.
    pub(super) fn wait(&self, socket: impl AsFd, wanted: Wanted, time: Duration) {
        let flags = match wanted {
            Wanted::Input => PollFlags::IN,
            Wanted::Output => PollFlags::OUT,
        };
        let mut fds = [PollFd::new(&socket, flags), PollFd::new(&self.0, PollFlags::IN)];
        let time = Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: time.subsec_nanos().into(),
        };
        // Whoever waits looks again in any case.
        let _ = poll(&mut fds, Some(&time));
    }
}
