//! Other processes: this very program, started again, doing what it is told line by line.

use mainstay_pool::{Block, BlockId, Kind, Offer, Pool, PoolBox, PoolOptions, PoolView, Record};
use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, ErrorKind, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const TEST: &str = "worker::does_what_it_is_told_in_a_process_of_its_own";
const POOL: &str = "MAINSTAY_TEST_POOL";

/// What a worker writes into its blocks: enough to tell whether a block is whole.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy, PartialEq, Debug)]
#[repr(C)]
pub(crate) struct Mark {
    pub(crate) number: u64,
    pub(crate) inverse: u64,
}
impl Record for Mark {
    const NAME: &'static str = "test.mark/1";
}

impl Mark {
    pub(crate) fn of(number: u32) -> Self {
        Self { number: number.into(), inverse: !u64::from(number) }
    }
}

/// Another process that has the pool open.
pub(crate) struct Worker {
    child: Child,
    told: BufReader<ChildStdout>,
    to: ChildStdin,
    pool: std::path::PathBuf,
}

impl Worker {
    pub(crate) fn start(pool: &Path) -> Self {
        Self::start_as(&std::env::current_exe().unwrap(), pool, None)
    }

    /// Starts `program`, a copy of this one, as `user` (only root can).
    pub(crate) fn start_as(program: &Path, pool: &Path, user: Option<u32>) -> Self {
        let mut command = Command::new(program);
        command.args([TEST, "--exact", "--nocapture", "--test-threads=1"]);
        command.env(POOL, pool).stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(user) = user {
            command.uid(user).gid(user).current_dir("/");
        }
        let mut child = spawn(&mut command);
        let told = BufReader::new(child.stdout.take().unwrap());
        let to = child.stdin.take().unwrap();
        let mut worker = Self { child, told, to, pool: pool.to_owned() };
        assert_eq!(worker.hear(), "ready");
        worker
    }

    /// Tells the worker what to do, and returns what it answers.
    pub(crate) fn ask(&mut self, order: &str) -> String {
        self.tell(order);
        self.hear()
    }

    pub(crate) fn ask_ids(&mut self, order: &str) -> Vec<BlockId> {
        let answer = self.ask(order);
        answer.split_whitespace().map(|id| id.parse().unwrap()).collect()
    }

    pub(crate) fn tell(&mut self, order: &str) {
        writeln!(self.to, "{order}").unwrap();
        self.to.flush().unwrap();
    }

    pub(crate) fn hear(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(self.told.read_line(&mut line).unwrap(), 0, "the worker has ended");
            // The test harness may have written something before.
            if let Some((_, answer)) = line.split_once('>') {
                return answer.trim().to_owned();
            }
        }
    }

    pub(crate) fn signal(&self, signal: libc::c_int) {
        // SAFETY: the child is ours and has not been waited for.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// SIGKILL; returns when the kernel has dropped its lease.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let view = PoolView::open(&self.pool).unwrap();
        let pid = self.child.id();
        let deadline = Instant::now() + Duration::from_secs(10);
        while view.holders().unwrap().iter().any(|holder| holder.alive && holder.pid == pid) {
            assert!(Instant::now() < deadline, "a killed process still has its lease");
            std::thread::yield_now();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A copied program is busy as long as a child that another test is just making has inherited the
/// descriptor it was written through: for a moment.
fn spawn(command: &mut Command) -> Child {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match command.spawn() {
            Err(e) if e.kind() == ErrorKind::ExecutableFileBusy && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            spawned => return spawned.unwrap(),
        }
    }
}

/// The other side: not a test by itself, but passes at once when it is run as one.
#[test]
fn does_what_it_is_told_in_a_process_of_its_own() {
    let Some(path) = std::env::var_os(POOL) else { return };
    // Whatever happens to the one who started it, it ends.
    // SAFETY: asks the kernel for a signal.
    unsafe { libc::alarm(120) };
    let mut hands = Hands::default();
    answer("ready");
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let text = hands.carry_out(Path::new(&path), &words);
        answer(&text);
    }
}

fn answer(text: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, ">{text}").unwrap();
    out.flush().unwrap();
}

/// What a worker holds.
#[derive(Default)]
struct Hands {
    pool: Option<Pool>,
    blocks: Vec<Block>,
    boxes: Vec<PoolBox<Mark>>,
}

impl Hands {
    fn carry_out(&mut self, path: &Path, words: &[&str]) -> String {
        if let ["limit", what, value] = words {
            return limit(what, value.parse().unwrap());
        }
        if let ["create", reserve] = words {
            let options = PoolOptions::new("limited", 64).reserve(reserve.parse().unwrap());
            return match options.create_memfd() {
                Ok(pool) => pool.allocate(Kind::Recoverable).unwrap().id().to_string(),
                Err(mainstay_pool::Error::Shm(e)) => format!("{e:?}"),
                Err(e) => panic!("{e}"),
            };
        }
        if let ["smoke"] = words {
            return crate::unprivileged::smoke(path);
        }
        let pool = self.pool.get_or_insert_with(|| Pool::join_any(path).unwrap()).clone();
        match words {
            ["recoverable", count] => self.allocate(&pool, Kind::Recoverable, count),
            ["transient", count] => self.allocate(&pool, Kind::Transient, count),
            ["boxes", count] => {
                let from = self.boxes.len();
                for _ in 0..count.parse().unwrap() {
                    let mut it = PoolBox::new(&pool, &Mark::of(0)).unwrap();
                    *it = Mark::of(it.id().number);
                    self.boxes.push(it);
                }
                join(self.boxes[from..].iter().map(PoolBox::id))
            }
            ["attach", id] => {
                self.blocks.push(pool.attach(id.parse().unwrap()).unwrap());
                "done".into()
            }
            ["park"] => {
                (self.blocks, self.boxes) = (Vec::new(), Vec::new());
                "done".into()
            }
            ["recover"] => {
                let from = self.blocks.len();
                for offered in pool.recover(Offer::Orphans).unwrap() {
                    self.blocks.extend(offered.keep().ok());
                }
                join(self.blocks[from..].iter().map(Block::id))
            }
            ["reap"] => format!("{:?}", pool.reap().unwrap()),
            ["pid"] => std::process::id().to_string(),
            ["churn"] => churn(&pool),
            ["grow"] => loop {
                // Fills the pool up, gives everything back, and begins again.
                let mut held = Vec::new();
                while let Ok(block) = pool.allocate(Kind::Transient) {
                    held.push(block);
                }
            },
            other => panic!("no such order: {other:?}"),
        }
    }

    fn allocate(&mut self, pool: &Pool, kind: Kind, count: &str) -> String {
        let from = self.blocks.len();
        for _ in 0..count.parse().unwrap() {
            let block = pool.allocate(kind).unwrap();
            block.write(0, Mark::of(block.number()).as_bytes()).unwrap();
            self.blocks.push(block);
        }
        join(self.blocks[from..].iter().map(Block::id))
    }
}

/// Allocates, frees, parks and attaches until it is killed.
fn churn(pool: &Pool) -> ! {
    answer("churning");
    let mut held = VecDeque::new();
    let mut parked = VecDeque::new();
    for round in 0_u64.. {
        let kind = if round.is_multiple_of(3) { Kind::Recoverable } else { Kind::Transient };
        if let Ok(block) = pool.allocate(kind) {
            block.write(0, Mark::of(block.number()).as_bytes()).unwrap();
            held.push_back(block);
        }
        if held.len() > 200 {
            let block: Block = held.pop_front().unwrap();
            match round % 5 {
                0 => {
                    // Still there a hundred parked blocks later, unless it was transient.
                    parked.push_back(block.id());
                    drop(block);
                    if parked.len() > 100 {
                        let _ = pool.attach(parked.pop_front().unwrap()).map(Block::free);
                    }
                }
                1 => {
                    let id = block.id();
                    drop(block);
                    held.extend(pool.attach(id).ok());
                }
                _ => block.free().unwrap(),
            }
        }
    }
    unreachable!("it is killed long before")
}

fn join(ids: impl Iterator<Item = BlockId>) -> String {
    ids.map(|id| id.to_string()).collect::<Vec<_>>().join(" ")
}

fn limit(what: &str, value: u64) -> String {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let resource = match what {
        "memlock" => Resource::Memlock,
        "address-space" => Resource::As,
        "file-size" => {
            // SAFETY: the default action would kill; growth is to be refused with an error.
            unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
            Resource::Fsize
        }
        other => panic!("no such limit: {other}"),
    };
    setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) }).unwrap();
    "done".into()
}
