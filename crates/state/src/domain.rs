//! A folder of states, and this process as one of its tenants.
//!
//! I1. A tenant is a lease (a locked byte of `.leases`) and an incarnation, which is raised after
//!     the lock is had. Together they are never used again, so who is dead is dead for ever.
//! I2. When in doubt, nobody is dead: a locked byte with an old incarnation is alive.

use crate::{
    Error, Result, StateOptions,
    layout::{
        COUNTERS_OFFSET, Counters, LEASES_LEN, LEASES_MAGIC, LEASES_OFFSET, PinWords, RECORDS_LEN,
        RECORDS_MAGIC, RECORDS_OFFSET, RecordLine, StateWords, TableHeader,
    },
    limits::{LEASES, RECORDS, RECORDS_PER_LEASE, STATES_PER_TRANSACTION},
    memory::{Memory, Pins},
    persist,
    protocol::World,
    state::State,
    value::Value,
    word::Id,
};
use mainstay_shm::{
    Access, Atomic64, Backing, Mapping, Shared64, Unpublished,
    fork::{Epoch, Hold},
    futex,
    lease::{self, Prober, SlotEntry},
};
use std::{
    collections::{HashMap, HashSet},
    env, fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Relaxed, SeqCst},
        },
    },
};
use zerocopy::IntoBytes;

/// The environment variable that names the folder of states.
const FOLDER_VARIABLE: &str = "MAINSTAY_DIR";

/// A folder of states. Cheap to clone; all handles of one process on one folder share a lease.
///
/// ```
/// use mainstay_state::Domain;
/// # let dir = tempfile::tempdir()?;
/// let domain = Domain::open(dir.path())?;
/// let writer = domain.writer::<[u8]>("speed")?;
/// writer.replace(b"120 km/h")?;
///
/// let reader = domain.reader::<[u8]>("speed")?;
/// assert_eq!(&*reader.read()?, b"120 km/h");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Domain {
    pub(crate) tenant: Arc<Tenant>,
}

/// This process in a folder.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) this: Weak<Self>,
    pub(crate) folder: PathBuf,
    pub(crate) me: Id,
    /// The folder's own number: states of one transaction must have the same.
    pub(crate) domain_id: u64,
    pub(crate) epoch: Epoch,
    leases_backing: Backing,
    leases: Mapping,
    /// The records, mapped for those who only read, and for those who write.
    records_reading: OnceLock<Mapping>,
    records_writing: OnceLock<Mapping>,
    subscribed: Mutex<HashMap<u64, Known>>,
    dead: Mutex<HashSet<u64>>,
    /// Whether a thread of this process syncs what survives the machine.
    pub(crate) syncing: AtomicBool,
    /// Versions, by the id of their state, that were seen in its file by the thread that syncs.
    pub(crate) filed: Mutex<HashMap<u64, u64>>,
    /// Records of this lease that no thread of ours is using.
    pub(crate) free_records: Mutex<Vec<u32>>,
}

/// What this process has of one state.
#[derive(Debug, Default)]
struct Known {
    pins: Weak<Pins>,
    reading: Weak<Memory>,
    writing: Weak<Memory>,
}

fn process_tenants() -> MutexGuard<'static, Vec<Weak<Tenant>>> {
    static TENANTS: OnceLock<Mutex<Vec<Weak<Tenant>>>> = OnceLock::new();
    locked(TENANTS.get_or_init(Mutex::default))
}

/// A panic elsewhere leaves none of these collections half changed.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Domain {
    /// Opens the user's own folder: `$MAINSTAY_DIR`, else `$XDG_RUNTIME_DIR/mainstay`, else
    /// `/dev/shm/mainstay-UID`; makes it when it is not there.
    ///
    /// ```no_run
    /// let domain = mainstay_state::Domain::user()?;
    /// # Ok::<(), mainstay_state::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Domain::open`].
    pub fn user() -> Result<Self> {
        Self::open(Self::user_folder())
    }

    /// Which folder [`Domain::user`] opens.
    ///
    /// ```
    /// assert!(mainstay_state::Domain::user_folder().is_absolute());
    /// ```
    #[must_use]
    pub fn user_folder() -> PathBuf {
        let set =
            |variable| env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
        let absolute = |variable| set(variable).filter(|path| path.is_absolute());
        set(FOLDER_VARIABLE)
            .map(|path| std::path::absolute(&path).unwrap_or(path))
            .or_else(|| {
                let session = absolute("XDG_RUNTIME_DIR").filter(|path| path.is_dir())?;
                Some(session.join("mainstay"))
            })
            .unwrap_or_else(|| {
                let user = rustix::process::geteuid().as_raw();
                PathBuf::from(format!("/dev/shm/mainstay-{user}"))
            })
    }

    /// Opens a folder; makes it, for this user only, when it is not there. Transient states belong
    /// on a file system in memory.
    ///
    /// Example: see [`Domain`].
    ///
    /// # Errors
    /// `Memory` when the folder or its tables cannot be made or opened, or all leases are taken;
    /// `Corrupt` and `Version` when the tables are not what they should be.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let failed = |source| mainstay_shm::Error::System {
            path: folder.display().to_string(),
            action: "make or open the folder of states",
            source,
            hint: "choose another folder",
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        let folder = folder.canonicalize().map_err(failed)?;
        let backing = open_table(
            &folder.join(".leases"),
            LEASES_MAGIC,
            LEASES,
            LEASES_LEN,
            Access::ReadWrite,
        )?;
        let (backing, header) = backing;
        // Or a child forked meanwhile would find the list locked for ever.
        let _hold = Hold::new();
        let mut tenants = process_tenants();
        tenants.retain(|known| known.strong_count() > 0);
        let known = tenants
            .iter()
            .filter_map(Weak::upgrade)
            .find(|known| known.leases_backing.id() == backing.id() && known.epoch.is_current());
        if let Some(tenant) = known {
            return Ok(Self { tenant });
        }
        let tenant = Tenant::enter(folder, backing, header.id)?;
        tenants.push(Arc::downgrade(&tenant));
        Ok(Self { tenant })
    }

    /// The folder.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let domain = mainstay_state::Domain::open(dir.path())?;
    /// assert_eq!(domain.folder(), dir.path().canonicalize()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.tenant.folder
    }

    /// Subscribes to read and write, and makes the state when it does not exist.
    ///
    /// Example: see [`Domain`].
    ///
    /// # Errors
    /// As [`StateOptions::writer`].
    pub fn writer<T: Value + ?Sized>(&self, name: &str) -> Result<State<T>> {
        StateOptions::new().writer(self, name)
    }

    /// Subscribes to read.
    ///
    /// Example: see [`Domain`].
    ///
    /// # Errors
    /// As [`StateOptions::reader`].
    pub fn reader<T: Value + ?Sized>(&self, name: &str) -> Result<State<T>> {
        StateOptions::new().reader(self, name)
    }
}

/// Opens a table of a folder, or makes it complete or not at all.
fn open_table(
    path: &Path,
    magic: [u8; 8],
    count: u32,
    len: usize,
    access: Access,
) -> Result<(Backing, TableHeader)> {
    loop {
        match Backing::open(path, access) {
            Ok(backing) => {
                let place = backing.describe();
                let mut bytes = [0; size_of::<TableHeader>()];
                read_head(&backing, &mut bytes)?;
                let lengths = (backing.len()?, len);
                let header = TableHeader::read(&place, &bytes, magic, count, lengths)?;
                return Ok((backing, header));
            }
            Err(mainstay_shm::Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let new = Unpublished::create(path, 0o600);
        let new = match new {
            Err(mainstay_shm::Error::AlreadyExists { .. }) => continue,
            new => new?,
        };
        new.backing().allocate(0, len as u64)?;
        let mapping = Mapping::new(new.backing(), len as u64, Access::ReadWrite)?;
        mapping.refresh(new.backing())?;
        mapping.write(0, TableHeader::new(magic, count, random_id()?).as_bytes())?;
        match new.publish() {
            Ok(_) | Err(mainstay_shm::Error::AlreadyExists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reads the first bytes of a file.
pub(crate) fn read_head(backing: &Backing, bytes: &mut [u8]) -> Result<()> {
    let short = |found: u64| {
        crate::layout::corrupt(&backing.describe(), "length of the file", found.to_string())
    };
    let len = backing.len()?;
    if len < bytes.len() as u64 {
        return Err(short(len));
    }
    let read = rustix::io::pread(backing, &mut *bytes, 0).unwrap_or(0);
    if read == bytes.len() { Ok(()) } else { Err(short(read as u64)) }
}

/// A number that nobody else draws: 58 bits, not 0.
pub(crate) fn random_id() -> Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| mainstay_shm::Error::System {
        path: "random numbers".into(),
        action: "draw an id",
        source: std::io::Error::other(error.to_string()),
        hint: "use a kernel with getrandom",
    })?;
    Ok((u64::from_le_bytes(bytes) >> 6).max(1))
}

impl Tenant {
    /// Takes a lease.
    fn enter(folder: PathBuf, leases_backing: Backing, domain_id: u64) -> Result<Arc<Self>> {
        // Lower leases first: then all share few lines.
        let order: Vec<u32> = (0..LEASES).collect();
        let (leases, lease) = lease::acquire(&leases_backing, LEASES_LEN as u64, &order)?;
        leases.refresh(&leases_backing)?;
        let entry = &leases.view::<SlotEntry>(LEASES_OFFSET, LEASES as usize)?[lease as usize];
        entry.state.store(lease::IN_USE, Relaxed);
        // I1: raises the incarnation, after the lock.
        entry.introduce();
        let me = Id::new(entry.epoch.load(Relaxed), lease);
        Ok(Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            folder,
            me,
            domain_id,
            epoch: Epoch::now(),
            leases_backing,
            leases,
            records_reading: OnceLock::new(),
            records_writing: OnceLock::new(),
            subscribed: Mutex::default(),
            dead: Mutex::default(),
            syncing: AtomicBool::new(false),
            filed: Mutex::default(),
            free_records: Mutex::default(),
        }))
    }

    /// The file of leases: for gates, and for asking who is alive.
    pub(crate) fn leases_backing(&self) -> &Backing {
        &self.leases_backing
    }

    pub(crate) fn lease(&self) -> u32 {
        self.me.lease()
    }

    /// Fails in a child made by fork.
    #[inline(always)]
    pub(crate) fn check_process(&self, state: &str) -> Result<()> {
        if self.epoch.is_current() { Ok(()) } else { Err(forked(state)) }
    }

    /// What a lease says about its tenant.
    pub(crate) fn lease_entry(&self, lease: u32) -> Option<&SlotEntry> {
        self.leases.view::<SlotEntry>(LEASES_OFFSET, LEASES as usize).ok()?.get(lease as usize)
    }

    /// What a lease has counted.
    pub(crate) fn counters(&self, lease: u32) -> Option<&Counters> {
        self.leases.view::<Counters>(COUNTERS_OFFSET, LEASES as usize).ok()?.get(lease as usize)
    }

    /// Counts something in this process's own line; two threads may lose one.
    pub(crate) fn tally(&self, which: impl Fn(&Counters) -> &Shared64, by: u64) {
        if by > 0
            && let Some(counters) = self.counters(self.lease())
        {
            let word = which(counters);
            word.store(word.load(Relaxed).wrapping_add(by), Relaxed);
        }
    }

    /// Maps the records, for writing from the first time that `access` asks for it.
    pub(crate) fn open_records(&self, access: Access) -> Result<()> {
        let place = match access {
            Access::ReadOnly => &self.records_reading,
            Access::ReadWrite => &self.records_writing,
        };
        if place.get().is_some() {
            return Ok(());
        }
        let path = self.folder.join(".records");
        let (backing, _) = open_table(&path, RECORDS_MAGIC, RECORDS, RECORDS_LEN, access)?;
        let mapping = Mapping::new(&backing, RECORDS_LEN as u64, access)?;
        mapping.refresh(&backing)?;
        mapping.view::<RecordLine>(RECORDS_OFFSET, RECORDS as usize)?;
        if place.set(mapping).is_ok() && access == Access::ReadWrite {
            let first = self.lease() * RECORDS_PER_LEASE;
            locked(&self.free_records).extend(first..first + RECORDS_PER_LEASE);
        }
        Ok(())
    }

    fn record(&self, number: u32) -> &RecordLine {
        let records = self.records_writing.get().or_else(|| self.records_reading.get());
        let records = records.expect("a subscription opens the records before it has a state");
        let lines = records.view::<RecordLine>(RECORDS_OFFSET, RECORDS as usize);
        // The number has eleven bits, and there are 2^11 records.
        &lines.expect("looked at when the records were mapped")[number as usize % RECORDS as usize]
    }

    pub(crate) fn register(&self, memory: &Arc<Memory>) {
        let mut subscribed = locked(&self.subscribed);
        subscribed.retain(|_, known| known.pins.strong_count() > 0);
        let known = subscribed.entry(memory.header.id).or_default();
        known.pins = Arc::downgrade(&memory.pins);
        let place = if memory.is_writable() { &mut known.writing } else { &mut known.reading };
        *place = Arc::downgrade(memory);
    }

    /// The memory of a state that this process is subscribed to, as far as `access` needs it.
    pub(crate) fn subscribed(&self, id: u64, access: Access) -> Option<Arc<Memory>> {
        let subscribed = locked(&self.subscribed);
        let known = subscribed.get(&id)?;
        let reading = || known.reading.upgrade().filter(|_| access == Access::ReadOnly);
        known.writing.upgrade().or_else(reading)
    }

    /// This process's place in the pin table of a state.
    pub(crate) fn pins(&self, id: u64) -> Option<Arc<Pins>> {
        locked(&self.subscribed).get(&id)?.pins.upgrade()
    }

    /// Whether a living process has this lease now, by its lock.
    pub(crate) fn is_leased(&self, lease: u32) -> bool {
        let alive = Prober::new(&self.leases_backing).and_then(|prober| prober.is_alive(lease));
        // I2.
        alive.unwrap_or(true)
    }

    fn is_dead_now(&self, id: Id) -> bool {
        if id.lease() == self.lease() {
            return id != self.me;
        }
        let Some(entry) = self.lease_entry(id.lease()) else { return false };
        let incarnation = entry.epoch.load(Acquire);
        // Only ever raised, by a tenant that has the lock: then the one before is gone.
        incarnation > id.incarnation() || !self.is_leased(id.lease())
    }
}

#[cold]
pub(crate) fn forked(state: &str) -> Error {
    Error::Forked { state: state.into() }
}

impl World for Tenant {
    type Word = Shared64;
    type State = Memory;
    type Found = Arc<Memory>;

    fn status(&self, record: u32) -> &Shared64 {
        &self.record(record).status
    }

    fn count(&self, record: u32) -> &Shared64 {
        &self.record(record).count
    }

    fn entry(&self, record: u32, index: usize) -> (&Shared64, &Shared64) {
        let [base, target] = &self.record(record).entries[index.min(STATES_PER_TRANSACTION - 1)];
        (base, target)
    }

    fn find(&self, id: u64) -> Option<Arc<Memory>> {
        self.subscribed(id, Access::ReadWrite).filter(|memory| memory.is_writable())
    }

    #[cold]
    fn is_dead(&self, id: Id) -> bool {
        if locked(&self.dead).contains(&id.0) {
            return true;
        }
        let dead = self.is_dead_now(id);
        if dead {
            locked(&self.dead).insert(id.0);
        }
        dead
    }

    #[inline(always)]
    fn changed(&self, state: &Memory) {
        if let Some(change) = awaited(state.words(), state.pin_words()) {
            self.wake(state, change);
        }
    }

    fn scavenged(&self) {
        self.tally(|c| &c.scavenged_claims, 1);
    }

    fn ended(&self, records: u32) {
        self.tally(|c| &c.ended_records, records.into());
    }

    fn pause(&self) {
        std::hint::spin_loop();
    }
}

/// Whether somebody waits for a change of a state; after one was made. Returns the change word.
#[inline(always)]
pub(crate) fn awaited(words: &StateWords, pin_words: &PinWords) -> Option<u32> {
    // SeqCst, after the exchange that made the version visible: a waiter arms, then looks at the
    // word; one of the two sees the other.
    let armed = pin_words.armed.load(SeqCst);
    let change = words.change.load(Relaxed);
    (armed == change.wrapping_add(1)).then_some(change)
}

impl Tenant {
    /// Wakes who waits for a change of a state.
    #[cold]
    pub(crate) fn wake(&self, state: &Memory, change: u32) {
        let next = change.wrapping_add(1);
        let _ = state.words().change.compare_exchange(change, next, SeqCst, Relaxed);
        futex::wake_all(&state.words().change);
        self.tally(|c| &c.wakes, 1);
        persist::heed(self, state);
    }
}
