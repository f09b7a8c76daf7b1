//! `mainstay pool ls`.

use crate::{
    error::{Outcome, Result},
    output::{Output, Side},
    place::{self, Folder},
    size::{grouped, human},
};
use mainstay::pool::{self, PoolView};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// List the pools of the pool folder, or of another
///
/// What cannot be opened is listed with the reason.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay pool ls
  mainstay pool ls ./data
  mainstay pool ls --json | jq -r '.[] | select(.orphaned > 0) | .name'")]
pub(crate) struct Args {
    /// Another folder to look in
    #[arg(value_hint = clap::ValueHint::DirPath)]
    folder: Option<PathBuf>,
}

#[derive(Serialize)]
struct Row {
    name: String,
    path: String,
    #[serde(flatten)]
    seen: Seen,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Seen {
    Pool {
        block_size_bytes: u64,
        blocks: u64,
        held: u64,
        parked: u64,
        orphaned: u64,
        processes_alive: usize,
        file_bytes: u64,
    },
    Error {
        error: String,
    },
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let folder = match &args.folder {
        Some(folder) => {
            // Unlike the pool folder, one that was named must be there.
            let hint = "check the folder's name and mode";
            std::fs::metadata(folder)
                .map_err(crate::error::CliError::file(folder, "list it", hint))?;
            folder.clone()
        }
        None => Folder::find()?.path,
    };
    let rows: Vec<Row> = place::list(&folder)?
        .into_iter()
        .map(|(name, path)| Row {
            name,
            seen: look(&path).unwrap_or_else(|error| Seen::Error { error: error.to_string() }),
            path: path.display().to_string(),
        })
        .collect();
    if out.json {
        out.document(&rows)?;
    } else if rows.is_empty() {
        out.line(&format!("no pools in {}", folder.display()))?;
    } else {
        tell(&rows, out)?;
    }
    Ok(Outcome::Fine)
}

fn look(path: &Path) -> Result<Seen, pool::Error> {
    let view = PoolView::open(path)?;
    let info = view.info()?;
    Ok(Seen::Pool {
        block_size_bytes: info.block_size,
        blocks: info.blocks(),
        held: info.counts.held,
        parked: info.counts.parked,
        orphaned: info.counts.orphaned,
        processes_alive: view.holders()?.iter().filter(|holder| holder.alive).count(),
        file_bytes: info.file_len,
    })
}

fn tell(rows: &[Row], out: &mut Output) -> Result<()> {
    const COLUMNS: [(&str, Side); 8] = [
        ("NAME", Side::Left),
        ("BLOCK SIZE", Side::Right),
        ("BLOCKS", Side::Right),
        ("HELD", Side::Right),
        ("PARKED", Side::Right),
        ("ORPHANED", Side::Right),
        ("PROCESSES", Side::Right),
        ("FILE SIZE", Side::Right),
    ];
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let mut cells = vec![row.name.clone()];
            match &row.seen {
                Seen::Pool {
                    block_size_bytes,
                    blocks,
                    held,
                    parked,
                    orphaned,
                    processes_alive,
                    file_bytes,
                } => {
                    cells.push(human(*block_size_bytes));
                    cells.extend([blocks, held, parked, orphaned].map(|count| grouped(*count)));
                    cells.push(processes_alive.to_string());
                    cells.push(human(*file_bytes));
                }
                Seen::Error { .. } => cells.extend(std::iter::repeat_n("?".to_owned(), 7)),
            }
            cells
        })
        .collect();
    out.table(&COLUMNS, &cells)?;
    for row in rows {
        if let Seen::Error { error } = &row.seen {
            out.line(&format!("? {error}"))?;
        }
    }
    Ok(())
}
