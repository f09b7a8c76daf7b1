//! Making the file: its name appears with a complete pool behind it, or not at all.

use super::victim::options;
use crate::{
    cases::{Fate, Stage},
    child::{self, Child, News},
    finding::{Check, Finding, ensure},
    pool::audit,
    stepper::{self, Act},
    verdict::Harm::{Leaked, Stuck, Torn},
};
use mainstay_pool::Error;
use rustix::process::Signal;
use std::{fs, path::Path};

/// As for the other operations; the scene is an empty folder.
pub(super) fn case(fate: &Fate, step: u64, act: Act) -> Check<bool> {
    let folder = tempfile::tempdir().map_err(|e| {
        let what = format!("no folder for the file: {e}; set TMPDIR to one that can be written");
        Finding { harm: Stuck, what }
    })?;
    let path = folder.path().join("crash.pool");
    let mut victim = Child::fork(|| create(fate, &path, step, act));
    let news = victim.wait();
    let frozen = news == News::Stopped && fate.stage() == Stage::Running;
    let killed = matches!(news, News::Killed(_));
    if frozen {
        check(&path)?;
        // Whoever comes now may be the creator.
        let pool = options().open(&path)?;
        victim.signal(Signal::CONT);
        let news = victim.wait();
        if news != News::Stopped || fate.stage() != Stage::Done {
            return Err(fate.failure(news));
        }
        victim.kill();
        let there = options().join(&path)?;
        ensure(there.uuid() == pool.uuid(), Torn, || {
            "the victim replaced a pool that others had opened".into()
        })?;
    } else if !killed && fate.stage() != Stage::Done {
        return Err(fate.failure(news));
    }
    victim.kill();
    check(&path)?;
    let pool = options().open(&path)?;
    pool.reap()?;
    audit::clean_after_reap(&pool)?;
    audit::drain(&pool)?;
    Ok(frozen || killed)
}

fn create(fate: &Fate, path: &Path, step: u64, act: Act) -> i32 {
    fate.set_stage(Stage::Running);
    stepper::arm(step, act);
    let pool = options().create(path);
    stepper::disarm();
    match &pool {
        Ok(_) => fate.set_stage(Stage::Done),
        // The survivor was faster.
        Err(Error::Shm(mainstay_shm::Error::AlreadyExists { .. })) if act == Act::Freeze => {
            fate.set_stage(Stage::Done);
        }
        Err(e) => fate.fail(&format!("creating was refused: {e}")),
    }
    child::stop_myself();
    0
}

/// The folder has nothing in it, or a whole pool. (A file system without nameless files may show
/// a hidden scratch file, which nobody opens.)
fn check(path: &Path) -> Check {
    if path.exists() {
        let whole = options().join(path).and_then(|pool| Ok(pool.verify()?.is_sound()));
        return ensure(matches!(whole, Ok(true)), Torn, || {
            format!("the name appeared before the pool was complete: {whole:?}")
        });
    }
    let folder = path.parent().unwrap_or(path);
    let visible = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."));
    ensure(visible.count() == 0, Leaked, || "a half-made file was left behind".into())
}
