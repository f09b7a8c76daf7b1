//! A check that failed: what it means and what was seen.

use crate::verdict::Harm;
use mainstay_pool::Error;

#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) harm: Harm,
    pub(crate) what: String,
}

pub(crate) type Check<T = ()> = Result<T, Finding>;

/// Fails with `harm` unless `good`.
pub(crate) fn ensure(good: bool, harm: Harm, what: impl FnOnce() -> String) -> Check {
    if good { Ok(()) } else { Err(Finding { harm, what: what() }) }
}

/// A survivor's operation is refused: nothing in the suite gives reason for that.
impl From<Error> for Finding {
    fn from(error: Error) -> Self {
        let harm = if matches!(error, Error::Corrupt { .. }) { Harm::Torn } else { Harm::Stuck };
        Self { harm, what: format!("a survivor was refused: {error}") }
    }
}
