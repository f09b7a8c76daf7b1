//! Mainstay: a value of 64 bytes is copied out, which needs no store to shared memory while
//! nobody writes; a larger one is pinned. Written by a publisher, by one copy into a slot of its
//! own. A state has a type, as a blackboard's entry has.

use std::hint::black_box;
use std::path::Path;

use mainstay_state::{Domain, Publisher, Record, State, StateOptions};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::value::{Keeper, Reader, Size, Writer, bytes, stamp_of, with_words};
use crate::Outcome;

pub(super) const KEEPER: Keeper = Keeper {
    name: "mainstay",
    writer: |folder, size| with_words!(size, publisher(folder)),
    reader: |folder, size| with_words!(size, reader(folder)),
};

/// Larger values are not copied.
const COPIED_WORDS_MAX: usize = 8;

/// A value.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
struct Words<const N: usize>([u64; N]);

impl<const N: usize> Record for Words<N> {
    const NAME: &'static str = "bench.words/1";
    const FIELDS: &'static str = "words: [u64]";
}

/// A subscription.
struct Pinning<const N: usize>(State<Words<N>>);

/// A subscription, and what was copied out of it.
#[repr(C)]
struct Copying<const N: usize> {
    copy: Words<N>,
    state: State<Words<N>>,
}

/// A writer that keeps its slots, as iceoryx2's does.
struct Publishing<const N: usize>(Publisher<Words<N>>);

/// The folder of states in a folder of the run.
pub(super) fn domain(folder: &Path) -> Outcome<Domain> {
    Ok(Domain::open(folder.join("states"))?)
}

/// A state for values of this size, with a first value of zeros.
pub(super) fn writer(folder: &Path, name: &str, size: Size) -> Outcome<State<[u8]>> {
    let bytes = size.words * size_of::<u64>();
    Ok(StateOptions::new().size(bytes).writer(&domain(folder)?, name)?)
}

fn publisher<const N: usize>(folder: &Path) -> Outcome<Box<dyn Writer>> {
    let state = StateOptions::new().writer::<Words<N>>(&domain(folder)?, "value")?;
    let mut publisher = state.publisher()?;
    publisher.publish(&Words([0; N]))?;
    Ok(Box::new(Publishing(publisher)))
}

fn reader<const N: usize>(folder: &Path) -> Outcome<Box<dyn Reader>> {
    let state = domain(folder)?.reader::<Words<N>>("value")?;
    Ok(if N <= COPIED_WORDS_MAX {
        Box::new(Copying { copy: Words([0; N]), state })
    } else {
        Box::new(Pinning(state))
    })
}

impl<const N: usize> Writer for Publishing<N> {
    #[inline]
    fn commit(&mut self, value: &[u64]) -> Outcome<()> {
        let words = Words::ref_from_bytes(bytes(value));
        self.0.publish(words.map_err(|_| "a value of another size")?)?;
        Ok(())
    }
}

impl<const N: usize> Reader for Copying<N> {
    #[inline]
    fn read(&mut self) -> Outcome<u64> {
        self.state.copy_into(&mut self.copy)?;
        Ok(stamp_of(black_box(&self.copy.0)))
    }
}

impl<const N: usize> Reader for Pinning<N> {
    #[inline]
    fn read(&mut self) -> Outcome<u64> {
        Ok(stamp_of(&self.0.read()?.0))
    }
}
