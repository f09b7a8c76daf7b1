//! X1 to X4: what is found is right, what is stale is a miss, and the index is bounded.

use crate::{OnDisk, options, worker::Worker};
use mainstay_pool::{Block, Error, Index, Kind, Offer, Pool, Use, Uuid};
use std::time::Duration;

#[test]
fn x1_blocks_are_found_by_uuid_as_long_as_they_live() {
    let pool = options(64).create_memfd().unwrap();
    let early = pool.allocate(Kind::Recoverable).unwrap();
    let index = Index::default();
    let indexed = index.attach(&pool).unwrap();
    assert_eq!(indexed.find(early.uuid()), Some(early.id()), "what was there is known");
    let blocks: Vec<Block> =
        (0..5_000).map(|_| pool.allocate(Kind::Recoverable).unwrap()).collect();
    for block in &blocks {
        assert_eq!(indexed.find(block.uuid()), Some(block.id()));
    }
    let uuids: Vec<Uuid> = blocks.iter().map(Block::uuid).collect();
    let (parked, freed) = uuids.split_at(2_500);
    for (place, block) in blocks.into_iter().enumerate() {
        if place < 2_500 { drop(block) } else { block.free().unwrap() }
    }
    assert!(parked.iter().all(|uuid| indexed.find(*uuid).is_some()), "parked is alive");
    assert!(freed.iter().all(|uuid| indexed.find(*uuid).is_none()));
    assert_eq!(indexed.find(Uuid::from_u128(3)), None);
    assert_eq!(indexed.len(), 0, "a block that was allocated needs no entry");
}

#[test]
fn x1_blocks_under_a_uuid_of_the_callers_choice_are_found_as_long_as_they_live() {
    let pool = options(64).create_memfd().unwrap();
    let index = Index::default();
    let indexed = index.attach(&pool).unwrap();
    let uuid = |n: u128| Uuid::from_u128(0x0123_4567_89AB_4DEF_8123_0000_0000_0000 + (n << 20));
    let ids: Vec<_> = (0..3_000).map(|n| pool.reserve(uuid(n)).unwrap()).collect();
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(indexed.find(uuid(n as u128)), Some(*id));
        assert_eq!(pool.attach_uuid(uuid(n as u128)).unwrap().id(), *id);
    }
    ids[1_000..].iter().for_each(|id| pool.attach(*id).unwrap().free().unwrap());
    assert!((0..1_000).all(|n| indexed.find(uuid(n)).is_some()));
    assert!((1_000..3_000).all(|n| indexed.find(uuid(n)).is_none()));
    assert_eq!(indexed.len(), 1_000);
}

#[test]
fn no_two_blocks_ever_have_one_uuid() {
    let pool = options(64).create_memfd().unwrap();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..20_000 {
        let block = pool.allocate(Kind::Recoverable).unwrap();
        assert_eq!(block.uuid().get_version_num(), 8);
        assert_eq!(block.uuid().get_variant().to_string(), "RFC4122");
        assert!(seen.insert(block.uuid()));
        block.free().unwrap();
    }
    std::thread::scope(|scope| {
        let of_thread = || {
            (0..1_000).map(|_| pool.allocate(Kind::Transient).unwrap().uuid()).collect::<Vec<_>>()
        };
        let threads = [scope.spawn(of_thread), scope.spawn(of_thread)];
        for uuids in threads.map(|thread| thread.join().unwrap()) {
            assert!(uuids.into_iter().all(|uuid| seen.insert(uuid)));
        }
    });
}

#[test]
fn x1_an_entry_that_another_process_made_stale_is_a_miss() {
    let pool = options(64).max_blocks(64).create_memfd().unwrap();
    let other = Pool::join_any_fd(pool.as_fd().try_clone_to_owned().unwrap()).unwrap();
    let index = Index::default();
    let indexed = index.attach(&pool).unwrap();
    let block = pool.allocate(Kind::Recoverable).unwrap();
    let (id, uuid) = (block.id(), block.uuid());
    drop(block);
    other.attach(id).unwrap().free().unwrap();
    assert_eq!(indexed.find(uuid), None, "freed unseen");
    other.flush();
    pool.flush();
    // The same number lives again, under another UUID.
    let all: Vec<Block> = (0..64).map(|_| other.allocate(Kind::Recoverable).unwrap()).collect();
    assert!(all.iter().any(|block| block.number() == id.number));
    assert_eq!(indexed.find(uuid), None, "reused unseen");
}

#[test]
fn x2_blocks_of_another_process_are_known_after_a_refresh() {
    let shared = OnDisk::new(options(64));
    let index = Index::default();
    let indexed = index.attach(&shared.pool).unwrap();
    let mut other = Worker::start(&shared.path);
    let ids = other.ask_ids("recoverable 100");
    let uuid = |number: u32| shared.pool.block_info(number).unwrap().uuid;
    for id in &ids {
        assert_eq!(indexed.find(uuid(id.number)), Some(*id), "allocated: the UUID says where");
    }
    let chosen = Uuid::from_u128(0x0123_4567_89AB_4DEF_8123_4567_89AB_CDEF);
    let second = Pool::join_any(&shared.path).unwrap();
    let reserved = second.reserve(chosen).unwrap();
    assert_eq!(indexed.find(chosen), None, "not told");
    indexed.refresh().unwrap();
    assert_eq!(indexed.find(chosen), Some(reserved));
    assert_eq!(indexed.len(), 1);
    other.kill();
    // And recovery teaches it as well.
    for offered in shared.pool.recover(Offer::Orphans).unwrap() {
        let block = offered.keep().unwrap();
        assert_eq!(indexed.find(block.uuid()), Some(block.id()));
    }
}

#[test]
fn x3_the_index_is_bounded_by_the_pool_while_another_process_churns() {
    let pool = options(64).max_blocks(4_096).create_memfd().unwrap();
    let other = Pool::join_any_fd(pool.as_fd().try_clone_to_owned().unwrap()).unwrap();
    let index = Index::default();
    let indexed = index.attach(&pool).unwrap();
    for round in 0..100_u128 {
        // We reserve and learn, the other frees, and we are not told.
        let uuid = |n: u128| Uuid::from_u128(1 << 127 | round << 64 | n << 32);
        let ids: Vec<_> = (1..=1_000).map(|n| pool.reserve(uuid(n)).unwrap()).collect();
        ids.into_iter().for_each(|id| other.attach(id).unwrap().free().unwrap());
        other.flush();
    }
    let blocks = pool.info().unwrap().blocks() as usize;
    assert!(indexed.len() >= 1_000, "there is something to forget");
    assert!(indexed.len() <= 2 * blocks, "X3: {} entries for {blocks} blocks", indexed.len());
    indexed.refresh().unwrap();
    assert!(indexed.is_empty(), "nothing is alive");
}

#[test]
fn blocks_are_collected_by_use_and_age() {
    let pool = options(64).create_memfd().unwrap();
    let index = Index::default();
    let indexed = index.attach(&pool).unwrap();
    let held = pool.allocate(Kind::Recoverable).unwrap();
    let parked = pool.allocate(Kind::Recoverable).unwrap().id();
    let get = |of, age| indexed.collect(of, age).unwrap();
    assert_eq!(get(Use::InUse, Duration::ZERO), [held.id()]);
    assert_eq!(get(Use::Unused, Duration::ZERO), [parked]);
    assert_eq!(get(Use::Any, Duration::ZERO).len(), 2);
    assert_eq!(get(Use::Any, Duration::from_secs(3_600)), [], "nothing is an hour old");
    assert_eq!(get(Use::Any, Duration::MAX), [], "an age before all time");
    std::thread::sleep(Duration::from_millis(60));
    assert_eq!(get(Use::Unused, Duration::from_millis(20)), [parked]);
}

#[test]
fn removing_the_unused_spares_what_is_held_and_what_is_young() {
    let pool = options(64).create_memfd().unwrap();
    let index = Index::default();
    let indexed = index.attach(&pool).unwrap();
    let held = pool.allocate(Kind::Recoverable).unwrap();
    let old: Vec<_> = (0..10).map(|_| pool.allocate(Kind::Recoverable).unwrap().id()).collect();
    assert_eq!(indexed.remove_unused(Duration::from_secs(60)).unwrap(), 0, "all are young");
    assert_eq!(indexed.remove_unused(Duration::ZERO).unwrap(), 10);
    assert!(old.iter().all(|id| pool.attach(*id).is_err()));
    assert_eq!(indexed.find(held.uuid()), Some(held.id()));
}

#[test]
fn pools_are_found_by_name_until_they_are_detached() {
    let index = Index::default();
    let pool = options(64).create_memfd().unwrap();
    index.attach(&pool).unwrap();
    assert!(matches!(index.attach(&pool), Err(Error::NameTaken { .. })));
    assert_eq!(index.pool("test").unwrap().pool().uuid(), pool.uuid());
    assert!(index.pool("other").is_none());
    assert!(index.detach("test").unwrap());
    assert!(!index.detach("test").unwrap());
    assert!(index.pool("test").is_none());
    pool.close().unwrap();
}

#[test]
fn threads_that_allocate_free_and_find_see_only_what_is_right() {
    let pool = options(64).create_memfd().unwrap();
    let index = Index::default();
    let indexed = index.attach(&pool).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    let block = pool.allocate(Kind::Recoverable).unwrap();
                    let (id, uuid) = (block.id(), block.uuid());
                    assert_eq!(indexed.find(uuid), Some(id));
                    block.free().unwrap();
                    assert_eq!(indexed.find(uuid), None);
                }
            });
        }
    });
    assert!(indexed.is_empty());
}

#[test]
fn x4_a_block_that_nobody_has_looked_at_is_of_no_age() {
    let pool = options(64).create_memfd().unwrap();
    let block = pool.allocate(Kind::Recoverable).unwrap();
    let number = block.number();
    drop(block);
    let version = || pool.block_info(number).unwrap().version;
    assert_eq!(version(), None, "without a monitor no time is noted");
    let index = Index::default();
    let of_pool = index.attach(&pool).unwrap();
    let first_seen = version().expect("the index has looked");
    let soon = Duration::from_secs(60);
    assert_eq!(of_pool.remove_unused(soon).unwrap(), 0, "it was first seen just now");
    of_pool.refresh().unwrap();
    assert_eq!(version(), Some(first_seen), "a second look changes nothing");
    let younger = pool.allocate(Kind::Recoverable).unwrap();
    assert!(pool.block_info(younger.number()).unwrap().version >= Some(first_seen));
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(of_pool.remove_unused(Duration::from_millis(10)).unwrap(), 1);
}
