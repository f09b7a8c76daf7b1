//! A process of the show, seen from the one that started it, and from itself.
//!
//! Its standard input is a pipe that nobody writes to: when it ends, the process is to stop and to
//! report. It also ends when the process at the other end is gone, however that ended, so nothing
//! of the show outlives the show.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{self, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{Result, report::Report};

/// How long a process may take to stop.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running process of the show; dropped, it is killed and waited for.
pub(crate) struct Child {
    name: &'static str,
    process: process::Child,
}

impl Child {
    pub(crate) fn start(name: &'static str, mut command: Command) -> Result<Self> {
        // In a group of its own: an interrupt from the keyboard is for the one who started it,
        // whose end is then noticed, and cleaned up after.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        Ok(Self { name, process: command.spawn()? })
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// SIGKILL. When this returns the process is gone.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Lets it stop, and report.
    pub(crate) fn stop(mut self) -> Result<Report> {
        drop(self.process.stdin.take());
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match self.process.try_wait()? {
                Some(status) => break status,
                None if Instant::now() > deadline => {
                    return Err(format!("the {} process does not stop", self.name).into());
                }
                None => thread::sleep(Duration::from_millis(1)),
            }
        };
        if !status.success() {
            return Err(format!("the {} process failed: {status}", self.name).into());
        }
        let mut line = String::new();
        if let Some(pipe) = &mut self.process.stdout {
            pipe.read_to_string(&mut line)?;
        }
        Ok(Report::parse(&line))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail only when it has already been waited for.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Knows, within such a process, whether it is to stop.
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// From now on standard input is listened to.
    pub(crate) fn listen() -> Self {
        let asked = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&asked);
        thread::spawn(move || {
            // An error is an end as well.
            let _ = io::copy(&mut io::stdin(), &mut io::sink());
            flag.store(true, Ordering::Relaxed);
        });
        Self(asked)
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The last act of such a process. Where nobody is left to be told, nobody is left to clear the
/// folder either: each process does it, and the last one's attempt is the one that counts.
pub(crate) fn say_and_leave(report: &Report, folder: &Path) {
    let mut out = io::stdout();
    if writeln!(out, "{report}").and_then(|()| out.flush()).is_err() {
        let _ = fs::remove_dir_all(folder);
    }
}
