//! What a process of the show has counted: words such as `reads=12` in a line on its standard
//! output, read by the process that started it.

use std::{collections::BTreeMap, fmt, time::Duration};

/// Numbers by name.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Report(pub(crate) BTreeMap<String, u64>);

impl Report {
    /// The number of this name; one that was not counted is 0.
    pub(crate) fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// One more.
    pub(crate) fn count(&mut self, name: &str) {
        self.count_if(name, true);
    }

    /// One more if it is so; the name is in the report in any case.
    pub(crate) fn count_if(&mut self, name: &str, is_so: bool) {
        let count = match self.0.get_mut(name) {
            Some(count) => count,
            None => self.0.entry(name.to_owned()).or_default(),
        };
        *count += u64::from(is_so);
    }

    /// Is this from now on.
    pub(crate) fn set(&mut self, name: &str, number: u64) {
        self.0.insert(name.to_owned(), number);
    }

    /// Reads what [`fmt::Display`] wrote; what is no word of a report is left out.
    pub(crate) fn parse(line: &str) -> Self {
        let word = |word: &str| {
            let (name, number) = word.split_once('=')?;
            Some((name.to_owned(), number.parse().ok()?))
        };
        Self(line.split_whitespace().filter_map(word).collect())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (name, number)) in self.0.iter().enumerate() {
            write!(f, "{}{name}={number}", if place == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

/// How old values were when they were read; the largest are what is of interest.
#[derive(Default)]
pub(crate) struct Ages(Vec<u64>);

/// Enough for some minutes; what comes later is not looked at.
const AGES_MAX: usize = 1 << 18;

impl Ages {
    pub(crate) fn add(&mut self, ns: u64) {
        if self.0.len() < AGES_MAX {
            self.0.push(ns);
        }
    }

    /// The middle one and that which one in a hundred exceeds, in microseconds.
    pub(crate) fn report(mut self, report: &mut Report) {
        self.0.sort_unstable();
        for (name, percent) in [("age_p50_us", 50), ("age_p99_us", 99)] {
            let place = (self.0.len() * percent / 100).min(self.0.len().saturating_sub(1));
            report.set(name, self.0.get(place).map_or(0, |ns| ns / 1_000));
        }
    }
}

/// For people: `12.3 ms`.
pub(crate) fn in_ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1_000.0)
}
