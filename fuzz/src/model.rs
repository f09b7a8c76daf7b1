//! What a pool must do, in the simplest words, beside a real one.
//!
//! Two handles of one pool stand for two processes (each has a slot of its own), and children made
//! by fork join it and die. After each operation both handles must say what the model says.
//!
//! O1. A block that is live in the model is live in the pool, with its id, UUID, type, length and
//!     data, held by exactly those who hold guards; any other block is free.
//! O2. An id is never given out twice, and an id of a freed block attaches nothing.
//! O3. The dead leave exactly what they held: recoverable blocks as orphans, the rest free.
//! O4. At rest no free block is hidden, and a repair has nothing to do.

mod child;
mod hold;
mod process;

use crate::{image::Sample, world, world::Holdings};
use arbitrary::Arbitrary;
use mainstay_pool::{
    Block, BlockId, Error, Kind, Pool, PoolBox, PoolOptions, PoolView, State, Uuid,
};
use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
};
use zerocopy::IntoBytes;

const BLOCK_SIZE: usize = 40;
const BLOCKS: u64 = 64;
const OPERATIONS_MAX: usize = 96;
/// A fork costs as much as a hundred operations.
const DEATHS_MAX: usize = 2;

/// One operation; `side` is who does it, `pick` chooses among the live, the held or the dead.
#[derive(Arbitrary, Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the fields are explained once, above")]
pub enum Operation {
    /// Allocates blocks.
    Allocate { side: bool, transient: bool, count: u8 },
    /// Allocates without growing.
    TryAllocate { side: bool, transient: bool },
    /// Allocates a typed block.
    Typed { side: bool },
    /// Makes a box.
    Boxed { side: bool },
    /// Makes a parked block.
    Reserve { side: bool },
    /// Attaches a live block in one of the ways there are.
    Attach { side: bool, pick: u8, how: u8 },
    /// Tries to attach by an id that is no more.
    AttachDead { side: bool, pick: u8 },
    /// One more guard.
    Clone { pick: u8 },
    /// Writes through a guard.
    Write { pick: u8, offset: u8, len: u8, seed: u8 },
    /// Notes a length.
    SetUsed { pick: u8, len: u8 },
    /// Lets go: drop, park or free.
    Leave { pick: u8, how: u8 },
    /// Recovers, and decides for each block.
    Recover { side: bool, orphans: bool, decisions: u32 },
    /// Finds everything in an index; perhaps removes what is unused.
    Index { side: bool, remove: bool },
    /// Gives back what is at hand.
    Flush { side: bool },
    /// Leaves the pool and joins it again.
    Rejoin { side: bool },
    /// Repairs, alone or not.
    Repair { side: bool, alone: bool },
    /// A child joins, allocates, attaches, and dies; somebody takes back what it held.
    Die { side: bool, transient: u8, count: u8, pick: u8, how: u8 },
}

/// One life of a block.
#[derive(Clone, Debug)]
struct Life {
    id: BlockId,
    uuid: Uuid,
    kind: Kind,
    data: Vec<u8>,
    used: usize,
    guards: [usize; 2],
    doomed: bool,
    orphan: bool,
    typed: bool,
    exclusive: bool,
}

impl Life {
    fn is_held(&self) -> bool {
        self.guards != [0, 0]
    }
}

enum Guard {
    Bytes(Block),
    Boxed(PoolBox<Sample>),
}

struct Held {
    side: usize,
    number: u32,
    guard: Guard,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ask {
    Park,
    Free,
}

/// The pool, and what it should be.
pub struct Twin {
    file: File,
    pools: [Option<Pool>; 2],
    held: Vec<Held>,
    lives: BTreeMap<u32, Life>,
    dead: Vec<BlockId>,
    /// Of each block the last generation.
    generations: HashMap<u32, u64>,
    reserved: u128,
    deaths: usize,
}

/// Does the operations to a new pool and to the model.
pub fn run(operations: &[Operation]) {
    let before = Holdings::now();
    let mut twin = Twin::new();
    for operation in operations.iter().take(OPERATIONS_MAX) {
        twin.operate(*operation);
    }
    twin.check();
    twin.end();
    assert_eq!(Holdings::now(), before, "descriptors and mappings are given back");
}

impl Twin {
    fn new() -> Self {
        let options = PoolOptions::new("mainstay-fuzz", BLOCK_SIZE).growth_step(8);
        let first = options.max_blocks(BLOCKS).seed(1).create_memfd().expect("a new pool");
        let file = File::from(first.as_fd().try_clone_to_owned().expect("descriptors are left"));
        let second = join(&file, 2);
        Self {
            file,
            pools: [Some(first), Some(second)],
            held: Vec::new(),
            lives: BTreeMap::new(),
            dead: Vec::new(),
            generations: HashMap::new(),
            reserved: 0,
            deaths: 0,
        }
    }

    fn pool(&self, side: usize) -> &Pool {
        self.pools[side].as_ref().expect("both are open between operations")
    }

    fn pool_mut(&mut self, side: usize) -> &mut Pool {
        self.pools[side].as_mut().expect("both are open between operations")
    }

    fn operate(&mut self, operation: Operation) {
        match operation {
            Operation::Allocate { side, transient, count } => {
                for _ in 0..=count % 8 {
                    self.allocate(side.into(), kind(transient));
                }
            }
            Operation::TryAllocate { side, transient } => {
                self.try_allocate(side.into(), kind(transient));
            }
            Operation::Typed { side } => self.typed(side.into()),
            Operation::Boxed { side } => self.boxed(side.into()),
            Operation::Reserve { side } => self.reserve(side.into()),
            Operation::Attach { side, pick, how } => self.attach(side.into(), pick, how),
            Operation::AttachDead { side, pick } => self.attach_dead(side.into(), pick),
            Operation::Clone { pick } => self.clone_guard(pick),
            Operation::Write { pick, offset, len, seed } => self.write(pick, offset, len, seed),
            Operation::SetUsed { pick, len } => self.set_used(pick, len.into()),
            Operation::Leave { pick, how } => self.leave(pick, how),
            Operation::Recover { side, orphans, decisions } => {
                self.recover(side.into(), orphans, decisions);
            }
            Operation::Index { side, remove } => self.index(side.into(), remove),
            Operation::Flush { side } => self.pool(side.into()).flush(),
            Operation::Rejoin { side } => {
                self.close(side.into());
                self.open(side.into());
            }
            Operation::Repair { side, alone } => self.repair(side.into(), alone),
            Operation::Die { side, transient, count, pick, how } => {
                if self.deaths < DEATHS_MAX {
                    self.deaths += 1;
                    self.die(side.into(), transient, count % 6, pick, how);
                }
            }
        }
    }

    // ---- new lives ----

    /// A block that the pool says is new.
    fn born(&mut self, id: BlockId, uuid: Uuid, kind: Kind, guards: [usize; 2]) -> &mut Life {
        if let Some(last) = self.generations.insert(id.number, id.generation) {
            assert!(id.generation > last, "O2: {id} after generation {last}");
        }
        let life = Life {
            id,
            uuid,
            kind,
            data: vec![0; BLOCK_SIZE],
            used: BLOCK_SIZE,
            guards,
            doomed: false,
            orphan: false,
            typed: false,
            exclusive: false,
        };
        let before = self.lives.insert(id.number, life);
        assert!(before.is_none(), "O1: {id} was given out twice: {before:?}");
        self.lives.get_mut(&id.number).expect("just inserted")
    }

    fn take_in(&mut self, side: usize, block: Block) {
        let mut data = vec![1; BLOCK_SIZE];
        block.read(0, &mut data).expect("within the block");
        assert_eq!(data, [0; BLOCK_SIZE], "a new block is zeroed");
        self.born(block.id(), block.uuid(), block.kind(), one(side));
        let number = block.number();
        self.held.push(Held { side, number, guard: Guard::Bytes(block) });
    }

    fn allocate(&mut self, side: usize, kind: Kind) {
        match self.pool(side).allocate(kind) {
            Ok(block) => self.take_in(side, block),
            Err(error) => self.must_be_full(side, &error),
        }
    }

    fn must_be_full(&self, side: usize, error: &Error) {
        assert!(matches!(error, Error::Full { .. }), "{error}");
        let info = self.pool(side).info().expect("it can be looked at");
        assert_eq!((info.blocks(), info.counts.free), (BLOCKS, 0), "it is full: {info:?}");
        let other = 1 << self.pool(1 - side).slot();
        let blocks = self.pool(side).blocks().expect("it can be looked at");
        for block in blocks.filter(|block| block.state == State::Cached) {
            assert_eq!(block.owners, other, "own blocks at hand are used first: {block:?}");
        }
    }

    fn try_allocate(&mut self, side: usize, kind: Kind) {
        if let Some(block) = self.pool(side).try_allocate(kind).expect("it does not grow") {
            return self.take_in(side, block);
        }
        // What the other side has added is seen after a look.
        let free = self.pool(side).info().expect("it can be looked at").counts.free;
        match self.pool(side).try_allocate(kind).expect("it does not grow") {
            Some(block) => self.take_in(side, block),
            None => assert_eq!(free, 0, "a free block is at hand"),
        }
    }

    fn typed(&mut self, side: usize) {
        let sample = Sample { first: 11, second: self.dead.len() as u64 };
        match self.pool(side).allocate_typed::<Sample>(Kind::Recoverable) {
            Ok(block) => {
                block.set(&sample);
                let life = self.born(block.id(), block.uuid(), block.kind(), one(side));
                (life.typed, life.used) = (true, size_of::<Sample>());
                life.data[..size_of::<Sample>()].copy_from_slice(sample.as_bytes());
                let number = block.number();
                self.held.push(Held { side, number, guard: Guard::Bytes(block.into_bytes()) });
            }
            Err(error) => self.must_be_full(side, &error),
        }
    }

    fn boxed(&mut self, side: usize) {
        let sample = Sample { first: 12, second: self.dead.len() as u64 };
        match PoolBox::new(self.pool(side), &sample) {
            Ok(boxed) => {
                let life = self.born(boxed.id(), boxed.uuid(), Kind::Recoverable, one(side));
                (life.typed, life.exclusive, life.used) = (true, true, size_of::<Sample>());
                life.data[..size_of::<Sample>()].copy_from_slice(sample.as_bytes());
                let number = boxed.id().number;
                self.held.push(Held { side, number, guard: Guard::Boxed(boxed) });
            }
            Err(error) => self.must_be_full(side, &error),
        }
    }

    fn reserve(&mut self, side: usize) {
        self.reserved += 1;
        let uuid = Uuid::from_u128(self.reserved);
        match self.pool(side).reserve(uuid) {
            Ok(id) => {
                self.born(id, uuid, Kind::Recoverable, [0, 0]);
            }
            Err(error) => self.must_be_full(side, &error),
        }
    }

    // ---- compare ----

    fn check(&self) {
        for side in 0..2 {
            let pool = self.pool(side);
            for block in pool.blocks().expect("it can be looked at") {
                let copy = pool.copy_block(block.id.number).expect("it can be looked at");
                let Some(life) = self.lives.get(&block.id.number) else {
                    assert!(matches!(block.state, State::Free | State::Cached), "O1: {block:?}");
                    assert_eq!(copy, None, "O1");
                    continue;
                };
                let owners = |side: usize| match life.guards[side] {
                    0 => 0,
                    _ => 1_u32 << self.pool(side).slot(),
                };
                let state = match (life.is_held(), life.orphan) {
                    (true, _) => State::Held,
                    (false, true) => State::Orphan,
                    (false, false) => State::Parked,
                };
                let seen = (block.id, block.uuid, block.kind, block.state, block.owners);
                let owners = owners(0) | owners(1);
                assert_eq!(seen, (life.id, life.uuid, Some(life.kind), state, owners), "O1");
                let seen = (block.doomed, block.exclusive, block.fingerprint != 0, block.used_len);
                assert_eq!(seen, (life.doomed, life.exclusive, life.typed, life.used), "O1");
                let (info, data) = copy.expect("O1: it is live");
                assert_eq!((info, &data), (block, &life.data), "O1");
            }
            let report = pool.verify().expect("it can be checked");
            assert!(report.is_sound(), "O4: {report:?}");
            assert_eq!((report.of_the_dead, report.hidden), (0, 0), "O4: {report:?}");
        }
        let view = PoolView::open_fd(world::again(&self.file)).expect("it is a pool");
        let counts = view.info().expect("it can be looked at").counts;
        let live = counts.held + counts.parked + counts.orphaned;
        assert_eq!(live, self.lives.len() as u64, "O1: {counts:?}");
    }

    fn end(mut self) {
        self.close(1);
        self.close(0);
        let view = PoolView::open_fd(world::again(&self.file)).expect("it is a pool");
        let counts = view.info().expect("it can be looked at").counts;
        assert_eq!((counts.held, counts.cached), (0, 0), "O4: whoever leaves takes nothing along");
        assert_eq!(counts.parked + counts.orphaned, self.lives.len() as u64, "O1: {counts:?}");
    }
}

fn join(file: &File, seed: u64) -> Pool {
    let options = PoolOptions::new("mainstay-fuzz", BLOCK_SIZE).seed(seed);
    options.join_fd(world::again(file)).expect("it is a pool, and two slots are taken")
}

fn kind(transient: bool) -> Kind {
    if transient { Kind::Transient } else { Kind::Recoverable }
}

fn one(side: usize) -> [usize; 2] {
    if side == 0 { [1, 0] } else { [0, 1] }
}

fn index_of(len: usize, pick: u8) -> Option<usize> {
    usize::from(pick).checked_rem(len)
}

fn nth<T>(mut all: impl ExactSizeIterator<Item = T>, pick: u8) -> Option<T> {
    let at = index_of(all.len(), pick)?;
    all.nth(at)
}
