//! States that outlive their subscribers, and the machine: where a state is kept.
//!
//! | part | what it is |
//! |---|---|
//! | [`file`] | the file of a state: replaced as a whole, checked before it is believed |
//! | [`sync`] | who writes the files, and when: all that has changed, as of one instant |
//!
//! D1. The file of a state is replaced as a whole: the next one is written beside it, synced, and
//!     renamed. So there is always one that is complete.
//! D2. The states of a folder are written as of one instant. Each next file names all that are
//!     written with it, and is only believed after a power cut when each of them was synced too:
//!     what was committed together comes back together, or not at all.
//! D3. Nothing in memory is trusted after a power cut; what is in the file is checked by its
//!     checksum.
//! D4. No path is used as shared memory has it: it must fit its checksum, and be one that a state
//!     can be given. And nothing is written over or removed there but the file of a state of this
//!     type.
//! D5. A state that is to survive the machine is synced by every process that asked for it, that
//!     subscribes to write it, or that commits to it after somebody else has asked. Nobody looks for
//!     that in the path of a commit: whoever asks, and whoever syncs, arms the state as a waiter does,
//!     and a commit that finds a state armed looks ([`heed`]).

mod file;
mod sync;

pub(crate) use file::Durable;
pub(crate) use sync::{heed, sync, sync_news};

use crate::{Error, Result, layout::StateWords, memory::Memory, subscribe, watch::arm};
use mainstay_base::Crc32c;
use mainstay_shm::{Atomic64, Shared8};
use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::Ordering::{Acquire, Release},
    },
    time::{SystemTime, UNIX_EPOCH},
};

/// How much a persistent state survives.
///
/// Example: see [`State::set_persistent`](crate::State::set_persistent).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum Grade {
    /// The end of all processes. Costs nothing.
    Process = 1,
    /// A power cut: its newest versions are written to the disk in the background.
    Machine = 2,
}

impl Grade {
    fn of(word: u64) -> Option<Self> {
        match word {
            1 => Some(Self::Process),
            2 => Some(Self::Machine),
            _ => None,
        }
    }
}

/// Nanoseconds after 1970; 0 when the clock is before that.
pub(crate) fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// Where a state is kept, as its words say.
pub(crate) fn of(memory: &Memory) -> Result<Option<(PathBuf, Grade)>> {
    let words = memory.words();
    let grade = words.grade.load(Acquire);
    if grade == 0 {
        return Ok(None);
    }
    let kept = path_of(words, memory.header.id, memory.path_bytes()?);
    kept.map(Some).ok_or_else(|| memory.corrupt("grade or path", grade.to_string()))
}

/// The same; none when the words say what cannot be (D4).
pub(crate) fn path_of(words: &StateWords, id: u64, place: &[Shared8]) -> Option<(PathBuf, Grade)> {
    let grade = Grade::of(words.grade.load(Acquire))?;
    let len = usize::try_from(words.path_len.load(Acquire)).ok()?;
    let bytes: Vec<u8> = place.get(..len)?.iter().map(Shared8::load).collect();
    if words.path_checksum.load(Acquire) != path_checksum(id, &bytes) {
        return None;
    }
    let path = PathBuf::from(OsStr::from_bytes(&bytes));
    let durable = Durable::at(&path).ok()?;
    (durable.path().as_os_str() == path.as_os_str()).then_some((path, grade))
}

fn path_checksum(id: u64, path: &[u8]) -> u64 {
    let mut checksum = Crc32c::new();
    checksum.update(&id.to_le_bytes());
    checksum.update(path);
    checksum.finish().into()
}

/// Makes a state persistent.
pub(crate) fn set(memory: &Arc<Memory>, durable: &Durable, grade: Grade) -> Result<()> {
    {
        let _gate = subscribe::gate(&memory.tenant, &memory.name)?;
        match of(memory)? {
            Some((found, had)) if found != durable.path() || had > grade => {
                return Err(Error::OtherPath { state: memory.name.clone(), found });
            }
            Some(_) => {}
            None => {
                let path = durable.path().as_os_str().as_bytes();
                let place = memory.path_bytes()?;
                place.iter().zip(path).for_each(|(to, from)| to.store(*from));
                memory.words().path_len.store(path.len() as u64, Release);
                let checksum = path_checksum(memory.header.id, path);
                memory.words().path_checksum.store(checksum, Release);
            }
        }
        // A file that is there belongs to this state, or it is not overwritten.
        durable.newest_of(memory.header.fingerprint)?;
        durable.probe()?;
        memory.words().grade.store(grade as u64, Release);
    }
    sync::sync(&memory.tenant)?;
    if grade == Grade::Machine {
        sync::start_syncing(&memory.tenant);
        // D5: those who write it already.
        arm(memory);
    }
    Ok(())
}

/// Removes the file of a deleted state.
pub(crate) fn remove(path: &Path) -> Result<()> {
    Durable::known(path.into()).remove()
}
