//! The process that is killed or frozen, and the states it can be prepared to be in.

use super::{
    board::{Board, NO_SLOT, Rest, role},
    operations::Operation,
};
use crate::{
    cases::Stage,
    child::{self, Child, News},
    pool::contents::{BLOCK_SIZE, Contents},
    stepper::{self, Act},
};
use mainstay_pool::{Block, Error, Kind, Pool, PoolBox, PoolOptions};
use rustix::process::Signal;
use std::{
    os::fd::OwnedFd,
    sync::{atomic::Ordering::Relaxed, mpsc},
    thread::JoinHandle,
};

pub(crate) const SEED_OLD: u64 = 101;
pub(crate) const SEED_NEW: u64 = 102;

/// Where the reaper that freezes beside the victim freezes: in the middle of its sweep.
const HELPER_STOP: u64 = 20;

pub(crate) struct Victim {
    pub(crate) board: &'static Board,
    pub(crate) fd: OwnedFd,
    pool: Option<Pool>,
    pub(crate) guards: Vec<Block>,
    pub(crate) boxes: Vec<PoolBox<Contents>>,
    /// The promise that the operation is about.
    pub(crate) last: usize,
    thread: Option<(mpsc::Sender<()>, JoinHandle<()>)>,
    helper: Option<Child>,
}

/// What every process of a scene opens.
pub(crate) fn options() -> PoolOptions {
    PoolOptions::new("crash", BLOCK_SIZE).growth_step(64).max_blocks(256).seed(7)
}

/// The whole life of a victim: ends stopped, with its operation done, if nothing stops it before.
pub(crate) fn live(
    board: &'static Board,
    fd: OwnedFd,
    operation: &Operation,
    step: u64,
    act: Act,
) -> i32 {
    let mut victim = Victim {
        board,
        fd,
        pool: None,
        guards: Vec::new(),
        boxes: Vec::new(),
        last: 0,
        thread: None,
        helper: None,
    };
    if let Err(e) = (operation.prepare)(&mut victim) {
        victim.fail(&format!("preparing was refused: {e}"));
        return 1;
    }
    board.docket.victim.set_stage(Stage::Running);
    stepper::arm(step, act);
    let done = (operation.run)(&mut victim);
    stepper::disarm();
    match done {
        Ok(()) => {}
        // The survivor may have been faster, or have left nothing, while the victim was frozen.
        Err(Error::Full { .. } | Error::NoSuchBlock { .. } | Error::Exclusive { .. })
            if act == Act::Freeze =>
        {
            board.may_appear.store(0, Relaxed);
        }
        Err(e) => victim.fail(&format!("the operation was refused: {e}")),
    }
    if let Some(pool) = &victim.pool {
        pool.flush();
    }
    if board.docket.victim.stage() == Stage::Running {
        board.docket.victim.set_stage(Stage::Done);
    }
    child::stop_myself();
    0
}

impl Victim {
    pub(crate) fn pool(&self) -> &Pool {
        self.pool.as_ref().expect("operations on blocks are prepared by joining")
    }

    pub(crate) fn fail(&self, why: &str) {
        self.board.docket.victim.fail(why);
    }

    /// A block may be there from now on that is not acknowledged: new, or filled in part from
    /// `old` to `new`.
    pub(crate) fn may_appear(&self, [old, new]: [u64; 2]) {
        self.board.appear_seeds[0].store(old, Relaxed);
        self.board.appear_seeds[1].store(new, Relaxed);
        self.board.may_appear.store(1, Relaxed);
    }

    /// It is acknowledged.
    pub(crate) fn has_appeared(&self) {
        self.board.may_appear.store(0, Relaxed);
    }

    /// A block was allocated: acknowledges it, if it outlives us.
    pub(crate) fn arrived(&mut self, block: Block, kind: Kind) -> Result<(), Error> {
        if kind == Kind::Recoverable {
            self.last = self.board.add(block.id(), 0);
        }
        self.has_appeared();
        let mut bytes = [0; BLOCK_SIZE];
        block.read(0, &mut bytes)?;
        if Contents::from_bytes(&bytes) != Contents::of(0) {
            self.fail("a new block is not zeroed");
        }
        self.guards.push(block);
        Ok(())
    }

    pub(crate) fn join(&mut self) -> Result<(), Error> {
        let fd = self.fd.try_clone().expect("a descriptor is left");
        self.join_through(fd)
    }

    pub(crate) fn join_through(&mut self, fd: OwnedFd) -> Result<(), Error> {
        let pool = options().seed(8).join_fd(fd)?;
        self.board.victim_slot.store(pool.slot(), Relaxed);
        self.pool = Some(pool);
        Ok(())
    }

    pub(crate) fn close(&mut self) -> Result<(), Error> {
        let closed = self.pool.take().map_or(Ok(()), Pool::close);
        self.board.victim_slot.store(NO_SLOT, Relaxed);
        closed
    }

    // ---- states to be in ----

    pub(crate) fn with_magazine(&mut self) -> Result<(), Error> {
        self.join()?;
        let block = self.pool().allocate(Kind::Transient)?;
        // What the next life of this block must not be seen with.
        block.write(0, &[0xD3; BLOCK_SIZE])?;
        block.free()
    }

    pub(crate) fn holding_one(&mut self) -> Result<(), Error> {
        self.join()?;
        let block = self.pool().allocate(Kind::Recoverable)?;
        block.write(0, Contents::of(SEED_OLD).bytes())?;
        self.last = self.board.add(block.id(), SEED_OLD);
        self.guards.push(block);
        Ok(())
    }

    pub(crate) fn holding_clones(&mut self) -> Result<(), Error> {
        self.holding_one()?;
        let block = self.guards[0].try_clone()?;
        self.guards.push(block);
        Ok(())
    }

    pub(crate) fn holding_transient(&mut self) -> Result<(), Error> {
        self.join()?;
        let block = self.pool().allocate(Kind::Transient)?;
        self.guards.push(block);
        Ok(())
    }

    pub(crate) fn holding_box(&mut self) -> Result<(), Error> {
        self.join()?;
        let value = PoolBox::new(self.pool(), &Contents::of(SEED_OLD))?;
        self.last = self.board.add(value.id(), SEED_OLD);
        self.board.promise(self.last).set_boxed();
        self.boxes.push(value);
        Ok(())
    }

    fn hold_all_at_hand(&mut self) -> Result<(), Error> {
        while let Some(block) = self.pool().try_allocate(Kind::Transient)? {
            self.guards.push(block);
        }
        Ok(())
    }

    /// The next allocation must grow the pool.
    pub(crate) fn holding_all_there_is(&mut self) -> Result<(), Error> {
        self.join()?;
        self.hold_all_at_hand()
    }

    /// The pool cannot grow, and what is free is with an idle thread and with the dead.
    pub(crate) fn holding_all_but_idle(&mut self) -> Result<(), Error> {
        self.with_thread()?;
        loop {
            self.hold_all_at_hand()?;
            let info = self.pool().info()?;
            if info.extents == info.extents_max {
                return Ok(());
            }
            let block = self.pool().allocate(Kind::Transient)?;
            self.guards.push(block);
        }
    }

    /// The next free goes over 64 and makes the magazine give half of it back.
    pub(crate) fn with_full_magazine(&mut self) -> Result<(), Error> {
        self.holding_one()?;
        self.fill_magazine()
    }

    pub(crate) fn with_full_magazine_of_nothing_held(&mut self) -> Result<(), Error> {
        self.join()?;
        self.fill_magazine()
    }

    fn fill_magazine(&mut self) -> Result<(), Error> {
        let blocks: Result<Vec<_>, _> =
            (0..64).map(|_| self.pool().allocate(Kind::Transient)).collect();
        let blocks = blocks?;
        self.pool().flush();
        drop(blocks);
        Ok(())
    }

    /// A second thread keeps free blocks at hand, and waits.
    pub(crate) fn with_thread(&mut self) -> Result<(), Error> {
        self.join()?;
        let pool = self.pool().clone();
        let (go, wait) = mpsc::channel();
        let (ready, is_ready) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let blocks: Vec<_> =
                (0..40).filter_map(|_| pool.allocate(Kind::Transient).ok()).collect();
            drop(blocks);
            let _ = ready.send(());
            let _ = wait.recv();
        });
        self.thread = Some((go, thread));
        is_ready.recv().expect("the thread says when it is ready");
        Ok(())
    }

    pub(crate) fn end_thread(&mut self) -> Result<(), Error> {
        if let Some((go, thread)) = self.thread.take() {
            drop(go);
            thread.join().expect("the thread does not panic");
        }
        // Threads that come later must not make what this one left unreachable.
        let pool = self.pool().clone();
        let later = std::thread::spawn(move || drop(pool.allocate(Kind::Transient)));
        later.join().expect("the thread does not panic");
        Ok(())
    }

    pub(crate) fn with_orphans(&mut self) -> Result<(), Error> {
        self.join()?;
        self.pool().reap()?;
        for at in role::ORPHANS {
            self.board.promise(at).set_rest(Rest::Unheld);
        }
        Ok(())
    }

    /// Another process is frozen in the middle of reaping the same slot.
    pub(crate) fn beside_a_frozen_reaper(&mut self) -> Result<(), Error> {
        let mut helper = Child::fork(|| {
            let reaped = self.join().and_then(|()| {
                stepper::arm(HELPER_STOP, Act::Freeze);
                self.pool().reap()
            });
            stepper::disarm();
            i32::from(reaped.is_err())
        });
        if helper.wait() != News::Stopped {
            self.fail("the other reaper did not get to its stop");
        }
        self.helper = Some(helper);
        self.join()
    }

    pub(crate) fn let_helper_go(&mut self) {
        let Some(mut helper) = self.helper.take() else { return };
        helper.signal(Signal::CONT);
        if helper.wait() != News::Exited(0) {
            self.fail("the other reaper did not finish");
        }
    }
}
