//! Types that are nothing but their bytes, in stores of any sizes.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::Field;

/// A value of a type that is nothing but its bytes (see `zerocopy`), as a key or value of a
/// [`LogStore`](super::LogStore). The order of keys is that of their bytes: numbers should have the
/// highest byte first, as those of `zerocopy::big_endian` do.
///
/// ```
/// use mainstay_store::{Durability::Memory, LogOptions, LogStore, Plain};
/// use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, big_endian::U32};
/// #[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
/// #[repr(C)]
/// struct Place { x: f64, y: f64 }
/// # let dir = tempfile::tempdir()?;
/// let store = LogStore::<Plain<U32>, Plain<Place>>::create(dir.path(), &LogOptions::default())?;
/// let here = Place { x: 1.5, y: -2.0 };
/// store.put(&Plain(U32::new(7)), &Plain(here), Memory)?;
/// assert_eq!(store.get(&Plain(U32::new(7)))?, Some(Plain(here)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Plain<T>(
    /// The value.
    pub T,
);

impl<T: FromBytes + IntoBytes + Immutable> Field for Plain<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0.as_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        T::read_from_bytes(bytes).ok().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_another_length_are_no_value() {
        assert_eq!(Plain::<[u8; 3]>::decode(&[1, 2, 3]), Some(Plain([1, 2, 3])));
        assert_eq!(Plain::<[u8; 3]>::decode(&[1, 2]), None);
        assert_eq!(Plain::<[u8; 3]>::decode(&[1, 2, 3, 4]), None);
    }
}
