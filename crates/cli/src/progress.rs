//! How far something is, on standard error, for people only.

use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io::{self, IsTerminal},
    time::Duration,
};

/// A bar or a turning sign that is gone when dropped. Shows nothing unless standard error is a
/// terminal.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Of `total` pieces of `what`.
    pub(crate) fn bar(what: &'static str, total: u64) -> Self {
        Self::styled(ProgressBar::new(total), what, "{msg} {bar:30} {human_pos}/{human_len} {eta}")
    }

    /// Of so many bytes.
    pub(crate) fn bytes(what: &'static str, total: u64) -> Self {
        Self::styled(ProgressBar::new(total), what, "{msg} {bar:30} {bytes}/{total_bytes} {eta}")
    }

    /// Of something that takes as long as it takes.
    pub(crate) fn spinner(what: &'static str) -> Self {
        let progress = Self::styled(ProgressBar::new_spinner(), what, "{spinner} {msg} {elapsed}");
        progress.0.enable_steady_tick(Duration::from_millis(100));
        progress
    }

    /// For output that goes to the same terminal, where a bar would only be in the way.
    pub(crate) fn none() -> Self {
        Self(ProgressBar::hidden())
    }

    fn styled(bar: ProgressBar, what: &'static str, template: &str) -> Self {
        if !io::stderr().is_terminal() {
            return Self::none();
        }
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what);
        Self(bar)
    }

    pub(crate) fn advance(&self, pieces: u64) {
        self.0.inc(pieces);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A bar, of bytes unless something else is said, for what is told how far it is, and how far it goes.
pub(crate) struct Bar {
    what: &'static str,
    progress: Option<Progress>,
    last: u64,
}

impl Bar {
    pub(crate) fn new(what: &'static str) -> Self {
        Self { what, progress: None, last: 0 }
    }

    /// The same of so many pieces.
    pub(crate) fn of_pieces(what: &'static str, total: u64) -> Self {
        Self { what, progress: Some(Progress::bar(what, total)), last: 0 }
    }

    pub(crate) fn to(&mut self, done: u64, total: u64) {
        let progress = self.progress.get_or_insert_with(|| Progress::bytes(self.what, total));
        progress.advance(done.saturating_sub(self.last));
        self.last = done.max(self.last);
    }
}
