//! `mainstay store promote`.

use super::{replica::Replica, target::Target};
use crate::{
    error::{Outcome, Result},
    output::Output,
};
use mainstay::store::Role;
use serde::Serialize;

/// Make a follower's store the leader
///
/// Stop all followers first, and promote the one that is furthest. From then on whoever follows it
/// refuses the old leader, which takes no more writes once it has heard of the new one.
///
/// A copy that was interrupted before it had everything is refused: let it catch up, or run the same
/// backup again. If what it is of is gone, --unfinished takes it as it is.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay store promote ./copy
  mainstay store promote ./copy --above 281474976710656
  mainstay store promote ./copy --unfinished")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// The epoch of a leader that this store has not heard of
    #[arg(long, value_name = "EPOCH", default_value_t = 0)]
    above: u64,
    /// Take a copy that was never finished as it is: what had not come to it is lost
    #[arg(long)]
    unfinished: bool,
}

#[derive(Serialize)]
struct Report {
    epoch: u64,
    writes: u64,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    if args.target.is_any() {
        promote(args, args.target.open_any()?, out)
    } else {
        promote(args, args.target.open()?, out)
    }
}

fn promote<S: Replica>(args: &Args, store: S, out: &mut Output) -> Result<Outcome> {
    let failed = args.target.failed();
    if args.unfinished && store.role() == Role::Follower {
        store.set_whole(true).map_err(&failed)?;
    }
    let store = lead(store, args.above).map_err(&failed)?;
    let shards = store.identity().shards;
    let place = |shard| Some(store.history(shard).ok()?.position()?.sequence);
    let (epoch, writes) = (store.epoch(), (0..shards).filter_map(place).sum());
    store.sync().map_err(&failed)?;
    if out.json {
        out.document(&Report { epoch, writes })?;
    } else {
        let path = args.target.path.display();
        out.line(&format!("{path} leads with epoch {epoch}, after {writes} writes"))?;
    }
    Ok(Outcome::Fine)
}

/// Makes a store the leader, above `known` and all that it knows of itself.
pub(super) fn lead<S: Replica>(store: S, known: u64) -> mainstay::store::Result<S> {
    // Of two copies that are promoted at once, one has to be above the other; and in containers all
    // processes have the same number.
    store.promote_above(known, crate::random::drawn() as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay::store::{Directory, LogOptions, Options, RawLogStore, RawStore};
    use tempfile::TempDir;

    /// All in one process, as if in containers, where each process has the same number; and all know of
    /// the same epoch. By chance three are the same once in 2^32 runs.
    fn promoted<S: Replica>(follower: impl Fn(Directory) -> S) {
        let places: Vec<TempDir> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
        let followers = places.iter().map(|place| follower(Directory::lock(place.path()).unwrap()));
        let followers: Vec<S> = followers.map(|store| store.demote().unwrap()).collect();
        assert!(followers.iter().all(|store| store.epoch() == followers[0].epoch()));
        let leaders = followers.into_iter().map(|store| lead(store, 0).unwrap());
        let epochs: Vec<u64> = leaders.map(|store| store.epoch()).collect();
        assert!(epochs.iter().any(|epoch| *epoch != epochs[0]), "{epochs:?}");
    }

    #[test]
    fn stores_that_are_equal_are_promoted_to_different_epochs() {
        promoted(|folder| RawStore::create(folder, 8, 8, &Options::default()).unwrap());
        promoted(|folder| RawLogStore::create(folder, &LogOptions::default()).unwrap());
    }
}
