//! States that outlive their subscribers, and the machine.
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

use crate::{
    Error, Result,
    domain::{Tenant, locked},
    layout::StateWords,
    line::Pin,
    memory::Memory,
    protocol::{Words as _, logical},
    subscribe,
    watch::arm,
    word::{VERSION_MAX, Word},
};
use mainstay_base::{Crc32c, Fingerprint, crc32c};
use mainstay_shm::{Access, Atomic64, Shared8, hook};
use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read, Write},
    mem::offset_of,
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::Ordering::{Acquire, Release, SeqCst},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// First eight bytes of the file of a persistent state.
const MAGIC: [u8; 8] = *b"MAINDURA";
const VERSION: u32 = 1;
/// Syncs have smaller numbers: nanoseconds after 1970 reach this in the year 2262.
const NUMBER_MAX: u64 = 1 << 63;
/// How often what has changed is written to the disk.
const INTERVAL: Duration = Duration::from_millis(100);
/// What the name of a file that is being written ends with.
const NEXT: &str = ".next";
/// The gate of everybody who syncs: no state's name is empty.
const SYNC_GATE: &str = "";

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

/// The head of the file: then the paths of those written with it, a line each, then the data.
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) magic: [u8; 8],
    pub(crate) version: u32,
    /// Bytes of the paths.
    pub(crate) group_len: u32,
    /// Which sync wrote it: grows, and no two have the same.
    pub(crate) number: u64,
    /// Which sync wrote the one before it.
    pub(crate) previous: u64,
    pub(crate) state_version: u64,
    pub(crate) data_len: u64,
    pub(crate) fingerprint: u64,
    /// CRC32C of paths and data.
    pub(crate) body_checksum: u32,
    pub(crate) checksum: u32,
}
const _: () = assert!(size_of::<Head>() == 64 && offset_of!(Head, checksum) == 60);

/// What a file has: a version of a state.
#[derive(Debug)]
pub(crate) struct Root {
    head: Head,
    group: Vec<PathBuf>,
    pub(crate) version: u64,
    pub(crate) data: Vec<u8>,
}

/// The file of a persistent state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Durable {
    path: PathBuf,
}

/// Nanoseconds after 1970; 0 when the clock is before that.
pub(crate) fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

impl Durable {
    /// The file at `path`, which may not exist yet.
    pub(crate) fn at(path: &Path) -> Result<Self> {
        let wrong = |why| Error::Path { path: path.into(), why };
        let absolute = std::path::absolute(path).map_err(|_| wrong("it is empty"))?;
        if absolute.file_name().is_none() {
            return Err(wrong("it names a folder, not a file"));
        }
        if absolute.as_os_str().len() > crate::limits::PATH_MAX - NEXT.len() {
            return Err(wrong("it is too long"));
        }
        if absolute.as_os_str().as_bytes().contains(&b'\n') {
            return Err(wrong("it has a line break"));
        }
        Ok(Self { path: absolute })
    }

    fn next(&self) -> PathBuf {
        let mut next = self.path.clone().into_os_string();
        next.push(NEXT);
        next.into()
    }

    fn failed(&self, action: &'static str) -> impl Fn(io::Error) -> Error + '_ {
        move |source| Error::Durable { path: self.path.clone(), action, source }
    }

    /// The newest version that was synced completely; none when there is no file.
    pub(crate) fn newest(&self, fingerprint: Fingerprint) -> Result<Option<Root>> {
        self.newest_of(fingerprint.bits())
    }

    /// The same, of a type whose fingerprint is this number.
    fn newest_of(&self, fingerprint: u64) -> Result<Option<Root>> {
        let Some(root) = self.settle()? else { return Ok(None) };
        if root.head.fingerprint != fingerprint {
            return Err(Error::OtherType {
                state: self.path.display().to_string(),
                found: format!("another type ({:#x})", root.head.fingerprint),
                wanted: format!("the one asked for ({fingerprint:#x})"),
            });
        }
        Ok(Some(root))
    }

    /// Decides about a next file that a sync has left (D2), and returns what there is then.
    fn settle(&self) -> Result<Option<Root>> {
        let next = Root::read(&self.next());
        let is_whole = |root: &Root| {
            let was = |other: &PathBuf| was_written(other, root.head.number);
            root.group.iter().all(was) || hook::planted("durable-group-ignored")
        };
        if let Ok(Some(root)) = &next
            && is_whole(root)
        {
            hook::step();
            fs::rename(self.next(), &self.path).map_err(self.failed("take over the next file"))?;
            self.sync_folder()?;
        } else if !matches!(next, Ok(None)) {
            // Torn, or not all of its group was synced: as if it had never been.
            hook::step();
            fs::remove_file(self.next()).map_err(self.failed("remove a file left half written"))?;
            self.sync_folder()?;
        }
        Root::read(&self.path)
    }

    /// Writes the next file and syncs it.
    fn prepare(&self, head: Head, group: &[u8], data: &[u8]) -> Result<()> {
        let write = || -> io::Result<()> {
            hook::step();
            let mut file = File::create(self.next())?;
            hook::step();
            file.write_all(head.as_bytes())?;
            file.write_all(group)?;
            hook::step();
            file.write_all(data)?;
            hook::step();
            file.sync_data()
        };
        write().map_err(self.failed("write the next file"))?;
        self.sync_folder()
    }

    /// Refuses a file that is not the file of a state, whole or damaged (D4).
    fn check_magic(&self) -> Result<()> {
        let mut magic = Vec::new();
        match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            file => file
                .and_then(|file| file.take(MAGIC.len() as u64).read_to_end(&mut magic))
                .map_err(self.failed("read the file"))?,
        };
        if magic == MAGIC {
            return Ok(());
        }
        let found = String::from_utf8_lossy(&magic).into_owned();
        Err(crate::layout::corrupt(&self.path.display().to_string(), "magic", found))
    }

    /// Whether a file can be made there at all.
    fn probe(&self) -> Result<()> {
        let next = self.next();
        let made = File::create(&next).and_then(|_| fs::remove_file(&next));
        made.map_err(self.failed("make a file"))
    }

    /// Makes the next file the file.
    fn adopt(&self) -> Result<()> {
        hook::step();
        fs::rename(self.next(), &self.path).map_err(self.failed("rename the next file"))
    }

    fn sync_folder(&self) -> Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        File::open(folder).and_then(|f| f.sync_all()).map_err(self.failed("sync the folder"))
    }
}

/// Whether the sync of this number has written the file of `path`: as its next one, as its newest,
/// or as one before that. A file that is gone belonged to a state that was deleted.
fn was_written(path: &Path, number: u64) -> bool {
    let durable = Durable { path: path.into() };
    if let Ok(Some(next)) = Root::read(&durable.next())
        && next.head.number == number
    {
        return true;
    }
    match Root::read(path) {
        Ok(None) => !durable.next().exists(),
        Ok(Some(newest)) => newest.head.number == number || newest.head.previous >= number,
        Err(_) => false,
    }
}

impl Root {
    /// Reads a file; none when there is none.
    fn read(path: &Path) -> Result<Option<Self>> {
        let durable = Durable { path: path.into() };
        // A group may name anything, also what can be read for ever or waits for somebody who writes.
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let file = match file {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(durable.failed("read the file"))?,
        };
        let about = file.metadata().map_err(durable.failed("read the file"))?;
        let place = path.display().to_string();
        if !about.is_file() {
            return Err(crate::layout::corrupt(&place, "kind of the file", "not a regular file"));
        }
        let mut bytes = Vec::new();
        file.take(about.len()).read_to_end(&mut bytes).map_err(durable.failed("read the file"))?;
        Self::decode(&place, &bytes).map(Some)
    }

    /// Decodes the bytes of a file.
    pub(crate) fn decode(place: &str, bytes: &[u8]) -> Result<Self> {
        let corrupt = |field, found: String| crate::layout::corrupt(place, field, found);
        let (head, body) = Head::read_from_prefix(bytes)
            .map_err(|_| corrupt("length of the file", bytes.len().to_string()))?;
        if head.magic != MAGIC {
            return Err(corrupt("magic", String::from_utf8_lossy(&head.magic).into_owned()));
        }
        if head.version != VERSION {
            let (found, known) = (head.version, VERSION);
            return Err(Error::Version { place: place.into(), found, known });
        }
        if crc32c(&bytes[..offset_of!(Head, checksum)]) != head.checksum {
            return Err(corrupt("checksum of the head", format!("{:#010x}", head.checksum)));
        }
        let group_len = head.group_len as usize;
        let wanted = (group_len as u64).checked_add(head.data_len);
        if wanted != Some(body.len() as u64) && !hook::planted("durable-length-unchecked") {
            return Err(corrupt("length of the file", bytes.len().to_string()));
        }
        if crc32c(body) != head.body_checksum && !hook::planted("durable-body-unchecked") {
            return Err(corrupt("checksum of the data", format!("{:#010x}", head.body_checksum)));
        }
        let (group, data) = body.split_at(group_len);
        let lines = group.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let group: Vec<_> = lines.map(|line| PathBuf::from(OsStr::from_bytes(line))).collect();
        // Sums that fit say only that somebody meant it.
        let checks = [
            ("number", head.number < NUMBER_MAX && head.previous < NUMBER_MAX),
            ("version of the state", head.state_version < VERSION_MAX / 2),
            ("length of the data", !data.is_empty()),
            ("data never written", head.state_version > 0 || data.iter().all(|byte| *byte == 0)),
            ("group", group.iter().all(|path| path.is_absolute())),
        ];
        if let Some((field, _)) = checks.into_iter().find(|(_, good)| !good) {
            return Err(corrupt(field, "out of range".into()));
        }
        Ok(Self { head, group, version: head.state_version, data: data.to_vec() })
    }
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
    (durable.path.as_os_str() == path.as_os_str()).then_some((path, grade))
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
            Some((found, had)) if found != durable.path || had > grade => {
                return Err(Error::OtherPath { state: memory.name.clone(), found });
            }
            Some(_) => {}
            None => {
                let path = durable.path.as_os_str().as_bytes();
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
    sync_graded(&memory.tenant, Grade::Process, Depth::Files)?;
    if grade == Grade::Machine {
        start_syncing(&memory.tenant);
        // D5: those who write it already.
        arm(memory);
    }
    Ok(())
}

/// Removes the file of a deleted state.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let durable = Durable { path: path.into() };
    durable.check_magic()?;
    for path in [durable.next(), durable.path.clone()] {
        hook::step();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(durable.failed("remove the file")(error));
            }
            _ => {}
        }
    }
    durable.sync_folder()
}

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
pub(crate) fn start_syncing(tenant: &Arc<Tenant>) {
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
            changed.push((pin, memory, durable, root.map_or(0, |root| root.head.number)));
        } else {
            file(tenant, memory, pin);
        }
    }
    let newest = changed.iter().map(|(.., previous)| *previous).max().unwrap_or(0);
    let number = now_ns().max(newest + 1);
    let paths = changed.iter().map(|(_, _, durable, _)| durable.path.as_os_str().as_bytes());
    let group = paths.collect::<Vec<_>>().join(&b'\n');
    for (pin, memory, durable, previous) in &changed {
        let data = pin.bytes()?;
        let mut body = Crc32c::new();
        body.update(&group);
        body.update(data);
        let mut head = Head {
            magic: MAGIC,
            version: VERSION,
            group_len: group.len() as u32,
            number,
            previous: *previous,
            state_version: pin.plain.version(),
            data_len: data.len() as u64,
            fingerprint: memory.header.fingerprint,
            body_checksum: body.finish(),
            checksum: 0,
        };
        head.checksum = crc32c(&head.as_bytes()[..offset_of!(Head, checksum)]);
        durable.prepare(head, &group, data)?;
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
                states.push((memory, Durable { path }));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn file(durable: &Durable, number: u64, previous: u64, group: &[&Durable], data: &[u8]) {
        let paths: Vec<&[u8]> = group.iter().map(|d| d.path.as_os_str().as_bytes()).collect();
        let group = paths.join(&b'\n');
        let mut body = Crc32c::new();
        body.update(&group);
        body.update(data);
        let mut head = Head {
            magic: MAGIC,
            version: VERSION,
            group_len: group.len() as u32,
            number,
            previous,
            state_version: number,
            data_len: data.len() as u64,
            fingerprint: 0,
            body_checksum: body.finish(),
            checksum: 0,
        };
        head.checksum = crc32c(&head.as_bytes()[..offset_of!(Head, checksum)]);
        durable.prepare(head, &group, data).unwrap();
    }

    fn two() -> (tempfile::TempDir, Durable, Durable) {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| Durable::at(&folder.path().join(name)).unwrap();
        let (a, b) = (at("a"), at("b"));
        for durable in [&a, &b] {
            file(durable, 1, 0, &[&a, &b], b"one");
            durable.adopt().unwrap();
        }
        (folder, a, b)
    }

    fn newest(durable: &Durable) -> Vec<u8> {
        durable.newest(Fingerprint::NONE).unwrap().unwrap().data
    }

    #[test]
    fn what_was_synced_together_comes_back_together_or_not_at_all() {
        // Only one of the two was prepared when the power went.
        let (_folder, a, b) = two();
        file(&a, 2, 1, &[&a, &b], b"two");
        assert_eq!((newest(&a), newest(&b)), (b"one".to_vec(), b"one".to_vec()));
        assert!(!a.next().exists());
        // Both were, and neither renamed.
        let (_folder, a, b) = two();
        file(&a, 2, 1, &[&a, &b], b"two");
        file(&b, 2, 1, &[&a, &b], b"two");
        assert_eq!((newest(&a), newest(&b)), (b"two".to_vec(), b"two".to_vec()));
        // One was renamed, and even written again by a later sync.
        let (_folder, a, b) = two();
        file(&a, 2, 1, &[&a, &b], b"two");
        file(&b, 2, 1, &[&a, &b], b"two");
        a.adopt().unwrap();
        file(&a, 3, 2, &[&a], b"three");
        a.adopt().unwrap();
        assert_eq!((newest(&b), newest(&a)), (b"two".to_vec(), b"three".to_vec()));
    }

    #[test]
    fn a_later_sync_of_one_does_not_make_an_unfinished_one_of_the_other_valid() {
        let (_folder, a, b) = two();
        file(&b, 2, 1, &[&a, &b], b"two");
        assert_eq!(newest(&a), b"one");
        file(&a, 3, 1, &[&a], b"three");
        a.adopt().unwrap();
        assert_eq!(newest(&b), b"one");
    }

    #[test]
    fn any_torn_or_flipped_byte_of_a_next_file_leaves_the_one_before() {
        let (_folder, a, b) = two();
        file(&b, 2, 1, &[&b], b"two");
        let whole = fs::read(b.next()).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs::write(b.next(), &flipped).unwrap();
            assert_eq!(newest(&b), b"one", "byte {at} flipped");
            fs::write(b.next(), &whole[..at]).unwrap();
            assert_eq!(newest(&b), b"one", "cut at {at}");
        }
        fs::write(b.next(), &whole).unwrap();
        assert_eq!(newest(&b), b"two");
        drop(a);
    }

    #[test]
    fn a_damaged_file_is_an_error_that_names_the_field() {
        let (_folder, a, _) = two();
        let mut bytes = fs::read(&a.path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&a.path, &bytes).unwrap();
        let error = a.newest(Fingerprint::NONE).unwrap_err();
        assert!(matches!(error, Error::Corrupt { field: "checksum of the data", .. }), "{error}");
    }

    /// What a file with right sums is refused for.
    fn refused_for(durable: &Durable, change: impl FnOnce(&mut Head), body: &[u8]) -> &'static str {
        let mut head = Root::read(&durable.path).unwrap().unwrap().head;
        head.data_len = body.len() as u64 - u64::from(head.group_len);
        change(&mut head);
        head.body_checksum = crc32c(body);
        head.checksum = crc32c(&head.as_bytes()[..offset_of!(Head, checksum)]);
        match Root::decode("x", &[head.as_bytes(), body].concat()) {
            Err(Error::Corrupt { field, .. }) => field,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_file_that_nobody_can_have_written_is_refused_although_its_sums_are_right() {
        let (_folder, a, _) = two();
        let body = fs::read(&a.path).unwrap()[size_of::<Head>()..].to_vec();
        let of = |change: fn(&mut Head)| refused_for(&a, change, &body);
        assert_eq!(of(|head| head.number = NUMBER_MAX), "number");
        assert_eq!(of(|head| head.previous = u64::MAX), "number");
        assert_eq!(of(|head| head.state_version = VERSION_MAX / 2), "version of the state");
        assert_eq!(of(|head| head.state_version = 0), "data never written");
        assert_eq!(of(|head| head.data_len = u64::MAX), "length of the file");
        let group_len = body.len() - b"one".len();
        assert_eq!(refused_for(&a, |_| {}, &body[..group_len]), "length of the data");
        let relative = [&b"x"[..], &body[1..]].concat();
        assert_eq!(refused_for(&a, |_| {}, &relative), "group");
    }

    #[test]
    fn what_is_no_regular_file_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        for path in [Path::new("/dev/zero"), &pipe, folder.path()] {
            let refused = Root::read(path);
            assert!(matches!(refused, Err(Error::Corrupt { field: "kind of the file", .. })));
        }
    }

    #[test]
    fn a_path_that_cannot_be_a_file_is_refused() {
        for path in ["/", "", "/a\nb", &format!("/{}", "x/".repeat(3_000))] {
            assert!(matches!(Durable::at(Path::new(path)), Err(Error::Path { .. })), "{path}");
        }
    }
}
