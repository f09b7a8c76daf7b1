//! What is said when a process may not have as many files open as a store needs.

use std::io;

use rustix::{
    io::Errno,
    process::{Resource, getrlimit},
};

use crate::error::{Error, Result};

/// Files that a shard has open at most: its log, its memory and its index, and one that is being
/// read or made.
const PER_SHARD: u64 = 4;
/// What else is open in a process.
const BESIDE: u64 = 64;

/// The error of a store that such an error of the system is, if it is one.
pub(crate) fn refused(what: &str, source: &io::Error) -> Option<Error> {
    if !is_limit(source) {
        return None;
    }
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    Some(Error::OpenFiles { what: what.to_owned(), limit, needed: limit.saturating_add(1) })
}

/// Also where others have wrapped it.
fn is_limit(error: &io::Error) -> bool {
    if let Some(code) = error.raw_os_error() {
        return code == Errno::MFILE.raw_os_error();
    }
    let mut inner = error.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static));
    while let Some(error) = inner {
        if error.downcast_ref::<io::Error>().is_some_and(is_limit) {
            return true;
        }
        inner = error.source();
    }
    false
}

/// Says of an error how many files the process has to be allowed, where that is why it failed: for
/// a store with so many shards, and so many further files.
pub(crate) fn counted<T>(
    result: Result<T>,
    shards: u32,
    more: impl FnOnce() -> usize,
) -> Result<T> {
    result.map_err(|error| match error {
        Error::OpenFiles { what, limit, needed } => {
            let all = u64::from(shards) * PER_SHARD + BESIDE + more() as u64;
            Error::OpenFiles { what, limit, needed: needed.max(all) }
        }
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_recognised_also_inside_other_errors_and_nothing_else_is() {
        let limit = || io::Error::from_raw_os_error(Errno::MFILE.raw_os_error());
        for error in
            [limit(), io::Error::other(limit()), io::Error::other(io::Error::other(limit()))]
        {
            let error = Error::io("a log")(error);
            assert!(matches!(&error, Error::OpenFiles { what, .. } if what == "a log"), "{error}");
            let error = counted::<()>(Err(error), 1 << 20, || 7).unwrap_err();
            let Error::OpenFiles { needed, limit, .. } = error else { panic!("{error}") };
            assert!(needed > (4 << 20) + 7 && needed > limit);
        }
        let full = io::Error::from_raw_os_error(Errno::NOSPC.raw_os_error());
        assert!(matches!(Error::io("a log")(full), Error::Io { .. }));
        assert!(matches!(Error::io("a log")(io::Error::other("a word")), Error::Io { .. }));
    }
}
