//! `mainstay store ...`: one file a command.
//!
//! Commands that only look read the files without taking part; the others open the store, and are
//! refused while another process has it open. Beside that one `scrub` reads all files, and `get`, `scan`,
//! `export` and `stats` what they need, as far as the kind of the store allows it; `verify` is refused.

mod aside;
mod backup;
mod bench;
mod bytes;
mod compact;
mod create;
mod export;
mod follow;
mod get;
mod import;
mod key;
mod keys;
mod opened;
mod portable;
mod promote;
mod put;
mod rekey;
mod repair;
mod replica;
mod reshard;
mod restore;
mod rm;
mod scan;
mod scrub;
mod serve;
mod stats;
mod sweep;
mod target;
mod touch;
mod verify;
mod watch;

pub(crate) use import::kept;
pub(crate) use portable::LineError;

use crate::{
    error::{Outcome, Result},
    open_files,
    output::Output,
};
use clap::Subcommand;

/// Make, fill, look at and check key-value stores on disk
///
/// A store is a directory with records: a key of a fixed size, and a value of a fixed size. It is
/// held in memory and read at that speed; its truth is a log on disk, so that what was written
/// durably is there after a kill or a power cut. What a command has written is durable when it ends.
/// With `create --values any`, keys and values have any size, and values stay on the disk. With
/// --key-file, or MAINSTAY_KEY_FILE in the environment, a store is kept encrypted (AES-256-GCM).
#[derive(clap::Args)]
#[command(after_help = "\
Exit status: 0 all is well, 1 failed, 2 wrong command line, 3 damage or a difference found, 130
interrupted.

Examples:
  mainstay store create ./people --key-bytes 16 --value-bytes 64
  mainstay store put ./people alice 'room 12'
  mainstay store get ./people alice
  mainstay store scan ./people --prefix a
  mainstay store export ./people people.csv
  mainstay store key new people.key
  mainstay store create ./secrets --values any --key-file people.key
  mainstay store serve ./people 127.0.0.1:7500 --node 1 --secret-file secret
  mainstay store verify ./people
  mainstay store backup ./people /mnt/backup/people")]
pub(crate) struct StoreArgs {
    /// Print JSON: one document, or a line each for `scan`, `watch`, `serve` and `follow`
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    keys: keys::KeyFiles,
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Subcommand)]
enum StoreCommand {
    Create(create::Args),
    Get(get::Args),
    Put(put::Args),
    Touch(touch::Args),
    Rm(rm::Args),
    Sweep(sweep::Args),
    Scan(scan::Args),
    Watch(watch::Args),
    Import(import::Args),
    Export(export::Args),
    Verify(verify::Args),
    Scrub(scrub::Args),
    Stats(stats::Args),
    Repair(repair::Args),
    Backup(backup::Args),
    Restore(restore::Args),
    Compact(compact::Args),
    Reshard(reshard::Args),
    Key(key::Args),
    Rekey(rekey::Args),
    Bench(bench::Args),
    Serve(serve::Args),
    Follow(follow::Args),
    Aside(aside::Args),
    Promote(promote::Args),
}

pub(crate) fn run(args: StoreArgs) -> Result<Outcome> {
    open_files::allow_all();
    // The file that is asked for may be the one that is to be made.
    if !matches!(args.command, StoreCommand::Key(_)) {
        args.keys.take()?;
    }
    let mut output = Output::new(args.json);
    let out = &mut output;
    let outcome = match args.command {
        StoreCommand::Create(args) => create::run(&args, out),
        StoreCommand::Get(args) => get::run(&args, out),
        StoreCommand::Put(args) => put::run(&args, out),
        StoreCommand::Touch(args) => touch::run(&args, out),
        StoreCommand::Sweep(args) => sweep::run(&args, out),
        StoreCommand::Rm(args) => rm::run(&args, out),
        StoreCommand::Scan(args) => scan::run(&args, out),
        StoreCommand::Watch(args) => watch::run(&args, out),
        StoreCommand::Import(args) => import::run(&args, out),
        StoreCommand::Export(args) => export::run(&args, out),
        StoreCommand::Verify(args) => verify::run(&args, out),
        StoreCommand::Scrub(args) => scrub::run(&args, out),
        StoreCommand::Stats(args) => stats::run(&args, out),
        StoreCommand::Repair(args) => repair::run(&args, out),
        StoreCommand::Backup(args) => backup::run(&args, out),
        StoreCommand::Restore(args) => restore::run(&args, out),
        StoreCommand::Compact(args) => compact::run(&args, out),
        StoreCommand::Reshard(args) => reshard::run(&args, out),
        StoreCommand::Key(args) => key::run(&args, out),
        StoreCommand::Rekey(args) => rekey::run(&args, out),
        StoreCommand::Bench(args) => bench::run(&args, out),
        StoreCommand::Serve(args) => serve::run(&args, out),
        StoreCommand::Follow(args) => follow::run(&args, out),
        StoreCommand::Aside(args) => aside::run(&args, out),
        StoreCommand::Promote(args) => promote::run(&args, out),
    }?;
    output.flush()?;
    Ok(outcome)
}
