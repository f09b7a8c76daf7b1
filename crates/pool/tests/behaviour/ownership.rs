//! P3: who holds a block is one set in one word, and one compare-and-swap decides.

use crate::{assert_sound, in_threads, options, state, worker::Mark};
use mainstay_pool::{BlockId, Error, Kind, Pool, PoolBox, Record, State, Uuid};
use std::sync::{
    Barrier,
    atomic::{AtomicU64, Ordering::Relaxed},
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Two slots of one pool: what two processes have, in one.
fn two() -> (Pool, Pool) {
    let first = options(64).create_memfd().unwrap();
    let second = Pool::join_any_fd(first.as_fd().try_clone_to_owned().unwrap()).unwrap();
    assert_ne!(first.slot(), second.slot());
    (first, second)
}

fn is_gone<T: std::fmt::Debug>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::NoSuchBlock { .. }))
}

#[test]
fn p3_of_an_attach_and_a_free_that_race_exactly_one_wins() {
    let (ours, theirs) = two();
    let start = Barrier::new(2);
    let offered = AtomicU64::new(0);
    let (mut won, mut lost) = (0, 0);
    std::thread::scope(|scope| {
        let attacher = scope.spawn(|| {
            let mut results = Vec::new();
            for _ in 0..3_000 {
                start.wait();
                let number = offered.load(Relaxed) as u32;
                let generation = offered.load(Relaxed) >> 32;
                let attached = theirs.attach(BlockId { number, generation });
                if let Ok(block) = &attached {
                    let mut value = [0; 8];
                    block.read(0, &mut value).unwrap();
                    assert_eq!(u64::from_le_bytes(value), generation, "P3: another life");
                }
                results.push(attached.is_ok());
                drop(attached);
                start.wait();
            }
            results
        });
        for _ in 0..3_000 {
            let block = ours.allocate(Kind::Recoverable).unwrap();
            let id = block.id();
            block.write(0, &id.generation.to_le_bytes()).unwrap();
            offered.store(id.generation << 32 | u64::from(id.number), Relaxed);
            start.wait();
            block.free().unwrap();
            start.wait();
            // Whoever won, the free has happened by now: nobody holds it and nobody finds it.
            assert!(is_gone(ours.attach(id)));
        }
        for attached in attacher.join().unwrap() {
            if attached { won += 1 } else { lost += 1 }
        }
    });
    assert_eq!(won + lost, 3_000);
    ours.flush();
    theirs.flush();
    assert_sound(&ours);
    let counts = ours.info().unwrap().counts;
    assert_eq!(counts.free, ours.info().unwrap().blocks(), "{counts:?}");
}

#[test]
fn p3_a_block_freed_while_others_hold_it_goes_when_the_last_one_leaves() {
    let (ours, theirs) = two();
    let block = ours.allocate(Kind::Recoverable).unwrap();
    let id = block.id();
    let other = theirs.attach(id).unwrap();
    block.free().unwrap();
    let info = theirs.block_info(id.number).unwrap();
    assert!(info.doomed && info.state == State::Held);
    assert!(is_gone(ours.attach(id)), "a doomed block gets no new holder");
    assert!(is_gone(theirs.attach_number(id.number)), "also not where it is held already");
    other.write(0, b"still mine").unwrap();
    other.park().unwrap();
    assert_eq!(state(&ours, id.number), State::Cached, "the park became the free asked for");
    assert!(is_gone(ours.attach(id)));
}

#[test]
fn p3_a_free_by_one_of_two_guards_of_a_process_waits_for_the_other() {
    let pool = options(64).create_memfd().unwrap();
    let first = pool.allocate(Kind::Recoverable).unwrap();
    let second = first.try_clone().unwrap();
    let number = first.number();
    first.free().unwrap();
    assert!(pool.block_info(number).unwrap().doomed);
    drop(second);
    assert_eq!(state(&pool, number), State::Cached);
}

#[test]
fn p3_a_stale_id_is_refused_by_its_tag_and_by_its_generation() {
    let pool = options(64).max_blocks(1).create_memfd().unwrap();
    let first = pool.allocate(Kind::Recoverable).unwrap();
    let old = first.id();
    first.free().unwrap();
    let second = pool.allocate(Kind::Recoverable).unwrap();
    let new = second.id();
    assert_eq!((new.number, new.generation), (old.number, old.generation + 1));
    assert!(is_gone(pool.attach(old)), "the tag differs");
    // 2^27 frees later the tag is the same again: then the generation tells.
    let same_tag = BlockId { number: new.number, generation: new.generation + (1 << 27) };
    assert!(is_gone(pool.attach(same_tag)), "the generation differs");
    drop(second);
    assert!(is_gone(pool.attach(same_tag)));
    assert_eq!(state(&pool, new.number), State::Parked, "and the mistake left no trace");
    assert_eq!(pool.attach(new).unwrap().id(), new);
}

#[test]
fn p3_a_number_that_does_not_exist_is_refused() {
    let pool = options(64).create_memfd().unwrap();
    let block = pool.allocate(Kind::Transient).unwrap();
    let blocks = pool.info().unwrap().blocks();
    for number in [blocks as u32, u32::MAX] {
        assert!(is_gone(pool.attach_number(number)));
        assert!(is_gone(pool.attach(BlockId { number, generation: 0 })));
        assert!(is_gone(pool.block_info(number)));
        assert_eq!(pool.copy_block(number).unwrap(), None);
    }
    assert_eq!(pool.attach_number(block.number()).unwrap().id(), block.id());
}

#[test]
fn p3_a_block_is_attached_by_its_uuid_as_long_as_it_lives() {
    let (ours, theirs) = two();
    let block = ours.allocate(Kind::Recoverable).unwrap();
    let (id, uuid) = (block.id(), block.uuid());
    assert_eq!(theirs.attach_uuid(uuid).unwrap().id(), id);
    drop(block);
    assert_eq!(theirs.attach_uuid(uuid).unwrap().id(), id, "also when it is parked");
    theirs.attach(id).unwrap().free().unwrap();
    assert!(is_gone(theirs.attach_uuid(uuid)));
    assert!(is_gone(ours.attach_uuid(Uuid::from_u128(1))));
}

#[test]
fn p3_a_block_reserved_under_a_uuid_is_found_by_it() {
    let (ours, theirs) = two();
    let uuid = Uuid::from_u128(0xABCD);
    let id = ours.reserve(uuid).unwrap();
    assert_eq!(state(&ours, id.number), State::Parked);
    let block = theirs.attach_uuid(uuid).unwrap();
    assert_eq!((block.id(), block.uuid(), block.kind()), (id, uuid, Kind::Recoverable));
}

#[test]
fn p3_a_transient_block_lives_until_its_last_guard_in_any_process() {
    let (ours, theirs) = two();
    let block = ours.allocate(Kind::Transient).unwrap();
    let id = block.id();
    let guards: Vec<_> = (0..10)
        .map(|round| if round % 2 == 0 { block.try_clone() } else { theirs.attach(id) }.unwrap())
        .collect();
    drop(block);
    for guard in guards {
        assert_eq!(state(&ours, id.number), State::Held);
        drop(guard);
    }
    assert!(is_gone(ours.attach(id)), "the last one freed it");
    assert_eq!(ours.info().unwrap().counts.held, 0);
}

#[test]
fn p3_every_clone_counts_once() {
    let pool = options(64).create_memfd().unwrap();
    let block = pool.allocate(Kind::Recoverable).unwrap();
    let number = block.number();
    let mut guards = vec![block];
    for round in 0..50 {
        let clone = guards[round / 2].try_clone().unwrap();
        assert_eq!((clone.id(), clone.kind()), (guards[0].id(), Kind::Recoverable));
        guards.push(clone);
        guards.push(pool.attach_number(number).unwrap());
    }
    while guards.len() > 1 {
        guards.swap_remove(guards.len() / 2);
        assert_eq!(state(&pool, number), State::Held);
    }
    drop(guards);
    assert_eq!(state(&pool, number), State::Parked);
    assert_eq!(pool.close().map_err(|e| e.to_string()), Ok(()), "all guards are accounted for");
}

#[test]
fn p3_a_box_has_one_holder_in_all_processes() {
    let (ours, theirs) = two();
    let mut value = PoolBox::new(&ours, &Mark::of(7)).unwrap();
    let id = value.id();
    value.number = 8;
    for pool in [&ours, &theirs] {
        let held = PoolBox::<Mark>::attach(pool, id);
        assert!(matches!(held, Err(Error::Exclusive { .. })), "{held:?}");
        assert!(matches!(pool.attach(id), Err(Error::Exclusive { .. })), "also not as bytes");
    }
    drop(value);
    assert!(matches!(theirs.attach(id), Err(Error::Exclusive { .. })), "also not when parked");
    assert_eq!(PoolBox::<Mark>::attach(&theirs, id).unwrap().number, 8);
    let shared = ours.allocate_typed::<Mark>(Kind::Recoverable).unwrap();
    let as_box = PoolBox::<Mark>::attach(&ours, shared.id());
    assert!(matches!(as_box, Err(Error::Exclusive { .. })), "a shared block is no box");
    let value = PoolBox::<Mark>::attach(&theirs, id).unwrap().into_inner().unwrap();
    assert_eq!(value.number, 8);
    assert!(is_gone(PoolBox::<Mark>::attach(&ours, id)), "taking the value out frees it");
}

#[test]
fn p3_of_many_threads_that_want_one_box_one_gets_it_at_a_time() {
    let (ours, theirs) = two();
    let id = PoolBox::new(&ours, &Mark { number: 0, inverse: 0 }).unwrap().id();
    let rounds: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let pool = if thread % 2 == 0 { &ours } else { &theirs };
                scope.spawn(move || {
                    let mut done = 0;
                    for _ in 0..2_000 {
                        if let Ok(mut value) = PoolBox::<Mark>::attach(pool, id) {
                            // Plain reads and writes: a second holder would lose some.
                            assert_eq!(value.number, value.inverse);
                            value.number += 1;
                            value.inverse += 1;
                            done += 1;
                        }
                    }
                    done
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!(rounds > 0);
    assert_eq!(PoolBox::<Mark>::attach(&ours, id).unwrap().number, rounds);
}

#[test]
fn p3_a_hundred_threads_attach_clone_and_release_and_nothing_is_left_over() {
    let (ours, theirs) = two();
    let make = || (0..20).map(|_| ours.allocate(Kind::Recoverable).unwrap().id()).collect();
    let ids: Vec<BlockId> = std::thread::scope(|scope| scope.spawn(make).join().unwrap());
    in_threads(100, |thread| {
        let pool = if thread % 2 == 0 { &ours } else { &theirs };
        for round in 0..100 {
            let block = pool.attach(ids[(thread + round) % ids.len()]).unwrap();
            let clone = block.try_clone().unwrap();
            drop(block);
            assert_eq!(clone.id(), ids[(thread + round) % ids.len()]);
            assert!(pool.allocate(Kind::Transient).unwrap().to_vec().unwrap() == [0; 64]);
        }
    });
    for id in ids {
        assert_eq!(state(&ours, id.number), State::Parked);
    }
    let (ours_info, blocks) = (ours.info().unwrap(), ours.info().unwrap().blocks());
    assert_eq!(ours_info.counts.held, 0);
    assert_eq!(ours_info.counts.free + 20, blocks, "every thread gave its magazine back");
    assert_sound(&ours);
    theirs.close().unwrap();
    ours.close().unwrap();
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Other {
    value: [u64; 2],
}
impl Record for Other {
    const NAME: &'static str = "test.other/1";
}

#[test]
fn a_block_of_one_type_is_not_attached_as_another() {
    let pool = options(64).create_memfd().unwrap();
    let typed = pool.allocate_typed::<Mark>(Kind::Recoverable).unwrap();
    typed.set(&Mark::of(3));
    let id = typed.id();
    assert!(matches!(pool.attach_typed::<Other>(id), Err(Error::WrongType { .. })));
    assert_eq!(pool.attach_typed::<Mark>(id).unwrap().get(), Mark::of(3));
    drop(typed);
    assert_eq!(state(&pool, id.number), State::Parked, "a refusal takes no reference");
    let untyped = pool.allocate(Kind::Recoverable).unwrap();
    assert!(matches!(untyped.typed::<Mark>(), Err(Error::WrongType { .. })));
}
