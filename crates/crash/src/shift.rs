//! The life of a storm's worker: one session after the other, in each two threads until the first
//! ends it.

use crate::{
    finding::{Check, Finding},
    storm::{Desk, Orders},
    verdict::{Harm, Verdict},
};
use mainstay_base::Rng;
use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    thread,
    time::Duration,
};

/// Threads of a worker.
pub(crate) const THREADS: usize = 2;
const _: () = assert!(THREADS == 2, "a shift has two threads");

/// What one thread does.
pub(crate) trait Work {
    /// One operation, chosen at random.
    fn one(&mut self) -> Check;
    /// Called in the first thread only, when nothing of the process is in flight and it is about
    /// to rest.
    fn before_rest(&mut self);
    /// Gives up everything, in an orderly way.
    fn leave(&mut self) -> Check;
}

struct Shift<'a> {
    orders: &'a Orders,
    desk: &'a Desk,
    ends: AtomicBool,
    /// The rest order that the second thread follows; `GONE` when it has left.
    second_rests: AtomicU32,
}
const GONE: u32 = u32::MAX;

/// The whole life of a worker, as an exit code: session after session.
pub(crate) fn live(
    orders: &Orders,
    row: usize,
    seed: u64,
    verdict: &Verdict,
    mut session: impl FnMut(&mut Rng) -> Check,
) -> i32 {
    let mut rng = Rng::seeded(seed);
    while orders.quit.load(SeqCst) == 0 {
        if let Err(Finding { harm, what }) = session(&mut rng) {
            verdict.report(harm, &format!("worker {row}: {what}"));
            return 1;
        }
    }
    0
}

/// Works until the first thread has done `length` operations, or until all are told to go. `make`
/// is called in each thread, with its number.
pub(crate) fn work<W: Work>(
    orders: &Orders,
    row: usize,
    length: u64,
    make: impl Fn(usize) -> Check<W> + Sync,
) -> Check {
    let shift = Shift {
        orders,
        desk: &orders.desks[row],
        ends: AtomicBool::new(false),
        second_rests: AtomicU32::new(0),
    };
    let make = &make;
    thread::scope(|scope| {
        let second = scope.spawn(|| {
            let done = make(1).and_then(|mut work| shift.second(&mut work));
            shift.ends.store(true, SeqCst);
            shift.second_rests.store(GONE, SeqCst);
            done
        });
        let done = make(0).and_then(|mut work| shift.first(&mut work, length));
        shift.ends.store(true, SeqCst);
        let second = second.join().unwrap_or_else(|_| {
            Err(Finding { harm: Harm::Torn, what: "a thread panicked".into() })
        });
        done.and(second)
    })
}

impl Shift<'_> {
    fn goes_on(&self) -> bool {
        !self.ends.load(SeqCst) && self.orders.quit.load(SeqCst) == 0
    }

    /// The rest order to follow, if there is one. The first thread may have ended the shift just
    /// before: then it waits for the second, and the next shift follows the order.
    fn order(&self) -> Option<u32> {
        let order = self.orders.rest.load(SeqCst);
        (order != 0 && !self.ends.load(SeqCst)).then_some(order)
    }

    fn rest(&self, order: u32) {
        while self.order() == Some(order) {
            thread::sleep(Duration::from_micros(100));
        }
    }

    fn first(&self, work: &mut impl Work, length: u64) -> Check {
        for _ in 0..length {
            if !self.goes_on() {
                break;
            }
            if let Some(order) = self.order() {
                self.await_second(order);
                work.before_rest();
                self.desk.resting.store(order, SeqCst);
                self.rest(order);
            }
            self.desk.light_fuse();
            self.desk.operations.fetch_add(1, SeqCst);
            work.one()?;
        }
        work.leave()
    }

    fn second(&self, work: &mut impl Work) -> Check {
        while self.goes_on() {
            if let Some(order) = self.order() {
                self.second_rests.store(order, SeqCst);
                self.rest(order);
            }
            work.one()?;
        }
        work.leave()
    }

    fn await_second(&self, order: u32) {
        let works = || {
            let rests = self.second_rests.load(SeqCst);
            rests != order && rests != GONE
        };
        while self.order() == Some(order) && works() {
            thread::sleep(Duration::from_micros(50));
        }
    }
}
