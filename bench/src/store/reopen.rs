//! Opening 10^6 records: after a close, and after the death of whoever had them.

use std::path::Path;

use mainstay_store::FixedStore;

use super::engines::{ArmFixed, ArmLog, Engine, Key, Ours, key, options, value};
use super::{add, on_a_disk};
use crate::Outcome;
use crate::child::{self, Child};
use crate::clock::Span;
use crate::method::{Plan, Round, rounds};
use crate::part::Group;
use crate::report::{Aim, Ratio, Report, Unit};
use crate::role::Role;

const CLOSED: &str = "store.reopen_1e6";
const KILLED: &str = "store.reopen_1e6_killed";
const COUNT: u64 = 1_000_000;

pub(super) const GROUP: Group = Group { figures: &[CLOSED, KILLED], measure };

/// Fills a store and waits to be killed.
pub(super) const FILL: Role = Role { name: "store:fill", run: fill };

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
    let places = ["mainstay", "armdb_fixed", "armdb_log"].map(|name| disk.path().join(name));
    let [ours, fixed, log] = &places;
    {
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
    let mut sides = ["mainstay", "armdb_fixed", "armdb_log"].map(|name| {
        let place = disk.path().join(name);
        Round::new(name, move || opened_anew(name, &place))
    });
    let timings = rounds(plan.repetitions_heavy, &mut sides)?;
    for peer in &timings[1..] {
        add(report, Ratio::of_wall(CLOSED, Unit::Ms, &timings[0], peer));
    }
    report.aims.push(Aim::of_timing(CLOSED, &timings[0], 10.0, Unit::Ms));

    let killed = disk.path().join("killed");
    let place = text(&killed)?;
    let mut child = Child::start(&FILL, &[place])?;
    child.wait_ready()?;
    child.kill()?;
    let span = opened_anew("mainstay", &killed)?;
    report.aims.push(Aim::new(KILLED, span.wall_ns / 1e6, 400.0, Unit::Ms));
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

fn fill(arguments: &[String]) -> Outcome<()> {
    let directory = arguments.first().ok_or("no directory was named")?;
    let store = Ours::<64>::new(Path::new(directory))?;
    store.load(COUNT)?;
    child::say_ready()?;
    child::wait_for_death()
}
