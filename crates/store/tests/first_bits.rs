//! Stores whose shards are chosen by the first bits of a key: what begins alike is in one shard, and
//! everything that looks for a key looks there.

#![allow(clippy::unwrap_used, reason = "clippy does not see that all of this is a test")]

use std::collections::BTreeSet;

use mainstay_sim::Disk;
use mainstay_storage::Storage as _;
use mainstay_store::{
    Change, Directory, Durability::Memory, Error, History, LogOptions, OnDisk, Options, Position,
    RawLogStore, RawStore, Reader, Span, limits::SHARD_BITS_MAX,
};

/// Four bytes decide, four do not.
const BITS: u32 = 32;
const GROUPS: u32 = 40;
const MEMBERS: u32 = 12;

fn key(group: u32, member: u32) -> [u8; 8] {
    let mut key = [0; 8];
    key[..4].copy_from_slice(&(group * 0x0101).to_be_bytes());
    key[4..].copy_from_slice(&member.to_be_bytes());
    key
}

fn keys() -> impl Iterator<Item = [u8; 8]> {
    (0..GROUPS).flat_map(|group| (0..MEMBERS).map(move |member| key(group, member)))
}

fn fixed() -> Options {
    Options { shards: 8, shard_bits: BITS, ordered: true, ..Options::default() }
}

fn any() -> LogOptions {
    LogOptions { shards: 8, shard_bits: BITS, ordered: true, ..LogOptions::default() }
}

/// Tests of both kinds, which have the same methods.
macro_rules! of_both {
    ($name:ident, $create:expr, $open:expr) => {
        mod $name {
            use super::*;

            #[test]
            fn what_begins_alike_is_in_one_shard_and_all_shards_have_something() {
                let store = $create(Disk::new(7));
                let mut used = BTreeSet::new();
                for group in 0..GROUPS {
                    let shard = store.shard(&key(group, 0)).unwrap();
                    assert!((1..MEMBERS).all(|it| store.shard(&key(group, it)).unwrap() == shard));
                    used.insert(shard);
                }
                assert_eq!(used.len(), 8);
                assert_eq!(store.identity().shard_bits, BITS);
            }

            #[test]
            fn every_key_is_found_again_after_a_power_cut_and_in_order() {
                let disk = Disk::new(7);
                let store = $create(disk.clone());
                for key in keys() {
                    store.put(&key, &key, Memory).unwrap();
                }
                let (first, other) = (key(1, 700), key(2, 700));
                let batch = [Change::Put(&first, b"together"), Change::Put(&other, b"together")];
                store.batch_across(&batch).unwrap();
                store.sync().unwrap();
                drop(store);
                disk.power_cut();
                let store = $open(disk).unwrap();
                for key in keys() {
                    assert_eq!(store.get(&key).unwrap().as_deref(), Some(&key[..]));
                }
                for key in [first, other] {
                    assert_eq!(store.get(&key).unwrap().as_deref(), Some(&b"together"[..]));
                }
                for group in 0..GROUPS {
                    let more = u32::from(group == 1 || group == 2);
                    let wide = Span::ALL.prefix(&key(group, 0)[..4]);
                    let narrow = Span::ALL.prefix(&key(group, 0)[..3]);
                    let both = Span::ALL.from(&key(group, 3)).before(&key(group + 1, 2));
                    let count = |span: &Span| {
                        let found: Vec<_> =
                            store.range(span).unwrap().map(Result::unwrap).collect();
                        assert!(found.is_sorted_by(|one, other| one.0 < other.0));
                        assert!(found.iter().all(|(key, _)| span.has(key)));
                        let snapshot = store.snapshot();
                        assert_eq!(snapshot.range(span).unwrap().count(), found.len());
                        found.len() as u32
                    };
                    assert_eq!(count(&wide), MEMBERS + more);
                    assert!(count(&narrow) >= MEMBERS + more);
                    let last = group + 1 == GROUPS;
                    assert_eq!(count(&both), MEMBERS - 3 + more + if last { 0 } else { 2 });
                }
            }

            #[test]
            fn a_replica_has_the_same_shards_and_takes_no_key_of_another() {
                let store = $create(Disk::new(7));
                let shard = store.shard(&key(1, 0)).unwrap();
                let replica = replicas::$name(&store.identity());
                assert_eq!(replica.identity(), store.identity());
                let at = History::At(Position::START);
                for wrong in 0..8 {
                    let done = replica.mend(wrong, &[Change::Delete(&key(1, 9))], at);
                    match done {
                        Ok(()) => assert_eq!(wrong, shard),
                        Err(Error::Foreign { .. }) => assert_ne!(wrong, shard),
                        Err(error) => panic!("{error}"),
                    }
                }
            }

            #[test]
            fn other_shards_may_be_chosen_by_other_bits() {
                let store = $create(Disk::new(7));
                for key in keys() {
                    store.put(&key, b"88888888", Memory).unwrap();
                }
                let mut resharding = reshards::$name(&store, Disk::new(8), 16);
                while !resharding.advance(50).unwrap() {}
                let new = resharding.finish().unwrap();
                assert_eq!((new.identity().shards, new.identity().shard_bits), (4, 16));
                assert!(keys().all(|key| new.get(&key).unwrap().is_some()));
            }

            #[test]
            fn more_bits_than_there_may_be_are_refused() {
                for bits in [SHARD_BITS_MAX + 1, u32::MAX] {
                    let refused = refusals::$name(bits);
                    assert!(matches!(refused, Error::OutOfLimits { what: "shard_bits", .. }));
                }
            }
        }
    };
}

of_both!(fixed_sizes, |disk| RawStore::create(disk, 8, 8, &fixed()).unwrap(), |disk| {
    RawStore::open(disk, &Options { ordered: true, ..Options::default() })
});
of_both!(any_sizes, |disk| RawLogStore::create(disk, &any()).unwrap(), |disk| RawLogStore::open(
    disk,
    &LogOptions { ordered: true, ..LogOptions::default() }
));

/// What differs between the two.
mod replicas {
    use super::*;
    use mainstay_store::Identity;

    pub(super) fn fixed_sizes(of: &Identity) -> RawStore<Disk> {
        RawStore::create_replica(Disk::new(9), of, &Options::default()).unwrap()
    }

    pub(super) struct Any(RawLogStore<Disk>);

    impl Any {
        pub(super) fn identity(&self) -> Identity {
            self.0.identity()
        }

        pub(super) fn mend(
            &self,
            shard: u32,
            changes: &[Change<'_>],
            then: History,
        ) -> Result<(), Error> {
            self.0.mend(shard, changes, &[0; 1], then)
        }
    }

    pub(super) fn any_sizes(of: &Identity) -> Any {
        Any(RawLogStore::create_replica(Disk::new(9), of, &LogOptions::default()).unwrap())
    }
}

mod reshards {
    use super::*;
    use mainstay_store::{LogResharding, Resharding};

    pub(super) fn fixed_sizes(
        store: &RawStore<Disk>,
        to: Disk,
        shard_bits: u32,
    ) -> Resharding<'_, Disk, Disk> {
        let options = Options { shards: 4, shard_bits, ..Options::default() };
        store.reshard_into(to, &options).unwrap()
    }

    pub(super) fn any_sizes(
        store: &RawLogStore<Disk>,
        to: Disk,
        shard_bits: u32,
    ) -> LogResharding<'_, Disk, Disk> {
        let options = LogOptions { shards: 4, shard_bits, ..LogOptions::default() };
        store.reshard_into(to, &options).unwrap()
    }
}

mod refusals {
    use super::*;

    pub(super) fn fixed_sizes(shard_bits: u32) -> Error {
        let options = Options { shard_bits, ..Options::default() };
        RawStore::create(Disk::new(7), 8, 8, &options).err().unwrap()
    }

    pub(super) fn any_sizes(shard_bits: u32) -> Error {
        let options = LogOptions { shard_bits, ..LogOptions::default() };
        RawLogStore::create(Disk::new(7), &options).err().unwrap()
    }
}

#[test]
fn a_key_has_to_have_the_bits_that_choose_its_shard() {
    let create = |shard_bits| {
        RawStore::create(Disk::new(7), 2, 3, &Options { shard_bits, ..Options::default() })
    };
    assert!(matches!(create(17), Err(Error::OutOfLimits { what: "shard_bits", .. })));
    let whole = create(16).unwrap();
    let all = create(0).unwrap();
    assert!((0..=u8::MAX).all(|it| whole.shard(&[it, 7]).unwrap() == all.shard(&[it, 7]).unwrap()));
}

#[test]
fn other_processes_find_keys_as_the_owner_does() {
    let dir = tempfile::tempdir().unwrap();
    let store = RawStore::create(Directory::lock(dir.path()).unwrap(), 8, 8, &fixed()).unwrap();
    for key in keys() {
        store.put(&key, &key, Memory).unwrap();
    }
    let reader = Reader::open(dir.path()).unwrap();
    assert!(keys().all(|key| reader.get(&key).unwrap().as_deref() == Some(&key[..])));
    store.close().unwrap();
    let stored = OnDisk::open(dir.path()).unwrap();
    assert_eq!(stored.shard_bits(), BITS);
    assert!(keys().all(|key| stored.get(&key).unwrap().as_deref() == Some(&key[..])));
}

/// Where the flags and the bits are in a header of each kind.
#[test]
fn a_header_that_has_bits_and_not_the_flag_that_says_so_is_not_believed() {
    let of_fixed = Disk::new(7);
    drop(RawStore::create(of_fixed.clone(), 8, 8, &fixed()).unwrap());
    let of_any = Disk::new(7);
    drop(RawLogStore::create(of_any.clone(), &any()).unwrap());
    let opened = |disk: &Disk, name: &str| match name {
        "store" => RawStore::open(disk.clone(), &Options::default()).err(),
        _ => RawLogStore::open(disk.clone(), &LogOptions::default()).err(),
    };
    for (disk, name) in [(of_fixed, "store"), (of_any, "any")] {
        assert_eq!(opened(&disk, name).map(|error| error.to_string()), None);
        let file = disk.file(name);
        for copy in [0, 512] {
            let mut header = [0; 128];
            file.read_at(copy, &mut header).unwrap();
            assert_eq!(header[12] & 2, 2, "older builds do not know it, and refuse");
            header[12] &= !2;
            let sum = mainstay_base::crc32c(&header[..124]);
            header[124..].copy_from_slice(&sum.to_le_bytes());
            file.write_at(copy, &header).unwrap();
        }
        file.sync().unwrap();
        assert!(matches!(opened(&disk, name), Some(Error::Damaged { .. })));
    }
}
