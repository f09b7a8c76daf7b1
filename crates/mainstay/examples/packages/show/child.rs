//! A process of the show, seen from the one that started it, and from itself.
//!
//! It is told what to do by lines on its standard input, and says how it is by lines on its
//! standard output. When its input ends it stops in good order; so it does when the process at the
//! other end is gone, however that ended, and nothing of the show outlives the show.

use std::{
    fs,
    io::{self, BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{self, ChildStdin, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread,
    time::{Duration, Instant},
};

use super::Result;

/// How long anything may take that is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running process of the show; dropped, it is killed and waited for.
pub(crate) struct Child {
    name: &'static str,
    process: process::Child,
    orders: Option<ChildStdin>,
    words: Receiver<String>,
}

impl Child {
    pub(crate) fn start(name: &'static str, mut command: Command) -> Result<Self> {
        // In a group of its own: an interrupt from the keyboard is for the one who started it,
        // whose end is then noticed, and cleaned up after.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut process = command.spawn()?;
        let orders = process.stdin.take();
        let output = process.stdout.take().ok_or("a process without a standard output")?;
        let (said, words) = channel();
        thread::spawn(move || {
            // It ends when the process does, or when nobody listens any more.
            BufReader::new(output)
                .lines()
                .map_while(io::Result::ok)
                .all(|line| said.send(line).is_ok())
        });
        Ok(Self { name, process, orders, words })
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Tells it to do something.
    pub(crate) fn order(&mut self, line: &str) -> Result<()> {
        let orders = self.orders.as_mut().ok_or("it was told to stop")?;
        Ok(writeln!(orders, "{line}")?)
    }

    /// What it says next that begins with this word, without the word; the rest is passed over.
    pub(crate) fn hear(&self, word: &str) -> Result<String> {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.words.recv_timeout(left) {
                Ok(line) => {
                    if let Some(rest) = line.strip_prefix(word) {
                        return Ok(rest.trim().to_owned());
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!(
                        "the {} did not say {word:?} in {PATIENCE:?}: this machine is far too \
                         busy, or it is a fault",
                        self.name
                    )
                    .into());
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(format!(
                        "the {} ended by itself; what it wrote to standard error says why",
                        self.name
                    )
                    .into());
                }
            }
        }
    }

    /// SIGKILL. When this returns the process is gone; what it said last that begins with this word.
    pub(crate) fn kill(mut self, word: &str) -> Result<Option<String>> {
        self.process.kill()?;
        self.process.wait()?;
        // Nobody writes any more, so that this ends.
        let said = self.words.iter().filter_map(|line| Some(line.strip_prefix(word)?.to_owned()));
        Ok(said.last())
    }

    /// Lets it stop in good order.
    pub(crate) fn stop(mut self) -> Result<()> {
        drop(self.orders.take());
        let until = Instant::now() + PATIENCE;
        let status = loop {
            match self.process.try_wait()? {
                Some(status) => break status,
                None if Instant::now() > until => {
                    return Err(format!("the {} does not stop", self.name).into());
                }
                None => thread::sleep(Duration::from_millis(1)),
            }
        };
        if !status.success() {
            return Err(format!("the {} failed: {status}", self.name).into());
        }
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail only when it has already been waited for.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The other side of it: what such a process is told, and says.
pub(crate) struct Line {
    orders: Receiver<String>,
    is_over: Arc<AtomicBool>,
}

impl Line {
    /// From now on standard input is listened to.
    pub(crate) fn listen() -> Self {
        let (sender, orders) = channel();
        let is_over = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&is_over);
        thread::spawn(move || {
            io::stdin()
                .lock()
                .lines()
                .map_while(io::Result::ok)
                .all(|line| sender.send(line).is_ok());
            flag.store(true, Ordering::Relaxed);
        });
        Self { orders, is_over }
    }

    /// Whether it is to stop.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// The next order, if there is one in time.
    pub(crate) fn order(&self, timeout: Duration) -> Option<String> {
        self.orders.recv_timeout(timeout).ok()
    }

    /// Says something. Whether anybody listens is seen by [`Line::is_over`].
    pub(crate) fn say(&self, line: &str) {
        let mut out = io::stdout().lock();
        let _gone = writeln!(out, "{line}").and_then(|()| out.flush());
    }

    /// The last act of such a process. Where nobody is left to be told, nobody is left to clear the
    /// folder either: each process does it, and the last one's attempt is the one that counts.
    pub(crate) fn leave(self, folder: &Path) {
        let mut out = io::stdout().lock();
        if writeln!(out, "left").and_then(|()| out.flush()).is_err() {
            let _ = fs::remove_dir_all(folder);
        }
    }
}
