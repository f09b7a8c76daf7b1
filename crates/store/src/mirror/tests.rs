//! Writers beside a second store that is filled.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
};

use mainstay_base::Rng;

use crate::error::{Error, Result};

/// Gives a store another one's place, beside two writers who `write` until they are told so.
/// `reshard` can wait until so many more writes are made.
pub(crate) fn beside<T>(
    write: impl Fn(&mut Rng) -> Result<()> + Sync,
    reshard: impl FnOnce(&dyn Fn(u64)) -> T,
) -> T {
    let writes = AtomicU64::new(0);
    thread::scope(|scope| {
        for seed in 0..2 {
            let (write, writes) = (&write, &writes);
            scope.spawn(move || {
                let mut rng = Rng::seeded(seed);
                loop {
                    match write(&mut rng) {
                        Ok(()) => writes.fetch_add(1, Relaxed),
                        Err(Error::Resharded) => break,
                        Err(error) => panic!("{error}"),
                    };
                }
            });
        }
        reshard(&|more| {
            let before = writes.load(Relaxed);
            while writes.load(Relaxed) < before + more {
                thread::yield_now();
            }
        })
    })
}
