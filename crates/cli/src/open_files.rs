//! As many open files as this user may have: a store has some open for each shard, and a login often
//! allows 1,024, of a maximum that is far above.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit of this process up to what it may be raised to. Where that is refused, or not
/// enough, whatever needs more says how many.
pub(crate) fn allow_all() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _as_it_was = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
