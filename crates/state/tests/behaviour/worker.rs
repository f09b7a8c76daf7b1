//! Other processes: this test program, started again in a part of its own.

use crate::Scratch;
use mainstay_state::{
    Domain, Error, Grade, MultiTransaction, RetryPolicy, State, StateOptions, together,
};
use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

const PART: &str = "MAINSTAY_STATE_TEST_PART";
const FOLDER: &str = "MAINSTAY_STATE_TEST_FOLDER";
const READY: &str = "ready";

/// A process that plays a part; killed when dropped.
pub(crate) struct Worker {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

/// How a process ended, and what it said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: ExitStatus,
    pub(crate) output: String,
}

pub(crate) fn start(part: &str, scratch: &Scratch) -> Worker {
    start_wrapped(part, scratch, &[])
}

/// Starts it by a program that runs another, as strace does.
pub(crate) fn start_wrapped(part: &str, scratch: &Scratch, wrapper: &[&str]) -> Worker {
    let program = env::current_exe().unwrap();
    let mut command = match wrapper {
        [] => Command::new(program),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
    };
    let mut child = command
        .args(["--exact", "worker::play_a_part", "--nocapture", "--quiet"])
        .env(PART, part)
        .env(FOLDER, scratch.domain.folder())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    Worker { child, output }
}

pub(crate) fn run(part: &str, scratch: &Scratch) -> Answer {
    start(part, scratch).finish()
}

impl Worker {
    /// Waits until it says that it is ready.
    pub(crate) fn ready(&mut self) {
        let mut line = String::new();
        while line.trim() != READY {
            line.clear();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "it ended before it was ready");
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: i32) {
        // SAFETY: sends a signal to a child that was not waited for yet.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Lets it go on to where it waits again.
    pub(crate) fn go_on(&mut self) {
        writeln!(self.child.stdin.as_mut().unwrap()).unwrap();
        self.ready();
    }

    /// Lets it go on and waits for its end.
    pub(crate) fn finish(mut self) -> Answer {
        drop(self.child.stdin.take());
        let mut said = String::new();
        self.output.read_to_string(&mut said).unwrap();
        let status = self.child.wait().unwrap();
        // What it answers stands behind a mark, the test program's own words before it.
        let output = said.rsplit_once("answer: ").map_or("", |(_, rest)| rest);
        let output = output.lines().next().unwrap_or_default().to_owned();
        Answer { status, output }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn say(line: &str) {
    println!("{line}");
    std::io::stdout().flush().unwrap();
}

fn answer(text: &str) {
    say(&format!("answer: {text}"));
}

/// Tells the parent, and waits until it lets go.
fn wait_for_parent() {
    say(READY);
    let mut nothing = String::new();
    let _ = std::io::stdin().read_line(&mut nothing);
}

fn state(folder: &Path, name: &str) -> State<[u8]> {
    Domain::open(folder).unwrap().writer(name).unwrap()
}

/// The two accounts, of eight bytes each.
pub(crate) fn accounts(domain: &Domain) -> [State<[u8]>; 2] {
    ["one", "two"]
        .map(|name| StateOptions::new().size(8).slots(5).slots_max(6).writer(domain, name).unwrap())
}

/// Bytes of a large value: copying it takes longer than committing it.
pub(crate) const LARGE: usize = 64 << 10;

pub(crate) fn large(domain: &Domain) -> State<[u8]> {
    StateOptions::new().size(LARGE).writer(domain, "speed").unwrap()
}

pub(crate) fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().unwrap())
}

/// Not a test by itself: what the processes of the other tests do.
#[test]
fn play_a_part() {
    let Some(part) = env::var_os(PART) else { return };
    let folder = env::var_os(FOLDER).unwrap();
    let folder = Path::new(&folder);
    match part.to_str().unwrap() {
        "read_only_handle" => {
            let reader = Domain::open(folder).unwrap().reader::<[u8]>("speed").unwrap();
            assert_eq!(told(reader.publisher().map(drop)), told(reader.begin().map(drop)));
            answer(told(reader.begin().map(drop)));
        }
        "read_only_handle_that_waits" => {
            let reader = Domain::open(folder).unwrap().reader::<[u8]>("speed").unwrap();
            wait_for_parent();
            answer(told(reader.begin().map(drop)));
        }
        "wild_store" => {
            let reader = Domain::open(folder).unwrap().reader::<[u8]>("speed").unwrap();
            let at = reader.read().unwrap().as_ptr().cast_mut();
            // SAFETY: none: this is the wild store that has to fault, in a process that is to die
            // of it.
            unsafe { at.write_volatile(b'X') };
            answer("the store went through");
        }
        "read_once" => {
            let reader = Domain::open(folder).unwrap().reader::<[u8]>("speed").unwrap();
            answer(&String::from_utf8_lossy(&reader.read().unwrap()));
        }
        "open_the_folder" => match Domain::open(folder) {
            Ok(_) => answer("opened"),
            Err(error) => answer(&format!("refused: {error}")),
        },
        "subscribe_and_wait" => {
            let _state = state(folder, "speed");
            wait_for_parent();
        }
        "publish_and_wait" => {
            let mut publisher = state(folder, "speed").publisher().unwrap();
            for turn in 0..5 {
                publisher.publish(&[turn]).unwrap();
            }
            wait_for_parent();
        }
        "claim_and_pin" => {
            let state = state(folder, "speed");
            let _pinned = state.read().unwrap();
            let mut transaction = state.begin().unwrap();
            transaction.bytes_mut().unwrap()[0] = 99;
            wait_for_parent();
        }
        "pin_and_check" => {
            let reader = Domain::open(folder).unwrap().reader::<[u8]>("speed").unwrap();
            let pinned = reader.read().unwrap();
            let before = pinned.to_vec();
            wait_for_parent();
            answer(if *pinned == before[..] { "unchanged" } else { "changed" });
        }
        "count" => count(folder),
        "write_flat_out" => {
            let mut publisher = large(&Domain::open(folder).unwrap()).publisher().unwrap();
            say(READY);
            // Until it is killed.
            for turn in 0_u64.. {
                publisher.publish(&vec![turn as u8; LARGE]).unwrap();
            }
        }
        "transfer" => transfer(folder),
        "wake" => {
            let reader = Domain::open(folder).unwrap().reader::<[u8]>("speed").unwrap();
            let mut watch = reader.watch().unwrap();
            say(READY);
            let news = watch.wait(Duration::from_secs(20)).unwrap();
            answer(&format!("{news:?}"));
        }
        "persist_and_die" => {
            let state = state(folder, "speed");
            state.replace(b"newest").unwrap();
            wait_for_parent();
        }
        "ask_for_the_machine" => {
            let state = state(folder, "speed");
            state.set_persistent(folder.with_file_name("kept"), Grade::Machine).unwrap();
            answer("asked");
        }
        "commit_once_and_stay" => {
            let state = state(folder, "speed");
            wait_for_parent();
            state.replace(b"of the other").unwrap();
            wait_for_parent();
        }
        "commit_for_the_machine_and_leave" => {
            let state = state(folder, "speed");
            state.set_persistent(folder.with_file_name("kept"), Grade::Machine).unwrap();
            state.replace(b"last words").unwrap();
            answer("left");
        }
        "commit_unwatched" => commit_unwatched(folder),
        other => panic!("no part is called {other}"),
    }
}

fn told(result: Result<(), Error>) -> &'static str {
    match result {
        Ok(()) => "allowed",
        Err(Error::NotPermitted { .. }) => "not permitted",
        Err(_) => "another error",
    }
}

/// Adds one to a count as often as it can, until the parent lets go; answers how often that was.
fn count(folder: &Path) {
    let options = StateOptions::new().size(64).slots(6).slots_max(8);
    let state: State<[u8]> = options.writer(&Domain::open(folder).unwrap(), "speed").unwrap();
    say(READY);
    let (start, mut done) = (Instant::now(), 0_u64);
    while start.elapsed() < Duration::from_millis(400) {
        state
            .transact(RetryPolicy::new().tries(u32::MAX), |transaction| {
                let bytes = transaction.bytes_mut()?;
                let next = number(bytes) + 1;
                // Every word says the same: a mix of two versions would show.
                for word in bytes.chunks_exact_mut(8) {
                    word.copy_from_slice(&next.to_le_bytes());
                }
                Ok(())
            })
            .unwrap();
        done += 1;
    }
    answer(&done.to_string());
}

/// Moves amounts between two accounts for ever.
fn transfer(folder: &Path) {
    let domain = Domain::open(folder).unwrap();
    let [one, two] = accounts(&domain);
    say(READY);
    for turn in 0_u64.. {
        let (from, to) = if turn % 2 == 0 { (&one, &two) } else { (&two, &one) };
        let moved = MultiTransaction::transact(RetryPolicy::new().tries(u32::MAX), |both| {
            let amount = number(both.get(from)?).min(turn % 7);
            let (less, more) = (number(both.get(from)?) - amount, number(both.get(to)?) + amount);
            both.bytes_mut(from)?.copy_from_slice(&less.to_le_bytes());
            both.bytes_mut(to)?.copy_from_slice(&more.to_le_bytes());
            Ok(())
        });
        match moved {
            Ok(()) | Err(Error::NoFreeSlot { .. } | Error::RetriesExhausted { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        let (one, two) = together((&one, &two)).unwrap();
        assert_eq!(number(&one) + number(&two), 1_000, "turn {turn}");
    }
}

/// Commits 300,000 times between two system calls that can be seen from outside.
fn commit_unwatched(folder: &Path) {
    let state = state(folder, "speed");
    let _other = state.try_clone().unwrap();
    state.replace(b"warm").unwrap();
    let mark = || rustix::process::getppid();
    let mut publisher = state.publisher().unwrap();
    let before = mark();
    for turn in 0..100_000_u32 {
        state.replace(&turn.to_le_bytes()).unwrap();
        publisher.publish(&turn.to_le_bytes()).unwrap();
        let mut transaction = state.begin().unwrap();
        transaction.bytes_mut().unwrap()[0] = 1;
        transaction.commit().unwrap();
    }
    assert_eq!(before, mark());
    answer(&state.version().unwrap().to_string());
}
