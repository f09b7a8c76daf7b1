//! `mainstay state bench`.

use crate::{
    error::{CliError, Outcome, Result},
    output::{Output, Side},
    progress::Progress,
    size::{grouped, human, parse},
};
use mainstay::state::{Domain, State, StateOptions};
use serde::Serialize;
use std::{
    hint::black_box,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// A measurement ends after so long, however few samples it has.
const TIME_MAX: Duration = Duration::from_millis(400);
/// Wake-ups that are measured: each of them sleeps first.
const WAKES: usize = 200;
/// Long enough for the sleeper to be asleep again.
const BETWEEN_WAKES: Duration = Duration::from_millis(1);

/// Measure reads, commits and wake-ups on this machine
///
/// In a folder of its own in memory, which is removed in the end. Each operation is timed by itself
/// with the clock whose own cost is the first line. `read` pins a version, looks at its first and
/// last byte and lets go; `read while written` does so while another thread commits as fast as it
/// can; `copy` copies the value out; `commit` is a whole transaction that changes one byte; `wake` is
/// the time from a commit to the moment when a sleeper in another thread has read the new version.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay state bench
  mainstay state bench --size 64B,1MiB --samples 10000
  mainstay state bench --json | jq '.[] | select(.operation == \"commit\")'")]
pub(super) struct Args {
    /// Sizes of the value
    #[arg(long, value_name = "SIZE", value_parser = parse_size, value_delimiter = ',',
          default_value = "64B,1KiB,4KiB,64KiB")]
    size: Vec<usize>,
    /// How often each operation is timed, at most
    #[arg(long, value_name = "N", default_value_t = 100_000,
          value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    samples: u32,
}

/// 8 B to 1 GiB.
fn parse_size(text: &str) -> Result<usize, String> {
    let bytes = parse(text).map_err(|error| error.to_string())?;
    let fits = usize::try_from(bytes).ok().filter(|bytes| (8..=1 << 30).contains(bytes));
    fits.ok_or_else(|| "a size is from 8B to 1GiB".to_owned())
}

#[derive(Serialize)]
struct Row {
    operation: &'static str,
    /// None for what has no size.
    #[serde(skip_serializing_if = "Option::is_none")]
    size_bytes: Option<usize>,
    samples: usize,
    p50_ns: u64,
    p90_ns: u64,
    p99_ns: u64,
    max_ns: u64,
}

impl Row {
    fn of(operation: &'static str, size_bytes: Option<usize>, mut ns: Vec<u64>) -> Self {
        ns.sort_unstable();
        let at = |permille: usize| {
            let place = (ns.len() * permille / 1_000).min(ns.len().saturating_sub(1));
            ns.get(place).copied().unwrap_or(0)
        };
        Self {
            operation,
            size_bytes,
            samples: ns.len(),
            p50_ns: at(500),
            p90_ns: at(900),
            p99_ns: at(990),
            max_ns: at(1_000),
        }
    }
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let hint = "make room in /dev/shm, or set TMPDIR to another folder";
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.into() } else { std::env::temp_dir() };
    let folder = tempfile::Builder::new().prefix("mainstay-state-bench-").tempdir_in(&parent);
    let folder = folder.map_err(CliError::file(&parent, "make a folder in it", hint))?;
    let domain = Domain::open(folder.path())?;
    let progress = Progress::bar("measuring", 2 + 4 * args.size.len() as u64);
    let mut rows = vec![Row::of("clock", None, timed(args.samples, || Ok(()))?)];
    progress.advance(1);
    for &size in &args.size {
        measure(&domain, size, args.samples, &progress, &mut rows)?;
    }
    rows.push(Row::of("wake", None, wakes(&domain)?));
    drop(progress);
    if out.json {
        out.document(&rows)?;
    } else {
        tell(&rows, out)?;
    }
    Ok(Outcome::Fine)
}

/// Each operation on a value of `size` bytes.
fn measure(
    domain: &Domain,
    size: usize,
    samples: u32,
    progress: &Progress,
    rows: &mut Vec<Row>,
) -> Result<()> {
    let options = StateOptions::new().size(size).size_limit(size);
    let name = format!("bench-{size}");
    let state = options.writer::<[u8]>(domain, &name)?;
    let mut copy = vec![1; size];
    state.replace(&copy)?;
    let mut add = |operation, ns| {
        rows.push(Row::of(operation, Some(size), ns));
        progress.advance(1);
    };
    add("read", timed(samples, || look(&state))?);
    let ns = timed(samples, || {
        state.copy_to(&mut copy)?;
        black_box(&copy);
        Ok(())
    })?;
    add("copy", ns);
    add("commit", timed(samples, || change(&state))?);
    let other = options.writer::<[u8]>(domain, &name)?;
    add("read while written", while_written(other, || timed(samples, || look(&state)))?);
    Ok(())
}

fn look(state: &State<[u8]>) -> Result<()> {
    let snapshot = state.read()?;
    black_box((snapshot.first(), snapshot.last()));
    Ok(())
}

fn change(state: &State<[u8]>) -> Result<()> {
    let mut transaction = state.begin()?;
    let bytes = transaction.bytes_mut()?;
    bytes[0] = bytes[0].wrapping_add(1);
    transaction.commit()?;
    Ok(())
}

/// Does something while another thread commits to `state` as fast as it can.
fn while_written<T>(state: State<[u8]>, during: impl FnOnce() -> Result<T>) -> Result<T> {
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let state = state;
            while !enough.load(Ordering::Relaxed) {
                change(&state)?;
            }
            Ok(())
        });
        let done = during();
        enough.store(true, Ordering::Relaxed);
        let written = writer.join().expect("nothing in the loop panics");
        written.and(done)
    })
}

/// How long each call takes.
fn timed(samples: u32, mut operation: impl FnMut() -> Result<()>) -> Result<Vec<u64>> {
    let began = Instant::now();
    let mut ns = Vec::with_capacity(samples as usize);
    for _ in 0..samples {
        let before = Instant::now();
        operation()?;
        let after = Instant::now();
        ns.push(nanoseconds(after - before));
        if after - began > TIME_MAX {
            break;
        }
    }
    Ok(ns)
}

/// From each of many commits to the reading of it by a thread that slept.
fn wakes(domain: &Domain) -> Result<Vec<u64>> {
    let state = domain.writer::<[u8]>("bench-wake")?;
    let mut watch = state.watch()?;
    let began = Instant::now();
    let now_ns = || nanoseconds(began.elapsed());
    thread::scope(|scope| {
        let sleeper = scope.spawn(move || {
            let mut ns = Vec::with_capacity(WAKES);
            while ns.len() < WAKES {
                // A writer that failed wakes nobody.
                if watch.wait(Duration::from_secs(1))?.is_none() {
                    break;
                }
                let value = watch.read()?;
                let committed_ns = value.first_chunk().map_or(0, |ns| u64::from_le_bytes(*ns));
                ns.push(now_ns().saturating_sub(committed_ns));
            }
            Ok(ns)
        });
        for _ in 0..WAKES {
            thread::sleep(BETWEEN_WAKES);
            state.replace(&now_ns().to_le_bytes())?;
        }
        sleeper.join().expect("nothing in the loop panics")
    })
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn tell(rows: &[Row], out: &mut Output) -> Result<()> {
    const COLUMNS: [(&str, Side); 7] = [
        ("OPERATION", Side::Left),
        ("SIZE", Side::Right),
        ("P50 NS", Side::Right),
        ("P90 NS", Side::Right),
        ("P99 NS", Side::Right),
        ("MAX NS", Side::Right),
        ("SAMPLES", Side::Right),
    ];
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let size = row.size_bytes.map_or_else(|| "-".to_owned(), |size| human(size as u64));
            let mut cells = vec![row.operation.to_owned(), size];
            let numbers = [row.p50_ns, row.p90_ns, row.p99_ns, row.max_ns, row.samples as u64];
            cells.extend(numbers.map(grouped));
            cells
        })
        .collect();
    out.table(&COLUMNS, &cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_sorted_times() {
        let row = Row::of("read", None, (1..=1_000).rev().collect());
        assert_eq!((row.p50_ns, row.p90_ns, row.p99_ns, row.max_ns), (501, 901, 991, 1_000));
        assert_eq!(Row::of("read", None, vec![7]).p99_ns, 7);
        assert_eq!(Row::of("read", None, Vec::new()).max_ns, 0);
    }

    #[test]
    fn sizes_have_limits() {
        assert_eq!((parse_size("8B"), parse_size("1GiB")), (Ok(8), Ok(1 << 30)));
        assert!(parse_size("7B").is_err() && parse_size("1073741825").is_err());
    }
}
