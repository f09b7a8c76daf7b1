//! Mainstay: read by a pin, written by one copy into a slot of its own.

use std::path::Path;

use mainstay_state::{Domain, State, StateOptions};

use super::value::{Keeper, Reader, Size, Writer, bytes, stamp_of, words};
use crate::Outcome;

pub(super) const KEEPER: Keeper = Keeper {
    name: "mainstay",
    writer: |folder, size| Ok(Box::new(Ours(writer(folder, "value", size)?))),
    reader: |folder, _| Ok(Box::new(Ours(domain(folder)?.reader("value")?))),
};

/// A subscription.
struct Ours(State<[u8]>);

/// The folder of states in a folder of the run.
pub(super) fn domain(folder: &Path) -> Outcome<Domain> {
    Ok(Domain::open(folder.join("states"))?)
}

/// A state for values of this size, with a first value of zeros.
pub(super) fn writer(folder: &Path, name: &str, size: Size) -> Outcome<State<[u8]>> {
    let bytes = size.words * size_of::<u64>();
    Ok(StateOptions::new().size(bytes).writer(&domain(folder)?, name)?)
}

impl Writer for Ours {
    #[inline]
    fn commit(&mut self, value: &[u64]) -> Outcome<()> {
        self.0.replace(bytes(value))?;
        Ok(())
    }
}

impl Reader for Ours {
    #[inline]
    fn read(&mut self) -> Outcome<u64> {
        let snapshot = self.0.read()?;
        Ok(stamp_of(words(&snapshot)?))
    }
}
