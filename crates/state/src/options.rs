//! How a state is subscribed to, and what it is made with.

use crate::{
    Domain, Error, Result,
    limits::{
        ALIGN_MAX, FIELDS_MAX, SIZE_DEFAULT, SIZE_LIMIT_DEFAULT, SIZE_LIMIT_MAX, SLOTS_DEFAULT,
        SLOTS_MAX, SLOTS_MIN, TYPE_NAME_MAX,
    },
    persist::Grade,
    state::State,
    subscribe,
    value::{Kind, Value},
};
use mainstay_shm::Access;
use std::path::{Path, PathBuf};

/// How a state is subscribed to. What is not set is taken as it is, or by default when the state is
/// made.
///
/// ```
/// use mainstay_state::{Domain, StateOptions};
/// # let dir = tempfile::tempdir()?;
/// let domain = Domain::open(dir.path())?;
/// let frames = StateOptions::new().size(1 << 20).slots(4).writer::<[u8]>(&domain, "frames")?;
/// assert_eq!(frames.size()?, 1 << 20);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct StateOptions {
    pub(crate) size: Option<usize>,
    pub(crate) size_limit: Option<usize>,
    pub(crate) slots: Option<u32>,
    pub(crate) slots_max: Option<u32>,
    pub(crate) mode: Option<u32>,
    pub(crate) persistent: Option<(PathBuf, Grade)>,
    pub(crate) any_type: bool,
}

impl StateOptions {
    /// Nothing set.
    ///
    /// Example: see [`StateOptions`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes a new state has: one page unless told otherwise. A typed state has the size of
    /// its type.
    ///
    /// Example: see [`StateOptions`].
    #[must_use]
    pub fn size(mut self, bytes: usize) -> Self {
        self.size = Some(bytes);
        self
    }

    /// What a new state can grow to: 64 MiB unless told otherwise. Address space of each
    /// subscriber, not memory.
    ///
    /// ```
    /// # use mainstay_state::{Domain, StateOptions};
    /// # let dir = tempfile::tempdir()?;
    /// # let domain = Domain::open(dir.path())?;
    /// let small = StateOptions::new().size_limit(8_192).writer::<[u8]>(&domain, "small")?;
    /// assert!(small.set_size(8_192).is_ok());
    /// assert!(small.set_size(8_193).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn size_limit(mut self, bytes: usize) -> Self {
        self.size_limit = Some(bytes);
        self
    }

    /// How many version slots a new state starts with: 8 unless told otherwise. Every pin and every
    /// transaction needs one, a [`Publisher`](crate::Publisher) two, the current version another.
    ///
    /// ```
    /// # use mainstay_state::{Domain, Error, StateOptions};
    /// # let dir = tempfile::tempdir()?;
    /// # let domain = Domain::open(dir.path())?;
    /// let options = StateOptions::new().slots(3).slots_max(3);
    /// let state = options.writer::<[u8]>(&domain, "narrow")?;
    /// let mut open = [state.begin()?, state.begin()?];
    /// open[0].bytes_mut()?;
    /// open[1].bytes_mut()?;
    /// assert!(matches!(state.begin()?.bytes_mut(), Err(Error::NoFreeSlot { slots: 3, .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn slots(mut self, slots: u32) -> Self {
        self.slots = Some(slots);
        self
    }

    /// How many version slots it may come to have when all are in use: 64 unless told otherwise.
    ///
    /// Example: see [`StateOptions::slots`].
    #[must_use]
    pub fn slots_max(mut self, slots: u32) -> Self {
        self.slots_max = Some(slots);
        self
    }

    /// The permissions of a new state's file: `0o600` unless told otherwise. Who may not write the
    /// file can only read the state, and its mapping is read-only. Its owner must be able to read and
    /// write it: whoever makes a state subscribes to write.
    ///
    /// ```
    /// # use mainstay_state::{Domain, StateOptions};
    /// # use std::os::unix::fs::PermissionsExt;
    /// # let dir = tempfile::tempdir()?;
    /// # let domain = Domain::open(dir.path())?;
    /// let _state = StateOptions::new().mode(0o640).writer::<[u8]>(&domain, "shared")?;
    /// let mode = dir.path().join("shared.state").metadata()?.permissions().mode();
    /// assert_eq!(mode & 0o777, 0o640);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Makes the state persistent, kept in the file at `path`: when the state is not in memory, it
    /// begins with what the file has.
    ///
    /// Example: see [`State::set_persistent`].
    #[must_use]
    pub fn persistent(mut self, path: impl AsRef<Path>, grade: Grade) -> Self {
        self.persistent = Some((path.as_ref().into(), grade));
        self
    }

    /// Takes a state of any type as bytes, for tools that do not know the type: only with `[u8]`.
    /// The type's size stays as it is.
    ///
    /// ```
    /// # use mainstay_state::{Domain, Error, Record, StateOptions};
    /// # use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
    /// # #[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
    /// # #[repr(C)]
    /// # struct Pose { x: f64, y: f64 }
    /// # impl Record for Pose { const NAME: &'static str = "example.pose/1"; }
    /// # let dir = tempfile::tempdir()?;
    /// # let domain = Domain::open(dir.path())?;
    /// let pose = domain.writer::<Pose>("pose")?;
    /// assert!(matches!(domain.reader::<[u8]>("pose"), Err(Error::OtherType { .. })));
    /// let bytes = StateOptions::new().any_type().writer::<[u8]>(&domain, "pose")?;
    /// assert_eq!(bytes.replace(&[0; 16])?, 1);
    /// assert!(matches!(bytes.replace(&[0; 15]), Err(Error::Size { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn any_type(mut self) -> Self {
        self.any_type = true;
        self
    }

    /// Subscribes to read and write, and makes the state when it does not exist.
    ///
    /// Example: see [`StateOptions`].
    ///
    /// # Errors
    /// `Name`, `OptionRange`, `Permissions`, `OtherOption`, `OtherType`, `OtherPath`, `Busy`, `Corrupt`,
    /// `Version`, `Memory`.
    pub fn writer<T: Value + ?Sized>(&self, domain: &Domain, name: &str) -> Result<State<T>> {
        let memory = subscribe::subscribe(domain, name, self, T::kind(), Access::ReadWrite)?;
        let state = State::new(memory)?;
        if let Some((path, grade)) = &self.persistent {
            state.set_persistent(path, *grade)?;
        }
        Ok(state)
    }

    /// Subscribes to read.
    ///
    /// Example: see [`Domain`].
    ///
    /// # Errors
    /// `NotFound` when nobody has made the state; else as [`StateOptions::writer`].
    pub fn reader<T: Value + ?Sized>(&self, domain: &Domain, name: &str) -> Result<State<T>> {
        let memory = subscribe::subscribe(domain, name, self, T::kind(), Access::ReadOnly)?;
        State::new(memory)
    }

    /// Refuses permissions that nobody can have.
    pub(crate) fn check_mode(&self, state: &str) -> Result<()> {
        let wrong = |mode, why| Err(Error::Permissions { state: state.into(), mode, why });
        match self.mode {
            Some(mode) if mode & !0o777 != 0 => wrong(mode, "there are bits that say nothing here"),
            Some(mode) if mode & 0o600 != 0o600 => {
                wrong(mode, "its owner could not read and write it")
            }
            _ => Ok(()),
        }
    }

    /// Numbers for a new state of this type.
    pub(crate) fn numbers(&self, kind: &Kind) -> Result<Numbers> {
        let range = |what, found: u64, min: u64, max: u64| {
            if (min..=max).contains(&found) {
                Ok(())
            } else {
                Err(Error::OptionRange { what, found, min, max })
            }
        };
        let type_size = kind.size;
        if type_size.is_some() {
            range("length of the type's name", kind.name.len() as u64, 1, TYPE_NAME_MAX as u64)?;
            let fields = kind.fields.len() as u64;
            range("length of the description of the type's fields", fields, 0, FIELDS_MAX as u64)?;
            range("alignment of the type", kind.align as u64, 1, ALIGN_MAX as u64)?;
        }
        let slots = self.slots.unwrap_or(SLOTS_DEFAULT);
        range("slots", slots.into(), SLOTS_MIN.into(), SLOTS_MAX.into())?;
        let slots_max = self.slots_max.unwrap_or(SLOTS_MAX);
        range("slots_max", slots_max.into(), slots.into(), SLOTS_MAX.into())?;
        let size = type_size.or(self.size).unwrap_or(SIZE_DEFAULT);
        let size_limit = match type_size {
            Some(size) => size,
            None => self.size_limit.unwrap_or(SIZE_LIMIT_DEFAULT.max(size)),
        };
        range("size_limit", size_limit as u64, 1, SIZE_LIMIT_MAX as u64)?;
        range("size", size as u64, 1, size_limit as u64)?;
        Ok(Numbers { size, size_limit, slots, slots_max })
    }
}

/// What a new state is made with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    pub(crate) size: usize,
    pub(crate) size_limit: usize,
    pub(crate) slots: u32,
    pub(crate) slots_max: u32,
}
