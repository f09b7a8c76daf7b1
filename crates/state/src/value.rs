//! What a state can hold.

use mainstay_base::Fingerprint;
use mainstay_shm::{Record, fingerprint};

/// What a state holds: bytes (`[u8]`), or a plain type that implements [`Record`].
///
/// ```
/// use mainstay_state::{Domain, Record};
/// use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
///
/// #[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy, PartialEq, Debug)]
/// #[repr(C)]
/// struct Pose { x: f64, y: f64 }
/// impl Record for Pose {
///     const NAME: &'static str = "example.pose/1";
///     const FIELDS: &'static str = "x: f64, y: f64";
/// }
///
/// let dir = tempfile::tempdir()?;
/// let pose = Domain::open(dir.path())?.writer::<Pose>("pose")?;
/// pose.replace(&Pose { x: 1.0, y: 2.0 })?;
/// assert_eq!(pose.read()?.y, 2.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Value: sealed::Value {}

impl<T: Record> Value for T {}
impl Value for [u8] {}

pub(crate) mod sealed {
    use super::{Fingerprint, Record, fingerprint};

    /// How bytes are seen as a value.
    pub trait Value {
        /// What the header of a state says about its type.
        fn kind() -> super::Kind;
        /// The value in these bytes; none when they are too few.
        fn of(bytes: &[u8]) -> Option<&Self>;
        /// The same, to be written.
        fn of_mut(bytes: &mut [u8]) -> Option<&mut Self>;
        /// Its bytes.
        fn bytes(&self) -> &[u8];
    }

    impl<T: Record> Value for T {
        fn kind() -> super::Kind {
            super::Kind {
                fingerprint: fingerprint::<T>(),
                size: Some(size_of::<T>()),
                align: align_of::<T>(),
                name: T::NAME,
                fields: T::FIELDS,
            }
        }

        #[inline(always)]
        fn of(bytes: &[u8]) -> Option<&Self> {
            T::ref_from_bytes(bytes.get(..size_of::<T>())?).ok()
        }

        #[inline(always)]
        fn of_mut(bytes: &mut [u8]) -> Option<&mut Self> {
            T::mut_from_bytes(bytes.get_mut(..size_of::<T>())?).ok()
        }

        #[inline(always)]
        fn bytes(&self) -> &[u8] {
            self.as_bytes()
        }
    }

    impl Value for [u8] {
        fn kind() -> super::Kind {
            super::Kind {
                fingerprint: Fingerprint::NONE,
                size: None,
                align: 1,
                name: "",
                fields: "",
            }
        }

        #[inline(always)]
        fn of(bytes: &[u8]) -> Option<&Self> {
            Some(bytes)
        }

        #[inline(always)]
        fn of_mut(bytes: &mut [u8]) -> Option<&mut Self> {
            Some(bytes)
        }

        #[inline(always)]
        fn bytes(&self) -> &[u8] {
            self
        }
    }
}

/// The type of a state, as its header says it.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) size: Option<usize>,
    pub(crate) align: usize,
    pub(crate) name: &'static str,
    pub(crate) fields: &'static str,
}

impl Kind {
    /// For messages.
    pub(crate) fn describe(&self) -> String {
        if self.name.is_empty() { "bytes".into() } else { format!("`{}`", self.name) }
    }
}
