//! Plain data with a name: what typed blocks and typed states hold.

use mainstay_base::Fingerprint;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A type that may live in shared memory: plain data, any bytes are a value, no padding, no
/// pointers.
///
/// ```
/// use mainstay_shm::Record;
/// use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
///
/// #[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
/// #[repr(C)]
/// struct Call { caller: u64, seconds: u64 }
/// impl Record for Call {
///     const NAME: &'static str = "example.call/1";
///     const FIELDS: &'static str = "caller: u64, seconds: u64";
/// }
/// ```
pub trait Record: FromBytes + IntoBytes + Immutable + KnownLayout + 'static {
    /// Identifies the type and its version, the same in every program that shares it. Stored as a
    /// fingerprint with size and alignment, and compared at attach.
    const NAME: &'static str;

    /// What the bytes mean, for tools that show and edit values of types they do not know: the
    /// fields in order, as `name: type`, separated by commas. A type is `u8` to `u64`, `i8` to
    /// `i64`, `f32`, `f64`, `[TYPE; N]`, or `text[N]` for N bytes of UTF-8 padded with zeros.
    /// Empty unless told otherwise: then tools show bytes.
    const FIELDS: &'static str = "";
}

/// The fingerprint that typed blocks and states carry for `T`.
///
/// ```
/// use mainstay_shm::{Record, fingerprint};
/// # use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
/// # #[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
/// # #[repr(C)]
/// # struct Call { caller: u64 }
/// # impl Record for Call { const NAME: &'static str = "example.call/1"; }
/// # #[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
/// # #[repr(C)]
/// # struct Wide { caller: u64, seconds: u64 }
/// # impl Record for Wide { const NAME: &'static str = "example.call/1"; }
/// assert_ne!(fingerprint::<Call>(), fingerprint::<Wide>(), "same name, other size");
/// ```
#[must_use]
pub const fn fingerprint<T: Record>() -> Fingerprint {
    const { assert!(size_of::<T>() > 0, "a record has at least one byte") };
    const { Fingerprint::of(T::NAME, size_of::<T>(), align_of::<T>()) }
}
