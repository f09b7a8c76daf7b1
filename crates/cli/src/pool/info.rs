//! `mainstay pool info`.

use super::rows::{InfoRow, unix_ns};
use crate::{
    error::{Outcome, Result},
    output::Output,
    place::Target,
    size::{grouped, human},
};
use mainstay::pool::PoolView;

/// Show a pool's measures: sizes, limits, counts, address space
///
/// "Address space beyond the reservation" and "mappings" are those of this command, which maps the
/// pool as every process does.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay pool info calls
  mainstay pool info ./data/orders.pool
  mainstay pool info calls --json | jq .counts.orphaned")]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let path = args.target.existing()?;
    let view = PoolView::open(&path)?;
    let mut row = InfoRow::of(&view.info()?, &path, &view.holders()?);
    row.created_unix_ns = Some(unix_ns(view.created()));
    if out.json {
        out.document(&row)?;
    } else {
        tell(&row, out)?;
    }
    Ok(Outcome::Fine)
}

fn tell(row: &InfoRow, out: &mut Output) -> Result<()> {
    let counts = &row.counts;
    let mut fields = vec![
        ("name", row.name.clone()),
        ("path", row.path.clone()),
        ("uuid", row.uuid.clone()),
        ("block size", size(row.block_size_bytes)),
        ("blocks", format!("{} of at most {}", grouped(row.blocks), grouped(row.blocks_max))),
        ("held", grouped(counts.held)),
        ("parked", grouped(counts.parked)),
        ("orphaned", grouped(counts.orphaned)),
        ("free", grouped(counts.free)),
        ("kept at hand", grouped(counts.cached)),
        ("growth step", format!("{} blocks", grouped(row.growth_step_blocks))),
        ("extents", format!("{} of at most {}", grouped(row.extents), grouped(row.extents_max))),
        ("processes alive", row.processes_alive.to_string()),
        ("file size", size(row.file_bytes)),
        ("reservation", size(row.reserved_bytes)),
        ("address space beyond the reservation", size(row.address_space_beyond_bytes)),
        ("mappings", row.mappings.to_string()),
    ];
    if counts.corrupt > 0 {
        let advice = "run `mainstay pool verify`";
        fields.push(("corrupt", format!("{} ({advice})", grouped(counts.corrupt))));
    }
    out.fields(&fields)
}

/// For people and exact.
fn size(bytes: u64) -> String {
    if bytes < 1_024 {
        return human(bytes);
    }
    format!("{} ({} B)", human(bytes), grouped(bytes))
}
