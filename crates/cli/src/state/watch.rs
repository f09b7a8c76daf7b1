//! `mainstay state watch`.

use super::{
    target::{Target, layout},
    value::{Form, ValueRow},
};
use crate::{
    error::{CliError, Outcome, Result, warn},
    output::Output,
    size::{grouped, parse_duration},
};
use mainstay::state::{Domain, Error, StateInfo, Watch};
use serde::Serialize;
use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// No wait is longer than this: some clocks have no later time.
const WAIT_MAX: Duration = Duration::from_secs(3_600);
/// How often a state that is waited for is looked for.
const APPEARANCE: Duration = Duration::from_millis(50);

/// Print a line for every change of a state, or run a command
///
/// The first line is the value as it is. Each line is one whole version; those that came and went
/// between two lines are skipped, which the numbers show. A transient state lives as long as it is
/// watched, and none can be removed meanwhile.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay state watch temperature
  mainstay state watch vitals.cpu --max-rate 5
  mainstay state watch vitals.cpu --json | jq .value.running
  mainstay state watch temperature --wait --count 2
  mainstay state watch config --exec 'cat > /etc/app.conf; systemctl reload app'

The command of --exec is run by sh, one at a time, with the value on standard input and
MAINSTAY_STATE and MAINSTAY_VERSION in its environment.")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// At most so many changes a second, the newest version each time
    #[arg(long, value_name = "R", value_parser = parse_rate)]
    max_rate: Option<f64>,
    /// End after so many changes, the first value included
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// End after so long
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    end: Option<Duration>,
    /// Wait for the state if there is none yet
    #[arg(long)]
    wait: bool,
    /// Run this for each change instead of printing a line
    #[arg(long, value_name = "COMMAND", conflicts_with = "json")]
    exec: Option<String>,
    /// As text, without the zeros at its end, whatever it is
    #[arg(long, conflicts_with_all = ["json", "hex", "exec"])]
    text: bool,
    /// In hexadecimal digits
    #[arg(long, conflicts_with_all = ["json", "exec"])]
    hex: bool,
}

/// Changes a second.
pub(super) fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.001..=1e6).contains(&rate) => Ok(rate),
        _ => Err("write a number from 0.001 to 1000000: 5 is five times a second".to_owned()),
    }
}

#[derive(Serialize)]
struct Line<'a> {
    at_ms: u64,
    name: &'a str,
    version: u64,
    size_bytes: usize,
    #[serde(flatten)]
    value: ValueRow<'a>,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let interval = args.max_rate.map(|rate| Duration::from_secs_f64(1.0 / rate));
    let mut pace = Pace { began: Instant::now(), end: args.end, interval, last: None };
    let Some((domain, info)) = find(args, &pace)? else { return Ok(Outcome::Fine) };
    let layout = layout(&info);
    let mut watch = args.target.reader(&domain)?.watch()?;
    let form = if args.text {
        Form::Text
    } else if args.hex {
        Form::Hex
    } else {
        Form::Fitting
    };
    let mut bytes = Vec::new();
    for _ in 0..args.count.unwrap_or(u64::MAX) {
        let Some(version) = next(&mut watch, &mut pace, &mut bytes)? else { break };
        let name = &*args.target.name;
        if let Some(command) = &args.exec {
            execute(command, name, version, &bytes)?;
        } else if out.json {
            let value = ValueRow::of(&bytes, layout.as_ref());
            let (at_ms, size_bytes) = (pace.at_ms(), bytes.len());
            out.json_line(&Line { at_ms, name, version, size_bytes, value })?;
        } else {
            let value = form.line(&bytes, layout.as_ref());
            let (at, version) = (pace.began.elapsed().as_secs_f64(), grouped(version));
            out.line(&format!("{at:8.2} s  version {version}  {value}"))?;
        }
        // Whoever watches wants to see it now.
        out.flush()?;
    }
    Ok(Outcome::Fine)
}

/// The state, waited for if that is wanted; none when the time is over.
fn find(args: &Args, pace: &Pace) -> Result<Option<(Domain, StateInfo)>> {
    loop {
        match args.target.existing() {
            Err(CliError::State(Error::NotFound { .. })) if args.wait => {
                if pace.left().is_zero() {
                    return Ok(None);
                }
                thread::sleep(APPEARANCE.min(pace.left()));
            }
            found => return found.map(Some),
        }
    }
}

/// Waits for a version that was not told of, and as long as the pace wants; copies it. None when
/// the time is over.
fn next(
    watch: &mut Watch<[u8]>,
    pace: &mut Pace,
    bytes: &mut Vec<u8>,
) -> Result<Option<u64>, Error> {
    if pace.last.is_some() {
        loop {
            let left = pace.left();
            if watch.wait(left.min(WAIT_MAX))?.is_some() {
                break;
            }
            if pace.left().is_zero() {
                return Ok(None);
            }
        }
    }
    let pause = pace.pause();
    if pause > pace.left() {
        thread::sleep(pace.left());
        return Ok(None);
    }
    thread::sleep(pause);
    pace.last = Some(Instant::now());
    // What is told is the newest; what came before it is no news any more.
    watch.news()?;
    let snapshot = watch.read()?;
    bytes.clear();
    bytes.extend_from_slice(&snapshot);
    Ok(Some(snapshot.version()))
}

/// When the next change may be told.
struct Pace {
    began: Instant,
    end: Option<Duration>,
    interval: Option<Duration>,
    last: Option<Instant>,
}

impl Pace {
    /// Until the end.
    fn left(&self) -> Duration {
        self.end.map_or(Duration::MAX, |end| end.saturating_sub(self.began.elapsed()))
    }

    /// Until the interval since the last change is over.
    fn pause(&self) -> Duration {
        match (self.interval, self.last) {
            (Some(interval), Some(last)) => interval.saturating_sub(last.elapsed()),
            _ => Duration::ZERO,
        }
    }

    fn at_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// A command that fails is told of, and the next change is another chance.
fn execute(command: &str, name: &str, version: u64, value: &[u8]) -> Result<()> {
    let hint = "check that there is a shell, sh";
    let failed = || CliError::file(Path::new("sh"), "run the command of --exec", hint);
    let mut shell = Command::new("sh")
        .args(["-c", command])
        .env("MAINSTAY_STATE", name)
        .env("MAINSTAY_VERSION", version.to_string())
        .stdin(Stdio::piped())
        .spawn()
        .map_err(failed())?;
    if let Some(mut input) = shell.stdin.take() {
        // Fails when the command does not read all of it, which is its own affair.
        let _ = input.write_all(value);
    }
    let status = shell.wait().map_err(failed())?;
    if !status.success() {
        warn(&format!("the command ended with {status}, at version {version} of {name}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_that_makes_sense() {
        assert_eq!((parse_rate("5"), parse_rate("0.5")), (Ok(5.0), Ok(0.5)));
        for text in ["0", "-1", "1e7", "NaN", "inf", "5/s", ""] {
            assert!(parse_rate(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn without_a_rate_nothing_is_waited_for() {
        let mut pace =
            Pace { began: Instant::now(), end: None, interval: None, last: Some(Instant::now()) };
        assert_eq!(pace.pause(), Duration::ZERO);
        pace.interval = Some(Duration::from_secs(3_600));
        assert!(pace.pause() > Duration::from_secs(3_599));
        pace.last = None;
        assert_eq!(pace.pause(), Duration::ZERO, "the first value is shown at once");
    }
}
