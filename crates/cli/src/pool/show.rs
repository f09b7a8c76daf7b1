//! `mainstay pool show`.

use super::rows::{BLOCK_COLUMNS, BlockRow};
use crate::{
    error::{Outcome, Result},
    output::Output,
    place::Target,
    size::grouped,
};
use mainstay::pool::{BlockInfo, PoolView, State};
use std::time::SystemTime;

/// How many rows are laid out as one table, so that a long listing starts at once.
const TABLE_ROWS: usize = 10_000;

/// List a pool's blocks
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay pool show calls
  mainstay pool show calls --state orphan
  mainstay pool show calls --state held,parked --limit 0
  mainstay pool show calls --limit 0 --json | jq -r .uuid")]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// Only blocks in one of these states
    #[arg(long, value_enum, value_name = "STATE", value_delimiter = ',', default_value = "live")]
    state: Vec<Wanted>,
    /// Stop after so many blocks; 0 shows all
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// Held, parked, orphaned or corrupt
    Live,
    Held,
    Parked,
    /// Its last holder died
    Orphan,
    /// Also those that a process keeps at hand
    Free,
    /// No sequence of steps leads to its owner word
    Corrupt,
    All,
}

impl Wanted {
    fn includes(self, state: State) -> bool {
        let is_free = matches!(state, State::Free | State::Cached);
        match self {
            Self::All => true,
            Self::Live => !is_free,
            Self::Free => is_free,
            Self::Held => state == State::Held,
            Self::Parked => state == State::Parked,
            Self::Orphan => state == State::Orphan,
            Self::Corrupt => state == State::Corrupt,
        }
    }
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let view = PoolView::open(args.target.existing()?)?;
    let wanted = |block: &BlockInfo| args.state.iter().any(|wanted| wanted.includes(block.state));
    let limit = if args.limit == 0 { usize::MAX } else { args.limit };
    let mut blocks = view.blocks()?.filter(wanted);
    let shown = blocks.by_ref().take(limit);
    if out.json {
        for block in shown {
            out.json_line(&BlockRow::of(&block))?;
        }
        return Ok(Outcome::Fine);
    }
    let now = SystemTime::now();
    let mut rows = shown.map(|block| BlockRow::of(&block).cells(now));
    let mut any = false;
    loop {
        let page: Vec<Vec<String>> = rows.by_ref().take(TABLE_ROWS).collect();
        if page.is_empty() {
            break;
        }
        any = true;
        out.table(&BLOCK_COLUMNS, &page)?;
    }
    drop(rows);
    if !any {
        return out.line("no such blocks").map(|()| Outcome::Fine);
    }
    let more = blocks.count() as u64;
    if more > 0 {
        out.line(&format!("... and {} more: --limit 0 shows all", grouped(more)))?;
    }
    Ok(Outcome::Fine)
}
