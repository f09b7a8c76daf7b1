//! Writing states to their files: all that has changed, as of one instant (D2), by whom it concerns
//! (D5).

use super::{
    Grade,
    file::{Durable, Sync},
    now_ns, of,
};
use crate::{
    Error, Result,
    domain::{Tenant, locked},
    line::Pin,
    memory::Memory,
    protocol::{Words as _, logical},
    subscribe,
    watch::arm,
    word::Word,
};
use mainstay_shm::{Access, Atomic64};
use std::{
    os::unix::ffi::OsStrExt,
    sync::{
        Arc, Weak,
        atomic::Ordering::{Acquire, SeqCst},
    },
    thread,
    time::Duration,
};

/// How often what has changed is written to the disk.
const INTERVAL: Duration = Duration::from_millis(100);
/// The gate of everybody who syncs: no state's name is empty.
const SYNC_GATE: &str = "";

/// Called where a commit wakes somebody, which is seldom, and not in the path of other commits: whoever
/// commits to a state that is to survive the machine sees to it from now on (D5).
#[cold]
pub(crate) fn heed(tenant: &Tenant, memory: &Memory) {
    if memory.words().grade.load(Acquire) == Grade::Machine as u64
        && let Some(tenant) = tenant.this.upgrade()
    {
        start_syncing(&tenant);
    }
}

/// Makes the next commit of whoever it is come by [`heed`], if another living process is subscribed
/// (D5).
fn alert_others(memory: &Memory) {
    let subscribers = subscribe::subscribers(&memory.tenant, memory.header.id);
    let others = subscribers.unwrap_or_default();
    if others.iter().any(|lease| *lease != memory.tenant.lease()) {
        arm(memory);
    }
}

/// Starts the thread that syncs in the background, once a process and folder. It ends with the
/// last handle of the folder.
pub(super) fn start_syncing(tenant: &Arc<Tenant>) {
    if tenant.syncing.swap(true, SeqCst) {
        return;
    }
    let weak: Weak<Tenant> = Arc::downgrade(tenant);
    let thread = thread::Builder::new().name("mainstay-sync".into()).spawn(move || {
        loop {
            thread::sleep(INTERVAL);
            let Some(tenant) = weak.upgrade() else { return };
            // What fails here is tried again, and told to whoever calls `sync`.
            let _ = sync_news(&tenant);
        }
    });
    if thread.is_err() {
        // `sync` still works, and the next subscription tries again.
        tenant.syncing.store(false, SeqCst);
    }
}

/// Syncs all persistent states of a folder.
pub(crate) fn sync(tenant: &Arc<Tenant>) -> Result<()> {
    sync_graded(tenant, Grade::Process, Depth::Files)
}

/// Syncs what this process has not seen in the files of those states that survive the machine.
pub(crate) fn sync_news(tenant: &Arc<Tenant>) -> Result<()> {
    sync_graded(tenant, Grade::Machine, Depth::News)
}

/// How closely a sync looks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// At all files.
    Files,
    /// At the files of those states that have another version than this process has seen there.
    News,
}

/// Writes what has changed of all states of at least this grade, as of one instant (D2).
fn sync_graded(tenant: &Arc<Tenant>, at_least: Grade, depth: Depth) -> Result<()> {
    let _gate = subscribe::gate(tenant, SYNC_GATE)?;
    let (states, damaged) = persistent(tenant, at_least);
    let mut pins = Vec::with_capacity(states.len());
    for (memory, durable) in &states {
        match Pin::with_own_line(memory) {
            Ok(pin) => pins.push((pin, memory, durable)),
            Err(Error::Deleted { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    settle(&mut pins)?;
    if at_least == Grade::Machine {
        let is_there = |id: &u64| states.iter().any(|(memory, _)| memory.header.id == *id);
        locked(&tenant.filed).retain(|id, _| is_there(id));
    }
    let mut changed = Vec::new();
    for (pin, memory, durable) in &pins {
        if depth == Depth::News {
            alert_others(memory);
            if is_filed(tenant, memory, pin) {
                continue;
            }
        }
        let root = durable.newest_of(memory.header.fingerprint)?;
        let version = pin.plain.version();
        if root.as_ref().is_none_or(|root| root.version != version) {
            changed.push((pin, memory, durable, root.map_or(0, |root| root.number())));
        } else {
            file(tenant, memory, pin);
        }
    }
    let newest = changed.iter().map(|(.., previous)| *previous).max().unwrap_or(0);
    let number = now_ns().max(newest + 1);
    let paths = changed.iter().map(|(_, _, durable, _)| durable.path().as_os_str().as_bytes());
    let group = paths.collect::<Vec<_>>().join(&b'\n');
    for (pin, memory, durable, previous) in &changed {
        let data = pin.bytes()?;
        let sync = Sync { number, previous: *previous };
        let (version, fingerprint) = (pin.plain.version(), memory.header.fingerprint);
        durable.prepare(sync, version, fingerprint, &group, data)?;
    }
    for (_, _, durable, _) in &changed {
        durable.adopt()?;
    }
    for (pin, memory, durable, _) in &changed {
        durable.sync_folder()?;
        file(tenant, memory, pin);
    }
    damaged.map_or(Ok(()), Err)
}

/// Whether this process has seen the pinned version in the file.
fn is_filed(tenant: &Tenant, memory: &Memory, pin: &Pin<'_>) -> bool {
    locked(&tenant.filed).get(&memory.header.id) == Some(&pin.plain.version())
}

fn file(tenant: &Tenant, memory: &Memory, pin: &Pin<'_>) {
    locked(&tenant.filed).insert(memory.header.id, pin.plain.version());
}

/// All states of a folder of at least this grade, joined; and what is wrong with one of which it
/// cannot be told where it is kept: the others are none the worse for it.
fn persistent(
    tenant: &Arc<Tenant>,
    at_least: Grade,
) -> (Vec<(Arc<Memory>, Durable)>, Option<Error>) {
    let (mut states, mut damaged) = (Vec::new(), None);
    for name in subscribe::names(&tenant.folder) {
        // Somebody may be making or removing it: then it is synced next time.
        let Ok(Some(memory)) = subscribe::join_persistent(tenant, &name, Access::ReadOnly) else {
            continue;
        };
        match of(&memory) {
            Ok(Some((path, grade))) if grade >= at_least => {
                states.push((memory, Durable::known(path)));
            }
            Ok(_) => {}
            Err(error) => damaged = Some(error),
        }
    }
    (states, damaged)
}

/// Renews pins until all are from one instant.
fn settle(pins: &mut [(Pin<'_>, &Arc<Memory>, &Durable)]) -> Result<()> {
    loop {
        let mut settled = true;
        for (pin, memory, _) in &mut *pins {
            let word = Word(memory.current().load(SeqCst));
            if logical(&*memory.tenant, &***memory, word) != Ok(pin.plain) {
                pin.renew()?;
                settled = false;
            }
        }
        if settled {
            return Ok(());
        }
    }
}
