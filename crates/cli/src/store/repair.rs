//! `mainstay store repair`.

use super::target::{Target, fixed_only};
use crate::{
    error::{Outcome, Result},
    output::Output,
    progress::Progress,
    size::{counted, grouped},
};
use mainstay::store::Survey;
use serde::Serialize;

/// Write anew what is damaged, where there is a sound copy of it
///
/// Looks at every checksum, as `verify` does. Damage that costs no record, as the log and the images
/// have what it was twice, is repaired: all records are written to new images, and the damaged files
/// removed. Of damage that costs records nothing is touched; the exit status is 3 then, and they have
/// to come from a copy.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay store repair ./people
  mainstay store repair ./people --json")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
}

#[derive(Serialize)]
struct Report {
    path: String,
    /// Places that were damaged.
    found: u64,
    /// Places that still are.
    left: u64,
    records: u64,
}

fn places(survey: &Survey) -> u64 {
    survey.files.iter().map(|file| file.damage.len() as u64).sum()
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let target = &args.target;
    fixed_only(&target.path, "repaired")?;
    let before = target.survey("verifying")?;
    let (found, mut left, mut records) = (places(&before), places(&before), before.records);
    if !before.is_sound() && before.can_be_opened() {
        let store = target.open()?;
        let progress = Progress::spinner("writing anew");
        store.compact().map_err(target.failed())?;
        store.close().map_err(target.failed())?;
        drop(progress);
        let after = target.survey("verifying again")?;
        (left, records) = (places(&after), after.records);
    }
    let path = target.path.display().to_string();
    let outcome = if left == 0 { Outcome::Fine } else { Outcome::Damaged };
    if out.json {
        out.document(&Report { path, found, left, records })?;
        return Ok(outcome);
    }
    let records = grouped(records);
    if found == 0 {
        out.line(&format!("{path}: sound, {records} records; there was nothing to do"))?;
    } else if left == 0 {
        let places = counted(found, "place", "places");
        out.line(&format!("{path}: {places} repaired; sound, {records} records"))?;
    } else {
        let places = counted(left, "place", "places");
        out.line(&format!("{path}: damaged in {places}, of which no other copy is here"))?;
        out.line(
            "next: `mainstay store verify` says where; keep this directory, and make a store of a \
             backup or of a follower's copy with `mainstay store restore`",
        )?;
    }
    Ok(outcome)
}
