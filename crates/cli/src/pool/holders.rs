//! `mainstay pool holders`.

use super::rows::HolderRow;
use crate::{
    error::{Outcome, Result},
    output::{Output, Side},
    place::Target,
    size::grouped,
};
use mainstay::pool::PoolView;

/// List the processes that have a pool open, and what each holds
///
/// Whether a process lives is what the kernel says about its lock. Process id and name are what it
/// said itself. What a dead one held waits to be taken back: see `mainstay pool recover`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay pool holders calls
  mainstay pool holders calls --json | jq '.[] | select(.alive | not)'")]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let view = PoolView::open(args.target.existing()?)?;
    let rows: Vec<HolderRow> = view.holders()?.into_iter().map(HolderRow::from).collect();
    if out.json {
        out.document(&rows)?;
    } else if rows.is_empty() {
        out.line("no process has it open")?;
    } else {
        tell(&rows, out)?;
    }
    Ok(Outcome::Fine)
}

fn tell(rows: &[HolderRow], out: &mut Output) -> Result<()> {
    const COLUMNS: [(&str, Side); 6] = [
        ("SLOT", Side::Right),
        ("PID", Side::Right),
        ("NAME", Side::Left),
        ("ALIVE", Side::Left),
        ("HELD", Side::Right),
        ("KEPT AT HAND", Side::Right),
    ];
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            vec![
                row.slot.to_string(),
                row.pid.to_string(),
                row.name.clone(),
                if row.alive { "yes" } else { "no" }.to_owned(),
                grouped(row.held),
                grouped(row.cached),
            ]
        })
        .collect();
    out.table(&COLUMNS, &cells)
}
