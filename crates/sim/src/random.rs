//! Choices by seed, one stream of numbers for each purpose.

use mainstay_base::{Rng, mix64};
use std::time::Duration;

use crate::time::nanos_of;

/// What a world chooses with. Each purpose has a stream of its own, so that one more choice in one
/// place does not change every choice elsewhere, and a seed keeps its story through most edits.
///
/// ```
/// use mainstay_base::Rng;
/// use mainstay_sim::{Chance, stream};
/// let (mut a, mut b) = (stream(7, "clients"), stream(7, "faults"));
/// assert_ne!(a.next_u64(), b.next_u64());
/// assert!(Rng::seeded(7).chance(1_000_000));
/// assert!(!Rng::seeded(7).chance(0));
/// assert!((3..=5).contains(&a.between(3, 5)));
/// assert!([1, 2, 3].contains(a.pick(&[1, 2, 3])));
/// ```
pub trait Chance {
    /// True in `ppm` of a million cases.
    ///
    /// Example: see [`Chance`].
    fn chance(&mut self, ppm: u32) -> bool;

    /// A number from `least` to `most`, both possible; `least` if they are the wrong way round.
    ///
    /// Example: see [`Chance`].
    fn between(&mut self, least: u64, most: u64) -> u64;

    /// One of `choices`.
    ///
    /// Example: see [`Chance`].
    ///
    /// # Panics
    /// If there is none.
    fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T;

    /// A duration from nothing to `most`.
    ///
    /// ```
    /// use mainstay_base::Rng;
    /// use mainstay_sim::Chance;
    /// use std::time::Duration;
    /// let most = Duration::from_millis(5);
    /// assert!(Rng::seeded(1).within(most) <= most);
    /// ```
    fn within(&mut self, most: Duration) -> Duration;

    /// How long until something happens that happens once in `mean`, whenever it happened last
    /// (exponentially distributed, to a sixteenth; at most 12 times the mean).
    ///
    /// ```
    /// use mainstay_base::Rng;
    /// use mainstay_sim::Chance;
    /// use std::time::Duration;
    /// let mean = Duration::from_secs(1);
    /// assert!(Rng::seeded(1).once_in(mean) <= mean * 12);
    /// ```
    fn once_in(&mut self, mean: Duration) -> Duration;

    /// In any order.
    ///
    /// ```
    /// use mainstay_base::Rng;
    /// use mainstay_sim::Chance;
    /// let mut cards = [1, 2, 3];
    /// Rng::seeded(1).shuffle(&mut cards);
    /// cards.sort();
    /// assert_eq!(cards, [1, 2, 3]);
    /// ```
    fn shuffle<T>(&mut self, items: &mut [T]);
}

/// The stream of random numbers that a seed has for one purpose.
///
/// Example: see [`Chance`].
#[must_use]
pub fn stream(seed: u64, purpose: &str) -> Rng {
    let purpose = purpose.bytes().fold(0, |hash, byte| mix64(hash ^ u64::from(byte)));
    Rng::seeded(mix64(seed ^ mix64(purpose)))
}

impl Chance for Rng {
    #[inline]
    fn chance(&mut self, ppm: u32) -> bool {
        ppm > 0 && self.below(1_000_000) < u64::from(ppm)
    }

    #[inline]
    fn between(&mut self, least: u64, most: u64) -> u64 {
        match most.saturating_sub(least).checked_add(1) {
            Some(choices) => least + self.below(choices),
            None => self.next_u64(),
        }
    }

    fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        assert!(!choices.is_empty(), "there is nothing to pick from; offer at least one choice");
        &choices[self.below(choices.len() as u64) as usize]
    }

    #[inline]
    fn within(&mut self, most: Duration) -> Duration {
        Duration::from_nanos(self.between(0, nanos_of(most)))
    }

    fn once_in(&mut self, mean: Duration) -> Duration {
        // -ln(u) without floating point, whose last bit could differ between machines: -log2(u) is
        // the number of leading zeros plus what a straight line says about the rest, and ln is
        // log2 times 0.693. The line is off by less than a sixteenth.
        let random = self.next_u64() | (1 << 47);
        let zeros = random.leading_zeros();
        let rest = (random << zeros << 1) >> 48;
        let log2_in_65536ths = u64::from(zeros + 1) * 65_536 - rest;
        let ln_in_65536ths = log2_in_65536ths * 45_426 / 65_536;
        let nanos = u128::from(nanos_of(mean)) * u128::from(ln_in_65536ths) / 65_536;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u64 + 1) as usize;
            items.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_happens_once_a_second_happens_about_once_a_second() {
        let mut rng = Rng::seeded(3);
        let total: Duration = (0..10_000).map(|_| rng.once_in(Duration::from_secs(1))).sum();
        let mean = total.as_secs_f64() / 10_000.0;
        assert!((0.9..1.1).contains(&mean), "{mean}");
    }

    #[test]
    fn both_ends_of_a_range_turn_up() {
        let mut rng = Rng::seeded(3);
        let seen: std::collections::BTreeSet<_> = (0..100).map(|_| rng.between(2, 4)).collect();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [2, 3, 4]);
        assert_eq!(rng.between(9, 2), 9);
        rng.between(0, u64::MAX);
    }

    #[test]
    fn a_chance_of_a_quarter_comes_up_in_a_quarter_of_the_cases() {
        let mut rng = Rng::seeded(3);
        let hits = (0..10_000).filter(|_| rng.chance(250_000)).count();
        assert!((2_300..2_700).contains(&hits), "{hits}");
    }
}
