//! Copies that are interrupted: nobody takes a part of a store for all of it.

use std::{env, process::Command, sync::Once, time::Duration};

use mainstay_replica::{Error, FollowSettings, LeadSettings, Sink, follower, leader, update};
use mainstay_shm::hook;
use mainstay_sim::Disk;
use mainstay_store::Error as StoreError;

use crate::{
    both::{Kind, Records, assert_equal, for_both, put, replica, store},
    pair::{NOW, Pair},
};

for_both! {
    n7_a_copy_that_was_interrupted_is_no_store_until_it_is_finished,
    n7_an_update_that_was_interrupted_leaves_the_old_state_or_says_that_it_is_not_finished,
    n7_a_follower_is_not_whole_before_all_shards_have_caught_up_once,
    n7_a_whole_follower_stays_whole_while_it_takes_the_log_and_not_while_records_are_compared,
}

/// Tells a process which fault is planted in it.
const FAULT: &str = "PLANTED_IN_FOLLOWERS";
/// What is done wrong, and of which of these tests one has to find it.
const FAULTS: [(&str, &str); 4] = [
    // It is said to be whole before what came is durable.
    ("stream-whole-unsynced", "n7_a_copy_that_was_interrupted"),
    // It is said to be whole when some of its shards have caught up.
    ("stream-whole-of-some", "n7_a_follower_is_not_whole_before_all"),
    // What a later copy changes first is changed while it is said to be whole.
    ("stream-whole-kept", "n7_an_update_that_was_interrupted"),
    ("stream-whole-kept", "n7_a_whole_follower_stays_whole"),
];

fn plant_given() {
    static ONCE: Once = Once::new();
    if let Ok(given) = env::var(FAULT) {
        let fault = FAULTS.into_iter().find(|(fault, _)| *fault == given).unwrap().0;
        ONCE.call_once(|| hook::plant(fault));
    }
}

/// A fault is planted in a whole process, so the tests are run in others.
#[test]
fn the_planted_faults_of_what_is_whole_are_found_for_both_kinds() {
    for (fault, test) in FAULTS {
        for kind in ["of_fixed_sizes", "of_any_sizes"] {
            let name = format!("unfinished::{kind}::{test}");
            let run =
                Command::new(env::current_exe().unwrap()).arg(name).env(FAULT, fault).output();
            let run = run.unwrap();
            let said = String::from_utf8_lossy(&run.stdout);
            assert!(said.contains("running 1 test"), "{said}");
            assert!(!run.status.success() && said.contains("1 failed"), "{fault}: {kind}: {said}");
        }
    }
}

/// What has come of a copy whose disk died.
#[derive(Default)]
struct Count {
    unfinished: u32,
    whole: u32,
    /// Those that would have been half a store.
    parts: u32,
}

/// Brings a copy up to date on a disk that dies after so many calls, and looks at what a power cut
/// leaves: one of these states, or a copy that says that it is not whole.
fn interrupt<S: Kind>(ours: &S, disk: &Disk, calls: u64, states: &[Records], count: &mut Count) {
    let copy = S::reopen(disk);
    disk.die_after(calls);
    let outcome = update(ours, &copy, |_, _| {});
    drop(copy);
    disk.power_cut();
    let copy = S::reopen(disk);
    let is_state = states.contains(&copy.contents());
    if Sink::is_whole(&copy) {
        assert!(is_state, "dead after {calls} calls: a part of a store is taken for all of it");
        count.whole += 1;
        return;
    }
    assert!(outcome.is_err(), "dead after {calls} calls: it was told to be finished");
    count.unfinished += 1;
    count.parts += u32::from(!is_state);
    // Nothing is made of it.
    let (_, anew) = replica(ours, 99);
    let refused = update(&copy, &anew, |_, _| {});
    let is_refused = |error: &Error| {
        let Error::Store(error) = error else { return false };
        matches!(error, StoreError::NotWhole | StoreError::Mending { .. })
    };
    assert!(refused.as_ref().is_err_and(is_refused), "{refused:?}");
    // And it is finished by doing it again.
    update(ours, &copy, |_, _| {}).unwrap();
    assert!(Sink::is_whole(&copy));
    assert_equal(ours, &copy);
}

/// How far apart the calls are after which the disk dies.
const STEP: usize = 3;

fn n7_a_copy_that_was_interrupted_is_no_store_until_it_is_finished<S: Kind>() {
    plant_given();
    let (_, ours) = store::<S>(1);
    put(&ours, 0..200, 1);
    let mut count = Count::default();
    for calls in (0..5_000).step_by(STEP) {
        if count.whole > 12 {
            break;
        }
        let (disk, copy) = replica(&ours, 100 + calls);
        drop(copy);
        interrupt(&ours, &disk, calls, &[ours.contents()], &mut count);
    }
    let Count { unfinished, whole, parts } = count;
    assert!(unfinished > 10 && whole > 10, "{unfinished} unfinished, {whole} whole");
    assert!(parts > 10, "{parts} would have been half a store");
}

fn n7_an_update_that_was_interrupted_leaves_the_old_state_or_says_that_it_is_not_finished<
    S: Kind,
>() {
    plant_given();
    let mut count = Count::default();
    for calls in (0..5_000).step_by(STEP) {
        if count.whole > 40 {
            break;
        }
        let (_, ours) = store::<S>(1);
        put(&ours, 0..100, 1);
        let (disk, copy) = replica(&ours, 100 + calls);
        update(&ours, &copy, |_, _| {}).unwrap();
        let before = copy.contents();
        drop(copy);
        put(&ours, 50..250, 2);
        assert!(ours.delete_one(7).unwrap());
        if calls % 2 == 0 {
            // Records are compared.
            ours.compact();
        }
        interrupt(&ours, &disk, calls, &[before, ours.contents()], &mut count);
    }
    let Count { unfinished, whole, parts } = count;
    assert!(unfinished > 10 && whole > 10, "{unfinished} unfinished, {whole} whole");
    assert!(parts > 5, "{parts} would have been half a store");
}

fn n7_a_follower_is_not_whole_before_all_shards_have_caught_up_once<S: Kind>() {
    plant_given();
    let (_, ours) = store::<S>(1);
    put(&ours, 0..300, 1);
    let (disk, copy) = replica(&ours, 2);
    let mut pair = Pair::new(&ours, &copy);
    // It has heard of the leader, and has not got anything.
    for bytes in pair.follower_says() {
        pair.leader.handle(NOW, leader::Input::Message { peer: 1, bytes: &bytes });
    }
    assert!(!Sink::is_whole(&copy));
    pair.run();
    assert!(Sink::is_whole(&copy));
    drop((pair, copy));
    disk.power_cut();
    let copy = S::reopen(&disk);
    assert!(Sink::is_whole(&copy));
    assert_equal(&ours, &copy);
    let led = copy.promoted(3);
    led.put_one(1, 1).unwrap();

    // One shard has caught up long before the other.
    let (_, ours) = store::<S>(1);
    let (_, tried) = store::<S>(3);
    let of_first = |number: &u32| tried.put_one(*number, 1).unwrap().shard == 0;
    let (few, many): (Vec<u32>, Vec<u32>) = (0..400).partition(of_first);
    put(&ours, few.into_iter().take(1), 1);
    put(&ours, many, 1);
    let (_, copy) = replica(&ours, 2);
    let follow = FollowSettings { window_bytes: 2_000, ..FollowSettings::default() };
    let mut pair = Pair::with(&ours, &copy, LeadSettings::default(), follow);
    let marks = steps(&mut pair, &ours, &copy);
    let behind = marks.iter().filter(|mark| !mark.is_all).count();
    assert!(behind > 5, "{behind} steps");
    assert!(marks.iter().all(|mark| mark.is_all || !mark.is_whole), "a part is whole: {marks:?}");
    assert!(marks.last().is_some_and(|mark| mark.is_all && mark.is_whole));
}

fn n7_a_whole_follower_stays_whole_while_it_takes_the_log_and_not_while_records_are_compared<
    S: Kind,
>() {
    plant_given();
    for as_one in [false, true] {
        let (_, ours) = store::<S>(1);
        put(&ours, 0..200, 1);
        let (_, copy) = replica(&ours, 2);
        update(&ours, &copy, |_, _| {}).unwrap();
        // It takes the log.
        put(&ours, 0..100, 2);
        let follow = FollowSettings { as_one, ..FollowSettings::default() };
        let mut pair = Pair::with(&ours, &copy, LeadSettings::default(), follow);
        let marks = steps(&mut pair, &ours, &copy);
        assert_eq!(marks.iter().any(|mark| !mark.is_whole), as_one);
        assert!(Sink::is_whole(&copy));
        // What comes when it has caught up changes nothing of that.
        put(&ours, 0..5, 3);
        assert!(steps(&mut pair, &ours, &copy).iter().all(|mark| mark.is_whole));
        // And now records are compared.
        pair.leader.handle(pair.now, leader::Input::Lost { peer: 1 });
        drop(pair);
        put(&ours, 0..200, 4);
        (0..5).for_each(|round| put(&ours, 150..200, round));
        ours.compact();
        put(&ours, 0..1, 5);
        let lead = LeadSettings { replay_max: 10, ..LeadSettings::default() };
        let mut pair = Pair::with(&ours, &copy, lead, FollowSettings::default());
        let marks = steps(&mut pair, &ours, &copy);
        assert!(marks.iter().any(|mark| !mark.is_whole), "{:?}", pair.ways());
        assert!(Sink::is_whole(&copy));
        assert_equal(&ours, &copy);
    }
}

/// What a copy was after a message.
#[derive(Clone, Copy, Debug)]
struct Mark {
    is_whole: bool,
    /// It has all that there is.
    is_all: bool,
}

/// Runs to the end, a message at a time, and syncs whenever that is asked for; what the copy was after
/// each.
fn steps<S: Kind>(pair: &mut Pair<S>, ours: &S, copy: &S) -> Vec<Mark> {
    let (mut marks, mut silent) = (Vec::new(), 0);
    for _ in 0..1_000 {
        for bytes in pair.follower_says() {
            pair.leader.handle(pair.now, leader::Input::Message { peer: 1, bytes: &bytes });
        }
        let sent = pair.leader_says();
        for bytes in &sent {
            pair.follower.handle(pair.now, follower::Input::Message(bytes));
            for bytes in pair.follower_says() {
                pair.leader.handle(pair.now, leader::Input::Message { peer: 1, bytes: &bytes });
            }
            let is_all = copy.contents() == ours.contents();
            marks.push(Mark { is_whole: Sink::is_whole(copy), is_all });
        }
        silent = if sent.is_empty() { silent + 1 } else { 0 };
        if silent == 5 {
            return marks;
        }
        pair.now += Duration::from_millis(20);
    }
    panic!("they talk without end")
}
