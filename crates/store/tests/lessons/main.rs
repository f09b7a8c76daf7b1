//! Faults of earlier stores, each a test.

use mainstay_sim::Disk;
use mainstay_store::{Options, RawStore, limits::SEGMENT_BYTES_MIN};

mod compaction;
mod disk;
mod lives;
mod together;

pub(crate) fn small() -> Options {
    Options { shards: 1, segment_bytes: SEGMENT_BYTES_MIN, ..Options::default() }
}

pub(crate) fn key(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

pub(crate) fn value(number: u32) -> [u8; 64] {
    [number as u8; 64]
}

pub(crate) fn on(disk: &Disk) -> RawStore<Disk> {
    RawStore::create(disk.clone(), 4, 64, &small()).expect("an empty disk takes a store")
}
