//! A service whose blocks outlive it, because the service manager keeps their memory.
//!
//! Run by systemd with `Type=notify` and `FileDescriptorStoreMax=` of at least 1; a complete unit
//! file is `xtask/rigs/fdstore@.service`, and `cargo xtask systemd` kills and restarts it under a
//! real systemd.
//!
//! ```text
//! fdstore_service FOLDER [keep|forget|retire]
//! ```
//!
//! * `keep`: the memory survives every end of the process
//! * `forget`: it is not handed to the manager, so a restart begins with nothing
//! * `retire`: it survives a crash; an orderly end takes it out of the manager's store
//!
//! Each start adds one session and counts on where the last one ended. What it found goes as one
//! line into `FOLDER/status`; each value of the counter, once it is in memory, is acknowledged in
//! `FOLDER/acknowledged`, so that a judge outside can tell whether the memory kept a promise.

use std::{
    env,
    error::Error,
    fs::File,
    io::{self, BufRead, BufReader, Write},
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use mainstay::pool::{self, Block, Kind, Offer, Pool, PoolOptions, Record, handover};
use sd_notify::NotifyState;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The name of the pool, and of its descriptor in the manager's store.
const NAME: &str = "calls";

const BLOCK_SIZE: usize = 256;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Keep,
    Forget,
    Retire,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let (folder, mode) = match arguments[..] {
        [folder] | [folder, "keep"] => (folder, Mode::Keep),
        [folder, "forget"] => (folder, Mode::Forget),
        [folder, "retire"] => (folder, Mode::Retire),
        _ => return Err("usage: fdstore_service FOLDER [keep|forget|retire]".into()),
    };
    let mut outside = Outside::open(Path::new(folder))?;
    let stop = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&stop))?;

    let pool = open(mode)?;
    let mut state = State::recover(&pool)?;
    let found = state.line();
    state.begin_session(&pool)?;
    outside.report(&found)?;
    sd_notify::notify(&[NotifyState::Ready])?;

    while !stop.load(Ordering::Relaxed) {
        outside.acknowledge(state.count())?;
        thread::sleep(Duration::from_millis(1));
    }
    state.park()?;
    pool.close()?;
    if mode == Mode::Retire {
        handover::fdstore_remove(NAME)?;
    }
    Ok(())
}

/// The pool of the last start, if its memory was kept, or a new one.
fn open(mode: Mode) -> Result<Pool, Box<dyn Error>> {
    let options = PoolOptions::new(NAME, BLOCK_SIZE);
    if let Some(memory) = handover::fdstore_take(NAME)? {
        return Ok(options.join_fd(memory)?);
    }
    let pool = options.create_memfd()?;
    if mode != Mode::Forget {
        // Before the first block: there is no moment at which a death could lose one.
        handover::fdstore_push(pool.as_fd(), NAME)?;
    }
    Ok(pool)
}

/// What the service keeps in the pool: its guards are held as long as it lives, as a real service
/// holds its calls.
struct State {
    ledger: Block<Ledger>,
    totals: Totals,
    sessions: Vec<Block<Session>>,
    torn: u64,
}

impl State {
    /// Takes over every block that nobody alive holds, and looks whether it is whole.
    fn recover(pool: &Pool) -> Result<Self, pool::Error> {
        let (mut ledger, mut sessions, mut torn) = (None, Vec::new(), 0);
        for offered in pool.recover(Offer::Unheld)? {
            let id = offered.id();
            let session = match offered.keep()?.typed::<Session>() {
                Ok(session) => session,
                Err(pool::Error::WrongType { .. }) => {
                    ledger = Some(pool.attach_typed::<Ledger>(id)?);
                    continue;
                }
                Err(error) => return Err(error),
            };
            match session.get().condition() {
                Condition::Whole => sessions.push(session),
                Condition::Blank => session.free()?,
                Condition::Torn => torn += 1,
            }
        }
        let ledger = match ledger {
            Some(ledger) => ledger,
            None => pool.allocate_typed(Kind::Recoverable)?,
        };
        let totals = ledger.get().latest().unwrap_or_else(|| {
            torn += 1;
            Totals::default()
        });
        Ok(Self { ledger, totals, sessions, torn })
    }

    /// What was found, as the fields of a line. A session is counted only once it is whole, so
    /// there are never fewer than counted, unless one was lost.
    fn line(&self) -> String {
        let found = self.sessions.len() as u64;
        let lost = self.totals.sessions.saturating_sub(found + self.torn);
        format!("found={found} lost={lost} torn={} counter={}", self.torn, self.totals.counter)
    }

    fn begin_session(&mut self, pool: &Pool) -> Result<(), pool::Error> {
        let session = pool.allocate_typed::<Session>(Kind::Recoverable)?;
        session.set(&Session::new(self.totals.sessions + 1));
        self.sessions.push(session);
        self.totals.sessions += 1;
        self.save();
        Ok(())
    }

    /// Counts on by one, and returns the count once it is in memory.
    fn count(&mut self) -> u64 {
        self.totals.counter += 1;
        self.save();
        self.totals.counter
    }

    /// Writes the totals over the older of the two copies.
    fn save(&mut self) {
        self.totals = self.totals.next();
        let mut ledger = self.ledger.get();
        ledger.copies[self.totals.place()] = self.totals;
        self.ledger.set(&ledger);
    }

    /// Gives every block up in an orderly way. A death would have done as well.
    fn park(self) -> Result<(), pool::Error> {
        self.sessions.into_iter().try_for_each(Block::park)?;
        self.ledger.park()
    }
}

/// Two copies, written in turns: a death in the middle of one leaves the other, which is one step
/// older. Writing the whole ledger puts the same bytes over the copy that does not change.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Ledger {
    copies: [Totals; 2],
}

impl Record for Ledger {
    const NAME: &'static str = "mainstay.example.fdstore.ledger/1";
}

impl Ledger {
    /// The newer of the copies that are whole; a block nobody wrote to yet is all zeros.
    fn latest(&self) -> Option<Totals> {
        if self.as_bytes().iter().all(|byte| *byte == 0) {
            return Some(Totals::default());
        }
        let whole = self.copies.iter().filter(|copy| copy.check == copy.checksum());
        whole.max_by_key(|copy| copy.turn).copied()
    }
}

#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Totals {
    turn: u64,
    sessions: u64,
    counter: u64,
    check: u64,
}

impl Totals {
    fn next(self) -> Self {
        let next = Self { turn: self.turn + 1, ..self };
        Self { check: next.checksum(), ..next }
    }

    fn place(self) -> usize {
        usize::from(self.turn % 2 == 1)
    }

    fn checksum(&self) -> u64 {
        checksum(&[self.turn, self.sessions, self.counter])
    }
}

/// One start of the service; the words stand for what a real session would keep.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Session {
    number: u64,
    words: [u64; 30],
    check: u64,
}

impl Record for Session {
    const NAME: &'static str = "mainstay.example.fdstore.session/1";
}

enum Condition {
    Whole,
    /// Allocated, but its process died before it wrote to it: never counted, so not lost.
    Blank,
    Torn,
}

impl Session {
    fn new(number: u64) -> Self {
        let words = std::array::from_fn(|at| checksum(&[number, at as u64]));
        Self { number, words, check: checksum(&[number, checksum(&words)]) }
    }

    fn condition(&self) -> Condition {
        if self.as_bytes().iter().all(|byte| *byte == 0) {
            Condition::Blank
        } else if self.check == checksum(&[self.number, checksum(&self.words)]) {
            Condition::Whole
        } else {
            Condition::Torn
        }
    }
}

/// FNV-1a over words: enough to see a half-written value.
fn checksum(words: &[u64]) -> u64 {
    words.iter().fold(0xcbf2_9ce4_8422_2325, |sum, word| (sum ^ word).wrapping_mul(0x100_0000_01b3))
}

/// What a judge outside sees.
struct Outside {
    status: File,
    starts: usize,
    acknowledged: File,
    /// The last value an earlier start acknowledged.
    before: u64,
}

impl Outside {
    fn open(folder: &Path) -> io::Result<Self> {
        let open = |name| {
            let mut options = File::options();
            options.create(true).read(true).write(true).truncate(false).open(folder.join(name))
        };
        let (mut status, acknowledged) = (open("status")?, open("acknowledged")?);
        // Reading to the end also puts the next line there.
        let starts = BufReader::new(&mut status).lines().count();
        let mut before = [0; 8];
        if acknowledged.metadata()?.len() > 0 {
            acknowledged.read_exact_at(&mut before, 0)?;
        }
        Ok(Self { status, starts, acknowledged, before: u64::from_le_bytes(before) })
    }

    fn report(&mut self, found: &str) -> io::Result<()> {
        let passed = env::var("LISTEN_FDNAMES").unwrap_or_else(|_| "-".to_owned());
        let (start, before) = (self.starts + 1, self.before);
        let line = format!("start={start} {found} acknowledged={before} names={passed}\n");
        self.status.write_all(line.as_bytes())
    }

    fn acknowledge(&self, counter: u64) -> io::Result<()> {
        self.acknowledged.write_all_at(&counter.to_le_bytes(), 0)
    }
}
