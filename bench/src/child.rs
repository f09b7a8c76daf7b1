//! Real processes: this program, started again in a role of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child as Process, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Signal, set_parent_process_death_signal};

use crate::Outcome;
use crate::role::Role;

/// What a child says when it has done what it was started for, or is ready to.
const READY: &str = "ready";
/// A child that nobody kills ends by itself.
const LIFE_MAX: Duration = Duration::from_secs(120);

/// A child process, killed when this is dropped.
pub(crate) struct Child {
    process: Process,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Child {
    /// Starts a child that takes orders from its standard input.
    pub(crate) fn start(role: &Role, arguments: &[&str]) -> Outcome<Child> {
        Child::start_with(role, arguments, Stdio::piped())
    }

    /// Starts a child that finds something of ours (a memfd) as its standard input.
    pub(crate) fn start_with(role: &Role, arguments: &[&str], input: Stdio) -> Outcome<Child> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg(format!("--role={}", role.name))
            .args(arguments)
            .stdin(input)
            .stdout(Stdio::piped())
            .spawn()?;
        let output = process.stdout.take().ok_or("a child without a standard output")?;
        let input = process.stdin.take();
        Ok(Child { process, input, output: BufReader::new(output) })
    }

    /// Waits until the child is ready.
    pub(crate) fn wait_ready(&mut self) -> Outcome<()> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        if line.trim() == READY {
            return Ok(());
        }
        Err(format!("a child process ended before it was ready ({})", self.process.wait()?).into())
    }

    /// Sends one line.
    pub(crate) fn tell(&mut self, line: &str) -> Outcome<()> {
        let input = self.input.as_mut().ok_or("this child takes no orders")?;
        Ok(writeln!(input, "{line}")?)
    }

    /// Everything the child still has to say, once it has ended well.
    pub(crate) fn finish(mut self) -> Outcome<String> {
        let mut said = String::new();
        self.output.read_to_string(&mut said)?;
        let status = self.process.wait()?;
        if status.success() { Ok(said) } else { Err(format!("a child failed: {status}").into()) }
    }

    /// Kills the child with SIGKILL and waits until it is gone.
    pub(crate) fn kill(mut self) -> Outcome<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended already; there is nothing to do about any failure here.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Called first thing in a child: it must not outlive its parent.
pub(crate) fn die_with_parent() -> Outcome<()> {
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// Tells the parent that this child is ready.
pub(crate) fn say_ready() -> Outcome<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{READY}")?;
    Ok(output.flush()?)
}

/// Waits to be killed.
pub(crate) fn wait_for_death() -> Outcome<()> {
    let start = Instant::now();
    while start.elapsed() < LIFE_MAX {
        std::thread::sleep(Duration::from_secs(1));
    }
    Err("nobody killed this child".into())
}

/// Reads the one order a child gets.
pub(crate) fn read_order() -> Outcome<String> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}
