//! The child's side of the line to its parent: commands come in on a socket, words go out on a pipe.
//!
//! The socket is standard input and the pipe is standard output, so that nothing but these two is
//! inherited. Every command is one byte, with descriptors beside it where it needs some.
//!
//! * **R1** When the parent is gone, however it ended, the socket reports the end of the stream and
//!   this process ends: nothing of the demo outlives the demo.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use mainstay::pool::handover;
use rustix::time::{ClockId, clock_gettime};

use super::error::{DemoError, Trying};
use super::wire::Outbox;

/// Commands of the parent, and words between two recorders.
pub(super) mod command {
    /// Here is the pool.
    pub(in super::super) const POOL: u8 = b'P';
    /// Take over from the recorder at the other end of this socket.
    pub(in super::super) const TAKE_OVER: u8 = b'T';
    /// Hand over to the recorder at the other end of this socket.
    pub(in super::super) const HAND_OVER: u8 = b'H';
    /// Report.
    pub(in super::super) const REPORT: u8 = b'R';
    /// End in good order.
    pub(in super::super) const STOP: u8 = b'S';
    /// Between recorders: the pool is joined, go ahead.
    pub(in super::super) const READY: u8 = b'r';
    /// Between recorders: every block is parked and the pool closed.
    pub(in super::super) const YOURS: u8 = b'y';
}

/// Nanoseconds of a clock that all processes of a machine share and nobody sets.
pub(super) fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// The line to the parent, before anybody listens to it.
pub(super) struct Line {
    pub(super) commands: UnixStream,
    pub(super) outbox: Outbox,
}

impl Line {
    /// The line this process was started with.
    pub(super) fn inherited() -> Result<Self, DemoError> {
        let commands =
            io::stdin().as_fd().try_clone_to_owned().trying("take the command socket")?;
        let outbox = io::stdout().as_fd().try_clone_to_owned().trying("take the report pipe")?;
        Ok(Self { commands: commands.into(), outbox: Outbox::new(outbox) })
    }
}

/// Takes one command with one descriptor.
pub(super) fn receive_with_fd(socket: &UnixStream) -> Result<(u8, OwnedFd), DemoError> {
    let mut byte = [0];
    let (length, mut fds) =
        handover::receive_fds(socket, &mut byte).trying("receive a descriptor")?;
    match fds.pop() {
        Some(fd) if length == 1 && fds.is_empty() => Ok((byte[0], fd)),
        _ => Err(DemoError::Command { command: (length == 1).then(|| byte[0].into()) }),
    }
}

/// Takes one word without descriptors.
pub(super) fn receive_word(mut socket: &UnixStream, expected: u8) -> Result<(), DemoError> {
    let mut byte = [0];
    socket.read_exact(&mut byte).trying("hear from the other recorder")?;
    if byte[0] == expected {
        Ok(())
    } else {
        Err(DemoError::Command { command: Some(byte[0].into()) })
    }
}

/// Says one word.
pub(super) fn say_word(mut socket: &UnixStream, word: u8) -> Result<(), DemoError> {
    socket.write_all(&[word]).trying("speak to the other recorder")
}

/// What the listening thread passes to the working one.
pub(super) enum Order {
    /// Report.
    Report,
    /// Stop in good order.
    Stop,
    /// Stop in good order, then tell the recorder at the other end.
    HandOver(UnixStream),
}

/// Orders of the parent, taken by a thread of its own.
pub(super) struct Orders {
    waiting: Arc<AtomicBool>,
    orders: Receiver<Order>,
}

impl Orders {
    /// Listens on `commands`; `pool` is what a hand-over passes on.
    pub(super) fn listen(commands: UnixStream, pool: OwnedFd) -> Self {
        let (sender, orders) = channel();
        let waiting = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&waiting);
        std::thread::spawn(move || {
            let status = match listen(&commands, &pool, &sender, &flag) {
                Ok(()) => 0,
                Err(error) => {
                    eprintln!("mainstay demo: {error}");
                    1
                }
            };
            // R1. The working thread may be anywhere: that is what the pool is made for.
            std::process::exit(status);
        });
        Self { waiting, orders }
    }

    /// The next order, if there is one. One load where there is none: asked for every record.
    pub(super) fn next(&self) -> Option<Order> {
        if !self.waiting.load(Ordering::Relaxed) {
            return None;
        }
        // Cleared before looking: an order that comes in between sets it again.
        self.waiting.store(false, Ordering::SeqCst);
        let order = self.orders.try_recv().ok()?;
        self.waiting.store(true, Ordering::SeqCst);
        Some(order)
    }

    /// Waits for an order.
    pub(super) fn wait(&self, patience: Duration) -> Option<Order> {
        self.orders.recv_timeout(patience).ok()
    }
}

fn listen(
    commands: &UnixStream,
    pool: &OwnedFd,
    orders: &Sender<Order>,
    waiting: &AtomicBool,
) -> Result<(), DemoError> {
    loop {
        let mut byte = [0];
        let (length, mut fds) =
            handover::receive_fds(commands, &mut byte).trying("receive a command")?;
        let order = match (length, byte[0], fds.pop()) {
            (0, ..) => return Ok(()),
            (_, command::REPORT, None) => Order::Report,
            (_, command::STOP, None) => Order::Stop,
            (_, command::HAND_OVER, Some(fd)) => {
                // The recorder samples on while the other one starts and joins.
                let other = UnixStream::from(fd);
                handover::send_fds(&other, &[command::POOL], &[pool.as_fd()])
                    .trying("pass the pool on")?;
                receive_word(&other, command::READY)?;
                Order::HandOver(other)
            }
            (_, unknown, _) => return Err(DemoError::Command { command: Some(unknown.into()) }),
        };
        if orders.send(order).is_err() {
            return Ok(());
        }
        waiting.store(true, Ordering::SeqCst);
    }
}

/// Turns the end of a role into the end of its process.
pub(super) fn exit(role: &str, outcome: Result<(), DemoError>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // R1. Nobody is left to be told.
        Err(error) if error.is_broken_pipe() => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("mainstay demo: {role}: {error}");
            ExitCode::FAILURE
        }
    }
}
