//! Child processes made by fork, and how they end.
//!
//! C1. Only a process with one thread forks, so a child may do anything.
//! C2. A child never returns into its parent's frames and runs none of its destructors: it leaves
//!     by `_exit`.
//! C3. A child dies with its parent, however that dies; nothing is left behind.

use rustix::process::{self, Pid, Signal, WaitOptions, WaitStatus};
use std::{
    panic::{self, AssertUnwindSafe},
    thread,
    time::{Duration, Instant},
};

/// Exit code of a child that panicked.
pub(crate) const PANICKED: i32 = 101;

/// What happened to a child.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum News {
    /// It left with this code.
    Exited(i32),
    /// This signal killed it.
    Killed(i32),
    /// It was stopped.
    Stopped,
}

/// A child; killed and collected when dropped.
#[derive(Debug)]
pub(crate) struct Child {
    pid: Pid,
    ended: bool,
}

impl Child {
    /// Runs `body` in a child; its result is the exit code.
    pub(crate) fn fork(body: impl FnOnce() -> i32) -> Self {
        // SAFETY: this process has one thread (C1), so the child's copy of it is whole.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "cannot fork: {}", std::io::Error::last_os_error());
        if pid == 0 {
            // Best effort: without it, children of a killed parent end when their work does.
            let _ = process::set_parent_process_death_signal(Some(Signal::KILL));
            let code = panic::catch_unwind(AssertUnwindSafe(body)).unwrap_or(PANICKED);
            // SAFETY: ends this process at once (C2).
            unsafe { libc::_exit(code) };
        }
        let pid = Pid::from_raw(pid).expect("fork returns a positive number to the parent");
        Self { pid, ended: false }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw_pid()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        if !self.ended {
            // It cannot fail: the child is not collected yet.
            let _ = process::kill_process(self.pid, signal);
        }
    }

    /// Waits, without limit, until it ends or is stopped.
    pub(crate) fn wait(&mut self) -> News {
        loop {
            if let Some(news) = self.look(WaitOptions::UNTRACED) {
                return news;
            }
        }
    }

    /// What has happened to it since the last look, if anything.
    pub(crate) fn poll(&mut self) -> Option<News> {
        self.look(WaitOptions::UNTRACED | WaitOptions::NOHANG)
    }

    /// Waits at most `limit` for its end; if it stops, it is continued.
    pub(crate) fn end_within(&mut self, limit: Duration) -> Option<News> {
        let deadline = Instant::now() + limit;
        loop {
            match self.poll() {
                Some(News::Stopped) => self.signal(Signal::CONT),
                None if Instant::now() > deadline => return None,
                None => thread::sleep(Duration::from_micros(100)),
                end => return end,
            }
        }
    }

    /// Kills it and waits for its end.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        while !self.ended {
            self.look(WaitOptions::empty());
        }
    }

    /// What its threads are doing, for messages: state letter and place in the kernel of each.
    pub(crate) fn describe_threads(&self) -> String {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let folder = format!("/proc/{}/task", self.pid());
        let threads = std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|thread| {
            let of = |file: &str| read(&format!("{}/{file}", thread.path().display()));
            let stat = of("stat");
            // Behind the program's name, which stands in brackets.
            let state = stat.rsplit(')').next().and_then(|rest| rest.trim().chars().next());
            format!("{} {}", state.unwrap_or('?'), of("wchan").trim())
        });
        threads.collect::<Vec<_>>().join(", ")
    }

    fn look(&mut self, options: WaitOptions) -> Option<News> {
        let (_, status) = loop {
            match process::waitpid(Some(self.pid), options) {
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => panic!("cannot wait for child {}: {e}", self.pid()),
                Ok(found) => break found?,
            }
        };
        let news = news_of(status)?;
        self.ended = news != News::Stopped;
        Some(news)
    }
}

fn news_of(status: WaitStatus) -> Option<News> {
    if status.stopped() {
        return Some(News::Stopped);
    }
    let exited = status.exit_status().map(News::Exited);
    exited.or_else(|| status.terminating_signal().map(News::Killed))
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.ended {
            self.kill();
        }
    }
}

/// Stops this process until somebody continues it.
pub(crate) fn stop_myself() {
    let _ = process::kill_process(process::getpid(), Signal::STOP);
}

/// Kills this process, as from outside: nothing runs after.
pub(crate) fn kill_myself() -> ! {
    let _ = process::kill_process(process::getpid(), Signal::KILL);
    loop {
        thread::park();
    }
}

/// Runs `body` under a time limit in a child.
///
/// # Errors
/// What happened instead of its returning 0 in time.
pub(crate) fn within(limit: Duration, body: impl FnOnce() -> i32) -> Result<(), String> {
    let mut child = Child::fork(body);
    match child.end_within(limit) {
        Some(News::Exited(0)) => Ok(()),
        Some(News::Exited(PANICKED)) => Err("panicked".into()),
        Some(news) => Err(format!("{news:?}")),
        None => Err(format!("not done after {limit:?}")),
    }
}
