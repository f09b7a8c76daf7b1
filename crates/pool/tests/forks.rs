//! Children made by fork: they have nothing of the pool, are told so, and disturb nobody.
//!
//! A program of its own, because a fork copies whatever locks other tests hold at that moment: here
//! one test runs at a time.

#![allow(clippy::unwrap_used, reason = "helpers of tests; a test may fail at any of them")]

use mainstay_pool::{Block, Error, Kind, Monitor, Offer, Pool, PoolBox, PoolOptions, State};
use std::{
    os::unix::process::ExitStatusExt,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitStatus,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `body` in a child; true when it returned true and died of nothing else.
fn in_child(body: impl FnOnce() -> bool) -> bool {
    // SAFETY: no other test runs, so no lock of ours is held by a thread that the child lacks; the
    // child ends by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: a child that hangs is ended, and the test fails.
        unsafe { libc::alarm(20) };
        let code = match catch_unwind(AssertUnwindSafe(body)) {
            Ok(true) => 0,
            Ok(false) => 1,
            Err(_) => 2,
        };
        // SAFETY: ends the child without the parent's destructors.
        unsafe { libc::_exit(code) }
    }
    assert!(child > 0);
    let mut status = 0;
    // SAFETY: waits for the child just made.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    let status = ExitStatus::from_raw(status);
    if !status.success() {
        eprintln!("the child ended with {status}");
    }
    status.success()
}

fn pool() -> Pool {
    PoolOptions::new("forked", 64).reserve(256 << 20).create_memfd().unwrap()
}

fn forked<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Forked { .. }))
}

#[test]
fn a_child_is_told_that_it_has_no_pool_by_every_call() {
    let _alone = alone();
    let pool = pool();
    let block = pool.allocate(Kind::Recoverable).unwrap();
    let (id, uuid) = (block.id(), block.uuid());
    assert!(in_child(|| {
        forked(pool.allocate(Kind::Recoverable))
            && forked(pool.try_allocate(Kind::Recoverable))
            && forked(pool.reserve(uuid))
            && forked(pool.attach(id))
            && forked(pool.attach_number(id.number))
            && forked(pool.attach_uuid(uuid))
            && forked(pool.recover(Offer::Orphans))
            && forked(pool.recover_with(Offer::Orphans, |_| unreachable!()))
            && forked(pool.reap())
            && forked(pool.verify())
            && forked(pool.clone().repair())
            && forked(pool.info())
            && forked(pool.holders())
            && forked(pool.blocks().map(drop))
            && forked(pool.block_info(id.number))
            && forked(pool.copy_block(id.number))
            && forked(block.try_clone())
            && forked(block.read(0, &mut [0; 4]))
            && forked(block.write(0, b"nobody's"))
            && forked(block.to_vec())
            && forked(block.free())
    }));
    let mut data = [0; 4];
    let again = pool.attach(id).unwrap();
    again.read(0, &mut data).unwrap();
    assert_eq!(data, [0; 4]);
}

#[test]
fn what_a_child_drops_stays_with_the_parent() {
    let _alone = alone();
    let pool = pool();
    let (block, transient) =
        (pool.allocate(Kind::Recoverable).unwrap(), pool.allocate(Kind::Transient).unwrap());
    let clone = block.try_clone().unwrap();
    let numbers = [block.number(), transient.number()];
    let slot = pool.slot();
    let cached = pool.info().unwrap().counts.cached;
    let mut all = Some((pool, block, transient, clone));
    assert!(in_child(|| {
        let (pool, block, transient, clone) = all.take().unwrap();
        drop((transient, clone));
        pool.flush();
        let done = block.park();
        drop(pool);
        forked(done)
    }));
    let (pool, block, transient, clone) = all.unwrap();
    for number in numbers {
        let info = pool.block_info(number).unwrap();
        assert_eq!((info.state, info.owners), (State::Held, 1 << slot));
    }
    assert_eq!(pool.info().unwrap().counts.cached, cached);
    assert!(pool.holders().unwrap()[0].alive);
    block.write(0, b"mine").unwrap();
    drop((block, transient));
    assert_eq!(pool.block_info(numbers[0]).unwrap().state, State::Held, "the clone counts");
    drop(clone);
    pool.close().unwrap();
}

#[test]
fn a_child_may_touch_no_memory_of_the_pool_and_says_so() {
    let _alone = alone();
    let pool = pool();
    let block = pool.allocate(Kind::Recoverable).unwrap();
    let mark = PoolBox::new(&pool, &Mark { value: 7 }).unwrap();
    let typed = pool.allocate_typed::<Mark>(Kind::Transient).unwrap();
    let panics = |call: &dyn Fn()| catch_unwind(AssertUnwindSafe(call)).is_err();
    assert!(in_child(|| {
        std::panic::set_hook(Box::new(|_| {}));
        panics(&|| _ = block.id())
            && panics(&|| _ = block.uuid())
            && panics(&|| _ = block.as_atomics())
            && panics(&|| _ = block.used_len())
            && panics(&|| _ = mark.value)
            && panics(&|| _ = typed.get())
            && panics(&|| typed.set(&Mark { value: 1 }))
            && block.number() < u32::MAX
    }));
    assert_eq!(mark.value, 7);
}

#[derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)]
#[repr(C)]
struct Mark {
    value: u64,
}
impl mainstay_pool::Record for Mark {
    const NAME: &'static str = "test.fork/1";
}

#[test]
fn a_child_joins_anew_and_shares_the_pool_with_its_parent() {
    let _alone = alone();
    let pool = pool();
    let block = pool.allocate(Kind::Recoverable).unwrap();
    let id = block.id();
    assert!(in_child(|| {
        let mine = Pool::join_any_fd(pool.as_fd().try_clone_to_owned().unwrap()).unwrap();
        let shared = mine.attach(id).unwrap();
        shared.write(0, b"from the child").unwrap();
        let new = mine.allocate(Kind::Recoverable).unwrap();
        let differs = mine.slot() != pool.slot() && new.number() != id.number;
        drop((shared, new));
        differs && mine.close().is_ok()
    }));
    let mut data = [0; 14];
    block.read(0, &mut data).unwrap();
    assert_eq!(&data, b"from the child");
    assert_eq!(pool.info().unwrap().counts.parked, 1);
    assert_eq!(pool.reap().unwrap().slots, 0, "the child has closed it in good order");
}

#[test]
fn a_child_does_not_keep_its_dead_parents_lease() {
    let _alone = alone();
    let pool = pool();
    let fd = pool.as_fd().try_clone_to_owned().unwrap();
    // The child joins and dies; before, it makes a child of its own, which lives on.
    let mut ends = [0; 2];
    // SAFETY: the array has room for two descriptors.
    assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
    assert!(in_child(|| {
        let mine = Pool::join_any_fd(fd.try_clone().unwrap()).unwrap();
        let held = mine.allocate(Kind::Recoverable).unwrap();
        held.write(0, b"left").unwrap();
        // SAFETY: the grandchild only waits, and ends when the pipe does.
        if unsafe { libc::fork() } == 0 {
            // SAFETY: plain system calls on descriptors that are ours.
            unsafe {
                libc::close(ends[1]);
                libc::read(ends[0], [0_u8; 1].as_mut_ptr().cast(), 1);
                libc::_exit(0)
            }
        }
        // Dies as by SIGKILL: nothing is given up in good order.
        std::mem::forget((held, mine));
        true
    }));
    assert_eq!(pool.reap().unwrap().orphaned, 1, "the grandchild must not hold it");
    // SAFETY: lets the grandchild end.
    unsafe {
        libc::close(ends[1]);
        libc::close(ends[0]);
    }
}

#[test]
fn a_thread_of_a_child_that_ends_gives_nothing_of_the_parent_back() {
    let _alone = alone();
    let pool = pool();
    drop(pool.allocate(Kind::Transient).unwrap());
    let cached = pool.info().unwrap().counts.cached;
    assert!(cached > 0);
    let copy = pool.clone();
    assert!(in_child(|| {
        let refused = std::thread::spawn(move || forked(copy.allocate(Kind::Transient)));
        refused.join().unwrap()
    }));
    assert_eq!(pool.info().unwrap().counts.cached, cached);
    assert!(pool.verify().unwrap().is_sound());
}

#[test]
fn a_child_calls_no_monitor_of_its_parent() {
    struct Refuse;
    impl Monitor for Refuse {
        fn event(&self, event: &mainstay_pool::Event<'_>) {
            assert_eq!(std::process::id(), PARENT.load(std::sync::atomic::Ordering::Relaxed));
            assert_eq!(event.pool_name, "forked");
        }
    }
    static PARENT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let _alone = alone();
    PARENT.store(std::process::id(), std::sync::atomic::Ordering::Relaxed);
    let pool = pool();
    pool.add_monitor(Arc::new(Refuse)).unwrap();
    let block: Block = pool.allocate(Kind::Recoverable).unwrap();
    let mut both = Some((pool, block));
    assert!(in_child(|| {
        let (pool, block) = both.take().unwrap();
        drop(block);
        drop(pool);
        true
    }));
    drop(both);
}

#[test]
fn children_made_while_other_threads_lease_and_probe_leak_no_lease() {
    let _alone = alone();
    let pool = pool();
    let fd = pool.as_fd().try_clone_to_owned().unwrap();
    let mut ends = [0; 2];
    // SAFETY: the array has room for two descriptors.
    assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let joined = Pool::join_any_fd(fd.try_clone().unwrap()).unwrap();
                    joined.holders().unwrap();
                    joined.close().unwrap();
                }
            });
        }
        for _ in 0..60 {
            // SAFETY: the child only waits, and ends when the pipe does.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: plain system calls, which are allowed after a fork.
                unsafe {
                    libc::close(ends[1]);
                    libc::read(ends[0], [0_u8; 1].as_mut_ptr().cast(), 1);
                    libc::_exit(0)
                }
            }
            assert!(child > 0);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    // Sixty children live; a lease that leaked into one would be held.
    let alive = pool.holders().unwrap().into_iter().filter(|holder| holder.alive).count();
    // SAFETY: ends the children and waits for them.
    unsafe {
        libc::close(ends[1]);
        libc::close(ends[0]);
        while libc::waitpid(-1, std::ptr::null_mut(), 0) > 0 {}
    }
    assert_eq!(alive, 1, "only we have it open");
}
