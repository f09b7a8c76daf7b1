//! A version that is held while it is looked at.

use crate::{Error, Result, draft::now, line::Pin, state::State, value::Value};
use std::{fmt, marker::PhantomData, ops::Deref};

/// One version of a state, whole and unchanging while this lives, without a copy. This is a reading
/// transaction too: there is nothing to commit.
///
/// It keeps one version slot from being written again, so drop it when done, or copy the value.
///
/// ```
/// # use mainstay_state::{Domain, Error};
/// # let dir = tempfile::tempdir()?;
/// # let domain = Domain::open(dir.path())?;
/// let state = domain.writer::<[u8]>("speed")?;
/// state.replace(b"80")?;
/// let snapshot = state.read()?;
/// state.replace(b"90")?;
/// assert_eq!((&*snapshot, snapshot.version()), (&b"80"[..], 1));
/// assert_eq!(&*state.read()?, b"90");
/// assert!(matches!(snapshot.commit(), Err(Error::NotPermitted { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Snapshot<'a, T: Value + ?Sized> {
    value: *const T,
    pin: Pin<'a>,
    _value: PhantomData<&'a T>,
}

impl<'a, T: Value + ?Sized> Snapshot<'a, T> {
    #[inline(always)]
    pub(crate) fn new(pin: Pin<'a>) -> Result<Self> {
        let value: *const T = view::<T>(&pin)?;
        Ok(Self { value, pin, _value: PhantomData })
    }

    /// Which version it is: 0 is one never written, which reads as zeros.
    ///
    /// Example: see [`Snapshot`].
    #[inline(always)]
    #[must_use]
    pub fn version(&self) -> u64 {
        self.pin.plain.version()
    }

    /// Refuses: a reading transaction has nothing to commit. The snapshot stays as it is.
    ///
    /// Example: see [`Snapshot`].
    ///
    /// # Errors
    /// `NotPermitted`, always.
    pub fn commit(&self) -> Result<u64> {
        Err(Error::NotPermitted { state: self.pin.memory().name.clone() })
    }

    /// Whether it is still the current version.
    fn is_current(&self) -> Result<bool> {
        Ok(now(self.pin.memory())? == self.pin.plain)
    }

    fn renew(&mut self) -> Result<()> {
        self.pin.renew()?;
        self.value = view::<T>(&self.pin)?;
        Ok(())
    }
}

#[inline(always)]
fn view<'p, T: Value + ?Sized>(pin: &'p Pin<'_>) -> Result<&'p T> {
    let bytes = pin.bytes()?;
    match T::of(bytes) {
        Some(value) => Ok(value),
        None => Err(pin.memory().wrong_len(bytes.len() as u64)),
    }
}

impl<T: Value + ?Sized> Deref for Snapshot<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: came from the pin's bytes, which stay where and as they are while the pin lives;
        // `renew` replaces both.
        unsafe { &*self.value }
    }
}

impl<T: Value + fmt::Debug + ?Sized> fmt::Debug for Snapshot<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Snapshot");
        shown.field("version", &self.version()).field("value", &&**self).finish()
    }
}

/// Several snapshots that can be shown to be from one instant.
///
/// Example: see [`together`].
pub trait Snapshots: sealed::Snapshots {}

pub(crate) mod sealed {
    use crate::Result;

    pub trait Snapshots: Sized {
        type Taken;
        fn take(self) -> Result<Self::Taken>;
        /// Renews those that are no longer current; whether all were.
        fn settle(taken: &mut Self::Taken) -> Result<bool>;
    }
}

macro_rules! of_tuple {
    ($($value:ident $index:tt),*) => {
        impl<'a, $($value: Value + ?Sized),*> Snapshots for ($(&'a State<$value>,)*) {}
        impl<'a, $($value: Value + ?Sized),*> sealed::Snapshots for ($(&'a State<$value>,)*) {
            type Taken = ($(Snapshot<'a, $value>,)*);

            #[inline]
            fn take(self) -> Result<Self::Taken> {
                Ok(($(self.$index.read()?,)*))
            }

            #[inline]
            fn settle(taken: &mut Self::Taken) -> Result<bool> {
                let mut settled = true;
                $(
                    if !taken.$index.is_current()? {
                        taken.$index.renew()?;
                        settled = false;
                    }
                )*
                Ok(settled)
            }
        }
    };
}
of_tuple!(A 0, B 1);
of_tuple!(A 0, B 1, C 2);
of_tuple!(A 0, B 1, C 2, D 3);

impl<T: Value + ?Sized> Snapshots for &[&State<T>] {}
impl<'a, T: Value + ?Sized> sealed::Snapshots for &[&'a State<T>] {
    type Taken = Vec<Snapshot<'a, T>>;

    fn take(self) -> Result<Self::Taken> {
        self.iter().map(|state| state.read()).collect()
    }

    fn settle(taken: &mut Self::Taken) -> Result<bool> {
        let mut settled = true;
        for snapshot in taken {
            if !snapshot.is_current()? {
                snapshot.renew()?;
                settled = false;
            }
        }
        Ok(settled)
    }
}

/// Reads several states as of one instant: a tuple of two to four handles, or a slice of handles of
/// one type.
///
/// All are pinned, then looked at once more: when none has changed in between, all were current at
/// the end of the first pass. Otherwise those that have changed are pinned anew. Each repetition
/// needs a commit by somebody else in between, so this never waits for anybody.
///
/// ```
/// # use mainstay_state::{Domain, MultiTransaction, together};
/// # let dir = tempfile::tempdir()?;
/// # let domain = Domain::open(dir.path())?;
/// let (from, to) = (domain.writer::<[u8]>("from")?, domain.writer::<[u8]>("to")?);
/// let mut both = MultiTransaction::new();
/// both.bytes_mut(&from)?[0] = 1;
/// both.bytes_mut(&to)?[0] = 1;
/// both.commit()?;
/// let (from, to) = together((&from, &to))?;
/// assert_eq!(from[0], to[0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`State::read`].
#[inline]
pub fn together<S: Snapshots>(states: S) -> Result<S::Taken> {
    let mut taken = states.take()?;
    while !S::settle(&mut taken)? && !mainstay_shm::hook::planted("read-without-second-look") {}
    Ok(taken)
}
