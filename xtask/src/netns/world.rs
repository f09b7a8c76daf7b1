//! Three hosts, the link between them, and the programs on them.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    error::{Error, Result},
    project::{self, Project},
};

/// Nothing on this network takes longer.
const LIMIT: Duration = Duration::from_secs(60);
const HOSTS: usize = 3;
const PORT: u16 = 7_400;

/// Over what the nodes talk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Over {
    Tcp,
    Tls,
    Quic,
}

impl Over {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Quic => "quic",
        }
    }
}

/// What the process of the listener has of the system.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holds {
    /// Memory that is not a file, in bytes.
    pub(super) resident: usize,
    pub(super) descriptors: usize,
}

impl Holds {
    /// The most of both.
    pub(super) fn most(self, other: Self) -> Self {
        Self {
            resident: self.resident.max(other.resident),
            descriptors: self.descriptors.max(other.descriptors),
        }
    }
}

pub(super) struct World {
    over: Over,
    names: Vec<String>,
    link: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    listener: Child,
    node_program: PathBuf,
    rig_program: PathBuf,
    work: PathBuf,
}

/// A ping that is under way.
pub(super) struct Pinging(Child);

/// What a ping printed, and how it ended.
pub(super) struct Pings {
    came: u64,
    half_within: Duration,
    all_within: Duration,
    succeeded: bool,
}

/// Strangers that are on their way.
pub(super) struct Flood(std::cell::RefCell<Child>);

impl World {
    /// Why this machine cannot do it, if so.
    pub(super) fn obstacle() -> Option<String> {
        let root = fs::read_to_string("/proc/self/status")
            .is_ok_and(|status| status.lines().any(|line| line.starts_with("Uid:\t0\t")));
        if !root {
            return Some("needs root, for network namespaces".to_owned());
        }
        if !Path::new("/dev/net/tun").exists() {
            return Some("there is no /dev/net/tun".to_owned());
        }
        let probe = format!("mainstay-probe-{}", std::process::id());
        let made = quietly(&["netns", "add", &probe]);
        let _ = quietly(&["netns", "del", &probe]);
        if made { None } else { Some("`ip netns add` does not work here".to_owned()) }
    }

    pub(super) fn new(
        project: &Project,
        packages: &[impl AsRef<OsStr>],
        seed: u64,
    ) -> Result<Self> {
        let mut build = project.cargo(&["build", "--bin", "mainstay", "--example", "netns_rig"]);
        build.args(packages);
        project::run(&mut build)?;
        let node_program = project.target().join("debug/mainstay");
        let rig_program = project.target().join("debug/examples/netns_rig");
        let work = project.target().join(format!("netns-rig-{}", std::process::id()));
        fs::create_dir_all(&work).map_err(|source| file_error("create", &work, source))?;
        let secret = work.join("secret");
        fs::write(&secret, "known on these three hosts only")
            .map_err(|source| file_error("write", &secret, source))?;
        let mut certify = Command::new(&node_program);
        certify.args(["channel", "cert"]).arg(work.join("certs")).stdout(Stdio::null());
        project::run(certify.args(["--node", "1", "--node", "2", "--node", "3"]))?;

        let id = std::process::id();
        let names: Vec<String> = (0..HOSTS).map(|n| format!("mainstay-{id}-{n}")).collect();
        let hosts = Hosts(names.clone());
        for name in &names {
            ip(&["netns", "add", name])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
        }
        let mut link = Command::new(&rig_program);
        link.args(["link", &seed.to_string()]).args(&names);
        let mut link = spawn(link.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let lost = || Error::Output {
            command: "netns_rig link".to_owned(),
            complaint: "has no standard input or output".to_owned(),
        };
        let orders = link.stdin.take().ok_or_else(lost)?;
        let mut answers = BufReader::new(link.stdout.take().ok_or_else(lost)?);
        answer(&mut answers, "up")?;
        for (number, name) in names.iter().enumerate() {
            let address = format!("{}/24", address(number));
            ip(&["-n", name, "addr", "add", &address, "dev", "eth0"])?;
            ip(&["-n", name, "link", "set", "eth0", "up"])?;
        }
        let over = Over::Tcp;
        let listener = listen(&node_program, &names[0], &work, over)?;
        // From here on, dropping the world takes them down.
        std::mem::forget(hosts);
        Ok(Self { over, names, link, orders, answers, listener, node_program, rig_program, work })
    }

    /// From here on the nodes talk over this.
    pub(super) fn talk_over(&mut self, over: Over) -> Result<()> {
        if self.over == over {
            return Ok(());
        }
        self.kill_listener()?;
        self.over = over;
        self.restart_listener()
    }

    pub(super) fn over(&self) -> Over {
        self.over
    }

    /// What the listener has now.
    pub(super) fn listener_holds(&self) -> Result<Holds> {
        let folder = PathBuf::from(format!("/proc/{}", self.listener.id()));
        let (status, open) = (folder.join("status"), folder.join("fd"));
        let text = fs::read_to_string(&status).map_err(|e| file_error("read", &status, e))?;
        let kib = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = kib.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<usize>().ok());
        let resident = kib.map(|kib| kib << 10).ok_or_else(|| Error::Output {
            command: status.display().to_string(),
            complaint: "does not say how much memory is resident".to_owned(),
        })?;
        let open = fs::read_dir(&open).map_err(|source| file_error("read", &open, source))?;
        Ok(Holds { resident, descriptors: open.count() })
    }

    /// Gives the link an order, and waits until it is obeyed.
    pub(super) fn order(&mut self, order: &str) -> Result<()> {
        writeln!(self.orders, "{order}")
            .map_err(|source| Error::Start { command: "netns_rig link".to_owned(), source })?;
        answer(&mut self.answers, "done")
    }

    pub(super) fn heal(&mut self) -> Result<()> {
        self.order("heal")
    }

    /// Node 2 pings from host 1.
    pub(super) fn ping(&self, arguments: &[&str]) -> Result<Pinging> {
        self.ping_from(1, 2, arguments)
    }

    pub(super) fn ping_from(&self, host: usize, node: u64, arguments: &[&str]) -> Result<Pinging> {
        let (program, name) = (&self.node_program, &self.names[host]);
        let mut command = node_command(program, name, &self.work, node, self.over);
        command.arg(format!("{}:{PORT}", address(0))).args(arguments);
        Ok(Pinging(spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?))
    }

    /// That many strangers from host 2: over QUIC they have no certificate, over the others nothing
    /// to say.
    pub(super) fn flood(&self, count: u32) -> Result<Flood> {
        let kind = if self.over == Over::Quic { "flood-quic" } else { "flood" };
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.names[2]]).arg(&self.rig_program);
        command.args([kind, &format!("{}:{PORT}", address(0)), &count.to_string()]);
        Ok(Flood(spawn(command.stdout(Stdio::piped()))?.into()))
    }

    pub(super) fn stop_listener(&self, stop: bool) -> Result<()> {
        let signal = if stop { "-STOP" } else { "-CONT" };
        project::run(Command::new("kill").arg(signal).arg(self.listener.id().to_string()))
    }

    pub(super) fn kill_listener(&mut self) -> Result<()> {
        let killed = self.listener.kill().and_then(|()| self.listener.wait());
        killed.map(drop).map_err(|source| Error::Start { command: "kill".to_owned(), source })
    }

    /// Once it is dead: another one at the same address.
    pub(super) fn restart_listener(&mut self) -> Result<()> {
        self.listener = listen(&self.node_program, &self.names[0], &self.work, self.over)?;
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // `ip netns exec` becomes the program it starts: these are the programs themselves.
        for child in [&mut self.listener, &mut self.link] {
            let _ = child.kill();
            let _ = child.wait();
        }
        drop(Hosts(std::mem::take(&mut self.names)));
        let _ = fs::remove_dir_all(&self.work);
    }
}

/// Namespaces that are removed again.
struct Hosts(Vec<String>);

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in &self.0 {
            let _ = quietly(&["netns", "del", name]);
        }
    }
}

impl Pinging {
    /// How it ended, which must be well.
    pub(super) fn finish(self) -> Result<Pings> {
        let (pings, complaint) = self.collect()?;
        if pings.succeeded {
            return Ok(pings);
        }
        Err(Error::Output { command: "mainstay channel ping".to_owned(), complaint })
    }

    /// How it ended, well or not.
    pub(super) fn ended(self) -> Result<Pings> {
        Ok(self.collect()?.0)
    }

    fn collect(self) -> Result<(Pings, String)> {
        let command = "mainstay channel ping".to_owned();
        let output = wait(self.0, &command)?;
        let text = String::from_utf8_lossy(&output.stdout);
        let lines: Vec<serde_json::Value> =
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let mut rtts_ns: Vec<u64> =
            lines.iter().filter_map(|line| line.get("rtt_ns")?.as_u64()).collect();
        rtts_ns.sort_unstable();
        let at = |index: usize| Duration::from_nanos(rtts_ns.get(index).copied().unwrap_or(0));
        let pings = Pings {
            came: rtts_ns.len() as u64,
            half_within: at(rtts_ns.len() / 2),
            all_within: at(rtts_ns.len().saturating_sub(1)),
            succeeded: output.status.success(),
        };
        let said = String::from_utf8_lossy(&output.stderr);
        Ok((pings, format!("ended with {}: {}", output.status, said.trim())))
    }
}

impl Pings {
    pub(super) fn all_came(&self, count: u64) -> bool {
        self.succeeded && self.came == count
    }

    pub(super) fn came(&self) -> u64 {
        self.came
    }

    pub(super) fn succeeded(&self) -> bool {
        self.succeeded
    }

    pub(super) fn half_within(&self) -> Duration {
        self.half_within
    }

    pub(super) fn all_within(&self) -> Duration {
        self.all_within
    }
}

impl Flood {
    pub(super) fn is_over(&self) -> Result<bool> {
        let ended = self.0.borrow_mut().try_wait();
        let command = "netns_rig flood".to_owned();
        Ok(ended.map_err(|source| Error::Start { command, source })?.is_some())
    }

    /// How many connections were made.
    pub(super) fn finish(self) -> Result<u64> {
        let output = wait(self.0.into_inner(), "netns_rig flood")?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let complaint = format!("printed `{text}`");
        text.parse().map_err(|_| Error::Output { command: "netns_rig flood".to_owned(), complaint })
    }
}

/// Waits for the end of a program, but not for ever.
fn wait(mut child: Child, command: &str) -> Result<std::process::Output> {
    let failed = |source| Error::Start { command: command.to_owned(), source };
    let deadline = Instant::now() + LIMIT;
    // Its output is little enough for the pipes to hold until it has ended.
    while child.try_wait().map_err(failed)?.is_none() {
        if Instant::now() > deadline {
            child.kill().map_err(failed)?;
            let complaint = format!("had not ended after {} s", LIMIT.as_secs());
            let _ = child.wait();
            return Err(Error::Output { command: command.to_owned(), complaint });
        }
        thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().map_err(failed)
}

/// The listener, once it listens.
fn listen(program: &Path, host: &str, work: &Path, over: Over) -> Result<Child> {
    let mut command = node_command(program, host, work, 1, over);
    command.args(["--listen", &format!("{}:{PORT}", address(0))]);
    let mut listener = spawn(command.stdout(Stdio::piped()))?;
    let mut line = String::new();
    if let Some(out) = listener.stdout.take() {
        let mut out = BufReader::new(out);
        let read = out.read_line(&mut line);
        read.map_err(|source| Error::Start { command: "mainstay".to_owned(), source })?;
        // Somebody has to read what it says, or it waits for a reader in the end.
        thread::spawn(move || out.read_to_end(&mut Vec::new()));
    }
    if line.contains("listening") {
        return Ok(listener);
    }
    let _ = listener.kill();
    let _ = listener.wait();
    let complaint = format!("said `{}` in place of where it listens", line.trim());
    Err(Error::Output { command: project::show(&command), complaint })
}

fn node_command(program: &Path, host: &str, work: &Path, node: u64, over: Over) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", host]).arg(program);
    command.args(["channel", "--json", "ping", "--node", &node.to_string()]);
    match over {
        Over::Tcp => command.arg("--secret-file").arg(work.join("secret")),
        Over::Tls | Over::Quic => {
            command.args(["--over", over.name(), "--certs"]).arg(work.join("certs"))
        }
    };
    command.stdin(Stdio::null());
    command
}

fn address(host: usize) -> String {
    format!("10.77.0.{}", host + 1)
}

fn answer(answers: &mut BufReader<ChildStdout>, expected: &str) -> Result<()> {
    let command = "netns_rig link".to_owned();
    let mut line = String::new();
    match answers.read_line(&mut line) {
        Ok(_) if line.trim() == expected => Ok(()),
        Ok(_) => {
            let complaint = format!("said `{}` and not `{expected}`", line.trim());
            Err(Error::Output { command, complaint })
        }
        Err(source) => Err(Error::Start { command, source }),
    }
}

fn spawn(command: &mut Command) -> Result<Child> {
    let shown = project::show(command);
    command.spawn().map_err(|source| Error::Start { command: shown, source })
}

fn ip(arguments: &[&str]) -> Result<()> {
    project::run(Command::new("ip").args(arguments))
}

fn quietly(arguments: &[&str]) -> bool {
    let mut command = Command::new("ip");
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn file_error(action: &'static str, path: &Path, source: std::io::Error) -> Error {
    Error::File { action, path: path.to_owned(), source }
}
