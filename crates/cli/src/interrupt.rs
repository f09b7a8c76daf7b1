//! Ctrl-C while something is half done: it is undone before the program ends.

use crate::error::{CliError, Result};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

/// Knows whether the user wants the program to end.
pub(crate) struct Interrupt {
    asked: Arc<AtomicBool>,
}

impl Interrupt {
    /// From now on an interrupt does not end the program, but makes [`Interrupt::check`] fail; a
    /// second one ends it.
    pub(crate) fn watch() -> Self {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // Where it is refused, the signal ends the program as it always did.
            let _ = flag::register_conditional_shutdown(signal, 130, Arc::clone(&asked));
            let _ = flag::register(signal, Arc::clone(&asked));
        }
        Self { asked }
    }

    /// Fails when the user wants an end; `left` says in what state things then are.
    pub(crate) fn check(&self, left: &'static str) -> Result<()> {
        if self.is_asked() { Err(CliError::Interrupted { left }) } else { Ok(()) }
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.asked.load(Relaxed)
    }
}
