//! The limits of a world and of the checkers, all in one place. Each has a test at the limit and
//! one past it.
//!
//! ```
//! use mainstay_sim::limits;
//! assert!(limits::NODES_MAX >= 10_000);
//! ```

/// The most nodes in one world.
///
/// Example: see the [module](self).
pub const NODES_MAX: usize = 1 << 17;

/// The most events that may wait for their time. A protocol that reaches it answers each message
/// with more than one.
///
/// Example: see the [module](self).
pub const EVENTS_WAITING_MAX: usize = 1 << 22;

/// The most outputs that a node may give for one input.
///
/// Example: see the [module](self).
pub const OUTPUTS_PER_INPUT_MAX: usize = 1 << 16;

/// How often in a row a node may be woken at one point in time. A node that reaches it returns a
/// deadline that has passed, again and again, and would never let time go on.
///
/// Example: see the [module](self).
pub const WAKES_AT_ONE_TIME_MAX: u32 = 1_000;

/// The most bytes of one file on a simulated disk.
///
/// Example: see the [module](self).
pub const FILE_BYTES_MAX: u64 = 1 << 26;

/// States that the linearizability checker looks at before it gives up on a history, unless told
/// otherwise.
///
/// Example: see the [module](self).
pub const STATES_LOOKED_AT_DEFAULT: usize = 1 << 20;
