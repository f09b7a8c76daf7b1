//! `mainstay channel ...`: one file a command.

mod bench;
mod cert;
mod echo;
mod given;
mod patience;
mod ping;
pub(crate) mod wire;

use crate::{
    error::{Outcome, Result},
    output::Output,
};
use clap::Subcommand;

/// Try out and measure channels between nodes, and make certificates for them
///
/// TLS and QUIC need a program that was built with the feature `tls`.
#[derive(clap::Args)]
#[command(after_help = "\
Exit status: 0 all is well, 1 failed, 2 wrong command line, 130 interrupted, as a listener is that
was ended by Ctrl-C.

Examples:
  mainstay channel bench --over tcp
  mainstay channel ping --listen 127.0.0.1:7400 --node 1 --secret-file secret &
  mainstay channel ping 127.0.0.1:7400 --node 2 --secret-file secret --count 3
  mainstay channel cert certs --node 1 --node 2")]
pub(crate) struct ChannelArgs {
    /// Print JSON, one value a line; errors stay text, on standard error
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: ChannelCommand,
}

#[derive(Subcommand)]
enum ChannelCommand {
    Ping(ping::Args),
    Bench(bench::Args),
    #[cfg_attr(not(feature = "tls"), command(hide = true))]
    Cert(cert::Args),
}

pub(crate) fn run(args: ChannelArgs) -> Result<Outcome> {
    let mut output = Output::new(args.json);
    let outcome = match args.command {
        ChannelCommand::Ping(args) => ping::run(&args, &mut output),
        ChannelCommand::Bench(args) => bench::run(&args, &mut output),
        ChannelCommand::Cert(args) => cert::run(&args, &mut output),
    }?;
    output.flush()?;
    Ok(outcome)
}
