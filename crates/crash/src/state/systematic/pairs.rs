//! Two victims: the first is killed, or frozen, in the middle of a commit; the second meets what it
//! has left, and is stopped as well; survivors work beside both; then the frozen are continued or
//! killed, in either order.
//!
//! There are too many pairs of stop points to try them all each time: a seed says which are tried,
//! and each number from one to infinity is another case.

use super::{
    board::Board,
    operations::{About, OPERATIONS, Operation, SECOND},
    scene::{Order, SLOTS_FOR_TWO, StateScene},
    victim::{self, Which},
};
use crate::{
    cases::{Fate, Stage},
    child::{Child, News},
    finding::Check,
    stepper::Act,
};
use mainstay_base::{Rng, mix64};
use rustix::process::Signal;
use std::sync::atomic::Ordering::Relaxed;

/// The name of all these cases.
pub(crate) const PAIRS: &str = "two victims";

/// What the first victim may be in the middle of: commits, and reads that others may overtake.
fn firsts() -> impl Iterator<Item = &'static Operation> {
    let names = ["commit", "publish", "abort", "read of four", "copy"];
    OPERATIONS.iter().filter(move |op| op.about == About::Several || names.contains(&op.name))
}

/// What both victims' operations must have in their names, if not all are wanted.
pub(crate) type Only = Option<(&'static str, &'static str)>;

/// How many steps each operation has that can be first, or second.
pub(super) struct Steps {
    firsts: Vec<(&'static Operation, u64)>,
    seconds: Vec<(&'static Operation, u64)>,
}

/// Runs each operation once in a scene of its own, without a stop.
pub(super) fn count_steps(board: &'static Board, only: &Only) -> Steps {
    let count = |operation: &'static Operation| {
        // In a process of its own: a scene is set in a process that has one thread and no other.
        let counted = board.apart(|| {
            let scene = StateScene::set(board, About::Several, Order::Full, SLOTS_FOR_TWO)?;
            let folder = scene.folder().to_owned();
            let mut victim = Child::fork(move || {
                victim::live(board, Which::First, &folder, operation, (u64::MAX, Act::Kill))
            });
            victim.wait();
            Ok(())
        });
        let steps = if counted.is_ok() { board.steps.load(Relaxed) } else { 0 };
        (operation, steps.max(1))
    };
    let wanted = |name: &'static str| move |op: &&'static Operation| op.name.contains(name);
    let (first, second) = only.unwrap_or(("", ""));
    Steps {
        firsts: firsts().filter(wanted(first)).map(count).collect(),
        seconds: SECOND.iter().filter(wanted(second)).map(count).collect(),
    }
}

/// One victim in the flesh.
struct Body {
    child: Child,
    fate: &'static Fate,
    frozen: bool,
}

impl Body {
    /// Forks one and waits until it is stopped, dead or done.
    fn fall(fate: &'static Fate, live: impl FnOnce() -> i32) -> Check<Self> {
        let mut child = Child::fork(live);
        let news = child.wait();
        let stage = fate.stage();
        let frozen = news == News::Stopped && stage == Stage::Running;
        let killed = matches!(news, News::Killed(_)) && stage == Stage::Running;
        let done = news == News::Stopped && stage == Stage::Done;
        if frozen || killed || done {
            Ok(Self { child, fate, frozen })
        } else {
            Err(fate.failure(news))
        }
    }

    /// Lets it finish, if it is frozen.
    fn go_on(&mut self) -> Check {
        if !self.frozen {
            return Ok(());
        }
        self.child.signal(Signal::CONT);
        self.frozen = false;
        let news = self.child.wait();
        let done = news == News::Stopped && self.fate.stage() == Stage::Done;
        if done { Ok(()) } else { Err(self.fate.failure(news)) }
    }
}

/// The case of this number. `act` is what becomes of the first victim.
pub(super) fn case(
    board: &'static Board,
    steps: &Steps,
    seed: u64,
    number: u64,
    act: Act,
) -> Check<bool> {
    let mut rng = Rng::seeded(mix64(seed) ^ number << 1 ^ act as u64);
    let mut pick = |list: &[(&'static Operation, u64)]| {
        let (operation, steps) = list[rng.below(list.len() as u64) as usize];
        (operation, 1 + rng.below(steps))
    };
    let (first, first_step) = pick(&steps.firsts);
    // What it meets may make the second take more steps than it needs alone.
    let (second, second_step) = pick(&steps.seconds);
    let second_step = if rng.below(3) == 0 { second_step * 2 } else { second_step };
    let second_act = if rng.below(4) == 0 { Act::Kill } else { Act::Freeze };
    let order = Order::ALL[rng.below(4) as usize];

    let mut scene = StateScene::set(board, About::Several, order, SLOTS_FOR_TWO)?;
    let folder = scene.folder().to_owned();
    let mut one = Body::fall(&board.docket.victim, || {
        victim::live(board, Which::First, &folder, first, (first_step, act))
    })?;
    board.docket.details.set(&format!(
        ", after {} was {} at step {first_step} ({}); the second was doing {}, {} at step \
         {second_step}; then {order:?}",
        first.name,
        if act == Act::Kill { "killed" } else { "frozen" },
        board.docket.place.get(),
        second.name,
        if second_act == Act::Kill { "killed" } else { "frozen" },
    ));
    // One who takes all slots there are leaves others what they have already.
    let early = if second.about == About::Hungry { scene.begin_early()? } else { Vec::new() };
    let mut two = Body::fall(&board.second, || {
        victim::live(board, Which::Second, &folder, second, (second_step, second_act))
    })?;
    scene.commit_early(early, rng.below(4) as usize)?;
    if second.about == About::Hungry {
        two.go_on()?;
    }
    if two.frozen {
        scene.is_about(second.about);
    }
    if rng.below(4) > 0 {
        scene.beside()?;
    }
    match rng.below(6) {
        0 => {
            one.go_on()?;
            two.go_on()?;
        }
        1 => {
            two.go_on()?;
            one.go_on()?;
        }
        2 => {
            one.go_on()?;
            scene.beside()?;
            two.go_on()?;
        }
        3 => {
            two.go_on()?;
            scene.beside()?;
            one.go_on()?;
        }
        4 => {
            one.child.kill();
            scene.beside()?;
            two.go_on()?;
        }
        _ => {
            two.child.kill();
            one.go_on()?;
        }
    }
    scene.is_about(About::Several);
    scene.beside()?;
    one.child.kill();
    two.child.kill();
    scene.after_death()?;
    Ok(true)
}
