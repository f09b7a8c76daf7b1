//! The storm: worker processes that do everything at random, and die at random.
//!
//! Rounds of some milliseconds. In each, workers work; some are killed, from outside at any
//! instruction or by themselves at a random stop point; some are frozen; survivors work on beside
//! the dead, and recover from them. Then the living rest, and a judge (a newcomer, who reaps)
//! compares the pool with what was acknowledged. The parent has no part in the pool: it forks,
//! kills, and looks at the clock.

mod check;
pub(crate) mod ledger;
mod work;
mod worker;

use crate::{
    child::{self, Child, News},
    shared::Shared,
    stepper,
    verdict::{Harm, Verdict},
};
use check::{Found, Judge};
use ledger::{FUSE_FREEZES, Ledger, WORKERS};
use mainstay_base::Rng;
use rustix::process::Signal;
use std::{
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::atomic::Ordering::SeqCst,
    thread,
    time::{Duration, Instant},
};
use worker::Worker;

/// How long a survivor may take for anything asked of it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Kills that one pool sees before the next is made, so that growth is met again.
const KILLS_PER_POOL: u64 = 60;

/// What a storm has been through.
#[derive(Clone, Copy, Default)]
pub(crate) struct Weather {
    pub(crate) kills: u64,
    pub(crate) kills_at_steps: u64,
    pub(crate) freezes: u64,
    pub(crate) checks: u64,
    pub(crate) operations: u64,
}

/// Runs until there were `kills` kills; with `until_found`, no further than the first finding.
pub(crate) fn run(
    kills: u64,
    seed: u64,
    verdict: &'static Verdict,
    until_found: bool,
    mut progress: impl FnMut(&Weather),
) -> Weather {
    // Lives as long as the process: the stepper refers to it.
    let ledger: &'static Ledger = Box::leak(Box::new(Shared::<Ledger>::new()));
    stepper::tell(&ledger.place);
    let mut rng = Rng::seeded(seed);
    let mut weather = Weather::default();
    let mut lives = 0;
    while weather.kills < kills && !(until_found && verdict.total() > 0) {
        let Some(mut arena) = Arena::new(ledger, verdict, &mut rng, &mut lives) else { break };
        let until = kills.min(weather.kills + KILLS_PER_POOL);
        while weather.kills < until && !(until_found && verdict.total() > 0) {
            if arena.round(&mut weather, until) == Ended::Stuck {
                break;
            }
            progress(&weather);
        }
        arena.end(&mut weather);
        // A pool that is stuck again and again would go on for ever.
        if verdict.count(Harm::Stuck) > 20 {
            break;
        }
    }
    weather
}

#[derive(PartialEq, Eq)]
enum Ended {
    Well,
    Stuck,
}

/// One pool and its workers.
struct Arena<'a> {
    ledger: &'static Ledger,
    verdict: &'static Verdict,
    rng: &'a mut Rng,
    lives: &'a mut u64,
    fd: OwnedFd,
    sockets: (UnixStream, UnixStream),
    workers: [Seat; WORKERS],
    rest_orders: u32,
}

/// A worker's place, and who sits there.
#[derive(Default)]
struct Seat {
    child: Option<Child>,
    life: u64,
    frozen: bool,
}

impl<'a> Arena<'a> {
    fn new(
        ledger: &'static Ledger,
        verdict: &'static Verdict,
        rng: &'a mut Rng,
        lives: &'a mut u64,
    ) -> Option<Self> {
        let pool = worker::options().create_memfd();
        let made = pool.map(|pool| pool.as_fd().try_clone_to_owned());
        let sockets = UnixStream::pair().and_then(|(a, b)| {
            a.set_nonblocking(true)?;
            b.set_nonblocking(true)?;
            Ok((a, b))
        });
        match (made, sockets) {
            (Ok(Ok(fd)), Ok(sockets)) => {
                ledger.clear();
                let workers = Default::default();
                Some(Self { ledger, verdict, rng, lives, fd, sockets, workers, rest_orders: 0 })
            }
            (made, sockets) => {
                verdict
                    .report(Harm::Stuck, &format!("no pool to start with: {made:?} {sockets:?}"));
                None
            }
        }
    }

    fn fd(&self) -> OwnedFd {
        self.fd.try_clone().expect("a descriptor is left")
    }

    /// Work, deaths, more work, rest, judgement.
    fn round(&mut self, weather: &mut Weather, until: u64) -> Ended {
        self.thaw();
        self.fill_seats();
        // Some rounds have no death, so that the living answer for themselves.
        let deaths = self.rng.below(8).div_ceil(2).min(3).min(until - weather.kills);
        let freezes = self.rng.below(4) == 0;
        self.sleep(500, 6_000);
        for _ in 0..deaths {
            self.kill_one(weather);
            self.sleep(0, 1_500);
        }
        if freezes {
            self.freeze_one(weather);
        }
        self.sleep(200, 3_000);
        let ended = self.rest_and_judge(weather, deaths == 0);
        self.ledger.rest.store(0, SeqCst);
        ended
    }

    fn sleep(&mut self, least_us: u64, most_us: u64) {
        thread::sleep(Duration::from_micros(least_us + self.rng.below(most_us - least_us)));
    }

    fn fill_seats(&mut self) {
        for row in 0..WORKERS {
            if self.workers[row].child.is_some() {
                continue;
            }
            *self.lives += 1;
            self.ledger.workers[row].clear();
            let worker = Worker {
                ledger: self.ledger,
                verdict: self.verdict,
                row,
                life: *self.lives,
                fd: self.fd(),
                giver: &self.sockets.0,
                taker: &self.sockets.1,
                seed: self.rng.next_u64(),
            };
            let child = Child::fork(|| worker.live());
            self.workers[row] = Seat { child: Some(child), life: *self.lives, frozen: false };
        }
    }

    /// A random worker that is alive and works.
    fn pick(&mut self) -> Option<usize> {
        let start = self.rng.below(WORKERS as u64) as usize;
        let mut rows = (0..WORKERS).map(|i| (start + i) % WORKERS);
        rows.find(|row| self.workers[*row].child.is_some() && !self.workers[*row].frozen)
    }

    fn kill_one(&mut self, weather: &mut Weather) {
        let Some(row) = self.pick() else { return };
        let by_itself = stepper::COMPILED_IN && self.rng.below(2) == 0;
        if by_itself {
            let steps = 1 + self.rng.below(400);
            self.ledger.workers[row].fuse.store(steps, SeqCst);
        }
        let seat = &mut self.workers[row];
        let Some(child) = &mut seat.child else { return };
        let news = match by_itself {
            // It may be closing or joining, and not see its fuse for a moment.
            true => child.end_within(Duration::from_millis(20)),
            false => None,
        };
        if news.is_none() {
            child.kill();
        }
        weather.kills_at_steps += u64::from(news.is_some());
        weather.kills += 1;
        self.bury(row, news.unwrap_or(News::Killed(0)));
    }

    /// A seat becomes free; whoever left it other than by a kill has failed.
    fn bury(&mut self, row: usize, news: News) {
        match news {
            News::Killed(signal) if [0, Signal::KILL.as_raw()].contains(&signal) => {}
            // It has told why.
            News::Exited(0 | 1) => {}
            news => self.verdict.report(Harm::Stuck, &format!("worker {row} ended: {news:?}")),
        }
        self.workers[row] = Seat::default();
    }

    fn freeze_one(&mut self, weather: &mut Weather) {
        let Some(row) = self.pick() else { return };
        if stepper::COMPILED_IN && self.rng.below(2) == 0 {
            let steps = 1 + self.rng.below(400);
            self.ledger.workers[row].fuse.store(FUSE_FREEZES | steps, SeqCst);
        }
        let deadline = Instant::now() + Duration::from_millis(5);
        let seat = &mut self.workers[row];
        let Some(child) = &mut seat.child else { return };
        loop {
            match child.poll() {
                Some(News::Stopped) => break,
                None if Instant::now() < deadline && stepper::COMPILED_IN => {
                    thread::sleep(Duration::from_micros(100));
                }
                None => child.signal(Signal::STOP),
                Some(news) => return self.bury(row, news),
            }
        }
        self.ledger.workers[row].fuse.store(0, SeqCst);
        seat.frozen = true;
        weather.freezes += 1;
    }

    fn thaw(&mut self) {
        for seat in &mut self.workers {
            if let (true, Some(child)) = (seat.frozen, &seat.child) {
                child.signal(Signal::CONT);
                seat.frozen = false;
            }
        }
    }

    fn rest_and_judge(&mut self, weather: &mut Weather, none_died: bool) -> Ended {
        self.rest_orders += 1;
        self.ledger.rest.store(self.rest_orders, SeqCst);
        if self.await_rest() == Ended::Stuck {
            return Ended::Stuck;
        }
        let none_died = none_died && self.workers.iter().all(|seat| seat.child.is_some());
        self.judge(weather, none_died)
    }

    /// Until all that live and are not frozen have followed the order.
    fn await_rest(&mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        for row in 0..WORKERS {
            loop {
                let seat = &mut self.workers[row];
                let Some(child) = &mut seat.child else { break };
                if seat.frozen || self.ledger.workers[row].resting.load(SeqCst) == self.rest_orders
                {
                    break;
                }
                match child.poll() {
                    None if Instant::now() > deadline => {
                        let threads = child.describe_threads();
                        let what = format!("worker {row} does not rest; its threads: {threads}");
                        self.verdict.report(Harm::Stuck, &what);
                        return Ended::Stuck;
                    }
                    None => thread::sleep(Duration::from_micros(100)),
                    // A fuse that was lit late.
                    Some(News::Stopped) => child.signal(Signal::CONT),
                    Some(news) => {
                        self.bury(row, news);
                        break;
                    }
                }
            }
        }
        Ended::Well
    }

    fn judge(&mut self, weather: &mut Weather, none_died: bool) -> Ended {
        let found = std::array::from_fn(|row| match &self.workers[row] {
            Seat { child: None, .. } => Found::Dead,
            Seat { frozen: true, life, .. } => Found::Frozen { life: *life },
            Seat { life, .. } => Found::Resting { life: *life },
        });
        let judge = Judge { ledger: self.ledger, verdict: self.verdict, found, none_died };
        let fd = self.fd();
        weather.checks += 1;
        let rows = self.ledger.workers.iter();
        weather.operations += rows.map(|row| row.operations.swap(0, SeqCst)).sum::<u64>();
        match child::within(PATIENCE, || check::run(&judge, fd)) {
            Ok(()) => Ended::Well,
            Err(why) => {
                self.verdict.report(Harm::Stuck, &format!("the judge: {why}"));
                Ended::Stuck
            }
        }
    }

    /// All close their pools and go; then everything is nobody's.
    fn end(mut self, weather: &mut Weather) {
        self.ledger.quit.store(1, SeqCst);
        self.thaw();
        for row in 0..WORKERS {
            let Some(child) = &mut self.workers[row].child else { continue };
            match child.end_within(PATIENCE) {
                Some(news) => self.bury(row, news),
                None => {
                    let threads = child.describe_threads();
                    let what = format!("worker {row} does not end; its threads: {threads}");
                    self.verdict.report(Harm::Stuck, &what);
                    self.workers[row] = Seat::default();
                }
            }
        }
        self.judge(weather, true);
    }
}
