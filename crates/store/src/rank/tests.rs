//! Who leads and who follows, and whether a store is whole.

use mainstay_sim::{Disk, DiskFaults};

use super::*;
use crate::{
    Durability::Memory, LogOptions, LogSurvey, Options, Position, RawLogStore, RawStore, Survey,
    planted::plant,
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
