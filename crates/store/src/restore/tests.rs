//! Power cuts at each step of making a store of a copy, of both kinds.

use std::collections::BTreeMap;

use mainstay_base::Rng;
use mainstay_sim::Disk;

use super::*;
use crate::{
    Durability, LogOptions, Options, RawStore,
    any::damaging::{bytes_of, cuts, without_a_mark_is_whole},
    limits::SEGMENT_BYTES_MIN,
};

const VALUE: usize = 400;

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// Puts and deletes over several segments.
macro_rules! filled {
    ($store:expr, $seed:expr) => {{
        let (store, mut rng) = ($store.unwrap(), Rng::seeded($seed));
        for number in 0..120_u64 {
            let key = [rng.below(60) as u8];
            if rng.below(5) == 0 {
                store.delete(&key, Durability::Memory).unwrap();
            } else {
                let value = [number as u8; VALUE];
                store.put(&key, &value, Durability::Memory).unwrap();
            }
            if number == 60 {
                store.compact().unwrap();
            }
        }
        let copy = Disk::new($seed + 1_000);
        store.backup(&copy, |_, _| {}).unwrap();
        copy
    }};
}

macro_rules! contents {
    ($store:expr) => {{
        let (store, mut records) = ($store?, Records::new());
        store.for_each(|key, value| drop(records.insert(key.to_vec(), value.to_vec())))?;
        Ok(records)
    }};
}

/// What may become of a restore, and whether the copy stays as it is.
fn cut(seed: u64) -> Result<u64, String> {
    let one = Options { shards: 4, segment_bytes: SEGMENT_BYTES_MIN, ..Options::default() };
    let copy = filled!(RawStore::create(Disk::new(seed), 1, VALUE, &one), seed);
    let before = bytes_of(&copy);
    let images = cuts(
        |to| {
            Copied::of(&copy)?.restore(&to, |_, _| {})?;
            contents!(RawStore::open(to, &one))
        },
        |image| contents!(RawStore::open(image, &one)),
    )?;
    if bytes_of(&copy) == before { Ok(images) } else { Err("the copy was changed".into()) }
}

fn cut_any(seed: u64) -> Result<u64, String> {
    let one = LogOptions { shards: 4, segment_bytes: SEGMENT_BYTES_MIN, ..LogOptions::default() };
    let copy = filled!(RawLogStore::create(Disk::new(seed), &one), seed);
    let before = bytes_of(&copy);
    let images = cuts(
        |to| contents!(RawLogStore::restore(&copy, to, &one, |_, _| {})),
        |image| contents!(RawLogStore::open(image, &one)),
    )?;
    if bytes_of(&copy) == before { Ok(images) } else { Err("the copy was changed".into()) }
}

#[test]
fn a16_what_is_restored_has_a_mark_until_it_is_whole_whatever_power_cuts_leave() {
    without_a_mark_is_whole(4, Fault::CopyUnsynced, cut);
}

#[test]
fn v11_what_is_restored_of_any_sizes_has_a_mark_until_it_is_whole() {
    without_a_mark_is_whole(4, Fault::CopyUnsynced, cut_any);
}
