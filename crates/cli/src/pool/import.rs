//! `mainstay pool import`.
//!
//! All or nothing: a new pool gets its name only when everything is in it; from an existing one,
//! what was imported is taken out again if the rest cannot be.

use super::{
    create::Growth,
    portable::{Exported, FormatError, Header, Reader},
};
use crate::{
    error::{CliError, Outcome, Result},
    interrupt::Interrupt,
    output::Output,
    place::Target,
    progress::Progress,
    size::{grouped, parse},
};
use mainstay::pool::{self, BlockId, Pool, PoolOptions, PoolView, Restored, Uuid};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::Serialize;
use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

const NOTHING_LEFT: &str = "nothing was imported";

/// Make a pool from an export, or add its blocks to a pool
///
/// All blocks, or none. They are parked; they keep UUID, type, used length and data, and get new
/// numbers. The new pool is like the exported one, unless options say otherwise: this is also the
/// way to another block size or limit.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay pool import calls.jsonl calls2
  mainstay pool import calls.jsonl calls2 --block-size 512
  mainstay pool import calls.jsonl calls --into
  zcat calls.jsonl.gz | mainstay pool import - calls2")]
pub(crate) struct Args {
    /// The export; - is standard input
    #[arg(value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
    #[command(flatten)]
    target: Target,
    /// Add the blocks to this existing pool
    #[arg(long, conflicts_with_all = ["block_size", "max_blocks", "reserve", "growth_step"])]
    into: bool,
    /// Bytes of data in a block of the new pool [default: as exported]
    #[arg(long, value_name = "SIZE", value_parser = parse)]
    block_size: Option<u64>,
    #[command(flatten)]
    growth: Growth,
}

#[derive(Serialize)]
struct Report {
    pool: String,
    path: String,
    blocks: u64,
}

/// An open export, and what to call it in errors.
struct Source {
    name: String,
    reader: Reader<Box<dyn BufRead>>,
    bytes: u64,
}

impl Source {
    fn open(file: &Path) -> Result<Self> {
        let hint = "check the name; - is standard input";
        let (name, input, bytes): (_, Box<dyn BufRead>, _) = if file == Path::new("-") {
            ("standard input".to_owned(), Box::new(BufReader::new(io::stdin())), 0)
        } else {
            let opened = File::open(file).map_err(CliError::file(file, "open it", hint))?;
            let bytes = opened.metadata().map_or(0, |metadata| metadata.len());
            (file.display().to_string(), Box::new(BufReader::with_capacity(1 << 18, opened)), bytes)
        };
        let reader = Reader::new(input).map_err(in_file(&name))?;
        Ok(Self { name, reader, bytes })
    }

    fn next(&mut self) -> Result<Option<Exported>> {
        self.reader.next().map_err(in_file(&self.name))
    }
}

fn in_file(name: &str) -> impl Fn(FormatError) -> CliError + use<> {
    let file = name.to_owned();
    move |source| CliError::Import { file: file.clone(), source }
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let interrupt = Interrupt::watch();
    let mut source = Source::open(&args.file)?;
    let (path, name, blocks) = if args.into {
        let path = args.target.existing()?;
        let pool = Pool::join_any(&path)?;
        let blocks = into_existing(&pool, &mut source, &interrupt)?;
        let name = pool.name().to_owned();
        pool.close()?;
        (path, name, blocks)
    } else {
        let (path, name) = args.target.fresh(None)?;
        let blocks = into_new(args, &path, &name, &mut source, &interrupt)?;
        (path, name, blocks)
    };
    let path = path.display().to_string();
    if out.json {
        out.document(&Report { pool: name, path, blocks })?;
    } else {
        out.line(&format!("imported {} blocks into {name} ({path})", grouped(blocks)))?;
    }
    Ok(Outcome::Fine)
}

fn into_new(
    args: &Args,
    path: &Path,
    name: &str,
    source: &mut Source,
    interrupt: &Interrupt,
) -> Result<u64> {
    if path.symlink_metadata().is_ok() {
        return Err(CliError::PoolExists(path.to_path_buf()));
    }
    let draft = Draft::beside(path)?;
    let pool = options(args, name, source.reader.header()).create(&draft.path)?;
    let blocks = copy_all(&pool, source, interrupt, &mut HashSet::new(), |_| {})?;
    pool.close()?;
    draft.publish(path)?;
    Ok(blocks)
}

fn options(args: &Args, name: &str, header: &Header<'_>) -> PoolOptions {
    let block_size = args.block_size.unwrap_or(header.block_size_bytes);
    let mut options = PoolOptions::new(name, usize::try_from(block_size).unwrap_or(usize::MAX))
        .growth_step(u32::try_from(header.growth_step_blocks).unwrap_or(u32::MAX))
        .max_blocks(header.blocks_max);
    if args.block_size.is_none() {
        // Larger blocks may need a larger one; then the usual one is the better guess.
        options = options.reserve(header.reserved_bytes);
    }
    args.growth.apply(options)
}

fn into_existing(pool: &Pool, source: &mut Source, interrupt: &Interrupt) -> Result<u64> {
    let mut uuids: HashSet<Uuid> =
        pool.blocks()?.filter(|block| block.kind.is_some()).map(|block| block.uuid).collect();
    let mut imported = Vec::new();
    let outcome = copy_all(pool, source, interrupt, &mut uuids, |id| imported.push(id));
    if outcome.is_err() {
        for id in imported {
            match pool.attach(id).and_then(pool::Block::free) {
                // Somebody found it and has freed it already.
                Ok(()) | Err(pool::Error::NoSuchBlock { .. }) => {}
                // A box: exactly one holder, which recovery can be.
                Err(pool::Error::Exclusive { .. }) => free_unheld(pool, id)?,
                Err(error) => return Err(error.into()),
            }
        }
    }
    outcome
}

fn free_unheld(pool: &Pool, id: BlockId) -> Result<()> {
    let mut unheld = pool.recover(pool::Offer::Unheld)?;
    match unheld.find(|offered| offered.number() == id.number && offered.id() == id) {
        Some(offered) => Ok(offered.free()?),
        None => Ok(()),
    }
}

/// `uuids` are those that are taken; `imported` is told of every block.
fn copy_all(
    pool: &Pool,
    source: &mut Source,
    interrupt: &Interrupt,
    uuids: &mut HashSet<Uuid>,
    mut imported: impl FnMut(BlockId),
) -> Result<u64> {
    let progress = match source.bytes {
        0 => Progress::spinner("importing"),
        bytes => Progress::bytes("importing", bytes),
    };
    let mut blocks = 0;
    while let Some(block) = source.next()? {
        interrupt.check(NOTHING_LEFT)?;
        progress.advance(source.reader.line_len());
        if !uuids.insert(block.uuid) {
            return Err(CliError::UuidTaken { pool: pool.name().to_owned(), uuid: block.uuid });
        }
        if block.size() > pool.block_size() as u64 {
            let (needed, block_size) = (block.size(), pool.block_size());
            return Err(CliError::BlocksTooSmall { uuid: block.uuid, needed, block_size });
        }
        imported(pool.restore(Restored {
            uuid: block.uuid,
            fingerprint: block.fingerprint,
            exclusive: block.exclusive,
            // Checked above to be at most the block size.
            used_len: block.used_len as usize,
            data: &block.data,
        })?);
        blocks += 1;
    }
    Ok(blocks)
}

/// A pool under construction, with a hidden name; gone when dropped, unless published.
struct Draft {
    path: PathBuf,
    published: bool,
}

impl Draft {
    /// Clears away what an import that was killed has left.
    fn beside(path: &Path) -> Result<Self> {
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(".importing");
        let path = path.with_file_name(name);
        let is_busy = PoolView::open(&path)
            .and_then(|left| left.holders())
            .is_ok_and(|holders| holders.iter().any(|holder| holder.alive));
        if is_busy {
            return Err(CliError::Importing(path));
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let hint = "remove what an earlier import has left";
                Err(CliError::file(&path, "remove it", hint)(error))
            }
            _ => Ok(Self { path, published: false }),
        }
    }

    /// Gives it its name, unless something else has that.
    fn publish(mut self, path: &Path) -> Result<()> {
        match renameat_with(CWD, &self.path, CWD, path, RenameFlags::NOREPLACE) {
            Ok(()) => {
                self.published = true;
                Ok(())
            }
            Err(rustix::io::Errno::EXIST) => Err(CliError::PoolExists(path.to_path_buf())),
            Err(errno) => {
                let hint = "name another place; nothing was imported";
                Err(CliError::file(path, "give the pool its name", hint)(errno.into()))
            }
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.published {
            // An error is on its way to the user already; the next import clears up.
            let _ = fs::remove_file(&self.path);
        }
    }
}
