//! A view that does not change too often.

use crate::{Result, state::State, value::Value};
use std::time::{Duration, Instant};

/// One reader's view of a state that changes no more often than every interval: between ticks it
/// shows the version of the last tick, however often the state is written. It keeps a copy, so it
/// holds no version slot meanwhile.
///
/// ```
/// # use mainstay_state::Domain;
/// # use std::time::Duration;
/// # let dir = tempfile::tempdir()?;
/// let state = Domain::open(dir.path())?.writer::<[u8]>("speed")?;
/// state.replace(b"80")?;
/// let mut view = state.view(Duration::from_secs(3600))?;
/// assert_eq!(&*view.get()?, b"80");
/// state.replace(b"90")?;
/// assert_eq!(&*view.get()?, b"80", "not before the next tick");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct View<T: Value + ?Sized> {
    state: State<T>,
    interval: Duration,
    tick: Option<Instant>,
    version: u64,
    /// Words, so that any type's alignment of up to 64 bytes can be met.
    copy: Vec<Line>,
    len: usize,
}

/// 64 bytes, aligned as the data of a state is.
#[derive(Clone, Copy, Debug, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

impl<T: Value + ?Sized> View<T> {
    pub(crate) fn new(state: State<T>, interval: Duration) -> Result<Self> {
        Ok(Self { state, interval, tick: None, version: 0, copy: Vec::new(), len: 0 })
    }

    /// What the view shows now.
    ///
    /// Example: see [`View`].
    ///
    /// # Errors
    /// As [`State::read`].
    pub fn get(&mut self) -> Result<&T> {
        self.get_at(Instant::now())
    }

    /// The same at a time of the caller's choice: for loops that have looked at the clock already,
    /// and for tests.
    ///
    /// ```
    /// # use mainstay_state::Domain;
    /// # use std::time::{Duration, Instant};
    /// # let dir = tempfile::tempdir()?;
    /// # let state = Domain::open(dir.path())?.writer::<[u8]>("speed")?;
    /// let (start, second) = (Instant::now(), Duration::from_secs(1));
    /// let mut view = state.view(second)?;
    /// view.get_at(start)?;
    /// state.replace(b"90")?;
    /// assert_eq!(view.get_at(start + second / 2)?[0], 0);
    /// assert_eq!(view.get_at(start + second)?, b"90");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`State::read`].
    pub fn get_at(&mut self, now: Instant) -> Result<&T> {
        let due = self.tick.is_none_or(|tick| now.saturating_duration_since(tick) >= self.interval);
        if due {
            self.refresh()?;
            self.tick = Some(now);
        }
        let bytes = zerocopy::IntoBytes::as_bytes(&*self.copy);
        let wrong = || self.state.memory().corrupt("length of a version", self.len.to_string());
        T::of(&bytes[..self.len]).ok_or_else(wrong)
    }

    /// Which version the view shows.
    ///
    /// ```
    /// # use mainstay_state::Domain;
    /// # let dir = tempfile::tempdir()?;
    /// # let state = Domain::open(dir.path())?.writer::<[u8]>("speed")?;
    /// let mut view = state.view(std::time::Duration::from_secs(1))?;
    /// view.get()?;
    /// assert_eq!(view.version(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// When the view may change next; none before its first look.
    ///
    /// ```
    /// # use mainstay_state::Domain;
    /// # let dir = tempfile::tempdir()?;
    /// # let state = Domain::open(dir.path())?.writer::<[u8]>("speed")?;
    /// let mut view = state.view(std::time::Duration::from_secs(1))?;
    /// assert!(view.next_tick().is_none());
    /// view.get()?;
    /// assert!(view.next_tick().is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn next_tick(&self) -> Option<Instant> {
        self.tick.map(|tick| tick + self.interval)
    }

    fn refresh(&mut self) -> Result<()> {
        let snapshot = self.state.read()?;
        let value = snapshot.bytes();
        self.copy.resize(value.len().div_ceil(64), Line([0; 64]));
        zerocopy::IntoBytes::as_mut_bytes(&mut *self.copy)[..value.len()].copy_from_slice(value);
        self.len = value.len();
        self.version = snapshot.version();
        Ok(())
    }
}
