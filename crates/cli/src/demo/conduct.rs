//! The parent: starts everybody, kills the recorder, and holds every successor to what was promised.
//!
//! It is the one process that is never killed, so the ledger is here. It keeps a descriptor of the
//! pool for the next recorder and has neither a lease nor a mapping while the rounds run: it cannot
//! be the survivor that repairs anything.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use mainstay_base::Rng;

use super::child::Child;
use super::error::{DemoError, Trying};
use super::ledger::{Faults, Findings, Ledger};
use super::recorder::pool_options;
use super::report::{HandOver, Outcome, Round, grouped, ms};
use super::role::{command, monotonic_ns};
use super::survey::survey;
use super::view::View;
use super::wire::{Message, ReaderReport, Recovered, WatcherReport};
use super::{Plant, Role};

/// The least and the most a recorder is left to work before it is killed.
const WORK_MS: std::ops::RangeInclusive<u64> = 30..=300;
/// When the rounds have taken this long (a very busy machine), recorders get the least time only.
const HURRY_AFTER: Duration = Duration::from_secs(12);
/// In every such round the successor is killed too, while it recovers.
const SECOND_KILL_EVERY: u64 = 4;
/// The most a successor gets before such a second kill.
const SECOND_KILL_MS_MAX: u64 = 12;
/// How long any process may be silent.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the line under the table is drawn anew.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(50);
/// How long the last recorder works after the hand-over.
const EPILOGUE: Duration = Duration::from_millis(200);

/// What to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) kills: u64,
    pub(super) seed: u64,
    pub(super) plant: Option<Plant>,
}

/// Runs the whole demo.
pub(super) fn conduct(plan: Plan, view: View) -> Result<Outcome, DemoError> {
    view.open(plan.kills, plan.seed).trying("write to standard output")?;
    let mut stage = Stage::set(plan, view)?;
    stage.rounds()?;
    stage.hand_over()?;
    stage.curtain()
}

/// Everybody at work, and what is known of them.
struct Stage {
    plan: Plan,
    view: View,
    rng: Rng,
    began: Instant,
    pool: OwnedFd,
    recorder: Child,
    reader: Child,
    watcher: Child,
    ledger: Ledger,
    findings: Findings,
    /// Of the recorder that works now, as far as it has spoken.
    heard: Heard,
    /// Since they were taken last.
    faults: Faults,
    outcome: Outcome,
}

/// What a recorder has said of itself.
#[derive(Clone, Copy, Default, Debug)]
struct Heard {
    recovered: Option<(Recovered, u64)>,
    first_sample_ns: Option<u64>,
    parted: Option<(u64, u64)>,
    sweeps: u64,
}

impl Stage {
    fn set(plan: Plan, view: View) -> Result<Self, DemoError> {
        let began = Instant::now();
        let pool = pool_options().create_memfd().trying("create the pool")?;
        let fd = pool.as_fd().try_clone_to_owned().trying("duplicate the pool's descriptor")?;
        pool.close().trying("close the pool")?;

        let starting = |role, plant| -> Result<Child, DemoError> {
            let child = Child::spawn(role, plant)?;
            child.pass(command::POOL, fd.as_fd())?;
            Ok(child)
        };
        let stall = plan.plant.filter(|plant| *plant == Plant::Stalled);
        let (recorder, reader, watcher) = (
            starting(Role::Recorder, None)?,
            starting(Role::Reader, stall)?,
            starting(Role::Watcher, None)?,
        );
        let mut stage = Self {
            plan,
            view,
            rng: Rng::seeded(plan.seed),
            began,
            pool: fd,
            recorder,
            reader,
            watcher,
            ledger: Ledger::default(),
            findings: Findings::default(),
            heard: Heard::default(),
            faults: Faults::default(),
            outcome: Outcome {
                seed: plan.seed,
                planted: plan.plant.map(Plant::name),
                kills_wanted: plan.kills,
                ..Outcome::default()
            },
        };
        stage.until(|heard| heard.first_sample_ns)?;
        // What the reader did before there was anything to read is of no interest.
        stage.reader_report()?;
        Ok(stage)
    }

    fn rounds(&mut self) -> Result<(), DemoError> {
        let mut kills = 0;
        while kills < self.plan.kills {
            let number = self.outcome.rounds.len() as u64 + 1;
            let round = self.round(number, self.plan.kills - kills)?;
            kills += round.kills;
            self.view.row(&round).trying("write to standard output")?;
            self.outcome.rounds.push(round);
        }
        Ok(())
    }

    fn round(&mut self, number: u64, kills_left: u64) -> Result<Round, DemoError> {
        let worked = self.let_work(number)?;
        let plant = self.plan.plant.filter(|_| number == self.plan.kills.min(2));

        self.recorder.kill()?;
        let killed_ns = monotonic_ns();
        self.replace_recorder(plant)?;
        let mut round = Round { round: number, kills: 1, worked_ms: worked, ..Round::default() };
        round.held = self.ledger.len();

        if number.is_multiple_of(SECOND_KILL_EVERY) && kills_left > 1 {
            self.view.progress(number, "killed again").trying("write to standard output")?;
            std::thread::sleep(Duration::from_micros(self.rng.below(SECOND_KILL_MS_MAX * 1_000)));
            self.recorder.kill()?;
            self.replace_recorder(plant)?;
            round.kills += 1;
        }

        let (recovered, found) = self.until(|heard| heard.recovered)?;
        let first_sample_ns = self.until(|heard| heard.first_sample_ns)?;
        round.recovered = found;
        round.recover_ms = ms(recovered.recover_ns);
        round.back_ms = ms(first_sample_ns.saturating_sub(killed_ns));
        self.attend(&mut round)?;
        Ok(round)
    }

    /// Lets the recorder work for a while; how long it was, in milliseconds.
    fn let_work(&mut self, number: u64) -> Result<f64, DemoError> {
        let span = WORK_MS.end() - WORK_MS.start();
        let mut work = Duration::from_millis(WORK_MS.start() + self.rng.below(span + 1));
        if self.began.elapsed() > HURRY_AFTER {
            work = Duration::from_millis(*WORK_MS.start());
        }
        let began = Instant::now();
        let deadline = began + work;
        while Instant::now() < deadline {
            self.listen(deadline.min(Instant::now() + PROGRESS_INTERVAL))?;
            let what = format!("{} records, sampling", grouped(self.ledger.len()));
            self.view.progress(number, &what).trying("write to standard output")?;
        }
        if self.plan.plant.is_some() {
            // A fault needs a record that was acknowledged in an earlier sweep.
            self.until(|heard| (heard.sweeps >= 2).then_some(()))?;
        }
        Ok(began.elapsed().as_secs_f64() * 1_000.0)
    }

    /// Starts a successor at once, then takes in what its dead predecessor had said.
    fn replace_recorder(&mut self, plant: Option<Plant>) -> Result<(), DemoError> {
        let successor = Child::spawn(Role::Recorder, plant)?;
        successor.pass(command::POOL, self.pool.as_fd())?;
        let dead = std::mem::replace(&mut self.recorder, successor);
        for message in dead.last_words() {
            self.take_in(message);
        }
        self.findings.interrupted();
        self.heard = Heard::default();
        Ok(())
    }

    /// Takes in what the recorder says until `deadline`.
    fn listen(&mut self, deadline: Instant) -> Result<(), DemoError> {
        while let Some(message) = self.recorder.hear(deadline)? {
            self.take_in(message);
            if Instant::now() >= deadline {
                break;
            }
        }
        Ok(())
    }

    /// Takes in what the recorder says until `known` knows.
    fn until<T>(&mut self, known: impl Fn(&Heard) -> Option<T>) -> Result<T, DemoError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(known) = known(&self.heard) {
                return Ok(known);
            }
            match self.recorder.hear(deadline)? {
                Some(message) => self.take_in(message),
                None => return Err(silent(Role::Recorder)),
            }
        }
    }

    fn take_in(&mut self, message: Message) {
        match message {
            Message::Recovered(recovered) => {
                let found = std::mem::take(&mut self.findings);
                self.heard.recovered = Some((recovered, found.len()));
                self.faults += self.ledger.audit(found);
                self.faults.leaked += recovered.leaked;
            }
            Message::FirstSample { at_ns } => self.heard.first_sample_ns = Some(at_ns),
            Message::Parted { last_sample_ns, closed_ns } => {
                self.heard.parted = Some((last_sample_ns, closed_ns));
            }
            Message::Swept { skipped, .. } => {
                self.heard.sweeps += 1;
                self.outcome.sweeps += 1;
                self.outcome.skipped = skipped;
            }
            Message::Kept { .. } => {
                self.outcome.updates += 1;
                self.ledger.note(&message);
            }
            message => {
                if !self.findings.note(&message) {
                    self.ledger.note(&message);
                }
            }
        }
    }

    /// Puts down in `round` what was found wrong since the last time, and how the others fared.
    fn attend(&mut self, round: &mut Round) -> Result<(), DemoError> {
        round.add(std::mem::take(&mut self.faults));
        let reader = self.reader_report()?;
        round.reads_per_s = rate(reader.reads, reader.window_ns);
        round.reader_gap_ms = ms(reader.gap_ns);
        round.reader_stalls = reader.stalls;
        round.rolled_back = reader.rolled_back;
        round.add(Faults { lost: reader.rolled_back, torn: reader.torn, leaked: 0 });
        self.outcome.reads += reader.reads;
        self.outcome.gaps_explained_by = if reader.scheduler { "scheduler" } else { "CPU clock" };
        let watcher = self.watcher_report()?;
        round.watched = [watcher.fewest, watcher.most];
        Ok(())
    }

    fn reader_report(&mut self) -> Result<ReaderReport, DemoError> {
        self.reader.order(command::REPORT)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.reader.hear(deadline)? {
                Some(Message::Reader(report)) => return Ok(report),
                Some(_) => {}
                None => return Err(silent(Role::Reader)),
            }
        }
    }

    fn watcher_report(&mut self) -> Result<WatcherReport, DemoError> {
        self.watcher.order(command::REPORT)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.watcher.hear(deadline)? {
                Some(Message::Watcher(report)) => return Ok(report),
                Some(_) => {}
                None => return Err(silent(Role::Watcher)),
            }
        }
    }

    /// The recorder passes the pool's descriptor to a successor, parks its blocks and leaves.
    fn hand_over(&mut self) -> Result<(), DemoError> {
        let (old_end, new_end) = UnixStream::pair().trying("create a socket pair")?;
        let successor = Child::spawn(Role::Recorder, None)?;
        successor.pass(command::TAKE_OVER, new_end.as_fd())?;
        self.recorder.pass(command::HAND_OVER, old_end.as_fd())?;
        drop((old_end, new_end));

        let (last_sample_ns, closed_ns) = self.until(|heard| heard.parted)?;
        self.recorder.wait()?;
        let held = self.ledger.len();
        let old = std::mem::replace(&mut self.recorder, successor);
        for message in old.last_words() {
            self.take_in(message);
        }
        self.heard = Heard::default();

        let (recovered, _) = self.until(|heard| heard.recovered)?;
        let first_sample_ns = self.until(|heard| heard.first_sample_ns)?;
        self.outcome.hand_over = HandOver {
            held,
            pause_ms: ms(first_sample_ns.saturating_sub(last_sample_ns)),
            close_ms: ms(closed_ns.saturating_sub(last_sample_ns)),
            recover_ms: ms(recovered.recover_ns),
        };
        self.listen(Instant::now() + EPILOGUE)
    }

    /// Everybody leaves in good order, and the parent looks at what is left with its own eyes.
    fn curtain(mut self) -> Result<Outcome, DemoError> {
        self.recorder.order(command::STOP)?;
        self.until(|heard| heard.parted)?;
        self.recorder.wait()?;
        let mut afterwards = Round::default();
        self.attend(&mut afterwards)?;
        for child in [&mut self.reader, &mut self.watcher] {
            child.order(command::STOP)?;
            child.wait()?;
        }

        let census = self.ledger.census();
        let last_look = survey(self.pool)?;
        let mut faults = self.ledger.audit(last_look.findings);
        faults.leaked += last_look.leaked;
        afterwards.add(faults);

        let mut outcome = self.outcome;
        outcome.sampled = census.into_iter().map(|(kind, n)| (kind.plural(), n)).collect();
        outcome.afterwards = afterwards;
        outcome.damage = last_look.damage;
        outcome.details = self.ledger.details().to_vec();
        outcome.seconds = self.began.elapsed().as_secs_f64();
        Ok(outcome.conclude())
    }
}

fn rate(count: u64, window_ns: u64) -> u64 {
    (u128::from(count) * 1_000_000_000 / u128::from(window_ns.max(1))) as u64
}

fn silent(role: Role) -> DemoError {
    DemoError::Silent { role: role.name(), seconds: PATIENCE.as_secs() }
}
