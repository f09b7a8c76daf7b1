//! Reading by copy.
//!
//! C1. What is current is not written. So what is current before and after it was copied was copied
//!     whole, without a pin, and without a store to shared memory: readers of a value at rest do
//!     not disturb each other.
//! C2. Who finds a version that it has not copied before has a busy writer, whose next version
//!     would come in between: it pins, and cannot be overtaken.

use crate::{
    Record, Result, State,
    line::Pin,
    near::{Found, Near},
    protocol::{Words as _, is_still},
    value::Value,
    word::{Plain, VERSION_NEVER},
};
use mainstay_shm::{Atomic64, copy};
use std::sync::atomic::Ordering::Acquire;

/// The version that was copied last, and where it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copied {
    plain: Plain,
    found: Found,
}

impl Copied {
    /// Whatever is current, this has too few bytes.
    pub(crate) fn nothing() -> Self {
        Self { plain: Plain::new(VERSION_NEVER, 0), found: Found::NOTHING }
    }
}

impl<T: Value + ?Sized> State<T> {
    /// Copies the current version into `target`; returns its number and its length, of which as
    /// much was copied as there is room for.
    ///
    /// ```
    /// # use mainstay_state::Domain;
    /// # let dir = tempfile::tempdir()?;
    /// let state = Domain::open(dir.path())?.writer::<[u8]>("speed")?;
    /// state.replace(b"120")?;
    /// let mut copy = [0; 8];
    /// assert_eq!(state.copy_to(&mut copy)?, (1, 3));
    /// assert_eq!(&copy[..3], b"120");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`State::read`].
    #[inline]
    pub fn copy_to(&self, target: &mut [u8]) -> Result<(u64, usize)> {
        let known = self.copied.get();
        let len = known.found.len();
        let room = len.min(target.len());
        if len > 0 && self.copy_again(known, &mut target[..room]) {
            return Ok((known.plain.version(), len));
        }
        self.copy_pinned(target)
    }

    /// C1: without a pin, if the version is the one that was copied last.
    #[inline(always)]
    fn copy_again(&self, known: Copied, target: &mut [u8]) -> bool {
        let near = self.line.near();
        let word = near.current();
        // First: a child made by fork does not have the mapping.
        near.is_ours()
            && word.load(Acquire) == known.plain.bits()
            && near.load(known.found, target)
            && is_still::<Near>(word, known.plain)
    }

    /// C2: by a pin.
    #[inline(never)]
    fn copy_pinned(&self, target: &mut [u8]) -> Result<(u64, usize)> {
        let pin = Pin::new(&self.line)?;
        let bytes = pin.bytes()?;
        let len = bytes.len();
        // SAFETY: both are slices, the target the caller's.
        unsafe { copy::load(bytes.as_ptr(), target.as_mut_ptr(), len.min(target.len())) };
        let plain = pin.plain;
        // The length of a version never written can change.
        let known = if plain.version() == VERSION_NEVER {
            Copied::nothing()
        } else {
            Copied { plain, found: self.line.near().find(plain.slot(), len)? }
        };
        self.copied.set(known);
        Ok((plain.version(), len))
    }
}

impl<T: Record> State<T> {
    /// Copies the current version into `target`; returns its number. For small values that change
    /// less often than they are looked at this is the fastest way to read.
    ///
    /// ```
    /// # use mainstay_state::{Domain, Record};
    /// # use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
    /// # #[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy, Default)]
    /// # #[repr(C)]
    /// # struct Pose { x: f64, y: f64 }
    /// # impl Record for Pose {
    /// #     const NAME: &'static str = "example.pose/1";
    /// #     const FIELDS: &'static str = "x: f64, y: f64";
    /// # }
    /// # let dir = tempfile::tempdir()?;
    /// let state = Domain::open(dir.path())?.writer::<Pose>("pose")?;
    /// state.replace(&Pose { x: 1.0, y: 2.0 })?;
    /// let mut pose = Pose::default();
    /// assert_eq!(state.copy_into(&mut pose)?, 1);
    /// assert_eq!(pose.y, 2.0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`State::read`].
    #[inline(always)]
    pub fn copy_into(&self, target: &mut T) -> Result<u64> {
        let target = target.as_mut_bytes();
        let known = self.copied.get();
        if size_of::<T>() > 0 && self.copy_again(known, target) {
            return Ok(known.plain.version());
        }
        let version = self.copy_all(target)?;
        Ok(version)
    }

    /// Not cold, but as long as nobody writes it is not needed.
    #[cold]
    fn copy_all(&self, target: &mut [u8]) -> Result<u64> {
        match self.copy_pinned(target)? {
            (version, len) if len >= target.len() => Ok(version),
            (_, len) => Err(self.memory().wrong_len(len as u64)),
        }
    }
}
