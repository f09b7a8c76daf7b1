//! The pool's operations, each under a kill and a freeze at every shared-memory store.

pub(crate) mod board;
mod creation;
pub(crate) mod operations;
mod scene;
mod victim;

pub(crate) use victim::options;

use crate::{
    cases::{self, Row},
    child::Child,
    finding::Check,
    shared::Shared,
    stepper::Act,
    verdict::Verdict,
};
use board::Board;
use operations::{OPERATIONS, Operation};
use scene::PoolScene;

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
    let operation = OPERATIONS.iter().find(|operation| operation.name == name);
    cases::run(name, &board.docket, verdict, until_found, |step, act| match operation {
        Some(operation) => case(operation, board, step, act),
        None => creation::case(&board.docket.victim, step, act),
    })
}

fn case(operation: &Operation, board: &'static Board, step: u64, act: Act) -> Check<bool> {
    board.clear();
    let mut scene = PoolScene::set(board, operation.crowd)?;
    let fd = scene.fd();
    let victim = Child::fork(move || victim::live(board, fd, operation, step, act));
    cases::play(&board.docket.victim, &mut scene, victim)
}
