//! The store under kills.
//!
//! | part | what it does |
//! |---|---|
//! | [`kind`] | the two kinds of stores |
//! | [`board`] | what the dead were told, outside of the store |
//! | [`worker`] | the victim: writers at every level of durability, batches, deletes, compaction |
//! | [`folder`] | files at whose calls the victim dies, and where faults are planted |
//! | [`check`] | what each death left behind, seen by another process |
//! | [`planted`] | the faults |
//!
//! A victim dies at a random call of the file layer, half of a write done, or at a random instant.
//! Some are frozen first: meanwhile nobody else gets in, and when they are continued they get on.
//! A kill loses nothing that the system has, so every acknowledged write has to be there, whatever
//! its durability. Power cuts are the business of the simulated disk in mainstay-store's own tests.

mod board;
mod check;
mod folder;
mod kind;
mod planted;
mod worker;

use crate::{
    child::{self, Child, News},
    modes::{Ended, Suite},
    progress::Progress,
    shared::Shared,
    verdict::{Harm, Verdict},
};
use board::Board;
use clap::Args;
use kind::{Any, Fixed, Kind, Values};
use mainstay_base::Rng;
use rustix::process::Signal;
use std::{
    path::Path,
    sync::atomic::Ordering::SeqCst,
    thread,
    time::{Duration, Instant},
};
use worker::Death;

/// How long a check, or a sign of life, may take on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(60);
/// A victim is killed from outside so long after its beginning, or after it has opened the store.
const LIFE_MAX: Duration = Duration::from_millis(50);
/// Or it dies at one of its first calls of the file layer, which takes less than this.
const CALLS_MAX: u64 = 500;
const CALLS_TIME_MAX: Duration = Duration::from_millis(600);

/// Stores: acknowledged writes, batches, recovery
///
/// lost: an acknowledged write is not there, or a durable one by its number. torn: half a batch, a
/// value that nobody wrote, damage, or two that have the store open. stuck: the victim or the next
/// opener did not get on.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    mainstay-crash store                       some 60 random kills\n  \
    mainstay-crash store --kills 1000\n  \
    mainstay-crash store --kills 1000 --values any\n  \
    mainstay-crash store --kills 500 --seed 7  other choices of when and what\n  \
    mainstay-crash store --planted             plant each fault, and find it")]
pub(crate) struct Arguments {
    /// Kill this many victims
    #[arg(long, value_name = "N", default_value_t = 60)]
    kills: u64,
    /// Of which sizes values are
    #[arg(long, value_enum, default_value = "fixed", conflicts_with = "planted")]
    values: Values,
    /// Decides what is written and at which call a victim dies; when exactly, the machine decides
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Switch on one planted fault after the other; each has to be found
    #[arg(long, conflicts_with = "kills")]
    planted: bool,
    /// With --planted: only the faults that have this in their name
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    #[arg(requires = "planted")]
    only: String,
}

impl Suite for Arguments {
    fn needs_stop_points(&self) -> bool {
        self.planted
    }

    fn run(&self, verdict: &'static Verdict) -> Ended {
        if self.planted {
            let missed = crate::planted::run(planted::FAULTS, self.seed, &self.only);
            return Ended { kills: 0, missed };
        }
        let started = Instant::now();
        let Stormed { kills, at_calls, frozen, board } =
            storm((self.values, self.kills), self.seed, verdict);
        println!(
            "{at_calls} kills at a call of the file layer and {} from outside, {frozen} frozen before; \
             {} writes, {} compactions; {:.1} s, seed {}",
            kills - at_calls,
            board.writes.load(SeqCst),
            board.compactions.load(SeqCst),
            started.elapsed().as_secs_f64(),
            self.seed
        );
        Ended { kills, missed: 0 }
    }
}

/// What a storm has done.
struct Stormed {
    kills: u64,
    at_calls: u64,
    frozen: u64,
    board: &'static Board,
}

/// Goes on until so many are killed, or something is found.
fn storm((values, kills_wanted): (Values, u64), seed: u64, verdict: &'static Verdict) -> Stormed {
    match values {
        Values::Fixed => storm_of::<Fixed>(kills_wanted, seed, verdict),
        Values::Any => storm_of::<Any>(kills_wanted, seed, verdict),
    }
}

fn storm_of<K: Kind>(kills_wanted: u64, seed: u64, verdict: &'static Verdict) -> Stormed {
    let folder = tempfile::tempdir().expect("a folder for temporary files can be made");
    let path = folder.path();
    let board: &Board = Box::leak(Box::new(Shared::<Board>::new()));
    let made = child::within(PATIENCE, || i32::from(K::create(path).is_err()));
    if let Err(what) = made {
        verdict.report(Harm::Stuck, &format!("no store could be made: {what}"));
    }
    let mut progress = Progress::new();
    let mut rng = Rng::seeded(seed);
    let mut done = Stormed { kills: 0, at_calls: 0, frozen: 0, board };
    while done.kills < kills_wanted && verdict.total() == 0 {
        let life = kill_one::<K>(path, board, verdict, &mut rng);
        done.kills += 1;
        done.at_calls += u64::from(life.died_at_call);
        done.frozen += u64::from(life.was_frozen);
        if let Err(what) = child::within(PATIENCE, || check::all::<K>(path, board, verdict))
            && verdict.total() == 0
        {
            verdict.report(Harm::Stuck, &format!("a check after a death: {what}"));
        }
        progress.show(&format!("{} of {kills_wanted} kills", done.kills));
    }
    progress.end();
    done
}

#[derive(Default)]
struct Life {
    died_at_call: bool,
    was_frozen: bool,
}

/// Lets a victim live for a moment.
fn kill_one<K: Kind>(
    path: &Path,
    board: &'static Board,
    verdict: &'static Verdict,
    rng: &mut Rng,
) -> Life {
    let seed = rng.next_u64();
    let (death, life) = match rng.below(2) {
        0 => (Death::AtCall(1 + rng.below(CALLS_MAX)), CALLS_TIME_MAX),
        _ => {
            let micros = rng.below(LIFE_MAX.as_micros() as u64);
            (Death::FromOutside, Duration::from_micros(micros))
        }
    };
    let freeze_after = (rng.below(4) == 0).then(|| LIFE_MAX / 4);
    // A quarter of them may be killed while they open the store.
    let from_open = rng.below(4) > 0;
    board.is_open.store(0, SeqCst);
    let mut victim = Child::fork(|| worker::live::<K>(path, board, verdict, (seed, death)));
    let (forked, mut began) = (Instant::now(), Instant::now());
    let mut lived = Life::default();
    while began.elapsed() < life {
        let is_opening = from_open && board.is_open.load(SeqCst) == 0;
        if is_opening && forked.elapsed() < PATIENCE {
            began = Instant::now();
        }
        let is_time = freeze_after.is_some_and(|after| began.elapsed() >= after);
        let news = if is_time && !lived.was_frozen {
            lived.was_frozen = true;
            freeze(&mut victim, path, board, verdict)
        } else {
            victim.poll()
        };
        match news {
            Some(News::Killed(_)) => {
                lived.died_at_call = true;
                return lived;
            }
            Some(news) => {
                verdict.report(Harm::Stuck, &format!("a victim ended by itself: {news:?}"));
                return lived;
            }
            None => thread::sleep(Duration::from_micros(200)),
        }
    }
    victim.kill();
    lived
}

/// Nobody else gets in while it is frozen; continued, it gets on. Returns how it ended, if it did.
fn freeze(
    victim: &mut Child,
    path: &Path,
    board: &'static Board,
    verdict: &'static Verdict,
) -> Option<News> {
    victim.signal(Signal::STOP);
    let end = Instant::now() + PATIENCE;
    loop {
        match victim.poll() {
            Some(News::Stopped) => break,
            // It died before the signal came.
            Some(ended) => return Some(ended),
            None if Instant::now() > end => {
                verdict.report(Harm::Stuck, "a victim could not be frozen");
                return None;
            }
            None => thread::sleep(Duration::from_micros(100)),
        }
    }
    let is_open = board.is_open.load(SeqCst) == 1;
    if is_open && child::within(PATIENCE, || i32::from(!worker::is_locked(path))).is_err() {
        verdict.report(Harm::Torn, "a store was opened that a frozen process has open");
    }
    let before = board.writes.load(SeqCst);
    victim.signal(Signal::CONT);
    while is_open && board.writes.load(SeqCst) == before {
        if let Some(ended) = victim.poll() {
            return Some(ended);
        }
        if Instant::now() > end {
            verdict.report(Harm::Stuck, "a victim did not get on after it was frozen");
            return None;
        }
        thread::sleep(Duration::from_micros(200));
    }
    None
}
