//! Starts everybody, kills the writer in the middle, and judges what the readers saw.

use std::{
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use mainstay::state::Domain;

use super::{
    Result,
    child::Child,
    panel::{Panel, describe},
    report::{Report, in_ms},
    roles::{LIMIT, Role},
};

/// How often the vital signs are shown.
const LINE_INTERVAL: Duration = Duration::from_millis(500);
/// Long enough for every reader to see the last sample, also the one that looks only now and then.
const EPILOGUE: Duration = LIMIT.saturating_mul(3);

/// What to do.
pub(crate) struct Plan<'a> {
    /// Where the states are; made and removed by whoever calls.
    pub(crate) folder: &'a Path,
    /// How long the writer writes.
    pub(crate) length: Duration,
    /// Begins the command line of a process of the show; its role and the folder are added.
    pub(crate) command: &'a dyn Fn() -> Command,
    /// A fault done on purpose: the states are committed one by one.
    pub(crate) one_by_one: bool,
}

/// What was seen.
#[derive(Clone, Default, Debug)]
pub(crate) struct Outcome {
    /// Samples that were written.
    pub(crate) samples: u64,
    pub(crate) seconds: f64,
    /// Writers that were killed.
    pub(crate) kills: u64,
    /// From the kill to the first sample of the successor, starting a process included.
    pub(crate) back_ms: f64,
    /// What each reader counted.
    pub(crate) readers: Vec<(Role, Report)>,
    /// States left when everybody had gone.
    pub(crate) left: u64,
}

impl Outcome {
    fn sum(&self, name: &str) -> u64 {
        self.readers.iter().map(|(_, report)| report.get(name)).sum()
    }

    /// Values that were half old and half new, not of the version they were said to be, or older
    /// than what was read before.
    pub(crate) fn torn(&self) -> u64 {
        self.sum("torn") + self.sum("backwards")
    }

    /// Pairs that were read as from one instant, and were not.
    pub(crate) fn mixed(&self) -> u64 {
        self.sum("mixed")
    }

    /// Changes of the limited view that came sooner than the limit allows.
    pub(crate) fn early(&self) -> u64 {
        self.sum("early")
    }

    /// Readers that did not see the last sample: a wake-up was lost.
    pub(crate) fn behind(&self) -> u64 {
        self.readers.iter().filter(|(_, report)| report.get("last") != self.samples).count() as u64
    }

    /// Whether all is well, and something was proved at all.
    pub(crate) fn is_well(&self) -> bool {
        let faults = self.torn() + self.mixed() + self.early() + self.behind() + self.left;
        let worked = self.readers.iter().all(|(_, report)| report.get("changes") > 1);
        faults == 0 && worked && self.samples > 0 && self.readers.len() == Role::READERS.len()
    }

    /// A line a reader.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.readers
            .iter()
            .map(|(role, report)| {
                let get = |name| report.get(name);
                let told = match role {
                    Role::Poll => format!(
                        "{} looks; saw {} of {} samples",
                        get("looks"),
                        get("changes"),
                        self.samples
                    ),
                    Role::Woken => format!(
                        "woken {} times; saw {} samples, {} us old (p50; {} us p99)",
                        get("wakes"),
                        get("changes"),
                        get("age_p50_us"),
                        get("age_p99_us"),
                    ),
                    Role::Limited => {
                        let apart = get("changes").saturating_sub(1);
                        let seconds = get("span_ms").max(1) as f64 / 1_000.0;
                        format!(
                            "{} looks; {} changes, {:.2} a second; the shortest time between two \
                             {} ms",
                            get("looks"),
                            get("changes"),
                            apart as f64 / seconds,
                            get("shortest_ms"),
                        )
                    }
                    Role::Pair => format!(
                        "{} pairs, each from one instant; read one after the other, {} were not",
                        get("looks"),
                        get("apart"),
                    ),
                    Role::Writer => String::new(),
                };
                format!("{:8} {told}", role.name())
            })
            .collect()
    }

    /// The verdict, for people and for scripts.
    pub(crate) fn last_line(&self) -> String {
        format!(
            "VITALS samples={} kills={} torn={} mixed={} early={} behind={} left={}",
            self.samples,
            self.kills,
            self.torn(),
            self.mixed(),
            self.early(),
            self.behind(),
            self.left,
        )
    }
}

/// Runs the show; `tell` is called with lines for people as they come.
pub(crate) fn conduct(
    plan: &Plan<'_>,
    tell: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<Outcome> {
    let domain = Domain::open(plan.folder)?;
    let start = |role: Role| -> Result<Child> {
        let mut command = (plan.command)();
        command.arg(role.name()).arg(plan.folder);
        if role == Role::Writer && plan.one_by_one {
            command.arg("one-by-one");
        }
        Child::start(role.name(), command)
    };
    let mut writer = start(Role::Writer)?;
    let panel = Panel::subscribe(&domain)?;
    let mut readers = Vec::new();
    for role in Role::READERS {
        readers.push((role, start(role)?));
    }

    let began = Instant::now();
    let mut outcome = Outcome::default();
    let mut before = panel.read()?;
    while began.elapsed() < plan.length {
        thread::sleep(LINE_INTERVAL.min(plan.length.saturating_sub(began.elapsed())));
        let now = panel.read()?;
        tell(&describe(&before, &now))?;
        before = now;
        if outcome.kills == 0 && began.elapsed() >= plan.length / 2 {
            writer.kill()?;
            let killed = Instant::now();
            let (dead, last) = (writer.id(), panel.sample()?);
            writer = start(Role::Writer)?;
            panel.wait_beyond(last)?;
            outcome.kills += 1;
            outcome.back_ms = killed.elapsed().as_micros() as f64 / 1_000.0;
            let back = in_ms(killed.elapsed());
            tell(&format!(
                "         writer {dead} killed (SIGKILL) after sample {last}; {} goes on after \
                 {back}",
                writer.id()
            ))?;
        }
    }
    writer.stop()?;
    outcome.seconds = began.elapsed().as_secs_f64();
    outcome.samples = panel.sample()?;
    thread::sleep(EPILOGUE);
    for (role, child) in readers {
        outcome.readers.push((role, child.stop()?));
    }
    drop(panel);
    outcome.left = domain.list()?.len() as u64;
    Ok(outcome)
}
