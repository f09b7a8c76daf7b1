//! A batch whose home cannot be synced, while others wait for the logs that it has locked.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use crate::{
    Error, Result,
    faulty::{Call, Faulty},
};

/// Makes a batch that cannot sync the first shard's log, and has `put` write to another shard while it
/// fails. Was that write taken?
pub(crate) fn takes_the_place(
    folder: &Faulty,
    batch: impl FnOnce() -> Result<()>,
    put: impl FnOnce() -> Result<()> + Send,
) -> bool {
    let has_failed = Arc::new(AtomicBool::new(false));
    let fails = Arc::clone(&has_failed);
    folder.fail(move |call, name| {
        let is_home = name.starts_with("shard-0000-") || name.starts_with("any-0000-");
        if call != Call::Sync || !is_home {
            return Ok(());
        }
        fails.store(true, SeqCst);
        // Who writes to another shard comes as far as that one's lock.
        thread::sleep(Duration::from_millis(20));
        Err(io::ErrorKind::Interrupted.into())
    });
    thread::scope(|scope| {
        let beside = scope.spawn(|| {
            while !has_failed.load(SeqCst) {
                thread::yield_now();
            }
            put()
        });
        let done = batch();
        // Whatever came of it, nobody waits for it any longer.
        has_failed.store(true, SeqCst);
        assert!(done.is_err(), "the batch is durable on a disk that does not sync");
        match beside.join().expect("a put does not panic") {
            Ok(()) => true,
            Err(Error::Poisoned { .. }) => false,
            Err(error) => panic!("{error}"),
        }
    })
}

/// What a store of either kind shows: no write is taken, and the batch is there whole or not at all; and
/// where the other shards are unlocked early, one is and it is not.
macro_rules! no_write_takes_the_place {
    ($store:ident, $create:expr) => {
        let taken = |fault| {
            let folder = Faulty::new(3);
            let store = $create(folder.clone());
            let keys = keys(|key| store.shard(key).unwrap());
            let batch = || {
                let changes: Vec<_> =
                    keys.iter().map(|of| Change::Put(&of[0], &[7; VALUE])).collect();
                plant(fault);
                let done = store.batch_across(&changes);
                plant(None);
                done.map(drop)
            };
            let put = || store.put(&keys[1][1], &[8; VALUE], Durability::Memory).map(drop);
            let is_taken = takes_the_place(&folder, batch, put);
            drop(store);
            let again = $store::open(folder.disk, &options()).unwrap();
            let there = keys.iter().filter(|of| again.get(&of[0]).unwrap().is_some()).count();
            (is_taken, there == 0 || there == keys.len())
        };
        assert_eq!(taken(None), (false, true));
        assert_eq!(taken(Some(Fault::BatchUnlockedEarly)), (true, false), "it was not found");
    };
}
pub(crate) use no_write_takes_the_place;
