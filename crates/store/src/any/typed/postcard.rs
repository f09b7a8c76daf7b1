//! Types that `serde` knows, in stores of any sizes.

use std::ops::Deref;

use serde::{Serialize, de::DeserializeOwned};

use super::Field;
use crate::error::{Error, Result};

/// A value of a type that `serde` knows, as a key or value of a [`LogStore`](super::LogStore), in the
/// format of the crate `postcard`. Fields are told by their place, so a type whose fields change reads
/// old records no more. The order of keys is not that of their values.
///
/// ```
/// use mainstay_store::{Durability::Memory, LogOptions, LogStore, Postcard};
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Person { name: String, rooms: Vec<u16> }
/// # let dir = tempfile::tempdir()?;
/// let store = LogStore::<String, Postcard<Person>>::create(dir.path(), &LogOptions::default())?;
/// let ada = Postcard::of(Person { name: "Ada".into(), rooms: vec![12, 14] })?;
/// store.put(&"ada".to_owned(), &ada, Memory)?;
/// let found = store.get_by("ada")?.unwrap();
/// assert_eq!((&*found.name, &*found.rooms), ("Ada", &[12, 14][..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Postcard<T> {
    value: T,
    /// Made with the value, since a type may refuse to be encoded, and a [`Field`] must not.
    bytes: Vec<u8>,
}

impl<T: Serialize> Postcard<T> {
    /// Encodes a value.
    ///
    /// Example: see [`Postcard`].
    ///
    /// # Errors
    /// [`Error::Unencodable`] if the type does not let itself be encoded.
    pub fn of(value: T) -> Result<Self> {
        match postcard::to_allocvec(&value) {
            Ok(bytes) => Ok(Self { value, bytes }),
            Err(error) => Err(Error::Unencodable { why: error.to_string() }),
        }
    }
}

impl<T> Postcard<T> {
    /// The value itself.
    ///
    /// ```
    /// # use mainstay_store::Postcard;
    /// assert_eq!(Postcard::of(7)?.into_inner(), 7);
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    pub fn into_inner(self) -> T {
        self.value
    }
}

impl<T> Deref for Postcard<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: DeserializeOwned> Field for Postcard<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (value, rest) = postcard::take_from_bytes(bytes).ok()?;
        rest.is_empty().then(|| Self { value, bytes: bytes.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_short_or_goes_on_is_no_value_and_what_cannot_be_encoded_is_refused() {
        let made = Postcard::of((7_u64, "seven".to_owned())).unwrap();
        let bytes = super::super::bytes_of(&made);
        assert_eq!(Postcard::decode(&bytes), Some(made));
        assert_eq!(Postcard::<(u64, String)>::decode(&bytes[..bytes.len() - 1]), None);
        assert_eq!(Postcard::<(u64, String)>::decode(&[&bytes[..], &[0]].concat()), None);

        struct Refuses;
        impl Serialize for Refuses {
            fn serialize<S: serde::Serializer>(
                &self,
                _: S,
            ) -> std::result::Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("no"))
            }
        }
        assert!(matches!(Postcard::of(Refuses), Err(Error::Unencodable { .. })));
    }
}
