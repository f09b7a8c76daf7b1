//! How large a filter is for what it is to hold.

use crate::{
    error::{Error, Result, within},
    limits::FILTER_CAPACITY_MAX,
    wire::Profile,
};

/// The size of a filter: computed from capacity and error rate in the way all peers do it.
///
/// ```
/// use mainstay_sds::bloom::Params;
/// let params = Params::new(10_000, 0.001)?;
/// assert_eq!((params.hashes, params.bits, params.words()), (10, 150_000, 2344));
/// # Ok::<(), mainstay_sds::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Params {
    /// How many ids it is made for.
    pub capacity: u32,
    /// The share of absent ids that it takes for present when it holds as many as it is made for.
    pub error_rate: f64,
    /// How many bits an id sets.
    pub hashes: u32,
    /// How many bits there are.
    pub bits: u32,
}

/// Percentages of one hundred per cent: the table of error rates for a given number of hashes.
const HASHES_BY_TABLE_MAX: u32 = 12;
const BITS_PER_ID_MAX: u32 = 32;

impl Params {
    /// A filter for `capacity` ids, wrong about `error_rate` of the absent ones.
    ///
    /// # Errors
    /// [`Error::Limit`] or [`Error::Config`] for values outside of the limits.
    ///
    /// Example: see [`Params`].
    pub fn new(capacity: u32, error_rate: f64) -> Result<Self> {
        Self::check(capacity, error_rate)?;
        let bits_per_id = (-error_rate.ln() / std::f64::consts::LN_2.powi(2)).ceil();
        let hashes = (bits_per_id * std::f64::consts::LN_2).round().max(1.0);
        Ok(Self {
            capacity,
            error_rate,
            hashes: hashes as u32,
            bits: capacity * bits_per_id as u32,
        })
    }

    /// A filter with a given number of hashes, and as few bits as keep the error rate.
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`Error::Config`] if no size keeps the error rate.
    ///
    /// ```
    /// use mainstay_sds::bloom::Params;
    /// assert_eq!(Params::with_hashes(1000, 0.01, 4)?.bits, 11_000);
    /// assert!(Params::with_hashes(100, 0.00001, 2).is_err());
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    pub fn with_hashes(capacity: u32, error_rate: f64, hashes: u32) -> Result<Self> {
        Self::check(capacity, error_rate)?;
        within("number of hashes", u64::from(hashes), 1, u64::from(HASHES_BY_TABLE_MAX))?;
        let bits_per_id = (2..=BITS_PER_ID_MAX)
            .find(|&bits| tabled_rate(hashes, bits) < error_rate)
            .ok_or(Error::Config {
                what: "no filter of at most 32 bits an id keeps this error rate with so few \
                       hashes; take more hashes",
            })?;
        Ok(Self { capacity, error_rate, hashes, bits: capacity * bits_per_id })
    }

    fn check(capacity: u32, error_rate: f64) -> Result<()> {
        let max = u64::from(FILTER_CAPACITY_MAX) * 2;
        within("capacity of the filter", u64::from(capacity), 1, max)?;
        if (1e-6..=0.5).contains(&error_rate) {
            return Ok(());
        }
        Err(Error::Config { what: "the filter's error rate must be between 0.000001 and 0.5" })
    }

    /// The 64-bit words it takes: one to spare where the bits fill whole words, as all peers have.
    ///
    /// Example: see [`Params`].
    #[must_use]
    pub fn words(&self) -> usize {
        1 + self.bits as usize / 64
    }

    /// The bytes of its bits.
    pub(crate) fn image_len(&self) -> usize {
        self.words() * 8
    }

    /// The error rate in millionths, as it is written on the wire.
    pub(crate) fn error_millionths(&self) -> u64 {
        (self.error_rate * 1e6) as u64
    }

    /// Whether the peers of `profile` can read a filter of this size.
    pub(crate) fn check_profile(&self, profile: Profile) -> Result<()> {
        // Theirs says nothing of its size, which is fixed in the program.
        let fixed = self.capacity == 10_000 && self.bits == 150_000 && self.hashes == 10;
        if profile == Profile::Nim || fixed {
            return Ok(());
        }
        Err(Error::Config {
            what: "peers of the lip profile know one filter only: 10,000 ids with an error rate \
                   of 0.001; say that all peers are Mainstay's to choose another",
        })
    }
}

/// The error rate of a filter with `hashes` hashes and `bits` bits an id, as the nim peers have it
/// in a table: rounded to three digits, and 1 where there are too few bits.
fn tabled_rate(hashes: u32, bits: u32) -> f64 {
    const BITS_MIN: [u32; 12] = [2, 2, 3, 4, 5, 6, 8, 9, 11, 12, 13, 15];
    if bits < BITS_MIN[hashes as usize - 1] {
        return 1.0;
    }
    // The one entry of theirs that is not what the formula gives.
    if (hashes, bits) == (3, 5) {
        return 0.092;
    }
    let rate = (1.0 - (-f64::from(hashes) / f64::from(bits)).exp()).powi(hashes as i32);
    let scale = 10_f64.powi(2 - rate.log10().floor() as i32);
    (rate * scale).round() / scale
}
