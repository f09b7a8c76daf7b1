//! Tracking and checkpoints under kills.
//!
//! | part | what it does |
//! |---|---|
//! | [`board`] | what the living acknowledged, outside of the pool |
//! | [`worker`] | the victim, which writes, flushes and makes checkpoints; and the survivor, which writes |
//! | [`check`] | what each death left behind: in memory, in headers, in the checkpoint file |
//! | [`planted`] | faults planted in the library, to see that the checks find them |
//!
//! A victim is killed at a random instant, or at a random store, also in the middle of a batch, of a
//! flush, of a checkpoint, of folding. The next one goes on with what it finds. The survivor works
//! all along, and must not be held up by the dead.

mod board;
mod check;
mod planted;
mod worker;

use crate::{
    child::{self, Child, News},
    modes::{Ended, Suite},
    progress::Progress,
    shared::{Shared, Text},
    stepper,
    verdict::{Harm, Verdict},
};
use board::{Board, SURVIVOR, VICTIM};
use clap::Args;
use mainstay_base::Rng;
use std::{
    path::Path,
    sync::atomic::Ordering::SeqCst,
    thread,
    time::{Duration, Instant},
};

/// How long a check, or a sign of life, may take on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(60);
/// A victim that is not dead by then is killed from outside.
const LIFE_MAX: Duration = Duration::from_millis(40);

/// Tracking: changes, batches, checkpoints
///
/// lost: what was acknowledged is neither in memory nor, once in a completed checkpoint, in the
/// file; or a change that no flush reports. torn: half a batch, or contents that nobody wrote.
/// stuck: the survivor, or who comes after the dead, did not get on. leaked: a block that is neither
/// free nor anybody's.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    mainstay-crash track                       some 60 random kills\n  \
    mainstay-crash track --kills 1000\n  \
    mainstay-crash track --kills 500 --seed 7  other choices of when and what\n  \
    mainstay-crash track --planted             plant each fault, and find it")]
pub(crate) struct Arguments {
    /// Kill this many victims
    #[arg(long, value_name = "N", default_value_t = 60)]
    kills: u64,
    /// Decides what is written and at which store a victim dies; when exactly, the machine decides
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
        let Stormed { kills, at_steps, board } = storm(self.kills, self.seed, verdict);
        println!(
            "{at_steps} kills at a random store and {} from outside; {} batches, {} flushes, {} \
             checkpoints; {:.1} s, seed {}",
            kills - at_steps,
            board.batches.load(SeqCst),
            board.flushes.load(SeqCst),
            board.checkpoints.load(SeqCst),
            started.elapsed().as_secs_f64(),
            self.seed
        );
        Ended { kills, missed: 0 }
    }
}

/// What a storm has done.
struct Stormed {
    kills: u64,
    at_steps: u64,
    board: &'static Board,
}

/// Goes on until so many are killed, or something is found.
fn storm(kills_wanted: u64, seed: u64, verdict: &'static Verdict) -> Stormed {
    let folder = tempfile::tempdir().expect("a folder for temporary files can be made");
    let file = folder.path().join("storm.pool");
    let board: &Board = Box::leak(Box::new(Shared::<Board>::new()));
    let place: &Text = Box::leak(Box::new(Shared::<Text>::new()));
    stepper::tell(place);
    worker::prepare(&file, board);

    let mut progress = Progress::new();
    let mut rng = Rng::seeded(seed);
    let mut survivor = Child::fork(|| worker::survive(&file, board, verdict));
    let (mut kills, mut at_steps) = (0, 0);
    while kills < kills_wanted && verdict.total() == 0 {
        place.set("");
        if kill_one(&file, board, verdict, &mut rng) {
            at_steps += 1;
        }
        kills += 1;
        after_death(&file, board, verdict, place);
        progress.show(&format!("{kills} of {kills_wanted} kills"));
    }
    board.quit.store(1, SeqCst);
    if survivor.end_within(PATIENCE) != Some(News::Exited(0)) {
        verdict.report(Harm::Stuck, "the survivor did not end its work");
    }
    progress.end();
    Stormed { kills, at_steps, board }
}

/// Lets a victim live for a moment; whether it died at a store it was told to die at.
fn kill_one(file: &Path, board: &'static Board, verdict: &'static Verdict, rng: &mut Rng) -> bool {
    let seed = rng.next_u64();
    let steps = if rng.below(2) == 0 { 1 + rng.below(4_000) } else { 0 };
    let mut victim = Child::fork(|| worker::live(file, board, verdict, seed, steps));
    let life = Duration::from_micros(rng.below(LIFE_MAX.as_micros() as u64));
    let end = Instant::now() + if steps > 0 { LIFE_MAX } else { life };
    while Instant::now() < end {
        match victim.poll() {
            Some(News::Killed(_)) => return true,
            Some(news) => {
                verdict.report(Harm::Stuck, &format!("a victim ended by itself: {news:?}"));
                return false;
            }
            None => thread::sleep(Duration::from_micros(200)),
        }
    }
    victim.kill();
    false
}

/// Everything that a death may have damaged.
fn after_death(file: &Path, board: &'static Board, verdict: &'static Verdict, place: &Text) {
    let before = board.progress[SURVIVOR].load(SeqCst);
    if let Err(what) = child::within(PATIENCE, || check::all(file, board, verdict)) {
        let died = board.progress[VICTIM].load(SeqCst);
        verdict.report(
            Harm::Stuck,
            &format!("a check after a death at {:?}, round {died}: {what}", place.get()),
        );
    }
    let end = Instant::now() + PATIENCE;
    while board.progress[SURVIVOR].load(SeqCst) == before {
        if Instant::now() > end {
            verdict.report(Harm::Stuck, &format!("the survivor, by a death at {}", place.get()));
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
}
