//! Reading a value that nobody writes at the moment.

use std::path::Path;

use super::value::{Reader, SIZES, Size, keepers, tell_who_is_missing};
use super::writer::Remote;
use super::{mmap_sync, ours};
use crate::Outcome;
use crate::method::{Plan, Side, interleave};
use crate::part::Group;
use crate::report::{Ratio, Report, Unit};

pub(super) const GROUP: Group = Group {
    figures: &[
        "state.read_64",
        "state.read_1k",
        "state.read_4k",
        "state.read_64k",
        "state.unprotected_read_64k",
    ],
    measure,
};

fn measure(plan: &Plan, scratch: &Path, report: &mut Report) -> Outcome<()> {
    tell_who_is_missing(report);
    for size in SIZES {
        let mut remotes = Vec::new();
        let mut sides = Vec::new();
        for keeper in keepers() {
            let folder = scratch.join(format!("read-{}-{}", keeper.name, size.name));
            std::fs::create_dir(&folder)?;
            remotes.push(Remote::start(keeper.name, &folder, size, None)?);
            let reader = (keeper.reader)(&folder, size)?;
            sides.push(side(keeper.name, reader));
        }
        let timings = interleave(plan, sides)?;
        let (ours, peers) = timings.split_first().ok_or("nobody was measured")?;
        for peer in peers {
            let name = format!("state.read_{}", size.name);
            report.ask(Ratio::of_wall(&name, Unit::Ns, ours, peer), asked_of(peer.name, size));
        }
    }
    in_place(plan, scratch, report)
}

/// What is asked: to be behind nobody, and far ahead of those that copy 64 KiB. LMDB does not.
fn asked_of(peer: &str, size: Size) -> f64 {
    match (size.name, peer) {
        ("64k", "lmdb") => 3.0,
        ("64k", _) => 10.0,
        _ => 1.0,
    }
}

/// What a look at the two ends of a value costs where mmap-sync has it: without a copy, and so
/// without protection.
fn in_place(plan: &Plan, scratch: &Path, report: &mut Report) -> Outcome<()> {
    let size = Size::named("64k")?;
    let folder = |name: &str| scratch.join(format!("read-{name}-{}", size.name));
    // Both were made above; their writers are gone, so they are made again.
    let (ours_folder, peers_folder) = (folder("in-place"), folder("in-place-mmap-sync"));
    std::fs::create_dir(&ours_folder)?;
    std::fs::create_dir(&peers_folder)?;
    let _ours = Remote::start("mainstay", &ours_folder, size, None)?;
    let _peer = Remote::start("mmap-sync", &peers_folder, size, None)?;
    let sides = vec![
        side("mainstay", (ours::KEEPER.reader)(&ours_folder, size)?),
        side("mmap-sync_unprotected", mmap_sync::unprotected(&peers_folder)),
    ];
    let timings = interleave(plan, sides)?;
    if let [ours, peer] = &timings[..] {
        report.ratios.push(Ratio::of_wall("state.unprotected_read_64k", Unit::Ns, ours, peer));
    }
    Ok(())
}

fn side<'a>(name: &'static str, mut reader: Box<dyn Reader>) -> Side<'a> {
    Side::new(name, move |count| {
        let mut sum = 0;
        for _ in 0..count {
            sum += reader.read()?;
        }
        std::hint::black_box(sum);
        Ok(())
    })
}
