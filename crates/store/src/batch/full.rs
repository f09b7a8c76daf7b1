//! Batches on a disk that is full from some byte on: they are refused whole, and the store goes on.

use std::{collections::BTreeMap, ops::Range};

use mainstay_base::Rng;
use mainstay_sim::{Disk, DiskFaults};
use mainstay_storage::Storage;

use super::histories::{Kind, SHARDS, VALUE, keys};
use crate::{
    Change, Durability, Error, Result,
    machine::{Machine, SOUND, disk},
};

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// Writes that fit into a segment.
const SEGMENT_WRITES: u64 = 36;

/// Batches that a full disk refused, and what was wrong first, with every so many bytes of `room` left.
pub(crate) fn refused<S: Kind>(room: Range<u64>, step: usize) -> (u64, Option<String>) {
    let mut refused = 0;
    for more in room.step_by(step) {
        let Err(what) = one::<S>(more, &mut refused) else { continue };
        return (refused, Some(format!("{more} bytes more: {what}")));
    }
    (refused, None)
}

fn fill_up(disk: &Disk, more: u64) -> std::io::Result<()> {
    let names = disk.names();
    let lens: std::io::Result<Vec<u64>> = names.iter().map(|name| disk.file(name).len()).collect();
    let bytes_max = lens?.iter().sum::<u64>() + more;
    disk.set_faults(DiskFaults { bytes_max, ..SOUND });
    Ok(())
}

fn one<S: Kind>(more: u64, refused: &mut u64) -> std::result::Result<(), String> {
    let mut rng = Rng::seeded(more);
    let machine = Machine::new(disk(more), more.is_multiple_of(2));
    let store = S::create(machine.clone());
    let keys = keys(|key| store.shard(key));
    let mut records = Records::new();
    // Each log ends elsewhere in its segment, so that any of them may need another one.
    for of in &keys {
        for number in 0..rng.below(SEGMENT_WRITES) {
            let value = vec![number as u8; VALUE];
            let change = Change::Put(&of[0], &value);
            store.batch(&[change], Durability::Group).map_err(|error| error.to_string())?;
            records.insert(of[0].clone(), value);
        }
    }
    fill_up(&machine.disk, more).map_err(|error| error.to_string())?;
    let mut write = |number: u8| -> Result<()> {
        let value = vec![number; VALUE];
        let changes: Vec<_> = keys.iter().map(|of| Change::Put(&of[1], &value)).collect();
        store.batch_across(&changes)?;
        records.extend(keys.iter().map(|of| (of[1].clone(), value.clone())));
        Ok(())
    };
    let mut number = 0;
    loop {
        match write(number) {
            Ok(()) => number += 1,
            Err(error) if error.is_full() => break,
            Err(error) => return Err(format!("batch {number} ended with: {error}")),
        }
    }
    for _again in 0..3 {
        match write(number) {
            Err(error) if error.is_full() => *refused += 1,
            Err(error) => return Err(format!("the next batch ended with: {error}")),
            // What the one before has made may be room enough for the same shards.
            Ok(()) => number += 1,
        }
    }
    let given_up = (0..SHARDS as usize).filter(|shard| store.has_given_up(*shard)).count();
    if given_up > 0 {
        return Err(format!("{given_up} shards take no more writes"));
    }
    let expected = |records: &Records, store: &S, when: &str| {
        let mut found = Records::new();
        let shown = store.for_each(|key, value| drop(found.insert(key.into(), value.into())));
        match shown {
            Err(error) => Err(error.to_string()),
            Ok(()) if found == *records => Ok(()),
            Ok(()) => Err(format!("{} of {} records are there {when}", found.len(), records.len())),
        }
    };
    let open = |machine| S::open(machine).map_err(|error: Error| error.to_string());
    expected(&records, &store, "in the store")?;
    for image in machine.disk.crash_images(3) {
        image.set_faults(SOUND);
        let after = open(machine.after_power_cut(image, &[], &mut rng))?;
        expected(&records, &after, "after a power cut")?;
    }
    machine.disk.set_faults(SOUND);
    for number in 100..104 {
        let of = &keys[number as usize % keys.len()];
        let value = vec![number; VALUE];
        let changes: Vec<_> = keys.iter().map(|of| Change::Put(&of[2], &value)).collect();
        store.batch_across(&changes).map_err(|error| error.to_string())?;
        let change = Change::Put(&of[3], &value);
        store.batch(&[change], Durability::Group).map_err(|error| error.to_string())?;
        records.extend(keys.iter().map(|of| (of[2].clone(), value.clone())));
        records.insert(of[3].clone(), value);
    }
    drop(store);
    machine.disk.kill();
    let store = open(machine.clone())?;
    expected(&records, &store, "after another opening")
}
