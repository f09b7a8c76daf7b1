//! Stop points: arms this process to die or to freeze at one of its next shared-memory stores, or
//! loads, if a suite wants these as well.

use crate::shared::Text;
use std::sync::{
    OnceLock,
    atomic::{
        AtomicBool, AtomicU64,
        Ordering::{AcqRel, Relaxed, Release},
    },
};

/// What is done at a stop point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Act {
    /// SIGKILL.
    Kill,
    /// SIGSTOP: somebody continues it, or kills it.
    Freeze,
}

/// Steps left until the act; 0 when not armed.
static LEFT: AtomicU64 = AtomicU64::new(0);
static FREEZE: AtomicBool = AtomicBool::new(false);
/// Whether loads are steps too.
static LOADS: AtomicBool = AtomicBool::new(false);
static TOLD: OnceLock<&'static Text> = OnceLock::new();

/// Whether the library was built with stop points.
pub(crate) const COMPILED_IN: bool = cfg!(feature = "hook");

/// Must be called once, in the first process, before anything else.
pub(crate) fn install() {
    #[cfg(feature = "hook")]
    {
        mainstay_shm::hook::install(step);
        mainstay_shm::hook::install_looks(look);
    }
}

/// Whether from now on loads are steps too, in this process and its children to come.
pub(crate) fn count_loads(count: bool) {
    LOADS.store(count, Relaxed);
}

/// Plants a fault in this process and its children to come.
pub(crate) fn plant(fault: &'static str) {
    #[cfg(feature = "hook")]
    mainstay_shm::hook::plant(fault);
    #[cfg(not(feature = "hook"))]
    panic!("{fault}: no faults without stop points");
}

/// Where the place of a stop is written down, in this process and its children to come.
pub(crate) fn tell(place: &'static Text) {
    // A second call names the same place: one suite runs in a process.
    let _ = TOLD.set(place);
}

/// Acts before the step that comes after `steps - 1` others, of any thread.
pub(crate) fn arm(steps: u64, act: Act) {
    FREEZE.store(act == Act::Freeze, Relaxed);
    LEFT.store(steps, Release);
}

/// No longer armed. Returns how many steps were left.
pub(crate) fn disarm() -> u64 {
    LEFT.swap(0, AcqRel)
}

#[cfg(feature = "hook")]
fn look(location: &'static std::panic::Location<'static>) {
    if LOADS.load(Relaxed) {
        step(location);
    }
}

#[cfg(feature = "hook")]
fn step(location: &'static std::panic::Location<'static>) {
    use std::sync::atomic::Ordering::Acquire;

    if LEFT.load(Relaxed) == 0 {
        return;
    }
    let Ok(1) = LEFT.fetch_update(AcqRel, Acquire, |left| left.checked_sub(1)) else { return };
    if let Some(place) = TOLD.get() {
        let file = location.file().rsplit('/').next().unwrap_or_default();
        place.set(&format!("{file}:{}", location.line()));
    }
    if FREEZE.load(Relaxed) {
        crate::child::stop_myself();
    } else {
        crate::child::kill_myself();
    }
}
