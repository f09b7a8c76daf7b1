//! `mainstay store scrub`.

use super::{keys, target::Target, verify::AnyPlace};
use crate::{
    error::{Outcome, Result},
    interrupt::Interrupt,
    output::Output,
    progress::Bar,
    size::{counted, human, parse},
};
use mainstay::store::ScrubOptions;
use serde::Serialize;

/// Read all files of a store, slowly, and check every checksum; also while a program has it open
///
/// Headers, logs, images, lists and hints, of either kind. Nothing is changed, and nobody waits for it.
/// What seems damaged beside a writer is read a second time before it is told. The exit status is 3 if
/// something is not as it was written. Interrupted, it says with which file to go on; the status is 130.
///
/// `verify` says more, and needs the store for itself: whether it can be opened, and what has a copy.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay store scrub ./people
  mainstay store scrub ./people --rate 64MiB --json
  mainstay store scrub ./people --from shard-0001-0000000000000003.log")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// How much is read a second, at most; 0: as fast as it goes
    #[arg(long, value_name = "SIZE", value_parser = parse_rate, default_value = "8MiB")]
    rate: u64,
    /// Go on with this file
    #[arg(long, value_name = "FILE")]
    from: Option<String>,
}

fn parse_rate(text: &str) -> std::result::Result<u64, String> {
    if text == "0" { Ok(0) } else { parse(text).map_err(|error| error.to_string()) }
}

#[derive(Serialize)]
struct Report {
    path: String,
    sound: bool,
    files: u64,
    bytes: u64,
    damage: Vec<AnyPlace>,
    /// With which file to go on; none if all were read.
    next: Option<String>,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let interrupt = Interrupt::watch();
    let options = ScrubOptions { bytes_per_second: args.rate, from: args.from.clone() };
    let mut bar = Bar::new("scrubbing");
    let scrubbed = keys::scrub(&args.target.path, &options, |behind, all| {
        bar.to(behind, all);
        !interrupt.is_asked()
    });
    drop(bar);
    let scrubbed = scrubbed.map_err(args.target.failed())?;
    let report = Report {
        path: args.target.path.display().to_string(),
        sound: scrubbed.damage.is_empty(),
        files: scrubbed.files,
        bytes: scrubbed.bytes,
        damage: scrubbed.damage.iter().map(AnyPlace::from).collect(),
        next: scrubbed.next,
    };
    if out.json {
        out.document(&report)?;
    } else {
        tell(&report, out)?;
    }
    if !report.sound {
        return Ok(Outcome::Damaged);
    }
    if report.next.is_some() {
        out.flush()?;
        interrupt.check("not all files were read")?;
    }
    Ok(Outcome::Fine)
}

fn tell(report: &Report, out: &mut Output) -> Result<()> {
    let Report { path, sound, files, bytes, damage, next } = report;
    for place in damage {
        out.line(&place.to_string())?;
    }
    let read = format!("{} of {}", counted(*files, "file", "files"), human(*bytes));
    if *sound {
        out.line(&format!("{path}: {read} read, and as it was written"))?;
    } else {
        let places = counted(damage.len() as u64, "place", "places");
        out.line(&format!("{path}: {read} read, damaged in {places}"))?;
        out.line(
            "next: check the disk; `mainstay store repair` mends what has a copy, and with --from takes \
             the rest from a leader",
        )?;
    }
    match next {
        Some(next) => out.line(&format!("next: go on with --from {next}")),
        None => Ok(()),
    }
}
