//! Opening 10^6 records: after a close, after a close and another start of the machine, and after the
//! death of whoever had them.
//!
//! The memory of a store of fixed sizes is in files that are good for this running of the machine only;
//! without them log and images are read. That is how `_rebooted` has it: closed, and these files gone.
//! For `_rebooted_cold` the kernel has forgotten what was in the other files, too, as it has after a
//! start: that is a figure of the disk more than of anything else.

use std::path::Path;

use mainstay_store::{FixedStore, LogStore};
use rustix::fs::{Advice, fadvise};

use super::engines::{
    ArmFixed, ArmLog, Engine, Key, OurLog, Ours, key, log_options, options, value,
};
use super::{add, on_a_disk, settle};
use crate::Outcome;
use crate::child::{self, Child};
use crate::clock::Span;
use crate::method::{Plan, Round, rounds};
use crate::part::Group;
use crate::report::{Aim, Ratio, Report, Unit};
use crate::role::Role;

const CLOSED: &str = "store.reopen_1e6";
const REBOOTED: &str = "store.reopen_1e6_rebooted";
const COLD: &str = "store.reopen_1e6_rebooted_cold";
const KILLED: &str = "store.reopen_1e6_killed";
const LOG: &str = "store.log_reopen_1e6";
const LOG_KILLED: &str = "store.log_reopen_1e6_killed";
const COUNT: u64 = 1_000_000;
const NAMES: [&str; 4] = ["mainstay", "armdb_fixed", "armdb_log", "mainstay_log"];

pub(super) const GROUP: Group =
    Group { figures: &[CLOSED, REBOOTED, COLD, KILLED, LOG, LOG_KILLED], measure };

/// Fills a store and waits to be killed.
pub(super) const FILL: Role = Role { name: "store:fill", run: fill };

/// The same with values in the log.
pub(super) const FILL_LOG: Role = Role { name: "store:fill_log", run: fill_log };

/// Opens a store, and says how long that took.
pub(super) const OPEN: Role = Role { name: "store:open", run: open };

/// An engine that was opened and answered, with how long that took.
fn timed<T>(
    open: impl FnOnce() -> Outcome<T>,
    get: impl Fn(&T) -> Option<[u8; 64]>,
) -> Outcome<(Span, T)> {
    let (span, opened) = Span::of(|| {
        let opened = open()?;
        match get(&opened) {
            Some(found) if found == value(COUNT / 2) => Ok(opened),
            _ => Err("a record is not as it was".into()),
        }
    });
    opened.map(|opened| (span, opened))
}

fn measure(plan: &Plan, scratch: &Path, report: &mut Report) -> Outcome<()> {
    let disk = on_a_disk(scratch)?;
    let places = NAMES.map(|name| disk.path().join(name));
    let [ours, fixed, log, our_log] = &places;
    {
        let store = OurLog::<64>::new(our_log)?;
        store.load(COUNT)?;
        store.0.close()?;
        let store = Ours::<64>::new(ours)?;
        store.load(COUNT)?;
        store.0.close()?;
        let map = ArmFixed::<64>::open(fixed)?;
        map.load(COUNT)?;
        map.0.close()?;
        let map = ArmLog::<64>::open(log)?;
        map.load(COUNT)?;
        map.0.close()?;
    }
    let mut sides = NAMES.map(|name| {
        let place = disk.path().join(name);
        Round::new(name, move || opened_anew(name, &place))
    });
    let timings = rounds(plan.repetitions_heavy, &mut sides)?;
    for peer in &timings[1..3] {
        add(report, Ratio::of_wall(CLOSED, Unit::Ms, &timings[0], peer));
    }
    // Of the peers only this one has its values in a log.
    add(report, Ratio::of_wall(LOG, Unit::Ms, &timings[3], &timings[2]));
    report.aims.push(Aim::of_timing(CLOSED, &timings[0], 10.0, Unit::Ms));

    let mut sides = [false, true].map(|is_cold| {
        Round::new("mainstay", move || {
            forget(ours, is_cold)?;
            opened_anew("mainstay", ours)
        })
    });
    let timings = rounds(plan.repetitions_heavy, &mut sides)?;
    for (name, timing) in [REBOOTED, COLD].into_iter().zip(&timings) {
        report.aims.push(Aim::of_timing(name, timing, None, Unit::Ms));
    }

    for (role, engine, name, aim) in
        [(&FILL, "mainstay", KILLED, Some(400.0)), (&FILL_LOG, "mainstay_log", LOG_KILLED, None)]
    {
        let killed = disk.path().join(name);
        let place = text(&killed)?;
        let mut child = Child::start(role, &[place])?;
        child.wait_ready()?;
        child.kill()?;
        let span = opened_anew(engine, &killed)?;
        report.aims.push(Aim::new(name, span.wall_ns / 1e6, aim, Unit::Ms));
    }
    Ok(())
}

/// Removes the files with the memory of a store, which are of this running of the machine, and lets the
/// kernel forget what it has of the others.
fn forget(place: &Path, is_cold: bool) -> Outcome<()> {
    settle(place)?;
    for entry in std::fs::read_dir(place)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "live" || end == "index") {
            std::fs::remove_file(path)?;
        } else if is_cold {
            fadvise(std::fs::File::open(path)?, 0, None, Advice::DontNeed)?;
        }
    }
    Ok(())
}

fn text(place: &Path) -> Outcome<&str> {
    Ok(place.to_str().ok_or("the directory's name is no text")?)
}

/// Opens in a process of its own, as whoever opens a store does: what a peer that was open in this
/// one still does behind the scenes, and its memory, is in nobody's way.
fn opened_anew(engine: &str, place: &Path) -> Outcome<Span> {
    let said = Child::start(&OPEN, &[engine, text(place)?])?.finish()?;
    let mut numbers = said.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(wall_ns)), Some(Ok(cpu_ns))) => Ok(Span { wall_ns, cpu_ns }),
        _ => Err(format!("{engine} was opened, and no time was told").into()),
    }
}

fn open(arguments: &[String]) -> Outcome<()> {
    let [engine, place] = arguments else { return Err("two arguments are needed".into()) };
    let (place, some) = (Path::new(place), key(COUNT / 2));
    let span = match engine.as_str() {
        "mainstay" => {
            let open = || Ok(FixedStore::<Key, [u8; 64]>::open(place, &options())?);
            let (span, store) = timed(open, |store| store.get(&some).ok().flatten())?;
            store.close()?;
            span
        }
        "mainstay_log" => {
            let open = || Ok(LogStore::<Vec<u8>, Vec<u8>>::open(place, &log_options())?);
            let some = some.to_vec();
            let get = |store: &LogStore<Vec<u8>, Vec<u8>>| {
                store.get(&some).ok().flatten()?.as_slice().try_into().ok()
            };
            let (span, store) = timed(open, get)?;
            store.close()?;
            span
        }
        "armdb_fixed" => {
            let (span, map) = timed(|| ArmFixed::<64>::open(place), |map| map.0.get(&some))?;
            map.0.close()?;
            span
        }
        "armdb_log" => {
            let (span, map) = timed(|| ArmLog::<64>::open(place), |map| map.0.get(&some))?;
            map.0.close()?;
            span
        }
        other => return Err(format!("there is no {other}").into()),
    };
    println!("{} {}", span.wall_ns, span.cpu_ns);
    Ok(())
}

fn fill_log(arguments: &[String]) -> Outcome<()> {
    let directory = arguments.first().ok_or("no directory was named")?;
    let store = OurLog::<64>::new(Path::new(directory))?;
    store.load(COUNT)?;
    child::say_ready()?;
    child::wait_for_death()
}

fn fill(arguments: &[String]) -> Outcome<()> {
    let directory = arguments.first().ok_or("no directory was named")?;
    let store = Ours::<64>::new(Path::new(directory))?;
    store.load(COUNT)?;
    child::say_ready()?;
    child::wait_for_death()
}
