//! `mainstay state feed`.

use super::target::{Target, domain};
use crate::{
    error::{Outcome, Result},
    interrupt::Interrupt,
    output::Output,
    size::{grouped, parse_duration},
};
use mainstay::state::{Record, State};
use serde::Serialize;
use std::{
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// At full speed, how many versions are written between two looks at the clock.
const BATCH: u64 = 256;
/// How long an interrupt may go unnoticed.
const NAP_MAX: Duration = Duration::from_millis(50);

/// Write a state again and again, to try things out
///
/// Plays the part of a service: each version counts on by one, and has the count in it several
/// times, so that it can be seen that nobody ever reads half a version. As fast as possible, or
/// --rate times a second; until interrupted, or --count or --for says it is enough. The state is
/// transient, and ends when nobody else is subscribed.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay state feed speed
  mainstay state feed speed --rate 100 --for 10s
  mainstay state feed speed & mainstay state watch speed --wait --max-rate 5")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// So many versions a second, 1 to 100000 [default: as many as possible]
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: Option<u32>,
    /// End after so many versions
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// End after so long
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    end: Option<Duration>,
}

/// What is written: the count, once more in every copy.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Feed {
    count: u64,
    at_unix_ns: u64,
    copies: [u64; 6],
}

impl Record for Feed {
    const NAME: &'static str = "mainstay.feed/1";
    const FIELDS: &'static str = "count: u64, at_unix_ns: u64, copies: [u64; 6]";
}

#[derive(Serialize)]
struct Report<'a> {
    name: &'a str,
    written: u64,
    version: u64,
    elapsed_ms: u64,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let interrupt = Interrupt::watch();
    let state = domain()?.writer::<Feed>(&args.target.name)?;
    let began = Instant::now();
    let is_over = |written: u64| {
        interrupt.is_asked()
            || args.count.is_some_and(|count| written >= count)
            || args.end.is_some_and(|end| began.elapsed() >= end)
    };
    let mut written = 0;
    while !is_over(written) {
        match args.rate {
            Some(rate) => {
                let due = Duration::from_secs_f64(written as f64 / f64::from(rate));
                let early = due.saturating_sub(began.elapsed());
                if early.is_zero() {
                    written += write(&state, 1)?;
                } else {
                    thread::sleep(early.min(NAP_MAX));
                }
            }
            None => {
                let left = args.count.map_or(BATCH, |count| count - written);
                written += write(&state, left.min(BATCH))?;
            }
        }
    }
    tell(&state, written, began.elapsed(), out)?;
    Ok(Outcome::Fine)
}

/// Goes on where the state is, so that several may feed it.
fn write(state: &State<Feed>, times: u64) -> Result<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at_unix_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    for _ in 0..times {
        state.transact(mainstay::state::RetryPolicy::default(), |transaction| {
            let feed = transaction.get_mut()?;
            let count = feed.count + 1;
            *feed = Feed { count, at_unix_ns, copies: [count; 6] };
            Ok(())
        })?;
    }
    Ok(times)
}

fn tell(state: &State<Feed>, written: u64, elapsed: Duration, out: &mut Output) -> Result<()> {
    let (name, version) = (state.name(), state.version()?);
    if out.json {
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        return out.document(&Report { name, written, version, elapsed_ms });
    }
    let rate = (written as f64 / elapsed.as_secs_f64().max(1e-9)) as u64;
    out.line(&format!(
        "wrote {} versions of {name} in {:.1} s: {} a second",
        grouped(written),
        elapsed.as_secs_f64(),
        grouped(rate),
    ))
}
