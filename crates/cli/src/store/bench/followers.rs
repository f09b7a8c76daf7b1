//! `mainstay store bench --followers`: real processes, one of which stands still.
//!
//! * The leader is `mainstay store serve`; so many followers copy its store at once, and one more is
//!   stopped as soon as it follows.
//! * When the others have everything, the leader is written to while that one stands still. Its
//!   private memory is looked at all the time: what it keeps for followers is bounded.
//! * The one that stood still goes on; in the end all copies are compared with the leader's store.

use super::{Args, Work};
use crate::{
    channel::wire::Over,
    error::{CliError, Outcome, Result},
    interrupt::Interrupt,
    output::{Output, Side},
    progress::Progress,
    size::{grouped, human},
    store::{
        target::{failed, view_either},
        verify::differences,
    },
};
use mainstay::store::{Directory, Options, RawStore};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    io::{self, BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, TryRecvError, channel},
    thread,
    time::{Duration, Instant},
};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_millis(5);
/// The node that stands still; the others are 2 and so on.
const STILL: u32 = 1_000;
const AGAIN: &str = "run it again, with fewer records if this machine is slow";

#[derive(Serialize)]
struct Row {
    over: &'static str,
    followers: u32,
    records: u64,
    /// Until all but the one that stands still had all.
    seconds: f64,
    per_second: f64,
    /// Writes while one stood still.
    written: u64,
    /// Of the leader, in private memory, before the first follower came.
    memory_before: u64,
    /// The same, at most.
    memory_most: u64,
    /// Records that are not the same in all copies.
    differences: u64,
}

pub(super) fn run(args: &Args, folder: &Path, out: &mut Output) -> Result<Outcome> {
    let overs = if args.over.is_empty() { all() } else { args.over.clone() };
    let progress = Progress::bar("measuring", 1 + overs.len() as u64);
    let place = folder.join("leader");
    fill(args, &place)?;
    fs::write(folder.join("secret"), b"a secret for one measurement").map_err(CliError::file(
        folder,
        "write into it",
        "name another folder with --in",
    ))?;
    progress.advance(1);
    let mut rows = Vec::new();
    for over in overs {
        rows.push(measure(args, over, folder)?);
        progress.advance(1);
    }
    drop(progress);
    if out.json {
        out.document(&rows)?;
    } else {
        tell(&rows, out)?;
    }
    let are_equal = rows.iter().all(|row| row.differences == 0);
    Ok(if are_equal { Outcome::Fine } else { Outcome::Damaged })
}

fn all() -> Vec<Over> {
    match cfg!(feature = "tls") {
        true => vec![Over::Tcp, Over::Tls, Over::Quic],
        false => vec![Over::Tcp],
    }
}

fn fill(args: &Args, place: &Path) -> Result<()> {
    let failed = failed(place);
    let options = Options { shards: args.shards, ..Options::default() };
    let folder = Directory::lock(place).map_err(&failed)?;
    let store = RawStore::create(folder, super::KEY_BYTES, args.value_bytes.into(), &options);
    let store = store.map_err(&failed)?;
    Work { args, store: &store }.load().map_err(&failed)?;
    store.close().map_err(&failed)
}

fn measure(args: &Args, over: Over, folder: &Path) -> Result<Row> {
    let interrupt = Interrupt::watch();
    let mut world = World { folder, over, interrupt, most: 0, leader: None };
    let (mut leader, address) = world.serve()?;
    let memory_before = leader.memory()?;
    world.leader = Some(leader.id());
    let mut still = world.follow(&address, STILL)?;
    world.wait(|| still.hear().map(|said| said.is_some()))?;
    still.signal(Signal::STOP)?;

    let begun = Instant::now();
    let mut followers = Vec::new();
    for node in 2..2 + args.followers {
        followers.push(world.follow(&address, node)?);
    }
    for follower in &mut followers {
        world.wait(|| follower.has(args.records))?;
    }
    let seconds = begun.elapsed().as_secs_f64();

    let written = (args.records / 20).max(1);
    leader.write((0..written).map(|number| format!("update-{number:09} {number}")))?;
    let writes = args.records + written;
    for follower in &mut followers {
        world.wait(|| follower.has(writes))?;
    }
    still.signal(Signal::CONT)?;
    world.wait(|| still.has(writes))?;
    let names: Vec<String> =
        followers.iter().chain([&still]).map(|one| one.store.clone()).collect();
    for process in followers.into_iter().chain([still, leader]) {
        process.end()?;
    }
    let mut differing = 0;
    let ours = view_either(&folder.join("leader"))?;
    for name in names {
        let copy = folder.join(name);
        let (_, found) = differences(&ours, &view_either(&copy)?).map_err(failed(&copy))?;
        differing += found.len() as u64;
        // The next measurement begins with none.
        let removed = fs::remove_dir_all(&copy);
        removed.map_err(CliError::file(&copy, "remove it", "remove it by hand"))?;
    }
    Ok(Row {
        over: over.name(),
        followers: args.followers,
        records: args.records,
        seconds,
        per_second: (args.records * u64::from(args.followers)) as f64 / seconds,
        written,
        memory_before,
        memory_most: world.most,
        differences: differing,
    })
}

/// What the processes of a measurement have in common.
struct World<'a> {
    folder: &'a Path,
    over: Over,
    interrupt: Interrupt,
    leader: Option<i32>,
    /// The most memory the leader had.
    most: u64,
}

impl World<'_> {
    /// Waits for something, and looks at the leader's memory meanwhile.
    fn wait(&mut self, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        while !is_so()? {
            self.interrupt.check("the folder of the measurement is removed")?;
            if Instant::now() > until {
                return Err(late());
            }
            if let Some(id) = self.leader {
                self.most = self.most.max(memory(id)?);
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }

    fn command(&self, what: &str, store: &str, address: &str, node: u32) -> Result<Command> {
        let mut command = program()?;
        command.current_dir(self.folder).args(["store", "--json", what, store, address]);
        command.args(["--every", "10ms", "--node", &node.to_string()]);
        command.args(["--over", self.over.name()]);
        if self.over == Over::Tcp {
            command.args(["--secret-file", "secret"]);
            return Ok(command);
        }
        let mut make = program()?;
        make.current_dir(self.folder).args([
            "channel",
            "cert",
            "certs",
            "--node",
            &node.to_string(),
        ]);
        if !self.folder.join("certs").join(format!("node-{node}.pem")).exists() {
            let made = make.stdin(Stdio::null()).stdout(Stdio::null()).status();
            made.map_err(CliError::file(self.folder, "make certificates in it", AGAIN))?;
        }
        command.args(["--certs", "certs"]);
        Ok(command)
    }

    fn serve(&mut self) -> Result<(Process, String)> {
        #[derive(Deserialize)]
        struct Listening {
            listening: String,
        }
        let command = self.command("serve", "leader", "127.0.0.1:0", 1)?;
        let mut leader = Process::start(command, "leader")?;
        let mut address = String::new();
        self.wait(|| {
            let said = leader.said()?;
            let listening = said.and_then(|said| serde_json::from_str::<Listening>(&said).ok());
            address = listening.map_or_else(String::new, |said| said.listening);
            Ok(!address.is_empty())
        })?;
        Ok((leader, address))
    }

    fn follow(&self, address: &str, node: u32) -> Result<Process> {
        let store = format!("copy-{node}");
        Process::start(self.command("follow", &store, address, node)?, &store)
    }
}

fn program() -> Result<Command> {
    let hint = "start it by its whole path";
    let this = std::env::current_exe();
    let this = this.map_err(CliError::file(Path::new("mainstay"), "find it", hint))?;
    let mut program = Command::new(this);
    // What is measured here is not encrypted.
    program.env_remove("MAINSTAY_KEY_FILE");
    Ok(program)
}

fn late() -> CliError {
    let source = io::Error::from(io::ErrorKind::TimedOut);
    CliError::file(Path::new("mainstay store follow"), "get everything", AGAIN)(source)
}

/// How a follower is, as it says.
#[derive(Deserialize)]
struct Said {
    leader: u64,
    behind: u64,
    caught_up: bool,
}

/// A process of the measurement; dropped, it is killed and waited for.
struct Process {
    child: Child,
    store: String,
    lines: Receiver<String>,
}

impl Process {
    fn start(mut command: Command, store: &str) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let hint = "raise the limits of this user";
        let mut child =
            command.spawn().map_err(CliError::file(Path::new("mainstay"), "start it", hint))?;
        let (said, lines) = channel();
        if let Some(output) = child.stdout.take() {
            // It ends when the process does, or when nobody listens any more.
            thread::spawn(move || {
                let lines = BufReader::new(output).lines().map_while(io::Result::ok);
                lines.map(|line| said.send(line)).all(|sent| sent.is_ok())
            });
        }
        Ok(Self { child, store: store.to_owned(), lines })
    }

    fn id(&self) -> i32 {
        self.child.id().cast_signed()
    }

    fn memory(&self) -> Result<u64> {
        memory(self.id())
    }

    /// The next line, if there is one.
    fn said(&mut self) -> Result<Option<String>> {
        match self.lines.try_recv() {
            Ok(line) => Ok(Some(line)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => {
                let source = io::Error::from(io::ErrorKind::UnexpectedEof);
                let what = "go on with it: it has ended";
                Err(CliError::file(Path::new(&self.store), what, AGAIN)(source))
            }
        }
    }

    /// The last that a follower has said since this was asked.
    fn hear(&mut self) -> Result<Option<Said>> {
        let mut last = None;
        while let Some(line) = self.said()? {
            last = serde_json::from_str(&line).ok().or(last);
        }
        Ok(last)
    }

    /// Whether a follower has this many writes, and all that its leader has.
    fn has(&mut self, writes: u64) -> Result<bool> {
        let said = self.hear()?;
        Ok(said.is_some_and(|said| said.caught_up && said.behind == 0 && said.leader >= writes))
    }

    fn write(&mut self, lines: impl Iterator<Item = String>) -> Result<()> {
        let mut text = String::new();
        for line in lines {
            text.push_str(&line);
            text.push('\n');
        }
        let Some(input) = &mut self.child.stdin else { return Ok(()) };
        let written = input.write_all(text.as_bytes());
        written.map_err(CliError::file(Path::new(&self.store), "write to its leader", AGAIN))
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_child(&self.child);
        let sent = kill_process(pid, signal).map_err(io::Error::from);
        sent.map_err(CliError::file(Path::new(&self.store), "signal its process", AGAIN))
    }

    /// Lets it end in good order.
    fn end(mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let ended = self.child.wait();
        ended.map(drop).map_err(CliError::file(Path::new(&self.store), "wait for it", AGAIN))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it has already been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Private memory of a process: its records are shared memory, and not part of it.
fn memory(id: i32) -> Result<u64> {
    let status = procfs::process::Process::new(id).and_then(|process| process.status());
    let status = status.map_err(io::Error::other);
    let hint = "mount /proc";
    let status = status.map_err(CliError::file(Path::new("/proc"), "look at the leader", hint))?;
    Ok(status.rssanon.unwrap_or(0) * 1_024)
}

fn tell(rows: &[Row], out: &mut Output) -> Result<()> {
    let columns = [
        ("OVER", Side::Left),
        ("FOLLOWERS", Side::Right),
        ("RECORDS", Side::Right),
        ("SECONDS", Side::Right),
        ("RECORDS/S", Side::Right),
        ("LEADER'S MEMORY", Side::Right),
        ("AT MOST", Side::Right),
        ("DIFFERENCES", Side::Right),
    ];
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            vec![
                row.over.to_owned(),
                row.followers.to_string(),
                grouped(row.records),
                format!("{:.3}", row.seconds),
                grouped(row.per_second as u64),
                human(row.memory_before),
                human(row.memory_most),
                grouped(row.differences),
            ]
        })
        .collect();
    out.table(&columns, &cells)?;
    let written = rows.first().map_or(0, |row| row.written);
    out.line(&format!(
        "one more follower stood still during all this and {} writes, and then got them; all copies \
         were compared",
        grouped(written)
    ))
}
