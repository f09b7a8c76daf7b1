//! `mainstay sds sim`: a group in a world whose time is virtual and whose faults are chosen.

mod member;
mod plot;
mod story;

use self::{
    member::Member,
    story::{Record, Tale},
};
use super::ProfileArg;
use crate::{
    error::{CliError, Outcome, Result},
    output::{Output, Side},
    progress::Progress,
    size::{counted, grouped, human, parse_duration},
};
use mainstay::sds::{Config, Keep, persist::Memory};
use mainstay_sim::{Boot, Links, Setup, World};
use serde::Serialize;
use std::{
    cell::RefCell,
    collections::HashMap,
    path::PathBuf,
    rc::Rc,
    time::{Duration, Instant},
};

/// Run a group on a simulated network: does it converge, how soon, at what cost?
///
/// Members say things at random; each message is lost independently on its way to each member, and
/// some members die and come back. Hours pass in seconds, and the seed decides everything. It ends
/// when all members have everything, or when the time is over.
#[derive(clap::Args)]
#[command(after_help = "\
Exit status: 0 all members have the same log, 1 they have not.

`copies` counts how often a message was sent again, for each message. With independent loss even a
sender who knows everything needs some: that is the floor printed beside it.

Examples:
  mainstay sds sim --participants 100 --loss 20
  mainstay sds sim --participants 1000 --loss 20 --messages 30 --plot group.svg
  mainstay sds sim --participants 30 --loss 40 --churn 30 --seed 7 --json")]
pub(crate) struct Args {
    /// Members of the group
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    participants: u32,
    /// Of a hundred messages so many are lost on their way to each member
    #[arg(long, value_name = "PERCENT", default_value_t = 20, value_parser = clap::value_parser!(u8).range(..=90))]
    loss: u8,
    /// Of a hundred members so many die once while others talk, and come back half a minute later
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=100))]
    churn: u8,
    /// How many messages are said
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    messages: u32,
    /// The time between two of them
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "5s")]
    every: Duration,
    /// The shortest and the longest time that a message is under way
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, num_args = 2, default_values = ["50ms", "150ms"])]
    delay: Vec<Duration>,
    /// Of a hundred messages so many arrive twice
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=100))]
    duplicates: u8,
    /// Bytes of content
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(4..=65_536))]
    content: u32,
    /// Ids the filter is made for
    #[arg(long, value_name = "IDS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=32_768))]
    filter: u32,
    /// The dialect
    #[arg(long, value_enum, default_value = "lip")]
    profile: ProfileArg,
    /// Decides everything
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The longest time, in the simulated world, after the last message was said
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "4h")]
    limit: Duration,
    /// Write a plot of delays and traffic, as SVG
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    plot: Option<PathBuf>,
}

/// What came of it.
#[derive(Serialize)]
struct Report {
    participants: u32,
    loss_percent: u8,
    churn_percent: u8,
    messages: u32,
    seed: u64,
    converged: bool,
    same_log: bool,
    /// Deliveries that there were, and that there had to be.
    delivered: u64,
    expected: u64,
    delivered_twice: u64,
    restarts: u32,
    /// From the last message said to the last one delivered.
    settled_after_s: f64,
    delay_s: Delays,
    copies_per_message: f64,
    copies_floor: f64,
    traffic: Vec<TrafficRow>,
    simulated_s: f64,
    took_s: f64,
}

#[derive(Serialize)]
struct Delays {
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

#[derive(Serialize)]
struct TrafficRow {
    what: &'static str,
    messages: u64,
    bytes: u64,
}

pub(crate) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let started = Instant::now();
    // Whether it can be written is found out now, and not when the work is done.
    let plot = args.plot.as_deref().map(plot::open).transpose()?;
    let mut world = world(args);
    let expected = u64::from(args.messages) * u64::from(args.participants - 1);
    let progress = Progress::bar("deliveries", expected);
    let mut tale = Tale::new(args.seed, args.participants, args.messages, progress);
    tale.plan(&mut world, args.every, args.churn);
    let talking = args.every * args.messages;
    let (converged, _) = world
        .run_until(talking + args.limit, &mut tale, |tale, _| tale.is_complete())
        .map_err(|error| CliError::Simulation { what: error.to_string() })?;
    let same_log = story::same_log(&world);
    let record = tale.into_record();
    let report = report(args, &record, &world, converged, same_log, started.elapsed());
    if out.json {
        out.document(&report)?;
    } else {
        report.show(out)?;
    }
    if let Some(plot) = plot {
        plot.write(&record, args.loss, args.participants)?;
    }
    report.complaint().map_or(Ok(Outcome::Fine), |what| Err(CliError::Simulation { what }))
}

fn world(args: &Args) -> World<Member> {
    let per_million = |percent: u8| u32::from(percent) * 10_000;
    let [shortest, longest] = [args.delay[0], args.delay[1]];
    let links = Links {
        latency_min: shortest.min(longest),
        latency_max: shortest.max(longest),
        loss_ppm: per_million(args.loss),
        duplicate_ppm: per_million(args.duplicates),
        ..Links::default()
    };
    let config = config(args);
    let content = args.content as usize;
    // What each member keeps outlives it, as its disk would.
    let kept = Rc::<RefCell<HashMap<u32, Memory>>>::default();
    let make = move |boot: Boot| Member::new(&boot, config.clone(), content, Rc::clone(&kept));
    let mut world = World::new(args.seed, Setup { links, ..Setup::default() }, make);
    world.add_nodes(args.participants as usize);
    world
}

fn config(args: &Args) -> Config {
    let mut config = match args.profile {
        ProfileArg::Lip => Config::lip(),
        ProfileArg::Nim => Config::nim_own(),
    };
    config.only_own_peers = true;
    config.participants = args.participants;
    config.filter_capacity = args.filter;
    // Nobody gives up: whether all is delivered is the question.
    config.lost_after_ms = None;
    config.keep = if args.churn > 0 { Keep::Durable } else { Keep::Nothing };
    config
}

/// The fewest copies a message that reach `others` members when each loses each copy with the
/// chance `loss`, without the first one: the expected number of rounds in which somebody still
/// lacks it.
fn floor(others: u32, loss: f64) -> f64 {
    let mut sum = 0.0;
    let mut lost = loss;
    while lost > 1e-15 {
        // What rounds away here is far below what is printed.
        let somebody_lacks_it = 1.0 - (1.0 - lost).powf(f64::from(others));
        sum += somebody_lacks_it;
        lost *= loss;
    }
    sum
}

fn report(
    args: &Args,
    record: &Record,
    world: &World<Member>,
    converged: bool,
    same_log: bool,
    took: Duration,
) -> Report {
    let mut delays: Vec<f64> = record.deliveries.iter().map(|delivery| delivery.delay_s).collect();
    delays.sort_unstable_by(f64::total_cmp);
    let percentile = |percent: usize| {
        let at = (delays.len() * percent).div_ceil(100).saturating_sub(1);
        delays.get(at).copied().unwrap_or(0.0)
    };
    let row = |(what, traffic): (&'static str, story::Traffic)| TrafficRow {
        what,
        messages: traffic.messages,
        bytes: traffic.bytes,
    };
    let copies = record.copies();
    Report {
        participants: args.participants,
        loss_percent: args.loss,
        churn_percent: args.churn,
        messages: record.said,
        seed: args.seed,
        converged,
        same_log,
        delivered: record.deliveries.len() as u64,
        expected: record.expected(),
        delivered_twice: record.twice,
        restarts: record.restarts,
        settled_after_s: (record.last_delivered_s - record.last_said_s).max(0.0),
        delay_s: Delays {
            p50: percentile(50),
            p90: percentile(90),
            p99: percentile(99),
            max: percentile(100),
        },
        copies_per_message: copies as f64 / f64::from(record.said.max(1)),
        copies_floor: floor(args.participants - 1, f64::from(args.loss) / 100.0),
        traffic: record.totals().into_iter().map(row).collect(),
        simulated_s: story::seconds(world.now()),
        took_s: took.as_secs_f64(),
    }
}

impl Report {
    /// What is wrong with what came of it.
    fn complaint(&self) -> Option<String> {
        let after = human_seconds(self.simulated_s);
        if self.delivered_twice > 0 {
            let twice = counted(self.delivered_twice, "message was", "messages were");
            return Some(format!(
                "{twice} delivered twice, which must never be; report seed {}",
                self.seed
            ));
        }
        if !self.converged {
            let (delivered, expected) = (grouped(self.delivered), grouped(self.expected));
            return Some(format!(
                "after {after} the group has not converged: {delivered} of {expected} deliveries; \
                 give it more time with --limit"
            ));
        }
        (!self.same_log).then(|| {
            format!(
                "after {after} all was delivered, and the logs differ, which must never be; report \
                 seed {}",
                self.seed
            )
        })
    }

    fn show(&self, out: &mut Output) -> Result<()> {
        let yes = |is_so: bool| if is_so { "yes" } else { "NO" }.to_owned();
        let Delays { p50, p90, p99, max } = self.delay_s;
        let seconds = human_seconds;
        out.fields(&[
            ("participants", grouped(self.participants.into())),
            ("loss", format!("{} of 100", self.loss_percent)),
            ("died and came back", grouped(self.restarts.into())),
            ("messages", grouped(self.messages.into())),
            (
                "converged",
                format!(
                    "{}, {} after the last message",
                    yes(self.converged),
                    seconds(self.settled_after_s)
                ),
            ),
            ("same log everywhere", yes(self.same_log)),
            (
                "deliveries",
                format!(
                    "{} of {}, {} twice",
                    grouped(self.delivered),
                    grouped(self.expected),
                    grouped(self.delivered_twice)
                ),
            ),
            (
                "delay",
                format!(
                    "half within {}, 90 % {}, 99 % {}, all {}",
                    seconds(p50),
                    seconds(p90),
                    seconds(p99),
                    seconds(max)
                ),
            ),
            (
                "copies a message",
                format!("{:.2}, floor {:.2}", self.copies_per_message, self.copies_floor),
            ),
            ("simulated", format!("{} in {}", seconds(self.simulated_s), seconds(self.took_s))),
        ])?;
        out.line("")?;
        let rows: Vec<Vec<String>> = self
            .traffic
            .iter()
            .map(|row| {
                let each = row.bytes.checked_div(row.messages).unwrap_or(0);
                vec![row.what.to_owned(), grouped(row.messages), human(row.bytes), human(each)]
            })
            .collect();
        let columns = [
            ("SENT", Side::Left),
            ("MESSAGES", Side::Right),
            ("BYTES", Side::Right),
            ("EACH", Side::Right),
        ];
        out.table(&columns, &rows)
    }
}

/// A time for people.
fn human_seconds(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s if s < 120.0 => format!("{s:.1} s"),
        s if s < 7200.0 => format!("{:.1} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_that_is_wrong_has_a_complaint_of_its_own() {
        let fine = || Report {
            participants: 2,
            loss_percent: 0,
            churn_percent: 0,
            messages: 1,
            seed: 7,
            converged: true,
            same_log: true,
            delivered: 1,
            expected: 1,
            delivered_twice: 0,
            restarts: 0,
            settled_after_s: 0.0,
            delay_s: Delays { p50: 0.0, p90: 0.0, p99: 0.0, max: 0.0 },
            copies_per_message: 0.0,
            copies_floor: 0.0,
            traffic: Vec::new(),
            simulated_s: 60.0,
            took_s: 0.0,
        };
        assert_eq!(fine().complaint(), None);
        let says = |report: Report, text: &str| {
            let complaint = report.complaint().unwrap();
            assert!(complaint.contains(text), "{complaint}");
        };
        says(Report { delivered_twice: 1, ..fine() }, "1 message was delivered twice");
        says(Report { converged: false, delivered: 0, ..fine() }, "0 of 1 deliveries");
        says(Report { same_log: false, ..fine() }, "the logs differ");
    }

    /// Figures of the formula, computed by other means.
    #[test]
    fn the_floor_is_that_of_independent_loss() {
        for (others, loss, expected) in [(99, 0.2, 2.72), (999, 0.2, 4.15), (99, 0.05, 1.23)] {
            let floor = floor(others, loss);
            assert!((floor - expected).abs() < 0.01, "{others}, {loss}: {floor}");
        }
        assert_eq!(floor(99, 0.0), 0.0);
    }
}
