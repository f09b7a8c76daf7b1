//! N1 to N3: monitors are told what happened, in order, and may look but not change.

use crate::options;
use mainstay_pool::{
    Block, BlockId, Error, Event, EventKind, Kind, Monitor, Offer, Pool, PoolBox, Uuid,
};
use std::sync::{Arc, Mutex};

type Seen = (EventKind, Option<BlockId>);

/// Writes down everything.
#[derive(Default)]
struct Log(Mutex<Vec<Seen>>);

impl Monitor for Log {
    fn event(&self, event: &Event<'_>) {
        self.0.lock().unwrap().push((event.kind, event.block));
    }
}

impl Log {
    fn on(pool: &Pool) -> Arc<Self> {
        let log = Arc::new(Self::default());
        pool.add_monitor(log.clone()).unwrap();
        log
    }

    fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    fn kinds(&self) -> Vec<EventKind> {
        self.take().into_iter().map(|(kind, _)| kind).collect()
    }
}

/// Does something in each callback.
struct Act<F: Fn(&Event<'_>) + Send + Sync>(F);
impl<F: Fn(&Event<'_>) + Send + Sync> Monitor for Act<F> {
    fn event(&self, event: &Event<'_>) {
        (self.0)(event);
    }
}

#[test]
fn n1_every_operation_is_told_once_and_in_order() {
    use EventKind as E;
    let pool = options(64).create_memfd().unwrap();
    let log = Log::on(&pool);
    assert_eq!(log.take(), [(E::PoolCreate, None)]);
    let block = pool.allocate(Kind::Recoverable).unwrap();
    let id = block.id();
    let extent = BlockId { number: 0, generation: 0 };
    assert_eq!(log.take(), [(E::ExtentCreate, Some(extent)), (E::BlockAllocate, Some(id))]);
    let again = pool.attach(id).unwrap();
    drop(again);
    drop(block);
    let expected = [E::BlockAttach, E::BlockRelease, E::BlockPark].map(|kind| (kind, Some(id)));
    assert_eq!(log.take(), expected);
    pool.attach(id).unwrap().free().unwrap();
    assert_eq!(log.kinds(), [E::BlockAttach, E::BlockFree]);
    let reserved = pool.reserve(Uuid::from_u128(5)).unwrap();
    assert_eq!(log.take(), [(E::BlockReserve, Some(reserved))]);
    let kept = pool.recover(Offer::Unheld).unwrap().next().unwrap().keep().unwrap();
    drop(kept);
    assert_eq!(log.kinds(), [E::BlockRecover, E::BlockPark]);
    drop(pool.allocate(Kind::Transient).unwrap());
    assert_eq!(log.kinds(), [E::BlockAllocate, E::BlockFree]);
}

#[test]
fn n1_the_end_of_the_pool_is_told_last_and_after_all_extents() {
    let pool = options(64).growth_step(64).create_memfd().unwrap();
    let log = Log::on(&pool);
    let blocks: Vec<Block> = (0..200).map(|_| pool.allocate(Kind::Transient).unwrap()).collect();
    let extents = pool.info().unwrap().extents as usize;
    assert!(extents >= 4);
    log.take();
    drop(pool);
    assert_eq!(log.take(), [], "guards are still held");
    drop(blocks);
    let end = log.kinds();
    let frees = vec![EventKind::BlockFree; 200];
    let destroyed = vec![EventKind::ExtentDestroy; extents];
    let expected = [frees, destroyed, vec![EventKind::PoolRelease]].concat();
    assert_eq!(end, expected);
}

#[test]
fn n1_monitors_are_called_in_the_order_they_were_added_and_leave_when_they_are_removed() {
    let pool = options(64).create_memfd().unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let add = |name: &'static str| {
        let order = order.clone();
        let monitor = Arc::new(Act(move |event: &Event<'_>| {
            if event.kind == EventKind::BlockAllocate {
                order.lock().unwrap().push(name);
            }
        }));
        pool.add_monitor(monitor).unwrap()
    };
    let ids = [add("first"), add("second"), add("third")];
    drop(pool.allocate(Kind::Transient).unwrap());
    pool.remove_monitor(ids[1]).unwrap();
    drop(pool.allocate(Kind::Transient).unwrap());
    assert_eq!(*order.lock().unwrap(), ["first", "second", "third", "first", "third"]);
    assert!(matches!(pool.remove_monitor(ids[1]), Err(Error::NoSuchMonitor { .. })));
    pool.remove_monitor(ids[0]).unwrap();
    pool.remove_monitor(ids[2]).unwrap();
    drop(pool.allocate(Kind::Transient).unwrap());
    assert_eq!(order.lock().unwrap().len(), 5);
}

/// What every changing call answers inside of a callback.
fn refusals(pool: &Pool, parked: BlockId, boxed: BlockId) -> Vec<(&'static str, Option<Error>)> {
    let offered = pool.recover(Offer::Unheld);
    vec![
        ("allocate", pool.allocate(Kind::Transient).err()),
        ("try_allocate", pool.try_allocate(Kind::Transient).err()),
        ("allocate_typed", pool.allocate_typed::<crate::worker::Mark>(Kind::Transient).err()),
        ("reserve", pool.reserve(Uuid::from_u128(1)).err()),
        ("attach", pool.attach(parked).err()),
        ("attach_number", pool.attach_number(parked.number).err()),
        ("box attach", PoolBox::<crate::worker::Mark>::attach(pool, boxed).err()),
        ("box new", PoolBox::new(pool, &crate::worker::Mark::of(1)).err()),
        ("recover", offered.map(drop).err()),
        ("recover_with", pool.recover_with(Offer::Unheld, |_| unreachable!()).err()),
        ("reap", pool.reap().err()),
        ("repair", pool.clone().repair().err()),
        ("add_monitor", pool.add_monitor(Arc::new(Log::default())).err()),
    ]
}

#[test]
fn n2_a_monitor_may_look_but_not_change() {
    let pool = options(64).create_memfd().unwrap();
    let parked = pool.allocate(Kind::Recoverable).unwrap().id();
    let boxed = PoolBox::new(&pool, &crate::worker::Mark::of(1)).unwrap().id();
    let held = Arc::new(Mutex::new(Some(pool.allocate(Kind::Recoverable).unwrap())));
    let held_id = held.lock().unwrap().as_ref().unwrap().id();
    let answers = Arc::new(Mutex::new(Vec::new()));
    let monitor = {
        let (pool, answers, held) = (pool.clone(), answers.clone(), held.clone());
        Arc::new(Act(move |event: &Event<'_>| {
            let mut all = refusals(&pool, parked, boxed);
            if let Some(block) = held.lock().unwrap().take_if(|_| event.block.is_some()) {
                all.push(("clone", block.try_clone().err()));
                all.push(("free", block.free().err()));
            }
            // Looking is free.
            assert_eq!(pool.block_info(parked.number).unwrap().id, parked);
            assert!(pool.verify().unwrap().is_sound() && pool.info().is_ok());
            assert!(pool.copy_block(parked.number).unwrap().is_some());
            answers.lock().unwrap().extend(all);
        }))
    };
    // Already the first call, that the pool is there, is inside.
    let id = pool.add_monitor(monitor).unwrap();
    assert_eq!(answers.lock().unwrap().len(), 13);
    drop(pool.allocate(Kind::Recoverable).unwrap());
    assert!(answers.lock().unwrap().len() > 26);
    for (call, answer) in answers.lock().unwrap().iter() {
        assert!(matches!(answer, Some(Error::InsideMonitor { .. })), "{call}: {answer:?}");
    }
    pool.remove_monitor(id).unwrap();
    let state = pool.block_info(held_id.number).unwrap().state;
    assert_eq!(state, mainstay_pool::State::Parked, "the refused free has parked it");
}

#[test]
fn n2_a_guard_dropped_in_a_callback_is_dropped_and_told_when_the_callback_is_through() {
    let pool = options(64).create_memfd().unwrap();
    let kept = Arc::new(Mutex::new(Some(pool.allocate(Kind::Recoverable).unwrap())));
    let kept_id = kept.lock().unwrap().as_ref().unwrap().id();
    let drop_it = {
        let kept = kept.clone();
        Arc::new(Act(move |event: &Event<'_>| {
            if event.kind == EventKind::BlockAllocate {
                kept.lock().unwrap().take();
            }
        }))
    };
    pool.add_monitor(drop_it).unwrap();
    let log = Log::on(&pool);
    log.take();
    let block = pool.allocate(Kind::Transient).unwrap();
    let expected =
        [(EventKind::BlockAllocate, Some(block.id())), (EventKind::BlockPark, Some(kept_id))];
    assert_eq!(log.take(), expected);
}

#[test]
fn n2_a_guard_of_another_pool_dropped_in_a_callback_is_told_there() {
    let (pool, other) = (options(64).create_memfd().unwrap(), options(64).create_memfd().unwrap());
    let theirs = Mutex::new(Some(other.allocate(Kind::Recoverable).unwrap()));
    let log = Log::on(&other);
    log.take();
    pool.add_monitor(Arc::new(Act(move |_: &Event<'_>| drop(theirs.lock().unwrap().take()))))
        .unwrap();
    assert_eq!(log.kinds(), [EventKind::BlockPark]);
}

#[test]
fn n2_the_last_handle_of_another_pool_may_be_dropped_when_a_pool_ends() {
    let pool = options(64).create_memfd().unwrap();
    let other = options(64).create_memfd().unwrap();
    let fd = other.as_fd().try_clone_to_owned().unwrap();
    let slot = other.slot();
    let log = Log::on(&other);
    log.take();
    let other = Mutex::new(Some(other));
    let monitor = Act(move |event: &Event<'_>| {
        if event.kind == EventKind::PoolRelease {
            drop(other.lock().unwrap().take());
        }
    });
    pool.add_monitor(Arc::new(monitor)).unwrap();
    // A lock that is held while monitors are called would never be got again.
    drop(pool);
    assert_eq!(log.kinds(), [EventKind::PoolRelease]);
    assert_eq!(Pool::join_any_fd(fd).unwrap().slot(), slot, "it has ended");
}

#[test]
fn a_panic_in_a_monitor_leaves_the_pool_usable() {
    let pool = options(64).create_memfd().unwrap();
    let armed = Arc::new(Mutex::new(true));
    let monitor = {
        let armed = armed.clone();
        Act(move |event: &Event<'_>| {
            if event.kind == EventKind::BlockAllocate && std::mem::take(&mut *armed.lock().unwrap())
            {
                panic!("a bug of the user's");
            }
        })
    };
    pool.add_monitor(Arc::new(monitor)).unwrap();
    // The mutex guard is a temporary that is dropped before the panic: nothing is poisoned.
    let allocate = std::panic::AssertUnwindSafe(|| pool.allocate(Kind::Recoverable));
    assert!(std::panic::catch_unwind(allocate).is_err());
    pool.allocate(Kind::Recoverable).unwrap().free().unwrap();
}

#[test]
fn events_of_many_threads_all_arrive() {
    let pool = options(64).create_memfd().unwrap();
    let log = Log::on(&pool);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..500 {
                    pool.allocate(Kind::Recoverable).unwrap().free().unwrap();
                }
            });
        }
        for _ in 0..50 {
            // Monitors that come and go disturb nobody.
            let id = pool.add_monitor(Arc::new(Log::default())).unwrap();
            pool.remove_monitor(id).unwrap();
        }
    });
    let kinds = log.kinds();
    let count = |kind| kinds.iter().filter(|seen| **seen == kind).count();
    assert_eq!(count(EventKind::BlockAllocate), 4_000);
    assert_eq!(count(EventKind::BlockFree), 4_000);
}

#[test]
fn a_guard_that_is_dropped_when_its_thread_ends_may_be_told_to_nobody_but_harms_nothing() {
    use std::cell::RefCell;
    thread_local! {
        static KEPT: RefCell<Option<Block>> = const { RefCell::new(None) };
    }
    let pool = options(64).create_memfd().unwrap();
    let _log = Log::on(&pool);
    let id = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // Registered before the pool's own, so it is dropped after them.
            KEPT.with(|_| ());
            let block = pool.allocate(Kind::Recoverable).unwrap();
            let id = block.id();
            KEPT.with(|kept| *kept.borrow_mut() = Some(block));
            id
        });
        thread.join().unwrap()
    });
    assert_eq!(crate::state(&pool, id.number), mainstay_pool::State::Parked);
    pool.close().unwrap();
}
