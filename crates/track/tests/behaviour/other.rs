//! Another process: this program again, told what to do line by line.

use mainstay_pool::{Batch, Block, Kind, Pool};
use mainstay_track::{Method, Tracker, TrackerOptions, Watched};
use std::{
    io::{BufRead, BufReader, Lines, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

const FILE: &str = "MAINSTAY_TRACK_TEST_FILE";

pub(crate) struct Other {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

/// What stands between the other process and the kernel.
#[derive(Clone, Copy, Default)]
pub(crate) struct Restricted {
    pub(crate) user: Option<u32>,
    pub(crate) no_userfaultfd: bool,
}

impl Other {
    pub(crate) fn start(file: &Path) -> Self {
        Self::start_as(&std::env::current_exe().unwrap(), file, Restricted::default())
    }

    pub(crate) fn start_as(program: &Path, file: &Path, restricted: Restricted) -> Self {
        let mut command = Command::new(program);
        command
            .args(["other::another_process", "--exact", "--nocapture", "--test-threads=1"])
            .env(FILE, file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if let Some(user) = restricted.user {
            command.uid(user).gid(user);
        }
        if restricted.no_userfaultfd {
            // SAFETY: the closure makes system calls only, and allocates nothing.
            unsafe { command.pre_exec(refuse_userfaultfd) };
        }
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut other = Self { child, lines };
        assert_eq!(other.answer(), "ready");
        other
    }

    pub(crate) fn ask(&mut self, what: &str) -> String {
        writeln!(self.child.stdin.as_mut().unwrap(), "{what}").unwrap();
        self.answer()
    }

    fn answer(&mut self) -> String {
        loop {
            let line = self.lines.next().expect("the other process has ended").unwrap();
            // The test harness talks too.
            if let Some((_, answer)) = line.split_once("> ") {
                return answer.to_owned();
            }
        }
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A filter that answers userfaultfd(2) with EPERM, as a container's does.
fn refuse_userfaultfd() -> std::io::Result<()> {
    let of = |code: u32, k, jt, jf| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut filter = [
        // The number of the system call: the first field of `seccomp_data`.
        of(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        of(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, libc::SYS_userfaultfd as u32, 0, 1),
        of(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32, 0, 0),
        of(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: plain numbers, and a program that lives until the call returns.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[test]
fn another_process() {
    let Some(path) = std::env::var_os(FILE) else { return };
    let pool = Pool::join_any(path).unwrap();
    let mut watched: Option<Watched> = None;
    let mut tracker: Option<Tracker> = None;
    let mut batch: Option<Batch<'_>> = None;
    let mut held: Vec<Block> = Vec::new();
    println!("> ready");
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        let answer = match words[0] {
            "watch" => {
                watched = Some(Watched::new(&pool).unwrap());
                String::new()
            }
            "unwatch" => {
                watched.take();
                String::new()
            }
            "allocate" => {
                held.push(pool.allocate(Kind::Recoverable).unwrap());
                held.last().unwrap().id().to_string()
            }
            "write" => {
                let block = pool.attach_number(number(1) as u32).unwrap();
                block.write(0, &number(2).to_le_bytes()).unwrap();
                String::new()
            }
            "batch" => {
                batch = Some(pool.batch().unwrap());
                String::new()
            }
            "end" => {
                batch.take();
                String::new()
            }
            "track" => {
                tracker = Some(TrackerOptions::default().track(&pool).unwrap());
                format!("{:?}", tracker.as_ref().unwrap().method())
            }
            "flush" => {
                let flush = tracker.as_ref().unwrap().flush().unwrap();
                let numbers = flush.changes.iter().map(|change| change.id.number.to_string());
                format!("{:?} {}", flush.method, numbers.collect::<Vec<_>>().join(","))
            }
            "smoke" => smoke(),
            other => panic!("no such request: {other}"),
        };
        println!("> {answer}");
    }
    drop((batch, held));
}

/// A little of everything; says who did it, and how changes were found.
fn smoke() -> String {
    let pool = crate::pool(64);
    let block = pool.allocate(Kind::Recoverable).unwrap();
    let tracker = Tracker::new(&pool).unwrap();
    tracker.flush().unwrap();
    block.write(0, b"x").unwrap();
    assert_eq!(crate::ids(&tracker.flush().unwrap()), [block.id()]);
    let compares = tracker.method() == Method::Compare;
    assert_eq!(compares, tracker.refusal().is_some(), "it says why");
    format!("uid {} {:?}", rustix::process::getuid().as_raw(), tracker.method())
}
