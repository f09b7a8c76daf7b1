//! Publishing a whole value, while another process is attached to it and at rest.

use std::path::Path;

use super::value::{SIZES, Size, keeper, keepers, stamp, tell_who_is_missing};
use crate::Outcome;
use crate::child::{self, Child};
use crate::method::{Plan, Side, interleave};
use crate::part::Group;
use crate::report::{Ratio, Report, Unit};
use crate::role::Role;

pub(super) const GROUP: Group = Group {
    figures: &["state.commit_64", "state.commit_1k", "state.commit_4k", "state.commit_64k"],
    measure,
};

/// Attaches to a value, reads it once, and waits to be killed.
pub(super) const ATTEND: Role = Role { name: "state:attend", run: attend };

fn measure(plan: &Plan, scratch: &Path, report: &mut Report) -> Outcome<()> {
    tell_who_is_missing(report);
    for size in SIZES {
        let (mut sides, mut attending) = (Vec::new(), Vec::new());
        for keeper in keepers() {
            let folder = scratch.join(format!("commit-{}-{}", keeper.name, size.name));
            std::fs::create_dir(&folder)?;
            let mut writer = (keeper.writer)(&folder, size)?;
            let folder = folder.to_str().ok_or("the folder of the run is not UTF-8")?;
            let mut child = Child::start(&ATTEND, &[keeper.name, folder, size.name])?;
            child.wait_ready()?;
            attending.push(child);
            let mut value = vec![7; size.words];
            let mut number = 0;
            sides.push(Side::new(keeper.name, move |count| {
                for _ in 0..count {
                    number += 1;
                    stamp(&mut value, number);
                    writer.commit(&value)?;
                }
                Ok(())
            }));
        }
        let timings = interleave(plan, sides)?;
        let (ours, peers) = timings.split_first().ok_or("nobody was measured")?;
        for peer in peers {
            let name = format!("state.commit_{}", size.name);
            report.ask(Ratio::of_wall(&name, Unit::Ns, ours, peer), asked_of(peer.name));
        }
    }
    Ok(())
}

/// What is asked: level with the one that commits as we do, far ahead of those that copy through a
/// file or a server.
fn asked_of(peer: &str) -> f64 {
    if peer == "iceoryx2" { 0.9 } else { 3.0 }
}

fn attend(arguments: &[String]) -> Outcome<()> {
    let [name, folder, size] = arguments else { return Err("a reader takes three words".into()) };
    let mut reader = (keeper(name)?.reader)(Path::new(folder), Size::named(size)?)?;
    reader.read()?;
    child::say_ready()?;
    child::wait_for_death()
}
