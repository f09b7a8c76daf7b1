//! What a run found, and how it is printed: a table to read, then one line a figure to parse.

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::machine::Machine;
use crate::method::{Summary, Timing};
use crate::windows::Scaled;

/// One figure beside one peer: one `RATIO` line.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Ratio {
    pub(crate) name: String,
    /// How many times better Mainstay is.
    pub(crate) value: f64,
    pub(crate) ours: f64,
    pub(crate) peer: &'static str,
    pub(crate) peers: f64,
    pub(crate) unit: &'static str,
    /// The spread of both, or what the figure rests on.
    pub(crate) note: String,
}

impl Ratio {
    /// Less time is better.
    pub(crate) fn of_wall(name: &str, unit: Unit, ours: &Timing, peer: &Timing) -> Ratio {
        let value = ours.times_faster_than(peer, |span| span.wall_ns);
        Ratio::of_times(name, unit, value, &ours.wall, peer.name, &peer.wall)
    }

    /// The same in CPU time of the thread that did it.
    pub(crate) fn of_cpu(name: &str, unit: Unit, ours: &Timing, peer: &Timing) -> Ratio {
        let value = ours.times_faster_than(peer, |span| span.cpu_ns);
        Ratio::of_times(name, unit, value, &ours.cpu, peer.name, &peer.cpu)
    }

    fn of_times(
        name: &str,
        unit: Unit,
        value: f64,
        ours: &Summary,
        peer: &'static str,
        peers: &Summary,
    ) -> Ratio {
        let note = format!(
            "{} ±{} (best {}) | {} ±{} (best {})",
            short(unit.of_ns(ours.median)),
            short(unit.of_ns(ours.mad)),
            short(unit.of_ns(ours.best)),
            short(unit.of_ns(peers.median)),
            short(unit.of_ns(peers.mad)),
            short(unit.of_ns(peers.best)),
        );
        Ratio {
            name: name.to_owned(),
            value,
            ours: unit.of_ns(ours.median),
            peer,
            peers: unit.of_ns(peers.median),
            unit: unit.name(),
            note,
        }
    }

    /// A higher total rate is better; `peer` names the same load run by one worker.
    pub(crate) fn of_scaling(name: &str, scaled: &Scaled, peer: &'static str) -> Ratio {
        let note = if scaled.trusted {
            format!("{} undisturbed windows", scaled.windows)
        } else {
            format!("DISTURBED: {} undisturbed windows, so whole runs", scaled.windows)
        };
        Ratio {
            name: name.to_owned(),
            value: scaled.ratio,
            ours: scaled.two_mops,
            peer,
            peers: scaled.one_mops,
            unit: "Mops/s",
            note,
        }
    }

    fn line(&self) -> String {
        let Ratio { name, value, ours, peer, peers, unit, .. } = self;
        format!("RATIO {name} {value:.2} {} {peer} {} {unit}", short(*ours), short(*peers))
    }
}

/// A figure without a peer, beside what pool.md aims at.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Aim {
    pub(crate) name: String,
    pub(crate) value: f64,
    /// At most this; `None` when it is printed for information only.
    pub(crate) aim: Option<f64>,
    /// At least that instead: more is better.
    pub(crate) at_least: bool,
    pub(crate) unit: &'static str,
    pub(crate) note: String,
}

impl Aim {
    pub(crate) fn new(name: &str, value: f64, aim: impl Into<Option<f64>>, unit: Unit) -> Aim {
        let unit = unit.name();
        let (aim, note) = (aim.into(), String::new());
        Aim { name: name.to_owned(), value, aim, at_least: false, unit, note }
    }

    /// More is better.
    pub(crate) fn at_least(name: &str, value: f64, aim: f64, unit: Unit) -> Aim {
        Aim { at_least: true, ..Aim::new(name, value, aim, unit) }
    }

    /// Wall time, with the CPU time of it beside.
    pub(crate) fn of_timing(
        name: &str,
        timing: &Timing,
        aim: impl Into<Option<f64>>,
        unit: Unit,
    ) -> Aim {
        let aim = Aim::of_ns(name, &timing.wall, aim, unit);
        let note = format!("{}, CPU {}", aim.note, short(unit.of_ns(timing.cpu.median)));
        aim.with_note(note)
    }

    /// A time measured in nanoseconds.
    pub(crate) fn of_ns(name: &str, ns: &Summary, aim: impl Into<Option<f64>>, unit: Unit) -> Aim {
        let note = format!("±{} (best {})", short(unit.of_ns(ns.mad)), short(unit.of_ns(ns.best)));
        Aim::new(name, unit.of_ns(ns.median), aim, unit).with_note(note)
    }

    pub(crate) fn with_note(self, note: impl Into<String>) -> Aim {
        Aim { note: note.into(), ..self }
    }

    fn verdict(&self) -> &'static str {
        match self.aim {
            None => "",
            Some(aim) if self.at_least && self.value >= aim => "met",
            Some(aim) if !self.at_least && self.value <= aim => "met",
            Some(_) => "MISSED",
        }
    }
}

/// A ratio that is promised, and what came of it: one `VERDICT` line.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Verdict {
    pub(crate) name: String,
    pub(crate) peer: &'static str,
    pub(crate) value: f64,
    /// At least this many times better than the peer.
    pub(crate) asked: f64,
    pub(crate) met: bool,
}

impl Verdict {
    fn on(ratio: &Ratio, asked: f64) -> Verdict {
        // As it is, not as it is printed: 0.996 is not 1. What is no number has not been shown.
        let (value, met) = (ratio.value, ratio.value >= asked);
        Verdict { name: ratio.name.clone(), peer: ratio.peer, value, asked, met }
    }

    fn line(&self) -> String {
        let Verdict { name, peer, value, asked, met } = self;
        let word = if *met { "met" } else { "MISSED" };
        format!("VERDICT {name} {value:.2} {peer} asked {asked:.2} {word}")
    }
}

/// What a figure is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Ns,
    NsCpu,
    Us,
    Ms,
    Bytes,
    Count,
    Times,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Unit::Ns => "ns",
            Unit::NsCpu => "ns_cpu",
            Unit::Us => "us",
            Unit::Ms => "ms",
            Unit::Bytes => "bytes",
            Unit::Count => "count",
            Unit::Times => "times",
        }
    }

    fn of_ns(self, ns: f64) -> f64 {
        match self {
            Unit::Ns | Unit::NsCpu | Unit::Bytes | Unit::Count | Unit::Times => ns,
            Unit::Us => ns / 1e3,
            Unit::Ms => ns / 1e6,
        }
    }
}

/// Everything a run found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) quick: bool,
    pub(crate) ratios: Vec<Ratio>,
    pub(crate) aims: Vec<Aim>,
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) warnings: Vec<String>,
}

impl Report {
    pub(crate) fn new(machine: Machine, quick: bool) -> Report {
        let warnings = machine.warnings();
        let (ratios, aims, verdicts) = (Vec::new(), Vec::new(), Vec::new());
        Report { machine, quick, ratios, aims, verdicts, warnings }
    }

    /// A ratio of which at least `asked` is promised.
    pub(crate) fn ask(&mut self, ratio: Ratio, asked: f64) {
        self.verdicts.push(Verdict::on(&ratio, asked));
        self.ratios.push(ratio);
    }

    /// Drops what was measured along with the rest of its group but not asked for.
    pub(crate) fn keep(&mut self, wanted: impl Fn(&str) -> bool) {
        self.ratios.retain(|ratio| wanted(&ratio.name));
        self.aims.retain(|aim| wanted(&aim.name));
        self.verdicts.retain(|verdict| wanted(&verdict.name));
    }

    /// Tables first, then one line a figure; warnings stand where nobody can miss them.
    pub(crate) fn print(&self) {
        for warning in &self.warnings {
            println!("warning: {warning}");
        }
        if !self.ratios.is_empty() {
            println!("{}\n", self.ratio_table());
        }
        if !self.aims.is_empty() {
            println!("{}\n", self.aim_table());
        }
        for ratio in &self.ratios {
            println!("{}", ratio.line());
        }
        for verdict in &self.verdicts {
            println!("{}", verdict.line());
        }
    }

    fn ratio_table(&self) -> Table {
        let header = ["figure", "ratio", "ours", "peer", "peer's", "unit", "medians ± deviation"];
        let mut table = table(&header);
        for r in &self.ratios {
            table.add_row([
                r.name.clone(),
                format!("{:.2}", r.value),
                short(r.ours),
                r.peer.to_owned(),
                short(r.peers),
                r.unit.to_owned(),
                r.note.clone(),
            ]);
        }
        table
    }

    fn aim_table(&self) -> Table {
        let mut table = table(&["aim", "measured", "at most", "at least", "unit", "", "note"]);
        for a in &self.aims {
            let aim = |is_this: bool| a.aim.filter(|_| is_this).map(short).unwrap_or_default();
            table.add_row([
                a.name.clone(),
                short(a.value),
                aim(!a.at_least),
                aim(a.at_least),
                a.unit.to_owned(),
                a.verdict().to_owned(),
                a.note.clone(),
            ]);
        }
        table
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header.to_vec());
    table
}

/// Three or four digits that matter, without an exponent.
fn short(value: f64) -> String {
    let decimals = match value.abs() {
        v if v >= 100.0 || v == 0.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Span;

    fn timing(name: &'static str, wall: f64, cpu: f64) -> Timing {
        Timing::of(name, vec![Some(Span { wall_ns: wall, cpu_ns: cpu }); 3]).unwrap()
    }

    #[test]
    fn a_ratio_line_has_the_seven_fields_that_tools_read() {
        let (ours, peer) = (timing("mainstay", 20.0, 10.0), timing("calloc", 50.0, 40.0));
        let wall = Ratio::of_wall("pool.x", Unit::Ns, &ours, &peer);
        assert_eq!(wall.line(), "RATIO pool.x 2.50 20.0 calloc 50.0 ns");
        let cpu = Ratio::of_cpu("pool.x_cpu", Unit::NsCpu, &ours, &peer);
        assert_eq!(cpu.line(), "RATIO pool.x_cpu 4.00 10.0 calloc 40.0 ns_cpu");
    }

    #[test]
    fn times_are_printed_in_the_unit_asked_for() {
        let (ours, peer) = (timing("mainstay", 2e6, 1e6), timing("lmdb", 9e6, 1e6));
        let line = Ratio::of_wall("pool.y", Unit::Ms, &ours, &peer).line();
        assert_eq!(line, "RATIO pool.y 4.50 2.00 lmdb 9.00 ms");
    }

    #[test]
    fn a_scaling_figure_says_when_it_was_disturbed() {
        let scaled =
            Scaled { ratio: 1.8, two_mops: 90.0, one_mops: 50.0, windows: 3, trusted: false };
        let ratio = Ratio::of_scaling("pool.two_threads", &scaled, "one_thread");
        assert_eq!(ratio.line(), "RATIO pool.two_threads 1.80 90.0 one_thread 50.0 Mops/s");
        assert!(ratio.note.contains("DISTURBED"), "{}", ratio.note);
    }

    #[test]
    fn a_verdict_is_on_the_ratio_itself_and_not_on_its_printed_digits() {
        let ratio = |peer_ns| {
            Ratio::of_wall("x", Unit::Ns, &timing("ours", 1e3, 1.0), &timing("peer", peer_ns, 1.0))
        };
        assert_eq!(Verdict::on(&ratio(1e3), 1.0).line(), "VERDICT x 1.00 peer asked 1.00 met");
        assert_eq!(Verdict::on(&ratio(996.0), 1.0).line(), "VERDICT x 1.00 peer asked 1.00 MISSED");
        let no_number = Ratio { value: f64::NAN, ..ratio(1.0) };
        assert!(!Verdict::on(&no_number, 0.0).met);
    }

    #[test]
    fn what_is_asked_of_a_figure_goes_with_it() {
        let mut report = Report::new(Machine::look(std::path::Path::new("/")), true);
        for name in ["one", "two"] {
            let ratio = Ratio::of_wall(
                name,
                Unit::Ns,
                &timing("ours", 1.0, 1.0),
                &timing("peer", 2.0, 1.0),
            );
            report.ask(ratio, 1.5);
        }
        report.keep(|name| name == "two");
        assert_eq!((report.ratios.len(), report.verdicts.len()), (1, 1));
        assert!(report.verdicts[0].met && report.verdicts[0].name == "two");
    }

    #[test]
    fn an_aim_is_missed_only_when_the_measured_value_is_over_it() {
        assert_eq!(Aim::new("a", 40.0, 40.0, Unit::Ns).verdict(), "met");
        assert_eq!(Aim::new("a", 40.1, 40.0, Unit::Ns).verdict(), "MISSED");
        assert_eq!(Aim::new("a", 40.1, None, Unit::Ns).verdict(), "");
    }

    #[test]
    fn where_more_is_better_an_aim_is_missed_only_below_it() {
        assert_eq!(Aim::at_least("a", 40.0, 40.0, Unit::Times).verdict(), "met");
        assert_eq!(Aim::at_least("a", 39.9, 40.0, Unit::Times).verdict(), "MISSED");
    }
}
