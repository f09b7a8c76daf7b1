//! Memory of 10^6 records: what the process has resident, of whatever kind, mapped files included.

use std::fs;
use std::path::Path;

use super::engines::{ArmFixed, ArmLog, Engine, OurLog, Ours};
use super::{add, on_a_disk};
use crate::Outcome;
use crate::child::Child;
use crate::method::Plan;
use crate::part::Group;
use crate::report::{Ratio, Report};
use crate::role::Role;

pub(super) const SMALL: Group =
    Group { figures: &["store.bytes_per_record_memory", LOG], measure: measure::<64> };
pub(super) const LARGE: Group =
    Group { figures: &["store.bytes_per_record_memory_256"], measure: measure::<256> };

/// Fills an engine and says how many bytes a record took.
pub(super) const FILL: Role = Role { name: "store:memory", run: fill };

/// Of a store whose values are in the log, and keys in memory.
const LOG: &str = "store.log_bytes_per_record_memory";

const COUNT: u64 = 1_000_000;

fn measure<const V: usize>(_: &Plan, scratch: &Path, report: &mut Report) -> Outcome<()> {
    let name = if V == 64 { SMALL.figures[0] } else { LARGE.figures[0] };
    let disk = on_a_disk(scratch)?;
    let bytes = |engine: &str| -> Outcome<f64> {
        let place = disk.path().join(engine);
        let place = place.to_str().ok_or("the directory's name is no text")?;
        let said = Child::start(&FILL, &[engine, &V.to_string(), place])?.finish()?;
        Ok(said.trim().parse()?)
    };
    let ours = bytes("mainstay")?;
    let log = if V == 64 { Some(bytes("mainstay_log")?) } else { None };
    let note = format!("{COUNT} records of {} bytes", 16 + V);
    for peer in ["armdb_fixed", "armdb_log"] {
        let peers = bytes(peer)?;
        let mut beside = |name: &str, ours: f64| {
            let (name, value, unit, note) = (name.to_owned(), peers / ours, "bytes", note.clone());
            add(report, Ratio { name, value, ours, peer, peers, unit, note });
        };
        beside(name, ours);
        // The one that also has its values in a log.
        if let (Some(log), "armdb_log") = (log, peer) {
            beside(LOG, log);
        }
    }
    Ok(())
}

fn fill(arguments: &[String]) -> Outcome<()> {
    let [engine, length, place] = arguments else {
        return Err("three arguments are needed".into());
    };
    let place = Path::new(place);
    match length.as_str() {
        "64" => fill_with::<64>(engine, place),
        "256" => fill_with::<256>(engine, place),
        other => Err(format!("values of {other} bytes are not measured").into()),
    }
}

fn fill_with<const V: usize>(name: &str, place: &Path) -> Outcome<()> {
    let before = resident()?;
    if name == "mainstay_log" {
        let store = OurLog::<V>::new(place)?;
        store.load(COUNT)?;
        return tell(before);
    }
    let engine: Box<dyn Engine> = match name {
        "mainstay" => Box::new(Ours::<V>::new(place)?),
        "armdb_fixed" => Box::new(ArmFixed::<V>::open(place)?),
        "armdb_log" => Box::new(ArmLog::<V>::open(place)?),
        other => return Err(format!("there is no {other}").into()),
    };
    engine.load(COUNT)?;
    tell(before)
}

/// What is resident now, and was not `before`, by record.
fn tell(before: u64) -> Outcome<()> {
    println!("{:.1}", resident()?.saturating_sub(before) as f64 / COUNT as f64);
    Ok(())
}

/// All resident bytes of this process.
fn resident() -> Outcome<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes: u64 =
        line.and_then(|line| line.split_whitespace().next()).ok_or("no VmRSS")?.parse()?;
    Ok(kilobytes * 1_024)
}
