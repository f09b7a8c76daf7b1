//! What there is to say about states: for tools and for monitoring.

use crate::{
    Domain, Result,
    domain::Tenant,
    layout::{
        PIN_LINES_OFFSET, PINS_LEN, PinLine, SLOT_LINES_OFFSET, SlotLine, StateHeader, StateWords,
        WORDS_OFFSET,
    },
    limits::{PIN_LINES, SLOTS_MAX},
    memory::Memory,
    persist::{self, Grade},
    protocol::World,
    subscribe,
    word::{Id, Meaning, NOTHING, Phase, Status, VERSION_NEVER, Word},
};
use mainstay_shm::{Access, Atomic64, Backing, Mapping};
use std::{
    path::PathBuf,
    sync::atomic::Ordering::{Acquire, Relaxed, SeqCst},
};

/// A state as it is at this moment.
///
/// ```
/// # use mainstay_state::Domain;
/// # let dir = tempfile::tempdir()?;
/// let domain = Domain::open(dir.path())?;
/// let state = domain.writer::<[u8]>("speed")?;
/// state.replace(b"120")?;
/// let _pinned = state.read()?;
/// let info = &domain.list()?[0];
/// assert_eq!((&*info.name, info.version, info.len), ("speed", 1, 3));
/// assert_eq!(info.subscribers[0].pid, std::process::id());
/// assert_eq!(info.subscribers[0].pins, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StateInfo {
    /// Its name.
    pub name: String,
    /// Its number, the same in every process.
    pub id: u64,
    /// The current version; 0 when it was never written.
    pub version: u64,
    /// Bytes of the current version.
    pub len: u64,
    /// Bytes that a version begun from one never written has.
    pub size: u64,
    /// Bytes that it can grow to.
    pub size_limit: u64,
    /// Version slots that there are.
    pub slots: u64,
    /// Version slots that there may come to be.
    pub slots_max: u32,
    /// Bytes that each slot has room for.
    pub capacity: u64,
    /// The name of its type; empty for bytes.
    pub type_name: String,
    /// The fields of its type, as [`Record::FIELDS`](crate::Record::FIELDS) has them.
    pub fields: String,
    /// When it was made, in nanoseconds after 1970.
    pub created_ns: u64,
    /// Where it is kept; none while it is transient.
    pub persistent: Option<(PathBuf, Grade)>,
    /// The living processes that are subscribed, or dead ones that still hold something.
    pub subscribers: Vec<Subscriber>,
}

/// A process that is subscribed to a state.
///
/// Example: see [`StateInfo`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Subscriber {
    /// Its process id, for display.
    pub pid: u32,
    /// Its program's name, for display.
    pub program: String,
    /// Whether it lives.
    pub alive: bool,
    /// Version slots that it is writing.
    pub claims: u32,
    /// Versions that it is reading.
    pub pins: u32,
    /// Handles that it has.
    pub handles: u32,
}

/// What the processes of a folder have counted since each of them opened it.
///
/// Example: see [`Domain::counters`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Counted {
    /// Commits that were told `Conflict`.
    pub conflicts: u64,
    /// Slots taken back from the dead.
    pub scavenged_claims: u64,
    /// Pins of the dead taken back.
    pub scavenged_pins: u64,
    /// Unfinished commits of the dead ended.
    pub ended_records: u64,
    /// Wake-ups of waiters.
    pub wakes: u64,
}

impl Domain {
    /// All states of the folder, by name. Removes what processes that were killed have left.
    ///
    /// Example: see [`StateInfo`].
    ///
    /// # Errors
    /// `Memory`, `Corrupt`, `Forked`.
    pub fn list(&self) -> Result<Vec<StateInfo>> {
        self.sweep()?;
        let names = subscribe::names(self.folder());
        let infos = names.iter().map(|name| self.info(name));
        // One may have gone since.
        infos.filter_map(Result::transpose).collect()
    }

    /// One state, without subscribing to it; none when there is none.
    ///
    /// ```
    /// # use mainstay_state::Domain;
    /// # let dir = tempfile::tempdir()?;
    /// let domain = Domain::open(dir.path())?;
    /// assert!(domain.info("speed")?.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Domain::list`].
    pub fn info(&self, name: &str) -> Result<Option<StateInfo>> {
        let tenant = &self.tenant;
        tenant.check_process(name)?;
        tenant.open_records(Access::ReadOnly)?;
        let Some((backing, header)) = subscribe::open(&tenant.folder, name, Access::ReadOnly)?
        else {
            return Ok(None);
        };
        let pins_path = subscribe::pins_path(&tenant.folder, header.id);
        let pins_backing = match Backing::open(&pins_path, Access::ReadOnly) {
            Err(mainstay_shm::Error::NotFound { .. }) => return Ok(None),
            backing => backing?,
        };
        let mapping = Mapping::new(&backing, header.data_offset(0), Access::ReadOnly)?;
        mapping.refresh(&backing)?;
        let pins = Mapping::new(&pins_backing, PINS_LEN as u64, Access::ReadOnly)?;
        pins.refresh(&pins_backing)?;
        let looked = Looked {
            header: &header,
            words: &mapping.view::<StateWords>(WORDS_OFFSET, 1)?[0],
            slots: mapping.view::<SlotLine>(SLOT_LINES_OFFSET, SLOTS_MAX as usize)?,
            lines: pins.view::<PinLine>(PIN_LINES_OFFSET, PIN_LINES as usize)?,
        };
        let path = mapping.view(crate::layout::PATH_OFFSET, crate::limits::PATH_MAX)?;
        Ok(Some(looked.info(tenant, persist::path_of(looked.words, header.id, path))?))
    }

    /// Removes transient states whose subscribers were all killed; returns how many there were.
    /// Subscribing and listing do so too.
    ///
    /// ```
    /// # use mainstay_state::Domain;
    /// # let dir = tempfile::tempdir()?;
    /// assert_eq!(Domain::open(dir.path())?.sweep()?, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `Forked`.
    pub fn sweep(&self) -> Result<usize> {
        self.tenant.check_process("the folder")?;
        Ok(subscribe::sweep(&self.tenant))
    }

    /// What all processes of the folder have counted, also those that are gone.
    ///
    /// ```
    /// # use mainstay_state::Domain;
    /// # let dir = tempfile::tempdir()?;
    /// let domain = Domain::open(dir.path())?;
    /// let state = domain.writer::<[u8]>("speed")?;
    /// let (mut first, mut second) = (state.begin()?, state.begin()?);
    /// first.bytes_mut()?[0] = 1;
    /// second.bytes_mut()?[0] = 2;
    /// first.commit()?;
    /// let _ = second.commit();
    /// assert_eq!(domain.counters().conflicts, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn counters(&self) -> Counted {
        let mut sum = Counted::default();
        for lease in 0..crate::limits::LEASES {
            let Some(line) = self.tenant.counters(lease) else { continue };
            sum.conflicts += line.conflicts.load(Relaxed);
            sum.scavenged_claims += line.scavenged_claims.load(Relaxed);
            sum.scavenged_pins += line.scavenged_pins.load(Relaxed);
            sum.ended_records += line.ended_records.load(Relaxed);
            sum.wakes += line.wakes.load(Relaxed);
        }
        sum
    }
}

/// What there is to say about a state that this process is subscribed to.
pub(crate) fn of(memory: &Memory) -> Result<StateInfo> {
    let domain = Domain { tenant: memory.tenant.clone() };
    let info = domain.info(&memory.name)?.filter(|info| info.id == memory.header.id);
    info.ok_or_else(|| crate::Error::Deleted { state: memory.name.clone() })
}

/// What is looked at.
struct Looked<'a> {
    header: &'a StateHeader,
    words: &'a StateWords,
    slots: &'a [SlotLine],
    lines: &'a [PinLine],
}

impl Looked<'_> {
    fn info(&self, tenant: &Tenant, persistent: Option<(PathBuf, Grade)>) -> Result<StateInfo> {
        let (version, len) = self.current(tenant);
        let header = self.header;
        Ok(StateInfo {
            name: header.name(),
            id: header.id,
            version,
            len,
            size: self.words.size.load(Acquire),
            size_limit: header.size_limit,
            slots: self.words.slots.load(Acquire),
            slots_max: header.slots_max,
            capacity: self.words.capacity.load(Acquire),
            type_name: header.type_name(),
            fields: header.fields(),
            created_ns: header.created,
            persistent,
            subscribers: self.subscribers(tenant)?,
        })
    }

    /// Version and length of what is current.
    fn current(&self, tenant: &Tenant) -> (u64, u64) {
        let in_slot = |slot: u32| {
            let line = self.slots.get(slot as usize);
            line.map_or((0, 0), |line| (line.version.load(Acquire), line.len.load(Relaxed)))
        };
        let mut word = Word(self.words.current.load(SeqCst));
        loop {
            let found = match word.meaning() {
                Meaning::Plain(plain) if plain.version() == VERSION_NEVER => {
                    return (VERSION_NEVER, self.words.size.load(Acquire));
                }
                // The length may be that of a later version in the same slot.
                Meaning::Plain(plain) => return (plain.version(), in_slot(plain.slot()).1),
                Meaning::Reference(reference) => {
                    let committed = Status::new(reference.sequence(), Phase::Committed);
                    let status = Status(tenant.status(reference.record()).load(SeqCst));
                    let is_new = status == committed;
                    in_slot(if is_new { reference.new_slot() } else { reference.base() })
                }
                Meaning::Deleted | Meaning::Garbage => return (0, 0),
            };
            // Record and slots say something of a reference only as long as it stands there.
            let again = Word(self.words.current.load(SeqCst));
            if again == word {
                return found;
            }
            word = again;
        }
    }

    fn subscribers(&self, tenant: &Tenant) -> Result<Vec<Subscriber>> {
        let leases = subscribe::subscribers(tenant, self.header.id)?;
        let mut found: Vec<(Id, Subscriber)> = Vec::new();
        let mut of = |id: Id, count: &dyn Fn(&mut Subscriber)| {
            let known = found.iter_mut().find(|(known, _)| *known == id);
            if let Some((_, subscriber)) = known {
                return count(subscriber);
            }
            let entry = tenant.lease_entry(id.lease());
            let is_its =
                |e: &&mainstay_shm::lease::SlotEntry| e.epoch.load(Relaxed) == id.incarnation();
            let entry = entry.filter(is_its);
            let mut subscriber = Subscriber {
                pid: entry.map_or(0, |entry| entry.pid.load(Relaxed)),
                program: entry.map_or_else(String::new, |entry| entry.display_name()),
                alive: entry.is_some() && leases.contains(&id.lease()),
                claims: 0,
                pins: 0,
                handles: 0,
            };
            count(&mut subscriber);
            found.push((id, subscriber));
        };
        for lease in &leases {
            if let Some(entry) = tenant.lease_entry(*lease) {
                of(Id::new(entry.epoch.load(Relaxed), *lease), &|_| {});
            }
        }
        for line in self.lines {
            let keeper = Id(line.keeper.load(Acquire));
            if keeper != Id::NOBODY {
                let pinned = line.announced.load(Acquire) != NOTHING;
                of(keeper, &|subscriber| {
                    subscriber.handles += 1;
                    subscriber.pins += u32::from(pinned);
                });
            }
        }
        for slot in self.slots {
            let owner = Id(slot.owner.load(Acquire));
            if owner != Id::NOBODY {
                of(owner, &|subscriber| subscriber.claims += 1);
            }
        }
        Ok(found.into_iter().map(|(_, subscriber)| subscriber).collect())
    }
}
