//! `mainstay sds chat`: a conversation in a group, on a network as bad as one likes.

mod input;
mod room;
mod told;
mod way;

use self::{
    room::{Room, name_with_tag},
    way::{Joined, Way},
};
use super::ProfileArg;
use crate::{
    error::{CliError, Outcome, Result},
    interrupt::Interrupt,
    output::Output,
    random,
    size::parse_duration,
};
use mainstay::sds::{
    Config,
    driver::{Error as DriverError, Event, Faults, Handle},
};
use std::time::{Duration, Instant};

/// How often to look whether the user wants an end, or everything is settled.
const LOOK: Duration = Duration::from_millis(100);

/// Talk to a group over UDP multicast, gossipsub or TCP, with loss dialled in
///
/// Each line of standard input is a message to everybody in the same group and channel; start it in
/// a second terminal to have somebody to talk to. By default the group stays on this host. Whatever
/// is lost is noticed, asked for and repaired, so that all members end with the same lines in the
/// same order: `/log`, or `--log` at the end, prints them.
///
/// Over gossipsub and mesh a member prints where it listens, and another one dials that. Over mesh
/// each two members need one to dial the other; over gossipsub it is enough that they are connected
/// by way of others.
///
/// At the end of the input it stays until its own messages are acknowledged, nothing is missing and
/// nobody needs it any more; it tells the others what it has before it goes.
#[derive(clap::Args)]
#[command(after_help = "\
What stands before a line:
  #7   a message, in the order of arrival here
  ^    a late one, with the message that it stands before in the order that all share
  ok   a message of one's own was acknowledged, ?? probably
  ..   one is missing, is asked for, or is sent again

On a terminal: /log prints all messages in their order, /count what is kept and what waits.

Examples:
  mainstay sds chat --name alice --loss 30
  seq 100 | mainstay sds chat --name counter --loss 30 --log
  mainstay sds chat --group 239.77.3.2:7732 --interface 192.168.1.5 --hops 1
  mainstay sds chat --over gossipsub --group room --listen /ip4/0.0.0.0/tcp/7732
  mainstay sds chat --over gossipsub --group room --dial /ip4/192.168.1.5/tcp/7732
  mainstay sds chat --over mesh --group room --secret-file secret --listen 0.0.0.0:7733
  mainstay sds chat --over mesh --group room --secret-file secret --dial 192.168.1.5:7733
  mainstay sds chat --json | jq 'select(.event == \"delivered\")'")]
pub(crate) struct Args {
    /// What the others call you
    #[arg(long, env = "USER", default_value = "somebody", value_parser = a_name)]
    name: String,
    #[command(flatten)]
    way: Way,
    /// The conversation within the group
    #[arg(long, default_value = "chat")]
    channel: String,
    /// The dialect; all members speak the same one
    #[arg(long, value_enum, default_value = "lip")]
    profile: ProfileArg,
    /// Of a hundred messages so many are lost on their way in here
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=90))]
    loss: u8,
    /// Decides which ones are lost; without it, chance does
    #[arg(long)]
    seed: Option<u64>,
    /// Do not ask for what was said before
    #[arg(long)]
    joining: bool,
    /// Print all messages in the order that all share, at the end
    #[arg(long)]
    log: bool,
    /// At the end of the input stay at least so long, to hear the others and to help them
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "3s")]
    stay: Duration,
    /// At the end of the input give up after so long
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "60s")]
    patience: Duration,
}

/// A name is shown before each line, so it is short and steers nothing.
fn a_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.chars().count() > 24 {
        return Err("a name has 1 to 24 characters".to_owned());
    }
    if text.chars().any(|c| c.is_control() || c == '#') {
        return Err("a name has no '#' and no control characters".to_owned());
    }
    Ok(text.to_owned())
}

pub(crate) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    // One thread: whatever happens here waits for the network or for a person.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| {
        CliError::Driver(DriverError::Io { action: "start the runtime".to_owned(), source })
    })?;
    let outcome = runtime.block_on(talk(args, out));
    // The thread that reads the input may wait for a line that never comes.
    runtime.shutdown_background();
    outcome
}

/// Times that suit people who look at their screens.
fn config(args: &Args) -> Config {
    let mut config = match args.profile {
        ProfileArg::Lip => Config::lip(),
        ProfileArg::Nim => Config::nim_own(),
    };
    config.only_own_peers = true;
    // Two kilobytes instead of nineteen: a datagram of a packet or two.
    config.filter_capacity = 1000;
    // Whoever is heard counts from then on.
    config.participants = 2;
    config.start =
        if args.joining { mainstay::sds::Start::Joining } else { mainstay::sds::Start::Beginning };
    (config.t_min_ms, config.t_max_ms) = (300, 2_000);
    (config.resend_ms, config.resend_possibly_ms) = (2_500, 10_000);
    config.resend_attempts = 40;
    config.sync_interval_ms = 1_500;
    config.lost_after_ms = Some(60_000);
    config
}

/// How the end is reached.
#[derive(Clone, Copy)]
enum Phase {
    Talking,
    /// The input has ended, and this is when.
    Leaving(Instant),
    /// Everything is settled here, but others may wait to hear that their messages have arrived: so
    /// many times they are told.
    Parting(Instant, u32),
}

/// With what chance somebody who is there may miss everything that is said at parting.
const UNHEARD_CHANCE: f64 = 1e-4;

/// How often to say at parting what there is, when others lose as much as this one does.
fn partings(loss_percent: u8) -> u32 {
    let loss = f64::from(loss_percent.max(1)) / 100.0;
    ((UNHEARD_CHANCE.ln() / loss.ln()).ceil() as u32).clamp(3, 40)
}

async fn talk(args: &Args, out: &mut Output) -> Result<Outcome> {
    let interrupt = Interrupt::watch();
    let own_id = name_with_tag(&args.name, random::drawn());
    let faults = Faults {
        loss: f64::from(args.loss) / 100.0,
        ..Faults::none(args.seed.unwrap_or_else(random::drawn))
    };
    let Joined { handle, mut events, addresses } =
        args.way.join(&own_id, faults, random::drawn()).await?;
    handle.join(&args.channel, config(args)).await?;
    // Whoever is there already tells then what there is.
    announce(args, &handle).await?;

    let mut room = Room::new(out, own_id);
    room.opened(&args.way, &args.channel, args.loss, &addresses)?;
    let mut lines = input::lines();
    let mut phase = Phase::Talking;
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            line = lines.recv(), if matches!(phase, Phase::Talking) => match line {
                Some(line) => say(&line?, args, &handle, &mut room).await?,
                None => phase = Phase::Leaving(Instant::now()),
            },
            event = events.next() => match event {
                Some(Event::Newcomer) => announce(args, &handle).await?,
                Some(event) => {
                    if room.happened(event)? {
                        let members = room.members();
                        let set = handle.with(&args.channel, move |it, _| it.set_participants(members));
                        set.await??;
                    }
                }
                None => return Err(DriverError::Ended.into()),
            },
            _ = look.tick() => {
                if interrupt.is_asked() {
                    break;
                }
                phase = match phase {
                    Phase::Talking => Phase::Talking,
                    Phase::Leaving(since) | Phase::Parting(since, _)
                        if !is_settled(args, since, &handle, &mut room).await? =>
                    {
                        Phase::Leaving(since)
                    }
                    Phase::Leaving(since) => Phase::Parting(since, partings(args.loss)),
                    Phase::Parting(_, 0) => break,
                    Phase::Parting(since, left) => {
                        handle.with(&args.channel, |it, now| it.announce_now(now)).await??;
                        Phase::Parting(since, left - 1)
                    }
                };
            }
        }
    }
    finish(args, &handle, room, interrupt.is_asked()).await
}

/// Tells the others what there is, so that they notice what they lack, and what is lacking here.
async fn announce(args: &Args, handle: &Handle) -> Result<()> {
    Ok(handle.with(&args.channel, |channel, now| channel.announce(now)).await?)
}

async fn say(line: &str, args: &Args, handle: &Handle, room: &mut Room<'_>) -> Result<()> {
    match line.trim_end() {
        "" => Ok(()),
        "/log" => room.log(),
        "/count" => {
            let counts = handle.counts(&args.channel).await?;
            room.counts(&counts, &handle.statistics().await?)
        }
        text => match handle.send(&args.channel, text.as_bytes()).await {
            Ok(posted) => room.said(posted.id.as_bytes(), posted.lamport, text),
            // One line too many, or too long, does not end the conversation.
            Err(error @ (DriverError::TooLong { .. } | DriverError::Sds(_))) => {
                crate::error::warn(&error);
                Ok(())
            }
            Err(error) => Err(error.into()),
        },
    }
}

/// Whether there is nothing left to wait for.
async fn is_settled(
    args: &Args,
    since: Instant,
    handle: &Handle,
    room: &mut Room<'_>,
) -> Result<bool> {
    let counts = handle.counts(&args.channel).await?;
    room.needed(counts.needed);
    if since.elapsed() >= args.patience {
        return Ok(true);
    }
    if since.elapsed() < args.stay || room.quiet_for() < args.stay {
        return Ok(false);
    }
    Ok(counts.outgoing == 0 && counts.buffered == 0 && counts.missing == 0)
}

async fn finish(
    args: &Args,
    handle: &Handle,
    mut room: Room<'_>,
    interrupted: bool,
) -> Result<Outcome> {
    if args.log {
        room.log()?;
    }
    let unacknowledged = room.failed() + handle.counts(&args.channel).await?.outgoing;
    room.closed(&handle.statistics().await?)?;
    handle.end().await?;
    if unacknowledged > 0 && !interrupted {
        return Err(CliError::Unacknowledged { count: unacknowledged });
    }
    Ok(Outcome::Fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_is_said_at_parting_where_more_is_lost() {
        assert_eq!([0, 30, 50, 90].map(partings), [3, 8, 14, 40]);
    }

    #[test]
    fn names_that_could_steer_a_terminal_or_pass_for_others_are_refused() {
        assert_eq!(a_name("Ada Lovelace").as_deref(), Ok("Ada Lovelace"));
        for name in ["", "a#1", "a\x1b[2J", "a\nb", &"x".repeat(25)] {
            assert!(a_name(name).is_err(), "{name:?}");
        }
    }
}
