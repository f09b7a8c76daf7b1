//! Which writes are known.

/// Writes of which it is known what they did, by their sequences.
#[derive(Default)]
pub(super) struct Covered(Vec<(u64, u64)>);

impl Covered {
    /// These are known, from the first to the last.
    pub(super) fn add(&mut self, first: u64, last: u64) {
        match self.0.last_mut() {
            // One after the other, mostly.
            Some(before) if before.1.checked_add(1) == Some(first) => before.1 = last.max(before.1),
            _ if first <= last => self.0.push((first, last)),
            _ => {}
        }
    }

    /// Those up to `end` that are not, in their order.
    pub(super) fn missing(mut self, end: u64) -> Vec<(u64, u64)> {
        self.0.sort_unstable();
        let (mut missing, mut next) = (Vec::new(), 1);
        for (first, last) in self.0 {
            if first > next && next <= end {
                missing.push((next, end.min(first - 1)));
            }
            next = next.max(last.saturating_add(1));
        }
        if next <= end {
            missing.push((next, end));
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_between_is_missing() {
        let mut covered = Covered::default();
        for (first, last) in [(5, 5), (6, 6), (2, 3), (3, 3), (9, 12)] {
            covered.add(first, last);
        }
        assert_eq!(covered.missing(14), [(1, 1), (4, 4), (7, 8), (13, 14)]);
        let mut covered = Covered::default();
        covered.add(1, 20);
        covered.add(21, 20);
        assert_eq!(covered.missing(14), []);
        assert_eq!(Covered::default().missing(0), []);
    }
}
