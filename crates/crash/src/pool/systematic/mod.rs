//! A kill, and a freeze, at every shared-memory store of every operation.
//!
//! For each operation, each step k of it and each of the two ways: a survivor sets a scene of its
//! own, forks a victim that leases a slot and runs to step k, and there it dies, or freezes. Then
//! the survivor takes over. A frozen victim is later continued, finishes, and is killed. A
//! director watches the survivor: whoever hangs is stuck.

pub(crate) mod board;
mod creation;
pub(crate) mod operations;
mod scene;
mod victim;

pub(crate) use victim::options;

use crate::{
    child::{Child, News},
    finding::{Check, Finding},
    shared::Shared,
    stepper::{self, Act},
    verdict::{Harm, Verdict},
};
use board::{Board, Stage};
use operations::{OPERATIONS, Operation};
use rustix::process::Signal;
use scene::Scene;
use std::{
    sync::atomic::Ordering::{Acquire, Relaxed, Release},
    thread,
    time::{Duration, Instant},
};

/// How long one case may take before its survivor counts as stuck. A case takes milliseconds.
const CASE_TIME_MAX: Duration = Duration::from_secs(10);

/// An operation is given up after this many hangs.
const HANGS_MAX: u32 = 3;

/// What was found at one operation.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) kill_points: u64,
    pub(crate) freeze_points: u64,
    pub(crate) bad_kills: u64,
    pub(crate) bad_freezes: u64,
}

/// The name of the operation that makes the file, which has no pool to run in.
pub(crate) const CREATE: &str = "create the file";

/// All operations there are, by name.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    OPERATIONS.iter().map(|operation| operation.name).chain([CREATE])
}

/// Runs all cases of one operation; with `until_found`, no further than the first finding.
pub(crate) fn run(name: &'static str, verdict: &'static Verdict, until_found: bool) -> Row {
    // Lives as long as the process: the stepper refers to it.
    let board: &'static Board = Box::leak(Box::new(Shared::<Board>::new()));
    let mut hangs = 0;
    loop {
        let mut survivor = Child::fork(|| all_cases(name, board, verdict, until_found, hangs > 0));
        match watch(&mut survivor, board) {
            Some(News::Exited(0)) => break,
            Some(news) => report(
                board,
                verdict,
                &Finding {
                    harm: Harm::Stuck,
                    what: format!("{name}: the survivor ended: {news:?}"),
                },
            ),
            None => report(
                board,
                verdict,
                &Finding { harm: Harm::Stuck, what: format!("{} is stuck", describe(name, board)) },
            ),
        }
        hangs += 1;
        if until_found || hangs == HANGS_MAX {
            break;
        }
    }
    let get =
        |counts: &[std::sync::atomic::AtomicU64; 2], act: Act| counts[act as usize].load(Acquire);
    Row {
        name,
        kill_points: get(&board.points, Act::Kill),
        freeze_points: get(&board.points, Act::Freeze),
        bad_kills: get(&board.bad, Act::Kill),
        bad_freezes: get(&board.bad, Act::Freeze),
    }
}

/// Its end, or none when it made no progress for too long.
fn watch(survivor: &mut Child, board: &Board) -> Option<News> {
    let mut beat = (board.beat.load(Relaxed), Instant::now());
    loop {
        if let Some(news) = survivor.poll() {
            return Some(news);
        }
        let now = board.beat.load(Relaxed);
        if now != beat.0 {
            beat = (now, Instant::now());
        }
        if beat.1.elapsed() > CASE_TIME_MAX {
            // Its children die with it.
            survivor.kill();
            return None;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn describe(name: &str, board: &Board) -> String {
    let act = if board.mode.load(Acquire) == 0 { "killed" } else { "frozen" };
    let place = board.place.get();
    let place = if place.is_empty() { "its end".to_owned() } else { place };
    format!("{name}, {act} at step {} ({place})", board.step.load(Acquire))
}

fn report(board: &Board, verdict: &Verdict, finding: &Finding) {
    board.bad[board.mode.load(Acquire) as usize & 1].fetch_add(1, Relaxed);
    verdict.report(finding.harm, &finding.what);
}

/// The survivor's life: case after case, from the one that the board names (`again`: the one after).
fn all_cases(
    name: &str,
    board: &'static Board,
    verdict: &Verdict,
    until_found: bool,
    again: bool,
) -> i32 {
    stepper::tell(&board.place);
    let operation = OPERATIONS.iter().find(|operation| operation.name == name);
    let mut next = again.then(|| (board.mode.load(Acquire), board.step.load(Acquire) + 1));
    for act in [Act::Kill, Act::Freeze] {
        let first = match next {
            Some((mode, _)) if mode != act as u32 => continue,
            Some((_, step)) => step,
            None => 1,
        };
        next = None;
        for step in first.. {
            board.mode.store(act as u32, Release);
            board.step.store(step, Release);
            let done = match operation {
                Some(operation) => case(operation, board, step, act),
                None => creation::case(board, step, act),
            };
            let stopped = match done {
                Ok(stopped) => stopped,
                Err(Finding { harm, what }) => {
                    let what = format!("{}: {what}", describe(name, board));
                    report(board, verdict, &Finding { harm, what });
                    if until_found {
                        return 0;
                    }
                    !board.place.get().is_empty()
                }
            };
            if !stopped {
                break;
            }
            board.points[act as usize].fetch_add(1, Relaxed);
        }
    }
    0
}

/// One case. Returns whether the victim got as far as the step; if not, it was killed when it had
/// finished, which is the point behind its last store.
fn case(operation: &Operation, board: &'static Board, step: u64, act: Act) -> Check<bool> {
    board.clear();
    let mut scene = Scene::set(board, operation.crowd)?;
    let fd = scene.fd();
    let mut victim = Child::fork(move || victim::live(board, fd, operation, step, act));
    let news = victim.wait();
    let frozen = news == News::Stopped && board.stage() == Stage::Running;
    match news {
        News::Killed(_) if board.stage() == Stage::Running => {}
        News::Stopped if frozen => {
            scene.work_beside()?;
            victim.signal(Signal::CONT);
            let news = victim.wait();
            if news != News::Stopped || board.stage() != Stage::Done {
                return Err(scene::victim_failed(board, news));
            }
            scene.check_at_rest()?;
        }
        News::Stopped if board.stage() == Stage::Done => {}
        news => return Err(scene::victim_failed(board, news)),
    }
    victim.kill();
    scene.check_after_death()?;
    Ok(frozen || matches!(news, News::Killed(_)))
}
