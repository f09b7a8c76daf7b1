//! `mainstay pool dump`.

use super::rows::BlockRow;
use crate::{
    error::{CliError, Outcome, Result},
    hex,
    output::Output,
    place::Target,
    progress::Progress,
};
use mainstay::pool::{BlockId, BlockInfo, PoolView, Uuid};
use serde::Serialize;
use std::io::Write;

/// Below this, a bar would be gone before it is seen.
const BAR_BYTES_MIN: usize = 16 << 20;

/// Show the data of one block
///
/// The block is read without holding it. If a process writes to it meanwhile, the copy is a mix of
/// old and new.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay pool dump calls 12
  mainstay pool dump calls 12@7
  mainstay pool dump calls 0b26db44-42b8-4d1b-9f3c-3b6f7a2b6d0e
  mainstay pool dump calls 12 --raw --used > call.bin")]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// Which block: its number (12), id (12@7) or UUID
    block: String,
    /// The bytes as they are, not as text
    #[arg(long, conflicts_with = "json")]
    raw: bool,
    /// Only the bytes in use, not the whole block
    #[arg(long)]
    used: bool,
}

#[derive(Serialize)]
struct Dumped {
    block: BlockRow,
    data: String,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let wanted = Wanted::parse(&args.block)?;
    let view = PoolView::open(args.target.existing()?)?;
    let no_block =
        |why| CliError::NoBlock { pool: view.name().to_owned(), given: args.block.clone(), why };
    let number = wanted.number(&view)?.ok_or_else(|| no_block("no live block has this UUID"))?;
    let free = "it is free, or there are not that many; `mainstay pool show` lists what there is";
    let (info, mut data) = view.copy_block(number)?.ok_or_else(|| no_block(free))?;
    if !wanted.is(&info) {
        return Err(no_block("that block is gone, and its number is used by another"));
    }
    if args.used {
        data.truncate(info.used_len);
    }
    if out.json {
        out.document(&Dumped { block: BlockRow::of(&info), data: hex::encode(&data) })?;
    } else if args.raw {
        out.writer().write_all(&data).map_err(CliError::Output)?;
    } else {
        let in_the_way = out.is_terminal() || data.len() < BAR_BYTES_MIN;
        let progress = match data.len() as u64 {
            _ if in_the_way => Progress::none(),
            len => Progress::bytes("dumping", len),
        };
        let done = |bytes| progress.advance(bytes as u64);
        hex::dump(out.writer(), &data, done).map_err(CliError::Output)?;
    }
    Ok(Outcome::Fine)
}

/// How the user named the block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wanted {
    Number(u32),
    Id(BlockId),
    Uuid(Uuid),
}

impl Wanted {
    fn parse(given: &str) -> Result<Self> {
        if let Ok(number) = given.parse() {
            return Ok(Self::Number(number));
        }
        if let Ok(id) = given.parse() {
            return Ok(Self::Id(id));
        }
        let uuid = given.parse().map_err(|_| CliError::NotABlock { given: given.to_owned() })?;
        Ok(Self::Uuid(uuid))
    }

    fn number(self, view: &PoolView) -> Result<Option<u32>> {
        Ok(match self {
            Self::Number(number) => Some(number),
            Self::Id(id) => Some(id.number),
            Self::Uuid(uuid) => view
                .blocks()?
                .find(|block| block.kind.is_some() && block.uuid == uuid)
                .map(|block| block.id.number),
        })
    }

    fn is(self, found: &BlockInfo) -> bool {
        match self {
            Self::Number(_) => true,
            Self::Id(id) => found.id == id,
            Self::Uuid(uuid) => found.uuid == uuid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_named_by_number_id_or_uuid() {
        assert_eq!(Wanted::parse("12").unwrap(), Wanted::Number(12));
        let id = BlockId { number: 12, generation: 7 };
        assert_eq!(Wanted::parse("12@7").unwrap(), Wanted::Id(id));
        let uuid = "0b26db44-42b8-4d1b-9f3c-3b6f7a2b6d0e";
        assert_eq!(Wanted::parse(uuid).unwrap(), Wanted::Uuid(uuid.parse().unwrap()));
        for given in ["", "x", "-1", "4294967296", "12@"] {
            assert!(Wanted::parse(given).is_err(), "{given:?}");
        }
    }
}
