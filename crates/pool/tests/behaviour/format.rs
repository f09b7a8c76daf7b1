//! P5: the format, seen as bytes. Offsets here are those of `docs/format/pool.md`, written out
//! again; that the document and the code agree is tested in `src/layout.rs`.

use crate::{OnDisk, options, worker::Worker};
use mainstay_pool::{Kind, Offer, Pool, PoolOptions, PoolView, State};
use std::{fs, path::PathBuf};

pub(crate) fn u64_at(file: &[u8], offset: u64) -> u64 {
    u64::from_le_bytes(file[offset as usize..][..8].try_into().unwrap())
}

pub(crate) fn u32_at(file: &[u8], offset: u64) -> u32 {
    u32::from_le_bytes(file[offset as usize..][..4].try_into().unwrap())
}

/// Where things are, read from a header by the byte table.
pub(crate) struct Layout {
    pub(crate) stride: u64,
    pub(crate) blocks_per_extent: u64,
    pub(crate) extent_size: u64,
    pub(crate) extents_offset: u64,
    pub(crate) cold_offset: u64,
    pub(crate) data_offset: u64,
    pub(crate) extents: u64,
}

impl Layout {
    pub(crate) fn of(file: &[u8]) -> Self {
        let n = u64_at(file, 48);
        let align = u64_at(file, 80);
        let cold_offset = (8 * n + 8 * n.div_ceil(64)).next_multiple_of(64);
        Self {
            stride: u64_at(file, 40),
            blocks_per_extent: n,
            extent_size: u64_at(file, 56),
            extents_offset: u64_at(file, 64),
            cold_offset,
            data_offset: (cold_offset + 48 * n).next_multiple_of(align),
            extents: u64_at(file, 1_024),
        }
    }

    fn in_extent(&self, number: u32, part: u64, size: u64) -> u64 {
        let (extent, place) = (
            u64::from(number) / self.blocks_per_extent,
            u64::from(number) % self.blocks_per_extent,
        );
        self.extents_offset + extent * self.extent_size + part + place * size
    }

    pub(crate) fn word(&self, number: u32) -> u64 {
        self.in_extent(number, 0, 8)
    }

    fn cold(&self, number: u32) -> u64 {
        self.in_extent(number, self.cold_offset, 48)
    }

    fn data(&self, number: u32) -> u64 {
        self.in_extent(number, self.data_offset, self.stride)
    }
}

#[test]
fn p5_a_new_pool_has_its_bytes_where_the_format_says() {
    let shared = OnDisk::new(options(100).growth_step(32).max_blocks(96));
    let file = fs::read(&shared.path).unwrap();
    assert_eq!(&file[..8], b"MAINPOOL");
    assert_eq!((u32_at(&file, 8), u32_at(&file, 12)), (2, 0), "version, flags");
    assert_eq!(&file[16..32], shared.pool.uuid().as_bytes(), "network order");
    assert_eq!((u64_at(&file, 32), u64_at(&file, 40)), (100, 128), "block size, stride");
    assert_eq!((u64_at(&file, 48), u64_at(&file, 72)), (32, 3), "a growth step, extents");
    assert_eq!((u64_at(&file, 96), u64_at(&file, 104)), (4_096, 4_096), "for checkpoints");
    assert_eq!((u64_at(&file, 128), &file[136..140]), (4, b"test".as_slice()), "name");
    assert!(file[140..508].iter().all(|byte| *byte == 0), "padding and reserved bytes");
    assert!(file[512..1_024].iter().all(|byte| *byte == 0));
    assert_eq!(u64_at(&file, 1_024), 0, "no extent yet");
    assert_eq!(u32_at(&file, 2_048), 1, "slot 0 is in use");
    assert_eq!(u32_at(&file, 2_052), std::process::id());
    assert!(file[4_096..].iter().all(|byte| *byte == 0), "kept for checkpoints");
}

#[test]
fn p5_the_owner_word_of_each_state_has_the_bits_that_the_format_says() {
    let shared = OnDisk::new(options(64));
    let other = shared.join();
    let (slot_bit, other_bit) = (1_u64 << shared.pool.slot(), 1_u64 << other.slot());
    let word = |number| {
        let file = fs::read(&shared.path).unwrap();
        u64_at(&file, Layout::of(&file).word(number))
    };
    let block = shared.pool.allocate(Kind::Recoverable).unwrap();
    let number = block.number();
    assert_eq!(word(number), 1 << 32 | slot_bit, "recoverable, held, tag 0");
    let theirs = other.attach_number(number).unwrap();
    assert_eq!(word(number), 1 << 32 | slot_bit | other_bit, "two owners");
    let clone = theirs.try_clone().unwrap();
    assert_eq!(word(number), 1 << 34 | 1 << 32 | slot_bit | other_bit, "multi");
    drop((theirs, clone));
    drop(block);
    assert_eq!(word(number), 1 << 32, "parked");
    let block = shared.pool.attach_number(number).unwrap();
    let theirs = other.attach_number(number).unwrap();
    block.free().unwrap();
    assert_eq!(word(number), 1 << 35 | 1 << 32 | other_bit, "doomed");
    drop(theirs);
    assert_eq!(word(number), 1 << 37 | other_bit, "cached, tag 1");
    other.flush();
    assert_eq!(word(number), 1 << 37, "free, tag 1");
    let transient = other.allocate(Kind::Transient).unwrap();
    assert_eq!(word(transient.number()) >> 32 & 3, 2, "transient");
    let mut dies = Worker::start(&shared.path);
    let orphan = dies.ask_ids("recoverable 1")[0];
    dies.kill();
    shared.pool.reap().unwrap();
    assert_eq!(word(orphan.number) & 0x1F_FFFF_FFFF, 3 << 32, "orphan");
}

#[test]
fn p5_header_and_data_of_a_block_stand_where_the_format_says() {
    let shared = OnDisk::new(options(100).growth_step(8));
    let blocks: Vec<_> =
        (0..20).map(|_| shared.pool.allocate(Kind::Recoverable).unwrap()).collect();
    for block in &blocks {
        block.write(0, &[block.number() as u8 + 1; 100]).unwrap();
        block.set_used_len(50).unwrap();
    }
    let file = fs::read(&shared.path).unwrap();
    let layout = Layout::of(&file);
    assert_eq!(layout.extents, 3);
    for block in &blocks {
        let (number, cold) = (block.number(), layout.cold(block.number()));
        assert_eq!(u64_at(&file, cold), 0, "no type");
        assert_eq!(u64_at(&file, cold + 8), block.id().generation);
        let uuid = (u64_at(&file, cold + 16), u64_at(&file, cold + 24));
        assert_eq!(uuid, block.uuid().as_u64_pair());
        assert_eq!(u32_at(&file, cold + 32), 50, "used length");
        let data = &file[layout.data(number) as usize..][..100];
        assert_eq!(data, [number as u8 + 1; 100]);
    }
}

/// Made by a build whose newest format was version 1: parked, held and transient blocks, copied while
/// the process lived. No later build can make it again, so it is never made anew.
fn fixture() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/version-1.pool")
}

fn copy_of_the_fixture() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fixture.pool");
    fs::copy(fixture(), &path).unwrap();
    (folder, path)
}

#[test]
fn p5_a_pool_of_version_1_made_long_ago_has_the_bytes_it_always_had() {
    let file = fs::read(fixture()).unwrap();
    let layout = Layout::of(&file);
    assert_eq!((&file[..8], u32_at(&file, 8)), (b"MAINPOOL".as_slice(), 1));
    assert_eq!((layout.stride, layout.blocks_per_extent, layout.extents), (64, 4, 1));
    assert_eq!(file.len() as u64, layout.extents_offset + layout.extent_size);
    assert_eq!(u64_at(&file, 128), 7);
    assert_eq!(&file[136..143], b"fixture");
    let numbers: Vec<u64> = (0..4).map(|number| u64_at(&file, layout.word(number))).collect();
    let mut sorted = numbers.clone();
    sorted.sort_unstable();
    // Cached with tag 1; parked; held; transient and held: slot 0 had it open.
    assert_eq!(sorted, [1 << 32, 1 << 32 | 1, 2 << 32 | 1, 1 << 37 | 1]);
    let held = numbers.iter().position(|word| *word == 1 << 32 | 1).unwrap() as u32;
    assert_eq!(u32_at(&file, layout.cold(held) + 32), 26);
    let data = &file[layout.data(held) as usize..][..26];
    assert_eq!(data, b"held when its process died");
}

#[test]
fn p5_a_pool_of_version_1_made_long_ago_opens_and_recovers() {
    let (_folder, path) = copy_of_the_fixture();
    let view = PoolView::open(&path).unwrap();
    assert_eq!(view.info().unwrap().counts.held, 2);
    assert_eq!(view.verify().unwrap().of_the_dead, 3);
    let pool = PoolOptions::new("fixture", 64).join(&path).unwrap();
    let orphans: Vec<_> = pool.recover(Offer::Orphans).unwrap().collect();
    assert_eq!(orphans.len(), 1);
    assert_eq!(&orphans[0].to_vec()[..26], b"held when its process died");
    let parked = pool.attach_uuid(mainstay_pool::Uuid::from_u128(0xF1)).unwrap();
    let mut data = [0; 16];
    parked.read(0, &mut data).unwrap();
    assert_eq!(&data, b"parked by choice");
    let counts = pool.info().unwrap().counts;
    assert_eq!((counts.held, counts.orphaned, counts.free, counts.corrupt), (1, 1, 2, 0));
}

#[test]
fn p5_a_pool_that_was_copied_byte_by_byte_is_the_same_pool() {
    let shared = OnDisk::new(options(64));
    let block = shared.pool.allocate(Kind::Recoverable).unwrap();
    block.write(0, b"copied").unwrap();
    let copy = shared.path.with_extension("copy");
    fs::copy(&shared.path, &copy).unwrap();
    let pool = Pool::join_any(&copy).unwrap();
    assert_eq!(pool.uuid(), shared.pool.uuid());
    // Nobody alive has the copy open, so what was held there is an orphan here.
    pool.reap().unwrap();
    let (info, data) = pool.copy_block(block.number()).unwrap().unwrap();
    assert_eq!((info.state, info.id, info.uuid), (State::Orphan, block.id(), block.uuid()));
    assert_eq!(&data[..6], b"copied");
}
