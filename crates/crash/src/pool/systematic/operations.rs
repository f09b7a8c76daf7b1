//! Everything a victim can be in the middle of.
//!
//! An operation is prepared without stop points, then run with them. What it may change is said on
//! the board before, what it has changed right after: no stop point lies between an operation's
//! last store and its acknowledgement.

use super::{
    board::{Claim, Rest, role},
    victim::{SEED_NEW, Victim},
};
use crate::pool::contents::Contents;
use mainstay_pool::{BlockId, Decision, Error, Kind, Offer, PoolBox, Restored, Uuid, handover};
use std::os::{fd::AsFd, unix::net::UnixStream};

type Outcome = Result<(), Error>;

/// One row of the table.
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    /// Whether the dead bystander has left all other slots dirty.
    pub(crate) crowd: bool,
    pub(crate) prepare: fn(&mut Victim) -> Outcome,
    pub(crate) run: fn(&mut Victim) -> Outcome,
}

const fn op(
    name: &'static str,
    prepare: fn(&mut Victim) -> Outcome,
    run: fn(&mut Victim) -> Outcome,
) -> Operation {
    Operation { name, crowd: false, prepare, run }
}

/// All of them.
pub(crate) const OPERATIONS: &[Operation] = &[
    op("allocate from magazine", Victim::with_magazine, |v| new_block(v, Kind::Recoverable)),
    op("allocate transient", Victim::with_magazine, |v| new_block(v, Kind::Transient)),
    op("allocate typed", Victim::with_magazine, new_typed),
    op("allocate with refill", Victim::join, |v| new_block(v, Kind::Recoverable)),
    op("try_allocate", Victim::join, try_allocate),
    op("allocate with growth", Victim::holding_all_there_is, |v| new_block(v, Kind::Recoverable)),
    op("allocate when full", Victim::holding_all_but_idle, |v| new_block(v, Kind::Recoverable)),
    op("reserve", Victim::with_magazine, reserve),
    op("restore", Victim::with_magazine, restore),
    op("write", Victim::holding_one, write),
    op("free last", Victim::holding_one, free),
    op("free transient", Victim::holding_transient, drop_transient),
    op("free while others hold", attach_shared, free),
    op("park", Victim::holding_one, park),
    op("park while others hold", attach_shared, park),
    op("magazine flush", Victim::with_full_magazine, free),
    op("thread exit", Victim::with_thread, Victim::end_thread),
    op("flush", Victim::with_thread, flush),
    op("attach by id", touching::<{ role::PARKED }>, attach_id::<{ role::PARKED }>),
    op("attach by number", touching::<{ role::PARKED }>, attach_number),
    op("attach by uuid", touching::<{ role::PARKED }>, attach_uuid),
    op("attach typed", touching::<{ role::TYPED }>, attach_typed),
    op("attach what others hold", Victim::join, attach_id::<{ role::SHARED }>),
    op("attach an orphan", Victim::with_orphans, attach_id::<{ role::ORPHANS[0] }>),
    op("attach by a stale id", Victim::join, attach_stale),
    op("attach by a forged id", Victim::join, attach_forged),
    op("attach again", Victim::holding_one, attach_again),
    op("clone", Victim::holding_one, clone),
    op("release of a clone", Victim::holding_clones, release_clones),
    op("free with a clone", Victim::holding_clones, free_clones),
    op("PoolBox new", Victim::with_magazine, new_box),
    op("PoolBox attach", touching::<{ role::BOXED }>, attach_box),
    op("PoolBox write", Victim::holding_box, write_box),
    op("PoolBox park", Victim::holding_box, park_box),
    op("PoolBox free", Victim::holding_box, free_box),
    op("recover, keep", recovering, |v| recover(v, Choice::Keep)),
    op("recover, free", recovering, |v| recover(v, Choice::Free)),
    op("recover, park", recovering, |v| recover(v, Choice::Park)),
    op("recover with a callback", recovering, recover_with),
    op("reap", recovering, reap),
    op("reap by two", Victim::beside_a_frozen_reaper, reap_and_wait),
    op("join", nothing, Victim::join),
    Operation {
        name: "join a dirty slot",
        crowd: true,
        prepare: nothing,
        run: |v| {
            for_orphans(v, |v, at| v.board.promise(at).set_rest(Rest::Unheld));
            v.join()
        },
    },
    op("hand-over", nothing, hand_over),
    op("close", Victim::with_full_magazine_of_nothing_held, Victim::close),
];

// ---- preparations that are no more than a line ----

fn nothing(_: &mut Victim) -> Outcome {
    Ok(())
}

fn attach_shared(v: &mut Victim) -> Outcome {
    v.join()?;
    let block = v.pool().attach(v.board.promise(role::SHARED).id())?;
    v.guards.push(block);
    v.last = role::SHARED;
    Ok(())
}

fn touching<const ROLE: usize>(v: &mut Victim) -> Outcome {
    v.board.promise(ROLE).set_rest(Rest::Unheld);
    v.join()
}

fn for_orphans(v: &Victim, each: impl Fn(&Victim, usize)) {
    role::ORPHANS.into_iter().for_each(|at| each(v, at));
}

fn recovering(v: &mut Victim) -> Outcome {
    v.join()
}

// ---- allocate ----

fn new_block(v: &mut Victim, kind: Kind) -> Outcome {
    if kind == Kind::Recoverable {
        v.may_appear([0, 0]);
    }
    let block = v.pool().allocate(kind)?;
    v.arrived(block, kind)
}

fn try_allocate(v: &mut Victim) -> Outcome {
    v.may_appear([0, 0]);
    match v.pool().try_allocate(Kind::Recoverable)? {
        Some(block) => v.arrived(block, Kind::Recoverable),
        None => {
            v.has_appeared();
            Ok(())
        }
    }
}

fn new_typed(v: &mut Victim) -> Outcome {
    v.may_appear([0, SEED_NEW]);
    let block = v.pool().allocate_typed::<Contents>(Kind::Recoverable)?;
    block.set(&Contents::of(SEED_NEW));
    v.board.add(block.id(), SEED_NEW);
    v.has_appeared();
    v.guards.push(block.into_bytes());
    Ok(())
}

fn reserve(v: &mut Victim) -> Outcome {
    v.may_appear([0, 0]);
    let id = v.pool().reserve(Uuid::from_u64_pair(1, 2))?;
    v.board.add(id, 0);
    v.has_appeared();
    Ok(())
}

fn restore(v: &mut Victim) -> Outcome {
    // Whole or not at all: not even zeros may be seen.
    v.may_appear([SEED_NEW, SEED_NEW]);
    let contents = Contents::of(SEED_NEW);
    let block = Restored {
        uuid: Uuid::from_u64_pair(3, 4),
        fingerprint: 0,
        exclusive: false,
        used_len: 100,
        data: contents.bytes(),
    };
    v.board.add(v.pool().restore(block)?, SEED_NEW);
    v.has_appeared();
    Ok(())
}

// ---- write and release ----

fn write(v: &mut Victim) -> Outcome {
    let promise = v.board.promise(v.last);
    promise.writing(SEED_NEW);
    let block = &v.guards[0];
    block.write(0, Contents::of(SEED_NEW).bytes())?;
    block.set_used_len(100)?;
    promise.written();
    Ok(())
}

fn free(v: &mut Victim) -> Outcome {
    let promise = v.board.promise(v.last);
    promise.set(Claim::May);
    let block = v.guards.pop().expect("prepared");
    block.free()?;
    promise.set(Claim::Gone);
    Ok(())
}

fn park(v: &mut Victim) -> Outcome {
    v.guards.pop().expect("prepared").park()
}

fn drop_transient(v: &mut Victim) -> Outcome {
    drop(v.guards.pop());
    Ok(())
}

fn flush(v: &mut Victim) -> Outcome {
    v.pool().flush();
    Ok(())
}

// ---- attach ----

fn attach_id<const ROLE: usize>(v: &mut Victim) -> Outcome {
    let block = v.pool().attach(v.board.promise(ROLE).id())?;
    v.guards.push(block);
    Ok(())
}

fn attach_number(v: &mut Victim) -> Outcome {
    let block = v.pool().attach_number(v.board.promise(role::PARKED).id().number)?;
    v.guards.push(block);
    Ok(())
}

fn attach_uuid(v: &mut Victim) -> Outcome {
    let number = v.board.promise(role::PARKED).id().number;
    let uuid = v.pool().block_info(number)?.uuid;
    let block = v.pool().attach_uuid(uuid)?;
    v.guards.push(block);
    Ok(())
}

fn attach_typed(v: &mut Victim) -> Outcome {
    let block = v.pool().attach_typed::<Contents>(v.board.promise(role::TYPED).id())?;
    v.guards.push(block.into_bytes());
    Ok(())
}

fn attach_stale(v: &mut Victim) -> Outcome {
    must_be_refused(v, v.board.promise(role::STALE).id())
}

/// The same tag, another generation: as if the tag had gone round.
fn attach_forged(v: &mut Victim) -> Outcome {
    let id = v.board.promise(role::REUSED).id();
    // A mistaken attacher holds the block for a moment, and a death then shows on it.
    v.board.promise(role::REUSED).set_rest(Rest::Unheld);
    must_be_refused(v, BlockId { generation: id.generation + (1 << 28), ..id })
}

fn must_be_refused(v: &mut Victim, id: BlockId) -> Outcome {
    match v.pool().attach(id) {
        Err(Error::NoSuchBlock { .. }) => Ok(()),
        Err(other) => Err(other),
        Ok(_) => {
            v.fail(&format!("attach({id}) was accepted, and names a block that is gone"));
            Ok(())
        }
    }
}

fn attach_again(v: &mut Victim) -> Outcome {
    let block = v.pool().attach(v.board.promise(v.last).id())?;
    v.guards.push(block);
    Ok(())
}

fn clone(v: &mut Victim) -> Outcome {
    let block = v.guards[0].try_clone()?;
    v.guards.push(block);
    Ok(())
}

fn release_clones(v: &mut Victim) -> Outcome {
    while let Some(block) = v.guards.pop() {
        block.park()?;
    }
    Ok(())
}

fn free_clones(v: &mut Victim) -> Outcome {
    let promise = v.board.promise(v.last);
    promise.set(Claim::May);
    v.guards.pop().expect("prepared").free()?;
    // The other guard is dropped with a wish to keep the block; the wish to free it came first.
    v.guards.clear();
    promise.set(Claim::Gone);
    Ok(())
}

// ---- boxes ----

fn new_box(v: &mut Victim) -> Outcome {
    v.may_appear([0, SEED_NEW]);
    let value = PoolBox::new(v.pool(), &Contents::of(SEED_NEW))?;
    let at = v.board.add(value.id(), SEED_NEW);
    v.board.promise(at).set_boxed();
    v.has_appeared();
    v.boxes.push(value);
    Ok(())
}

fn attach_box(v: &mut Victim) -> Outcome {
    let value = PoolBox::attach(v.pool(), v.board.promise(role::BOXED).id())?;
    v.boxes.push(value);
    Ok(())
}

fn write_box(v: &mut Victim) -> Outcome {
    let promise = v.board.promise(v.last);
    promise.writing(SEED_NEW);
    *v.boxes[0] = Contents::of(SEED_NEW);
    promise.written();
    Ok(())
}

fn park_box(v: &mut Victim) -> Outcome {
    v.boxes.clear();
    Ok(())
}

fn free_box(v: &mut Victim) -> Outcome {
    let promise = v.board.promise(v.last);
    promise.set(Claim::May);
    v.boxes.pop().expect("prepared").free()?;
    promise.set(Claim::Gone);
    Ok(())
}

// ---- recover ----

#[derive(Clone, Copy, PartialEq, Eq)]
enum Choice {
    Keep,
    Free,
    Park,
}

fn recover(v: &mut Victim, choice: Choice) -> Outcome {
    let (board, pool) = (v.board, v.pool().clone());
    let promise_of = |number: u32| {
        let mut orphans = role::ORPHANS.into_iter().map(|at| board.promise(at));
        orphans.find(|promise| promise.id().number == number)
    };
    for offered in pool.recover(Offer::Orphans)? {
        let Some(promise) = promise_of(offered.number()) else { continue };
        promise.set_rest(Rest::Unheld);
        let done = match choice {
            Choice::Keep => offered.keep().map(|block| v.guards.push(block)),
            Choice::Park => offered.park(),
            Choice::Free => {
                promise.set(Claim::May);
                match offered.free() {
                    Ok(()) => {
                        promise.set(Claim::Gone);
                        Ok(())
                    }
                    // The survivor holds it: it was not freed.
                    Err(e) => {
                        promise.set(Claim::Must);
                        Err(e)
                    }
                }
            }
        };
        match done {
            Err(Error::NoSuchBlock { .. }) => {}
            done => done?,
        }
    }
    Ok(())
}

/// The callback works on the pool meanwhile; the first orphan is kept, the second freed.
fn recover_with(v: &mut Victim) -> Outcome {
    let (board, pool) = (v.board, v.pool().clone());
    let [kept, freed] = role::ORPHANS.map(|at| board.promise(at));
    kept.set_rest(Rest::Unheld);
    freed.set_rest(Rest::Unheld);
    freed.set(Claim::May);
    let report = pool.recover_with(Offer::Orphans, |offered| {
        // What a callback does must not harm what it is called from.
        drop(pool.allocate(Kind::Transient));
        drop(pool.attach_number(offered.number()));
        match offered.number() {
            number if number == kept.id().number => Decision::Keep,
            number if number == freed.id().number => Decision::Free,
            _ => Decision::Leave,
        }
    })?;
    // Attached and parked by the callback, so no longer what was offered: gone by its own doing.
    freed.set(if report.freed == 0 { Claim::Must } else { Claim::Gone });
    v.guards.extend(report.kept);
    Ok(())
}

fn reap(v: &mut Victim) -> Outcome {
    v.pool().reap().map(drop)
}

fn reap_and_wait(v: &mut Victim) -> Outcome {
    reap(v)?;
    v.let_helper_go();
    Ok(())
}

// ---- processes ----

fn hand_over(v: &mut Victim) -> Outcome {
    let refused = "a pair of sockets of our own works";
    let (giver, taker) = UnixStream::pair().expect(refused);
    handover::send_fds(&giver, b"pool", &[v.fd.as_fd()])?;
    let mut payload = [0; 4];
    let (_, mut fds) = handover::receive_fds(&taker, &mut payload)?;
    v.join_through(fds.pop().expect("one was sent"))?;
    Ok(())
}
