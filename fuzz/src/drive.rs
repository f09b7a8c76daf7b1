//! Everything one can do with a pool, done to a file that cannot be trusted.
//!
//! D1. Whatever the file says, each call returns, with an error or without.
//! D2. A refusal to open changes nothing; a view never does.
//! D3. Blocks that are allocated are zeroed, and no two guards are of the same one.
//! D4. After a repair the check finds nothing wrong, and the pool works.
//! D5. Nothing stays open or mapped.

use crate::{
    image::Sample,
    world::{self, Holdings},
};
use arbitrary::Arbitrary;
use mainstay_pool::{
    Block, BlockId, Decision, Error, Index, Kind, Offer, Pool, PoolBox, PoolView, State, Use, Uuid,
};
use std::{collections::HashSet, fs::File, time::Duration};

/// One thing to do with a joined pool.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Step {
    /// Allocates some blocks, and keeps them.
    Allocate(u8, bool),
    /// Allocates without growing.
    TryAllocate,
    /// Allocates a typed block or a box.
    Typed(bool),
    /// Makes a block under a UUID, perhaps one that is taken.
    Reserve(bool),
    /// Attaches by number.
    Number(u32),
    /// Attaches by the id that stands in the file, perhaps as a type or a box.
    Id(u32, u8),
    /// Attaches by UUID.
    Uuid(u32),
    /// Copies a block.
    Copy(u32),
    /// One more guard of one that is held.
    Clone(u8),
    /// Writes to, reads from, notes the length of one that is held.
    Use(u8, u16, u16),
    /// Lets go of one that is held: drop, park or free.
    Leave(u8, u8),
    /// Recovers, and decides by the bits.
    Recover(bool, u8),
    /// Takes back what the dead held.
    Reap,
    /// Gives back what is at hand.
    Flush,
    /// Looks things up in an index, collects, removes.
    Index(u32, bool),
    /// Joins a second time and leaves again.
    Second,
    /// Checks.
    Verify,
}

const STEPS_MAX: usize = 32;
const HELD_MAX: usize = 200;

/// Opens the bytes as a pool in every way, and does everything with it.
pub fn everything(bytes: &[u8], steps: &[Step]) {
    let before = Holdings::now();
    {
        let file = world::memfd(bytes);
        view(&file);
        unchanged(&file, bytes, "a view");
        match Pool::join_any_fd(world::again(&file)) {
            Ok(pool) => {
                work(&pool, steps);
                end(pool, &file);
            }
            Err(error) => {
                unchanged(&file, bytes, "a refusal");
                told(&error);
            }
        }
    }
    assert_eq!(Holdings::now(), before, "D5: descriptors and mappings are given back");
}

fn unchanged(file: &File, bytes: &[u8], by: &str) {
    assert!(world::contents(file) == bytes, "D2: {by} changes nothing");
}

/// An error has words, and a pool's name in it cannot break the line.
fn told(error: &Error) {
    let text = error.to_string();
    assert!(text.len() > 20 && !text.contains('\n'), "{text:?}");
}

fn view(file: &File) {
    let view = match PoolView::open_fd(world::again(file)) {
        Ok(view) => view,
        Err(error) => return told(&error),
    };
    let info = view.info().expect("a view that opens can be looked at");
    let all: Vec<_> = view.blocks().expect("as above").collect();
    assert_eq!(all.len() as u64, info.blocks());
    let live = |state| matches!(state, State::Held | State::Parked | State::Orphan);
    for block in all.iter().take(300) {
        assert!(block.used_len <= view.block_size());
        let copy = view.copy_block(block.id.number).expect("as above");
        match copy {
            Some((copied, data)) => {
                assert_eq!((&copied, data.len()), (block, view.block_size()));
            }
            None => assert!(!live(block.state), "a live block can be copied"),
        }
    }
    assert_eq!(view.copy_block(u32::MAX).ok().flatten(), None);
    let holders = view.holders().expect("as above");
    assert!(holders.iter().all(|holder| !holder.alive), "nobody has joined");
    assert_eq!(view.verify().expect("as above").blocks, info.blocks());
    assert!(view.created() >= std::time::SystemTime::UNIX_EPOCH);
    let _ = view.wait(0, Duration::ZERO);
}

fn work(pool: &Pool, steps: &[Step]) {
    let index = Index::default();
    let mut held: Vec<Block> = Vec::new();
    for step in steps.iter().take(STEPS_MAX) {
        if let Err(error) = take(pool, &index, &mut held, *step) {
            told(&error);
        }
    }
    drop(held);
    index.detach(pool.name()).expect("not inside of a monitor");
    fill(pool);
}

fn take(
    pool: &Pool,
    index: &Index,
    held: &mut Vec<Block>,
    step: Step,
) -> mainstay_pool::Result<()> {
    let blocks = pool.blocks()?.size_hint().0;
    // Mostly a block that is there, sometimes one past the end, sometimes far away.
    let number = |raw: u32| if raw.is_multiple_of(16) { raw } else { raw % (blocks as u32 + 1) };
    let kind = |transient| if transient { Kind::Transient } else { Kind::Recoverable };
    let pick = |held: &[Block], raw: u8| (!held.is_empty()).then(|| usize::from(raw) % held.len());
    held.truncate(HELD_MAX);
    match step {
        Step::Allocate(count, transient) => {
            for _ in 0..count % 40 {
                held.push(pool.allocate(kind(transient))?);
            }
        }
        Step::TryAllocate => held.extend(pool.try_allocate(Kind::Recoverable)?),
        Step::Typed(false) => {
            let typed = pool.allocate_typed::<Sample>(Kind::Recoverable)?;
            typed.set(&Sample { first: 5, second: 6 });
            assert_eq!(typed.get().second, 6);
            held.push(typed.into_bytes());
        }
        Step::Typed(true) => {
            let sample = Sample { first: 7, second: 8 };
            let mut boxed = PoolBox::new(pool, &sample)?;
            boxed.first += 1;
            assert_eq!(boxed.into_inner()?, Sample { first: 8, second: 8 });
        }
        Step::Reserve(taken) => {
            let uuid = if taken { Uuid::from_u128(7) } else { Uuid::from_u128(8) };
            pool.reserve(uuid)?;
        }
        Step::Number(raw) => held.push(pool.attach_number(number(raw))?),
        Step::Id(raw, how) => {
            let id = match pool.block_info(number(raw)) {
                Ok(info) => info.id,
                Err(_) => BlockId { number: raw, generation: raw.into() },
            };
            match how % 3 {
                0 => held.push(pool.attach(id)?),
                1 => held.push(pool.attach_typed::<Sample>(id)?.into_bytes()),
                _ => {
                    let mut boxed = PoolBox::<Sample>::attach(pool, id)?;
                    boxed.second ^= 1;
                    assert!(PoolBox::<Sample>::attach(pool, id).is_err(), "it has a holder");
                }
            }
        }
        Step::Uuid(raw) => {
            let uuid = pool.block_info(number(raw))?.uuid;
            let block = pool.attach_uuid(uuid)?;
            assert_eq!(block.uuid(), uuid);
            held.push(block);
        }
        Step::Copy(raw) => {
            pool.copy_block(number(raw))?;
        }
        Step::Clone(raw) => {
            if let Some(at) = pick(held, raw) {
                held.push(held[at].try_clone()?);
            }
        }
        Step::Use(raw, offset, len) => {
            if let Some(at) = pick(held, raw) {
                use_block(&held[at], offset.into(), len.into());
            }
        }
        Step::Leave(raw, how) => {
            if let Some(at) = pick(held, raw) {
                let block = held.swap_remove(at);
                match how % 3 {
                    0 => drop(block),
                    1 => block.park()?,
                    _ => block.free()?,
                }
            }
        }
        Step::Recover(orphans, decisions) => {
            let offer = if orphans { Offer::Orphans } else { Offer::Unheld };
            let mut turn = u32::from(decisions);
            let report = pool.recover_with(offer, |offered| {
                turn = turn.rotate_left(3) ^ offered.number();
                assert_eq!(offered.to_vec().len(), pool.block_size());
                match turn % 4 {
                    0 if !offered.is_box() => Decision::Keep,
                    1 => Decision::Free,
                    2 => Decision::Park,
                    _ => Decision::Leave,
                }
            })?;
            held.extend(report.kept);
        }
        Step::Reap => {
            pool.reap()?;
        }
        Step::Flush => pool.flush(),
        Step::Index(raw, remove) => {
            let found = match index.pool(pool.name()) {
                Some(found) => found,
                None => index.attach(pool)?,
            };
            found.refresh()?;
            let info = pool.block_info(number(raw))?;
            if let Some(id) = found.find(info.uuid) {
                assert_eq!(pool.block_info(id.number)?.uuid, info.uuid);
            }
            found.collect(Use::Any, Duration::ZERO)?;
            if remove {
                found.remove_unused(Duration::ZERO)?;
            }
        }
        Step::Second => {
            let second = pool.as_fd().try_clone_to_owned().expect("descriptors are left");
            let second = Pool::join_any_fd(second)?;
            let block = second.allocate(Kind::Recoverable)?;
            assert!(held.iter().all(|other| other.number() != block.number()), "D3");
            second.reap()?;
            drop(block);
            second.close()?;
        }
        Step::Verify => {
            pool.verify()?;
            pool.holders()?;
        }
    }
    Ok(())
}

fn use_block(block: &Block, offset: usize, len: usize) {
    let inside = offset + len <= block.len();
    let source: Vec<u8> = (0..len).map(|i| i as u8).collect();
    let mut target = vec![0; len];
    assert_eq!(block.write(offset, &source).is_ok(), inside);
    assert_eq!(block.read(offset, &mut target).is_ok(), inside);
    assert!(!inside || source == target);
    assert_eq!(block.set_used_len(len).is_ok(), len <= block.len());
    assert_eq!(block.to_vec().expect("not forked").len(), block.used_len());
    assert_eq!(block.as_atomics().len(), block.len());
}

/// Allocates until the pool is full, or a good many.
fn fill(pool: &Pool) {
    let mut numbers = HashSet::new();
    let mut held = Vec::new();
    while held.len() < 2 * HELD_MAX {
        match pool.allocate(Kind::Transient) {
            Ok(block) => {
                assert!(numbers.insert(block.number()), "D3: block {} twice", block.number());
                let data = block.to_vec().expect("not forked");
                assert!(data.iter().all(|byte| *byte == 0), "D3: zeroed");
                held.push(block);
            }
            Err(error) => return told(&error),
        }
    }
}

fn end(mut pool: Pool, file: &File) {
    match pool.repair() {
        Ok(_) => {
            let report = pool.verify().expect("a repaired pool can be checked");
            assert!(report.is_sound(), "D4: {report:?}");
            assert_eq!((report.of_the_dead, report.hidden), (0, 0), "D4: {report:?}");
            fill(&pool);
        }
        Err(error) => told(&error),
    }
    if let Err(error) = pool.close() {
        panic!("nothing is held: {error}");
    }
    // Whatever was in it, it can be joined again, and nobody is in it.
    let again = PoolView::open_fd(world::again(file)).expect("it was a pool, and is one");
    assert!(again.holders().expect("it can be looked at").iter().all(|holder| !holder.alive));
}
