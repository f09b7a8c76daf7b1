//! Seeded random numbers: the same seed gives the same numbers on every machine, for ever.

/// xoshiro256++ 1.0, seeded through SplitMix64.
///
/// Source: Blackman and Vigna, "Scrambled linear pseudorandom number generators" (2021). Not for
/// secrets: whoever sees a few outputs can compute the rest.
///
/// ```
/// use mainstay_base::Rng;
/// let (mut a, mut b) = (Rng::seeded(7), Rng::seeded(7));
/// assert_eq!(a.next_u64(), b.next_u64());
/// assert!(a.below(10) < 10);
/// ```
#[derive(Clone, Debug)]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// A generator whose whole future is decided by `seed`.
    ///
    /// Example: see [`Rng`].
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        let mut x = seed;
        let state = std::array::from_fn(|_| {
            x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
            mix64(x)
        });
        Self { state }
    }

    /// 64 random bits.
    ///
    /// Example: see [`Rng`].
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number from 0 up to, not including, `bound`; 0 when `bound` is 0.
    ///
    /// The bias is below `bound` / 2^64. Source: Lemire, "Fast Random Integer Generation in an
    /// Interval" (2019), without its rejection step.
    ///
    /// ```
    /// let mut die = mainstay_base::Rng::seeded(7);
    /// assert!((0..100).all(|_| die.below(6) < 6));
    /// assert_eq!(die.below(0), 0);
    /// ```
    #[inline]
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }
}

/// Mixes 64 bits so that each input bit changes about half of the output bits (the finaliser of
/// SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
///
/// ```
/// assert_ne!(mainstay_base::mix64(1), mainstay_base::mix64(2));
/// ```
#[must_use]
pub fn mix64(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix_gives_the_published_first_outputs_for_seed_1234567() {
        let mut x = 1_234_567_u64;
        let outputs: Vec<u64> = (0..3)
            .map(|_| {
                x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
                mix64(x)
            })
            .collect();
        assert_eq!(
            outputs,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn every_number_below_a_small_bound_turns_up() {
        let mut rng = Rng::seeded(1);
        let mut seen = [false; 10];
        for _ in 0..1_000 {
            seen[rng.below(10) as usize] = true;
        }
        assert_eq!(seen, [true; 10]);
        assert_eq!(rng.below(0), 0);
    }
}
