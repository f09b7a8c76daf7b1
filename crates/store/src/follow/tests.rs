use std::collections::BTreeMap;

use mainstay_base::Rng;
use mainstay_sim::{Disk, DiskFaults, Storage};
use mainstay_storage::Folder;

use crate::{
    Change, Durability, Error, Found, History, Options, Position, RawStore, Reached, Role, Survey,
    Token,
    follow::more_expected,
    limits::{EXPECTED_MAX, SEGMENT_BYTES_MIN},
    machine::{Machine, SOUND, disk},
    write_changes,
};

fn options() -> Options {
    Options { shards: 1, segment_bytes: SEGMENT_BYTES_MIN, threads: 1, ..Options::default() }
}

fn pair(value: usize) -> (RawStore<Disk>, RawStore<Disk>) {
    let leader = RawStore::create(Disk::new(1), 1, value, &options()).unwrap();
    let replica = RawStore::create_replica(Disk::new(2), &leader.identity(), &options()).unwrap();
    (leader, replica)
}

fn contents<F: Folder>(store: &RawStore<F>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut records = BTreeMap::new();
    store.for_each(|key, value| drop(records.insert(key.to_vec(), value.to_vec()))).unwrap();
    records
}

fn at<F: Folder>(store: &RawStore<F>) -> Position {
    store.history(0).unwrap().position().unwrap()
}

/// Brings a replica up to date by the log alone.
fn follow<F: Folder>(leader: &RawStore<F>, replica: &RawStore<F>) -> usize {
    let Found::Here(mut tail) = leader.tail(0, at(replica)).unwrap() else { panic!("not there") };
    let mut writes = 0;
    loop {
        let mut read = Vec::new();
        let reached = leader
            .read_tail(&mut tail, 5_000, |written| {
                read.push((written.position, written.count, written.changes.to_vec()));
            })
            .unwrap();
        for (position, count, changes) in read {
            assert_eq!(replica.apply(0, position.epoch, count, &changes).unwrap(), position);
            writes += 1;
        }
        if reached == Reached::End {
            return writes;
        }
    }
}

#[test]
fn a7_a_replica_that_took_the_log_is_at_the_leaders_place_also_when_both_are_opened_again() {
    let (leader, replica) = pair(900);
    for round in 0..100_u8 {
        leader.put(&[round % 7], &[round; 900], Durability::Memory).unwrap();
        if round % 5 == 0 {
            leader.delete(&[(round / 5) % 7], Durability::Memory).unwrap();
        }
    }
    assert!(leader.stats()[0].segments > 3, "the log has several segments");
    assert!(follow(&leader, &replica) >= 100);
    assert_eq!((at(&leader), contents(&leader)), (at(&replica), contents(&replica)));
    let (place, records) = (at(&replica), contents(&replica));
    replica.compact().unwrap();
    let disk = replica.folder.clone();
    drop(replica);
    let replica = RawStore::open(disk, &options()).unwrap();
    assert_eq!(replica.role(), Role::Follower);
    assert_eq!((at(&replica), contents(&replica)), (place, records));
    replica.verify().unwrap();
    let disk = leader.folder.clone();
    drop(leader);
    let leader = RawStore::open(disk, &options()).unwrap();
    assert_eq!(at(&leader), place, "opening is no write");
    leader.put(&[1], &[1; 900], Durability::Memory).unwrap();
    assert_eq!(follow(&leader, &replica), 1);
    assert_eq!(contents(&leader), contents(&replica));
}

#[test]
fn a_place_that_the_leader_never_was_at_is_foreign_and_one_before_its_log_is_older() {
    let (leader, replica) = pair(900);
    for round in 0..20 {
        leader.put(&[round], &[round; 900], Durability::Memory).unwrap();
    }
    follow(&leader, &replica);
    let tip = at(&leader);
    for nowhere in [
        Position { sum: tip.sum ^ 1, ..tip },
        Position { epoch: tip.epoch + 1, ..tip },
        Position { sequence: tip.sequence + 1, ..tip },
        Position { sequence: tip.sequence - 1, ..tip },
        Position { sequence: 0, ..tip },
    ] {
        assert!(matches!(leader.tail(0, nowhere), Ok(Found::Foreign)), "{nowhere:?}");
    }
    for round in 0..60 {
        leader.put(&[round % 3], &[round; 900], Durability::Memory).unwrap();
    }
    leader.compact().unwrap();
    assert!(matches!(leader.tail(0, tip), Ok(Found::Older)));
    assert!(matches!(leader.tail(0, at(&leader)), Ok(Found::Here(_))));
}

#[test]
fn a_reader_whose_log_is_cut_under_it_is_told_so_and_one_at_the_end_goes_on() {
    let (leader, _) = pair(900);
    leader.put(&[0], &[0; 900], Durability::Memory).unwrap();
    let Found::Here(mut slow) = leader.tail(0, Position::START).unwrap() else { panic!() };
    for round in 0..60 {
        leader.put(&[round % 3], &[round; 900], Durability::Memory).unwrap();
    }
    let Found::Here(mut quick) = leader.tail(0, at(&leader)).unwrap() else { panic!() };
    leader.compact().unwrap();
    assert_eq!(leader.read_tail(&mut slow, 1000, |_| {}).unwrap(), Reached::Cut);
    assert_eq!(leader.read_tail(&mut quick, 1000, |_| {}).unwrap(), Reached::End);
    leader.put(&[0], &[9; 900], Durability::Memory).unwrap();
    let mut seen = 0;
    leader.read_tail(&mut quick, 1000, |written| seen += written.count).unwrap();
    assert_eq!((seen, quick.position()), (1, at(&leader)));
}

#[test]
fn a7_a_replica_that_was_catching_up_says_so_after_a_crash_and_is_not_promoted() {
    let (leader, replica) = pair(900);
    leader.put(&[1], &[1; 900], Durability::Memory).unwrap();
    follow(&leader, &replica);
    replica.mend(0, &[Change::Put(&[2], &[2; 900])], History::Mending(Position::START)).unwrap();
    let refused = replica.apply(0, 9, 0, &[]);
    assert!(matches!(refused, Err(Error::Mending { shard: 0 })), "{refused:?}");
    replica.sync().unwrap();
    let disk = replica.folder.clone();
    drop(replica);
    disk.power_cut();
    let replica = RawStore::open(disk.clone(), &options()).unwrap();
    assert_eq!(replica.history(0).unwrap(), History::Mending(Position::START));
    assert!(matches!(replica.promote(1), Err(Error::Mending { shard: 0 })));
    let replica = RawStore::open(disk, &options()).unwrap();
    let there = Position { epoch: 5, sequence: 77, sum: 3 };
    replica.mend(0, &[Change::Delete(&[1])], History::At(there)).unwrap();
    assert_eq!(at(&replica), there);
    assert!(matches!(replica.tail(0, Position::START), Ok(Found::Older)));
    replica.set_whole(true).unwrap();
    let promoted = replica.promote(1).unwrap();
    promoted.put(&[3], &[3; 900], Durability::Memory).unwrap();
    assert_eq!(at(&promoted).sequence, 78);
    assert!(matches!(promoted.tail(0, there), Ok(Found::Here(_))));
}

#[test]
fn a7_after_any_power_cut_a_replica_is_at_the_place_whose_records_it_has() {
    let (leader, replica) = pair(700);
    let mut states = BTreeMap::from([(Position::START, BTreeMap::new())]);
    for round in 0..60_u8 {
        leader.put(&[round % 5], &[round; 700], Durability::Memory).unwrap();
        states.insert(at(&leader), contents(&leader));
    }
    follow(&leader, &replica);
    let mut opened = 0;
    for image in replica.folder.crash_images(60) {
        image.set_faults(DiskFaults::NONE);
        let replica = RawStore::open(image, &options()).unwrap();
        assert_eq!(states.get(&at(&replica)), Some(&contents(&replica)));
        opened += 1;
    }
    println!("opened {opened} disks of a replica");
    assert!(opened > 10, "{opened}");
}

#[test]
fn a8_local_writes_of_a_replica_are_refused_and_a_leaders_writes_by_a_leader() {
    let (leader, replica) = pair(1);
    assert!(matches!(replica.put(&[1], &[1], Durability::Memory), Err(Error::Follows)));
    assert!(matches!(replica.delete(&[1], Durability::Memory), Ok(None)));
    let batch = [Change::Put(&[1], &[1])];
    assert!(matches!(replica.batch(&batch, Durability::Memory), Err(Error::Follows)));
    assert!(matches!(leader.apply(0, 1, 0, &[]), Err(Error::Leads)));
    assert!(matches!(leader.mend(0, &[], History::Mending(Position::START)), Err(Error::Leads)));
    assert_eq!(at(&replica), Position::START);
}

#[test]
fn a8_a_leader_that_hears_of_a_newer_one_takes_no_more_writes_also_when_opened_again() {
    let (leader, _) = pair(1);
    leader.put(&[1], &[1], Durability::Memory).unwrap();
    let (epoch, disk) = (leader.epoch(), leader.folder.clone());
    leader.fence(epoch).unwrap();
    leader.put(&[1], &[2], Durability::Memory).unwrap();
    leader.fence(epoch + 1).unwrap();
    let refused = leader.put(&[1], &[3], Durability::Memory);
    assert!(matches!(refused, Err(Error::Replaced { by, .. }) if by == epoch + 1), "{refused:?}");
    drop(leader);
    let again = RawStore::open(disk, &options()).unwrap();
    assert!(matches!(again.put(&[1], &[3], Durability::Memory), Err(Error::Follows)));
    assert_eq!(again.known_epoch(), epoch + 1);
    let again = again.promote(7).unwrap();
    assert!(again.epoch() > epoch + 1);
    again.put(&[1], &[3], Durability::Memory).unwrap();
}

#[test]
fn what_is_no_change_of_this_shard_is_refused_and_changes_nothing() {
    let two = Options { shards: 2, ..options() };
    let leader = RawStore::create(Disk::new(1), 1, 1, &two).unwrap();
    let replica = RawStore::create_replica(Disk::new(2), &leader.identity(), &two).unwrap();
    let key = (0..=255).find(|key| leader.shard(&[*key]).unwrap() == 1).unwrap();
    let mut changes = Vec::new();
    write_changes(&[Change::Put(&[key], &[1])], &mut changes);
    for (shard, count, bytes) in [
        (0, 1, &changes[..]),
        (1, 2, &changes),
        (1, 0, &changes),
        (1, 1, &changes[..2]),
        (1, 1, b""),
    ] {
        let refused = replica.apply(shard, 1, count, bytes);
        assert!(matches!(refused, Err(Error::Foreign { .. })), "{shard} {count}: {refused:?}");
    }
    assert!(matches!(replica.apply(2, 1, 1, &changes), Err(Error::OutOfLimits { .. })));
    assert_eq!(contents(&replica).len(), 0);
    replica.apply(1, 1, 1, &changes).unwrap();
    assert_eq!(contents(&replica).len(), 1);
}

#[test]
fn a_record_set_aside_behind_one_that_was_cut_short_is_a_line_of_its_own() {
    let (_, replica) = pair(1);
    let file = replica.folder.file("aside-0000-0-0");
    file.write_at(0, br#"{"key":"01","va"#).unwrap();
    replica.set_aside(0, Position::START, [(&[2][..], &[3][..])]).unwrap();
    replica.set_aside(0, Position::START, [(&[4][..], &[5][..])]).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(0, &mut bytes).unwrap();
    let lines = String::from_utf8(bytes).unwrap();
    let lines: Vec<&str> = lines.lines().skip(1).collect();
    let line = |key, value| format!(r#"{{"key_hex":"{key}","value_hex":"{value}"}}"#);
    assert_eq!(lines, [line("02", "03"), line("04", "05")]);
}

/// Another process opens what a dead one had open, and goes on with its memory.
fn after_kill(store: RawStore<Machine>) -> RawStore<Machine> {
    let machine = store.folder.clone();
    machine.disk.kill();
    drop(store);
    let store = RawStore::open(machine, &options()).unwrap();
    assert!(store.stats()[0].adopted);
    store
}

#[test]
fn writes_that_are_in_the_ring_only_are_followed_and_also_after_a_kill() {
    let machine = |seed| Machine::new(Disk::new(seed), true);
    let leader = RawStore::create(machine(1), 1, 900, &options()).unwrap();
    let identity = leader.identity();
    let replica = RawStore::create_replica(machine(2), &identity, &options()).unwrap();
    for round in 0..50_u8 {
        leader.put(&[round % 7], &[round; 900], Durability::Memory).unwrap();
        assert_eq!(follow(&leader, &replica), 1);
    }
    assert!(leader.stats()[0].segments > 2, "the log has several segments");
    for round in 0..3 {
        leader.put(&[round], &[99; 900], Durability::Memory).unwrap();
    }
    let (behind, tip) = (at(&replica), at(&leader));
    let (leader, replica) = (after_kill(leader), after_kill(replica));
    assert_eq!((at(&leader), at(&replica)), (tip, behind));
    assert_eq!(follow(&leader, &replica), 3);
    assert_eq!(contents(&leader), contents(&replica));
    // All of the log is still there, for one that has nothing.
    let other = RawStore::create_replica(machine(3), &identity, &options()).unwrap();
    assert_eq!(follow(&leader, &other), 53);
    assert_eq!(contents(&leader), contents(&other));
}

#[test]
fn a7_a_replica_that_is_killed_while_catching_up_says_so_and_its_log_is_not_followed_across() {
    let machine = |seed| Machine::new(Disk::new(seed), true);
    let leader = RawStore::create(machine(1), 1, 900, &options()).unwrap();
    let replica = RawStore::create_replica(machine(2), &leader.identity(), &options()).unwrap();
    leader.put(&[1], &[1; 900], Durability::Memory).unwrap();
    follow(&leader, &replica);
    let before = at(&replica);
    let mending = History::Mending(before);
    replica.mend(0, &[Change::Put(&[2], &[2; 900])], mending).unwrap();
    let replica = after_kill(replica);
    assert_eq!(replica.history(0).unwrap(), mending);
    assert_eq!(contents(&replica).len(), 2);
    let there = Position { epoch: 5, sequence: 77, sum: 3 };
    replica.mend(0, &[Change::Delete(&[1])], History::At(there)).unwrap();
    // So many more that the note is in no segment that an adoption reads.
    let mut changes = Vec::new();
    write_changes(&[Change::Put(&[3], &[3; 900])], &mut changes);
    for _ in 0..50 {
        replica.apply(0, 6, 1, &changes).unwrap();
    }
    assert!(replica.stats()[0].segments > 2, "the log has several segments");
    let tip = at(&replica);
    let replica = after_kill(replica);
    assert_eq!(at(&replica), tip);
    assert!(matches!(replica.tail(0, there), Ok(Found::Here(_))));
    assert!(matches!(replica.tail(0, before), Ok(Found::Older)));
    assert!(matches!(replica.tail(0, Position { sequence: 76, ..there }), Ok(Found::Older)));
}

#[test]
fn the_write_of_a_token_is_counted_as_the_history_does_also_after_a_promotion() {
    let (leader, replica) = pair(3);
    leader.put(b"d", b"049", Durability::Memory).unwrap();
    let at = replica.history(0).unwrap();
    let History::At(start) = at else { panic!("an empty replica is at the start") };
    // Frames of the log that are no writes of the history.
    replica.mend(0, &[Change::Put(b"d", b"049")], History::Mending(start)).unwrap();
    replica.mend(0, &[], leader.history(0).unwrap()).unwrap();
    replica.set_whole(true).unwrap();
    let store = replica.promote(7).unwrap();
    let first = store.put(b"f", b"033", Durability::Memory).unwrap();
    let second = store.put(b"i", b"039", Durability::Memory).unwrap();
    assert_eq!((first.sequence, second.sequence), (3, 4));
    assert_eq!(store.sequence_of(first).unwrap(), 2);
    assert_eq!(store.sequence_of(second).unwrap(), 3);
    let other = Token { epoch: first.epoch + 1, ..first };
    assert!(matches!(store.sequence_of(other), Err(Error::OtherEpoch { .. })));
}

/// A replica with some writes of its leader, none of which its log says was durable.
fn with_burst(count: u8) -> (RawStore<Disk>, RawStore<Disk>) {
    let (leader, replica) = pair(20);
    for round in 0..count {
        leader.put(&[round], &[round; 20], Durability::Memory).unwrap();
    }
    assert_eq!(follow(&leader, &replica), usize::from(count));
    (leader, replica)
}

/// The segment of a disk that has one only.
fn segment(disk: &Disk) -> (String, Vec<u8>) {
    let name = Folder::names(disk).unwrap().into_iter().find(|name| name.ends_with(".log"));
    let name = name.unwrap();
    let file = Folder::file(disk, &name).unwrap();
    let mut bytes = vec![0; Storage::len(&file).unwrap() as usize];
    file.read_at(0, &mut bytes).unwrap();
    (name, bytes)
}

/// Turns a bit in the last frame of the log, and what `verify` and an opening say of it.
fn with_a_damaged_end(disk: &Disk) -> (bool, Option<Error>) {
    let (name, bytes) = segment(disk);
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let file = Folder::file(disk, &name).unwrap();
    file.write_at(end as u64, &[bytes[end] ^ 1]).unwrap();
    file.sync().unwrap();
    let is_sound = Survey::over(disk, |_, _| {}).unwrap().is_sound();
    (is_sound, RawStore::open(disk.clone(), &options()).err())
}

#[test]
fn a4_damage_at_the_end_of_a_followers_log_is_told_once_all_of_it_was_durable() {
    type End = fn(RawStore<Disk>);
    let ways: [(&str, End); 5] = [
        ("closed", |replica| replica.close().unwrap()),
        ("vouched for", |replica| replica.vouch().unwrap()),
        ("idle", |replica| {
            replica.tend().unwrap();
            replica.tend().unwrap();
        }),
        ("opened again", |replica| {
            replica.sync().unwrap();
            let disk = replica.folder.clone();
            drop(replica);
            drop(RawStore::open(disk, &options()).unwrap());
        }),
        ("closed after more than was vouched for", |replica| {
            replica.vouch().unwrap();
            let at = at(&replica);
            replica.apply(0, at.epoch, 0, &[]).unwrap();
            replica.close().unwrap();
        }),
    ];
    for (how, end) in ways {
        let (_leader, replica) = with_burst(9);
        let disk = replica.folder.clone();
        end(replica);
        let (is_sound, refused) = with_a_damaged_end(&disk);
        assert!(!is_sound, "{how}");
        assert!(matches!(refused, Some(Error::Damaged { .. })), "{how}: {refused:?}");
    }
}

#[test]
fn a_followers_log_whose_end_was_never_durable_is_taken_for_unfinished() {
    let (_leader, replica) = with_burst(9);
    let disk = replica.folder.clone();
    // Written, and not synced: nobody was told that it would stay.
    drop(replica);
    let (is_sound, refused) = with_a_damaged_end(&disk);
    assert!(is_sound && refused.is_none(), "{refused:?}");
    let replica = RawStore::open(disk, &options()).unwrap();
    assert_eq!(at(&replica).sequence, 8);
}

#[test]
fn a_mark_beside_the_log_is_no_write_and_the_log_is_followed_across_it() {
    let (leader, replica) = with_burst(9);
    let (before, whole) = (at(&replica), replica.stats()[0].sequence);
    let half = {
        let mut place = Position::START;
        let Found::Here(mut tail) = replica.tail(0, place).unwrap() else { panic!("not there") };
        let mut left = 4;
        replica
            .read_tail(&mut tail, 5_000, |written| {
                if left > 0 {
                    (left, place) = (left - 1, written.position);
                }
            })
            .unwrap();
        place
    };
    replica.vouch().unwrap();
    assert_eq!((at(&replica), replica.stats()[0].sequence), (before, whole));
    let disk = replica.folder.clone();
    replica.close().unwrap();
    let replica = RawStore::open(disk, &options()).unwrap();
    leader.put(&[200], &[7; 20], Durability::Memory).unwrap();
    assert_eq!(follow(&leader, &replica), 1);
    replica.vouch().unwrap();
    assert!(matches!(replica.tail(0, half).unwrap(), Found::Here(_)), "resumed from within");
    let other = RawStore::create_replica(Disk::new(3), &leader.identity(), &options()).unwrap();
    assert_eq!(follow(&replica, &other), 10);
    assert_eq!((at(&other), contents(&other)), (at(&leader), contents(&leader)));
}

#[test]
fn a4_after_any_power_cut_a_replica_has_all_that_was_vouched_for_and_never_calls_itself_damaged() {
    let mut images = 0;
    for seed in 0..40 {
        let mut rng = Rng::seeded(seed);
        let leader = RawStore::create(Disk::new(seed), 1, 700, &options()).unwrap();
        let disk = disk(seed + 1_000);
        let mut replica =
            RawStore::create_replica(disk.clone(), &leader.identity(), &options()).unwrap();
        let mut places = vec![(at(&leader), contents(&leader))];
        let mut durable = 0;
        for _ in 0..60 {
            match rng.below(8) {
                0 => replica.vouch().unwrap(),
                1 => replica.tend().unwrap(),
                2 => drop(replica.sync().unwrap()),
                3 => {
                    drop(replica);
                    replica = RawStore::open(disk.clone(), &options()).unwrap();
                }
                _ => {
                    leader
                        .put(
                            &[rng.below(9) as u8],
                            &[rng.below(250) as u8; 700],
                            Durability::Memory,
                        )
                        .unwrap();
                    places.push((at(&leader), contents(&leader)));
                    follow(&leader, &replica);
                }
            }
            durable = durable.max(replica.stats()[0].durable);
            if rng.below(3) == 0 {
                // In the middle of a mark as well.
                disk.die_after(rng.below(3));
                let _dies = replica.vouch();
                for image in disk.crash_images(6) {
                    images += 1;
                    image.set_faults(SOUND);
                    let found = RawStore::open(image.clone(), &options()).unwrap();
                    let place = at(&found);
                    assert!(place.sequence >= durable, "seed {seed}: {durable} were durable");
                    let known = places.iter().find(|(known, _)| *known == place);
                    assert_eq!(known.map(|(_, records)| records), Some(&contents(&found)));
                    drop(found);
                    assert!(Survey::over(&image, |_, _| {}).unwrap().is_sound());
                }
                disk.kill();
                drop(replica);
                replica = RawStore::open(disk.clone(), &options()).unwrap();
            }
        }
    }
    println!("opened {images} disks of a replica that vouches");
    assert!(images >= 200, "{images} images");
}

#[test]
fn room_is_made_for_as_many_records_as_are_expected_and_for_one_more_than_the_limit_it_is_not() {
    let limit = EXPECTED_MAX as usize;
    assert_eq!(more_expected(EXPECTED_MAX - 1, 0), limit - 1);
    assert_eq!(
        (more_expected(EXPECTED_MAX, 0), more_expected(EXPECTED_MAX + 1, 0)),
        (limit, limit)
    );
    assert_eq!((more_expected(u64::MAX, 7), more_expected(3, 7)), (limit - 7, 0));
    let (leader, replica) = pair(20);
    for round in 0..50 {
        leader.put(&[round], &[round; 20], Durability::Memory).unwrap();
    }
    replica.expect(0, 5_000).unwrap();
    assert_eq!(replica.records(0).unwrap(), 0);
    follow(&leader, &replica);
    assert_eq!((at(&replica), contents(&replica)), (at(&leader), contents(&leader)));
}
