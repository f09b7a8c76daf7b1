//! The operations on states, each under a kill at every shared-memory store and a freeze at every
//! store and load; then with two victims at a time.

pub(crate) mod board;
pub(crate) mod operations;
mod pairs;
mod scene;
mod victim;

pub(crate) use pairs::{Only, PAIRS};

use crate::{
    cases::{self, Row},
    child::Child,
    finding::Check,
    shared::Shared,
    state::mappings,
    stepper::{self, Act},
    verdict::Verdict,
};
use board::{Board, Roles};
use operations::{About, OPERATIONS, Operation};
use scene::{Order, SLOTS, StateScene};
use victim::Which;

/// All operations there are, by name.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    OPERATIONS.iter().map(|operation| operation.name)
}

/// What a hunt is for, beside the operations: two victims in one scene.
pub(crate) fn run_pairs(
    count: u64,
    only: Only,
    seed: u64,
    verdict: &'static Verdict,
    until_found: bool,
) -> Row {
    let board = board();
    stepper::count_loads(true);
    let steps = pairs::count_steps(board, &only);
    cases::run(PAIRS, &board.docket, verdict, until_found, |number, act| {
        if number > count { Ok(false) } else { pairs::case(board, &steps, seed, number, act) }
    })
}

/// Runs all cases of one operation; with `until_found`, no further than the first finding. When it
/// is to be `thorough`, what is left after each step is met in every order.
pub(crate) fn run(
    name: &'static str,
    thorough: bool,
    verdict: &'static Verdict,
    until_found: bool,
) -> Row {
    let board = board();
    let operation = OPERATIONS.iter().find(|operation| operation.name == name);
    let operation = operation.expect("it is in the table");
    cases::run(name, &board.docket, verdict, until_found, |number, act| {
        // The orders take turns, unless there is time for all of them.
        let orders = Order::ALL.len() as u64;
        let (step, order) = if thorough {
            ((number - 1) / orders + 1, (number - 1) % orders)
        } else {
            (number, (number + act as u64) % orders)
        };
        case(operation, board, (step, act), Order::ALL[order as usize], thorough)
    })
}

/// It lives as long as the process: the stepper refers to it.
fn board() -> &'static Board {
    Box::leak(Box::new(Shared::<Board>::new()))
}

fn case(
    operation: &'static Operation,
    board: &'static Board,
    (step, act): (u64, Act),
    order: Order,
    thorough: bool,
) -> Check<bool> {
    let mut scene = StateScene::set(board, operation.about, order, SLOTS)?;
    // A death before a load leaves what a death before the next store leaves.
    stepper::count_loads(thorough || act == Act::Freeze);
    board.docket.details.set(&format!(", then {order:?}"));
    let folder = scene.folder().to_owned();
    let victim =
        Child::fork(move || victim::live(board, Which::First, &folder, operation, (step, act)));
    cases::play(&board.docket.victim, &mut scene, victim)
}

/// A reader cannot write, not even by mistake.
pub(crate) fn check_wild_stores(verdict: &'static Verdict) {
    let board = board();
    let done = StateScene::set(board, About::Accounts, Order::Full, SLOTS)
        .and_then(|scene| mappings::stores_fault::<Roles>(scene.folder()));
    if let Err(finding) = done {
        verdict.report(finding.harm, &format!("a wild store: {}", finding.what));
    }
}
