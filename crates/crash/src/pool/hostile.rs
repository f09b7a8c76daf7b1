//! A file that claims more than there is: refused, not believed.

use crate::{
    child,
    pool::systematic::options,
    verdict::{Harm, Verdict},
};
use mainstay_pool::{Error, Kind};
use std::{fs::OpenOptions, io, os::unix::fs::FileExt, time::Duration};

/// Where the count of extents stands (docs/format/pool.md, "Live words").
const EXTENTS_OFFSET: u64 = 1_024;

/// Joins a pool whose count of extents is impossible.
pub(crate) fn check(verdict: &Verdict) {
    let refused = |what: String| verdict.report(Harm::Torn, &what);
    let tried = child::within(Duration::from_secs(5), || {
        let joined = || -> io::Result<Result<(), Error>> {
            let folder = tempfile::tempdir()?;
            let path = folder.path().join("hostile.pool");
            drop(options().create(&path).map_err(io::Error::other)?);
            let file = OpenOptions::new().write(true).open(&path)?;
            file.write_all_at(&1_000_000_u64.to_le_bytes(), EXTENTS_OFFSET)?;
            let used = options().join(&path).and_then(|pool| {
                pool.attach_number(500_000).map(drop)?;
                pool.allocate(Kind::Transient).map(drop)
            });
            Ok(used)
        };
        match joined() {
            Ok(Err(Error::Corrupt { .. })) => 0,
            other => {
                refused(format!("an impossible count of extents: {other:?}"));
                0
            }
        }
    });
    if let Err(why) = tried {
        refused(format!("an impossible count of extents: {why}"));
    }
}
