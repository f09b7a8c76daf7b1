//! Lives that do everything, one after the other in one place, each killed at a random step or at a
//! random instant. The next one goes on with what it finds.

use super::{
    PATIENCE,
    board::{Board, HEARD_MAX},
    check::{self, Until},
    life::{Kind, Life},
    talk::Talk,
};
use crate::{
    child::{self, Child, News},
    finding::Check,
    progress::Progress,
    shared::{Shared, Text},
    stepper::{self, Act},
    verdict::{Harm, Verdict},
};
use mainstay_base::Rng;
use std::{
    path::Path,
    sync::atomic::Ordering::SeqCst,
    thread,
    time::{Duration, Instant},
};

const CONTENT_LEN: usize = 2_000;
/// A victim that dies by itself dies at one of its first steps, or when it has heard everything.
const STEPS_MAX: u64 = 4_000;
/// One that is killed from outside goes on until then; half of them while there is news for it.
const LIFE_MAX_US: u64 = 30_000;
const EARLY_MAX_US: u64 = 3_000;
/// One own message comes to so many that were heard: more would make these too old.
const HEARD_PER_SENT: u64 = 8;

/// What a storm has done.
#[derive(Default)]
pub(crate) struct Stormed {
    pub(crate) kills: u64,
    at_steps: u64,
    /// Kills while there was news for the victim.
    in_the_middle: u64,
    processed: u64,
    sent: u64,
}

/// Runs a storm over both kinds of places, and prints how it goes and how it went. Returns how many
/// were killed.
pub(crate) fn show(kills: u64, seed: u64, verdict: &'static Verdict) -> u64 {
    let started = Instant::now();
    let mut progress = Progress::new();
    let done = run(kills, seed, verdict, |done| {
        progress.show(&format!("{} of {kills} kills", done.kills));
    });
    progress.end();
    let Stormed { kills, at_steps, in_the_middle, processed, sent } = done;
    println!(
        "{at_steps} kills at a random step and {} from outside, {in_the_middle} of them while there was \
         news; {processed} deliveries and {sent} own messages; {:.1} s, seed {seed}",
        kills - at_steps,
        started.elapsed().as_secs_f64(),
    );
    kills
}

/// Goes on until so many are killed, or something is found.
pub(crate) fn run(
    kills: u64,
    seed: u64,
    verdict: &'static Verdict,
    mut tell: impl FnMut(&Stormed),
) -> Stormed {
    let talk = Talk::new(HEARD_MAX, CONTENT_LEN).expect("what is said keeps to limits");
    let talk: &'static Talk = Box::leak(Box::new(talk));
    let place: &'static Text = Box::leak(Box::new(Shared::<Text>::new()));
    stepper::tell(place);
    let mut rng = Rng::seeded(seed);
    let mut done = Stormed::default();
    for (kind, kills) in [(Kind::Pool, kills - kills / 2), (Kind::Store, kills / 2)] {
        let folder = tempfile::tempdir().expect("a folder for temporary files can be made");
        let board: &'static Board = Box::leak(Box::new(Shared::<Board>::new()));
        let site = Site { kind, path: folder.path(), board, talk, place, verdict };
        for life in 1..=kills {
            if verdict.total() > 0 {
                return done;
            }
            let up_to = (HEARD_MAX as u64 * life / kills) as usize;
            site.kill_one(up_to, &mut rng, &mut done);
            let until = if life == kills { Until::TheEnd } else { Until::Another };
            site.judge(check::all(kind, folder.path(), board, talk, until));
            tell(&done);
        }
        done.processed += board.processed();
        done.sent += board.sent().count() as u64;
    }
    done
}

#[derive(Clone, Copy)]
struct Site<'a> {
    kind: Kind,
    path: &'a Path,
    board: &'static Board,
    talk: &'static Talk,
    /// Where the last one died that died at a step.
    place: &'static Text,
    verdict: &'static Verdict,
}

impl Site<'_> {
    fn judge(&self, checked: Check) {
        if let Err(finding) = checked {
            let (kind, place) = (self.kind, self.place.get());
            let what = format!("{kind:?}, after a death at {place:?}: {}", finding.what);
            self.verdict.report(finding.harm, &what);
        }
    }

    fn stuck(&self, what: &str) {
        self.verdict.report(Harm::Stuck, &format!("{:?}: {what}", self.kind));
    }

    /// Lets a victim live for a moment, which hears the first `up_to` messages.
    fn kill_one(&self, up_to: usize, rng: &mut Rng, done: &mut Stormed) {
        let board = self.board;
        let seed = rng.next_u64();
        let at_step = stepper::COMPILED_IN && rng.below(2) == 0;
        let steps = if at_step { 1 + rng.below(STEPS_MAX) } else { 0 };
        board.born.store(0, SeqCst);
        self.place.set("");
        let site = *self;
        let mut victim = Child::fork(move || site.live(up_to, seed, steps));
        if at_step {
            match victim.end_within(PATIENCE) {
                Some(News::Killed(_)) => done.at_steps += 1,
                news => self.stuck(&format!("a victim did not come to its step: {news:?}")),
            }
        } else {
            self.kill_from_outside(&mut victim, rng);
        }
        done.kills += 1;
        done.in_the_middle += u64::from(board.processed() < up_to as u64);
    }

    fn kill_from_outside(&self, victim: &mut Child, rng: &mut Rng) {
        let deadline = Instant::now() + PATIENCE;
        while self.board.born.load(SeqCst) == 0 && Instant::now() < deadline {
            thread::sleep(Duration::from_micros(50));
        }
        let most = if rng.below(2) == 0 { EARLY_MAX_US } else { LIFE_MAX_US };
        thread::sleep(Duration::from_micros(rng.below(most)));
        match victim.poll() {
            None => victim.kill(),
            Some(news) => self.stuck(&format!("a victim ended by itself: {news:?}")),
        }
    }

    /// The victim's life. With `steps`, it ends at one of them, or when everything was heard; else
    /// it is sent everything again and again, as by a network that repeats what it has.
    fn live(&self, up_to: usize, seed: u64, steps: u64) -> i32 {
        self.board.born.store(1, SeqCst);
        stepper::arm(steps, Act::Kill);
        match self.hear_and_send(up_to, seed, steps == 0) {
            Ok(()) => child::kill_myself(),
            Err(finding) => {
                self.verdict.report(finding.harm, &format!("a victim: {}", finding.what));
                1
            }
        }
    }

    fn hear_and_send(&self, up_to: usize, seed: u64, again: bool) -> Check {
        let mut rng = Rng::seeded(seed);
        let mut life = Life::begin(self.kind.open(self.path)?, self.board)?;
        loop {
            for bytes in &self.talk.messages()[..up_to] {
                life.hear(bytes)?;
                let may_send = self.board.begun() < self.board.processed() / HEARD_PER_SENT;
                if may_send && rng.below(16) == 0 {
                    life.send()?;
                }
            }
            if !again {
                return Ok(());
            }
        }
    }
}
