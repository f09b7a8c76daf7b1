//! Errors as numbers, with a text for each thread.

use std::{
    cell::RefCell,
    ffi::{CStr, CString, c_char},
};

use mainstay_sds::Error;

/// What a function comes to.
pub(super) type Outcome<T> = Result<T, Failure>;

/// Why a call was refused: a number of the header and a text.
#[derive(Debug)]
pub(super) struct Failure {
    code: i32,
    text: String,
}

const ARGUMENT: i32 = -1;
const CLOSED: i32 = -2;
const BUSY: i32 = -3;
const REFUSED: i32 = -4;
const PERSISTENCE: i32 = -5;
const INTERNAL: i32 = -6;

impl Failure {
    pub(super) fn argument(text: &str) -> Self {
        Self { code: ARGUMENT, text: text.to_owned() }
    }

    pub(super) fn null(what: &str) -> Self {
        Self { code: ARGUMENT, text: format!("{what} is NULL, or its length is absurd") }
    }

    pub(super) fn closed() -> Self {
        let text = "there is no such node: it was closed, or never opened".to_owned();
        Self { code: CLOSED, text }
    }

    pub(super) fn busy() -> Self {
        let text =
            "a function of the node's backend called the node: call it afterwards".to_owned();
        Self { code: BUSY, text }
    }

    fn internal() -> Self {
        let text = "a fault in the library; what was called may have been done in part".to_owned();
        Self { code: INTERNAL, text }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match error {
            Error::Persistence { .. } | Error::Saved { .. } => PERSISTENCE,
            _ => REFUSED,
        };
        Self { code, text: error.to_string() }
    }
}

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

/// Runs an entry's body (F1), and keeps what was wrong for `mainstay_sds_error`.
pub(super) fn entry(body: impl FnOnce() -> Outcome<i32>) -> i32 {
    let outcome = crate::raw::guarded(Err(Failure::internal()), body);
    outcome.unwrap_or_else(|Failure { code, text }| {
        // A text of ours has no zero in it; one with a name of the caller's is cut there.
        let text = text.split('\0').next().unwrap_or_default();
        let text = CString::new(text).unwrap_or_default();
        // A thread that is ending has nobody who asks.
        let _ending = LAST.try_with(|last| last.replace(text));
        code
    })
}

/// The text of the last failure of this thread.
pub(super) fn last() -> *const c_char {
    const NONE: &CStr = c"";
    LAST.try_with(|last| last.borrow().as_ptr()).unwrap_or(NONE.as_ptr())
}
