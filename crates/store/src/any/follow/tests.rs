use std::collections::BTreeMap;

use mainstay_base::Rng;
use mainstay_sim::Disk;
use mainstay_storage::Folder;

use crate::{
    Change,
    Durability::Memory,
    Error, Found, History, Identity, LogOptions, LogScan, Position, RawLogStore, Reached, Role,
    limits::SEGMENT_BYTES_MIN,
    planted::{Fault, plant},
    read_records,
};

type Records = BTreeMap<Vec<u8>, (Vec<u8>, u64)>;

fn options() -> LogOptions {
    let segment_bytes = SEGMENT_BYTES_MIN;
    LogOptions { shards: 1, segment_bytes, threads: 1, dead_percent: 30, ..LogOptions::default() }
}

fn pair() -> (RawLogStore<Disk>, RawLogStore<Disk>) {
    let leader = RawLogStore::create(Disk::new(1), &options()).unwrap();
    let replica = RawLogStore::create_replica(Disk::new(2), &leader.identity(), &options());
    (leader, replica.unwrap())
}

fn reopened(store: RawLogStore<Disk>) -> RawLogStore<Disk> {
    let disk = store.folder.clone();
    drop(store);
    RawLogStore::open(disk, &options()).unwrap()
}

/// All records, with when they end.
fn contents<F: Folder>(store: &RawLogStore<F>) -> Records {
    let (mut records, mut scan) = (Records::new(), LogScan::default());
    let show = |key: &[u8], record: &[u8]| {
        let (change, end) = read_records(record, 1).unwrap()[0];
        let Change::Put(of, value) = change else { panic!("a delete is shown") };
        assert_eq!(of, key);
        assert_eq!(records.insert(key.to_vec(), (value.to_vec(), end)), None, "shown twice");
    };
    assert!(!store.scan(0, &mut scan, (usize::MAX, u64::MAX), |_| true, show).unwrap());
    records
}

fn at<F: Folder>(store: &RawLogStore<F>) -> Position {
    store.history(0).unwrap().position().unwrap()
}

/// Brings a replica up to date by the log alone; how many writes it got, or why it got no more.
fn follow<F: Folder>(leader: &RawLogStore<F>, replica: &RawLogStore<F>) -> Result<usize, String> {
    let mut tail = match leader.tail(0, at(replica)).unwrap() {
        Found::Here(tail) => tail,
        Found::Older => return Err("older".to_owned()),
        Found::Foreign => return Err("foreign".to_owned()),
    };
    let mut writes = 0;
    loop {
        let mut read = Vec::new();
        let reached = leader
            .read_tail(&mut tail, 5_000, |written| {
                read.push((written.position, written.count, written.changes.to_vec()));
            })
            .map_err(|error| error.to_string())?;
        for (position, count, changes) in read {
            let there = replica.apply(0, position.epoch, count, &changes);
            if there.as_ref().ok() != Some(&position) {
                return Err(format!("{there:?} instead of {position:?}"));
            }
            writes += 1;
        }
        match reached {
            Reached::End => return Ok(writes),
            Reached::More => {}
            Reached::Cut => return Err("cut".to_owned()),
        }
    }
}

#[test]
fn v13_a_replica_that_took_the_log_is_at_the_leaders_place_also_when_both_are_opened_again() {
    let (leader, replica) = pair();
    for round in 0..100_u8 {
        leader.put(&[round % 7], &vec![round; 50 * usize::from(round)], Memory).unwrap();
        if round % 5 == 0 {
            leader.delete(&[(round / 5) % 7], Memory).unwrap();
        }
        if round % 9 == 0 {
            follow(&leader, &replica).unwrap();
            leader.compact().unwrap();
        }
    }
    follow(&leader, &replica).unwrap();
    assert_eq!((at(&leader), contents(&leader)), (at(&replica), contents(&replica)));
    let (place, records) = (at(&replica), contents(&replica));
    replica.compact().unwrap();
    assert_eq!(at(&replica), place, "compaction is no write");
    let replica = reopened(replica);
    assert_eq!(replica.role(), Role::Follower);
    assert_eq!((at(&replica), contents(&replica)), (place, records));
    let disk = leader.folder.clone();
    leader.close().unwrap();
    let leader = RawLogStore::open(disk, &options()).unwrap();
    assert_eq!(at(&leader), place, "closing and opening are no writes");
    leader.put(&[1], &[1; 900], Memory).unwrap();
    assert_eq!(follow(&leader, &replica), Ok(1));
    assert_eq!(contents(&leader), contents(&replica));
}

#[test]
fn v13_what_ends_arrives_with_its_end_and_is_swept_by_the_leader_alone() {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    };
    let time = Arc::new(AtomicU64::new(1_000));
    let (leader, replica) = pair();
    let with_clock = |store: RawLogStore<Disk>| {
        let clock = Arc::clone(&time);
        store.with_clock(move || clock.load(Relaxed))
    };
    let (leader, replica) = (with_clock(leader), with_clock(replica));
    let minute = Some(std::time::Duration::from_secs(60));
    leader.put_for(b"de", b"49", minute, Memory).unwrap();
    leader.put(b"fr", b"33", Memory).unwrap();
    follow(&leader, &replica).unwrap();
    assert_eq!(replica.left(b"de").unwrap(), Some(minute));
    time.fetch_add(60_000, Relaxed);
    assert_eq!(replica.get(b"de").unwrap(), None);
    let place = at(&replica);
    replica.upkeep().unwrap();
    assert_eq!((replica.sweep(10).unwrap(), at(&replica)), (0, place), "A15");
    assert_eq!(leader.sweep(10).unwrap(), 1);
    follow(&leader, &replica).unwrap();
    assert_eq!((contents(&replica).len(), contents(&leader)), (1, contents(&replica)));
}

#[test]
fn a_place_that_the_leader_never_was_at_is_foreign_and_one_before_its_log_is_older() {
    let (leader, replica) = pair();
    for round in 0..20 {
        leader.put(&[round % 3], &[round; 900], Memory).unwrap();
    }
    follow(&leader, &replica).unwrap();
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
        leader.put(&[round % 3], &[round; 900], Memory).unwrap();
    }
    leader.compact().unwrap();
    assert!(matches!(leader.tail(0, Position::START), Ok(Found::Older)));
    assert!(matches!(leader.tail(0, at(&leader)), Ok(Found::Here(_))));
}

/// A log of which a middle segment is gone: who reads before it must not go on behind it.
fn hole() -> (Result<usize, String>, bool) {
    let (leader, replica) = pair();
    for round in 0..60 {
        // The first segment stays alive, those behind it die.
        let key = if round < 14 { round } else { 100 };
        leader.put(&[key], &[round; 900], Memory).unwrap();
    }
    leader.compact().unwrap();
    let followed = follow(&leader, &replica);
    (followed, contents(&leader) == contents(&replica))
}

#[test]
fn v14_who_reads_before_a_segment_that_is_gone_is_told_so() {
    let (followed, is_equal) = hole();
    assert_eq!((followed, is_equal), (Err("cut".to_owned()), false));
    plant(Some(Fault::HolesIgnored));
    let (followed, _) = hole();
    plant(None);
    assert_ne!(followed, Err("cut".to_owned()), "the fault is found");
}

#[test]
fn v13_moved_records_counted_as_writes_are_found() {
    let moves = || {
        let (leader, _) = pair();
        for round in 0..60 {
            let key = if round % 7 == 0 { round } else { 100 };
            leader.put(&[key], &[round; 900], Memory).unwrap();
        }
        leader.compact().unwrap();
        at(&leader).sequence
    };
    assert_eq!(moves(), 60);
    plant(Some(Fault::MovedCounted));
    let counted = moves();
    plant(None);
    assert_ne!(counted, 60);
}

#[test]
fn v15_what_a_follower_needs_stays_and_goes_when_it_is_not_needed_any_more() {
    let retained = || {
        let (leader, replica) = pair();
        leader.retain(0, Some(0)).unwrap();
        for round in 0..60 {
            leader.put(&[round % 3], &[round; 900], Memory).unwrap();
            leader.tend().unwrap();
        }
        leader.compact().unwrap();
        let followed = follow(&leader, &replica);
        leader.retain(0, None).unwrap();
        leader.compact().unwrap();
        assert!(leader.stats()[0].segments < 3, "{:?}", leader.stats());
        followed
    };
    assert_eq!(retained(), Ok(60));
    plant(Some(Fault::RetainIgnored));
    let lost = retained();
    plant(None);
    assert!(lost.is_err(), "{lost:?}");
}

#[test]
fn v13_a_replica_that_was_catching_up_says_so_after_a_crash_and_is_not_promoted() {
    let (leader, replica) = pair();
    leader.put(&[1], &[1; 900], Memory).unwrap();
    follow(&leader, &replica).unwrap();
    let mending = History::Mending(Position::START);
    replica.mend(0, &[Change::Put(&[2], &[2; 900])], &[7], mending).unwrap();
    let refused = replica.apply(0, 9, 0, &[]);
    assert!(matches!(refused, Err(Error::Foreign { .. })), "{refused:?}");
    let record = leader.record(&[1]).unwrap().unwrap();
    let refused = replica.apply(0, 9, 1, &record);
    assert!(matches!(refused, Err(Error::Mending { shard: 0 })), "{refused:?}");
    replica.sync().unwrap();
    let disk = replica.folder.clone();
    drop(replica);
    disk.power_cut();
    let replica = RawLogStore::open(disk.clone(), &options()).unwrap();
    assert_eq!(replica.history(0).unwrap(), mending);
    assert!(matches!(replica.promote(1), Err(Error::Mending { shard: 0 })));
    let replica = RawLogStore::open(disk, &options()).unwrap();
    let there = Position { epoch: 5, sequence: 77, sum: 3 };
    replica.mend(0, &[Change::Delete(&[1])], &[], History::At(there)).unwrap();
    assert_eq!((at(&replica), contents(&replica)[&vec![2]].1), (there, 7));
    assert!(matches!(replica.tail(0, Position::START), Ok(Found::Older)));
    replica.set_whole(true).unwrap();
    let promoted = replica.promote(1).unwrap();
    promoted.put(&[3], &[3; 900], Memory).unwrap();
    assert_eq!((at(&promoted).sequence, at(&promoted).epoch), (78, promoted.epoch()));
    let Found::Here(mut tail) = promoted.tail(0, there).unwrap() else { panic!("not there") };
    let mut seen = 0;
    promoted.read_tail(&mut tail, 1000, |_| seen += 1).unwrap();
    assert_eq!(seen, 1);
    let promoted = reopened(promoted);
    assert_eq!(at(&promoted).sequence, 78);
    assert!(matches!(promoted.tail(0, there), Ok(Found::Here(_))));
}

#[test]
fn a_leader_that_is_fenced_takes_no_writes_and_follows_when_it_is_opened_again() {
    let (leader, _) = pair();
    leader.put(&[1], &[1], Memory).unwrap();
    leader.fence(leader.epoch() + 10).unwrap();
    for refused in [
        leader.put(&[1], &[2], Memory).map(drop),
        leader.delete(&[1], Memory).map(drop),
        leader.batch_across(&[Change::Put(&[1], &[2])]).map(drop),
    ] {
        assert!(matches!(refused, Err(Error::Replaced { .. })), "{refused:?}");
    }
    let leader = reopened(leader);
    assert_eq!(leader.role(), Role::Follower);
    assert!(matches!(leader.put(&[1], &[2], Memory), Err(Error::Follows)));
    let promoted = leader.promote(3).unwrap();
    assert_eq!(promoted.role(), Role::Leader);
    promoted.put(&[1], &[2], Memory).unwrap();
    let record = promoted.record(&[1]).unwrap().unwrap();
    assert!(matches!(promoted.apply(0, 1, 1, &record), Err(Error::Leads)));
}

#[test]
fn what_is_no_write_of_this_shard_is_refused_and_changes_nothing() {
    let (leader, replica) = pair();
    leader.put(&[1], &[1; 90], Memory).unwrap();
    let record = leader.record(&[1]).unwrap().unwrap();
    for at in 0..record.len() {
        let mut wrong = record.clone();
        wrong[at] ^= 1;
        for (count, bytes) in [(1, &wrong[..]), (1, &record[..at]), (2, &record[..])] {
            let refused = replica.apply(0, 1, count, bytes);
            assert!(matches!(refused, Err(Error::Foreign { .. })), "{at}: {refused:?}");
        }
    }
    assert_eq!((at(&replica), contents(&replica).len()), (Position::START, 0));
    let two = LogOptions { shards: 2, ..options() };
    let other = Identity { shards: 2, ..leader.identity() };
    let replica = RawLogStore::create_replica(Disk::new(3), &other, &two).unwrap();
    let wrong = 1 - replica.shard(&[1]).unwrap();
    let refused = replica.apply(wrong, 1, 1, &record);
    assert!(matches!(refused, Err(Error::Foreign { .. })), "{refused:?}");
}

#[test]
fn v13_after_a_power_cut_a_replica_has_what_its_place_says() {
    let mut cuts = 0;
    for seed in 0..60 {
        let mut rng = Rng::seeded(seed);
        let (leader, mut replica) = pair();
        let disk = replica.folder.clone();
        let mut seen = BTreeMap::from([(Position::START, Records::new())]);
        for round in 0..120_u32 {
            let key = [rng.below(12) as u8];
            if rng.below(5) == 0 {
                leader.delete(&key, Memory).unwrap();
            } else {
                let value = vec![round as u8; rng.below(1_500) as usize];
                leader.put(&key, &value, Memory).unwrap();
            }
            seen.insert(at(&leader), contents(&leader));
            if rng.below(3) == 0 {
                follow(&leader, &replica).unwrap();
            }
            if rng.below(9) == 0 {
                replica.compact().unwrap();
            }
            if rng.below(12) == 0 {
                drop(replica);
                disk.power_cut();
                cuts += 1;
                replica = RawLogStore::open(disk.clone(), &options()).unwrap();
                let there = seen.get(&at(&replica));
                assert_eq!(there, Some(&contents(&replica)), "seed {seed}, round {round}");
            }
        }
    }
    assert!(cuts > 100, "{cuts} cuts");
}

#[test]
fn the_write_of_a_token_is_found_in_the_history_or_one_behind_it_where_compaction_moved_something()
{
    let (leader, replica) = pair();
    let (mut tokens, mut exact) = (Vec::new(), 0);
    for written in 1..=150 {
        let value = vec![written as u8; 400 + 9 * written as usize];
        let token = leader.put(&[(written % 11) as u8], &value, Memory).unwrap();
        tokens.push((token, written));
        assert_eq!(leader.sequence_of(token).unwrap(), written, "the last one");
        if written % 20 == 0 {
            leader.compact().unwrap();
        }
        for (token, of) in &tokens {
            let found = leader.sequence_of(*token).unwrap();
            assert!((*of..=written).contains(&found), "{found} is not {of}");
            exact += usize::from(found == *of);
        }
    }
    assert!(tokens.last().unwrap().0.sequence > 170, "nothing was moved");
    let all = tokens.len() * (tokens.len() + 1) / 2;
    assert!(exact > all / 10 && exact < all, "{exact} of {all}");
    // Where the shard was put at another place, what was before says nothing.
    let there = History::At(Position { epoch: 3, sequence: 70, sum: 0x5eed });
    replica.mend(0, &[Change::Put(b"de", b"49")], &[0], there).unwrap();
    replica.set_whole(true).unwrap();
    let replica = replica.promote(7).unwrap();
    let token = replica.put(b"de", b"49", Memory).unwrap();
    assert_eq!(replica.sequence_of(token).unwrap(), 71);
    let foreign = leader.sequence_of(token);
    assert!(matches!(foreign, Err(Error::OtherEpoch { .. })), "{foreign:?}");
}
