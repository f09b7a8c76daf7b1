//! `cargo xtask systemd`: a pool kept over the end of its process by a real service manager.
//!
//! The service is the example `fdstore_service` of the crate `mainstay`; how it is run is in the
//! unit file `xtask/rigs/fdstore@.service`. It writes a line each time it starts, saying what it
//! found. What it *should* have found is counted here, from outside: a service that lost all its
//! memory does not know what it lost.
//!
//! Three instances: `keep` is the test; `forget` does not hand its descriptor over and must be
//! found to lose its blocks, or this test could not fail; `retire` takes its descriptor back at an
//! orderly end, after which the manager must hold nothing.

mod rig;
mod status;

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use self::{
    rig::Rig,
    status::{Start, Tally},
};
use crate::{
    error::{Error, Result},
    project::{self, Project},
    report::Outcome,
};

/// The name the example stores its descriptor under.
const FD_NAME: &str = "calls";

/// How long the service works before it is ended; each round adds a little, to end it at another
/// point of its work.
const WORK: Duration = Duration::from_millis(100);

/// Test the hand-over of a pool through a real systemd, started for the test alone
///
/// A service keeps its pool's memory in the file descriptor store, is killed, restarted, and must
/// find every block; then the same with planned restarts. Needs root and systemd's programs;
/// without them it prints what is missing and ends with status 0. The last line is
/// `SYSTEMD kills=<n> restarts=<n> lost=<n> torn=<n>` or `SYSTEMD skipped: <reason>`.
#[derive(clap::Args)]
#[group(skip)]
#[command(after_help = "Examples:\n  cargo xtask systemd\n  cargo xtask systemd --kills 20")]
pub(crate) struct Args {
    /// How often the service is killed
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=50))]
    kills: u32,
    /// How often it is restarted in an orderly way
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=20))]
    restarts: u32,
}

pub(crate) fn run(project: &Project, args: &Args) -> Result<()> {
    if let Outcome::Skipped(reason) = test_with(project, args)? {
        println!("SYSTEMD skipped: {reason}");
    }
    Ok(())
}

/// The step of `cargo xtask test`.
pub(crate) fn test(project: &Project) -> Result<Outcome> {
    test_with(project, &Args { kills: 5, restarts: 2 })
}

fn test_with(project: &Project, args: &Args) -> Result<Outcome> {
    if let Some(reason) = Rig::obstacle(project)? {
        return Ok(Outcome::Skipped(reason));
    }
    let work = WorkFolder::new(project)?;
    let rig = Rig::start(project, &work.path)?;
    let outcome = all(&rig, &work.path, args);
    if outcome.is_err() {
        work.show_logs();
    }
    rig.stop()?;
    outcome.map(|()| Outcome::Passed)
}

fn all(rig: &Rig, work: &Path, args: &Args) -> Result<()> {
    println!("{}", Start::HEADINGS);
    let tally = keep(rig, work, args)?;
    forget(rig, work)?;
    retire(rig, work)?;
    for fault in &tally.faults {
        println!("fault: {fault}");
    }
    println!("{}", tally.verdict());
    if tally.is_clean() {
        Ok(())
    } else {
        Err(wrong("keep", "did not find everything as it was, see the lines above"))
    }
}

/// Nothing may be lost, however the process ends.
fn keep(rig: &Rig, work: &Path, args: &Args) -> Result<Tally> {
    let mut service = Service::new(rig, work, "keep")?;
    let mut tally = Tally::default();
    tally.first(&service.start()?);
    service.expect_stored(1)?;
    for _ in 0..args.kills {
        tally.after_kill(&service.kill()?, FD_NAME);
    }
    for _ in 0..args.restarts {
        tally.after_restart(&service.restart()?, FD_NAME);
    }
    // Pushed once, and never again by a successor that found it.
    service.expect_stored(1)?;
    Ok(tally)
}

/// The control: the same service, the same death, no hand-over. The count must show the loss.
fn forget(rig: &Rig, work: &Path) -> Result<()> {
    let mut service = Service::new(rig, work, "forget")?;
    let mut tally = Tally::default();
    tally.first(&service.start()?);
    service.expect_stored(0)?;
    tally.after_kill(&service.kill()?, "-");
    if tally.lost == 0 {
        return Err(wrong("forget", "kept nothing, and no loss was found: this test is blind"));
    }
    Ok(())
}

/// What is removed from the store is not given back.
fn retire(rig: &Rig, work: &Path) -> Result<()> {
    let mut service = Service::new(rig, work, "retire")?;
    service.start()?;
    service.expect_stored(1)?;
    let start = service.restart()?;
    if (start.found, &*start.names) != (0, "-") {
        return Err(wrong("retire", "removed its descriptor, but the next start was given it"));
    }
    // The one pushed by the new start, and none of the old.
    service.expect_stored(1)
}

fn wrong(mode: &str, complaint: &str) -> Error {
    Error::Output { command: format!("fdstore@{mode}"), complaint: complaint.to_owned() }
}

/// One instance of the unit, and how often it was started.
struct Service<'rig> {
    rig: &'rig Rig,
    mode: &'static str,
    unit: String,
    status: PathBuf,
    starts: usize,
}

impl<'rig> Service<'rig> {
    fn new(rig: &'rig Rig, work: &Path, mode: &'static str) -> Result<Self> {
        let folder = work.join(mode);
        fs::create_dir(&folder).map_err(|source| file_error("create", &folder, source))?;
        let unit = format!("fdstore@{mode}.service");
        Ok(Self { rig, mode, unit, status: folder.join("status"), starts: 0 })
    }

    fn start(&mut self) -> Result<Start> {
        let begun = Instant::now();
        self.rig.inside(&["systemctl", "start", &self.unit])?;
        self.started("started", begun)
    }

    fn kill(&mut self) -> Result<Start> {
        self.let_it_work();
        let pid = self.property("MainPID")?;
        let begun = Instant::now();
        self.rig.inside(&["sh", "-c", "kill -KILL \"$1\"", "sh", &pid])?;
        self.started("killed", begun)
    }

    fn restart(&mut self) -> Result<Start> {
        self.let_it_work();
        let begun = Instant::now();
        self.rig.inside(&["systemctl", "restart", &self.unit])?;
        self.started("restarted", begun)
    }

    fn let_it_work(&self) {
        let shift = u32::try_from(self.starts % 10).unwrap_or_default();
        thread::sleep(WORK + Duration::from_micros(1_370) * shift);
    }

    /// Waits for the line of the next start, and shows it.
    fn started(&mut self, ended_by: &str, begun: Instant) -> Result<Start> {
        self.starts += 1;
        let what = format!("start {} of {}", self.starts, self.unit);
        let line = self.rig.wait_for(&what, || self.line(self.starts))?;
        let took = begun.elapsed();
        let start =
            Start::parse(&line).ok_or_else(|| wrong(self.mode, &format!("wrote `{line}`")))?;
        println!("{}", start.row(self.mode, ended_by, took));
        if start.number != self.starts as u64 {
            return Err(wrong(self.mode, "was started more often than this test did"));
        }
        Ok(start)
    }

    fn line(&self, number: usize) -> Result<Option<String>> {
        match fs::read_to_string(&self.status) {
            // A line counts once it is complete.
            Ok(text) => {
                let mut complete = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
                Ok(complete.nth(number - 1).map(|line| line.trim_end().to_owned()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(file_error("read", &self.status, source)),
        }
    }

    fn property(&self, name: &str) -> Result<String> {
        self.rig.inside(&["systemctl", "show", "--value", "-p", name, &self.unit])
    }

    fn expect_stored(&self, count: u32) -> Result<()> {
        let stored = self.property("NFileDescriptorStore")?;
        if stored == count.to_string() {
            return Ok(());
        }
        let complaint = format!("the manager keeps {stored} descriptor(s) of it, not {count}");
        Err(wrong(self.mode, &complaint))
    }
}

/// The services' folder, removed at the end.
struct WorkFolder {
    path: PathBuf,
}

impl WorkFolder {
    /// With the unit file and a fresh build of the service in it.
    fn new(project: &Project) -> Result<Self> {
        let build = ["build", "--release", "-p", "mainstay", "--example", "fdstore_service"];
        project::run(&mut project.cargo(&build))?;
        let path = project.target().join(format!("systemd-rig-{}", std::process::id()));
        fs::create_dir_all(&path).map_err(|source| file_error("create", &path, source))?;
        let folder = Self { path };
        folder.add(&project.target().join("release/examples/fdstore_service"))?;
        folder.add(&project.root().join("xtask/rigs/fdstore@.service"))?;
        Ok(folder)
    }

    fn add(&self, file: &Path) -> Result<()> {
        let name = file.file_name().unwrap_or_default();
        fs::copy(file, self.path.join(name)).map_err(|source| file_error("copy", file, source))?;
        Ok(())
    }

    fn show_logs(&self) {
        for mode in ["keep", "forget", "retire"] {
            if let Ok(log) = fs::read_to_string(self.path.join(mode).join("log")) {
                eprint!("{log}");
            }
        }
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        // What cannot be removed is in the folder of builds, where `cargo clean` finds it.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn file_error(action: &'static str, path: &Path, source: std::io::Error) -> Error {
    Error::File { action, path: path.to_owned(), source }
}
