//! What a person sees while the demo runs: a table that grows by a row a round.
//!
//! On a terminal the row under way is redrawn in place and faults are red; elsewhere there are plain
//! lines only; for machines there is nothing until the end.

use std::io::{self, IsTerminal, Write};

use super::report::{Outcome, Round, grouped};

const RED: &str = "\x1b[1;31m";
const GREEN: &str = "\x1b[32m";
const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";
/// Width of the table, and of the text under it.
const COLUMNS: usize = 98;
/// Back to the first column, and the rest of the line away.
const REDRAW: &str = "\r\x1b[K";

/// How the demo shows itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum View {
    /// In place, with colours.
    Terminal,
    /// Line by line.
    Lines,
    /// One JSON object at the end.
    Json,
}

impl View {
    /// For standard output as it is.
    pub(super) fn fitting(json: bool) -> Self {
        match (json, io::stdout().is_terminal()) {
            (true, _) => Self::Json,
            (false, true) => Self::Terminal,
            (false, false) => Self::Lines,
        }
    }

    /// Before the first round.
    pub(super) fn open(self, kills: u64, seed: u64) -> io::Result<()> {
        if self == Self::Json {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        writeln!(
            out,
            "A recorder samples /proc into a pool of shared memory, one block an entity, as often \
             as it can.\nA reader reads every block meanwhile; a watcher only looks. The recorder \
             is killed (SIGKILL) {kills} times,\neach time in the middle of its work, and a \
             successor takes over what it finds. Seed {seed}.\n"
        )?;
        writeln!(
            out,
            "{:>5} {:>8} {:>9} {:>5} {:>5} {:>6} {:>10} {:>9} {:>11} {:>10} {:>7}",
            "", "blocks", "", "", "", "", "recover", "sampling", "reader", "longest", "reader"
        )?;
        writeln!(
            out,
            "{:>5} {:>8} {:>9} {:>5} {:>5} {:>6} {:>10} {:>9} {:>11} {:>10} {:>7}",
            "round",
            "held",
            "recovered",
            "lost",
            "torn",
            "leaked",
            "ms",
            "again ms",
            "reads/s",
            "gap ms",
            "stalls"
        )?;
        out.flush()
    }

    /// What is going on in the round under way.
    pub(super) fn progress(self, round: u64, what: &str) -> io::Result<()> {
        if self != Self::Terminal {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        write!(out, "{REDRAW}{round:>5} {DIM}{what}{PLAIN}")?;
        out.flush()
    }

    /// A finished round.
    pub(super) fn row(self, round: &Round) -> io::Result<()> {
        if self == Self::Json {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        if self == Self::Terminal {
            write!(out, "{REDRAW}")?;
        }
        writeln!(
            out,
            "{:>5} {:>8} {:>9} {} {} {} {:>10.2} {:>9.1} {:>11} {:>10.2} {}{}",
            round.round,
            grouped(round.held),
            grouped(round.recovered),
            self.count(round.lost, 5),
            self.count(round.torn, 5),
            self.count(round.leaked, 6),
            round.recover_ms,
            round.back_ms,
            grouped(round.reads_per_s),
            round.reader_gap_ms,
            self.count(round.reader_stalls, 7),
            if round.kills > 1 { "  killed again while recovering" } else { "" },
        )?;
        out.flush()
    }

    fn count(self, count: u64, width: usize) -> String {
        let number = format!("{count:>width$}");
        match self {
            Self::Terminal if count > 0 => format!("{RED}{number}{PLAIN}"),
            Self::Terminal | Self::Lines | Self::Json => number,
        }
    }

    /// What the first act came to.
    pub(super) fn end_first_act(self, outcome: &Outcome) -> io::Result<()> {
        if self == Self::Json {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        writeln!(out)?;
        for paragraph in [outcome.of_the_hand_over(), outcome.of_the_machine()] {
            writeln!(out, "{}\n", wrapped(&paragraph))?;
        }
        out.flush()
    }

    /// Before the second act.
    pub(super) fn second_act(self) -> io::Result<()> {
        self.line(
            "Second act. A process writes this machine's vital signs into five states, 250 times a \
             second,\nall five in one transaction. Four others read: when they like, woken by each \
             change, at most five\ntimes a second, and a pair as of one instant. The writer is \
             killed in the middle.\n",
        )
    }

    /// Before the third act.
    pub(super) fn third_act(self) -> io::Result<()> {
        self.line(
            "Third act. A recorder keeps its pool in a file and makes checkpoints while it writes. \
             Each line is one:\nwhich parts of the pool changed since the last, how much was \
             written, and how long it took.\n",
        )
    }

    /// Before the fourth act.
    pub(super) fn fourth_act(self) -> io::Result<()> {
        self.line(
            "Fourth act. This machine's package index is a store: a process leads, two follow. \
             One is cut off, the\nleader is killed in the middle of an update, a follower is \
             promoted, and in the end all copies are\ncompared, record by record.\n",
        )
    }

    /// A line of the later acts.
    pub(super) fn line(self, line: &str) -> io::Result<()> {
        if self == Self::Json {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        writeln!(out, "{line}")?;
        out.flush()
    }

    /// The end: for people the verdict, for machines everything at once.
    pub(super) fn close(self, outcome: &Outcome) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self == Self::Json {
            serde_json::to_writer(&mut out, outcome)?;
            return writeln!(out);
        }
        let verdict = wrapped(&outcome.verdict());
        match (self, outcome.ok) {
            (Self::Terminal, true) => writeln!(out, "{GREEN}{verdict}{PLAIN}")?,
            (Self::Terminal, false) => writeln!(out, "{RED}{verdict}{PLAIN}")?,
            (Self::Lines | Self::Json, _) => writeln!(out, "{verdict}")?,
        }
        writeln!(out)?;
        writeln!(out, "{}", outcome.last_line())?;
        out.flush()
    }
}

/// The text in lines of at most [`COLUMNS`] columns, unless a word is longer.
fn wrapped(text: &str) -> String {
    let mut wrapped = String::with_capacity(text.len());
    let mut column = 0;
    for word in text.split(' ') {
        let width = word.chars().count();
        if column > 0 && column + 1 + width > COLUMNS {
            wrapped.push('\n');
            column = 0;
        } else if column > 0 {
            wrapped.push(' ');
            column += 1;
        }
        wrapped.push_str(word);
        column += width;
    }
    wrapped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_broken_between_words_and_loses_none() {
        let text = "word ".repeat(60);
        let text = text.trim_end();
        let lines = wrapped(text);
        assert!(lines.lines().all(|line| line.len() <= COLUMNS));
        assert_eq!(lines.lines().count(), 4);
        assert_eq!(lines.replace('\n', " "), text);
        let long = "x".repeat(COLUMNS + 1);
        assert_eq!(wrapped(&format!("a {long} b")), format!("a\n{long}\nb"));
    }

    #[test]
    fn only_a_terminal_gets_colours_and_only_for_faults() {
        assert_eq!(View::Lines.count(3, 4), "   3");
        assert_eq!(View::Terminal.count(0, 4), "   0");
        assert_eq!(View::Terminal.count(3, 4), format!("{RED}   3{PLAIN}"));
    }
}
