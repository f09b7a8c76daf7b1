//! `mainstay state ls`.

use super::{info::Looked, target::existing_domain};
use crate::{
    error::{Outcome, Result},
    output::{Output, Side},
    place::Folder,
    size::{grouped, human, parse_duration},
};
use std::{
    thread,
    time::{Duration, Instant},
};

/// List the states: versions, sizes, subscribers, commits a second
///
/// Transient states whose subscribers were all killed are removed, and not listed.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay state ls
  mainstay state ls --sample 2s
  mainstay state ls --json | jq -r '.[] | select(.commits_per_s > 1000) | .name'")]
pub(super) struct Args {
    /// How long commits are counted; 0ms does not count them
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "200ms")]
    sample: Duration,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let looked = match existing_domain()? {
        Some(domain) => {
            let (before, began) = (domain.list()?, Instant::now());
            if !args.sample.is_zero() && !before.is_empty() {
                thread::sleep(args.sample);
            }
            let now = domain.list()?;
            let elapsed = (!args.sample.is_zero()).then(|| began.elapsed());
            let earlier = |id| before.iter().find(|info| info.id == id);
            now.iter().map(|info| Looked::of(info, earlier(info.id), elapsed)).collect()
        }
        None => Vec::new(),
    };
    if out.json {
        out.document(&looked)?;
    } else if looked.is_empty() {
        out.line(&format!("no states in {}", Folder::find()?.path.display()))?;
    } else {
        tell(&looked, out)?;
    }
    Ok(Outcome::Fine)
}

fn tell(looked: &[Looked], out: &mut Output) -> Result<()> {
    const COLUMNS: [(&str, Side); 8] = [
        ("NAME", Side::Left),
        ("VERSION", Side::Right),
        ("SIZE", Side::Right),
        ("COMMITS/S", Side::Right),
        ("SUBSCRIBERS", Side::Right),
        ("SLOTS", Side::Right),
        ("SURVIVES", Side::Left),
        ("TYPE", Side::Left),
    ];
    let cells: Vec<Vec<String>> = looked
        .iter()
        .map(|state| {
            vec![
                state.name.clone(),
                grouped(state.version),
                human(state.size_bytes),
                state.commits_per_s.map_or_else(|| "-".to_owned(), |rate| grouped(rate as u64)),
                state.subscribers_alive().to_string(),
                state.slots.to_string(),
                state.survives().to_owned(),
                if state.r#type.is_empty() { "bytes" } else { &state.r#type }.to_owned(),
            ]
        })
        .collect();
    out.table(&COLUMNS, &cells)
}
