//! `mainstay pool watch`.

use super::rows::{CountsRow, HolderRow};
use crate::{
    error::{CliError, Outcome, Result},
    output::Output,
    place::Target,
    size::{grouped, parse_duration},
};
use mainstay::pool::PoolView;
use serde::Serialize;
use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// At least this long between two looks, however much happens.
const PAUSE: Duration = Duration::from_millis(20);

/// Print a line whenever something changes: growth, processes, counts
///
/// Growth and processes are seen at once, counts every so often. Ends when the pool's file is gone.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay pool watch calls
  mainstay pool watch calls --every 200ms --for 1m
  mainstay pool watch calls --json | jq 'select(.event == \"died\")'")]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// How often to look at the counts
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "1s")]
    every: Duration,
    /// End after so long
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    end: Option<Duration>,
}

/// What can be seen to happen.
#[derive(Serialize, Clone, PartialEq, Eq)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event {
    /// The first look.
    Watching {
        blocks: u64,
        #[serde(flatten)]
        counts: CountsRow,
    },
    Grew {
        blocks: u64,
        blocks_before: u64,
    },
    Joined(HolderRow),
    /// It closed the pool in good order, or died holding nothing and was taken back.
    Left(HolderRow),
    Died(HolderRow),
    /// What the dead one held was taken back.
    Reaped(HolderRow),
    Counts(CountsRow),
    Removed,
}

impl Event {
    fn text(&self) -> String {
        let process = |holder: &HolderRow| {
            format!("process {} ({}), slot {}", holder.pid, holder.name, holder.slot)
        };
        match self {
            Self::Watching { blocks, counts } => {
                format!("watching: {} blocks; {}", grouped(*blocks), counts.text())
            }
            Self::Grew { blocks, blocks_before } => {
                format!("grew from {} to {} blocks", grouped(*blocks_before), grouped(*blocks))
            }
            Self::Joined(holder) => format!("joined: {}", process(holder)),
            Self::Left(holder) => format!("left: {}", process(holder)),
            Self::Died(holder) => {
                format!("died: {}, holding {} blocks", process(holder), grouped(holder.held))
            }
            Self::Reaped(holder) => format!("taken back from the dead: {}", process(holder)),
            Self::Counts(counts) => counts.text(),
            Self::Removed => "the file is gone; the pool lives on in the processes that have it \
                              open"
                .to_owned(),
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    at_ms: u64,
    #[serde(flatten)]
    event: &'a Event,
}

/// What a pool looks like at one moment.
struct Look {
    blocks: u64,
    counts: CountsRow,
    holders: Vec<HolderRow>,
}

impl Look {
    fn at(view: &PoolView) -> Result<Self> {
        let info = view.info()?;
        let holders = view.holders()?.into_iter().map(HolderRow::from).collect();
        Ok(Self { blocks: info.blocks(), counts: info.counts.into(), holders })
    }

    /// What has happened since the look before.
    fn since(&self, before: &Self) -> Vec<Event> {
        let mut events = Vec::new();
        if self.blocks != before.blocks {
            events.push(Event::Grew { blocks: self.blocks, blocks_before: before.blocks });
        }
        for old in &before.holders {
            match self.holders.iter().find(|new| same_process(old, new)) {
                None if old.alive => events.push(Event::Left(old.clone())),
                None => events.push(Event::Reaped(old.clone())),
                Some(new) if old.alive && !new.alive => events.push(Event::Died(new.clone())),
                Some(_) => {}
            }
        }
        let is_new = |new: &&HolderRow| !before.holders.iter().any(|old| same_process(old, new));
        for new in self.holders.iter().filter(is_new) {
            events.push(Event::Joined(new.clone()));
            if !new.alive {
                events.push(Event::Died(new.clone()));
            }
        }
        if self.counts != before.counts {
            events.push(Event::Counts(self.counts));
        }
        events
    }
}

/// Process ids are used again; with the time of the start they are not.
fn same_process(a: &HolderRow, b: &HolderRow) -> bool {
    (a.slot, a.pid, a.start_time_ticks) == (b.slot, b.pid, b.start_time_ticks)
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let path = args.target.existing()?;
    let failed = |error| CliError::file(&path, "look at it", "check the path")(error);
    let file = fs::metadata(&path).map_err(failed)?;
    let view = PoolView::open(&path)?;
    let started = Instant::now();
    let mut seen = view.wait(0, Duration::ZERO)?;
    let mut last = Look::at(&view)?;
    let first = Event::Watching { blocks: last.blocks, counts: last.counts };
    tell(started, &first, out)?;
    loop {
        let left = args.end.map_or(Duration::MAX, |end| end.saturating_sub(started.elapsed()));
        if left.is_zero() {
            return Ok(Outcome::Fine);
        }
        thread::sleep(PAUSE.min(left));
        seen = view.wait(seen, args.every.min(left))?;
        let look = Look::at(&view)?;
        for event in look.since(&last) {
            tell(started, &event, out)?;
        }
        last = look;
        if !is_still(&path, &file) {
            tell(started, &Event::Removed, out)?;
            return Ok(Outcome::Fine);
        }
    }
}

fn is_still(path: &Path, file: &fs::Metadata) -> bool {
    fs::metadata(path).is_ok_and(|now| (now.dev(), now.ino()) == (file.dev(), file.ino()))
}

fn tell(started: Instant, event: &Event, out: &mut Output) -> Result<()> {
    let at = started.elapsed();
    if out.json {
        let at_ms = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        out.json_line(&Line { at_ms, event })?;
    } else {
        out.line(&format!("{:8.2} s  {}", at.as_secs_f64(), event.text()))?;
    }
    // Whoever watches wants to see it now.
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay::pool::Counts;

    fn holder(pid: u32, alive: bool) -> HolderRow {
        let name = "service".to_owned();
        HolderRow { slot: 0, pid, name, alive, held: 3, cached: 0, start_time_ticks: 1 }
    }

    fn look(blocks: u64, holders: &[HolderRow]) -> Look {
        Look { blocks, counts: Counts::default().into(), holders: holders.to_vec() }
    }

    fn names(events: &[Event]) -> Vec<String> {
        let of = |event| serde_json::to_value(event).unwrap()["event"].as_str().unwrap().to_owned();
        events.iter().map(of).collect()
    }

    #[test]
    fn nothing_is_told_when_nothing_has_changed() {
        let same = look(8, &[holder(1, true)]);
        assert!(same.since(&look(8, &[holder(1, true)])).is_empty());
    }

    #[test]
    fn a_process_that_dies_is_told_from_one_that_leaves() {
        let living = look(8, &[holder(1, true)]);
        let dead = look(8, &[holder(1, false)]);
        let gone = look(8, &[]);
        assert_eq!(names(&dead.since(&living)), ["died"]);
        assert_eq!(names(&gone.since(&living)), ["left"]);
        assert_eq!(names(&gone.since(&dead)), ["reaped"]);
        assert_eq!(names(&dead.since(&gone)), ["joined", "died"]);
    }

    #[test]
    fn another_process_in_the_same_slot_is_another() {
        let old = look(8, &[holder(1, true)]);
        let new = look(16, &[holder(2, true)]);
        assert_eq!(names(&new.since(&old)), ["grew", "left", "joined"]);
    }
}
