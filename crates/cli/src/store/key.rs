//! `mainstay store key ...`: files with keys.

use super::keys;
use crate::{
    error::{Outcome, Result},
    output::Output,
};
use clap::Subcommand;
use mainstay::store::Key;
use serde::Serialize;
use std::path::PathBuf;

/// Make and name the keys that stores are encrypted under
///
/// A key is a file with 64 hexadecimal digits (or 32 bytes) that only its owner can read. Keep a copy
/// of it apart from the store and its backups: without the key nobody can read them, with it anybody.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay store key new /etc/mainstay/people.key
  mainstay store create ./people --key-bytes 16 --value-bytes 64 --key-file /etc/mainstay/people.key
  MAINSTAY_KEY_FILE=/etc/mainstay/people.key mainstay store get ./people alice
  mainstay store key id /etc/mainstay/people.key")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    New(New),
    Id(Id),
}

/// Make a key, in a file of its own
///
/// The file must not be there: a key is never replaced. Only its owner can read it (mode 0600).
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay store key new people.key
  mainstay store key new /etc/mainstay/people.key --json")]
struct New {
    /// The file to make
    #[arg(value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
}

/// Show what a key is called
///
/// That is the name by which stores and errors say which key is wanted; it tells nothing of the key.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay store key id people.key
  mainstay store stats ./people --json | jq .encrypted_under")]
struct Id {
    /// The file with the key
    #[arg(value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
}

#[derive(Serialize)]
struct Report {
    file: String,
    key: String,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let (file, key, is_new) = match &args.command {
        Command::New(New { file }) => (file, keys::make(file)?, true),
        Command::Id(Id { file }) => (file, Key::read(file)?, false),
    };
    let (file, key) = (file.display().to_string(), key.id().to_string());
    if out.json {
        out.document(&Report { file, key })?;
    } else if is_new {
        out.line(&format!("{file}: key {key}; keep a copy of it apart from the store"))?;
    } else {
        out.line(&key)?;
    }
    Ok(Outcome::Fine)
}
