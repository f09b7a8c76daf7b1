//! Checkpoints of whole pools, with real files: C5 to C7, and what is refused.

#![allow(clippy::unwrap_used, reason = "helpers of tests; a test may fail at any of them")]

use mainstay_base::{Rng, crc32c};
use mainstay_pool::{
    Block, BlockId, Error, Kind, Offer, Pool, PoolOptions, State, Uuid,
    checkpoint::{self, PowerCut},
};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

const WAIT: Duration = Duration::from_secs(10);

fn options() -> PoolOptions {
    PoolOptions::new("test", 100).growth_step(16).reserve(64 << 20)
}

struct OnDisk {
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl OnDisk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { path: folder.path().join("test.pool"), _folder: folder }
    }

    fn checkpoint(&self) -> PathBuf {
        self.path.with_extension("pool.checkpoint")
    }

    /// As after a power cut: in another boot, and with a file whose pages are of any time.
    fn after_power_cut(&self, boot: u128) -> Pool {
        let file = fs::File::options().write(true).open(&self.path).unwrap();
        file.write_all_at(&[0xA5; 3_000], 9_000).unwrap();
        options().boot(Uuid::from_u128(boot)).join(&self.path).unwrap()
    }
}

type Contents = BTreeMap<BlockId, (Uuid, usize, Vec<u8>)>;

fn contents(pool: &Pool) -> Contents {
    let live = pool.blocks().unwrap().filter(|block| {
        matches!(block.state, State::Held | State::Parked | State::Orphan)
            && block.kind == Some(Kind::Recoverable)
    });
    live.map(|block| {
        let (info, data) = pool.copy_block(block.id.number).unwrap().unwrap();
        (info.id, (info.uuid, info.used_len, data))
    })
    .collect()
}

/// Changes something at random.
fn change(pool: &Pool, held: &mut Vec<Block>, rng: &mut Rng) {
    for _ in 0..1 + rng.below(30) {
        match (rng.below(10), held.is_empty()) {
            (0..=3, _) | (_, true) => held.push(pool.allocate(Kind::Recoverable).unwrap()),
            (4, _) => drop(pool.allocate(Kind::Transient).unwrap()),
            (5, _) => {
                let at = rng.below(held.len() as u64) as usize;
                held.swap_remove(at).free().unwrap();
            }
            (6, _) => {
                let at = rng.below(held.len() as u64) as usize;
                held[at].set_used_len(rng.below(101) as usize).unwrap();
            }
            _ => {
                let at = rng.below(held.len() as u64) as usize;
                let bytes = rng.next_u64().to_le_bytes();
                held[at].write(rng.below(92) as usize, &bytes).unwrap();
            }
        }
    }
}

#[test]
fn c5_c7_after_a_power_cut_the_pool_is_as_of_its_last_checkpoint() {
    for seed in 0..6 {
        let mut rng = Rng::seeded(seed);
        let disk = OnDisk::new();
        let mut pool = options().create(&disk.path).unwrap();
        let mut held = Vec::new();
        for boot in 1..4 {
            let mut checkpointer = pool.checkpointer().unwrap();
            for _ in 0..1 + rng.below(4) {
                change(&pool, &mut held, &mut rng);
                checkpointer.checkpoint(WAIT).unwrap();
            }
            let expected = contents(&pool);
            change(&pool, &mut held, &mut rng);
            assert_ne!(contents(&pool), expected);
            held.clear();
            drop(checkpointer);
            pool.close().unwrap();
            pool = disk.after_power_cut(boot);
            assert_eq!(contents(&pool), expected, "seed {seed}");
            assert!(pool.verify().unwrap().is_sound());
            assert_eq!(pool.info().unwrap().counts.orphaned, expected.len() as u64);
            // It is a pool like any other.
            held.extend(pool.recover(Offer::Orphans).unwrap().map(|it| it.keep().unwrap()));
            assert_eq!(held.len(), expected.len());
        }
    }
}

#[test]
fn a_plain_crash_keeps_what_is_newer_than_the_checkpoint() {
    let disk = OnDisk::new();
    let pool = options().create(&disk.path).unwrap();
    let block = pool.allocate(Kind::Recoverable).unwrap();
    pool.checkpoint().unwrap();
    block.write(0, b"newer").unwrap();
    let id = block.id();
    // The process is gone; the machine is not.
    drop((block, pool));
    let pool = options().join(&disk.path).unwrap();
    assert_eq!(&pool.attach(id).unwrap().to_vec().unwrap()[..5], b"newer");
    // And the next checkpoint finds it by comparing.
    let report = pool.checkpoint().unwrap();
    assert_eq!(report.blocks, 1);
    drop(pool);
    let pool = disk.after_power_cut(9);
    assert_eq!(&pool.attach(id).unwrap().to_vec().unwrap()[..5], b"newer");
}

#[test]
fn an_old_name_of_a_block_finds_no_other_life_after_a_power_cut() {
    let disk = OnDisk::new();
    let pool = options().create(&disk.path).unwrap();
    let first = pool.allocate(Kind::Recoverable).unwrap();
    let old = first.id();
    pool.checkpoint().unwrap();
    first.free().unwrap();
    pool.checkpoint().unwrap();
    drop(pool);
    let pool = disk.after_power_cut(9);
    let all: Vec<Block> = (0..16).map(|_| pool.allocate(Kind::Recoverable).unwrap()).collect();
    let again = all.iter().find(|block| block.number() == old.number).unwrap();
    assert_ne!(again.id(), old);
    assert!(matches!(pool.attach(old), Err(Error::NoSuchBlock { .. })));
}

#[test]
fn there_is_one_checkpointer_at_a_time_and_the_next_goes_on() {
    let disk = OnDisk::new();
    let pool = options().create(&disk.path).unwrap();
    let checkpointer = pool.checkpointer().unwrap();
    let same = Pool::join_any(&disk.path).unwrap();
    let refused = same.checkpoint().unwrap_err();
    assert!(refused.to_string().contains("one at a time"), "{refused}");
    drop(checkpointer);
    assert_eq!(same.checkpoint().unwrap().cut, 2);
    assert_eq!(pool.checkpoint().unwrap().cut, 3);
}

#[test]
fn what_cannot_have_checkpoints_says_so() {
    let memory = options().create_memfd().unwrap();
    assert!(matches!(memory.checkpoint(), Err(Error::Checkpoint { .. })));
    let (one, two) = (OnDisk::new(), OnDisk::new());
    options().create(&one.path).unwrap().checkpoint().unwrap();
    let other = options().create(&two.path).unwrap();
    fs::copy(one.checkpoint(), two.checkpoint()).unwrap();
    let refused = other.checkpoint().unwrap_err();
    assert!(refused.to_string().contains("of another pool"), "{refused}");
    assert!(checkpoint::restore(one.checkpoint(), &one.path).is_err(), "there is a file already");
}

fn version_1(path: &Path) {
    options().create(path).unwrap();
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut header = [0; 512];
    file.read_exact_at(&mut header, 0).unwrap();
    header[8..12].copy_from_slice(&1_u32.to_le_bytes());
    let sum = crc32c(&header[..508]);
    header[508..].copy_from_slice(&sum.to_le_bytes());
    file.write_all_at(&header, 0).unwrap();
}

#[test]
fn a_pool_of_version_1_is_used_as_before_and_has_no_checkpoints() {
    let disk = OnDisk::new();
    version_1(&disk.path);
    let pool = options().join(&disk.path).unwrap();
    let block = pool.allocate(Kind::Recoverable).unwrap();
    let batch = pool.batch().unwrap();
    block.write(0, b"ringing").unwrap();
    batch.end();
    drop(pool.cut(WAIT).unwrap());
    let refused = pool.checkpoint().unwrap_err();
    assert!(refused.to_string().contains("version 1"), "{refused}");
    assert!(!disk.checkpoint().exists());
    drop((block, pool));
    let bytes = fs::read(&disk.path).unwrap();
    assert!(bytes[1_036..2_048].iter().all(|byte| *byte == 0), "words of version 2 stay zero");
    assert!(bytes[4_096..8_192].iter().all(|byte| *byte == 0));
    assert_eq!(bytes[8], 1);
}

#[test]
fn a_refused_or_impossible_restore_changes_nothing() {
    let disk = OnDisk::new();
    let pool = options().create(&disk.path).unwrap();
    drop(pool.allocate(Kind::Recoverable).unwrap());
    pool.checkpoint().unwrap();
    drop(pool);
    let before = fs::read(&disk.path).unwrap();
    let other = options().boot(Uuid::from_u128(1));
    let refused = other.clone().after_power_cut(PowerCut::Refuse).join(&disk.path).unwrap_err();
    assert!(matches!(refused, Error::PowerCut { .. }), "{refused}");
    let fd = fs::File::options().read(true).write(true).open(&disk.path).unwrap();
    assert!(matches!(other.clone().join_fd(fd.into()), Err(Error::PowerCut { .. })));

    let aside = disk.path.with_extension("aside");
    fs::rename(disk.checkpoint(), &aside).unwrap();
    let refused = other.clone().join(&disk.path).unwrap_err();
    assert!(matches!(refused, Error::Checkpoint { .. }), "there is no checkpoint file: {refused}");
    fs::rename(&aside, disk.checkpoint()).unwrap();
    let file = fs::File::options().write(true).open(disk.checkpoint()).unwrap();
    file.write_all_at(b"X", 4_096 + 40).unwrap(); // a record in the image
    let refused = other.join(&disk.path).unwrap_err();
    assert!(refused.to_string().contains("restore a copy"), "{refused}");
    assert_eq!(fs::read(&disk.path).unwrap(), before);
    assert!(!disk.path.with_extension("pool.restoring").exists());
}

#[test]
fn c6_of_many_that_open_at_once_after_a_power_cut_all_get_the_same_pool() {
    let disk = OnDisk::new();
    let pool = options().create(&disk.path).unwrap();
    let id = pool.allocate(Kind::Recoverable).unwrap().id();
    pool.checkpoint().unwrap();
    drop(pool);
    let start = std::sync::Barrier::new(8);
    let pools: Vec<Pool> = std::thread::scope(|scope| {
        let open = || {
            start.wait();
            options().boot(Uuid::from_u128(3)).join(&disk.path).unwrap()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let block = pools[0].attach(id).unwrap();
    block.write(0, b"shared").unwrap();
    for pool in &pools {
        assert_eq!(&pool.attach(id).unwrap().to_vec().unwrap()[..6], b"shared");
    }
}

#[test]
fn a_cut_waits_for_batches_and_no_checkpoint_has_half_of_one() {
    let disk = OnDisk::new();
    let pool = options().create(&disk.path).unwrap();
    let pair =
        [pool.allocate(Kind::Recoverable).unwrap(), pool.allocate(Kind::Recoverable).unwrap()];
    let ids = pair.each_ref().map(Block::id);
    let mut checkpointer = pool.checkpointer().unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut value = 0_u64;
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                value += 1;
                let batch = pool.batch().unwrap();
                pair[0].write(0, &value.to_le_bytes()).unwrap();
                std::thread::yield_now();
                pair[1].write(0, &value.to_le_bytes()).unwrap();
                batch.end();
            }
        });
        for _ in 0..30 {
            checkpointer.checkpoint(WAIT).unwrap();
            let copy = disk.path.with_extension("copy");
            let _ = fs::remove_file(&copy);
            checkpoint::restore(disk.checkpoint(), &copy).unwrap();
            let copy = Pool::join_any(&copy).unwrap();
            let [one, two] = ids.map(|id| copy.attach(id).unwrap().to_vec().unwrap());
            assert_eq!(one[..8], two[..8], "half a batch");
        }
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
    });
}
