//! Mainstay: a value of up to 1 KiB is copied out, which needs no store to shared memory while
//! nobody writes; a larger one is pinned. Written by a publisher, by one copy into a slot of its own.

use std::hint::black_box;
use std::path::Path;

use mainstay_state::{Domain, Publisher, State, StateOptions};
use zerocopy::IntoBytes;

use super::value::{Keeper, Reader, Size, Writer, bytes, stamp_of, words};
use crate::Outcome;

pub(super) const KEEPER: Keeper = Keeper {
    name: "mainstay",
    writer: |folder, size| {
        let mut publisher = writer(folder, "value", size)?.publisher()?;
        publisher.publish(bytes(&vec![0; size.words]))?;
        Ok(Box::new(Publishing(publisher)))
    },
    reader: |folder, size| {
        let state = domain(folder)?.reader("value")?;
        Ok(if size.words <= COPIED_WORDS_MAX {
            Box::new(Copying { state, copy: vec![0; size.words] })
        } else {
            Box::new(Ours(state))
        })
    },
};

/// Larger values are not copied.
const COPIED_WORDS_MAX: usize = 128;

/// A subscription.
struct Ours(State<[u8]>);

/// A writer that keeps its slots, as iceoryx2's does.
struct Publishing(Publisher<[u8]>);

/// A subscription, and what was copied out of it.
struct Copying {
    state: State<[u8]>,
    copy: Vec<u64>,
}

/// The folder of states in a folder of the run.
pub(super) fn domain(folder: &Path) -> Outcome<Domain> {
    Ok(Domain::open(folder.join("states"))?)
}

/// A state for values of this size, with a first value of zeros.
pub(super) fn writer(folder: &Path, name: &str, size: Size) -> Outcome<State<[u8]>> {
    let bytes = size.words * size_of::<u64>();
    Ok(StateOptions::new().size(bytes).writer(&domain(folder)?, name)?)
}

impl Writer for Publishing {
    #[inline]
    fn commit(&mut self, value: &[u64]) -> Outcome<()> {
        self.0.publish(bytes(value))?;
        Ok(())
    }
}

impl Reader for Copying {
    #[inline]
    fn read(&mut self) -> Outcome<u64> {
        let (_, len) = self.state.copy_to(self.copy.as_mut_bytes())?;
        if len != size_of_val(&*self.copy) {
            return Err("a value came back in another size".into());
        }
        Ok(stamp_of(black_box(&self.copy)))
    }
}

impl Reader for Ours {
    #[inline]
    fn read(&mut self) -> Outcome<u64> {
        let snapshot = self.0.read()?;
        Ok(stamp_of(words(&snapshot)?))
    }
}
