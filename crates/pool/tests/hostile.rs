//! P6: a living pool whose shared memory is scribbled on, at random, while it is used.
//!
//! What may come of it: an error, wrong data, a block lost until the next repair. What may not: a
//! panic, an endless loop, an access outside of the pool; and a repair puts everything right.
//!
//! The scribbler has a mapping of its own of the same memfd, as a process gone mad would. The
//! offsets are those of `docs/format/pool.md`.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use mainstay_base::Rng;
use mainstay_pool::{
    Block, Decision, Error, Index, Kind, Offer, Pool, PoolBox, PoolOptions, PoolView, Record, Use,
};
use mainstay_shm::{Access, Backing, Mapping};
use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const BLOCK_SIZE: usize = 72;
const STEP: u32 = 64;
const BLOCKS: u64 = 256;

const LIVE: usize = 1_024;
const SLOTS: usize = 2_048;
const EXTENTS: usize = 8_192;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy, Default)]
#[repr(C)]
struct Sample {
    first: u64,
    second: u64,
}

impl Record for Sample {
    const NAME: &'static str = "hostile.sample/1";
}

fn new_pool(seed: u64) -> Pool {
    let options = PoolOptions::new("hostile", BLOCK_SIZE).growth_step(STEP).max_blocks(BLOCKS);
    options.seed(seed).create_memfd().unwrap()
}

fn second_handle(pool: &Pool) -> Pool {
    Pool::join_any_fd(pool.as_fd().try_clone_to_owned().unwrap()).unwrap()
}

// ---- the scribbler ----

struct Scribbler {
    backing: Backing,
    mapping: Mapping,
    extent_size: usize,
    rng: Rng,
}

impl Scribbler {
    fn on(pool: &Pool, seed: u64) -> Self {
        let fd = pool.as_fd().try_clone_to_owned().unwrap();
        let backing = Backing::from_fd(fd, Access::ReadWrite).unwrap();
        let mapping = Mapping::new(&backing, 1 << 24, Access::ReadWrite).unwrap();
        mapping.refresh(&backing).unwrap();
        let mut size = [0; 8];
        mapping.read(56, &mut size).unwrap();
        let extent_size = u64::from_le_bytes(size) as usize;
        Self { backing, mapping, extent_size, rng: Rng::seeded(seed) }
    }

    /// One store somewhere it hurts.
    fn scribble(&mut self) {
        let file_len = self.mapping.refresh(&self.backing).unwrap();
        let extents = ((file_len - EXTENTS) / self.extent_size).max(1) as u64;
        let extent = EXTENTS + self.rng.below(extents) as usize * self.extent_size;
        let block = self.rng.below(STEP.into()) as usize;
        match self.rng.below(8) {
            // Owner words are what everything is decided by.
            0..=2 => {
                let word = self.owner_word();
                self.store(extent + 8 * block, word);
            }
            3 => {
                let hints = self.number();
                self.store(extent + 8 * STEP as usize, hints);
            }
            4 => {
                let cold = 8 * STEP as usize + 64;
                let at = extent + cold + 48 * block + 8 * self.rng.below(6) as usize;
                let value = self.number();
                self.store(at, value);
            }
            5 => {
                let count = if self.rng.below(2) == 0 { self.rng.below(8) } else { self.number() };
                self.store(LIVE, count);
            }
            6 => {
                let at = SLOTS + 8 * self.rng.below(32 * 8) as usize;
                let value = self.number();
                self.store(at, value);
            }
            _ => {
                let at = 8 * self.rng.below(file_len as u64 / 8) as usize;
                let value = self.number();
                self.store(at, value);
            }
        }
    }

    fn store(&self, at: usize, value: u64) {
        // Where the file does not reach yet there is nothing to spoil.
        let _ = self.mapping.write(at, &value.to_le_bytes());
    }

    fn number(&mut self) -> u64 {
        match self.rng.below(5) {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << self.rng.below(64),
            3 => self.rng.below(10),
            _ => self.rng.next_u64(),
        }
    }

    fn owner_word(&mut self) -> u64 {
        let owners = match self.rng.below(4) {
            0 => 0,
            1 => self.rng.next_u64() & 0xFFFF_FFFF,
            // The slots of those who work here.
            _ => 1 << self.rng.below(3),
        };
        let flags = if self.rng.below(3) == 0 { self.rng.below(4) << 34 } else { 0 };
        owners | self.rng.below(4) << 32 | flags | self.rng.below(4) << 36
    }
}

// ---- the workers ----

/// Whatever an operation says is right here, if it says it in words.
#[track_caller]
fn told<T>(result: Result<T, Error>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            assert!(error.to_string().len() > 20, "{error}");
            None
        }
    }
}

/// One operation of those that change blocks.
fn work(pool: &Pool, held: &mut Vec<Block>, rng: &mut Rng) {
    let number = rng.below(BLOCKS + 2) as u32;
    let kind = if rng.below(2) == 0 { Kind::Recoverable } else { Kind::Transient };
    match rng.below(16) {
        0..=3 => held.extend(told(pool.allocate(kind))),
        4 => held.extend(told(pool.try_allocate(kind)).flatten()),
        5 => held.extend(told(pool.allocate_typed::<Sample>(kind)).map(Block::into_bytes)),
        6 => {
            if let Some(mut boxed) = told(PoolBox::new(pool, &Sample::default())) {
                boxed.first += 1;
                boxed.second = boxed.first;
                let id = boxed.id();
                drop(boxed);
                told(PoolBox::<Sample>::attach(pool, id)).map(|boxed| told(boxed.into_inner()));
            }
        }
        7 => drop(told(pool.reserve(mainstay_pool::Uuid::from_u128(rng.below(4).into())))),
        8 => held.extend(told(pool.attach_number(number))),
        9 => {
            if let Some(info) = told(pool.block_info(number)) {
                held.extend(told(pool.attach(info.id)));
                held.extend(told(pool.attach_uuid(info.uuid)));
                told(pool.attach_typed::<Sample>(info.id));
            }
        }
        10 => {
            if let Some(block) = held.last() {
                let again = told(block.try_clone());
                held.extend(again);
            }
        }
        11 => {
            for block in &*held {
                block.write(0, &[7; BLOCK_SIZE]).unwrap();
                assert!(block.write(1, &[7; BLOCK_SIZE]).is_err());
                assert!(block.used_len() <= BLOCK_SIZE);
                assert!(block.to_vec().unwrap().len() <= BLOCK_SIZE);
            }
        }
        _ if held.is_empty() => {}
        what => {
            let block = held.swap_remove(rng.below(held.len() as u64) as usize);
            match what {
                12 => drop(block),
                13 => drop(told(block.park())),
                _ => drop(told(block.free())),
            }
        }
    }
    held.truncate(BLOCKS as usize / 2);
}

/// One operation of those that look at everything.
fn look(pool: &Pool, held: &mut Vec<Block>, rng: &mut Rng) {
    match rng.below(9) {
        0 => drop(told(pool.info())),
        1 => drop(told(pool.verify())),
        2 => drop(told(pool.holders())),
        3 => drop(told(pool.reap())),
        4 => {
            let report = told(pool.recover_with(Offer::Unheld, |offered| {
                assert_eq!(offered.to_vec().len(), BLOCK_SIZE);
                match offered.number() % 4 {
                    0 => Decision::Keep,
                    1 => Decision::Free,
                    2 => Decision::Park,
                    _ => Decision::Leave,
                }
            }));
            held.extend(report.map(|report| report.kept).unwrap_or_default());
        }
        5 => {
            for info in told(pool.blocks()).into_iter().flatten() {
                if let Some((info, data)) = told(pool.copy_block(info.id.number)).flatten() {
                    assert!(data.len() == BLOCK_SIZE && info.used_len <= BLOCK_SIZE);
                }
            }
        }
        6 => {
            let fd = pool.as_fd().try_clone_to_owned().unwrap();
            if let Some(view) = told(PoolView::open_fd(fd)) {
                told(view.verify());
                told(view.info());
            }
        }
        7 => {
            let index = Index::default();
            if let Some(found) = told(index.attach(pool)) {
                for info in told(pool.blocks()).into_iter().flatten() {
                    let _ = found.find(info.uuid);
                }
                told(found.collect(Use::Any, Duration::ZERO));
                told(found.remove_unused(Duration::ZERO));
            }
            told(index.detach(pool.name()));
        }
        _ => pool.flush(),
    }
}

/// Nobody scribbles any more: repairs, and sees that everything is as new.
fn put_right(mut pool: Pool) {
    told(pool.repair()).expect("alone, with nothing held, a pool can be repaired");
    assert!(pool.verify().unwrap().is_sound());
    // Growth takes in what lies behind the counted extents, and that was scribbled on as well.
    while let Ok(block) = pool.allocate(Kind::Recoverable) {
        drop(block);
    }
    pool.repair().unwrap();
    let report = pool.verify().unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!((report.hidden, report.of_the_dead), (0, 0), "{report:?}");
    // All of it can be had again: what was parked goes, and what is free is free for all.
    pool.recover_with(Offer::Unheld, |offered| {
        if offered.is_box() { Decision::Leave } else { Decision::Free }
    })
    .unwrap();
    for offered in pool.recover(Offer::Unheld).unwrap() {
        offered.free().unwrap();
    }
    let mut held = Vec::new();
    let full = loop {
        match pool.allocate(Kind::Transient) {
            Ok(block) => held.push(block),
            Err(error) => break error,
        }
    };
    assert!(matches!(full, Error::Full { blocks: BLOCKS, .. }), "{full}");
    let numbers: HashSet<u32> = held.iter().map(Block::number).collect();
    let lost = pool.blocks().unwrap().find(|block| !numbers.contains(&block.id.number));
    assert_eq!((lost, held.len() as u64, numbers.len() as u64), (None, BLOCKS, BLOCKS));
    assert!(held.iter().all(|block| block.to_vec().unwrap() == [0; BLOCK_SIZE]));
    drop(held);
    pool.close().unwrap();
}

// ---- the tests ----

#[test]
fn p6_scribbles_between_operations_end_in_errors_and_a_repair_puts_all_right() {
    for seed in 0..60 {
        within(Duration::from_secs(30), &format!("seed {seed}"), move || {
            let pool = new_pool(seed);
            let second = second_handle(&pool);
            let mut scribbler = Scribbler::on(&pool, seed);
            let mut rng = Rng::seeded(!seed);
            let mut held = [Vec::new(), Vec::new()];
            for _ in 0..300 {
                if rng.below(4) == 0 {
                    scribbler.scribble();
                }
                let side = rng.below(2) as usize;
                let (pool, held) = ([&pool, &second][side], &mut held[side]);
                if rng.below(8) == 0 {
                    look(pool, held, &mut rng);
                } else {
                    work(pool, held, &mut rng);
                }
            }
            drop(held);
            second.close().unwrap();
            put_right(pool);
        });
    }
}

#[test]
fn p6_scribbles_during_operations_end_in_errors_and_a_repair_puts_all_right() {
    for seed in 0..4 {
        let pool = new_pool(seed);
        let second = second_handle(&pool);
        let stop = Arc::new(AtomicBool::new(false));
        let mut scribbler = Scribbler::on(&pool, seed);
        let until = stop.clone();
        let scribbling = thread::spawn(move || {
            while !until.load(Relaxed) {
                scribbler.scribble();
                thread::yield_now();
            }
        });
        let (told, ended) = mpsc::channel();
        for (i, pool) in [&pool, &second, &pool].into_iter().enumerate() {
            let (pool, stop, told) = (pool.clone(), stop.clone(), told.clone());
            thread::spawn(move || {
                let mut rng = Rng::seeded(seed * 8 + i as u64);
                let mut held = Vec::new();
                while !stop.load(Relaxed) {
                    let step = if i == 2 { look } else { work };
                    step(&pool, &mut held, &mut rng);
                }
                drop((held, pool));
                told.send(()).unwrap();
            });
        }
        drop(told);
        thread::sleep(Duration::from_millis(400));
        stop.store(true, Relaxed);
        let deadline = Instant::now() + Duration::from_secs(30);
        for _ in 0..3 {
            let left = deadline.saturating_duration_since(Instant::now());
            // A worker that panicked hangs up, one that hangs says nothing.
            ended.recv_timeout(left).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
        scribbling.join().unwrap();
        second.close().unwrap();
        within(Duration::from_secs(30), &format!("seed {seed}"), || put_right(pool));
    }
}

#[test]
fn p6_a_count_of_extents_that_went_back_is_an_error_and_not_a_loop() {
    let pool = new_pool(1);
    let mut held: Vec<Block> =
        (0..2 * STEP).map(|_| pool.allocate(Kind::Recoverable).unwrap()).collect();
    let scribbler = Scribbler::on(&pool, 1);
    scribbler.store(LIVE, 1);
    let (mut pool, error) = within(Duration::from_secs(10), "growth", move || {
        let error = pool.allocate(Kind::Recoverable).unwrap_err();
        held.clear();
        (pool, error)
    });
    assert!(error.to_string().contains("1 extents, and there were 2"), "{error}");
    assert!(pool.repair().unwrap().recounted);
    assert!(!pool.repair().unwrap().recounted);
    let blocks: Vec<_> = (0..BLOCKS - u64::from(2 * STEP))
        .map(|_| pool.allocate(Kind::Recoverable).unwrap())
        .collect();
    assert_eq!(pool.info().unwrap().counts.parked, u64::from(2 * STEP));
    drop(blocks);
}

#[test]
fn p6_a_count_of_extents_past_all_limits_is_an_error_that_repair_mends() {
    let mut pool = new_pool(1);
    let number = pool.allocate(Kind::Recoverable).unwrap().number();
    for count in [2, 5, 1 << 40, u64::MAX] {
        Scribbler::on(&pool, 1).store(LIVE, count);
        assert!(matches!(pool.info(), Err(Error::Corrupt { .. })), "{count}");
        assert!(matches!(pool.attach_number(STEP), Err(Error::Corrupt { .. })), "{count}");
        assert!(pool.attach_number(number).is_ok(), "what is known stays reachable");
        assert!(pool.repair().unwrap().recounted);
        assert_eq!(pool.info().unwrap().counts.parked, 1);
    }
}

/// Runs `part` in a thread of its own; panics when it does, or does not end in time.
fn within<T: Send + 'static>(
    limit: Duration,
    what: &str,
    part: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (told, ended) = mpsc::channel();
    let thread = thread::spawn(move || told.send(part()).expect("somebody waits"));
    match ended.recv_timeout(limit) {
        Ok(value) => value,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{what}: does not end"),
        Err(mpsc::RecvTimeoutError::Disconnected) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => unreachable!("it has told"),
        },
    }
}
