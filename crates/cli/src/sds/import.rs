//! `mainstay sds import`: from what `nim-sds` kept to what Mainstay keeps.

use crate::{
    error::{CliError, Outcome, Result},
    output::Output,
    size::grouped,
};
use mainstay::sds::{
    Channel, Config, Error, Keep, NimSnapshot, Now, Output as Said,
    persist::{Durability, Persistence, StorePersistence},
};
use serde::Serialize;
use std::{
    fs,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

/// Take over what nim-sds kept of a channel, into a store
///
/// The file has the channel's ChannelData as nim-sds writes it. Its history counts as delivered, what
/// waited goes on waiting, and what nobody acknowledged will be sent again. A node goes on with it
/// whose changes are kept in that folder (StorePersistence), with a configuration of the nim profile.
#[derive(clap::Args)]
#[command(after_help = "\
Exit status: 0 it is taken over, 1 it could not be, or the store has such a channel, 3 the file is \
no such snapshot.

Examples:
  mainstay sds inspect snapshot.bin
  mainstay sds import snapshot.bin --channel room --participant alice --into store/")]
pub(crate) struct Args {
    /// The snapshot
    #[arg(value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
    /// What the channel is called
    #[arg(long)]
    channel: String,
    /// The id of the participant that kept it
    #[arg(long, value_name = "ID")]
    participant: String,
    /// The folder of the store; it is made if it is not there
    #[arg(long, value_name = "FOLDER", value_hint = clap::ValueHint::DirPath)]
    into: PathBuf,
}

/// What was taken over.
#[derive(Serialize)]
struct Imported<'a> {
    channel: &'a str,
    lamport: u64,
    messages: usize,
    waiting: usize,
    unacknowledged: usize,
    missing: usize,
}

pub(crate) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let hint = "check the path";
    let bytes = fs::read(&args.file).map_err(CliError::file(&args.file, "read it", hint))?;
    let snapshot = NimSnapshot::parse(&bytes).map_err(|error| CliError::NotSds {
        what: args.file.display().to_string(),
        why: super::inspect::complaint(&error),
    })?;
    let mut config = Config::nim();
    config.keep = Keep::Durable;
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = Now { mono_ms: 0, wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX) };
    let own = args.participant.as_bytes();
    let mut channel = Channel::import_nim(&args.channel, own, config, now, &snapshot)?;

    let hint = "name a folder that you may write to";
    fs::create_dir_all(&args.into).map_err(CliError::file(&args.into, "make it", hint))?;
    let mut place = StorePersistence::open(&args.into, Durability::Group)?;
    if !place.load(&args.channel)?.is_empty() {
        return Err(Error::ChannelExists { name: args.channel.clone() }.into());
    }
    while let Some(output) = channel.poll_output() {
        if let Said::Persist(change) = output {
            place.save(&args.channel, &change)?;
            let number = change.number;
            channel.persisted(number);
        }
    }
    let counts = channel.counts();
    let imported = Imported {
        channel: &args.channel,
        lamport: counts.lamport,
        messages: counts.logged,
        waiting: counts.buffered,
        unacknowledged: counts.outgoing,
        missing: counts.missing,
    };
    if out.json {
        out.document(&imported)?;
    } else {
        out.fields(&[
            ("channel", args.channel.clone()),
            ("lamport", imported.lamport.to_string()),
            ("messages", grouped(imported.messages as u64)),
            ("waiting for others", grouped(imported.waiting as u64)),
            ("not acknowledged", grouped(imported.unacknowledged as u64)),
            ("missing", grouped(imported.missing as u64)),
        ])?;
    }
    Ok(Outcome::Fine)
}
