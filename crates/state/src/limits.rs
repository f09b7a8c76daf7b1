//! All limits of states. The length of a name is in `mainstay_base`.

/// Bytes of a state that nothing else was said about: one page.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// use mainstay_state::{Domain, limits::SIZE_DEFAULT};
/// let domain = Domain::open(dir.path())?;
/// assert_eq!(domain.writer::<[u8]>("speed")?.size()?, SIZE_DEFAULT);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub const SIZE_DEFAULT: usize = 4_096;

/// What a state can grow to, in bytes, unless told otherwise at creation.
///
/// Example: see [`crate::StateOptions::size_limit`].
pub const SIZE_LIMIT_DEFAULT: usize = 64 << 20;

/// The largest limit that can be asked for: 16 GiB.
///
/// Example: see [`crate::StateOptions::size_limit`].
pub const SIZE_LIMIT_MAX: usize = 16 << 30;

/// How many version slots a new state has, unless told otherwise.
///
/// Example: see [`crate::StateOptions::slots`].
pub const SLOTS_DEFAULT: u32 = 8;

/// The fewest slots: the current version, one to write, one that a reader holds.
///
/// Example: see [`crate::StateOptions::slots`].
pub const SLOTS_MIN: u32 = 3;

/// The most slots: their number has six bits in a reference.
///
/// Example: see [`crate::StateOptions::slots`].
pub const SLOTS_MAX: u32 = 64;

/// How many versions of one state can be pinned at once, over all processes; each handle keeps
/// one line of the table for itself.
///
/// ```
/// assert_eq!(mainstay_state::limits::PIN_LINES, 256);
/// ```
pub const PIN_LINES: u32 = 256;

/// How many processes can use one domain at once.
///
/// ```
/// assert_eq!(mainstay_state::limits::LEASES, 256);
/// ```
pub const LEASES: u32 = 256;

/// How many threads of one process can be in the commit step of a transaction over several states
/// at once; one more waits for the fastest of them.
///
/// ```
/// use mainstay_state::limits::{LEASES, RECORDS, RECORDS_PER_LEASE};
/// assert_eq!(RECORDS, LEASES * RECORDS_PER_LEASE);
/// ```
pub const RECORDS_PER_LEASE: u32 = 8;

/// Records of a domain: their number has eleven bits in a reference.
///
/// Example: see [`RECORDS_PER_LEASE`].
pub const RECORDS: u32 = LEASES * RECORDS_PER_LEASE;

/// How many states one transaction can change or check.
///
/// Example: see [`crate::MultiTransaction`].
pub const STATES_PER_TRANSACTION: usize = 16;

/// How many bytes the name of a type may have.
///
/// Example: see [`crate::Record`].
pub const TYPE_NAME_MAX: usize = 128;

/// How many bytes the description of a type's fields may have.
///
/// Example: see [`crate::Record`].
pub const FIELDS_MAX: usize = 2_048;

/// How many bytes the path of a persistent state's file may have.
///
/// Example: see [`crate::State::set_persistent`].
pub const PATH_MAX: usize = 4_032;

/// The largest alignment of a typed state, in bytes.
///
/// Example: see [`crate::Record`].
pub const ALIGN_MAX: usize = 64;

/// The largest value that is read through D-Bus, in bytes: half of what a bus lets a message have
/// unless its configuration says otherwise.
///
/// ```
/// assert_eq!(mainstay_state::limits::DBUS_VALUE_MAX, 16 << 20);
/// ```
#[cfg(feature = "dbus")]
pub const DBUS_VALUE_MAX: usize = 16 << 20;

/// The largest value that a signal on D-Bus carries, in bytes: it goes to many, of whom few may want
/// it.
///
/// Example: see [`DBUS_VALUE_MAX`].
#[cfg(feature = "dbus")]
pub const DBUS_SIGNAL_VALUE_MAX: usize = 64 << 10;

/// How often a reader looks again while commits get between its two looks, before it gives up:
/// each round needs a whole commit by somebody else in a few nanoseconds, so this is never
/// reached by processes that keep the protocol.
pub(crate) const ROUNDS_MAX: u32 = 1 << 22;

/// How many times a committer looks at a record that it cannot finish, before it aborts it.
/// Few looks in model checkers, which try every one of them.
pub(crate) const PATIENCE: u32 = if cfg!(test) { 2 } else { 200 };
