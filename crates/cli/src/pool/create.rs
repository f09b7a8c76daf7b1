//! `mainstay pool create`.

use super::rows::InfoRow;
use crate::{
    error::{Outcome, Result},
    output::Output,
    place::Target,
    size::{grouped, human, parse},
};
use mainstay::pool::{Pool, PoolOptions};
use std::path::Path;

/// Make a new pool
///
/// It appears complete or not at all, and an existing file is never touched. Everything said here
/// is fixed for the pool's life; to change it, export and import.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay pool create calls --block-size 256
  mainstay pool create calls --block-size 256 --max-blocks 1000000
  mainstay pool create ./data/orders.pool --block-size 4KiB --reserve 1TiB")]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// Bytes of data in a block: 1 to 1GiB
    #[arg(long, value_name = "SIZE", value_parser = parse)]
    block_size: u64,
    #[command(flatten)]
    growth: Growth,
    /// The pool's own name [default: that of its file]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

/// How a new pool may grow.
#[derive(clap::Args)]
pub(super) struct Growth {
    /// The most blocks it may have, rounded up to whole growth steps [default: what the
    /// reservation has room for]
    #[arg(long, value_name = "N")]
    max_blocks: Option<u64>,
    /// Address space that each process keeps free for it to grow into; costs no memory
    /// [default: 64GiB]
    #[arg(long, value_name = "SIZE", value_parser = parse)]
    reserve: Option<u64>,
    /// Blocks to add at once, rounded up to a power of two [default: about 1 MiB of data]
    #[arg(long, value_name = "N")]
    growth_step: Option<u32>,
}

impl Growth {
    pub(super) fn apply(&self, mut options: PoolOptions) -> PoolOptions {
        if let Some(blocks) = self.max_blocks {
            options = options.max_blocks(blocks);
        }
        if let Some(bytes) = self.reserve {
            options = options.reserve(bytes);
        }
        if let Some(blocks) = self.growth_step {
            options = options.growth_step(blocks);
        }
        options
    }
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let (path, name) = args.target.fresh(args.name.as_deref())?;
    // A size beyond what a usize holds is beyond the limit too, and refused there.
    let block_size = usize::try_from(args.block_size).unwrap_or(usize::MAX);
    let pool = args.growth.apply(PoolOptions::new(&name, block_size)).create(&path)?;
    tell(&pool, &path, out)?;
    Ok(Outcome::Fine)
}

fn tell(pool: &Pool, path: &Path, out: &mut Output) -> Result<()> {
    let info = pool.info()?;
    if out.json {
        return out.document(&InfoRow::of(&info, path, &pool.holders()?));
    }
    out.line(&format!(
        "created {} in {}: blocks of {}, up to {} of them",
        info.name,
        path.display(),
        human(info.block_size),
        grouped(info.blocks_max()),
    ))
}
