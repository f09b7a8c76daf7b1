//! Operations of an application, each under a kill and a freeze at every step.

use super::{
    PATIENCE,
    board::Board,
    check::{self, Until},
    life::{Kind, Life},
    talk::Talk,
};
use crate::{
    cases::{self, Row, Scene, Stage},
    child::{self, Child, News},
    finding::{Check, ensure},
    shared::Shared,
    stepper::{self, Act},
    verdict::{Harm::Stuck, Verdict},
};
use std::path::Path;
use tempfile::TempDir;

/// Messages that are heard before the operation, and how many there are in all.
const BEFORE: usize = 12;
const ALL: usize = 18;

/// A freeze is tried at the first of so many steps: it matters whether others are kept out and the
/// frozen one gets on, and not where exactly.
const FREEZE_EVERY: u64 = 5;

/// So large that a base takes several parts: blocks of 256 KiB, or records of 2 KiB.
fn content_len(kind: Kind) -> usize {
    match kind {
        Kind::Pool => 40_000,
        Kind::Store => 400,
    }
}

/// What is there when the victim begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Begins {
    /// Nothing at all.
    Anew,
    /// What another one has left that died.
    BehindTheDead,
    /// The same, and the victim has loaded it.
    Loaded,
    /// And it has kept a base of its own, so that what comes next is a change.
    AtWork,
}

type Run = fn(&mut Victim) -> Check;

struct Operation {
    name: &'static str,
    kind: Kind,
    begins: Begins,
    run: Run,
}

const fn on(name: &'static str, kind: Kind, begins: Begins, run: Run) -> Operation {
    Operation { name, kind, begins, run }
}

const OPERATIONS: &[Operation] = &[
    on("pool: make the place", Kind::Pool, Begins::Anew, open),
    on("pool: load", Kind::Pool, Begins::BehindTheDead, open),
    on("pool: keep a base", Kind::Pool, Begins::Loaded, receive),
    on("pool: receive", Kind::Pool, Begins::AtWork, receive),
    on("pool: release what waits", Kind::Pool, Begins::AtWork, release),
    on("pool: send", Kind::Pool, Begins::AtWork, send),
    on("pool: forget", Kind::Pool, Begins::AtWork, forget),
    on("pool: close", Kind::Pool, Begins::AtWork, close),
    on("store: make the place", Kind::Store, Begins::Anew, open),
    on("store: load", Kind::Store, Begins::BehindTheDead, open),
    on("store: keep a base", Kind::Store, Begins::Loaded, receive),
    on("store: receive", Kind::Store, Begins::AtWork, receive),
    on("store: release what waits", Kind::Store, Begins::AtWork, release),
    on("store: send", Kind::Store, Begins::AtWork, send),
    on("store: forget", Kind::Store, Begins::AtWork, forget),
    on("store: close", Kind::Store, Begins::AtWork, close),
];

/// All operations there are, by name.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    OPERATIONS.iter().map(|operation| operation.name)
}

/// Runs all cases of one operation; with `until_found`, no further than the first finding.
pub(crate) fn run(name: &'static str, verdict: &'static Verdict, until_found: bool) -> Row {
    // These live as long as the process: the stepper refers to the board.
    let board: &'static Board = Box::leak(Box::new(Shared::<Board>::new()));
    let operation = OPERATIONS.iter().find(|operation| operation.name == name);
    let operation = operation.expect("it is in the table");
    let talk = Talk::new(ALL, content_len(operation.kind)).expect("what is said keeps to limits");
    let talk: &'static Talk = Box::leak(Box::new(talk));
    cases::run(name, &board.docket, verdict, until_found, |number, act| {
        let step = if act == Act::Freeze { 1 + (number - 1) * FREEZE_EVERY } else { number };
        let mut scene = SdsScene::set(operation, board, talk)?;
        let folder = scene.folder.path().to_owned();
        let victim = Child::fork(move || live(operation, &folder, board, talk, (step, act)));
        cases::play(&board.docket.victim, &mut scene, victim)
    })
}

struct Victim {
    kind: Kind,
    folder: std::path::PathBuf,
    board: &'static Board,
    talk: &'static Talk,
    life: Option<Life<'static>>,
}

impl Victim {
    fn begin(&mut self) -> Check {
        self.life = Some(Life::begin(self.kind.open(&self.folder)?, self.board)?);
        Ok(())
    }

    fn hear(&mut self, numbers: impl Iterator<Item = usize>) -> Check {
        let life = self.life.as_mut().expect("it has begun");
        numbers.map(|number| &self.talk.messages()[number]).try_for_each(|bytes| life.hear(bytes))
    }
}

/// The first message of three that come backwards comes last: until then the others wait.
fn open(victim: &mut Victim) -> Check {
    victim.begin()?;
    victim.hear(BEFORE..BEFORE + 3)
}

fn receive(victim: &mut Victim) -> Check {
    // One that is the next in the order.
    victim.hear([BEFORE + 2].into_iter())
}

fn release(victim: &mut Victim) -> Check {
    victim.hear(BEFORE..BEFORE + 3)
}

fn send(victim: &mut Victim) -> Check {
    victim.life.as_mut().expect("it has begun").send()
}

fn forget(victim: &mut Victim) -> Check {
    victim.board.begin_to_forget();
    Ok(victim.life.as_mut().expect("it has begun").place.forget(super::talk::ROOM)?)
}

fn close(victim: &mut Victim) -> Check {
    victim.life = None;
    Ok(())
}

/// The whole life of a victim: ends stopped, with its operation done, if nothing stops it before.
fn live(
    operation: &Operation,
    folder: &Path,
    board: &'static Board,
    talk: &'static Talk,
    (step, act): (u64, Act),
) -> i32 {
    let folder = folder.to_owned();
    let mut victim = Victim { kind: operation.kind, folder, board, talk, life: None };
    let fate = &board.docket.victim;
    if let Err(finding) = prepare(operation.begins, &mut victim) {
        fate.fail(&format!("preparing: {}", finding.what));
        return 1;
    }
    fate.set_stage(Stage::Running);
    stepper::arm(step, act);
    let done = (operation.run)(&mut victim);
    stepper::disarm();
    match done {
        Ok(()) => fate.set_stage(Stage::Done),
        Err(finding) => fate.fail(&format!("the operation: {}", finding.what)),
    }
    child::stop_myself();
    0
}

fn prepare(begins: Begins, victim: &mut Victim) -> Check {
    match begins {
        Begins::Anew | Begins::BehindTheDead => Ok(()),
        Begins::Loaded => victim.begin(),
        Begins::AtWork => {
            victim.begin()?;
            // What is known already changes nothing; what is sent is kept, with all the rest.
            victim.life.as_mut().expect("it has begun").send()
        }
    }
}

struct SdsScene {
    operation: &'static Operation,
    board: &'static Board,
    talk: &'static Talk,
    folder: TempDir,
}

impl SdsScene {
    /// One has lived before, if that is wanted, and was killed in the middle of its life.
    fn set(
        operation: &'static Operation,
        board: &'static Board,
        talk: &'static Talk,
    ) -> Check<Self> {
        board.clear();
        let folder = tempfile::tempdir().expect("a folder for temporary files can be made");
        let scene = Self { operation, board, talk, folder };
        if operation.begins == Begins::Anew {
            return Ok(scene);
        }
        let (kind, path) = (operation.kind, scene.folder.path());
        let mut before = Child::fork(|| {
            let made = if kind == Kind::Store { check::make_small_store(path) } else { Ok(()) };
            let lived = made.and_then(|()| {
                let mut life = Life::begin(kind.open(path)?, board)?;
                talk.messages()[..BEFORE].iter().try_for_each(|bytes| life.hear(bytes))?;
                life.send()?;
                child::kill_myself()
            });
            lived.map_or_else(
                |finding| {
                    board.tell(&finding);
                    1
                },
                |()| 0,
            )
        });
        match before.end_within(PATIENCE) {
            Some(News::Killed(_)) => Ok(scene),
            news => Err(board.told(&format!("the one before: {news:?}"))),
        }
    }
}

impl Scene for SdsScene {
    /// Nobody else gets at what the frozen one has.
    fn work_beside(&mut self) -> Check {
        let (kind, path, board) = (self.operation.kind, self.folder.path(), self.board);
        if matches!(self.operation.begins, Begins::Anew | Begins::BehindTheDead) {
            // Whoever of the two is first has it.
            return Ok(());
        }
        let looked = child::within(PATIENCE, || i32::from(kind.open(path).is_ok()));
        ensure(looked.is_ok(), Stuck, || format!("another one got at what is kept: {looked:?}"))
            .inspect_err(|finding| board.tell(finding))
    }

    fn check_at_rest(&mut self) -> Check {
        Ok(())
    }

    fn check_after_death(&mut self) -> Check {
        let (kind, folder) = (self.operation.kind, self.folder.path());
        check::all(kind, folder, self.board, self.talk, Until::TheEnd)
    }
}
