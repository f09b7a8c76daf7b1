//! Reading by copy.
//!
//! C1. What is current is not written. So what is current before and after it was copied was copied
//!     whole, without a pin, and without a store to shared memory: readers of a value at rest do
//!     not disturb each other.
//! C2. Who begins to write a slot says so first (S8). So a version was copied whole too if its slot
//!     still says to have it afterwards, although others have committed meanwhile: readers of a small
//!     value do not disturb its writer either, however fast that is.
//! C3. Who was overtaken, or finds a new version of a value that takes long to be copied, pins it, and
//!     cannot be overtaken.
//! C4. What a handle knows of the version that it copied last has at least as many bytes as the type of
//!     the state.

use crate::{
    Record, Result, State,
    line::Pin,
    near::{Found, Near},
    protocol::{Words as _, is_still, is_whole},
    value::Value,
    word::{Plain, VERSION_NEVER},
};
use mainstay_shm::{Atomic64, copy};
use std::sync::atomic::Ordering::{Acquire, Relaxed};

/// Larger values are pinned to be copied (C3): a writer that does nothing else would be faster.
const AT_ONCE_MAX: usize = 4_096;

/// The version that was copied last, and where it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copied {
    plain: Plain,
    found: Found,
}

impl Copied {
    /// The version that is there before any other, if the state has a type: its first slot, which has
    /// zeros. Of bytes nothing, as their number can change.
    pub(crate) fn first<T: Value + ?Sized>(near: &Near) -> Result<Self> {
        let len = T::kind().size.unwrap_or(0);
        Ok(Self { plain: Plain::new(VERSION_NEVER, 0), found: near.find(0, len)? })
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
        // SAFETY: cut to what is known.
        if len > 0 && unsafe { self.copy_again(known, &mut target[..room]) } {
            return Ok((known.plain.version(), len));
        }
        self.copy_new(target)
    }

    /// C1: without a pin, if the version is the one that was copied last.
    ///
    /// # Safety
    /// What is known has at least as many bytes as `target` has room for.
    #[inline(always)]
    unsafe fn copy_again(&self, known: Copied, target: &mut [u8]) -> bool {
        let near = self.line.near();
        let word = near.current();
        // First: a child made by fork does not have the mapping.
        if !near.is_ours() || word.load(Acquire) != known.plain.bits() {
            return false;
        }
        // SAFETY: the caller's promise.
        unsafe { near.load(known.found, target) };
        is_still::<Near>(word, known.plain)
    }

    /// A version that was not copied before.
    #[inline(never)]
    fn copy_new(&self, target: &mut [u8]) -> Result<(u64, usize)> {
        match self.copy_at_once(target) {
            Some(copied) => Ok(copied),
            None => self.copy_pinned(target),
        }
    }

    /// C2: without a pin, if its slot still has it afterwards.
    #[inline(always)]
    fn copy_at_once(&self, target: &mut [u8]) -> Option<(u64, usize)> {
        let near = self.line.near();
        // First: a child made by fork does not have the mapping.
        if !near.is_ours() {
            return None;
        }
        let plain = Plain::of(near.current().load(Acquire))?;
        // Sealed before the version, so it is whole when that is.
        let len = usize::try_from(near.slot(plain.slot()).len.load(Relaxed)).ok()?;
        if plain.version() == VERSION_NEVER || len > AT_ONCE_MAX {
            return None;
        }
        let found = near.find_covered(plain.slot(), len)?;
        let room = len.min(target.len());
        // SAFETY: cut to what was found.
        unsafe { near.load(found, &mut target[..room]) };
        is_whole(near, plain).then(|| {
            self.know(Copied { plain, found });
            (plain.version(), len)
        })
    }

    /// C3: by a pin.
    #[cold]
    fn copy_pinned(&self, target: &mut [u8]) -> Result<(u64, usize)> {
        let pin = Pin::new(&self.line)?;
        let bytes = pin.bytes()?;
        let len = bytes.len();
        // SAFETY: both are slices, the target the caller's.
        unsafe { copy::load(bytes.as_ptr(), target.as_mut_ptr(), len.min(target.len())) };
        let plain = pin.plain;
        // The length of a version never written can change.
        if plain.version() != VERSION_NEVER {
            self.know(Copied { plain, found: self.line.near().find(plain.slot(), len)? });
        }
        Ok((plain.version(), len))
    }

    fn know(&self, copied: Copied) {
        // C4. Fewer are damage, of which whoever reads such a version is told.
        if copied.found.len() >= T::kind().size.unwrap_or(0) {
            self.copied.set(copied);
        }
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
        // SAFETY: C4, and the target has the size of the type.
        if size_of::<T>() > 0 && unsafe { self.copy_again(known, target) } {
            return Ok(known.plain.version());
        }
        let version = self.copy_all(target)?;
        Ok(version)
    }

    /// Not cold, but as long as nobody writes it is not needed.
    #[cold]
    fn copy_all(&self, target: &mut [u8]) -> Result<u64> {
        match self.copy_new(target)? {
            (version, len) if len >= target.len() => Ok(version),
            (_, len) => Err(self.memory().wrong_len(len as u64)),
        }
    }
}
