//! A follower whose leader is an enemy. It is at no place whose records it lacks, takes nothing of a
//! lower epoch than it knows, holds little, and can be opened again as it was.

#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use mainstay_fuzz::{
    folder::{Contents, Files},
    kinds::{Any, Fixed, Kind, Sizes, records},
    stream::{Ends, Said},
    world,
};
use mainstay_replica::{
    FollowSettings, Follower, Sink,
    follower::{Input, Output},
    wire::{Hello, Message, Way, decode, encode, writes},
};
use mainstay_store::{History, Position};
use std::time::Duration;

#[derive(Arbitrary, Debug)]
enum Step {
    Connected,
    /// It has a leader, which goes on from where it is.
    Joined,
    Lost,
    Said(Said),
    Later(u16),
    Taken,
    Synced(bool),
}

const STEPS_MAX: usize = 64;
/// What it says between two looks: the hashes of its records, a few times.
const SAID_MAX: usize = 4 << 20;

fn base<S: Kind>() -> Contents {
    let files = Files::of(&S::base());
    S::open(files.clone()).demote();
    files.contents()
}

thread_local! {
    static FIXED: Contents = base::<Fixed>();
    static ANY: Contents = base::<Any>();
}

fuzz_target!(|data: &[u8]| {
    world::plant();
    let input = <(Sizes, Vec<Step>)>::arbitrary_take_rest(Unstructured::new(data));
    let Ok((sizes, steps)) = input else { return };
    match sizes {
        Sizes::Fixed => FIXED.with(|base| try_all::<Fixed>(&Files::of(base), &steps)),
        Sizes::Any => ANY.with(|base| try_all::<Any>(&Files::of(base), &steps)),
    }
});

fn histories(store: &impl Kind) -> Vec<History> {
    (0..2).map(|shard| store.history(shard).expect("it is there")).collect()
}

fn try_all<S: Kind>(files: &Files, steps: &[Step]) {
    let store = S::open(files.clone());
    let identity = store.who();
    let mut now = Duration::ZERO;
    let follower = Follower::new(store.clone(), FollowSettings::default(), 7, now);
    let mut follower = follower.expect("it follows");
    for step in steps.iter().take(STEPS_MAX) {
        let (before, known) = (histories(&store), store.known_epoch());
        let mut said = None;
        match step {
            Step::Connected => connect(&mut follower, &mut now),
            Step::Joined => {
                connect(&mut follower, &mut now);
                join(&mut follower, now, &store);
            }
            Step::Lost => follower.handle(now, Input::Lost),
            Step::Said(words) => {
                let at = histories(&store).into_iter();
                let places = at.map(|at| at.position().unwrap_or(Position::START)).collect();
                let epoch = store.known_epoch().max(1);
                let bytes = words.bytes(&Ends { identity, epoch, places });
                let is_stale = decode(&bytes).is_ok_and(|(epoch, _)| epoch < known);
                said = Some(bytes.clone());
                follower.handle(now, Input::Message(&bytes));
                assert!(!is_stale || !follower.is_joined(), "N4: a stale leader is hung up on");
            }
            Step::Later(by) => {
                now += Duration::from_millis((*by).into());
                follower.handle(now, Input::Tick);
            }
            Step::Taken => take(&mut follower, now),
            Step::Synced(is_done) => follower.handle(now, Input::Synced(*is_done)),
        }
        check(&before, known, &store, said.as_deref());
    }
    take(&mut follower, now);
    store.verify().expect("what it took is what it has");
    let (wanted, at) = (records(&store).expect("it is sound"), histories(&store));
    drop((follower, store));
    let again = S::open(files.clone());
    assert_eq!(histories(&again), at, "N1: it is where it was");
    assert_eq!(records(&again).expect("it is sound"), wanted, "and has what it had");
}

fn connect(follower: &mut Follower<impl Kind>, now: &mut Duration) {
    *now += Duration::from_secs(40);
    follower.handle(*now, Input::Tick);
    take(follower, *now);
    // Nobody has said anything for so long; after a pause it calls again.
    *now += Duration::from_secs(40);
    follower.handle(*now, Input::Tick);
    take(follower, *now);
    follower.handle(*now, Input::Connected);
}

fn join(follower: &mut Follower<impl Kind>, now: Duration, store: &impl Kind) {
    let (identity, write_bytes_max) = (store.who(), Sink::write_bytes_max(store));
    let hello = Hello { identity, write_bytes_max, ..Hello::default() };
    let epoch = store.known_epoch().max(1);
    follower.handle(now, Input::Message(&encode(epoch, &Message::Welcome(hello))));
    for (shard, at) in (0..).zip(histories(store)) {
        if let Some(from) = at.position() {
            let info = Message::Info { shard, way: Way::Resume, from, records: 0 };
            follower.handle(now, Input::Message(&encode(epoch, &info)));
        }
    }
}

/// What a message may have done.
fn check(before: &[History], known: u64, store: &impl Kind, said: Option<&[u8]>) {
    let after = histories(store);
    assert!(store.known_epoch() >= known, "N4");
    if before == after {
        return;
    }
    let Some((epoch, message)) = said.and_then(|bytes| decode(bytes).ok()) else {
        panic!("a shard has moved, and nobody said anything");
    };
    assert!(epoch >= known, "N4: {epoch} and {known}");
    for (before, after) in before.iter().zip(&after).filter(|(before, after)| before != after) {
        let (Some(from), Some(to)) = (before.position(), after.position()) else { continue };
        let Message::Writes { bytes, .. } = message else {
            panic!("from {from:?} to {to:?} by {message:?}");
        };
        // O1: each write follows from the one before it, and leads where it says.
        let mut place = from;
        let leads = writes(bytes).any(|write| {
            // What it has already is passed over.
            if write.position.sequence <= place.sequence {
                return false;
            }
            place = place.after(write.position.epoch, write.changes);
            place == to
        });
        assert!(leads, "O1: {from:?}, {to:?}");
        let named = writes(bytes).any(|write| write.position == to);
        assert!(named, "O1: the leader never was at {to:?}");
    }
}

fn take(follower: &mut Follower<impl Kind>, now: Duration) {
    let mut said = 0;
    for _ in 0..10_000 {
        match follower.poll(now) {
            None => return,
            Some(Output::Send(bytes)) => said += bytes.len(),
            Some(_) => {}
        }
        assert!(said <= SAID_MAX, "it holds too much");
    }
    panic!("it says something for ever");
}
