//! Everything a victim can be in the middle of.
//!
//! An operation is prepared without stop points, then run with them. What it is about to write it
//! says before, how that ended right after: no stop point lies between an acknowledgement and its
//! being written down.

use super::{
    board::{A, ACCOUNTS, ASIDE, B, C, D, P},
    scene::{SLOTS, SLOTS_FOR_TWO},
    victim::{LOOSE_LEN, LOOSE_NEW, OWN, Victim},
};
use crate::state::{
    actor::Act as Outcome,
    contents::{Contents, SIZE, garbage},
    site::options,
};
use mainstay_shm::Access;
use mainstay_state::{Domain, Error, Grade};
use std::time::Duration;

/// One row of the table.
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    pub(crate) about: About,
    pub(crate) prepare: fn(&mut Victim) -> Outcome,
    pub(crate) run: fn(&mut Victim) -> Outcome,
}

/// What an operation needs of its scene, and what is looked at behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum About {
    /// A commit of several states: what it leaves is met in each order.
    Several,
    /// One account, of which it claims every slot.
    Hungry,
    /// The accounts.
    Accounts,
    /// The accounts, all of whose free slots belong to a dead process.
    Crowded,
    /// The accounts, and somebody waits for a change of the first.
    Awaited,
    /// Its own state, which ends with it. Subscribing takes the gate of a name, so others cannot
    /// join or leave a state of that name while it is frozen.
    OwnTransient,
    /// Its own state, which is kept in a file.
    OwnKept,
    /// The accounts, which it joins or leaves, or makes larger: that takes the gate too.
    Gate,
    /// A state without authors.
    Loose,
}
use About::{Accounts, Awaited, Crowded, Gate, Hungry, Loose, OwnKept, OwnTransient, Several};

impl About {
    /// Whether a frozen victim may hold a gate, so that nobody joins or leaves beside it.
    pub(crate) fn gates(self) -> bool {
        matches!(self, OwnTransient | OwnKept | Gate | Loose)
    }
}

const fn op(
    name: &'static str,
    about: About,
    prepare: fn(&mut Victim) -> Outcome,
    run: fn(&mut Victim) -> Outcome,
) -> Operation {
    Operation { name, about, prepare, run }
}

/// All of them.
pub(crate) const OPERATIONS: &[Operation] = &[
    op("commit", Accounts, Victim::subscribed, |v| single(v, A)),
    op("commit, awaited", Awaited, Victim::subscribed, |v| single(v, A)),
    op("commit without changes", Accounts, Victim::subscribed, commit_nothing),
    op("commit that was overtaken", Accounts, |v| v.overtaken(A), commit_overtaken),
    op("commit with growth", Gate, Victim::subscribed, commit_larger),
    op("commit of the last slot", Crowded, Victim::subscribed, |v| single(v, A)),
    op("publish", Accounts, Victim::publishing, publish),
    op("publish for the first time", Accounts, Victim::subscribed_to_publish, publish_first),
    op("publish beside a reader", Accounts, Victim::publishing_beside_a_reader, publish),
    op("stop publishing", Accounts, Victim::publishing, stop_publishing),
    op("abort", Accounts, Victim::subscribed, abort),
    op("commit of two", Several, Victim::subscribed, |v| several(v, &[A, D], &[])),
    op("commit of three", Several, Victim::subscribed, |v| several(v, &[A, B, D], &[])),
    op("commit of four", Several, Victim::subscribed, |v| several(v, &ACCOUNTS, &[])),
    op("commit of two, two unchanged", Several, Victim::subscribed, |v| {
        several(v, &[A, B], &[C, D])
    }),
    op("commit of four in a crowd", Crowded, Victim::subscribed, |v| several(v, &ACCOUNTS, &[])),
    op("read", Accounts, Victim::reading, read),
    op("read in a crowd", Crowded, Victim::reading, read),
    op("copy", Accounts, Victim::reading, copy),
    op("read of two", Accounts, Victim::reading, |v| together(v, &[A, D])),
    op("read of four", Accounts, Victim::reading, |v| together(v, &ACCOUNTS)),
    op("view", Accounts, Victim::reading, view),
    op("wait", Accounts, Victim::reading, wait),
    op("scavenge", Crowded, Victim::subscribed, scavenge),
    op("replace", Loose, Victim::loose, replace),
    op("publish again and again", Loose, Victim::loose, publish_again_and_again),
    op("set_size", Loose, Victim::loose, |v| Ok(v.own().set_size(6_000)?)),
    op("subscribe", Gate, nothing, Victim::subscribed),
    op("subscribe to read", Gate, nothing, Victim::reading),
    op("make a state", OwnTransient, open_folder, make),
    op("leave as the last", OwnTransient, Victim::owning, leave),
    op("delete", OwnTransient, Victim::owning, |v| Ok(v.own().delete()?)),
    op("set_persistent", OwnKept, Victim::owning, persist),
    op("sync", OwnKept, Victim::keeping, sync),
    op("restore", OwnKept, kept_then_left, restore),
];

/// Done by the second of two victims, besides what the first does: it meets what that has left.
pub(crate) const SECOND: &[Operation] = &[
    op("a commit of one", Accounts, Victim::subscribed, |v| single(v, A)),
    op("a publication", Accounts, Victim::publishing, publish),
    op("a commit of four", Several, Victim::subscribed, |v| several(v, &ACCOUNTS, &[])),
    op("a commit of two others", Several, of_b_and_c, |v| several(v, &[B, C], &[])),
    op("a commit of the last two", Several, Victim::subscribed, |v| several(v, &[C, D], &[A])),
    op("a read", Accounts, Victim::reading, read),
    op("a read of four", Accounts, Victim::reading, |v| together(v, &ACCOUNTS)),
    op("claims", Accounts, Victim::subscribed, claim_two),
    op("the last claim", Hungry, claim_most, claim_the_last),
    op("the first commit of a newcomer", Gate, aside, commit_aside),
];

fn nothing(_: &mut Victim) -> Outcome {
    Ok(())
}

fn of_b_and_c(v: &mut Victim) -> Outcome {
    v.subscribed_to(&[B, C], Access::ReadWrite)
}

// ---- commits ----

fn single(v: &mut Victim, at: usize) -> Outcome {
    v.deed.intends(&[at]);
    v.actor().single(at, v.author, |_| {})?;
    v.committed();
    Ok(())
}

fn several(v: &mut Victim, states: &[usize], checks: &[usize]) -> Outcome {
    v.deed.intends(states);
    v.actor().transfer(states, checks, (7, v.author), |_| {})?;
    v.committed();
    Ok(())
}

fn commit_nothing(v: &mut Victim) -> Outcome {
    let transaction = v.actor().state(A).begin()?;
    Contents::of(transaction.get()?, transaction.base_version())?;
    transaction.commit()?;
    Ok(())
}

fn commit_overtaken(v: &mut Victim) -> Outcome {
    let transaction = v.open.pop().expect("prepared by being overtaken");
    match transaction.commit() {
        Err(Error::Conflict { .. }) => Ok(()),
        other => {
            v.fail(&format!("a commit on an old version: {other:?}"));
            Ok(())
        }
    }
}

fn commit_larger(v: &mut Victim) -> Outcome {
    v.deed.intends(&[A]);
    let mut transaction = v.actor().state(A).begin()?;
    let old = Contents::of(transaction.get()?, transaction.base_version())?;
    transaction.resize(5_000)?;
    transaction.bytes_mut()?.copy_from_slice(&old.next(0, v.author).bytes(5_000));
    transaction.commit()?;
    v.committed();
    Ok(())
}

fn publish(v: &mut Victim) -> Outcome {
    v.deed.intends(&[P]);
    v.publish()?;
    v.committed();
    // What somebody reads has stayed as it was.
    for read in &v.open {
        Contents::of(read.get()?, read.base_version())?;
    }
    Ok(())
}

fn publish_first(v: &mut Victim) -> Outcome {
    v.publisher = Some(v.actor().state(P).publisher()?);
    publish(v)
}

fn stop_publishing(v: &mut Victim) -> Outcome {
    v.publisher = None;
    Ok(())
}

fn abort(v: &mut Victim) -> Outcome {
    let mut transaction = v.actor().state(A).begin()?;
    garbage(transaction.bytes_mut()?);
    transaction.abort();
    Ok(())
}

/// Claims as many slots as can be spared, and writes garbage there.
fn claim_two(v: &mut Victim) -> Outcome {
    for at in [A, D] {
        let mut transactions = [v.actor().state(at).begin()?, v.actor().state(at).begin()?];
        for transaction in &mut transactions {
            garbage(transaction.bytes_mut()?);
        }
    }
    Ok(())
}

/// Leaves no more than what the dead have, and begins another transaction.
fn claim_most(v: &mut Victim) -> Outcome {
    v.subscribed()?;
    // One is current, one may be the first victim's, one is the survivor's.
    for _ in 0..SLOTS_FOR_TWO - 3 {
        let mut transaction = v.actor().state(D).begin_kept()?;
        match transaction.bytes_mut() {
            Ok(bytes) => garbage(bytes),
            Err(Error::NoFreeSlot { .. }) => break,
            Err(error) => return Err(error.into()),
        }
        v.open.push(transaction);
    }
    v.open.push(v.actor().state(D).begin_kept()?);
    Ok(())
}

fn claim_the_last(v: &mut Victim) -> Outcome {
    let mut transaction = v.open.pop().expect("prepared by claiming most");
    match transaction.bytes_mut() {
        Ok(bytes) => garbage(bytes),
        Err(Error::NoFreeSlot { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    v.open.clear();
    Ok(())
}

/// Has a lease, perhaps that of the first victim.
fn aside(v: &mut Victim) -> Outcome {
    v.subscribed_to(&ASIDE, Access::ReadWrite)
}

/// Uses a record of the lease for the first time: what is left in it must be finished, and the
/// states that it is about are not mapped, so they are joined, which takes their gates.
fn commit_aside(v: &mut Victim) -> Outcome {
    v.deed.intends(&ASIDE);
    v.actor().transfer(&ASIDE, &[], (1, v.author), |_| {})?;
    v.committed();
    Ok(())
}

fn scavenge(v: &mut Victim) -> Outcome {
    for at in ACCOUNTS {
        v.actor().state(at).scavenge()?;
    }
    Ok(())
}

// ---- reads ----

fn read(v: &mut Victim) -> Outcome {
    let first = v.actor().state(A).read()?;
    let before = Contents::of(&first, first.version())?;
    // However long it takes: what is pinned stays.
    let second = v.actor().state(B).read()?;
    Contents::of(&second, second.version())?;
    drop(second);
    if Contents::of(&first, first.version())? != before {
        v.fail("a snapshot has changed");
    }
    Ok(())
}

fn copy(v: &mut Victim) -> Outcome {
    let mut bytes = [0; SIZE];
    // The one of which others claim every slot.
    let (version, len) = v.actor().state(D).copy_to(&mut bytes)?;
    Contents::of(&bytes[..len.min(SIZE)], version)?;
    Ok(())
}

fn together(v: &mut Victim, states: &[usize]) -> Outcome {
    let handles: Vec<_> = states.iter().map(|at| v.actor().state(*at)).collect();
    let snapshots = mainstay_state::together(&handles[..])?;
    let before = v.actor().weigh(states, &snapshots)?;
    // A few more steps, with all of them pinned.
    v.actor().state(A).version()?;
    if v.actor().weigh(states, &snapshots)? != before {
        v.fail("snapshots taken together have changed");
    }
    Ok(())
}

fn view(v: &mut Victim) -> Outcome {
    let mut view = v.actor().state(A).view(Duration::from_secs(3_600))?;
    let first = Contents::whole(view.get()?)?;
    if Contents::whole(view.get()?)? != first {
        v.fail("a view has changed before its next tick");
    }
    Ok(())
}

fn wait(v: &mut Victim) -> Outcome {
    let mut watch = v.actor().state(A).watch()?;
    let told = watch.wait(Duration::from_millis(1))?;
    let snapshot = watch.read()?;
    let version = snapshot.version();
    Contents::of(&snapshot, version)?;
    if told.is_some_and(|told| told > version) {
        v.fail("a watch told of a version that is not there");
    }
    Ok(())
}

// ---- sizes, subscriptions, files ----

fn replace(v: &mut Victim) -> Outcome {
    v.own().replace(&loose_new())?;
    Ok(())
}

fn publish_again_and_again(v: &mut Victim) -> Outcome {
    let mut publisher = v.own().publisher()?;
    // It claims twice; from then on it goes the short way.
    for _ in 0..5 {
        publisher.publish(&loose_new())?;
    }
    Ok(())
}

fn loose_new() -> Vec<u8> {
    let mut bytes = vec![0; SIZE];
    bytes[..LOOSE_LEN].fill(LOOSE_NEW);
    bytes
}

fn open_folder(v: &mut Victim) -> Outcome {
    // Opening the folder is no part of it.
    let domain = Domain::open(&v.folder)?;
    std::mem::forget(domain);
    Ok(())
}

fn make(v: &mut Victim) -> Outcome {
    let domain = Domain::open(&v.folder)?;
    let state = options(SLOTS).writer::<[u8]>(&domain, OWN)?;
    if state.version()? != 0 || state.read()?.iter().any(|byte| *byte != 0) {
        v.fail("a new state is not zeros");
    }
    state.replace(&Contents::default().next(0, v.author).bytes(SIZE))?;
    v.own = Some(state);
    Ok(())
}

fn leave(v: &mut Victim) -> Outcome {
    v.own = None;
    Ok(())
}

fn persist(v: &mut Victim) -> Outcome {
    v.own().set_persistent(v.kept_in(), Grade::Process)?;
    v.own().sync()?;
    v.synced(1);
    Ok(())
}

fn sync(v: &mut Victim) -> Outcome {
    let state = v.own();
    let old = Contents::whole(&state.read()?)?;
    state.replace(&old.next(0, v.author).bytes(SIZE))?;
    state.sync()?;
    v.synced(2);
    Ok(())
}

fn kept_then_left(v: &mut Victim) -> Outcome {
    v.keeping()?;
    v.own = None;
    Ok(())
}

fn restore(v: &mut Victim) -> Outcome {
    let domain = Domain::open(&v.folder)?;
    let kept = options(SLOTS).persistent(v.kept_in(), Grade::Process);
    let state = kept.writer::<[u8]>(&domain, OWN)?;
    let snapshot = state.read()?;
    if Contents::of(&snapshot, snapshot.version())?.version != 1 {
        v.fail("a kept state has lost its version");
    }
    drop(snapshot);
    v.own = Some(state);
    Ok(())
}
