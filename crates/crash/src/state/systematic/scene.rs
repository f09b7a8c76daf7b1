//! The survivors: they set the scene, work beside a frozen victim, and look at everything when the
//! victim is dead.

use super::{
    board::{A, ACCOUNTS, ASIDE, B, Board, C, D, P, Roles, STATES},
    operations::About,
    victim::{LOOSE, LOOSE_LEN, LOOSE_NEW, LOOSE_OLD, OWN, kept_in},
};
use crate::{
    cases::Scene,
    child::{self, Child, News},
    finding::{Check, Finding, ensure},
    state::{
        actor::{Act, Actor, Plan},
        contents::{Contents, SIZE},
        mappings,
        site::{self, options},
    },
    verdict::Harm::{Leaked, Lost, Stuck, Torn},
};
use mainstay_shm::Access;
use mainstay_state::{Domain, Error, Grade, Publisher, State, Transaction};
use std::{
    path::Path,
    sync::atomic::Ordering::{Acquire, Relaxed},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Slots of a state when there is one victim. It may have a claim and a pin, the survivors too,
/// and one slot is current: none is left over.
pub(super) const SLOTS: u32 = 5;
/// With two victims.
pub(super) const SLOTS_FOR_TWO: u32 = 7;

/// Commits of each state before a case begins: all slots were in use, and hold old versions.
const COMMITS_BEFORE: u32 = SLOTS_FOR_TWO + 2;

/// Slots that one who claims all leaves to others: a commit needs one, and another if what it
/// replaces is pinned.
const LEFT_TO_OTHERS: usize = 2;

/// The states that victims write.
const WRITTEN: [usize; 5] = [A, B, C, D, P];

/// How often a survivor is told `Conflict` at most, when all others stand still: once for each
/// victim whose commit it completes by its own.
const CONFLICTS_MAX: u32 = 2;

/// How long a sleeper may take to find that it should be awake. It looks by itself now and then.
const WAKE_TIME_MAX: Duration = Duration::from_secs(2);

/// Commits of a newcomer: it has come to use each record that its lease has.
const COMMITS_OF_A_NEWCOMER: u32 = 9;

/// Who is the first to touch what a victim has left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    /// One who claims every slot there is, and writes garbage there.
    Claims,
    /// One who has subscribed to some of the states.
    Partial,
    /// One who has subscribed to all.
    Full,
    /// One who takes the lease of a dead process, and its records.
    Newcomer,
}

impl Order {
    pub(crate) const ALL: [Self; 4] = [Self::Claims, Self::Partial, Self::Full, Self::Newcomer];
}

/// A transaction that was begun before victims came, and on which state.
type Early<'a> = (usize, Transaction<'a, [u8]>);

pub(crate) struct StateScene {
    board: &'static Board,
    about: About,
    order: Order,
    slots: u32,
    waiter: Option<Child>,
    full: Actor,
    loose: Option<State<[u8]>>,
    /// What the folder holds when all is well.
    files: Vec<String>,
    folder: TempDir,
}

impl StateScene {
    /// States that were written a few times, and, if wanted, a dead process in them.
    pub(crate) fn set(
        board: &'static Board,
        about: About,
        order: Order,
        slots: u32,
    ) -> Check<Self> {
        board.clear();
        let folder = site::folder()?;
        let all: Vec<usize> = (0..STATES).collect();
        let full = Actor::make::<Roles>(folder.path(), slots)?;
        for round in 0..COMMITS_BEFORE {
            full.transfer(&ACCOUNTS, &[], (i64::from(round), board.new_author()), |_| {})?;
            full.transfer(&ASIDE, &[], (1, board.new_author()), |_| {})?;
            full.single(P, board.new_author(), |_| {})?;
            board.has_made(&all);
        }
        let loose = if about == About::Loose {
            let state = options(SLOTS).size_limit(1 << 16).writer::<[u8]>(&full.domain, LOOSE)?;
            let mut bytes = vec![0; SIZE];
            bytes[..LOOSE_LEN].fill(LOOSE_OLD);
            state.replace(&bytes)?;
            Some(state)
        } else {
            None
        };
        let files = site::files(folder.path());
        let mut scene =
            Self { board, about, order, slots, waiter: None, full, loose, files, folder };
        match about {
            About::Crowded => scene.let_a_crowd_die()?,
            About::Awaited => scene.let_somebody_wait()?,
            _ => {}
        }
        Ok(scene)
    }

    /// A second victim is frozen, perhaps where others would have to wait for it.
    pub(crate) fn is_about(&mut self, about: About) {
        self.about = about;
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A process claims every free slot of the accounts, pins what is current, and dies.
    fn let_a_crowd_die(&self) -> Check {
        let folder = self.folder();
        let mut crowd = Child::fork(|| {
            let work = || -> Act {
                let actor = Actor::open::<Roles>(folder, &ACCOUNTS, Access::ReadWrite)?;
                for at in ACCOUNTS {
                    std::mem::forget(actor.claim_all(at)?);
                    std::mem::forget(actor.state(at).read()?);
                }
                child::kill_myself()
            };
            i32::from(work().is_err())
        });
        let news = crowd.wait();
        ensure(matches!(news, News::Killed(_)), Stuck, || format!("the crowd: {news:?}"))
    }

    fn let_somebody_wait(&mut self) -> Check {
        let (board, folder) = (self.board, self.folder());
        let waiter = Child::fork(|| {
            let wait = || -> Act {
                let actor = Actor::open::<Roles>(folder, &[A], Access::ReadOnly)?;
                let mut watch = actor.state(A).watch()?;
                board.told.store(actor.state(A).version()?, Relaxed);
                loop {
                    if let Some(version) = watch.wait(Duration::from_secs(10))? {
                        board.told.store(version, Relaxed);
                    }
                }
            };
            i32::from(wait().is_err())
        });
        self.waiter = Some(waiter);
        // From here on the waiter has to be told of everything.
        self.waiter_was_told()
    }

    // ---- what a survivor does ----

    /// A survivor's commit: nobody but the victims can be in its way.
    fn survive(&self, states: &[usize], commit: impl Fn(u64) -> Act) -> Check {
        survive(self.board, states, commit)
    }

    fn single(&self, at: usize) -> Check {
        self.survive(&[at], |author| self.full.single(at, author, |_| {}))
    }

    fn transfer(&self, states: &[usize]) -> Check {
        self.survive(states, |author| self.full.transfer(states, &[], (3, author), |_| {}))
    }

    /// Every state is whole, and all versions of one instant add up.
    fn look(&self) -> Check {
        look(self.board, &self.full)
    }

    /// The same, by somebody who has mapped nothing writable.
    fn look_read_only(&self) -> Check {
        self.board.apart(|| {
            let all: Vec<usize> = (0..STATES).collect();
            let actor = Actor::open::<Roles>(self.folder(), &all, Access::ReadOnly)?;
            mappings::are_read_only(self.folder())?;
            look(self.board, &actor)?;
            for at in ACCOUNTS {
                let mut bytes = [0; SIZE];
                let (version, len) = actor.state(at).copy_to(&mut bytes)?;
                // A victim may have made it larger: then the rest is looked at elsewhere.
                if len <= SIZE {
                    Contents::of(&bytes[..len], version)?;
                }
                self.board.add_up(&[(at, version)])?;
            }
            Ok(())
        })
    }

    /// Claims all slots of the accounts but one each, and writes garbage there; meanwhile others
    /// commit and look. Nothing of what can be seen may be in those slots.
    fn claim(&self) -> Check {
        let mut claimed = Vec::new();
        for at in WRITTEN {
            let mut all = self.full.claim_all(at)?;
            self.nothing_is_left_to_claim(at)?;
            let free = all.len();
            let least = if at == P { 1 } else { LEFT_TO_OTHERS };
            ensure(free >= least, Stuck, || {
                format!("state {at}: only {free} slots can be had beside a victim")
            })?;
            all.truncate(free.saturating_sub(LEFT_TO_OTHERS));
            claimed.push(all);
        }
        self.look()?;
        if !self.about.gates() {
            self.partial()?;
        }
        self.transfer(&ACCOUNTS)?;
        self.look()
    }

    /// All slots of a state are in use: there is none for one either who pins nothing first.
    fn nothing_is_left_to_claim(&self, at: usize) -> Check {
        let replaced = self.full.state(at).replace(&[0xD6; SIZE]);
        ensure(matches!(replaced, Err(Error::NoFreeSlot { .. })), Torn, || {
            format!("state {at}: all slots are in use, and another was found: {replaced:?}")
        })
    }

    /// Begins a transaction on each account, and gets it a slot.
    pub(crate) fn begin_early(&self) -> Check<Vec<Early<'_>>> {
        let begin = |at: usize| -> Act<Early<'_>> {
            let mut transaction = self.full.state(at).begin()?;
            let old = Contents::of(transaction.get()?, transaction.base_version())?;
            let len = transaction.get()?.len();
            let new = old.next(0, self.board.new_author());
            transaction.bytes_mut()?.copy_from_slice(&new.bytes(len));
            Ok((at, transaction))
        };
        Ok(ACCOUNTS.into_iter().map(begin).collect::<Act<_>>()?)
    }

    /// Commits one of them, and aborts the others: what a victim has begun is met at one state and
    /// finished for all, by one who needs no slot for it.
    pub(crate) fn commit_early(&self, mut early: Vec<Early<'_>>, which: usize) -> Check {
        if early.is_empty() {
            return Ok(());
        }
        let (at, transaction) = early.swap_remove(which % early.len());
        match transaction.commit() {
            Ok(_) => self.board.has_made(&[at]),
            Err(Error::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        self.look()
    }

    /// Commits of one who has not subscribed to all the states that a victim's commit is about.
    fn partial(&self) -> Check {
        let (board, folder) = (self.board, self.folder());
        board.apart(|| {
            let actor = Actor::open::<Roles>(folder, &[B, C], Access::ReadWrite)?;
            for at in [B, C] {
                survive(board, &[at], |author| actor.single(at, author, |_| {}))?;
            }
            survive(board, &[B, C], |author| actor.transfer(&[B, C], &[], (5, author), |_| {}))
        })
    }

    /// One who takes the lowest lease that nobody living has, and uses its records.
    fn newcomer(&self) -> Check {
        let (board, folder) = (self.board, self.folder());
        board.apart(|| {
            let actor = Actor::open::<Roles>(folder, &ASIDE, Access::ReadWrite)?;
            for _ in 0..COMMITS_OF_A_NEWCOMER {
                survive(board, &ASIDE, |author| actor.transfer(&ASIDE, &[], (1, author), |_| {}))?;
            }
            Ok(())
        })
    }

    /// One of the survivors' own publisher, beside that of a victim.
    fn publish(&self, publisher: &mut Publisher<[u8]>) -> Check {
        let old = {
            let snapshot = self.full.state(P).read()?;
            Contents::of(&snapshot, snapshot.version())?
        };
        Actor::publish(publisher, old, self.board.new_author())?;
        self.board.has_made(&[P]);
        Ok(())
    }

    /// Commits that come by every slot.
    fn go_round(&self) -> Check {
        for turn in 0..=self.slots {
            // A frozen publisher may have three slots, and what it has shown a fourth.
            if turn % 2 == 0 {
                self.single(P)?;
            } else {
                self.publish(&mut self.full.state(P).publisher()?)?;
            }
            self.transfer(&[D, B])?;
            self.single(A)?;
            self.single(C)?;
        }
        self.transfer(&ACCOUNTS)
    }

    /// All of it, in this scene's order.
    fn take_over(&self) -> Check {
        match self.order {
            Order::Claims => self.claim()?,
            // Joining takes a gate, which the frozen victim may have.
            Order::Partial if !self.about.gates() => self.partial()?,
            Order::Newcomer if !self.about.gates() => self.newcomer()?,
            Order::Partial | Order::Full | Order::Newcomer => {}
        }
        self.look()?;
        self.go_round()
    }

    /// What a survivor does beside victims that stand still.
    pub(crate) fn beside(&self) -> Check {
        if !self.about.gates() {
            self.look_read_only()?;
        }
        self.look()?;
        self.take_over()?;
        self.look()
    }

    // ---- when all are at rest ----

    /// Every slot but the current one can be had.
    fn all_slots_are_free(&self, states: &[usize]) -> Check {
        for at in states.iter().copied() {
            let free = self.full.claim_all(at)?.len();
            let slots = self.slots as usize;
            ensure(free == slots - 1, Leaked, || {
                format!("state {at}: {free} slots can be had, and {} should be free", slots - 1)
            })?;
        }
        Ok(())
    }

    /// The library's own list says that nobody but this process holds anything.
    fn nobody_holds_anything(&self) -> Check {
        for name in Roles::NAMES {
            let info = self.full.domain.info(name)?;
            for other in info.into_iter().flat_map(|info| info.subscribers) {
                ensure(other.claims == 0 && other.pins == 0, Leaked, || {
                    format!("{name}: at rest, somebody still holds something: {other:?}")
                })?;
                ensure(other.alive, Leaked, || format!("{name}: of the dead: {other:?}"))?;
            }
        }
        Ok(())
    }

    pub(crate) fn at_rest(&self) -> Check {
        self.look()?;
        self.go_round()?;
        // A publisher that rests keeps its slots.
        self.all_slots_are_free(&ACCOUNTS)?;
        self.look()
    }

    pub(crate) fn after_death(&mut self) -> Check {
        self.look()?;
        if self.order == Order::Claims {
            // Whatever the dead have left: nobody has to commit first to make a slot free.
            self.all_slots_are_free(&WRITTEN)?;
        }
        self.take_over()?;
        // Whoever needed something has taken it by now; the rest is taken back here.
        for at in 0..STATES {
            self.full.state(at).scavenge()?;
        }
        self.nobody_holds_anything()?;
        self.all_slots_are_free(&WRITTEN)?;
        self.newcomer()?;
        self.look_read_only()?;
        self.waiter_was_told()?;
        self.end_waiter()?;
        match self.about {
            About::Loose => self.loose_is_whole()?,
            About::OwnTransient => self.own_is_gone()?,
            About::OwnKept => self.own_is_kept()?,
            _ => {}
        }
        site::age(self.folder());
        self.full.domain.sweep()?;
        let files = site::files(self.folder());
        ensure(files == self.files, Leaked, || {
            format!("the folder holds {files:?}, not {:?}", self.files)
        })
    }

    fn waiter_was_told(&mut self) -> Check {
        let Some(waiter) = &mut self.waiter else { return Ok(()) };
        let version = self.full.state(A).version()?;
        let until = Instant::now() + WAKE_TIME_MAX;
        while self.board.told.load(Acquire) < version {
            ensure(waiter.poll().is_none(), Stuck, || "the waiter has ended".into())?;
            ensure(Instant::now() < until, Stuck, || {
                let told = self.board.told.load(Acquire);
                format!("a waiter still sleeps: told of {told}, and version {version} is there")
            })?;
            thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    fn end_waiter(&mut self) -> Check {
        if let Some(mut waiter) = self.waiter.take() {
            waiter.kill();
            self.full.state(A).scavenge()?;
        }
        Ok(())
    }

    fn loose_is_whole(&self) -> Check {
        let Some(loose) = &self.loose else { return Ok(()) };
        {
            let snapshot = loose.read()?;
            let (head, tail) = snapshot.split_at(LOOSE_LEN.min(snapshot.len()));
            let is_all = |value| head.iter().all(|byte| *byte == value);
            let whole = is_all(LOOSE_OLD) || is_all(LOOSE_NEW);
            ensure(whole && tail.iter().all(|byte| *byte == 0), Torn, || {
                format!("neither the old value nor the new one: {head:?} and then {tail:?}")
            })?;
        }
        // It is as large as before or as wanted, and can be made so.
        loose.scavenge()?;
        loose.set_size(6_000)?;
        let len = loose.read()?.len();
        ensure(len == 6_000, Lost, || format!("{len} bytes after set_size of 6,000"))
    }

    /// The victim's own state went with it; whoever comes next begins with zeros.
    fn own_is_gone(&self) -> Check {
        let (folder, board) = (self.folder(), self.board);
        board.apart(|| {
            let domain = Domain::open(folder)?;
            match options(SLOTS).reader::<[u8]>(&domain, OWN) {
                Err(Error::NotFound { .. }) => {}
                other => {
                    let what = format!("a state without subscribers can be read: {other:?}");
                    return Err(Finding { harm: Leaked, what });
                }
            }
            let state = options(SLOTS).writer::<[u8]>(&domain, OWN)?;
            let snapshot = state.read()?;
            Contents::of(&snapshot, 0)?;
            ensure(snapshot.version() == 0, Leaked, || {
                format!("a state without subscribers has version {}", snapshot.version())
            })
        })
    }

    /// The victim's own state has what was synced, or what came after it.
    fn own_is_kept(&self) -> Check {
        let (folder, board) = (self.folder(), self.board);
        board.apart(|| {
            let synced = board.synced.load(Acquire);
            let path = kept_in(folder);
            let domain = Domain::open(folder)?;
            let kept = options(SLOTS).persistent(&path, Grade::Process);
            let state = kept.writer::<[u8]>(&domain, OWN)?;
            let version = {
                let snapshot = state.read()?;
                Contents::of(&snapshot, snapshot.version())?.version
            };
            ensure(version >= synced, Lost, || {
                format!("version {synced} was synced, and version {version} is there")
            })?;
            state.scavenge()?;
            state.replace(&Contents { version, ..Contents::default() }.next(0, 1).bytes(SIZE))?;
            state.sync()?;
            state.delete()?;
            ensure(!path.exists(), Leaked, || "a deleted state has left its file".into())
        })
    }
}

impl Scene for StateScene {
    fn work_beside(&mut self) -> Check {
        self.beside()
    }

    fn check_at_rest(&mut self) -> Check {
        self.at_rest()
    }

    fn check_after_death(&mut self) -> Check {
        self.after_death()
    }
}

fn survive(board: &Board, states: &[usize], commit: impl Fn(u64) -> Act) -> Check {
    for _ in 0..=CONFLICTS_MAX {
        match commit(board.new_author()) {
            Ok(()) => {
                board.has_made(states);
                return Ok(());
            }
            Err(refusal) if refusal.is_conflict() => {}
            Err(refusal) => return Err(refusal.into()),
        }
    }
    let what = format!("a commit of {states:?} meets conflicts, though all others stand still");
    Err(Finding { harm: Stuck, what })
}

fn look(board: &Board, actor: &Actor) -> Check {
    let all: Vec<usize> = (0..STATES).collect();
    let contents = actor.look(&all)?;
    let versions = all.into_iter().zip(contents.iter().map(|contents| contents.version));
    board.add_up(&versions.collect::<Vec<_>>())
}
