//! The story of a run: a number that two runs can be compared by, and lines for people.
//!
//! T1. The number depends on every record, in order: what happened, when, to whom, with which
//! bytes. It does not depend on whether anybody reads the lines.

use crate::Time;
use mainstay_base::mix64;

/// Where lines go.
pub(crate) type Sink = Box<dyn FnMut(&str)>;

pub(crate) struct Trace {
    hash: u64,
    records: u64,
    sink: Option<Sink>,
}

impl Trace {
    pub(crate) fn new(seed: u64) -> Self {
        Self { hash: mix64(seed), records: 0, sink: None }
    }

    pub(crate) fn set_sink(&mut self, sink: Sink) {
        self.sink = Some(sink);
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    /// Adds what happened at `at`: `facts` go into the number, `line` is made only if somebody
    /// reads it.
    #[inline]
    pub(crate) fn record(&mut self, at: Time, facts: [u64; 4], line: impl FnOnce() -> String) {
        self.records += 1;
        let mut hash = mix64(self.hash ^ at.as_nanos());
        for fact in facts {
            hash = mix64(hash.rotate_left(17) ^ fact);
        }
        self.hash = hash;
        if let Some(sink) = &mut self.sink {
            sink(&format!("{at} {}", line()));
        }
    }
}

/// A number for some bytes, to tell contents apart in a trace. Not for secrets.
///
/// ```
/// use mainstay_sim::digest;
/// assert_eq!(digest(b"abc"), digest(b"abc"));
/// assert_ne!(digest(b"abc"), digest(b"abc\0"));
/// ```
#[must_use]
pub fn digest(bytes: &[u8]) -> u64 {
    let mut hash = mix64(bytes.len() as u64);
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        let word = u64::from_le_bytes(word.try_into().expect("chunks of exactly 8 bytes"));
        hash = mix64(hash.rotate_left(17) ^ word);
    }
    let mut last = [0; 8];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    mix64(hash.rotate_left(17) ^ u64::from_le_bytes(last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::RefCell, rc::Rc};

    fn told(trace: &mut Trace, facts: [u64; 4]) {
        trace.record(Time::from_nanos(7), facts, || "something".into());
    }

    #[test]
    fn t1_the_number_depends_on_every_fact_and_on_their_order() {
        let number = |records: &[[u64; 4]]| {
            let mut trace = Trace::new(1);
            records.iter().for_each(|facts| told(&mut trace, *facts));
            trace.hash()
        };
        let plain = number(&[[1, 2, 3, 4], [5, 6, 7, 8]]);
        assert_eq!(plain, number(&[[1, 2, 3, 4], [5, 6, 7, 8]]));
        for other in [
            &[[5, 6, 7, 8], [1, 2, 3, 4]][..],
            &[[1, 2, 3, 4]],
            &[[2, 1, 3, 4], [5, 6, 7, 8]],
            &[[1, 2, 3, 4], [5, 6, 7, 9]],
        ] {
            assert_ne!(plain, number(other));
        }
    }

    #[test]
    fn t1_reading_the_lines_does_not_change_the_number() {
        let lines = Rc::new(RefCell::new(Vec::new()));
        let (mut quiet, mut read) = (Trace::new(1), Trace::new(1));
        let to = lines.clone();
        read.set_sink(Box::new(move |line| to.borrow_mut().push(line.to_owned())));
        for trace in [&mut quiet, &mut read] {
            told(trace, [1, 2, 3, 4]);
        }
        assert_eq!(quiet.hash(), read.hash());
        assert_eq!(*lines.borrow(), ["0.000000007 something"]);
    }
}
