//! Storms: worker processes that do everything at random, and die at random.
//!
//! Rounds of some milliseconds. In each, workers work; some are killed, from outside at any
//! instruction or by themselves at a random stop point; some are frozen; survivors work on beside
//! the dead, and recover from them. Then the living rest, and a judge (a newcomer) compares what
//! is there with what was acknowledged. The parent has no part in the work: it forks, kills, and
//! looks at the clock.

use crate::{
    child::{self, Child, News},
    progress::Progress,
    shared::Sharable,
    stepper::{self, Act},
    verdict::{Harm, Verdict},
};
use mainstay_base::Rng;
use rustix::process::Signal;
use std::{
    fmt,
    sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

/// How many workers there are at a time.
pub(crate) const WORKERS: usize = 4;

/// How long a survivor may take for anything asked of it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Kills that one site sees before the next is made, so that beginnings are met again.
const KILLS_PER_SITE: u64 = 60;

/// A storm with so many that are stuck would go on for ever.
const STUCK_MAX: u64 = 20;

/// Top bit of a fuse: freeze instead of die.
const FUSE_FREEZES: u64 = 1 << 63;

/// What a storm has been through.
#[derive(Clone, Copy, Default)]
pub(crate) struct Weather {
    pub(crate) kills: u64,
    kills_at_steps: u64,
    freezes: u64,
    checks: u64,
    operations: u64,
}

/// What one worker and the storm tell each other.
pub(crate) struct Desk {
    /// The rest order that was followed last.
    pub(crate) resting: AtomicU32,
    /// Steps until it dies (or freezes, if the top bit is set); 0 for none.
    fuse: AtomicU64,
    pub(crate) operations: AtomicU64,
}

/// What all workers are told.
pub(crate) struct Orders {
    /// Number of the rest order in force; 0 for none.
    pub(crate) rest: AtomicU32,
    /// All are to close what they have and go.
    pub(crate) quit: AtomicU32,
    pub(crate) desks: [Desk; WORKERS],
}
// SAFETY: atomics only.
unsafe impl Sharable for Orders {}

/// How the judge finds a worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    /// Alive and at rest: everything about it is exact.
    Resting {
        life: u64,
    },
    /// Alive and frozen in the middle of something.
    Frozen {
        life: u64,
    },
    Dead,
}

/// What a suite brings into a storm: something that all workers share, and a judge of it.
pub(crate) trait Site {
    /// Called before a worker starts: nobody has this place any more.
    fn vacate(&self, row: usize);
    /// Whether a worker may stand still where it is: not where others have to wait for it, if there
    /// is such a place.
    fn may_freeze(&self, row: usize) -> bool {
        let _ = row;
        true
    }
    /// Called in a new process: the whole life of a worker, as an exit code.
    fn work(&self, row: usize, life: u64, seed: u64) -> i32;
    /// Called in a new process, while all that live rest: reports what is wrong.
    fn judge(&self, found: [Found; WORKERS], none_died: bool);
    /// Called in a new process, when all workers have left in an orderly way, or are dead.
    fn judge_the_end(&self);
}

impl Orders {
    /// For a new site; nobody works.
    fn clear(&self) {
        self.rest.store(0, SeqCst);
        self.quit.store(0, SeqCst);
        self.desks.iter().for_each(Desk::clear);
    }
}

impl Desk {
    fn clear(&self) {
        self.resting.store(0, SeqCst);
        self.fuse.store(0, SeqCst);
    }

    /// Called by the worker now and then: from here on it may die, or freeze, by itself.
    pub(crate) fn light_fuse(&self) {
        if self.fuse.load(SeqCst) == 0 {
            return;
        }
        let fuse = self.fuse.swap(0, SeqCst);
        let act = if fuse & FUSE_FREEZES != 0 { Act::Freeze } else { Act::Kill };
        stepper::arm(fuse & !FUSE_FREEZES, act);
    }
}

impl fmt::Display for Weather {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kills, kills_at_steps, freezes, checks, operations } = self;
        let outside = kills - kills_at_steps;
        write!(
            f,
            "{kills_at_steps} kills at a random step and {outside} from outside, {freezes} \
             freezes, {checks} checks, over {operations} operations"
        )
    }
}

/// Runs a storm, and prints how it goes and how it went. Returns how many were killed.
pub(crate) fn show<S: Site>(
    kills: u64,
    seed: u64,
    orders: &'static Orders,
    verdict: &'static Verdict,
    make: impl FnMut(&mut Rng) -> Result<S, String>,
) -> u64 {
    let started = Instant::now();
    let mut progress = Progress::new();
    let mut tell = |weather: &Weather| {
        progress.show(&format!("{} of {kills} kills, {weather}", weather.kills));
    };
    let weather = run(kills, seed, orders, verdict, false, make, &mut tell);
    progress.end();
    println!("{weather}, {:.1} s, seed {seed}", started.elapsed().as_secs_f64());
    weather.kills
}

/// Runs until there were `kills` kills; with `until_found`, no further than the first finding.
pub(crate) fn run<S: Site>(
    kills: u64,
    seed: u64,
    orders: &'static Orders,
    verdict: &'static Verdict,
    until_found: bool,
    mut make: impl FnMut(&mut Rng) -> Result<S, String>,
    mut progress: impl FnMut(&Weather),
) -> Weather {
    let mut rng = Rng::seeded(seed);
    let mut weather = Weather::default();
    let mut lives = 0;
    while weather.kills < kills && !(until_found && verdict.total() > 0) {
        orders.clear();
        let site = match make(&mut rng) {
            Ok(site) => site,
            Err(why) => {
                verdict.report(Harm::Stuck, &format!("nothing to start with: {why}"));
                break;
            }
        };
        let (rng, lives) = (&mut rng, &mut lives);
        let seats = Default::default();
        let mut crew = Crew { orders, verdict, rng, lives, site, seats, rest_orders: 0 };
        let until = kills.min(weather.kills + KILLS_PER_SITE);
        while weather.kills < until && !(until_found && verdict.total() > 0) {
            if crew.round(&mut weather, until) == Ended::Stuck {
                break;
            }
            progress(&weather);
        }
        crew.end(&mut weather);
        if verdict.count(Harm::Stuck) > STUCK_MAX {
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

/// One site and its workers.
struct Crew<'a, S: Site> {
    orders: &'static Orders,
    verdict: &'static Verdict,
    rng: &'a mut Rng,
    lives: &'a mut u64,
    site: S,
    seats: [Seat; WORKERS],
    rest_orders: u32,
}

/// A worker's place, and who sits there.
#[derive(Default)]
struct Seat {
    child: Option<Child>,
    life: u64,
    frozen: bool,
}

impl<S: Site> Crew<'_, S> {
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
        self.orders.rest.store(0, SeqCst);
        ended
    }

    fn sleep(&mut self, least_us: u64, most_us: u64) {
        thread::sleep(Duration::from_micros(least_us + self.rng.below(most_us - least_us)));
    }

    fn fill_seats(&mut self) {
        for row in 0..WORKERS {
            if self.seats[row].child.is_some() {
                continue;
            }
            *self.lives += 1;
            self.orders.desks[row].clear();
            self.site.vacate(row);
            let (site, life, seed) = (&self.site, *self.lives, self.rng.next_u64());
            let child = Child::fork(|| site.work(row, life, seed));
            self.seats[row] = Seat { child: Some(child), life, frozen: false };
        }
    }

    /// A random worker that is alive and works.
    fn pick(&mut self) -> Option<usize> {
        let start = self.rng.below(WORKERS as u64) as usize;
        let mut rows = (0..WORKERS).map(|i| (start + i) % WORKERS);
        rows.find(|row| self.seats[*row].child.is_some() && !self.seats[*row].frozen)
    }

    fn kill_one(&mut self, weather: &mut Weather) {
        let Some(row) = self.pick() else { return };
        let by_itself = stepper::COMPILED_IN && self.rng.below(2) == 0;
        if by_itself {
            let steps = 1 + self.rng.below(400);
            self.orders.desks[row].fuse.store(steps, SeqCst);
        }
        let seat = &mut self.seats[row];
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
        self.seats[row] = Seat::default();
    }

    fn freeze_one(&mut self, weather: &mut Weather) {
        let Some(row) = self.pick() else { return };
        let desk = &self.orders.desks[row];
        if stepper::COMPILED_IN && self.rng.below(2) == 0 {
            let steps = 1 + self.rng.below(400);
            desk.fuse.store(FUSE_FREEZES | steps, SeqCst);
        }
        let deadline = Instant::now() + Duration::from_millis(5);
        let seat = &mut self.seats[row];
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
        desk.fuse.store(0, SeqCst);
        if self.site.may_freeze(row) {
            seat.frozen = true;
            weather.freezes += 1;
        } else {
            child.signal(Signal::CONT);
        }
    }

    fn thaw(&mut self) {
        for seat in &mut self.seats {
            if let (true, Some(child)) = (seat.frozen, &seat.child) {
                child.signal(Signal::CONT);
                seat.frozen = false;
            }
        }
    }

    fn rest_and_judge(&mut self, weather: &mut Weather, none_died: bool) -> Ended {
        self.rest_orders += 1;
        self.orders.rest.store(self.rest_orders, SeqCst);
        if self.await_rest() == Ended::Stuck {
            return Ended::Stuck;
        }
        let none_died = none_died && self.seats.iter().all(|seat| seat.child.is_some());
        let found = self.find();
        self.judge(weather, |site| site.judge(found, none_died))
    }

    /// Until all that live and are not frozen have followed the order.
    fn await_rest(&mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        for row in 0..WORKERS {
            loop {
                let seat = &mut self.seats[row];
                let Some(child) = &mut seat.child else { break };
                let rests = self.orders.desks[row].resting.load(SeqCst) == self.rest_orders;
                if seat.frozen || rests {
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

    fn find(&self) -> [Found; WORKERS] {
        std::array::from_fn(|row| match &self.seats[row] {
            Seat { child: None, .. } => Found::Dead,
            Seat { frozen: true, life, .. } => Found::Frozen { life: *life },
            Seat { life, .. } => Found::Resting { life: *life },
        })
    }

    fn judge(&mut self, weather: &mut Weather, judge: impl FnOnce(&S)) -> Ended {
        weather.checks += 1;
        let desks = self.orders.desks.iter();
        weather.operations += desks.map(|desk| desk.operations.swap(0, SeqCst)).sum::<u64>();
        let site = &self.site;
        let judged = child::within(PATIENCE, || {
            judge(site);
            0
        });
        match judged {
            Ok(()) => Ended::Well,
            Err(why) => {
                self.verdict.report(Harm::Stuck, &format!("the judge: {why}"));
                Ended::Stuck
            }
        }
    }

    /// All close what they have and go; then everything is nobody's.
    fn end(mut self, weather: &mut Weather) {
        self.orders.quit.store(1, SeqCst);
        self.thaw();
        for row in 0..WORKERS {
            let Some(child) = &mut self.seats[row].child else { continue };
            match child.end_within(PATIENCE) {
                Some(news) => self.bury(row, news),
                None => {
                    let threads = child.describe_threads();
                    let what = format!("worker {row} does not end; its threads: {threads}");
                    self.verdict.report(Harm::Stuck, &what);
                    self.seats[row] = Seat::default();
                }
            }
        }
        self.judge(weather, Site::judge_the_end);
    }
}
