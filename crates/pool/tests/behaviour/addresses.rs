//! P1: an address stays valid and the same until its guard is dropped, however the pool grows.

use crate::{OnDisk, options, worker::Worker};
use mainstay_pool::{Block, Kind, Pool, PoolOptions};

/// Blocks with a value in them, and the addresses they had at first.
struct Watched(Vec<(Block, usize)>);

impl Watched {
    fn new(pool: &Pool) -> Self {
        let blocks = (0..100_u8).map(|value| {
            let block = pool.allocate(Kind::Recoverable).unwrap();
            block.write(0, &[value + 1; 64]).unwrap();
            let address = block.as_ptr().addr();
            (block, address)
        });
        Self(blocks.collect())
    }

    fn assert_unmoved(&self) {
        for (value, (block, address)) in self.0.iter().enumerate() {
            assert_eq!(block.as_ptr().addr(), *address, "P1: the same address");
            let first = value as u8 + 1;
            // SAFETY: the guard is alive and the block has 64 bytes.
            assert_eq!(unsafe { block.as_ptr().read_volatile() }, first, "P1: still mapped");
            let mut data = [0; 64];
            block.read(0, &mut data).unwrap();
            assert_eq!(data, [first; 64]);
        }
    }
}

#[test]
fn p1_addresses_stay_the_same_while_the_pool_grows_a_hundred_times() {
    let pool = options(64).growth_step(64).create_memfd().unwrap();
    let watched = Watched::new(&pool);
    let before = pool.info().unwrap().extents;
    let more: Vec<Block> = (0..6_400).map(|_| pool.allocate(Kind::Transient).unwrap()).collect();
    assert!(pool.info().unwrap().extents >= before + 99);
    watched.assert_unmoved();
    assert_eq!(more.len(), 6_400);
}

#[test]
fn p1_addresses_stay_the_same_while_other_threads_grow_the_pool() {
    let pool = options(64).growth_step(64).create_memfd().unwrap();
    let watched = Watched::new(&pool);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let all: Vec<Block> =
                    (0..2_000).map(|_| pool.allocate(Kind::Transient).unwrap()).collect();
                drop(all);
            });
        }
        for _ in 0..50 {
            watched.assert_unmoved();
        }
    });
    watched.assert_unmoved();
}

#[test]
fn p1_addresses_stay_the_same_while_another_process_grows_the_pool() {
    let shared = OnDisk::new(options(64).growth_step(64));
    let watched = Watched::new(&shared.pool);
    let mut other = Worker::start(&shared.path);
    let theirs = other.ask_ids("recoverable 5000");
    watched.assert_unmoved();
    // And what the other made beyond our first view can be reached.
    let last = shared.pool.attach(*theirs.last().unwrap()).unwrap();
    let mut number = [0; 8];
    last.read(0, &mut number).unwrap();
    assert_eq!(u64::from_le_bytes(number), u64::from(last.number()));
}

#[test]
fn p1_an_address_is_aligned_to_64_bytes_and_blocks_do_not_overlap() {
    let pool = options(100).create_memfd().unwrap();
    let blocks: Vec<Block> = (0..500).map(|_| pool.allocate(Kind::Transient).unwrap()).collect();
    let mut addresses: Vec<usize> = blocks.iter().map(|block| block.as_ptr().addr()).collect();
    addresses.sort_unstable();
    assert!(addresses.iter().all(|address| address.is_multiple_of(64)));
    assert!(addresses.windows(2).all(|pair| pair[1] - pair[0] >= 100));
}

#[test]
fn p1_a_million_blocks_of_256_bytes_need_one_mapping_and_no_further_address_space() {
    const COUNT: u64 = 1_000_000;
    let pool = PoolOptions::new("million", 256).create_memfd().unwrap();
    let first = pool.allocate(Kind::Recoverable).unwrap();
    let address = first.as_ptr().addr();
    let reserved = pool.info().unwrap().reserved;
    for _ in 1..COUNT {
        drop(pool.allocate(Kind::Recoverable).unwrap());
    }
    let info = pool.info().unwrap();
    assert_eq!(info.counts.held + info.counts.parked, COUNT);
    assert_eq!(info.mappings, 1, "growth maps nothing");
    assert_eq!(info.reserved, reserved);
    assert!(info.address_space_beyond < 2 * COUNT * 256, "{}", info.address_space_beyond);
    let overhead = (info.file_len - info.blocks() * 256) as f64 / info.blocks() as f64;
    assert!(overhead <= 64.0, "a block costs {overhead} bytes beyond its data");
    assert_eq!(first.as_ptr().addr(), address);
}
