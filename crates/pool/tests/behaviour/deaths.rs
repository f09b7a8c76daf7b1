//! P2: deaths of real processes, between any two instructions. The crash tests kill at every
//! store; here is what a user sees.

use crate::{
    OnDisk, assert_sound, options, state,
    worker::{Mark, Worker},
};
use mainstay_pool::{BlockId, Error, Kind, LEASE_SLOTS, Offer, Pool, PoolBox, State};
use std::{collections::BTreeSet, time::Duration};
use zerocopy::IntoBytes;

fn offered(pool: &Pool, offer: Offer) -> BTreeSet<BlockId> {
    pool.recover(offer).unwrap().map(|offered| offered.id()).collect()
}

fn set(ids: Vec<BlockId>) -> BTreeSet<BlockId> {
    ids.into_iter().collect()
}

#[test]
fn p2_what_a_killed_process_held_is_taken_back_exactly() {
    let shared = OnDisk::new(options(64));
    let mut other = Worker::start(&shared.path);
    let recoverable = set(other.ask_ids("recoverable 70"));
    let transient = other.ask_ids("transient 40");
    let boxes = set(other.ask_ids("boxes 9"));
    let before = shared.pool.info().unwrap().counts;
    assert_eq!(before.held, 70 + 40 + 9);
    other.kill();

    let report = shared.pool.reap().unwrap();
    assert_eq!((report.slots, report.orphaned, report.freed), (1, 79, 40));
    assert_eq!(report.uncached, before.cached, "nobody else has cached any");
    assert_eq!((report.shared, report.corrupt), (0, 0));
    let all = recoverable.union(&boxes).copied().collect();
    assert_eq!(offered(&shared.pool, Offer::Orphans), all, "P2: every one, and no other");
    for id in transient {
        assert_eq!(state(&shared.pool, id.number), State::Free);
    }
    assert_eq!(shared.pool.reap().unwrap().slots, 0, "a second reap finds nothing to do");
    assert_sound(&shared.pool);
}

#[test]
fn p2_the_data_of_a_killed_process_is_as_it_left_it() {
    let shared = OnDisk::new(options(64));
    let mut other = Worker::start(&shared.path);
    let blocks = set(other.ask_ids("recoverable 300"));
    let boxes = set(other.ask_ids("boxes 20"));
    other.kill();
    let mut seen = BTreeSet::new();
    for offered in shared.pool.recover(Offer::Orphans).unwrap() {
        assert!(offered.is_orphan());
        let id = offered.id();
        assert_eq!(&offered.to_vec()[..16], Mark::of(id.number).as_bytes(), "P2: not torn");
        assert_eq!(offered.is_box(), boxes.contains(&id));
        if offered.is_box() {
            let kept: PoolBox<Mark> = offered.keep_box().unwrap();
            assert_eq!(*kept, Mark::of(id.number));
        } else {
            assert_eq!(offered.keep().unwrap().id(), id, "P2: the same life of the block");
        }
        seen.insert(id);
    }
    assert_eq!(seen, blocks.union(&boxes).copied().collect());
}

#[test]
fn p2_only_what_the_dead_held_is_offered_while_others_live() {
    let shared = OnDisk::new(options(64));
    let (mut dies, mut lives) = (Worker::start(&shared.path), Worker::start(&shared.path));
    let of_dead = set(dies.ask_ids("recoverable 50"));
    let of_living = set(lives.ask_ids("recoverable 50"));
    let mine = shared.pool.allocate(Kind::Recoverable).unwrap();
    let parked = shared.pool.allocate(Kind::Recoverable).unwrap().id();
    dies.kill();
    assert_eq!(offered(&shared.pool, Offer::Orphans), of_dead);
    let mut unheld = of_dead.clone();
    unheld.insert(parked);
    assert_eq!(offered(&shared.pool, Offer::Unheld), unheld);
    for id in of_living {
        assert_eq!(state(&shared.pool, id.number), State::Held);
    }
    assert_eq!(state(&shared.pool, mine.number()), State::Held);
}

#[test]
fn p2_a_block_that_the_dead_shared_with_the_living_stays_with_the_living() {
    let shared = OnDisk::new(options(64));
    let mut other = Worker::start(&shared.path);
    let both = shared.pool.allocate(Kind::Transient).unwrap();
    both.write(0, b"ours").unwrap();
    other.ask(&format!("attach {}", both.id()));
    assert_eq!(shared.pool.block_info(both.number()).unwrap().owners.count_ones(), 2);
    other.kill();
    assert_eq!(shared.pool.reap().unwrap().shared, 1);
    let info = shared.pool.block_info(both.number()).unwrap();
    assert_eq!((info.state, info.owners), (State::Held, 1 << shared.pool.slot()));
    let mut data = [0; 4];
    both.read(0, &mut data).unwrap();
    assert_eq!(&data, b"ours");
}

#[test]
fn p2_two_recoverers_get_disjoint_sets_and_together_everything() {
    let shared = OnDisk::new(options(64));
    let mut dies = Worker::start(&shared.path);
    let mut rival = Worker::start(&shared.path);
    rival.ask("pid"); // it has joined
    let all = set(dies.ask_ids("recoverable 3000"));
    dies.kill();
    rival.tell("recover");
    let mut mine = BTreeSet::new();
    let mut kept = Vec::new();
    for offered in shared.pool.recover(Offer::Orphans).unwrap() {
        if let Ok(block) = offered.keep() {
            mine.insert(block.id());
            kept.push(block);
        }
    }
    let theirs: BTreeSet<BlockId> =
        rival.hear().split_whitespace().map(|id| id.parse().unwrap()).collect();
    assert!(mine.is_disjoint(&theirs), "V1");
    // A recoverer that came too late for an offer may leave none behind: whoever won it has it.
    assert_eq!(mine.union(&theirs).copied().collect::<BTreeSet<_>>(), all);
}

#[test]
fn p2_the_free_list_is_rebuilt_after_kills_in_the_middle_of_work() {
    let shared = OnDisk::new(options(64).growth_step(256).max_blocks(1_024));
    for round in 0..6 {
        let mut other = Worker::start(&shared.path);
        assert_eq!(other.ask("churn"), "churning");
        std::thread::sleep(Duration::from_millis(7 + 5 * round));
        other.kill();
        for offered in shared.pool.recover(Offer::Unheld).unwrap() {
            let mark = offered.to_vec()[..16].to_vec();
            let whole = mark == Mark::of(offered.number()).as_bytes();
            assert!(whole || mark == [0; 16], "P2: torn: {mark:?}");
            offered.free().unwrap();
        }
        shared.pool.flush();
        assert_sound(&shared.pool);
        let counts = shared.pool.info().unwrap().counts;
        assert_eq!(counts.free, shared.pool.info().unwrap().blocks(), "P2: leaked: {counts:?}");
    }
    // Every single block can be had, once.
    let mut numbers = BTreeSet::new();
    let mut held = Vec::new();
    while let Ok(block) = shared.pool.allocate(Kind::Transient) {
        assert!(numbers.insert(block.number()), "P2: handed out twice");
        held.push(block);
    }
    assert_eq!(held.len(), 1_024);
}

#[test]
fn p2_a_reaper_that_is_killed_leaves_its_work_to_the_next() {
    let shared = OnDisk::new(options(64));
    for round in 0..8 {
        let (mut dies, mut reaper) = (Worker::start(&shared.path), Worker::start(&shared.path));
        reaper.ask("pid");
        let all = set(dies.ask_ids("recoverable 2000"));
        dies.kill();
        reaper.tell("reap");
        std::thread::sleep(Duration::from_micros(100 * round));
        reaper.kill();
        assert_eq!(offered(&shared.pool, Offer::Orphans), all, "R2");
        for offered in shared.pool.recover(Offer::Orphans).unwrap() {
            offered.free().unwrap();
        }
        shared.pool.flush();
        assert_eq!(shared.pool.info().unwrap().counts.cached, 0);
        assert_sound(&shared.pool);
    }
}

#[test]
fn p2_a_stopped_process_blocks_nobody_and_is_not_robbed() {
    let shared = OnDisk::new(options(64));
    let mut other = Worker::start(&shared.path);
    let theirs = other.ask_ids("recoverable 10");
    assert_eq!(other.ask("churn"), "churning");
    std::thread::sleep(Duration::from_millis(20));
    other.signal(libc::SIGSTOP);
    let mut held = Vec::new();
    for _ in 0..2_000 {
        held.push(shared.pool.allocate(Kind::Transient).unwrap());
    }
    assert_eq!(shared.pool.reap().unwrap().slots, 0, "it lives");
    assert_eq!(shared.pool.recover(Offer::Orphans).unwrap().count(), 0);
    for id in &theirs {
        assert_eq!(state(&shared.pool, id.number), State::Held);
    }
    drop(held);
    other.signal(libc::SIGCONT);
    other.kill();
    assert!(offered(&shared.pool, Offer::Orphans).is_superset(&set(theirs)));
}

#[test]
fn p2_the_next_tenant_of_a_dead_slot_takes_back_what_was_left_there() {
    let shared = OnDisk::new(options(64));
    let mut other = Worker::start(&shared.path);
    let left = other.ask_ids("recoverable 5");
    other.ask_ids("transient 5");
    other.kill();
    // Clean slots go first, so the dirty one is leased last.
    let others: Vec<Pool> = (2..LEASE_SLOTS).map(|_| shared.join()).collect();
    assert_eq!(state(&shared.pool, left[0].number), State::Held, "nobody has looked yet");
    let tenant = shared.join();
    assert_eq!(tenant.slot(), 1);
    for id in left {
        assert_eq!(state(&tenant, id.number), State::Orphan);
    }
    assert_eq!(tenant.info().unwrap().counts.held, 0);
    let refused = Pool::join_any(&shared.path).unwrap_err();
    assert!(matches!(refused, Error::Shm(mainstay_shm::Error::SlotsTaken { .. })), "{refused}");
    drop(others);
    shared.join().close().unwrap();
}

#[test]
fn a_death_is_seen_in_the_list_of_holders() {
    let shared = OnDisk::new(options(64));
    let mut other = Worker::start(&shared.path);
    let pid: u32 = other.ask("pid").parse().unwrap();
    other.ask_ids("recoverable 3");
    let find = || shared.pool.holders().unwrap().into_iter().find(|holder| holder.pid == pid);
    let alive = find().unwrap();
    assert!(alive.alive && alive.held == 3 && alive.cached > 0 && alive.start_time > 0);
    other.kill();
    assert!(!find().unwrap().alive);
    shared.pool.reap().unwrap();
    assert_eq!(find(), None, "taken back: its slot is free");
}

#[test]
fn without_room_to_grow_the_blocks_of_the_dead_are_found_before_giving_up() {
    let shared = OnDisk::new(options(4_096).growth_step(16));
    let mut first = Worker::start(&shared.path);
    first.ask_ids("transient 16");
    first.kill();
    let size = shared.pool.info().unwrap().file_len;
    let mut second = Worker::start(&shared.path);
    second.ask("pid");
    second.ask(&format!("limit file-size {size}"));
    // The file cannot grow; what the dead held can be had.
    assert_eq!(second.ask_ids("transient 10").len(), 10);
}
