//! A 64-bit identity of a data type, stored beside the data so that a reader of another type is
//! told apart before it reads.

/// Identity of a type by name, size and alignment; the same on every compiler and machine.
///
/// It has 63 bits, so that a negative number can never be one.
///
/// ```
/// use mainstay_base::Fingerprint;
/// let v1 = Fingerprint::of("app.call/1", 64, 8);
/// assert_eq!(v1, Fingerprint::of("app.call/1", 64, 8));
/// assert_ne!(v1, Fingerprint::of("app.call/2", 64, 8));
/// assert_ne!(v1, Fingerprint::of("app.call/1", 72, 8));
/// assert!(v1.bits() < 1 << 63);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// What a block without a type carries.
    ///
    /// ```
    /// assert_eq!(mainstay_base::Fingerprint::NONE.bits(), 0);
    /// ```
    pub const NONE: Self = Self(0);

    /// The fingerprint of a type.
    ///
    /// FNV-1a over the name, then over size and alignment as little-endian u64. Source: Fowler,
    /// Noll, Vo, "The FNV Non-Cryptographic Hash Algorithm". It tells types apart by mistake, not
    /// by malice: whoever can write the header can write any fingerprint.
    ///
    /// Example: see [`Fingerprint`].
    #[must_use]
    pub const fn of(name: &str, size: usize, align: usize) -> Self {
        let mut hash = 0xCBF2_9CE4_8422_2325;
        hash = fnv1a(hash, name.as_bytes());
        hash = fnv1a(hash, &(size as u64).to_le_bytes());
        hash = fnv1a(hash, &(align as u64).to_le_bytes());
        hash &= !(1 << 63);
        // Zero means "no type".
        Self(if hash == 0 { 1 } else { hash })
    }

    /// The 63 bits as a number.
    ///
    /// Example: see [`Fingerprint`].
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }
}

const fn fnv1a(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0000_0100_0000_01B3);
        i += 1;
    }
    hash
}
