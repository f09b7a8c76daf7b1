//! All limits of files.

/// How many sectors of an encrypted file are written with one data key from one opening of it to the
/// next; what is more is refused. The numbers that tell the writes of a key apart begin somewhere at
/// random in 2^96 at each opening: that any two of 2^16 openings with as many writes each meet has a
/// chance below 2^-32.
///
/// ```
/// assert_eq!(mainstay_storage::limits::SECTOR_WRITES_MAX, 1 << 32);
/// ```
pub const SECTOR_WRITES_MAX: u64 = 1 << 32;

/// The most bytes of an encrypted file.
///
/// ```
/// assert_eq!(mainstay_storage::limits::ENCRYPTED_BYTES_MAX, 1 << 60);
/// ```
pub const ENCRYPTED_BYTES_MAX: u64 = 1 << 60;
