//! `mainstay channel bench`.

use super::{
    echo::{Latencies, echo, time},
    given::{message_len, some_time},
    wire::Over,
};
use crate::{
    error::{CliError, Outcome, Result},
    output::Output,
    progress::Progress,
    size::{grouped, human},
};
use mainstay::channel::{
    Bounds, Bytes, Channel, ClusterId, NodeId, Secret,
    handshake::{Local, Purpose},
    memory,
    net::{self, Listener, Settings, Wire},
    shm,
};
use serde::Serialize;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

/// Measure a transport on this host: latency there and back, and throughput one way
///
/// Both ends are in this process, and the network is the loopback interface. For comparisons with
/// other libraries, see `cargo xtask bench channel`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay channel bench --over memory
  mainstay channel bench --over tcp --size 64KiB --time 5s
  mainstay channel bench --over shm --json")]
pub(crate) struct Args {
    /// Over what
    #[arg(long, value_enum, default_value = "tcp")]
    over: Through,
    /// How long a message is, as in 100, 64KiB or 1MiB
    #[arg(long, value_name = "BYTES", value_parser = message_len, default_value = "64")]
    size: usize,
    /// How long to measure, for each of the two
    #[arg(long, value_name = "DURATION", value_parser = some_time, default_value = "2s")]
    time: Duration,
}

/// What is between two ends in one process.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Through {
    /// Two queues
    Memory,
    /// Shared memory, as between two processes
    Shm,
    /// TCP over the loopback interface
    Tcp,
    /// TLS 1.3 over it
    #[cfg_attr(not(feature = "tls"), value(hide = true))]
    Tls,
    /// QUIC over the loopback interface
    #[cfg_attr(not(feature = "tls"), value(hide = true))]
    Quic,
}

impl Through {
    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Shm => Over::Shm.name(),
            Self::Tcp => Over::Tcp.name(),
            Self::Tls => Over::Tls.name(),
            Self::Quic => Over::Quic.name(),
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Serialize)]
struct Report {
    over: &'static str,
    bytes: usize,
    round_trips: u64,
    rtt_p50_ns: u64,
    rtt_p90_ns: u64,
    rtt_p99_ns: u64,
    rtt_p999_ns: u64,
    rtt_max_ns: u64,
    messages_per_second: u64,
    bytes_per_second: u64,
}

type End = Arc<dyn Channel>;

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let (a, b) = ends(args.over)?;
    let progress = Progress::spinner("measuring");
    let rtts_ns = round_trips(args, &a, &b)?;
    let (messages, took) = one_way(args, &a, &b)?;
    drop(progress);
    let round_trips = rtts_ns.len() as u64;
    let latencies = Latencies::of(rtts_ns);
    let per_second = messages as f64 / took.as_secs_f64();
    let report = Report {
        over: args.over.name(),
        bytes: args.size,
        round_trips,
        rtt_p50_ns: latencies.per_mille(500),
        rtt_p90_ns: latencies.per_mille(900),
        rtt_p99_ns: latencies.per_mille(990),
        rtt_p999_ns: latencies.per_mille(999),
        rtt_max_ns: latencies.per_mille(1_000),
        messages_per_second: per_second as u64,
        bytes_per_second: (per_second * args.size as f64) as u64,
    };
    if out.json {
        out.document(&report)?;
        return Ok(Outcome::Fine);
    }
    out.fields(&[
        ("transport", report.over.to_owned()),
        ("message", format!("{} bytes", grouped(report.bytes as u64))),
        ("round trips", grouped(report.round_trips)),
        ("  50 % within", time(report.rtt_p50_ns)),
        ("  90 % within", time(report.rtt_p90_ns)),
        ("  99 % within", time(report.rtt_p99_ns)),
        ("  99.9 % within", time(report.rtt_p999_ns)),
        ("  all within", time(report.rtt_max_ns)),
        ("one way", format!("{} messages/s", grouped(report.messages_per_second))),
        ("", format!("{}/s", human(report.bytes_per_second))),
    ])?;
    Ok(Outcome::Fine)
}

fn round_trips(args: &Args, a: &End, b: &End) -> Result<Vec<u64>> {
    let over = Arc::new(AtomicBool::new(false));
    let echoing = thread::spawn({
        let (b, over) = (Arc::clone(b), Arc::clone(&over));
        move || echo(&*b, || !over.load(Relaxed))
    });
    let message = Bytes::from(vec![7; args.size]);
    let measure = || {
        let mut rtts_ns = Vec::new();
        let end = Instant::now() + args.time;
        loop {
            let start = Instant::now();
            if start >= end {
                return Ok(rtts_ns);
            }
            a.send(message.clone())?;
            if a.receive(PATIENCE)?.is_none() {
                let received = rtts_ns.len() as u64;
                return Err(CliError::NoAnswer { after: PATIENCE, sent: received + 1, received });
            }
            rtts_ns.push(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
    };
    let rtts_ns = measure();
    over.store(true, Relaxed);
    // It cannot have panicked: nothing in it can.
    let _ = echoing.join();
    rtts_ns
}

/// How many messages passed, and in how long.
fn one_way(args: &Args, a: &End, b: &End) -> Result<(u64, Duration)> {
    let message = Bytes::from(vec![7; args.size]);
    let sending = thread::spawn({
        let (a, time) = (Arc::clone(a), args.time);
        move || -> Result<u64> {
            let (start, mut sent) = (Instant::now(), 0);
            // The clock costs more than a message in memory: it is read now and then.
            while sent % 64 != 0 || start.elapsed() < time {
                a.send(message.clone())?;
                sent += 1;
            }
            a.close();
            Ok(sent)
        }
    });
    let (start, mut received) = (Instant::now(), 0);
    while let Ok(Some(_)) = b.receive(PATIENCE) {
        received += 1;
    }
    let took = start.elapsed();
    let sent = sending.join().unwrap_or(Ok(0))?;
    if received < sent {
        return Err(CliError::NoAnswer { after: PATIENCE, sent, received });
    }
    Ok((received, took))
}

/// Both ends of a channel in this process.
fn ends(over: Through) -> Result<(End, End)> {
    match over {
        Through::Memory => {
            let (a, b) = memory::pair();
            Ok((Arc::new(a), Arc::new(b)))
        }
        Through::Shm => {
            let mut offer = shm::create_memfd(NodeId(1), Bounds::default())?;
            let b = shm::join_fd(offer.descriptor()?, NodeId(2))?;
            let after = PATIENCE;
            let accepted = offer.accept(PATIENCE)?;
            let a = accepted.ok_or(CliError::NoAnswer { after, sent: 0, received: 0 })?;
            Ok((Arc::new(a), Arc::new(b)))
        }
        Through::Tcp => {
            let secret = Secret::new("both ends are in one process")?;
            connected(&Wire::Tcp, &Wire::Tcp, ClusterId::default(), Some(secret))
        }
        Through::Tls => certified(Over::Tls),
        Through::Quic => certified(Over::Quic),
    }
}

#[cfg(feature = "tls")]
fn certified(over: Over) -> Result<(End, End)> {
    use super::{cert, wire};
    let hint = "set TMPDIR to a folder that can be written to";
    let folder = tempfile::tempdir().map_err(CliError::file(
        &std::env::temp_dir(),
        "make a folder in",
        hint,
    ))?;
    cert::make(folder.path(), None, &[1, 2], 1)?;
    let cluster = wire::cluster_of(folder.path())?;
    let node = |node| wire::certified(over, folder.path(), NodeId(node));
    connected(&node(1)?, &node(2)?, cluster, None)
}

#[cfg(not(feature = "tls"))]
fn certified(_: Over) -> Result<(End, End)> {
    Err(CliError::WithoutTls)
}

fn connected(
    here: &Wire,
    there: &Wire,
    cluster: ClusterId,
    secret: Option<Secret>,
) -> Result<(End, End)> {
    let purpose = Purpose::new("bench")?;
    let settings = |node| {
        let local = Local::new(NodeId(node), cluster, purpose.clone());
        Settings::new(match secret.clone() {
            Some(secret) => local.with_secret(secret),
            None => local,
        })
    };
    let listener = Listener::bind(here, "127.0.0.1:0", settings(1))?;
    let dialled = net::connect(there, &listener.address().to_string(), &settings(2))?;
    let accepted = listener.accept(PATIENCE)?;
    let after = PATIENCE;
    let accepted = accepted.ok_or(CliError::NoAnswer { after, sent: 0, received: 0 })?;
    Ok((Arc::new(accepted), Arc::new(dialled)))
}
