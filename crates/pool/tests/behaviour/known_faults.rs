//! Faults that earlier systems of this kind had, each one a test here.

use crate::{
    OnDisk, assert_sound, ids_in, options, state,
    worker::{Mark, Worker},
};
use mainstay_pool::{
    Block, Corruption, Decision, Error, Event, EventKind, Kind, Monitor, Offer, Pool, PoolOptions,
    PoolView, State,
};
use std::{
    collections::BTreeSet,
    fs,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// It wiped the pool.
#[test]
fn opening_with_another_block_size_or_name_changes_nothing() {
    let shared = OnDisk::new(options(64));
    let block = shared.pool.allocate(Kind::Recoverable).unwrap();
    block.write(0, b"precious").unwrap();
    drop(block);
    let before = fs::read(&shared.path).unwrap();
    for wrong in [PoolOptions::new("other", 64), PoolOptions::new("test", 65)] {
        assert!(wrong.clone().join(&shared.path).is_err());
        assert!(wrong.clone().open(&shared.path).is_err());
        assert!(wrong.create(&shared.path).is_err());
    }
    assert!(before == fs::read(&shared.path).unwrap(), "the file was changed");
}

/// They leaked 266 of 1,023 blocks.
#[test]
fn kills_during_allocate_and_free_leak_nothing() {
    let shared = OnDisk::new(options(64).max_blocks(1_024));
    for round in 0..5 {
        let mut workers = [Worker::start(&shared.path), Worker::start(&shared.path)];
        workers.iter_mut().for_each(|worker| assert_eq!(worker.ask("churn"), "churning"));
        std::thread::sleep(Duration::from_millis(3 + 4 * round));
        workers.into_iter().for_each(Worker::kill);
    }
    for offered in shared.pool.recover(Offer::Unheld).unwrap() {
        offered.free().unwrap();
    }
    shared.pool.flush();
    let info = shared.pool.info().unwrap();
    assert_eq!(info.counts.free, info.blocks(), "leaked: {:?}", info.counts);
    assert_sound(&shared.pool);
}

/// In 27 of 40 runs.
#[test]
fn kills_during_growth_hand_no_number_out_twice() {
    for round in 0..6 {
        let shared = OnDisk::new(options(64).growth_step(16).max_blocks(20_000));
        let mut other = Worker::start(&shared.path);
        other.ask("pid");
        other.tell("grow");
        let mut mine = Vec::new();
        for _ in 0..300 + 100 * round {
            mine.push(shared.pool.allocate(Kind::Recoverable).unwrap());
        }
        other.kill();
        for _ in 0..300 {
            mine.push(shared.pool.allocate(Kind::Recoverable).unwrap());
        }
        let numbers: BTreeSet<u32> = mine.iter().map(Block::number).collect();
        assert_eq!(numbers.len(), mine.len());
        let addresses: BTreeSet<usize> = mine.iter().map(|block| block.as_ptr().addr()).collect();
        assert_eq!(addresses.len(), mine.len());
        shared.pool.reap().unwrap();
        assert_sound(&shared.pool);
    }
}

#[test]
fn a_recovery_callback_that_takes_and_drops_a_block_makes_no_cycle() {
    let pool = options(64).max_blocks(256).create_memfd().unwrap();
    for _ in 0..100 {
        drop(pool.allocate(Kind::Recoverable).unwrap());
    }
    let mut turn = 0;
    let report = pool
        .recover_with(Offer::Unheld, |offered| {
            turn += 1;
            let same = pool.attach(offered.id()).unwrap();
            match turn % 4 {
                // Taken and dropped; taken and freed; freed and used anew; another one allocated.
                0 => drop(same),
                1 => same.free().unwrap(),
                2 => {
                    same.free().unwrap();
                    drop(pool.allocate(Kind::Transient).unwrap());
                }
                _ => drop((same, pool.allocate(Kind::Transient).unwrap())),
            }
            if turn % 3 == 0 { Decision::Free } else { Decision::Keep }
        })
        .unwrap();
    assert_eq!(report.offered, 100);
    assert_eq!(report.kept.len() as u64 + report.freed + report.gone, 100);
    assert_eq!(report.gone, 50, "those that the callback had freed");
    drop(report);
    pool.flush();
    assert_sound(&pool);
    // A cycle would hand a block out twice, or for ever.
    let parked = ids_in(&pool, State::Parked).len();
    let mut held = Vec::new();
    while let Ok(block) = pool.allocate(Kind::Transient) {
        held.push(block);
    }
    let numbers: BTreeSet<u32> = held.iter().map(Block::number).collect();
    assert_eq!((numbers.len(), held.len()), (256 - parked, 256 - parked));
}

/// Stale replication hints survived a free. Whatever is kept about a block belongs to one life.
#[test]
fn nothing_known_of_a_freed_block_survives_into_its_next_life() {
    let pool = options(64).max_blocks(1).create_memfd().unwrap();
    let first = pool.allocate_typed::<Mark>(Kind::Recoverable).unwrap();
    first.set(&Mark::of(9));
    let (number, old) = (first.number(), pool.block_info(first.number()).unwrap());
    first.free().unwrap();
    let second = pool.allocate(Kind::Transient).unwrap();
    assert_eq!(second.number(), number);
    let new = pool.block_info(number).unwrap();
    assert_ne!((new.id, new.uuid, new.fingerprint), (old.id, old.uuid, old.fingerprint));
    assert_eq!((new.fingerprint, new.used_len, new.doomed), (0, 64, false));
    assert_eq!(second.to_vec().unwrap(), [0; 64]);
    assert!(pool.attach_uuid(old.uuid).is_err() && pool.attach(old.id).is_err());
}

/// It raised SIGBUS.
#[test]
fn a_truncated_file_is_a_typed_error() {
    let shared = OnDisk::new(options(64));
    drop(shared.pool.allocate(Kind::Recoverable).unwrap());
    let whole = fs::read(&shared.path).unwrap();
    let cut = shared.path.with_extension("cut");
    for len in [1, 511, 512, 4_096, 8_191, 8_192, whole.len() / 2, whole.len() - 1] {
        fs::write(&cut, &whole[..len]).unwrap();
        let expected = |error: Error| match error {
            Error::Corrupt { what: Corruption::Truncated { .. }, .. } => len >= 512,
            Error::NotAPool { .. } => len < 512,
            _ => false,
        };
        assert!(expected(Pool::join_any(&cut).unwrap_err()), "{len}");
        assert!(expected(PoolView::open(&cut).unwrap_err()), "{len}");
        assert_eq!(fs::read(&cut).unwrap(), &whole[..len], "and nothing was changed");
    }
}

/// A pool in memory cannot even be truncated while somebody uses it.
#[test]
fn a_memfd_is_sealed_against_shrinking() {
    let pool = options(64).create_memfd().unwrap();
    let block = pool.allocate(Kind::Recoverable).unwrap();
    let file = fs::File::from(pool.as_fd().try_clone_to_owned().unwrap());
    assert!(file.set_len(100).is_err());
    block.write(0, b"still there").unwrap();
}

#[derive(Default)]
struct Count(AtomicU64);
impl Monitor for Count {
    fn event(&self, event: &Event<'_>) {
        self.0.fetch_add(u64::from(event.kind == EventKind::ExtentCreate), Relaxed);
    }
}

#[test]
fn threads_racing_to_grow_grow_once() {
    const THREADS: usize = 8;
    for _ in 0..20 {
        let pool = options(64).growth_step(1_024).create_memfd().unwrap();
        let grown = Arc::new(Count::default());
        pool.add_monitor(grown.clone()).unwrap();
        let start = Barrier::new(THREADS);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    start.wait();
                    let block = pool.allocate(Kind::Transient).unwrap();
                    start.wait();
                    drop(block);
                });
            }
        });
        assert_eq!(pool.info().unwrap().extents, 1, "eight blocks need one extent of 1,024");
        assert_eq!(grown.0.load(Relaxed), 1);
    }
}

/// The type was set before the data was zeroed.
#[test]
fn a_block_can_be_seen_only_when_its_data_is_zeroed_and_its_type_is_set() {
    const SIZE: usize = 4_096;
    let pool = options(SIZE).max_blocks(1).create_memfd().unwrap();
    let other = Pool::join_any_fd(pool.as_fd().try_clone_to_owned().unwrap()).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut seen = 0;
            while !stop.load(Relaxed) {
                let Ok(block) = other.attach_number(0) else { continue };
                assert_ne!(other.block_info(0).unwrap().fingerprint, 0, "seen without its type");
                let mut data = [1; SIZE];
                block.read(0, &mut data).unwrap();
                assert!(data.iter().all(|byte| *byte == 0), "seen before it was zeroed");
                // The next life of the block must not begin with this.
                block.write(0, &[0xFF; SIZE]).unwrap();
                block.free().unwrap();
                other.flush();
                seen += 1;
            }
            seen
        });
        let mut made = 0;
        while made < 2_000 {
            match pool.allocate_typed::<Mark>(Kind::Recoverable) {
                Ok(_parked) => made += 1,
                Err(Error::Full { .. }) => std::thread::yield_now(),
                Err(e) => panic!("{e}"),
            }
        }
        stop.store(true, Relaxed);
        assert!(watcher.join().unwrap() >= 1_999);
    });
}

/// It was checked before, not with, the reference.
#[test]
fn a_version_tag_is_checked_in_the_step_that_takes_the_reference() {
    let pool = options(64).max_blocks(1).create_memfd().unwrap();
    let other = Pool::join_any_fd(pool.as_fd().try_clone_to_owned().unwrap()).unwrap();
    let newest = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let attacher = scope.spawn(|| {
            while !stop.load(Relaxed) {
                let wanted = newest.load(Relaxed);
                let id = mainstay_pool::BlockId { number: 0, generation: wanted };
                if let Ok(block) = other.attach(id) {
                    assert_eq!(block.id(), id, "another life of the block was attached");
                }
            }
        });
        for _ in 0..100_000 {
            if let Ok(block) = pool.allocate(Kind::Recoverable) {
                newest.store(block.id().generation, Relaxed);
                block.free().unwrap();
            }
        }
        stop.store(true, Relaxed);
        attacher.join().unwrap();
    });
}

/// File locks gave none.
#[test]
fn processes_that_inherit_one_descriptor_still_exclude_each_other() {
    let first = options(64).create_memfd().unwrap();
    let fd = || first.as_fd().try_clone_to_owned().unwrap();
    // Copies of one descriptor share one description, as after fork or SCM_RIGHTS.
    let others: Vec<Pool> = (0..5).map(|_| Pool::join_any_fd(fd()).unwrap()).collect();
    let slots: BTreeSet<u32> = others.iter().chain([&first]).map(Pool::slot).collect();
    assert_eq!(slots.len(), 6, "each has a slot of its own");
    assert!(first.holders().unwrap().iter().all(|holder| holder.alive));
    // One goes: its slot is free, the others' are not.
    let gone = others.into_iter().next().unwrap();
    let slot = gone.slot();
    gone.close().unwrap();
    assert_eq!(Pool::join_any_fd(fd()).unwrap().slot(), slot);
}

/// It zeroed the counts of the first.
#[test]
fn a_second_process_that_opens_for_recovery_leaves_the_first_its_blocks() {
    let shared = OnDisk::new(options(64));
    let block = shared.pool.allocate(Kind::Recoverable).unwrap();
    let clone = block.try_clone().unwrap();
    let transient = shared.pool.allocate(Kind::Transient).unwrap();
    let mut other = Worker::start(&shared.path);
    assert_eq!(other.ask_ids("recover"), []);
    assert!(other.ask("reap").contains("slots: 0"));
    other.kill();
    shared.pool.reap().unwrap();
    for held in [&block, &clone, &transient] {
        assert_eq!(state(&shared.pool, held.number()), State::Held);
        held.write(0, b"mine").unwrap();
    }
    let number = block.number();
    drop(block);
    assert_eq!(state(&shared.pool, number), State::Held, "the clone still counts");
    drop(clone);
    assert_eq!(state(&shared.pool, number), State::Parked);
}

/// Every growth mapped the whole pool again: 146 GiB of address space for 379 MiB of data.
#[test]
fn growth_makes_no_second_mapping() {
    let pool = options(64).growth_step(64).create_memfd().unwrap();
    let block = pool.allocate(Kind::Transient).unwrap();
    let before = pool.info().unwrap();
    let held: Vec<Block> = (0..64 * 200).map(|_| pool.allocate(Kind::Transient).unwrap()).collect();
    let after = pool.info().unwrap();
    assert!(after.extents >= before.extents + 199);
    assert_eq!((before.mappings, after.mappings), (1, 1));
    assert_eq!((after.reserved, after.address_space_beyond), (before.reserved, 0));
    drop((block, held));
}

/// Garbage collection of a handle in a scripting language deleted the data.
#[test]
fn dropping_a_guard_parks_and_does_not_delete() {
    let shared = OnDisk::new(options(64));
    let block = shared.pool.allocate(Kind::Recoverable).unwrap();
    block.write(0, b"kept").unwrap();
    let (id, uuid) = (block.id(), block.uuid());
    drop(block);
    assert_eq!(state(&shared.pool, id.number), State::Parked);
    // Nor does dropping the pool, or opening it again.
    let OnDisk { pool, path, _folder } = shared;
    drop(pool);
    let pool = Pool::join_any(&path).unwrap();
    assert_eq!(pool.attach_uuid(uuid).unwrap().id(), id);
    let mut data = [0; 4];
    pool.attach(id).unwrap().read(0, &mut data).unwrap();
    assert_eq!(&data, b"kept");
}
