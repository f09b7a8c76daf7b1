//! Making, joining, leaving and removing the files of a state.
//!
//! I1. Whoever makes, joins, leaves for good or removes a state holds the gate of its name
//!     meanwhile: a lock that the kernel drops at any death. Reading and committing never do.
//! I2. The pin table has its name before the state has; the state loses its name before the pin
//!     table does. So a state that can be seen is complete.
//! I3. A transient state that nobody alive is subscribed to is as good as gone: whoever comes next
//!     removes it.

use crate::{
    Domain, Error, Result, StateOptions,
    domain::{Tenant, random_id, read_head},
    layout::{
        HEADER_LEN, PINS_LEN, PINS_MAGIC, SLOT_LINES_OFFSET, STATE_MAGIC, SlotLine, StateHeader,
        StateWords, TableHeader, VERSION, WORDS_OFFSET, corrupt, padded,
    },
    limits::{LEASES, PIN_LINES},
    memory::{Memory, Pins},
    options::Numbers,
    persist::{self, Durable},
    value::Kind,
    word::{Meaning, Plain, Word},
};
use mainstay_base::Name;
use mainstay_shm::{
    Access, Atomic64, Backing, Mapping, Unpublished, hook,
    lease::{self, Gate, Prober},
};
use std::{
    fs,
    mem::offset_of,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Release},
    thread,
    time::{Duration, Instant},
};
use zerocopy::IntoBytes;

/// How long somebody else may be making, joining or leaving a state. It takes microseconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// Gates of a folder: names that share one wait for each other.
const GATES: u32 = 4_096;
/// What the name of a state's file ends with.
pub(crate) const SUFFIX: &str = ".state";

/// The right to change which files a name has (I1).
pub(crate) fn gate(tenant: &Tenant, name: &str) -> Result<Gate> {
    let number = mainstay_base::crc32c(name.as_bytes()) % GATES;
    let start = Instant::now();
    loop {
        if let Some(gate) = Gate::try_close(tenant.leases_backing(), number)? {
            return Ok(gate);
        }
        let waited = start.elapsed();
        if waited > PATIENCE {
            return Err(Error::Busy { state: name.into(), waited });
        }
        thread::sleep(Duration::from_micros(50));
    }
}

/// Subscribes; a writer makes the state when it is not there.
pub(crate) fn subscribe(
    domain: &Domain,
    name: &str,
    options: &StateOptions,
    kind: Kind,
    access: Access,
) -> Result<Arc<Memory>> {
    let tenant = &domain.tenant;
    tenant.check_process(name)?;
    Name::new(name)?;
    options.check_mode(name)?;
    let numbers = options.numbers(&kind)?;
    tenant.open_records(access)?;
    let _gate = gate(tenant, name)?;
    let found = match look(tenant, name, access)? {
        Some(found) => found,
        None if access == Access::ReadOnly => {
            return Err(Error::NotFound { state: name.into() });
        }
        None => {
            let durable = options.persistent.as_ref().map(|(path, _)| Durable::at(path));
            create(tenant, name, options, numbers, kind, durable.transpose()?)?;
            // Nobody is subscribed yet, so it must not be looked at as others look at it.
            let made = open(&tenant.folder, name, access)?;
            made.ok_or_else(|| Error::NotFound { state: name.into() })?
        }
    };
    let memory = join(tenant, found, access)?;
    fits(&memory, options, &kind)?;
    if access == Access::ReadWrite {
        persist::heed(tenant, &memory);
    }
    Ok(memory)
}

/// A state of this id, wherever it is in the folder; none when there is none.
pub(crate) fn by_id(tenant: &Tenant, id: u64) -> Result<Option<Arc<Memory>>> {
    for name in names(&tenant.folder) {
        let Ok(Some(found)) = open(&tenant.folder, &name, Access::ReadWrite) else { continue };
        if found.1.id == id {
            let Some(tenant) = tenant.this.upgrade() else { return Ok(None) };
            return join(&tenant, found, Access::ReadWrite).map(Some);
        }
    }
    Ok(None)
}

/// A persistent state of this name, joined; none when there is none or it is transient.
pub(crate) fn join_persistent(
    tenant: &Arc<Tenant>,
    name: &str,
    access: Access,
) -> Result<Option<Arc<Memory>>> {
    tenant.open_records(access)?;
    let Some(found) = open(&tenant.folder, name, access)? else { return Ok(None) };
    if peek(&found.0, WORDS_OFFSET + offset_of!(StateWords, grade))? == 0 {
        return Ok(None);
    }
    join(tenant, found, access).map(Some)
}

/// The names of the states whose files are in a folder, in order.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?.strip_suffix(SUFFIX)?.to_owned();
        Name::new(&name).is_ok().then_some(name)
    });
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    names
}

/// A state's file and what its header says.
type Found = (Backing, StateHeader);

/// Opens the file of a name, and checks its header; none when there is no file.
pub(crate) fn open(folder: &Path, name: &str, access: Access) -> Result<Option<Found>> {
    let path = folder.join(format!("{name}{SUFFIX}"));
    let backing = match Backing::open(&path, access) {
        Err(mainstay_shm::Error::NotFound { .. }) => return Ok(None),
        backing => backing?,
    };
    let mut bytes = [0; HEADER_LEN];
    read_head(&backing, &mut bytes)?;
    let header = StateHeader::read(&backing.describe(), &bytes, backing.len()?)?;
    if header.name() != name {
        return Err(corrupt(&backing.describe(), "name", header.name()));
    }
    Ok(Some((backing, header)))
}

/// The same, for a tenant that holds the gate: removes what is as good as gone (I3).
fn look(tenant: &Arc<Tenant>, name: &str, access: Access) -> Result<Option<Found>> {
    let Some(found) = open(&tenant.folder, name, access)? else { return Ok(None) };
    if found.1.domain != tenant.domain_id {
        return Err(corrupt(&found.0.describe(), "domain", format!("{:#x}", found.1.domain)));
    }
    if is_gone(tenant, &found)? {
        remove(tenant, name, found.1.id);
        return Ok(None);
    }
    Ok(Some(found))
}

/// Whether a state was deleted, or is transient and without a living subscriber.
fn is_gone(tenant: &Tenant, (backing, header): &Found) -> Result<bool> {
    let peek = |field| peek(backing, WORDS_OFFSET + field);
    if Word(peek(offset_of!(StateWords, current))?).meaning() == Meaning::Deleted {
        return Ok(true);
    }
    Ok(peek(offset_of!(StateWords, grade))? == 0 && subscribers(tenant, header.id)?.is_empty())
}

/// One word of a file.
fn peek(backing: &Backing, offset: usize) -> Result<u64> {
    let mut bytes = [0; 8];
    let read = rustix::io::pread(backing, &mut bytes, offset as u64).unwrap_or(0);
    if read != bytes.len() {
        return Err(corrupt(&backing.describe(), "length of the file", read.to_string()));
    }
    Ok(u64::from_le_bytes(bytes))
}

/// The leases of the living processes that are subscribed to a state.
pub(crate) fn subscribers(tenant: &Tenant, id: u64) -> Result<Vec<u32>> {
    let backing = match Backing::open(&pins_path(&tenant.folder, id), Access::ReadOnly) {
        Err(mainstay_shm::Error::NotFound { .. }) => return Ok(Vec::new()),
        backing => backing?,
    };
    let prober = Prober::new(&backing)?;
    Ok(prober.alive_among(0..LEASES)?)
}

pub(crate) fn pins_path(folder: &Path, id: u64) -> PathBuf {
    folder.join(format!(".pins-{id:016x}"))
}

/// Locks this process's place in the pin table, and maps all.
fn join(tenant: &Arc<Tenant>, (backing, header): Found, access: Access) -> Result<Arc<Memory>> {
    if let Some(memory) = tenant.subscribed(header.id, access)
        && (access == Access::ReadOnly || memory.is_writable())
    {
        return Ok(memory);
    }
    let name = header.name();
    let pins = match tenant.pins(header.id) {
        Some(pins) => pins,
        None => Arc::new(attend(tenant, &name, header.id)?),
    };
    let memory = Arc::new(Memory::new(header, Arc::clone(tenant), backing, pins)?);
    tenant.register(&memory);
    Ok(memory)
}

fn attend(tenant: &Arc<Tenant>, name: &str, id: u64) -> Result<Pins> {
    let backing = Backing::open(&pins_path(&tenant.folder, id), Access::ReadWrite)?;
    let mut bytes = [0; size_of::<TableHeader>()];
    read_head(&backing, &mut bytes)?;
    let (place, lengths) = (backing.describe(), (backing.len()?, PINS_LEN));
    let header = TableHeader::read(&place, &bytes, PINS_MAGIC, PIN_LINES, lengths)?;
    if header.id != id {
        return Err(corrupt(&place, "id", format!("{:#x}", header.id)));
    }
    let start = Instant::now();
    let mapping = loop {
        match lease::acquire(&backing, PINS_LEN as u64, &[tenant.lease()]) {
            Ok((mapping, _)) => break mapping,
            // Another thread of this process is just leaving.
            Err(mainstay_shm::Error::SlotsTaken { .. }) if start.elapsed() < PATIENCE => {
                thread::sleep(Duration::from_micros(50));
            }
            Err(error) => return Err(error.into()),
        }
    };
    Pins::new(Arc::clone(tenant), (backing, mapping), (name.into(), id))
}

/// Fails unless a state is what was asked for.
fn fits(memory: &Memory, options: &StateOptions, kind: &Kind) -> Result<()> {
    let header = &memory.header;
    let name = || memory.name.clone();
    let as_bytes = options.any_type && kind.size.is_none();
    if header.fingerprint != kind.fingerprint.bits() && !as_bytes {
        let found = match header.type_name() {
            found if found.is_empty() => "bytes".into(),
            found => format!("`{found}`"),
        };
        return Err(Error::OtherType { state: name(), found, wanted: kind.describe() });
    }
    let other = |what, found: u64, wanted: u64| {
        let (found, wanted) = (found.to_string(), wanted.to_string());
        Err(Error::OtherOption { state: name(), what, found, wanted })
    };
    match options.size_limit {
        Some(wanted) if wanted as u64 != header.size_limit => {
            return other("size_limit", header.size_limit, wanted as u64);
        }
        _ => {}
    }
    match options.slots_max {
        Some(wanted) if wanted != header.slots_max => {
            return other("slots_max", header.slots_max.into(), wanted.into());
        }
        _ => {}
    }
    Ok(())
}

fn create(
    tenant: &Tenant,
    name: &str,
    options: &StateOptions,
    numbers: Numbers,
    kind: Kind,
    durable: Option<Durable>,
) -> Result<()> {
    let id = random_id()?;
    let restored = durable.map(|durable| durable.newest(kind.fingerprint)).transpose()?.flatten();
    let size = restored.as_ref().map_or(numbers.size, |root| root.data.len());
    if size > numbers.size_limit {
        return Err(Error::OptionRange {
            what: "size of the state in its file",
            found: size as u64,
            min: 1,
            max: numbers.size_limit as u64,
        });
    }
    let capacity = size.max(1).next_multiple_of(4_096) as u64;
    let header = StateHeader {
        magic: STATE_MAGIC,
        version: VERSION,
        slots_max: numbers.slots_max,
        id,
        domain: tenant.domain_id,
        fingerprint: kind.fingerprint.bits(),
        type_size: kind.size.unwrap_or(0) as u64,
        stride: (numbers.size_limit as u64).next_multiple_of(4_096),
        size_limit: numbers.size_limit as u64,
        created: persist::now_ns(),
        name_len: name.len() as u64,
        name: padded(name),
        type_name_len: kind.name.len() as u64,
        type_name: padded(kind.name),
        fields_len: kind.fields.len() as u64,
        fields: padded(kind.fields),
        reserved: [0; _],
        checksum: 0,
        reserved_end: [0; 4],
    }
    .sealed();

    let path = tenant.folder.join(format!("{name}{SUFFIX}"));
    let mode = options.mode.unwrap_or(0o600);
    let state = Unpublished::create(&path, mode)?;
    state.backing().allocate(0, header.data_offset(0))?;
    for slot in 0..numbers.slots {
        state.backing().allocate(header.data_offset(slot), capacity)?;
    }
    let len = header.data_offset(numbers.slots);
    let mapping = Mapping::new(state.backing(), len, Access::ReadWrite)?;
    mapping.refresh(state.backing())?;
    mapping.write(0, header.as_bytes())?;
    let words = &mapping.view::<StateWords>(WORDS_OFFSET, 1)?[0];
    words.slots.store(numbers.slots.into(), Release);
    words.capacity.store(capacity, Release);
    words.size.store(size as u64, Release);
    if let Some(root) = restored {
        let first = &mapping.view::<SlotLine>(SLOT_LINES_OFFSET, 1)?[0];
        first.len.store(size as u64, Release);
        first.version.store(root.version, Release);
        mapping.write(header.data_offset(0) as usize, &root.data)?;
        words.current.store(Plain::new(root.version, 0).bits(), Release);
    }

    // I2. Who may read the state must be able to announce what it reads.
    let pins_mode = mode | (mode & 0o444) >> 1;
    let pins = Unpublished::create(&pins_path(&tenant.folder, id), pins_mode)?;
    pins.backing().allocate(0, PINS_LEN as u64)?;
    let table = Mapping::new(pins.backing(), PINS_LEN as u64, Access::ReadWrite)?;
    table.refresh(pins.backing())?;
    table.write(0, TableHeader::new(PINS_MAGIC, PIN_LINES, id).as_bytes())?;
    pins.publish()?;
    match state.publish() {
        Ok(_) => Ok(()),
        Err(error) => {
            let _ = fs::remove_file(pins_path(&tenant.folder, id));
            Err(error.into())
        }
    }
}

/// Called when this process is no longer subscribed: the last one removes a transient state.
pub(crate) fn leave(tenant: &Tenant, name: &str, id: u64) {
    // Without the gate whoever comes next does it (I3).
    let Ok(_gate) = gate(tenant, name) else { return };
    if let Ok(Some(found)) = open(&tenant.folder, name, Access::ReadOnly)
        && found.1.id == id
        && is_gone(tenant, &found).unwrap_or(false)
    {
        remove(tenant, name, id);
    }
}

/// Removes the files of a state (I2); the gate is held.
pub(crate) fn remove(tenant: &Tenant, name: &str, id: u64) {
    // What is not there need not be removed, and what may not be removed stays.
    hook::step();
    let _ = fs::remove_file(tenant.folder.join(format!("{name}{SUFFIX}")));
    hook::step();
    let _ = fs::remove_file(pins_path(&tenant.folder, id));
}

/// Removes transient states whose subscribers were all killed, and pin tables without a state;
/// returns how many states that were.
pub(crate) fn sweep(tenant: &Arc<Tenant>) -> usize {
    let mut swept = 0;
    let mut ids = Vec::new();
    for name in names(&tenant.folder) {
        let Ok(_gate) = gate(tenant, &name) else { continue };
        match open(&tenant.folder, &name, Access::ReadOnly) {
            Ok(Some(found)) if is_gone(tenant, &found).unwrap_or(false) => {
                remove(tenant, &name, found.1.id);
                swept += 1;
            }
            Ok(Some(found)) => ids.push(found.1.id),
            _ => {}
        }
    }
    let entries = fs::read_dir(&tenant.folder).into_iter().flatten().flatten();
    for entry in entries {
        let id = entry
            .file_name()
            .to_str()
            .and_then(|name| u64::from_str_radix(name.strip_prefix(".pins-")?, 16).ok());
        if let Some(id) = id
            && !ids.contains(&id)
            && is_forsaken(&entry)
            && subscribers(tenant, id).is_ok_and(|leases| leases.is_empty())
        {
            let _ = fs::remove_file(entry.path());
        }
    }
    swept
}

/// A pin table gets its name a moment before its state does: only one that has been there for
/// longer is nobody's.
fn is_forsaken(entry: &fs::DirEntry) -> bool {
    let age = entry.metadata().and_then(|about| about.modified()).map(|at| at.elapsed());
    age.is_ok_and(|age| age.is_ok_and(|age| age > PATIENCE))
}
