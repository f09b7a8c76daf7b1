//! Whose writes a store takes, and which leaders it knows of.

use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
};

use mainstay_storage::{Folder, Storage};

use crate::{
    any::{ANY_FILE, AnyHeader},
    error::{Error, Result},
    format::{COPY_AT, Header, STORE_FILE, StoreHeader, sealed},
    group::lock,
    history::{History, check_epoch, promoted},
    planted::{self, Fault},
};

/// Whose writes a store takes.
///
/// Example: see [`RawStore::create_replica`](crate::RawStore::create_replica).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Role {
    /// Those of its users.
    Leader = 0,
    /// Those of a leader.
    Follower = 1,
}

/// In the place of a role: a follower that has only a part of what its leader has.
const UNFINISHED: u32 = 2;

/// The role of a store in its header, when it is made: one that follows has nothing yet.
pub(crate) fn first_role(role: Role) -> u32 {
    match role {
        Role::Leader => Role::Leader as u32,
        Role::Follower => UNFINISHED,
    }
}

/// What the header of a store says of it.
#[derive(Clone, Copy)]
pub(crate) struct Rank {
    pub(crate) epoch: u64,
    known_epoch: u64,
    pub(crate) role: Role,
    /// It has had all that its leader had, and was not begun to be brought to something else since;
    /// see [`RawStore::set_whole`](crate::RawStore::set_whole).
    pub(crate) is_whole: bool,
}

impl Rank {
    /// The highest epoch of a leader that it knows of, itself included if it is one.
    pub(crate) fn known(&self) -> u64 {
        match self.role {
            Role::Leader => self.known_epoch.max(self.epoch),
            Role::Follower => self.known_epoch,
        }
    }

    /// It as a follower that knows of this epoch, if that is news.
    fn fenced(self, epoch: u64) -> Option<Self> {
        let fenced = Self { known_epoch: epoch, role: Role::Follower, ..self };
        (epoch > self.known()).then_some(fenced)
    }

    fn demoted(self) -> Self {
        Self { known_epoch: self.known(), role: Role::Follower, ..self }
    }

    /// It as the leader, with an epoch above all that it knows of; see
    /// [`RawStore::promote`](crate::RawStore::promote).
    fn promoted(self, above: u64, drawn: u16) -> Result<Self> {
        if !self.is_whole {
            return Err(Error::NotWhole);
        }
        let known_epoch = self.known_epoch.max(above);
        let epoch = promoted(known_epoch.max(self.epoch), drawn)?;
        Ok(Self { epoch, known_epoch, role: Role::Leader, ..self })
    }
}

/// A header of a store.
pub(crate) trait Ranked: Header {
    /// The file that it is in.
    const FILE: &str;

    fn rank(&self) -> Rank;
    fn set_rank(&mut self, rank: Rank);

    /// It has one more generation from now on, and this is which.
    fn next_generation(&mut self) -> u64;

    /// Are the numbers some that can be?
    fn has_rank(&self) -> bool;

    /// Refuses a copy that is not finished.
    fn check_finished(&self) -> Result<()> {
        if self.rank().is_whole { Ok(()) } else { Err(Error::NotWhole) }
    }
}

/// The fields have the same names in the headers of both kinds of stores.
macro_rules! ranked {
    ($header:ty, $file:expr) => {
        impl Ranked for $header {
            const FILE: &str = $file;

            fn rank(&self) -> Rank {
                let is_leader = self.role.get() == Role::Leader as u32;
                let role = if is_leader { Role::Leader } else { Role::Follower };
                let (epoch, known_epoch) = (self.epoch.get(), self.known_epoch.get());
                Rank { epoch, known_epoch, role, is_whole: self.role.get() != UNFINISHED }
            }

            fn set_rank(&mut self, rank: Rank) {
                self.epoch = rank.epoch.into();
                self.known_epoch = rank.known_epoch.into();
                self.role = if rank.is_whole { rank.role as u32 } else { UNFINISHED }.into();
            }

            fn next_generation(&mut self) -> u64 {
                self.generation = (self.generation.get() + 1).into();
                self.generation.get()
            }

            fn has_rank(&self) -> bool {
                self.epoch.get() < u64::MAX && self.role.get() <= UNFINISHED
            }
        }
    };
}

ranked!(StoreHeader, STORE_FILE);
ranked!(AnyHeader, ANY_FILE);

/// Writes the header of a store durably; the copy that is there stays until then.
pub(crate) fn write_next<H: Ranked>(folder: &impl Folder, header: &mut H) -> Result<()> {
    let generation = header.next_generation();
    let write = || {
        let file = folder.file(H::FILE)?;
        file.write_at(if generation.is_multiple_of(2) { 0 } else { COPY_AT }, &sealed(header))?;
        file.sync()
    };
    write().map_err(Error::io(H::FILE))
}

/// Is each shard as a write left it?
pub(crate) fn at_places(shards: impl IntoIterator<Item = (u32, History)>) -> Result<()> {
    let at_none = |(shard, at): (u32, History)| at.position().is_none().then_some(shard);
    match shards.into_iter().find_map(at_none) {
        Some(shard) => Err(Error::Mending { shard }),
        None => Ok(()),
    }
}

/// Whether an open store takes writes of its own, and its header as it is on the disk.
///
/// What becomes of it is written to both places of the header: one bad sector must not bring a leader
/// back that was replaced.
pub(crate) struct Standing<H> {
    kept: Mutex<H>,
    /// As it was opened, or made by a promotion; one that was fenced since leads no more.
    rank: Rank,
    /// The highest epoch that it was fenced by. Who is refused reads it without the lock of the
    /// header: whoever fences waits for writers under that.
    fenced_by: AtomicU64,
    is_closed: AtomicBool,
    /// Another store has its place.
    is_resharded: AtomicBool,
}

impl<H: Ranked> Standing<H> {
    pub(crate) fn of(header: H) -> Self {
        let rank = header.rank();
        Self {
            kept: Mutex::new(header),
            rank,
            fenced_by: AtomicU64::new(rank.known()),
            is_closed: AtomicBool::new(rank.role == Role::Follower),
            is_resharded: AtomicBool::new(false),
        }
    }

    fn kept(&self) -> MutexGuard<'_, H> {
        lock(&self.kept)
    }

    pub(crate) fn header(&self) -> H {
        *self.kept()
    }

    pub(crate) fn rank(&self) -> Rank {
        self.kept().rank()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(SeqCst)
    }

    /// Are writes of its own taken? Who is about to write asks under the lock of the log.
    pub(crate) fn check_open(&self) -> Result<()> {
        if !self.is_closed() {
            return Ok(());
        }
        if self.is_resharded.load(SeqCst) {
            return Err(Error::Resharded);
        }
        match self.rank.role {
            Role::Leader => {
                let by = self.fenced_by.load(SeqCst);
                Err(Error::Replaced { epoch: self.rank.epoch, by })
            }
            Role::Follower => Err(Error::Follows),
        }
    }

    pub(crate) fn check_follows(&self) -> Result<()> {
        match self.rank().role {
            Role::Follower => Ok(()),
            Role::Leader => Err(Error::Leads),
        }
    }

    /// Notes of a follower whether it has all that its leader had; not if a shard is at no place.
    pub(crate) fn set_whole(
        &self,
        folder: &impl Folder,
        is_whole: bool,
        shards: impl IntoIterator<Item = (u32, History)>,
    ) -> Result<()> {
        let mut kept = self.kept();
        let rank = kept.rank();
        if rank.role == Role::Leader {
            return Err(Error::Leads);
        }
        if rank.is_whole == is_whole {
            return Ok(());
        }
        if is_whole && !planted::is(Fault::WholeAtNoPlace) {
            at_places(shards)?;
        }
        let mut header = *kept;
        header.set_rank(Rank { is_whole, ..rank });
        write_next(folder, &mut header)?;
        *kept = header;
        if planted::is(Fault::MarkedOnce) {
            return Ok(());
        }
        // Neither place says the other thing any more.
        write_next(folder, &mut header)?;
        *kept = header;
        Ok(())
    }

    /// There is a leader of this epoch. `wait` is until whoever got in before has written.
    pub(crate) fn fence(
        &self,
        folder: &impl Folder,
        epoch: u64,
        wait: impl FnOnce(),
    ) -> Result<()> {
        let mut kept = self.kept();
        let Some(fenced) = kept.rank().fenced(epoch) else { return Ok(()) };
        check_epoch(epoch)?;
        self.fenced_by.store(epoch, SeqCst);
        self.is_closed.store(true, SeqCst);
        wait();
        let mut header = *kept;
        header.set_rank(fenced);
        // Only what is on the disk is known: where that failed, the next one tries again.
        write_next(folder, &mut header)?;
        *kept = header;
        write_next(folder, &mut header)?;
        *kept = header;
        Ok(())
    }

    /// Makes it a follower, and returns the header.
    pub(crate) fn demote(&mut self, folder: &impl Folder) -> Result<H> {
        let rank = self.rank().demoted();
        self.become_of(folder, rank)
    }

    /// Makes it what another store was: who follows takes no writes, and stays a part of what its leader
    /// had if it was that.
    pub(crate) fn stand_as(&mut self, folder: &impl Folder, other: Rank) -> Result<H> {
        if other.role == Role::Leader || planted::is(Fault::MadeLeader) {
            return Ok(self.header());
        }
        let is_whole = other.is_whole || planted::is(Fault::MadeWhole);
        self.become_of(folder, Rank { is_whole, ..self.rank().demoted() })
    }

    /// Makes it the leader, if all of its shards are at a place, and returns the header.
    pub(crate) fn promote(
        &mut self,
        folder: &impl Folder,
        (above, drawn): (u64, u16),
        shards: impl IntoIterator<Item = (u32, History)>,
    ) -> Result<H> {
        at_places(shards)?;
        let rank = self.rank().promoted(above, drawn)?;
        self.become_of(folder, rank)
    }

    fn become_of(&mut self, folder: &impl Folder, rank: Rank) -> Result<H> {
        if self.is_resharded.load(SeqCst) {
            return Err(Error::Resharded);
        }
        let mut header = self.header();
        header.set_rank(rank);
        write_next(folder, &mut header)?;
        write_next(folder, &mut header)?;
        *self = Self::of(header);
        Ok(header)
    }

    /// Another store has its place, and it takes no more writes.
    pub(crate) fn give_way(&self) {
        self.is_resharded.store(true, SeqCst);
        self.is_closed.store(true, SeqCst);
    }

    /// It keeps its place, and takes writes as before.
    pub(crate) fn go_on(&self) {
        // Nobody fences it between the look and the word.
        let kept = self.kept();
        let is_fenced = self.fenced_by.load(SeqCst) > kept.rank().known();
        self.is_resharded.store(false, SeqCst);
        self.is_closed.store(is_fenced || kept.rank().role == Role::Follower, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use mainstay_sim::{Disk, DiskFaults};

    use super::*;
    use crate::{
        Durability::Memory, LogOptions, LogSurvey, Options, Position, RawLogStore, RawStore,
        Survey, planted::plant,
    };

    /// The same of stores of both kinds.
    macro_rules! of_both {
        ($test:ident) => {
            let create = |disk| RawStore::create(disk, 1, 1, &Options::default()).unwrap();
            $test!(create, |disk| RawStore::open(disk, &Options::default()), STORE_FILE);
            let create = |disk| RawLogStore::create(disk, &LogOptions::default()).unwrap();
            $test!(create, |disk| RawLogStore::open(disk, &LogOptions::default()), ANY_FILE);
        };
    }

    #[test]
    fn one_bad_sector_does_not_bring_a_leader_back_that_was_replaced() {
        macro_rules! test {
            ($create:expr, $open:expr, $file:expr) => {
                for slot in [0, COPY_AT] {
                    let disk = Disk::new(7);
                    let store = $create(disk.clone());
                    let epoch = store.epoch() + (7 << 32);
                    store.fence(epoch).unwrap();
                    drop(store);
                    disk.power_cut();
                    disk.file($file).write_at(slot, &[0x5a; 128]).unwrap();
                    let store = $open(disk).unwrap();
                    assert_eq!((store.role(), store.known_epoch()), (Role::Follower, epoch));
                }
            };
        }
        of_both!(test);
    }

    #[test]
    fn a_fence_that_failed_is_made_again_and_no_write_is_taken_meanwhile() {
        macro_rules! test {
            ($create:expr, $open:expr, $file:expr) => {
                let disk = Disk::new(7);
                let store = $create(disk.clone());
                let epoch = store.epoch() + (7 << 32);
                disk.set_faults(DiskFaults { sync_error_ppm: 1_000_000, ..DiskFaults::NONE });
                assert!(store.fence(epoch).is_err());
                assert!(matches!(store.put(b"k", b"v", Memory), Err(Error::Replaced { .. })));
                assert!(store.fence(epoch).is_err(), "nothing is durable yet");
                disk.set_faults(DiskFaults::NONE);
                store.fence(epoch).unwrap();
                drop(store);
                disk.power_cut();
                let store = $open(disk).unwrap();
                assert_eq!((store.role(), store.known_epoch()), (Role::Follower, epoch));
            };
        }
        of_both!(test);
    }

    /// Places of the header by which a store is whole if the other one cannot be read.
    fn whole_at(disk: &Disk, name: &str) -> Vec<u64> {
        let (file, mut kept, mut found) = (disk.file(name), [0; 128], Vec::new());
        for (other, slot) in [(COPY_AT, 0), (0, COPY_AT)] {
            file.read_at(other, &mut kept).unwrap();
            file.write_at(other, &[0x5a; 128]).unwrap();
            let whole = Survey::over(disk, |_, _| {}).map(|survey| survey.is_whole);
            let whole =
                whole.or_else(|_| LogSurvey::over(disk, |_, _| {}).map(|survey| survey.is_whole));
            found.extend(whole.unwrap().then_some(slot));
            file.write_at(other, &kept).unwrap();
        }
        found
    }

    #[test]
    fn a19_both_places_of_the_header_say_that_a_store_is_not_whole() {
        macro_rules! test {
            ($create:expr, $open:expr, $file:expr) => {
                for fault in [None, Some(Fault::MarkedOnce)] {
                    let disk = Disk::new(7);
                    plant(fault);
                    $create(disk.clone()).demote().unwrap().set_whole(false).unwrap();
                    plant(None);
                    disk.power_cut();
                    assert_eq!(whole_at(&disk, $file).is_empty(), fault.is_none());
                    assert!(!$open(disk).unwrap().is_whole());
                }
            };
        }
        of_both!(test);
    }

    #[test]
    fn a19_a_store_of_which_a_shard_is_at_no_place_is_not_said_to_be_whole() {
        macro_rules! test {
            ($store:expr, $options:expr, $open:expr, $($ends:expr)?) => {
                for fault in [None, Some(Fault::WholeAtNoPlace)] {
                    let disk = Disk::new(7);
                    let store = $store(disk.clone()).demote().unwrap();
                    store.set_whole(false).unwrap();
                    let nowhere = History::Mending(Position::START);
                    store.mend(0, &[], $($ends,)? nowhere).unwrap();
                    plant(fault);
                    let said = store.set_whole(true);
                    plant(None);
                    assert_eq!(matches!(said, Err(Error::Mending { shard: 0 })), fault.is_none());
                    drop(store);
                    disk.power_cut();
                    assert_eq!($open(disk, &$options).unwrap().is_whole(), fault.is_some());
                }
            };
        }
        let options = Options::default();
        let create = |disk| RawStore::create(disk, 1, 1, &options).unwrap();
        test!(create, options, RawStore::open,);
        let options = LogOptions::default();
        let create = |disk| RawLogStore::create(disk, &options).unwrap();
        test!(create, options, RawLogStore::open, &[]);
    }

    #[test]
    fn an_epoch_that_no_leader_can_have_changes_nothing() {
        macro_rules! test {
            ($create:expr, $open:expr, $file:expr) => {
                let disk = Disk::new(7);
                let store = $create(disk.clone());
                let header = |disk: &Disk| {
                    let file = disk.file($file);
                    let mut bytes = vec![0; file.len().unwrap() as usize];
                    file.read_at(0, &mut bytes).unwrap();
                    bytes
                };
                let before = header(&disk);
                for epoch in [65_535 << 48, u64::MAX] {
                    let refused = store.fence(epoch);
                    assert!(matches!(refused, Err(Error::OutOfLimits { value: 65_535, .. })));
                    store.put(b"k", b"v", Memory).unwrap();
                }
                assert!(header(&disk) == before);
                let store = store.demote().unwrap();
                let before = header(&disk);
                let refused = store.promote_above(u64::MAX, 7).err();
                assert!(matches!(refused, Some(Error::OutOfLimits { .. })), "{refused:?}");
                assert!(header(&disk) == before);
                // And one that is refused for another reason does not learn of an epoch either.
                let store = $open(disk.clone()).unwrap();
                store.set_whole(false).unwrap();
                let before = header(&disk);
                assert!(matches!(store.promote_above(7 << 48, 7), Err(Error::NotWhole)));
                assert!(header(&disk) == before);
                let store = $open(disk).unwrap();
                store.set_whole(true).unwrap();
                let store = store.promote_above(7 << 48, 7).unwrap();
                assert_eq!((store.epoch() >> 48, store.role()), (8, Role::Leader));
            };
        }
        of_both!(test);
    }

    #[test]
    fn a19_a_replica_is_whole_when_that_is_durable_and_not_before() {
        macro_rules! test {
            ($create:expr, $open:expr, $file:expr) => {
                let disk = Disk::new(7);
                let store = $create(disk.clone());
                assert!(store.is_whole());
                assert!(matches!(store.set_whole(false), Err(Error::Leads)));
                let store = store.demote().unwrap();
                assert!(store.is_whole());
                store.set_whole(false).unwrap();
                // It stays so whoever it hears of, and one bad sector does not make it whole.
                store.fence(store.epoch() + (7 << 32)).unwrap();
                drop(store);
                disk.power_cut();
                assert_eq!(whole_at(&disk, $file), []);
                let store = $open(disk.clone()).unwrap();
                assert!(!store.is_whole());
                assert!(matches!(store.promote(1), Err(Error::NotWhole)));
                // A disk that refuses to say so has a store that is not whole.
                let store = $open(disk.clone()).unwrap();
                disk.set_faults(DiskFaults { sync_error_ppm: 1_000_000, ..DiskFaults::NONE });
                assert!(store.set_whole(true).is_err());
                assert!(!store.is_whole());
                disk.set_faults(DiskFaults::NONE);
                store.set_whole(true).unwrap();
                drop(store);
                disk.power_cut();
                assert!($open(disk).unwrap().promote(1).unwrap().is_whole());
            };
        }
        of_both!(test);
    }

    #[test]
    fn one_that_gave_way_and_goes_on_stays_fenced() {
        let header = {
            let store = RawStore::create(Disk::new(7), 1, 1, &Options::default()).unwrap();
            store.standing.header()
        };
        let (standing, disk) = (Standing::of(header), Disk::new(8));
        standing.give_way();
        standing.go_on();
        standing.check_open().unwrap();
        standing.give_way();
        disk.set_faults(DiskFaults { sync_error_ppm: 1_000_000, ..DiskFaults::NONE });
        standing.fence(&disk, header.epoch.get() + (7 << 32), || {}).unwrap_err();
        standing.go_on();
        assert!(matches!(standing.check_open(), Err(Error::Replaced { .. })));
    }

    #[test]
    fn one_that_gave_way_is_not_promoted() {
        let store = RawStore::create(Disk::new(7), 1, 1, &Options::default()).unwrap();
        let mut standing = Standing::of(store.standing.header());
        standing.give_way();
        let refused = standing.promote(&Disk::new(8), (0, 1), []);
        assert!(matches!(refused, Err(Error::Resharded)));
    }
}
