//! A worker process: two threads that do everything a pool offers, at random, until they are told
//! to rest, to go, or are killed. Between sessions it closes the pool and joins again, through its
//! own descriptor or one that another worker passed on.

use super::{
    ledger::{Ledger, THREADS, holder},
    work::Work,
};
use crate::{
    finding::{Check, Finding},
    pool::contents::BLOCK_SIZE,
    storm::Desk,
    verdict::{Harm, Verdict},
};
use mainstay_base::Rng;
use mainstay_pool::{Pool, PoolOptions, handover};
use std::{
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    thread,
    time::Duration,
};

/// What every process of the storm opens. Small extents and a low limit: it is full often.
pub(crate) fn options() -> PoolOptions {
    PoolOptions::new("storm", BLOCK_SIZE).growth_step(64).max_blocks(512)
}

/// What a worker is born with.
pub(crate) struct Worker<'a> {
    pub(crate) ledger: &'a Ledger,
    pub(crate) verdict: &'a Verdict,
    /// Its row in the ledger.
    pub(crate) row: usize,
    pub(crate) life: u64,
    pub(crate) fd: OwnedFd,
    /// Descriptors are passed on through this pair, which all workers share.
    pub(crate) giver: &'a UnixStream,
    pub(crate) taker: &'a UnixStream,
    pub(crate) seed: u64,
}

/// What the two threads of a session share.
pub(crate) struct Session {
    ends: AtomicBool,
    /// The rest order that the second thread follows; `GONE` when it has left.
    second_rests: AtomicU32,
}
const GONE: u32 = u32::MAX;

impl Worker<'_> {
    /// The whole life, as an exit code.
    pub(crate) fn live(&self) -> i32 {
        let mut rng = Rng::seeded(self.seed);
        while self.ledger.orders.quit.load(SeqCst) == 0 {
            if let Err(Finding { harm, what }) = self.session(&mut rng) {
                self.verdict.report(harm, &format!("worker {}: {what}", self.row));
                return 1;
            }
        }
        0
    }

    fn session(&self, rng: &mut Rng) -> Check {
        let row = &self.ledger.workers[self.row];
        let pool = options().seed(rng.next_u64()).join_fd(self.descriptor())?;
        row.slot.store(pool.slot() + 1, SeqCst);
        let session = Session { ends: AtomicBool::new(false), second_rests: AtomicU32::new(0) };
        let seeds = [rng.next_u64(), rng.next_u64()];
        let done = thread::scope(|scope| {
            let second = scope.spawn(|| {
                let done = self.thread(1, &pool, &session, seeds[1]);
                session.ends.store(true, SeqCst);
                session.second_rests.store(GONE, SeqCst);
                done
            });
            let done = self.thread(0, &pool, &session, seeds[0]);
            session.ends.store(true, SeqCst);
            let second = second.join().unwrap_or_else(|_| {
                Err(Finding { harm: Harm::Torn, what: "a thread panicked".into() })
            });
            done.and(second)
        });
        done?;
        row.slot.store(0, SeqCst);
        // Every guard was given up, so nothing stands in the way of an orderly close.
        Ok(pool.close()?)
    }

    fn thread(&self, index: usize, pool: &Pool, session: &Session, seed: u64) -> Check {
        let me = holder(self.life, index);
        let visits = &self.ledger.workers[self.row].visits[index];
        let mut work = Work::new(pool, self.ledger, visits, me, seed);
        // Sessions of the first thread end by themselves now and then.
        let length = if index == 0 { 2_000 + work.below(20_000) } else { u64::MAX };
        for _ in 0..length {
            if session.ends.load(SeqCst) || self.ledger.orders.quit.load(SeqCst) != 0 {
                break;
            }
            if self.ledger.orders.rest.load(SeqCst) != 0 {
                self.rest(index, pool, session);
            }
            if index == 0 {
                self.desk().light_fuse();
                self.desk().operations.fetch_add(1, SeqCst);
                if work.below(2_000) == 0 {
                    self.pass_on(pool);
                }
            }
            work.one()?;
        }
        work.leave_all()
    }

    /// Follows a rest order: nothing is in flight, and nothing free is kept at hand.
    fn rest(&self, index: usize, pool: &Pool, session: &Session) {
        let order = self.ledger.orders.rest.load(SeqCst);
        // The first thread may have ended the session just before: then it waits for the second,
        // and the next session follows the order.
        let in_force = || {
            order != 0
                && self.ledger.orders.rest.load(SeqCst) == order
                && !session.ends.load(SeqCst)
        };
        if index == 1 {
            session.second_rests.store(order, SeqCst);
        } else {
            let second_works = || {
                let rests = session.second_rests.load(SeqCst);
                rests != order && rests != GONE
            };
            while in_force() && second_works() {
                thread::sleep(Duration::from_micros(50));
            }
            pool.flush();
            self.desk().resting.store(order, SeqCst);
        }
        while in_force() {
            thread::sleep(Duration::from_micros(100));
        }
    }

    fn desk(&self) -> &Desk {
        &self.ledger.orders.desks[self.row]
    }

    /// Sends the pool to whoever joins next; neither side waits.
    fn pass_on(&self, pool: &Pool) {
        // A full socket refuses, and that is all right: there are descriptors enough in it.
        let _ = handover::send_fds(self.giver, b"p", &[pool.as_fd()]);
    }

    /// One that was passed on, if there is one, else its own.
    fn descriptor(&self) -> OwnedFd {
        let passed = handover::receive_fds(self.taker, &mut [0]).ok();
        let passed = passed.and_then(|(_, mut fds)| fds.pop());
        passed.unwrap_or_else(|| self.fd.try_clone().expect("a descriptor is left"))
    }
}

const _: () = assert!(THREADS == 2, "a session has two threads");
