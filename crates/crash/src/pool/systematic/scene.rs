//! The survivor: sets the scene, works beside a frozen victim, and looks at everything when the
//! victim is dead.

use super::{
    board::{Board, Claim, NO_SLOT, Promise, Rest, role},
    victim::options,
};
use crate::{
    cases::Scene,
    child::{self, Child, News},
    finding::{Check, Finding, ensure},
    pool::{
        audit,
        contents::{BLOCK_SIZE, Contents},
    },
    verdict::Harm::{Leaked, Lost, Stuck, Torn},
};
use mainstay_pool::{Block, Error, Kind, LEASE_SLOTS, Pool, PoolBox, State};
use std::{collections::HashSet, os::fd::OwnedFd, sync::atomic::Ordering::Relaxed};

/// Seeds of the scene's own blocks start here.
const SEED_SCENE: u64 = 1;
/// And of the blocks that the survivor allocates beside a frozen victim.
const SEED_BESIDE: u64 = 1_000;

pub(crate) struct PoolScene<'a> {
    board: &'a Board,
    pool: Pool,
    /// The guard of `role::SHARED`.
    shared: Option<Block>,
    /// Guards of blocks that others have, taken beside the frozen victim.
    visits: Vec<Visit>,
    /// Blocks allocated beside the frozen victim, with their seeds.
    beside: Vec<(Block, u64)>,
}

struct Visit {
    at: usize,
    guard: Guard,
}

enum Guard {
    Plain(Block),
    Boxed(PoolBox<Contents>),
}

impl<'a> PoolScene<'a> {
    /// A pool with dirty free blocks, blocks in every state, and a dead process in it.
    pub(crate) fn set(board: &'a Board, crowd: bool) -> Check<Self> {
        let pool = options().create_memfd()?;
        make_dirty(&pool)?;
        let new = |at: usize, rest| -> Check<Block> {
            let block = pool.allocate(Kind::Recoverable)?;
            let seed = SEED_SCENE + at as u64;
            block.write(0, Contents::of(seed).bytes())?;
            board.promise(at).fill(block.id(), seed, rest);
            Ok(block)
        };
        let shared = new(role::SHARED, Rest::HeldBySurvivor)?;
        new(role::PARKED, Rest::Parked)?.park()?;
        new(role::SPARE, Rest::Parked)?.park()?;
        let value = PoolBox::new(&pool, &Contents::of(SEED_SCENE + role::BOXED as u64))?;
        let boxed = board.promise(role::BOXED);
        boxed.fill(value.id(), SEED_SCENE + role::BOXED as u64, Rest::Parked);
        boxed.set_boxed();
        drop(value);
        let typed = pool.allocate_typed::<Contents>(Kind::Recoverable)?;
        let seed = SEED_SCENE + role::TYPED as u64;
        typed.set(&Contents::of(seed));
        board.promise(role::TYPED).fill(typed.id(), seed, Rest::Parked);
        drop(typed);
        new(role::STALE, Rest::Parked)?.free()?;
        board.promise(role::STALE).set(Claim::Gone);
        let reused = new(role::REUSED, Rest::Parked)?;
        ensure(reused.number() == board.promise(role::STALE).id().number, Stuck, || {
            "the scene needs a magazine that gives back what it got last".into()
        })?;
        reused.park()?;
        pool.flush();
        let mut scene =
            Self { board, pool, shared: Some(shared), visits: Vec::new(), beside: Vec::new() };
        scene.let_a_bystander_die(crowd)?;
        Ok(scene)
    }

    pub(crate) fn fd(&self) -> OwnedFd {
        self.pool.as_fd().try_clone_to_owned().expect("a descriptor is left")
    }

    /// A process that holds blocks of both kinds and keeps others at hand dies, and nobody has
    /// noticed yet. In a crowd, every other slot is left dirty as well.
    fn let_a_bystander_die(&mut self, crowd: bool) -> Check {
        let (board, fd) = (self.board, self.fd());
        let mut bystander = Child::fork(move || {
            let work = || -> Result<Vec<Pool>, Error> {
                let joins = if crowd { LEASE_SLOTS - 1 } else { 1 };
                let join = |_| {
                    let fd = fd.try_clone().expect("a descriptor is left");
                    options().seed(9).join_fd(fd)
                };
                let pools: Vec<Pool> = (0..joins).map(join).collect::<Result<_, _>>()?;
                for at in role::ORPHANS {
                    let block = pools[0].allocate(Kind::Recoverable)?;
                    let seed = SEED_SCENE + at as u64;
                    block.write(0, Contents::of(seed).bytes())?;
                    board.promise(at).fill(block.id(), seed, Rest::Orphan);
                    std::mem::forget(block);
                }
                std::mem::forget(pools[0].allocate(Kind::Transient)?);
                Ok(pools)
            };
            match work() {
                Ok(_pools) => child::kill_myself(),
                Err(e) => {
                    eprintln!("a bystander was refused: {e}");
                    1
                }
            }
        });
        let news = bystander.wait();
        ensure(matches!(news, News::Killed(_)), Stuck, || format!("the bystander: {news:?}"))
    }
}

impl Scene for PoolScene<'_> {
    /// All that a survivor does, while the victim stands between two stores.
    fn work_beside(&mut self) -> Check {
        self.visit_all()?;
        self.victim_is_not_reaped()?;
        self.fill_up()?;
        // Half of it goes back, so that the victim finds something.
        let half = self.beside.len() / 2;
        for (block, _) in self.beside.drain(..half) {
            block.free()?;
        }
        let stale = self.pool.attach(self.board.promise(role::STALE).id());
        ensure(matches!(stale, Err(Error::NoSuchBlock { .. })), Torn, || {
            "a freed block could be attached beside the frozen victim".into()
        })?;
        self.pool.flush();
        let newcomer = options().seed(10).join_fd(self.fd())?;
        match newcomer.allocate(Kind::Transient) {
            Ok(block) => block.free()?,
            // The victim has them all, and is alive.
            Err(Error::Full { .. }) if newcomer.info()?.counts.free == 0 => {}
            Err(e) => return Err(e.into()),
        }
        Ok(newcomer.close()?)
    }

    /// Nobody has died since the last reap: so everything must be right without one.
    fn check_at_rest(&mut self) -> Check {
        self.pool.flush();
        let slot = self.board.victim_slot.load(Relaxed);
        ensure(slot != self.pool.slot(), Torn, || {
            format!("two living processes have slot {slot}")
        })?;
        let report = self.pool.verify()?;
        audit::sound(&report)?;
        ensure(report.hidden == 0, Leaked, || {
            format!("{} free blocks are hidden between the living", report.hidden)
        })?;
        let cached = self.pool.info()?.counts.cached;
        ensure(cached == 0, Leaked, || {
            format!("{cached} free blocks are still kept at hand, though all have flushed")
        })?;
        self.visits.iter().try_for_each(|visit| self.looks_right(visit))?;
        // A newcomer sees them too: growth that a survivor has used is never undone.
        let newcomer = options().seed(12).join_fd(self.fd())?;
        for (block, seed) in self.beside.drain(..) {
            ensure(read(&block)? == Contents::of(seed), Torn, || {
                format!("block {} was overwritten under its holder", block.number())
            })?;
            ensure(newcomer.copy_block(block.number())?.is_some(), Lost, || {
                format!("block {}, which is held, is not there for a newcomer", block.number())
            })?;
            block.free()?;
        }
        newcomer.close()?;
        self.visits.clear();
        self.pool.flush();
        Ok(())
    }

    fn check_after_death(&mut self) -> Check {
        self.visits.clear();
        self.beside.clear();
        self.pool.reap()?;
        if let Some(block) = self.shared.take() {
            let promise = self.board.promise(role::SHARED);
            self.is_held_by_me(promise)?;
            let owners = self.pool.block_info(block.number())?.owners;
            ensure(owners == 1 << self.pool.slot(), Leaked, || {
                format!("{} has owners {owners:#x}, and only the survivor lives", promise.id())
            })?;
            ensure(promise.has(&read(&block)?), Torn, || "the shared block changed".into())?;
            block.park()?;
            promise.set_rest(Rest::Parked);
        }
        self.pool.flush();
        let newcomer = options().seed(11).join_fd(self.fd())?;
        self.check_promises(&newcomer)?;
        audit::drain(&newcomer)?;
        newcomer.close()?;
        Ok(())
    }
}

impl PoolScene<'_> {
    // ---- beside a frozen victim ----

    /// Takes a guard of every block that others have, and looks at its contents.
    fn visit_all(&mut self) -> Check {
        for (at, promise) in self.board.promises() {
            let guard = if promise.is_boxed() {
                PoolBox::attach(&self.pool, promise.id()).map(Guard::Boxed)
            } else {
                self.pool.attach(promise.id()).map(Guard::Plain)
            };
            match guard {
                Ok(guard) => {
                    ensure(promise.claim() != Claim::Gone, Torn, || {
                        format!("{}, which was freed, could be attached", promise.id())
                    })?;
                    let visit = Visit { at, guard };
                    self.looks_right(&visit)?;
                    self.visits.push(visit);
                }
                Err(Error::Exclusive { .. }) if promise.is_boxed() => {}
                Err(Error::NoSuchBlock { .. }) if promise.claim() != Claim::Must => {}
                Err(e) => {
                    let what = format!("{} cannot be attached beside: {e}", promise.id());
                    return Err(Finding { harm: Lost, what });
                }
            }
            if promise.rest() == Rest::Orphan {
                promise.set_rest(Rest::Unheld);
            }
        }
        Ok(())
    }

    fn looks_right(&self, visit: &Visit) -> Check {
        let promise = self.board.promise(visit.at);
        let contents = match &visit.guard {
            Guard::Plain(block) => read(block)?,
            Guard::Boxed(value) => **value,
        };
        ensure(promise.has(&contents), Torn, || {
            format!("contents of {}: {}", promise.id(), contents.describe())
        })?;
        self.is_held_by_me(promise)
    }

    fn is_held_by_me(&self, promise: &Promise) -> Check {
        let info = self.pool.block_info(promise.id().number)?;
        let held = info.owners & 1 << self.pool.slot() != 0 && info.state == State::Held;
        ensure(held, Lost, || {
            format!("the survivor's hold of {} is gone: {:?}", promise.id(), info.state)
        })
    }

    fn victim_is_not_reaped(&self) -> Check {
        let slot = self.board.victim_slot.load(Relaxed);
        let owned = |pool: &Pool| -> Check<Vec<u32>> {
            Ok(pool.blocks()?.filter(|b| b.owners & bit(slot) != 0).map(|b| b.id.number).collect())
        };
        ensure(slot == NO_SLOT || slot != self.pool.slot(), Torn, || {
            format!("two living processes have slot {slot}")
        })?;
        let before = owned(&self.pool)?;
        self.pool.reap()?;
        let after = owned(&self.pool)?;
        ensure(before == after, Lost, || {
            let lost = before.len() - after.len();
            format!("{lost} blocks were taken from the frozen victim, which is alive")
        })
    }

    /// Allocates until the pool is full; on the way it grows as often as it can.
    fn fill_up(&mut self) -> Check {
        let mut taken: HashSet<u32> = self.beside.iter().map(|(b, _)| b.number()).collect();
        taken.extend(
            self.board
                .promises()
                .filter(|(_, p)| p.claim() == Claim::Must)
                .map(|(_, p)| p.id().number),
        );
        for seed in SEED_BESIDE.. {
            let kind = if seed % 2 == 0 { Kind::Recoverable } else { Kind::Transient };
            let block = match self.pool.allocate(kind) {
                Ok(block) => block,
                Err(Error::Full { .. }) => break,
                Err(e) => return Err(e.into()),
            };
            ensure(taken.insert(block.number()), Torn, || {
                format!("block {} was handed out twice", block.number())
            })?;
            let contents = read(&block)?;
            ensure(contents == Contents::of(0), Torn, || {
                format!("new block {} is not zeroed: {}", block.number(), contents.describe())
            })?;
            block.write(0, Contents::of(seed).bytes())?;
            self.beside.push((block, seed));
        }
        Ok(())
    }

    // ---- the victim is dead ----

    fn check_promises(&self, pool: &Pool) -> Check {
        audit::clean_after_reap(pool)?;
        let mut live = audit::live_blocks(pool)?;
        for (_, promise) in self.board.promises() {
            let id = promise.id();
            // The table of blocks is by id, so another life of the same number is another block.
            let Some(state) = live.remove(&id) else {
                ensure(promise.claim() != Claim::Must, Lost, || format!("{id} is not there"))?;
                continue;
            };
            ensure(promise.claim() != Claim::Gone, Leaked, || {
                format!("{id} was freed, and lives")
            })?;
            let fits = match promise.rest() {
                Rest::Unheld => matches!(state, State::Parked | State::Orphan),
                Rest::Parked => state == State::Parked,
                Rest::Orphan => state == State::Orphan,
                Rest::HeldBySurvivor => state == State::Held,
            };
            ensure(fits, Leaked, || {
                format!("{id} should be {:?} and is {state:?}", promise.rest())
            })?;
            let contents = audit::contents(pool, id.number)?;
            ensure(promise.has(&contents), Torn, || {
                format!("contents of {id}: {}", contents.describe())
            })?;
        }
        let allowed = self.board.may_appear.load(Relaxed) as usize;
        ensure(live.len() <= allowed, Leaked, || {
            format!("{} blocks live that nobody knows of: {live:?}", live.len() - allowed)
        })?;
        for (id, state) in live {
            let contents = audit::contents(pool, id.number)?;
            let [old, new] = &self.board.appear_seeds;
            ensure(contents.is_mix_of(old.load(Relaxed), new.load(Relaxed)), Torn, || {
                format!("{id} appeared before it was complete: {}", contents.describe())
            })?;
            ensure(state != State::Held, Leaked, || format!("{id} is held by nobody known"))?;
        }
        Ok(())
    }
}

/// Leaves something in the data of free blocks, so that one that is not zeroed shows.
fn make_dirty(pool: &Pool) -> Check {
    let blocks: Vec<Block> =
        (0..128).map(|_| pool.allocate(Kind::Transient)).collect::<Result<_, _>>()?;
    for block in &blocks {
        block.write(0, &[0xD1; BLOCK_SIZE])?;
    }
    drop(blocks);
    pool.flush();
    Ok(())
}

fn read(block: &Block) -> Check<Contents> {
    let mut bytes = [0; BLOCK_SIZE];
    block.read(0, &mut bytes)?;
    Ok(Contents::from_bytes(&bytes))
}

fn bit(slot: u32) -> u32 {
    1_u32.checked_shl(slot).unwrap_or(0)
}
