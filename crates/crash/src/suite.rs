//! What every suite reports to the program.

/// How a suite ended.
pub(crate) struct Ended {
    /// Processes it killed.
    pub(crate) kills: u64,
    /// Hunts for planted faults that found nothing.
    pub(crate) missed: usize,
}
