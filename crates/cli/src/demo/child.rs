//! The parent's side of the line to one process of the demo.
//!
//! A child is this very program, run again in a hidden role. It has nothing of its parent's but a
//! socket and a pipe; the pool reaches it as a passed descriptor.

use std::collections::VecDeque;
use std::io::Write;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use mainstay::pool::handover;

use super::error::{DemoError, Trying};
use super::wire::{Message, pump};
use super::{Plant, Role};

/// How long an orderly end may take before it is helped along.
const END_TIME: Duration = Duration::from_secs(3);

/// A running process of the demo; dropped, it is killed and waited for.
pub(super) struct Child {
    role: Role,
    process: std::process::Child,
    commands: UnixStream,
    inbox: Receiver<Vec<Message>>,
    unread: VecDeque<Message>,
}

impl Child {
    /// Starts this program again in `role`.
    pub(super) fn spawn(role: Role, plant: Option<Plant>) -> Result<Self, DemoError> {
        let program = std::env::current_exe().trying("find this program")?;
        let (commands, theirs) = UnixStream::pair().trying("create a socket pair")?;
        let mut command = Command::new(program);
        command.args(["demo-role", role.name()]);
        if let Some(plant) = plant {
            command.args(["--plant", plant.name()]);
        }
        let mut process = command
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .spawn()
            .trying("start a process of the demo")?;
        let pipe = process.stdout.take().expect("standard output was asked to be a pipe");
        let (sender, inbox) = channel();
        std::thread::spawn(move || {
            // A child that says nonsense is heard no more: its parent sees it as ended.
            if let Err(error) = pump(pipe, &sender) {
                eprintln!("mainstay demo: the {} is not understood: {error}", role.name());
            }
        });
        Ok(Self { role, process, commands, inbox, unread: VecDeque::new() })
    }

    /// Gives a command without descriptors.
    pub(super) fn order(&self, command: u8) -> Result<(), DemoError> {
        (&self.commands).write_all(&[command]).trying("give a command")
    }

    /// Gives a command with a descriptor.
    pub(super) fn pass(&self, command: u8, fd: BorrowedFd<'_>) -> Result<(), DemoError> {
        handover::send_fds(&self.commands, &[command], &[fd]).trying("pass a descriptor")
    }

    /// The next message, waited for until `deadline`.
    pub(super) fn hear(&mut self, deadline: Instant) -> Result<Option<Message>, DemoError> {
        while self.unread.is_empty() {
            let patience = deadline.saturating_duration_since(Instant::now());
            match self.inbox.recv_timeout(patience) {
                Ok(batch) => self.unread.extend(batch),
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(DemoError::Ended { role: self.role.name() });
                }
            }
        }
        Ok(self.unread.pop_front())
    }

    /// SIGKILL. When this returns the process has left its memory and its leases.
    pub(super) fn kill(&mut self) -> Result<(), DemoError> {
        self.process.kill().trying("kill a process")?;
        self.process.wait().trying("wait for a killed process").map(drop)
    }

    /// Everything a dead child had said.
    pub(super) fn last_words(mut self) -> Vec<Message> {
        let mut words: Vec<_> = self.unread.drain(..).collect();
        words.extend(self.inbox.iter().flatten());
        words
    }

    /// Waits for an orderly end.
    pub(super) fn wait(&mut self) -> Result<(), DemoError> {
        let deadline = Instant::now() + END_TIME;
        loop {
            match self.process.try_wait().trying("wait for a process")? {
                Some(status) if status.success() => return Ok(()),
                Some(_) => return Err(DemoError::Ended { role: self.role.name() }),
                None if Instant::now() > deadline => {
                    return Err(DemoError::Silent {
                        role: self.role.name(),
                        seconds: END_TIME.as_secs(),
                    });
                }
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail only when it has already been waited for.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
