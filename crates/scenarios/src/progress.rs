//! One line that changes on a terminal; now and then a line elsewhere.

use std::{
    io::{IsTerminal, Write, stderr},
    time::{Duration, Instant},
};

pub(crate) struct Progress {
    terminal: bool,
    shown: Instant,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { terminal: stderr().is_terminal(), shown: Instant::now() }
    }

    pub(crate) fn show(&mut self, text: impl FnOnce() -> String) {
        let every = Duration::from_millis(if self.terminal { 100 } else { 5_000 });
        if self.shown.elapsed() < every {
            return;
        }
        self.shown = Instant::now();
        if self.terminal {
            eprint!("\r\x1b[K{}", text());
            // A terminal that is gone needs no progress.
            let _ = stderr().flush();
        } else {
            eprintln!("{}", text());
        }
    }

    pub(crate) fn end(&mut self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }
}
