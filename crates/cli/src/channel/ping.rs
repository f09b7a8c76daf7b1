//! `mainstay channel ping`.

use super::{
    echo::{Latencies, echo, time},
    given::{message_len, some_time},
    patience,
    wire::{Identity, Over},
};
use crate::{
    error::{CliError, Outcome, Result, warn},
    interrupt::Interrupt,
    output::Output,
    size::parse_duration,
};
use mainstay::channel::{
    Bounds, Bytes, Channel, NodeId,
    net::{self, Listener},
    shm,
};
use serde::Serialize;
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

/// See whether a node can be reached, and how fast: there and back, again and again
///
/// One end listens and sends everything back, until it is interrupted; the other connects and
/// measures. Whoever is refused is told why at both ends. With --over shm, ADDRESS is the path of a
/// file that the listening end makes.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  head -c 32 /dev/urandom > secret
  mainstay channel ping --listen 127.0.0.1:7400 --node 1 --secret-file secret &
  mainstay channel ping 127.0.0.1:7400 --node 2 --secret-file secret --count 3
  mainstay channel ping calls-1:7400 --node 2 --secret-file secret --connect-timeout 2s
  mainstay channel ping --listen /tmp/calls.channel --over shm --node 1 &
  mainstay channel ping /tmp/calls.channel --over shm --node 2 --interval 0s --count 1000")]
pub(crate) struct Args {
    /// Where the other end listens
    #[arg(required_unless_present = "listen")]
    address: Option<String>,
    /// Listen here, and send back whatever comes
    #[arg(long, value_name = "ADDRESS", conflicts_with = "address")]
    listen: Option<String>,
    /// Over what
    #[arg(long, value_enum, default_value = "tcp")]
    over: Over,
    #[command(flatten)]
    identity: Identity,
    /// How many messages
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// How long between two
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "1s")]
    interval: Duration,
    /// How long to wait for one to come back
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "5s")]
    timeout: Duration,
    /// How long connecting may take, and then shaking hands [default: 10s, and 5s]
    #[arg(long, value_name = "DURATION", value_parser = some_time)]
    connect_timeout: Option<Duration>,
    /// How long a message is, as in 100, 64KiB or 1MiB
    #[arg(long, value_name = "BYTES", value_parser = message_len, default_value = "64")]
    size: usize,
}

#[derive(Serialize)]
struct Line {
    number: u64,
    bytes: usize,
    rtt_ns: u64,
}

#[derive(Serialize)]
struct Summary {
    sent: u64,
    received: u64,
    rtt_p50_ns: u64,
    rtt_max_ns: u64,
}

#[derive(Serialize)]
struct Listening {
    listening: String,
}

#[derive(Serialize)]
struct Visitor {
    node: u64,
    address: Option<String>,
}

/// Somebody who was not let in.
#[derive(Serialize)]
struct TurnedAway {
    refused: String,
    why: String,
    /// How many more were, since the last one that is told of.
    others: u64,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    match (&args.listen, args.address.as_deref().unwrap_or_default()) {
        (Some(place), _) => listen(args, place, out),
        (None, place) => ping(args, place, out),
    }
}

fn listen(args: &Args, place: &str, out: &mut Output) -> Result<Outcome> {
    const LEFT: &str = "nobody is answered here any more";
    let interrupt = Interrupt::watch();
    if args.over == Over::Shm {
        let path = Path::new(place);
        let mut offer = shm::create(path, NodeId(args.identity.node), Bounds::default())?;
        say(out, &Listening { listening: place.to_owned() }, format!("listening at {place}"))?;
        let mut served = Ok(());
        while !interrupt.is_asked() {
            if let Some(channel) = offer.accept(patience::LOOK)? {
                served = visitor(&channel, out);
                patience::with(&channel, &interrupt, || echo(&channel, || !interrupt.is_asked()));
                break;
            }
        }
        // One file is for two processes once.
        let hint = "remove it by hand";
        std::fs::remove_file(path).map_err(CliError::file(path, "remove", hint))?;
        served?;
        interrupt.check(LEFT)?;
        return Ok(Outcome::Fine);
    }
    let (wire, settings) = args.identity.on(args.over)?;
    let listener = Listener::bind(&wire, place, settings)?;
    let place = listener.address().to_string();
    say(out, &Listening { listening: place.clone() }, format!("listening at {place}"))?;
    let interrupted = Arc::new(AtomicBool::new(false));
    let mut told = 0;
    while !interrupt.is_asked() {
        if let Some(channel) = listener.accept(patience::LOOK)? {
            visitor(&channel, out)?;
            let interrupted = Arc::clone(&interrupted);
            thread::spawn(move || echo(&channel, || !interrupted.load(Relaxed)));
        }
        tell_refused(&listener, &mut told, out)?;
    }
    interrupted.store(true, Relaxed);
    interrupt.check(LEFT)?;
    Ok(Outcome::Fine)
}

/// Tells of those who were refused since the last time.
fn tell_refused(listener: &Listener, told: &mut u64, out: &mut Output) -> Result<()> {
    for refused in listener.refused() {
        if refused.number <= *told {
            continue;
        }
        let others = refused.number - *told - 1;
        *told = refused.number;
        if out.json {
            let address = refused.address.to_string();
            out.json_line(&TurnedAway { refused: address, why: refused.why, others })?;
            out.flush()?;
        } else {
            let before = if others == 0 { String::new() } else { format!(" ({others} others)") };
            warn(&format!("refused{before}: {}", refused.why));
        }
    }
    Ok(())
}

fn visitor(channel: &dyn Channel, out: &mut Output) -> Result<()> {
    let peer = channel.peer();
    let address = peer.address.map(|address| address.to_string());
    let from = address.clone().map(|address| format!(" from {address}")).unwrap_or_default();
    say(out, &Visitor { node: peer.node.0, address }, format!("node {}{from}", peer.node))
}

/// What was sent, and how long each took that came back.
#[derive(Default)]
struct Tally {
    sent: u64,
    rtts_ns: Vec<u64>,
}

fn ping(args: &Args, place: &str, out: &mut Output) -> Result<Outcome> {
    let channel: Arc<dyn Channel> = if args.over == Over::Shm {
        Arc::new(shm::join(Path::new(place), NodeId(args.identity.node))?)
    } else {
        let (wire, mut settings) = args.identity.on(args.over)?;
        if let Some(time) = args.connect_timeout {
            (settings.connect_time, settings.handshake_time) = (time, time);
        }
        Arc::new(net::connect(&wire, place, &settings)?)
    };
    // Before, there was nothing to sum up, and an interrupt ended the program as it always does.
    let interrupt = Interrupt::watch();
    let mut tally = Tally::default();
    let outcome = patience::with(&*channel, &interrupt, || {
        rounds(args, &*channel, &interrupt, &mut tally, out)
    });
    match outcome {
        Err(_) if interrupt.is_asked() => {
            sum_up(tally, out)?;
            interrupt.check("the channel was ended")?;
        }
        outcome => {
            outcome?;
            channel.close();
            sum_up(tally, out)?;
        }
    }
    Ok(Outcome::Fine)
}

/// Fails when it is interrupted, too.
fn rounds(
    args: &Args,
    channel: &dyn Channel,
    interrupt: &Interrupt,
    tally: &mut Tally,
    out: &mut Output,
) -> Result<()> {
    for number in 1..=args.count {
        interrupt.check("not all were sent")?;
        let message = Bytes::from(vec![(number % 251) as u8; args.size]);
        let start = Instant::now();
        channel.send(message.clone())?;
        tally.sent = number;
        let answer = channel.receive(args.timeout)?;
        if answer.as_ref() != Some(&message) {
            let (sent, received) = (tally.sent, tally.rtts_ns.len() as u64);
            return Err(CliError::NoAnswer { after: args.timeout, sent, received });
        }
        let rtt_ns = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        tally.rtts_ns.push(rtt_ns);
        let line = Line { number, bytes: args.size, rtt_ns };
        say(out, &line, format!("{number}: {} bytes back in {}", args.size, time(rtt_ns)))?;
        if number < args.count {
            patience::rest(args.interval, interrupt);
        }
    }
    Ok(())
}

fn sum_up(tally: Tally, out: &mut Output) -> Result<()> {
    let (sent, received) = (tally.sent, tally.rtts_ns.len() as u64);
    let latencies = Latencies::of(tally.rtts_ns);
    let (rtt_p50_ns, rtt_max_ns) = (latencies.per_mille(500), latencies.per_mille(1_000));
    let mut text = format!("{received} of {sent} came back");
    if received > 0 {
        let (half, all) = (time(rtt_p50_ns), time(rtt_max_ns));
        text.push_str(&format!("; half of them within {half}, all within {all}"));
    }
    say(out, &Summary { sent, received, rtt_p50_ns, rtt_max_ns }, text)
}

/// One line, at once: somebody may be waiting for it.
fn say(out: &mut Output, json: &impl Serialize, text: String) -> Result<()> {
    if out.json {
        out.json_line(json)?;
    } else {
        out.line(&text)?;
    }
    out.flush()
}
