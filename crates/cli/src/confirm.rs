//! Asking before something that cannot be undone.

use crate::error::{CliError, Result};
use std::io::{self, BufRead, IsTerminal, Write};

/// `what` is a sentence without its end.
pub(crate) fn confirm(yes: bool, what: String) -> Result<()> {
    if yes {
        return Ok(());
    }
    let mut stderr = io::stderr();
    if !io::stdin().is_terminal() || !stderr.is_terminal() {
        return Err(CliError::NeedsYes { what });
    }
    let asked = write!(stderr, "This {what}. Go on? [y/N] ").and_then(|()| stderr.flush());
    let mut answer = String::new();
    let answered = asked.and_then(|()| io::stdin().lock().read_line(&mut answer));
    match answer.trim() {
        "y" | "Y" | "yes" if answered.is_ok() => Ok(()),
        _ => Err(CliError::Declined),
    }
}
