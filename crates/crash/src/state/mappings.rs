//! What a process that only reads has mapped: nothing of a state, or of the records, that it could
//! write to by mistake.

use super::actor::{Actor, Plan};
use crate::{
    child::{Child, News},
    finding::{Check, Finding, ensure},
    verdict::Harm::{Stuck, Torn},
};
use mainstay_shm::Access;
use std::{fs, path::Path};

/// One mapping of a file in the folder.
struct Mapped {
    start: usize,
    writable: bool,
    name: String,
}

fn of(folder: &Path) -> Check<Vec<Mapped>> {
    let maps = fs::read_to_string("/proc/self/maps").map_err(|e| Finding {
        harm: Stuck,
        what: format!("cannot read /proc/self/maps: {e}; mount /proc"),
    })?;
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.into());
    let inside = format!("{}/", folder.display());
    let line = |line: &str| {
        let name = line.split_once(&inside)?.1.to_owned();
        let (start, rest) = line.split_once('-')?;
        let start = usize::from_str_radix(start, 16).ok()?;
        let writable = rest.split(' ').nth(1)?.contains('w');
        Some(Mapped { start, writable, name })
    };
    Ok(maps.lines().filter_map(line).collect())
}

/// Whether a reader may write there: its own lines of the pin tables, and its lease.
fn is_its_own(name: &str) -> bool {
    name.starts_with(".pins-") || name.starts_with(".leases")
}

/// Called in a process that has subscribed to states for reading only.
pub(crate) fn are_read_only(folder: &Path) -> Check {
    let all = of(folder)?;
    ensure(all.iter().any(|mapped| !is_its_own(&mapped.name)), Stuck, || {
        "a reader has mapped no state".into()
    })?;
    let wrong = all.iter().find(|mapped| mapped.writable && !is_its_own(&mapped.name));
    ensure(wrong.is_none(), Torn, || {
        format!("a reader has {} mapped for writing", wrong.map_or("", |mapped| &*mapped.name))
    })
}

/// A store of a reader to anything but its own lines ends the reader.
pub(crate) fn stores_fault<P: Plan>(folder: &Path) -> Check {
    const ALL_TRIED: i32 = 3;
    let all: Vec<usize> = (0..P::NAMES.len()).collect();
    for at in 0.. {
        let mut reader = Child::fork(|| {
            let Ok(_actor) = Actor::open::<P>(folder, &all, Access::ReadOnly) else { return 1 };
            let Ok(mapped) = of(folder) else { return 1 };
            let mut foreign = mapped.iter().filter(|mapped| !is_its_own(&mapped.name));
            let Some(mapped) = foreign.nth(at) else { return ALL_TRIED };
            // SAFETY: not sound, and not meant to be: a signal ends this process here, if all is
            // well; if not, a byte of a state of this test changes.
            unsafe { (mapped.start as *mut u8).write_volatile(1) };
            0
        });
        let news = reader.wait();
        if news == News::Exited(ALL_TRIED) && at > 0 {
            return Ok(());
        }
        ensure(news == News::Killed(libc::SIGSEGV), Torn, || {
            format!("a reader wrote to what it may only read: {news:?}")
        })?;
    }
    Ok(())
}
