//! Each limit of a pool: at the limit all is well, one past it is a typed error.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use mainstay_base::{NAME_LEN_MAX, NameError};
use mainstay_pool::{
    Block, Error, Kind, LEASE_SLOTS, Pool, PoolOptions, PoolSet, PoolView, Record,
    limits::{
        BLOCK_SIZE_MAX, BLOCKS_MAX, BLOCKS_PER_EXTENT_MAX, MAGAZINE_MAX, RESERVE_DEFAULT,
        RESERVE_MAX,
    },
};
use mainstay_shm::Error as Shm;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

fn options(block_size: usize) -> PoolOptions {
    PoolOptions::new("limits", block_size)
}

/// The error is of the limit called `of`, and says what would be possible.
#[track_caller]
fn assert_limit(result: mainstay_pool::Result<Pool>, of: &str, given: u64, limit: u64) {
    match result.unwrap_err() {
        Error::Limit { what, value, min, max } => {
            assert_eq!((what, value), (of, given));
            assert!((min..=max).contains(&limit) && !(min..=max).contains(&given));
        }
        other => panic!("{other:?}"),
    }
}

fn fill(pool: &Pool) -> (Vec<Block>, Error) {
    let mut held = Vec::new();
    loop {
        match pool.allocate(Kind::Recoverable) {
            Ok(block) => held.push(block),
            Err(error) => return (held, error),
        }
    }
}

#[test]
fn a_block_has_1_byte_to_1_gib() {
    let least = options(1).create_memfd().unwrap();
    let block = least.allocate(Kind::Transient).unwrap();
    block.write(0, &[1]).unwrap();
    assert!(block.write(0, &[1, 2]).is_err());
    let most = options(BLOCK_SIZE_MAX).create_memfd().unwrap();
    assert_eq!(most.block_size(), 1 << 30);
    assert_limit(options(0).create_memfd(), "block size", 0, 1);
    let past = BLOCK_SIZE_MAX as u64 + 1;
    assert_limit(options(BLOCK_SIZE_MAX + 1).create_memfd(), "block size", past, past - 1);
}

#[test]
fn a_name_has_1_to_247_bytes() {
    let named = |len| PoolOptions::new(&"n".repeat(len), 64).create_memfd();
    assert_eq!(named(NAME_LEN_MAX).unwrap().name().len(), 247);
    assert_eq!(named(1).unwrap().name(), "n");
    let past = named(NAME_LEN_MAX + 1).unwrap_err();
    assert!(matches!(past, Error::Name { source: NameError::TooLong { len: 248 }, .. }), "{past}");
    let none = named(0).unwrap_err();
    assert!(matches!(none, Error::Name { source: NameError::Empty, .. }), "{none}");
}

#[test]
fn the_longest_name_is_found_again_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("long.pool");
    let name = "n".repeat(NAME_LEN_MAX);
    PoolOptions::new(&name, 64).create(&path).unwrap().close().unwrap();
    assert_eq!(PoolOptions::new(&name, 64).join(&path).unwrap().name(), name);
}

#[test]
fn a_growth_step_is_1_to_65_536_blocks() {
    let stepped = |step| options(64).growth_step(step).create_memfd();
    for step in [1, BLOCKS_PER_EXTENT_MAX] {
        let pool = stepped(step).unwrap();
        let block = pool.allocate(Kind::Transient).unwrap();
        assert_eq!(pool.info().unwrap().blocks(), step.into());
        drop(block);
    }
    assert_limit(stepped(0), "growth step", 0, 1);
    let past = BLOCKS_PER_EXTENT_MAX + 1;
    assert_limit(stepped(past), "growth step", past.into(), BLOCKS_PER_EXTENT_MAX.into());
}

#[test]
fn a_limit_on_blocks_is_1_to_2_to_the_32() {
    let limited = |most| options(64).reserve(1 << 40).max_blocks(most).create_memfd();
    let pool = limited(1).unwrap();
    let (held, full) = fill(&pool);
    assert_eq!(held.len(), 1);
    assert!(matches!(full, Error::Full { blocks: 1, blocks_max: 1, .. }), "{full}");
    let info = limited(BLOCKS_MAX).unwrap().info().unwrap();
    assert_eq!(info.blocks_max(), BLOCKS_MAX, "block numbers have 32 bits, and all are used");
    assert_limit(limited(0), "limit on blocks", 0, 1);
    assert_limit(limited(BLOCKS_MAX + 1), "limit on blocks", BLOCKS_MAX + 1, BLOCKS_MAX);
}

#[test]
fn a_limit_on_blocks_is_rounded_up_to_growth_steps() {
    let pool = options(64).growth_step(8).max_blocks(9).create_memfd().unwrap();
    assert_eq!(fill(&pool).0.len(), 16);
}

#[test]
fn a_reservation_is_one_extent_to_64_tib() {
    let large = 1 << 20;
    let reserved = |bytes| options(large).growth_step(1).reserve(bytes).create_memfd();
    let one = reserved(RESERVE_DEFAULT).unwrap().info().unwrap();
    let least = one.reserved - (one.extents_max - 1) * (one.reserved / one.extents_max);
    // The head and one extent, to the byte: found by asking for less and being told.
    let told = match reserved(1).unwrap_err() {
        Error::Limit { what: "reservation in bytes", value: 1, min, max: RESERVE_MAX } => min,
        other => panic!("{other:?}"),
    };
    assert!(told <= least, "{told} {least}");
    let smallest = reserved(told).unwrap();
    assert_eq!((smallest.info().unwrap().extents_max, fill(&smallest).0.len()), (1, 1));
    assert_limit(reserved(told - 1), "reservation in bytes", told - 1, told);
    assert_limit(reserved(RESERVE_MAX + 1), "reservation in bytes", RESERVE_MAX + 1, RESERVE_MAX);
    match reserved(RESERVE_MAX) {
        Ok(pool) => {
            let reserved = pool.info().unwrap().reserved;
            assert!((RESERVE_MAX - (1 << 22)..=RESERVE_MAX).contains(&reserved), "{reserved}");
        }
        // Under a limit on address space (ulimit -v) it is refused, in these words.
        Err(error) => assert!(matches!(error, Error::Shm(Shm::AddressSpace { .. })), "{error}"),
    }
}

#[test]
fn a_pool_is_full_when_every_block_is_allocated_and_not_before() {
    let pool = options(64).growth_step(16).max_blocks(160).create_memfd().unwrap();
    let (mut held, full) = fill(&pool);
    assert_eq!(held.len(), 160);
    assert!(matches!(full, Error::Full { blocks: 160, blocks_max: 160, .. }), "{full}");
    assert!(pool.try_allocate(Kind::Transient).unwrap().is_none());
    assert!(matches!(pool.reserve(mainstay_pool::Uuid::nil()), Err(Error::Full { .. })));
    held.pop().unwrap().free().unwrap();
    held.push(pool.allocate(Kind::Recoverable).unwrap());
    assert!(matches!(pool.allocate(Kind::Recoverable), Err(Error::Full { .. })));
    // Parked blocks are not free ones.
    drop(held);
    assert!(matches!(pool.allocate(Kind::Recoverable), Err(Error::Full { .. })));
}

#[test]
fn another_process_keeps_at_most_64_free_blocks_a_thread() {
    let pool = options(64).growth_step(128).max_blocks(512).create_memfd().unwrap();
    let other = Pool::join_any_fd(pool.as_fd().try_clone_to_owned().unwrap()).unwrap();
    let (held, _) = fill(&other);
    assert_eq!(held.len(), 512);
    for block in held {
        block.free().unwrap();
    }
    let (mine, full) = fill(&pool);
    assert!(matches!(full, Error::Full { .. }), "{full}");
    assert!(mine.len() < 512 && mine.len() >= 512 - MAGAZINE_MAX, "{}", mine.len());
    other.flush();
    assert_eq!(mine.len() + fill(&pool).0.len(), 512);
}

#[test]
fn thirty_two_processes_have_a_pool_open_and_no_more() {
    let first = options(64).create_memfd().unwrap();
    let fd = || first.as_fd().try_clone_to_owned().unwrap();
    let mut others: Vec<Pool> =
        (1..LEASE_SLOTS).map(|_| options(64).join_fd(fd()).unwrap()).collect();
    let mut slots: Vec<u32> = others.iter().map(Pool::slot).chain([first.slot()]).collect();
    slots.sort_unstable();
    assert_eq!(slots, (0..32).collect::<Vec<_>>());
    let past = options(64).join_fd(fd()).unwrap_err();
    assert!(matches!(past, Error::Shm(Shm::SlotsTaken { slots: LEASE_SLOTS })), "{past}");
    // All of them hold one block; whoever only looks needs no slot.
    let block = first.allocate(Kind::Recoverable).unwrap();
    let shared: Vec<_> = others.iter().map(|pool| pool.attach(block.id()).unwrap()).collect();
    let view = PoolView::open_fd(fd()).unwrap();
    assert_eq!(view.copy_block(block.number()).unwrap().unwrap().0.owners, u32::MAX);
    assert_eq!(view.holders().unwrap().iter().filter(|holder| holder.alive).count(), 32);
    drop((block, shared));
    let slot = others[6].slot();
    others.remove(6).close().unwrap();
    assert_eq!(options(64).join_fd(fd()).unwrap().slot(), slot);
}

#[test]
fn a_block_is_read_and_written_up_to_its_last_byte() {
    let pool = options(100).create_memfd().unwrap();
    let block = pool.allocate(Kind::Transient).unwrap();
    block.write(0, &[1; 100]).unwrap();
    block.write(99, &[2]).unwrap();
    block.write(100, &[]).unwrap();
    block.set_used_len(100).unwrap();
    let mut all = [0; 100];
    block.read(0, &mut all).unwrap();
    assert_eq!((all[98], all[99]), (1, 2));
    for (offset, len) in [(0, 101), (99, 2), (100, 1), (101, 0), (usize::MAX, 1), (1, 100)] {
        let mut target = vec![0; len];
        let past = block.write(offset, &target).unwrap_err();
        assert!(matches!(past, Error::OutOfBlock { block_size: 100, .. }), "{past}");
        assert!(matches!(block.read(offset, &mut target), Err(Error::OutOfBlock { .. })));
    }
    assert!(matches!(block.set_used_len(101), Err(Error::OutOfBlock { .. })));
    assert_eq!(block.used_len(), 100);
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Bytes<const N: usize>([u8; N]);

impl<const N: usize> Record for Bytes<N> {
    const NAME: &'static str = "limits.bytes/1";
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
struct Line([u8; 64]);

impl Record for Line {
    const NAME: &'static str = "limits.line/1";
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(128))]
struct TwoLines([u8; 128]);

impl Record for TwoLines {
    const NAME: &'static str = "limits.two-lines/1";
}

#[test]
fn a_record_is_as_large_as_a_block_and_aligned_to_64() {
    let pool = options(200).create_memfd().unwrap();
    let block = pool.allocate_typed::<Bytes<200>>(Kind::Transient).unwrap();
    block.set(&Bytes([9; 200]));
    assert_eq!(block.get().0, [9; 200]);
    let line = pool.allocate_typed::<Line>(Kind::Transient).unwrap();
    assert!(line.as_ptr().addr().is_multiple_of(64));
    let past = pool.allocate_typed::<Bytes<201>>(Kind::Transient).unwrap_err();
    let told = matches!(past, Error::TypeDoesNotFit { size: 201, align: 1, block_size: 200, .. });
    assert!(told, "{past}");
    let past = pool.allocate_typed::<TwoLines>(Kind::Transient).unwrap_err();
    assert!(matches!(past, Error::TypeDoesNotFit { size: 128, align: 128, .. }), "{past}");
}

#[test]
fn a_set_serves_up_to_its_largest_class() {
    let set = PoolSet::create_memfd("limits", &[64, 1_000]).unwrap();
    assert_eq!(set.allocate(64, Kind::Transient).unwrap().len(), 64);
    assert_eq!(set.allocate(65, Kind::Transient).unwrap().len(), 1_000);
    assert_eq!(set.allocate(1_000, Kind::Transient).unwrap().len(), 1_000);
    let past = set.allocate(1_001, Kind::Transient).unwrap_err();
    assert!(matches!(past, Error::NoSizeClass { len: 1_001, largest: 1_000 }), "{past}");
    assert!(matches!(PoolSet::create_memfd("limits", &[]), Err(Error::NoClasses)));
}

#[test]
fn a_number_past_the_last_block_is_no_block() {
    let pool = options(64).growth_step(8).create_memfd().unwrap();
    let block = pool.allocate(Kind::Recoverable).unwrap();
    assert!(block.number() < 8);
    assert!(pool.block_info(7).is_ok());
    for number in [8, 9, u32::MAX] {
        assert!(matches!(pool.attach_number(number), Err(Error::NoSuchBlock { .. })));
        assert!(matches!(pool.block_info(number), Err(Error::NoSuchBlock { .. })));
        assert_eq!(pool.copy_block(number).unwrap(), None);
    }
}
