//! What a start of the service reported, and what it should have.

use std::{str::FromStr, time::Duration};

/// One line of the status file, written before the service says it is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Start {
    /// Which start of this instance it is, counted by lines, not by memory.
    pub(super) number: u64,
    /// Blocks of earlier starts it found.
    pub(super) found: u64,
    /// Blocks that should have been there by what it found in memory.
    pub(super) lost: u64,
    /// Blocks whose content does not fit their checksum.
    pub(super) torn: u64,
    /// The counter as found in memory.
    pub(super) counter: u64,
    /// The last value the service had told the outside.
    pub(super) acknowledged: u64,
    /// The names of the descriptors it was passed.
    pub(super) names: String,
}

impl Start {
    pub(super) const HEADINGS: &str = "instance  ended by     start  found  lost  torn  counter  \
                                       acknowledged  passed  back after";

    pub(super) fn parse(line: &str) -> Option<Self> {
        fn field<T: FromStr>(line: &str, name: &str) -> Option<T> {
            let mut words = line.split(' ');
            words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?.parse().ok()
        }
        Some(Self {
            number: field(line, "start")?,
            found: field(line, "found")?,
            lost: field(line, "lost")?,
            torn: field(line, "torn")?,
            counter: field(line, "counter")?,
            acknowledged: field(line, "acknowledged")?,
            names: field(line, "names")?,
        })
    }

    pub(super) fn row(&self, instance: &str, ended_by: &str, took: Duration) -> String {
        format!(
            "{instance:8}  {ended_by:9}  {:7}  {:5}  {:4}  {:4}  {:7}  {:12}  {:6}  {:7} ms",
            self.number,
            self.found,
            self.lost,
            self.torn,
            self.counter,
            self.acknowledged,
            self.names,
            took.as_millis()
        )
    }
}

/// What was done to a service, and what that cost.
#[derive(Debug, Default)]
pub(super) struct Tally {
    kills: u64,
    restarts: u64,
    pub(super) lost: u64,
    torn: u64,
    /// What is wrong but neither lost nor torn.
    pub(super) faults: Vec<String>,
    counter_before: u64,
}

impl Tally {
    /// The first start finds nothing and is passed nothing.
    pub(super) fn first(&mut self, start: &Start) {
        if (start.found, start.counter, &*start.names) != (0, 0, "-") {
            self.faults.push(format!("the first start found something: {start:?}"));
        }
    }

    pub(super) fn after_kill(&mut self, start: &Start, names: &str) {
        self.kills += 1;
        // It is killed between writing the counter and telling, at the latest.
        self.check(start, names, start.acknowledged..=start.acknowledged + 1);
    }

    pub(super) fn after_restart(&mut self, start: &Start, names: &str) {
        self.restarts += 1;
        self.check(start, names, start.acknowledged..=start.acknowledged);
    }

    fn check(&mut self, start: &Start, names: &str, counter: std::ops::RangeInclusive<u64>) {
        // Each start adds a block. What the service itself misses, and what it ought to miss seen
        // from here, are two views of one loss; and every start misses again what was lost before.
        let missing = (start.number - 1).saturating_sub(start.found + start.torn);
        self.lost = self.lost.max(missing).max(start.lost);
        self.torn = self.torn.max(start.torn);
        let mut fault = |what: &str| self.faults.push(format!("{what}: {start:?}"));
        if start.number - 1 < start.found {
            fault("blocks were found that nobody made");
        }
        if start.names != names {
            fault("the names of the descriptors passed are not those stored");
        }
        if !counter.contains(&start.counter) {
            fault("the counter is not what was acknowledged");
        }
        if start.counter <= self.counter_before {
            fault("the counter did not go up, so nothing was at work");
        }
        self.counter_before = start.counter;
    }

    pub(super) fn is_clean(&self) -> bool {
        self.lost == 0 && self.torn == 0 && self.faults.is_empty()
    }

    pub(super) fn verdict(&self) -> String {
        let Self { kills, restarts, lost, torn, .. } = self;
        format!("SYSTEMD kills={kills} restarts={restarts} lost={lost} torn={torn}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "start=3 found=2 lost=0 torn=0 counter=180 acknowledged=179 names=calls";

    fn tally(line: &str) -> Tally {
        let mut tally = Tally { counter_before: 100, ..Tally::default() };
        tally.after_kill(&Start::parse(line).unwrap(), "calls");
        tally
    }

    #[test]
    fn a_start_that_found_everything_is_clean() {
        let tally = tally(GOOD);
        assert!(tally.is_clean(), "{tally:?}");
        assert_eq!(tally.verdict(), "SYSTEMD kills=1 restarts=0 lost=0 torn=0");
    }

    #[test]
    fn a_loss_is_counted_even_if_the_service_knows_of_none() {
        assert_eq!(tally(&GOOD.replace("found=2", "found=0")).lost, 2);
        assert_eq!(tally(&GOOD.replace("lost=0", "lost=1")).lost, 1);
    }

    #[test]
    fn a_block_is_counted_once_however_often_it_is_missed_and_torn_is_not_lost() {
        let mut tally = tally(&GOOD.replace("found=2 lost=0 torn=0", "found=0 lost=1 torn=1"));
        let next = "start=4 found=1 lost=1 torn=1 counter=280 acknowledged=280 names=calls";
        tally.after_kill(&Start::parse(next).unwrap(), "calls");
        assert_eq!(tally.verdict(), "SYSTEMD kills=2 restarts=0 lost=1 torn=1");
    }

    #[test]
    fn each_fault_alone_spoils_the_verdict() {
        for (good, bad) in [
            ("found=2", "found=1"),
            ("found=2", "found=3"),
            ("lost=0", "lost=1"),
            ("torn=0", "torn=1"),
            ("counter=180", "counter=178"),
            ("counter=180", "counter=181"),
            ("names=calls", "names=-"),
            ("counter=180 acknowledged=179", "counter=100 acknowledged=100"),
        ] {
            let tally = tally(&GOOD.replace(good, bad));
            assert!(!tally.is_clean(), "{bad}");
        }
    }

    #[test]
    fn an_orderly_end_leaves_the_counter_exactly_as_acknowledged() {
        let mut tally = Tally::default();
        tally.after_restart(&Start::parse(GOOD).unwrap(), "calls");
        assert!(!tally.is_clean());
    }

    #[test]
    fn a_line_that_lacks_a_field_is_not_taken_for_a_start() {
        for field in GOOD.split(' ') {
            assert_eq!(Start::parse(&GOOD.replace(field, "")), None, "{field}");
        }
    }
}
