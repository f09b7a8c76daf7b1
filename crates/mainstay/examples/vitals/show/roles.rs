//! What each process of the show does.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use mainstay::state::{Domain, MultiTransaction, RetryPolicy, State, together};
use rustix::time::{ClockId, clock_gettime};

use super::{
    Result,
    child::{Stop, say_and_leave},
    panel::reader,
    report::{Ages, Report},
    sample,
    values::{Cpu, Disks, Interfaces, Memory, Pressure, Vital},
};

/// 250 samples a second.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(4);
/// How often the process that polls looks: more often than there are samples.
const POLL_INTERVAL: Duration = Duration::from_millis(1);
/// The limited view changes no more often than this: five times a second.
pub(crate) const LIMIT: Duration = Duration::from_millis(200);
/// How often the limited view is looked at, as a screen would be drawn.
const FRAME_INTERVAL: Duration = Duration::from_millis(10);
/// A sleeping reader looks so often whether it is to stop.
const NAP: Duration = Duration::from_millis(50);

/// How far apart the states are written when they are written one by one.
const SPLIT: Duration = Duration::from_micros(200);
/// The pair is read so often, then the CPU is left to others for a moment.
const PAIRS_BETWEEN_PAUSES: u32 = 1_000;
const PAIR_PAUSE: Duration = Duration::from_millis(1);

/// A process of the show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    Writer,
    Poll,
    Woken,
    Limited,
    Pair,
}

impl Role {
    pub(crate) const READERS: [Self; 4] = [Self::Poll, Self::Woken, Self::Limited, Self::Pair];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Writer => "writer",
            Self::Poll => "poll",
            Self::Woken => "woken",
            Self::Limited => "limited",
            Self::Pair => "pair",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        let all = [Self::Writer].into_iter().chain(Self::READERS);
        all.into_iter().find(|role| role.name() == name)
    }
}

/// Is this process until told to stop.
pub(crate) fn play(role: Role, folder: &Path, one_by_one: bool) -> Result<()> {
    let stop = Stop::listen();
    let domain = Domain::open(folder)?;
    let report = match role {
        Role::Writer => write(&domain, &stop, one_by_one),
        Role::Poll => poll(&domain, &stop),
        Role::Woken => sleep(&domain, &stop),
        Role::Limited => look_at_limited(&domain, &stop),
        Role::Pair => compare(&domain, &stop),
    }?;
    drop(domain);
    say_and_leave(&report, folder);
    Ok(())
}

/// Samples the machine, and makes each sample visible in all five states at one instant.
fn write(domain: &Domain, stop: &Stop, one_by_one: bool) -> Result<Report> {
    let cpu: State<Cpu> = domain.writer(Cpu::STATE)?;
    let memory: State<Memory> = domain.writer(Memory::STATE)?;
    let pressure: State<Pressure> = domain.writer(Pressure::STATE)?;
    let disks: State<Disks> = domain.writer(Disks::STATE)?;
    let interfaces: State<Interfaces> = domain.writer(Interfaces::STATE)?;
    let mut report = Report::default();
    let mut next = Instant::now();
    while !stop.is_asked() {
        let vitals = sample::take();
        // A successor counts on from what its killed predecessor has committed. Whatever that one
        // had begun to commit is finished or undone by then: at worst this has to begin again.
        if one_by_one {
            let vitals = vitals.sealed(cpu.read()?.sample + 1, monotonic_ns());
            cpu.replace(&vitals.cpu)?;
            thread::sleep(SPLIT);
            memory.replace(&vitals.memory)?;
            pressure.replace(&vitals.pressure)?;
            disks.replace(&vitals.disks)?;
            interfaces.replace(&vitals.interfaces)?;
        } else {
            MultiTransaction::transact(RetryPolicy::default(), |all| {
                let vitals = vitals.clone().sealed(all.get(&cpu)?.sample + 1, monotonic_ns());
                *all.get_mut(&cpu)? = vitals.cpu;
                *all.get_mut(&memory)? = vitals.memory;
                *all.get_mut(&pressure)? = vitals.pressure;
                *all.get_mut(&disks)? = vitals.disks;
                *all.get_mut(&interfaces)? = vitals.interfaces;
                Ok(())
            })?;
        }
        report.count("samples");
        next += SAMPLE_INTERVAL;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(report)
}

/// Looks when it likes.
fn poll(domain: &Domain, stop: &Stop) -> Result<Report> {
    let cpu: State<Cpu> = reader(domain)?;
    let memory: State<Memory> = reader(domain)?;
    let mut seen = Seen::default();
    while !stop.is_asked() {
        seen.look(&*cpu.read()?, None);
        seen.report.count_if("torn", !memory.read()?.is_whole());
        thread::sleep(POLL_INTERVAL);
    }
    Ok(seen.report)
}

/// Sleeps until something changes.
fn sleep(domain: &Domain, stop: &Stop) -> Result<Report> {
    let mut watch = reader::<Cpu>(domain)?.watch()?;
    let mut seen = Seen::default();
    let mut ages = Ages::default();
    while !stop.is_asked() {
        let Some(_version) = watch.wait(NAP)? else { continue };
        let cpu = watch.read()?;
        ages.add(monotonic_ns().saturating_sub(cpu.at_ns));
        seen.report.count("wakes");
        seen.look(&*cpu, Some(cpu.version()));
    }
    ages.report(&mut seen.report);
    Ok(seen.report)
}

/// Looks all the time at something that changes five times a second.
fn look_at_limited(domain: &Domain, stop: &Stop) -> Result<Report> {
    let mut view = reader::<Cpu>(domain)?.view(LIMIT)?;
    let mut seen = Seen::default();
    let mut changed: Option<Instant> = None;
    let (mut shortest, mut span) = (Duration::MAX, Duration::ZERO);
    while !stop.is_asked() {
        let now = Instant::now();
        if seen.look(view.get_at(now)?, None)
            && let Some(before) = changed.replace(now)
        {
            let apart = now - before;
            shortest = shortest.min(apart);
            span += apart;
            seen.report.count_if("early", apart < LIMIT);
        }
        thread::sleep(FRAME_INTERVAL);
    }
    for (name, time) in [("shortest_ms", shortest), ("span_ms", span)] {
        seen.report.set(name, u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    }
    Ok(seen.report)
}

/// Reads two states, as of one instant and also one after the other: only the first can be relied
/// on.
fn compare(domain: &Domain, stop: &Stop) -> Result<Report> {
    let cpu: State<Cpu> = reader(domain)?;
    let interfaces: State<Interfaces> = reader(domain)?;
    let mut seen = Seen::default();
    while !stop.is_asked() {
        for _ in 0..PAIRS_BETWEEN_PAUSES {
            {
                let (cpu, interfaces) = together((&cpu, &interfaces))?;
                seen.look(&*cpu, Some(cpu.version()));
                // Versions and samples part for good when a writer dies between two single commits, so
                // they say nothing about one value.
                seen.report.count_if("torn", !interfaces.is_whole());
                seen.report.count_if("mixed", cpu.sample != interfaces.sample);
            }
            let first = cpu.read()?.sample;
            seen.report.count_if("apart", interfaces.read()?.sample != first);
        }
        thread::sleep(PAIR_PAUSE);
    }
    Ok(seen.report)
}

/// What a reader has seen, and whether it was right.
#[derive(Default)]
struct Seen {
    report: Report,
    last: u64,
}

impl Seen {
    /// Looks at a value; whether it is another one than the last. Sample and version count alike.
    fn look(&mut self, value: &impl Vital, version: Option<u64>) -> bool {
        let sample = value.sample();
        let is_torn = !value.is_whole() || version.is_some_and(|version| version != sample);
        self.report.count("looks");
        self.report.count_if("torn", is_torn);
        // Time does not run backwards, not for any reader.
        self.report.count_if("backwards", sample < self.last);
        let is_new = sample != self.last;
        self.report.count_if("changes", is_new);
        self.last = sample;
        self.report.set("last", sample);
        is_new
    }
}

/// Nanoseconds of a clock that all processes of a machine share and nobody sets.
fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}
