//! Cases in order: one operation, stopped at each of its steps in each of two ways, a case each.
//!
//! A survivor process sets a scene, forks a victim that runs to its step and dies there, or
//! freezes; then the survivor takes over. A frozen victim is later continued, finishes, and is
//! killed. A director watches the survivor by the [`Docket`]: whoever hangs is stuck.

use crate::{
    child::{Child, News},
    finding::{Check, Finding},
    progress::Progress,
    shared::{Sharable, Text},
    stepper::{self, Act},
    verdict::{
        Harm::{self, Stuck, Torn},
        Verdict,
    },
};
use rustix::process::Signal;
use std::{
    sync::atomic::{
        AtomicU32, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
    thread,
    time::{Duration, Instant},
};

/// How long one case may take before its survivor counts as stuck. A case takes milliseconds.
const CASE_TIME_MAX: Duration = Duration::from_secs(10);

/// The same for a survivor that hunts a fault: it is expected to hang.
const HUNT_CASE_TIME_MAX: Duration = Duration::from_secs(4);

/// An operation is given up after this many hangs.
const HANGS_MAX: u32 = 3;

/// Where the victim is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Stage {
    Preparing,
    Running,
    Done,
    Failed,
}

/// How it goes with one victim: what it tells the others.
pub(crate) struct Fate {
    stage: AtomicU32,
    /// Why it failed.
    failure: Text,
}
// SAFETY: an atomic and a text.
unsafe impl Sharable for Fate {}

/// What director, survivor and victim tell each other about the case at hand.
pub(crate) struct Docket {
    /// Cases begun; the director sees by it that the survivor is alive.
    beat: AtomicU64,
    /// Kill (0) or freeze (1), and the step.
    mode: AtomicU32,
    step: AtomicU64,
    points: [AtomicU64; 2],
    bad: [AtomicU64; 2],
    pub(crate) victim: Fate,
    /// The last stop.
    pub(crate) place: Text,
    /// What else tells this case from others.
    pub(crate) details: Text,
}
// SAFETY: atomics and texts, and a fate, which may be shared.
unsafe impl Sharable for Docket {}

/// What was found at one operation.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) kill_points: u64,
    pub(crate) freeze_points: u64,
    pub(crate) bad_kills: u64,
    pub(crate) bad_freezes: u64,
}

/// What a survivor does about a victim.
pub(crate) trait Scene {
    /// The victim is frozen, between two steps.
    fn work_beside(&mut self) -> Check;
    /// The victim was continued, and has finished.
    fn check_at_rest(&mut self) -> Check;
    /// The victim is dead.
    fn check_after_death(&mut self) -> Check;
}

impl Fate {
    /// For a new case.
    pub(crate) fn clear(&self) {
        self.set_stage(Stage::Preparing);
        self.failure.set("");
    }

    pub(crate) fn set_stage(&self, stage: Stage) {
        self.stage.store(stage as u32, Release);
    }

    pub(crate) fn stage(&self) -> Stage {
        match self.stage.load(Acquire) {
            0 => Stage::Preparing,
            1 => Stage::Running,
            2 => Stage::Done,
            _ => Stage::Failed,
        }
    }

    /// The victim says what went wrong.
    pub(crate) fn fail(&self, why: &str) {
        self.failure.set(why);
        self.set_stage(Stage::Failed);
    }

    /// What a failed victim says of itself.
    pub(crate) fn failure(&self, news: News) -> Finding {
        let why = if self.stage() == Stage::Failed { self.failure.get() } else { String::new() };
        let harm = if why.is_empty() { Stuck } else { Torn };
        Finding { harm, what: format!("the victim: {news:?} {why}") }
    }
}

impl Docket {
    /// A new case begins.
    fn begin(&self) {
        self.beat.fetch_add(1, Relaxed);
        self.victim.clear();
        self.place.set("");
        self.details.set("");
    }

    fn describe(&self, name: &str) -> String {
        let act = if self.mode.load(Acquire) == 0 { "killed" } else { "frozen" };
        let place = self.place.get();
        let place = if place.is_empty() { "its end".to_owned() } else { place };
        let details = self.details.get();
        format!("{name}, {act} at step {} ({place}{details})", self.step.load(Acquire))
    }

    fn report(&self, verdict: &Verdict, finding: &Finding) {
        self.bad[self.mode.load(Acquire) as usize & 1].fetch_add(1, Relaxed);
        verdict.report(finding.harm, &finding.what);
    }
}

/// Runs all cases of one operation; with `until_found`, no further than the first finding. A case
/// says whether the victim got as far as its step; the first that does not is the last of its way.
pub(crate) fn run(
    name: &'static str,
    docket: &'static Docket,
    verdict: &'static Verdict,
    until_found: bool,
    case: impl Fn(u64, Act) -> Check<bool>,
) -> Row {
    let mut hangs = 0;
    loop {
        let mut survivor =
            Child::fork(|| all_cases(name, docket, verdict, until_found, hangs > 0, &case));
        let limit = if until_found { HUNT_CASE_TIME_MAX } else { CASE_TIME_MAX };
        let what = match watch(&mut survivor, docket, limit) {
            Some(News::Exited(0)) => break,
            Some(news) => format!("{}: the survivor ended: {news:?}", docket.describe(name)),
            None => format!("{} is stuck", docket.describe(name)),
        };
        docket.report(verdict, &Finding { harm: Harm::Stuck, what });
        hangs += 1;
        if until_found || hangs == HANGS_MAX {
            break;
        }
    }
    let get = |counts: &[AtomicU64; 2], act: Act| counts[act as usize].load(Acquire);
    Row {
        name,
        kill_points: get(&docket.points, Act::Kill),
        freeze_points: get(&docket.points, Act::Freeze),
        bad_kills: get(&docket.bad, Act::Kill),
        bad_freezes: get(&docket.bad, Act::Freeze),
    }
}

/// Its end, or none when it made no progress for too long.
fn watch(survivor: &mut Child, docket: &Docket, limit: Duration) -> Option<News> {
    let mut beat = (docket.beat.load(Relaxed), Instant::now());
    loop {
        if let Some(news) = survivor.poll() {
            return Some(news);
        }
        let now = docket.beat.load(Relaxed);
        if now != beat.0 {
            beat = (now, Instant::now());
        }
        if beat.1.elapsed() > limit {
            // Its children die with it.
            survivor.kill();
            return None;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// The survivor's life: case after case, from the one that the docket names (`again`: the one
/// after).
fn all_cases(
    name: &str,
    docket: &'static Docket,
    verdict: &Verdict,
    until_found: bool,
    again: bool,
    case: impl Fn(u64, Act) -> Check<bool>,
) -> i32 {
    stepper::tell(&docket.place);
    let mut next = again.then(|| (docket.mode.load(Acquire), docket.step.load(Acquire) + 1));
    for act in [Act::Kill, Act::Freeze] {
        let first = match next {
            Some((mode, _)) if mode != act as u32 => continue,
            Some((_, step)) => step,
            None => 1,
        };
        next = None;
        for step in first.. {
            docket.mode.store(act as u32, Release);
            docket.step.store(step, Release);
            docket.begin();
            let stopped = match case(step, act) {
                Ok(stopped) => stopped,
                Err(Finding { harm, what }) => {
                    let what = format!("{}: {what}", docket.describe(name));
                    docket.report(verdict, &Finding { harm, what });
                    if until_found {
                        return 0;
                    }
                    !docket.place.get().is_empty()
                }
            };
            if !stopped {
                break;
            }
            docket.points[act as usize].fetch_add(1, Relaxed);
        }
    }
    0
}

/// One case with its scene set and its victim started. Returns whether the victim got as far as
/// the step; if not, it was killed when it had finished, which is the point behind its last step.
pub(crate) fn play(fate: &Fate, scene: &mut impl Scene, mut victim: Child) -> Check<bool> {
    let news = victim.wait();
    let frozen = news == News::Stopped && fate.stage() == Stage::Running;
    match news {
        News::Killed(_) if fate.stage() == Stage::Running => {}
        News::Stopped if frozen => {
            scene.work_beside()?;
            victim.signal(Signal::CONT);
            let news = victim.wait();
            if news != News::Stopped || fate.stage() != Stage::Done {
                return Err(fate.failure(news));
            }
            scene.check_at_rest()?;
        }
        News::Stopped if fate.stage() == Stage::Done => {}
        news => return Err(fate.failure(news)),
    }
    victim.kill();
    scene.check_after_death()?;
    Ok(frozen || matches!(news, News::Killed(_)))
}

/// Runs one operation after the other, and prints a table. Returns how many were killed.
pub(crate) fn table(
    names: impl Iterator<Item = &'static str>,
    run: impl Fn(&'static str) -> Row,
) -> u64 {
    let started = Instant::now();
    println!(
        "{:30} {:>11} {:>9} {:>13} {:>11}",
        "operation", "kill points", "bad kills", "freeze points", "bad freezes"
    );
    let mut progress = Progress::new();
    let (mut kills, mut freezes) = (0, 0);
    for name in names {
        progress.show(&format!("killing and freezing at every step: {name}"));
        let row = run(name);
        progress.end();
        let Row { name, kill_points, freeze_points, bad_kills, bad_freezes } = row;
        println!(
            "{name:30} {kill_points:>11} {bad_kills:>9} {freeze_points:>13} {bad_freezes:>11}"
        );
        kills += kill_points;
        freezes += freeze_points;
    }
    println!(
        "{} stop points: {kills} kills and {freezes} freezes, {:.1} s",
        kills + freezes,
        started.elapsed().as_secs_f64()
    );
    kills
}
