//! The process that is killed or frozen, and the states it can be prepared to be in.

use super::{
    board::{ACCOUNTS, Board, Deed, End, P, Roles},
    operations::Operation,
    scene::SLOTS,
};
use crate::{
    cases::{Fate, Stage},
    child,
    state::{
        actor::{Act as Done, Actor, Refusal},
        contents::{Contents, SIZE, garbage},
        site::options,
    },
    stepper::{self, Act},
};
use mainstay_shm::Access;
use mainstay_state::{Domain, Grade, Publisher, State, Transaction};
use std::{
    path::{Path, PathBuf},
    sync::atomic::Ordering::Relaxed,
};

/// The name of the state that a victim makes for itself.
pub(crate) const OWN: &str = "own";
/// What the bytes of the loose state are before and after a victim has replaced them, as far as
/// they are not zeros.
pub(crate) const LOOSE_OLD: u8 = 0x5A;
pub(crate) const LOOSE_NEW: u8 = 0x5B;
/// How many those are.
pub(crate) const LOOSE_LEN: usize = 16;
/// A state that has no author.
pub(crate) const LOOSE: &str = "loose";

pub(crate) struct Victim {
    board: &'static Board,
    fate: &'static Fate,
    pub(crate) deed: &'static Deed,
    pub(crate) folder: PathBuf,
    actor: Option<&'static Actor>,
    pub(crate) author: u64,
    /// Of its own state.
    pub(crate) own: Option<State<[u8]>>,
    pub(crate) open: Vec<Transaction<'static, [u8]>>,
    pub(crate) publisher: Option<Publisher<[u8]>>,
}

/// Which victim of a case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Which {
    First,
    Second,
}

/// The whole life of a victim: ends stopped, with its operation done, if nothing stops it before.
pub(crate) fn live(
    board: &'static Board,
    which: Which,
    folder: &Path,
    operation: &Operation,
    (step, act): (u64, Act),
) -> i32 {
    let (fate, deed) = match which {
        Which::First => (&board.docket.victim, &board.deeds[0]),
        Which::Second => (&board.second, &board.deeds[1]),
    };
    let author = board.new_author();
    let mut victim = Victim {
        board,
        fate,
        deed,
        folder: folder.into(),
        actor: None,
        author,
        own: None,
        open: Vec::new(),
        publisher: None,
    };
    if let Err(refusal) = (operation.prepare)(&mut victim) {
        fate.fail(&format!("preparing was refused: {refusal:?}"));
        return 1;
    }
    fate.set_stage(Stage::Running);
    stepper::arm(step, act);
    let done = (operation.run)(&mut victim);
    let left = stepper::disarm();
    board.steps.store(step.saturating_sub(left), Relaxed);
    match done {
        Ok(()) => {}
        // The survivors were faster, while it was frozen.
        Err(refusal) if refusal.is_conflict() && (act == Act::Freeze || which == Which::Second) => {
            deed.ended(End::Refused);
        }
        Err(Refusal::Library(error)) => fate.fail(&format!("the operation was refused: {error}")),
        Err(Refusal::Found(finding)) => fate.fail(&finding.what),
    }
    if fate.stage() == Stage::Running {
        fate.set_stage(Stage::Done);
    }
    child::stop_myself();
    0
}

impl Victim {
    pub(crate) fn actor(&self) -> &'static Actor {
        self.actor.expect("operations on states are prepared by subscribing")
    }

    pub(crate) fn fail(&self, why: &str) {
        self.fate.fail(why);
    }

    /// The commit that was announced was acknowledged.
    pub(crate) fn committed(&self) {
        self.deed.ended(End::Committed);
    }

    // ---- states to be in ----

    pub(crate) fn subscribed_to(&mut self, maps: &[usize], access: Access) -> Done {
        let actor = Actor::open::<Roles>(&self.folder, maps, access)?;
        // Lives as long as the process.
        self.actor = Some(Box::leak(Box::new(actor)));
        Ok(())
    }

    pub(crate) fn subscribed(&mut self) -> Done {
        self.subscribed_to(&ACCOUNTS, Access::ReadWrite)
    }

    /// It can read only, and has mapped nothing writable.
    pub(crate) fn reading(&mut self) -> Done {
        self.subscribed_to(&ACCOUNTS, Access::ReadOnly)
    }

    /// Has begun a transaction on this state, and written to it; then somebody else has committed.
    pub(crate) fn overtaken(&mut self, at: usize) -> Done {
        self.subscribed()?;
        let mut transaction = self.actor().state(at).begin_kept()?;
        garbage(transaction.bytes_mut()?);
        self.open.push(transaction);
        self.actor().single(at, self.author, |_| {})?;
        self.board.has_made(&[at]);
        Ok(())
    }

    /// Can publish.
    pub(crate) fn subscribed_to_publish(&mut self) -> Done {
        self.subscribed_to(&[P], Access::ReadWrite)
    }

    /// Has published a few times: it has two slots, and needs no more.
    pub(crate) fn publishing(&mut self) -> Done {
        self.subscribed_to_publish()?;
        self.publisher = Some(self.actor().state(P).publisher()?);
        (0..3).try_for_each(|_| {
            self.publish()?;
            self.board.has_made(&[P]);
            Ok(())
        })
    }

    /// The same, and the slot that it would write next is being read.
    pub(crate) fn publishing_beside_a_reader(&mut self) -> Done {
        self.publishing()?;
        self.open.push(self.actor().state(P).begin_kept()?);
        self.publish()?;
        self.board.has_made(&[P]);
        Ok(())
    }

    /// Publishes the version after the one that it finds.
    pub(crate) fn publish(&mut self) -> Done {
        let old = {
            let snapshot = self.actor().state(P).read()?;
            Contents::of(&snapshot, snapshot.version())?
        };
        let publisher = self.publisher.as_mut().expect("prepared by publishing");
        Actor::publish(publisher, old, self.author).map(drop)
    }

    pub(crate) fn loose(&mut self) -> Done {
        let domain = Domain::open(&self.folder)?;
        self.own = Some(domain.writer::<[u8]>(LOOSE)?);
        Ok(())
    }

    pub(crate) fn owning(&mut self) -> Done {
        let domain = Domain::open(&self.folder)?;
        let state = options(SLOTS).writer::<[u8]>(&domain, OWN)?;
        state.replace(&Contents::default().next(0, self.author).bytes(SIZE))?;
        self.own = Some(state);
        Ok(())
    }

    /// The file that the own state is kept in.
    pub(crate) fn kept_in(&self) -> PathBuf {
        kept_in(&self.folder)
    }

    /// Owns a state that survives the machine, and has synced it.
    pub(crate) fn keeping(&mut self) -> Done {
        self.owning()?;
        self.own().set_persistent(self.kept_in(), Grade::Process)?;
        self.own().sync()?;
        self.synced(1);
        Ok(())
    }

    pub(crate) fn own(&self) -> &State<[u8]> {
        self.own.as_ref().expect("prepared by owning")
    }

    /// The file has this version for sure.
    pub(crate) fn synced(&self, version: u64) {
        self.board.synced.store(version, Relaxed);
    }
}

/// The file that a victim's own state is kept in.
pub(crate) fn kept_in(folder: &Path) -> PathBuf {
    folder.join("kept")
}
