//! Steps with headings, and the table at their end.
//!
//! A failed step does not stop the ones after it: one run shows everything that is wrong.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// How a step ended, when nothing went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    /// This machine cannot do it, for the reason given. Not a failure.
    Skipped(String),
}

#[derive(Debug, PartialEq, Eq)]
enum Ending {
    Passed,
    Skipped(String),
    Failed(String),
}

struct Row {
    name: String,
    ending: Ending,
    took: Duration,
}

/// What has been done so far in one command.
pub(crate) struct Report {
    /// The word the last line begins with.
    title: &'static str,
    started: Instant,
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new(title: &'static str) -> Self {
        Self { title, started: Instant::now(), rows: Vec::new() }
    }

    /// Does one step, under its heading.
    pub(crate) fn step(&mut self, name: &str, work: impl FnOnce() -> Result<Outcome>) {
        eprintln!("\n==> [{}] {name}", self.rows.len() + 1);
        let started = Instant::now();
        let ending = match work() {
            Ok(Outcome::Passed) => Ending::Passed,
            Ok(Outcome::Skipped(why)) => Ending::Skipped(why),
            Err(error) => Ending::Failed(error.to_string()),
        };
        let row = Row { name: name.to_owned(), ending, took: started.elapsed() };
        eprintln!("<== [{}] {}", self.rows.len() + 1, row.line(0));
        self.rows.push(row);
    }

    /// Prints the table and the verdict; an error if a step failed.
    pub(crate) fn finish(self) -> Result<()> {
        println!("\n{}", self.table());
        match self.failed() {
            0 => Ok(()),
            failed => Err(Error::Steps { failed, steps: self.rows.len() }),
        }
    }

    fn failed(&self) -> usize {
        self.rows.iter().filter(|row| matches!(row.ending, Ending::Failed(_))).count()
    }

    fn skipped(&self) -> usize {
        self.rows.iter().filter(|row| matches!(row.ending, Ending::Skipped(_))).count()
    }

    fn table(&self) -> String {
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or_default();
        let mut lines: Vec<_> = self.rows.iter().map(|row| row.line(width)).collect();
        lines.push(format!(
            "{} steps={} failed={} skipped={} seconds={}",
            self.title,
            self.rows.len(),
            self.failed(),
            self.skipped(),
            self.started.elapsed().as_secs()
        ));
        lines.join("\n")
    }
}

impl Row {
    fn line(&self, width: usize) -> String {
        let (word, why) = match &self.ending {
            Ending::Passed => ("passed", ""),
            Ending::Skipped(why) => ("skipped", &**why),
            Ending::Failed(why) => ("FAILED", &**why),
        };
        let seconds = self.took.as_secs_f64();
        format!("{:width$}  {word:7}  {seconds:6.1} s  {why}", self.name).trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken() -> Result<Outcome> {
        Err(Error::Missing { what: "a tool".into(), remedy: "install it".into() })
    }

    #[test]
    fn a_failed_step_does_not_stop_the_next_and_fails_the_whole() {
        let mut report = Report::new("TEST");
        let mut reached = false;
        report.step("breaks", broken);
        report.step("works", || {
            reached = true;
            Ok(Outcome::Passed)
        });
        assert!(reached);
        let error = report.finish().unwrap_err();
        assert!(matches!(error, Error::Steps { failed: 1, steps: 2 }), "{error}");
    }

    #[test]
    fn a_skipped_step_is_no_failure_and_its_reason_is_in_the_table() {
        let mut report = Report::new("TEST");
        report.step("rig", || Ok(Outcome::Skipped("needs root".into())));
        let table = report.table();
        assert!(table.contains("skipped") && table.contains("needs root"), "{table}");
        assert!(table.contains("TEST steps=1 failed=0 skipped=1"), "{table}");
        assert!(report.finish().is_ok());
    }

    #[test]
    fn the_reason_of_a_failure_is_in_the_table() {
        let mut report = Report::new("CI");
        report.step("breaks", broken);
        let table = report.table();
        assert!(table.contains("FAILED") && table.contains("a tool is missing"), "{table}");
    }
}
