//! The longest that one put takes while a store grows from nothing to 10^6 records: each new key is
//! timed by itself, volatile, in a process of its own for each engine and round.
//!
//! The worst of a million is of whatever comes least often: a table that becomes twice as large, a file
//! that gets longer, the end of a segment. The 99.99 % one has a hundred behind it.

use std::cell::RefCell;
use std::path::Path;

use mainstay_store::Durability;

use super::engines::{ArmFixed, ArmLog, Lmdb, Ours, key, value};
use super::{add, on_a_disk, settle};
use crate::Outcome;
use crate::child::Child;
use crate::clock::{Span, wall_ns};
use crate::method::{Plan, REPETITIONS_MIN, Round, Timing, rounds};
use crate::part::Group;
use crate::report::{Ratio, Report, Unit};
use crate::role::Role;

const WORST: &str = "store.put_worst";
const RARE: &str = "store.put_9999";

pub(super) const GROUP: Group = Group { figures: &[WORST, RARE], measure };

/// Fills an engine key by key, and says how long the worst put took, and the 99.99 % one.
pub(super) const GROW: Role = Role { name: "store:grow", run: grow };

const COUNT: u64 = 1_000_000;
const ENGINES: [&str; 4] = ["mainstay", "armdb_fixed", "armdb_log", "lmdb"];

fn measure(_: &Plan, scratch: &Path, report: &mut Report) -> Outcome<()> {
    let disk = on_a_disk(scratch)?;
    let rare: [RefCell<Vec<Option<Span>>>; 4] = Default::default();
    let mut sides: Vec<Round<'_>> = ENGINES
        .iter()
        .zip(&rare)
        .map(|(name, rare)| {
            let place = disk.path().join(name);
            Round::new(name, move || {
                settle(place.parent().unwrap_or(&place))?;
                let text = place.to_str().ok_or("the directory's name is no text")?;
                let said = Child::start(&GROW, &[name, text])?.finish()?;
                std::fs::remove_dir_all(&place)?;
                let numbers: Vec<f64> =
                    said.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
                let [worst, most, cpu_ns] = numbers[..] else {
                    return Err(format!("{name} has not told three times").into());
                };
                rare.borrow_mut().push(Some(Span { wall_ns: most, cpu_ns }));
                Ok(Span { wall_ns: worst, cpu_ns })
            })
        })
        .collect();
    // Each takes seconds: no more of them in a long run.
    let worst = rounds(REPETITIONS_MIN, &mut sides)?;
    drop(sides);
    let of_rare = |(name, spans): (&&'static str, RefCell<Vec<Option<Span>>>)| {
        // The first was to warm up.
        Timing::of(name, spans.into_inner().split_off(1)).ok_or("there were no rounds")
    };
    let rare: Vec<Timing> = ENGINES.iter().zip(rare).map(of_rare).collect::<Result<_, _>>()?;
    for (name, unit, timings) in [(WORST, Unit::Ms, worst), (RARE, Unit::Us, rare)] {
        for peer in &timings[1..] {
            add(report, Ratio::of_wall(name, unit, &timings[0], peer));
        }
    }
    Ok(())
}

fn grow(arguments: &[String]) -> Outcome<()> {
    let [engine, place] = arguments else { return Err("two arguments are needed".into()) };
    let place = Path::new(place);
    match engine.as_str() {
        "mainstay" => {
            let store = Ours::<64>::new(place)?;
            timed(|number| {
                store.0.put(&key(number), &value(number), Durability::Memory)?;
                Ok(())
            })
        }
        "armdb_fixed" => {
            let map = ArmFixed::<64>::open(place)?;
            timed(|number| Ok(map.0.put(&key(number), &value(number)).map(drop)?))
        }
        "armdb_log" => {
            let map = ArmLog::<64>::open(place)?;
            timed(|number| Ok(map.0.put(&key(number), &value(number)).map(drop)?))
        }
        "lmdb" => {
            let lmdb = Lmdb::<64>::new(place)?;
            timed(|number| lmdb.put_key(number))
        }
        other => Err(format!("there is no {other}").into()),
    }
}

fn timed(put: impl Fn(u64) -> Outcome<()>) -> Outcome<()> {
    let mut times = Vec::with_capacity(COUNT as usize);
    let (span, done) = Span::of(|| -> Outcome<()> {
        let mut before = wall_ns();
        for number in 0..COUNT {
            put(number)?;
            let after = wall_ns();
            times.push(after - before);
            before = after;
        }
        Ok(())
    });
    done?;
    times.sort_unstable();
    let behind = |share: u64| times[(COUNT - 1 - COUNT / share) as usize];
    println!("{} {} {}", times[COUNT as usize - 1], behind(10_000), span.cpu_ns);
    Ok(())
}
