//! Any sequence of operations, by two processes, against a model that is nothing but a map.

use crate::{assert_sound, options};
use mainstay_pool::{Block, BlockId, Kind, Offer, Pool, State};
use proptest::{collection::vec, prelude::*, sample::Index};
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Op {
    Allocate { by: usize, transient: bool },
    TryAllocate { by: usize },
    Reserve { by: usize, uuid: u64 },
    Attach { by: usize, which: Index },
    Clone { guard: Index },
    Write { guard: Index, value: u8 },
    Drop { guard: Index },
    Free { guard: Index },
    RecoverOne { by: usize, which: Index },
    FreeUnheld { by: usize },
    Flush { by: usize },
    Rejoin,
}

fn op() -> impl Strategy<Value = Op> {
    let by = || 0..2_usize;
    prop_oneof![
        6 => (by(), any::<bool>()).prop_map(|(by, transient)| Op::Allocate { by, transient }),
        1 => by().prop_map(|by| Op::TryAllocate { by }),
        1 => (by(), any::<u64>()).prop_map(|(by, uuid)| Op::Reserve { by, uuid }),
        6 => (by(), any::<Index>()).prop_map(|(by, which)| Op::Attach { by, which }),
        3 => any::<Index>().prop_map(|guard| Op::Clone { guard }),
        4 => (any::<Index>(), any::<u8>()).prop_map(|(guard, value)| Op::Write { guard, value }),
        6 => any::<Index>().prop_map(|guard| Op::Drop { guard }),
        3 => any::<Index>().prop_map(|guard| Op::Free { guard }),
        2 => (by(), any::<Index>()).prop_map(|(by, which)| Op::RecoverOne { by, which }),
        1 => by().prop_map(|by| Op::FreeUnheld { by }),
        1 => by().prop_map(|by| Op::Flush { by }),
        1 => Just(Op::Rejoin),
    ]
}

/// What the model knows of a live block.
#[derive(Clone, PartialEq, Debug)]
struct Live {
    transient: bool,
    doomed: bool,
    value: u8,
    /// Guards of each process.
    guards: [usize; 2],
}

impl Live {
    fn new(transient: bool) -> Self {
        Self { transient, doomed: false, value: 0, guards: [0, 0] }
    }

    fn is_held(&self) -> bool {
        self.guards != [0, 0]
    }
}

struct World {
    pools: [Option<Pool>; 2],
    guards: Vec<(usize, Block)>,
    live: BTreeMap<BlockId, Live>,
    /// Every id there ever was: attaching a dead one must fail.
    ever: Vec<BlockId>,
}

const BLOCKS: u64 = 48;
const SIZE: usize = 40;

impl World {
    fn new() -> Self {
        let first = options(SIZE).growth_step(16).max_blocks(BLOCKS).create_memfd().unwrap();
        let second = Pool::join_any_fd(first.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let pools = [Some(first), Some(second)];
        Self { pools, guards: Vec::new(), live: BTreeMap::new(), ever: Vec::new() }
    }

    fn pool(&self, by: usize) -> &Pool {
        self.pools[by].as_ref().expect("both are open between operations")
    }

    fn guard(&mut self, guard: Index) -> Option<usize> {
        (!self.guards.is_empty()).then(|| guard.index(self.guards.len()))
    }

    fn appear(&mut self, by: usize, block: Block, transient: bool) {
        let id = block.id();
        assert_eq!(block.to_vec().unwrap(), [0; SIZE], "a new block is zeros");
        let mut live = Live::new(transient);
        live.guards[by] = 1;
        assert_eq!(self.live.insert(id, live), None, "handed out twice");
        assert!(!self.ever.contains(&id), "an id names one life");
        self.ever.push(id);
        self.guards.push((by, block));
    }

    fn leave(&mut self, guard: usize, free: bool) {
        let (by, block) = self.guards.swap_remove(guard);
        let id = block.id();
        if free {
            block.free().unwrap()
        } else {
            drop(block)
        }
        let live = self.live.get_mut(&id).expect("it was held");
        live.guards[by] -= 1;
        live.doomed |= free;
        if !live.is_held() && (live.doomed || live.transient) {
            self.live.remove(&id);
        }
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Allocate { by, transient } => {
                let kind = if transient { Kind::Transient } else { Kind::Recoverable };
                match self.pool(by).allocate(kind) {
                    Ok(block) => self.appear(by, block, transient),
                    // What the other keeps at hand may be all that is free.
                    Err(mainstay_pool::Error::Full { .. }) => {
                        let free = BLOCKS - self.live.len() as u64;
                        let cached = self.pool(by).info().unwrap().counts.cached;
                        assert_eq!(free, cached, "refused while a block was free");
                    }
                    Err(e) => panic!("{e}"),
                }
            }
            Op::TryAllocate { by } => {
                let before = self.pool(by).info().unwrap().extents;
                if let Some(block) = self.pool(by).try_allocate(Kind::Recoverable).unwrap() {
                    self.appear(by, block, false);
                }
                assert_eq!(self.pool(by).info().unwrap().extents, before);
            }
            Op::Reserve { by, uuid } => {
                let uuid = mainstay_pool::Uuid::from_u64_pair(uuid, self.ever.len() as u64);
                if let Ok(id) = self.pool(by).reserve(uuid) {
                    assert_eq!(self.pool(by).block_info(id.number).unwrap().uuid, uuid);
                    self.live.insert(id, Live::new(false));
                    self.ever.push(id);
                }
            }
            Op::Attach { by, which } if !self.ever.is_empty() => {
                let id = self.ever[which.index(self.ever.len())];
                let expected = self.live.get(&id).is_some_and(|live| !live.doomed);
                let attached = self.pool(by).attach(id);
                assert_eq!(attached.is_ok(), expected, "{id}: {attached:?}");
                if let Ok(block) = attached {
                    self.live.get_mut(&id).unwrap().guards[by] += 1;
                    self.guards.push((by, block));
                }
            }
            Op::Clone { guard } => {
                let Some(guard) = self.guard(guard) else { return };
                let (by, block) = &self.guards[guard];
                let (by, clone) = (*by, block.try_clone().unwrap());
                self.live.get_mut(&clone.id()).unwrap().guards[by] += 1;
                self.guards.push((by, clone));
            }
            Op::Write { guard, value } => {
                let Some(guard) = self.guard(guard) else { return };
                let block = &self.guards[guard].1;
                block.write(0, &[value; SIZE]).unwrap();
                self.live.get_mut(&block.id()).unwrap().value = value;
            }
            Op::Drop { guard } => {
                if let Some(guard) = self.guard(guard) {
                    self.leave(guard, false);
                }
            }
            Op::Free { guard } => {
                if let Some(guard) = self.guard(guard) {
                    self.leave(guard, true);
                }
            }
            Op::RecoverOne { by, which } => {
                let mut offered: Vec<_> = self.pool(by).recover(Offer::Unheld).unwrap().collect();
                let unheld = self.live.values().filter(|live| !live.is_held()).count();
                assert_eq!(offered.len(), unheld);
                if !offered.is_empty() {
                    let at = which.index(offered.len());
                    let block = offered.swap_remove(at).keep().unwrap();
                    self.live.get_mut(&block.id()).unwrap().guards[by] += 1;
                    self.guards.push((by, block));
                }
            }
            Op::FreeUnheld { by } => {
                for offered in self.pool(by).recover(Offer::Unheld).unwrap() {
                    offered.free().unwrap();
                }
                self.live.retain(|_, live| live.is_held());
            }
            Op::Flush { by } => self.pool(by).flush(),
            Op::Rejoin => {
                // The second process closes the pool in good order, and comes back.
                while let Some(guard) = self.guards.iter().position(|(by, _)| *by == 1) {
                    self.leave(guard, false);
                }
                self.pools[1].take().unwrap().close().unwrap();
                let fd = self.pool(0).as_fd().try_clone_to_owned().unwrap();
                self.pools[1] = Some(Pool::join_any_fd(fd).unwrap());
            }
            Op::Attach { .. } => {}
        }
    }

    /// Compares the pool, as anybody sees it, with the model.
    fn check(&self) {
        let pool = self.pool(0);
        let mut live = 0;
        for info in pool.blocks().unwrap() {
            let is_live = !matches!(info.state, State::Free | State::Cached);
            live += usize::from(is_live);
            let Some(model) = self.live.get(&info.id) else {
                assert!(!is_live, "{info:?} should be free");
                continue;
            };
            let state = if model.is_held() { State::Held } else { State::Parked };
            assert_eq!((info.state, info.doomed), (state, model.doomed), "{info:?}");
            assert_eq!(info.kind == Some(Kind::Transient), model.transient);
            for by in 0..2 {
                let owned = info.owners & 1 << self.pool(by).slot() != 0;
                assert_eq!(owned, model.guards[by] > 0, "{info:?}");
            }
            let (_, data) = pool.copy_block(info.id.number).unwrap().unwrap();
            assert_eq!(data, [model.value; SIZE]);
        }
        assert_eq!(live, self.live.len());
        assert_sound(pool);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_sequence_of_operations_does_what_a_simple_model_does(ops in vec(op(), 1..150)) {
        let mut world = World::new();
        for op in ops {
            world.run(op);
            world.check();
        }
        let World { pools: [first, second], guards, mut live, .. } = world;
        drop(guards);
        live.retain(|_, live| !live.doomed && !live.transient);
        second.unwrap().close().unwrap();
        let pool = first.unwrap();
        pool.flush();
        let info = pool.info().unwrap();
        prop_assert_eq!(info.counts.parked, live.len() as u64);
        prop_assert_eq!(info.counts.free, info.blocks() - live.len() as u64);
    }
}
