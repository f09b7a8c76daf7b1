//! `mainstay pool ...`: one file a command.
//!
//! Commands that only look map the pool read-only and take no process slot: they work, and harm
//! nothing, whatever the pool's state and however many processes have it open.

mod checkpoint;
mod create;
mod dump;
mod export;
mod fill;
mod holders;
mod import;
mod info;
mod ls;
pub(crate) mod portable;
mod recover;
mod repair;
mod rows;
mod show;
mod verify;
mod watch;

use crate::{
    error::{Outcome, Result},
    output::Output,
};
use clap::Subcommand;

/// Make, look at, mend and move pools of shared memory
///
/// A pool is a file of blocks that several processes share and that outlives all of them. POOL is
/// a path (with a '/') or a plain name, which is looked up in the pool folder: $MAINSTAY_DIR, else
/// $XDG_RUNTIME_DIR/mainstay, else /dev/shm/mainstay-<uid>.
#[derive(clap::Args)]
#[command(after_help = "\
Exit status: 0 all is well, 1 failed, 2 wrong command line, 3 damage found, 130 interrupted.

Examples:
  mainstay pool create calls --block-size 256
  mainstay pool fill calls --blocks 1000
  mainstay pool info calls
  mainstay pool show calls --limit 5
  mainstay pool ls --json")]
pub(crate) struct PoolArgs {
    /// Print JSON: one document, or a line each for `show`, `watch` and `export`
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: PoolCommand,
}

#[derive(Subcommand)]
enum PoolCommand {
    Create(create::Args),
    Ls(ls::Args),
    Info(info::Args),
    Show(show::Args),
    Dump(dump::Args),
    Fill(fill::Args),
    Holders(holders::Args),
    Watch(watch::Args),
    Verify(verify::Args),
    Repair(repair::Args),
    Checkpoint(checkpoint::Args),
    Recover(recover::Args),
    Export(export::Args),
    Import(import::Args),
}

pub(crate) fn run(args: PoolArgs) -> Result<Outcome> {
    let mut output = Output::new(args.json);
    let out = &mut output;
    let outcome = match args.command {
        PoolCommand::Create(args) => create::run(&args, out),
        PoolCommand::Ls(args) => ls::run(&args, out),
        PoolCommand::Info(args) => info::run(&args, out),
        PoolCommand::Show(args) => show::run(&args, out),
        PoolCommand::Dump(args) => dump::run(&args, out),
        PoolCommand::Fill(args) => fill::run(&args, out),
        PoolCommand::Holders(args) => holders::run(&args, out),
        PoolCommand::Watch(args) => watch::run(&args, out),
        PoolCommand::Verify(args) => verify::run(&args, out),
        PoolCommand::Repair(args) => repair::run(&args, out),
        PoolCommand::Checkpoint(args) => checkpoint::run(&args, out),
        PoolCommand::Recover(args) => recover::run(&args, out),
        PoolCommand::Export(args) => export::run(&args, out),
        PoolCommand::Import(args) => import::run(&args, out),
    }?;
    output.flush()?;
    Ok(outcome)
}
