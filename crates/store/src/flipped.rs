//! Bits that flip in the memory of a store: in files that a process left, closed or killed, and under
//! one that has them open. Each is found or harms nobody; no value that was not written is shown (A4).

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use mainstay_base::Rng;
use tempfile::TempDir;
use zerocopy::FromBytes;

use crate::{
    Change, Directory, Durability, Error, History, Options, RawStore, Reader,
    format::{DATA_AT, HEADER_LEN, index_name, live_name, sealed},
    index::Name,
    limits::SEGMENT_BYTES_MIN,
    live::{LiveHeader, RING_AT},
    planted::{Fault, plant},
};

const KEY: usize = 5;
const VALUE: usize = 20;
/// Bytes of a slot.
const SLOT: u64 = 16 + 8 + 24;
pub(crate) const KEYS: u64 = 40;

pub(crate) type Records = BTreeMap<Vec<u8>, Vec<u8>>;
/// What a store has, and where it is in its history.
pub(crate) type State = (Records, History);
type Outcome = Result<(), String>;

/// A directory for which no disk has to be waited, where there is one.
pub(crate) fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

pub(crate) fn options() -> Options {
    Options { shards: 1, segment_bytes: SEGMENT_BYTES_MIN, ..Options::default() }
}

pub(crate) fn key(number: u64) -> Vec<u8> {
    number.to_be_bytes()[3..].to_vec()
}

pub(crate) fn value(number: u64) -> Vec<u8> {
    vec![number as u8; VALUE]
}

pub(crate) fn open(place: &Path) -> Result<RawStore<Directory>, Error> {
    RawStore::open(Directory::lock(place)?, &options())
}

/// A store with some history in a directory of its own, and what it had after each of the writes that
/// need not be durable.
pub(crate) struct Scene {
    pub(crate) dir: TempDir,
    pub(crate) states: Vec<State>,
}

impl Scene {
    /// As a process leaves it that closes it, or is killed.
    pub(crate) fn new(is_closed: bool) -> Self {
        let dir = scratch();
        let folder = Directory::lock(dir.path()).unwrap();
        let store = RawStore::create(folder, KEY, VALUE, &options()).unwrap();
        let mut records = Records::new();
        let mut write = |number: u64, new: Option<u64>, how| {
            let (key, value) = (key(number), new.map(value));
            store.batch(&[Change::of(&key, value.as_deref())], how).unwrap();
            match value {
                Some(value) => records.insert(key, value),
                None => records.remove(&key),
            };
            (records.clone(), store.history(0).unwrap())
        };
        for number in 0..KEYS {
            write(number, Some(number + 1), Durability::Memory);
        }
        store.compact().unwrap();
        for number in 0..5 {
            write(number, None, Durability::Memory);
        }
        let mut states = vec![write(5, Some(77), Durability::Group)];
        for number in 10..20 {
            states.push(write(number, Some(number + 100), Durability::Memory));
        }
        let left = scratch();
        if is_closed {
            store.close().unwrap();
            states = states.split_off(states.len() - 1);
            copy(dir.path(), left.path());
            // A close marks the end of the log by a write of its own.
            states[0].1 = open(dir.path()).unwrap().history(0).unwrap();
        } else {
            copy(dir.path(), left.path());
        }
        Self { dir: left, states }
    }

    fn last(&self) -> &Records {
        &self.states.last().unwrap().0
    }

    /// A copy of it with a bit flipped.
    fn flipped(&self, file: &str, at: u64, bit: u32) -> TempDir {
        let dir = scratch();
        copy(self.dir.path(), dir.path());
        flip(&dir.path().join(file), at, bit);
        dir
    }
}

pub(crate) fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

fn flip(path: &PathBuf, at: u64, bit: u32) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1 << bit], at).unwrap();
}

fn word(path: &Path, at: u64) -> u64 {
    let mut bytes = [0; 8];
    File::open(path).unwrap().read_exact_at(&mut bytes, at).unwrap();
    u64::from_le_bytes(bytes)
}

/// What a store shows by key and as a whole; how often it says that something is damaged.
pub(crate) fn shown(store: &RawStore<Directory>) -> Result<(Records, u64), String> {
    let (mut records, mut damaged) = (Records::new(), 0);
    for number in 0..KEYS + 5 {
        match store.get(&key(number)) {
            Ok(found) => drop(found.map(|found| records.insert(key(number), found))),
            Err(Error::BadSlot { .. } | Error::Damaged { .. }) => damaged += 1,
            Err(error) => return Err(error.to_string()),
        }
    }
    let mut all = Records::new();
    match store.for_each(|key, value| drop(all.insert(key.to_vec(), value.to_vec()))) {
        Ok(()) if damaged == 0 && all != records => return Err("it shows two things".to_owned()),
        Ok(()) => {}
        Err(_) => damaged += 1,
    }
    Ok((records, damaged))
}

/// Opens what was flipped, looks at everything, and opens it again if something was told.
fn judge(place: &Path, states: &[State]) -> Result<bool, String> {
    if let Ok(reader) = Reader::open(place) {
        for number in 0..KEYS + 5 {
            let known = |found: &Vec<u8>| {
                states.iter().any(|(state, _)| state.get(&key(number)) == Some(found))
            };
            if let Ok(Some(found)) = reader.get(&key(number))
                && !known(&found)
            {
                return Err(format!("a reader is shown {found:?} of key {number}"));
            }
        }
    }
    let store = open(place).map_err(|error| format!("not opened: {error}"))?;
    let was_adopted = store.stats()[0].adopted;
    let (records, damaged) = shown(&store)?;
    if damaged == 0 {
        let history = store.history(0).map_err(|error| error.to_string())?;
        // An opening that makes the memory anew marks the end of the log by a write of its own.
        let is_known = |(state, at): &State| *state == records && (!was_adopted || *at == history);
        if !states.iter().any(is_known) {
            return Err(format!("shows what was never there (adopted: {was_adopted})"));
        }
        return match store.verify() {
            Ok(()) => Ok(!was_adopted),
            // Memory that was closed is taken over without a look at more than the end of the log.
            Err(Error::Damaged { file, .. }) if was_adopted && file.ends_with(".log") => Ok(true),
            Err(error) => Err(format!("not sound: {error}")),
        };
    }
    let may_be = |(key, found): (&Vec<u8>, &Vec<u8>)| {
        states.iter().any(|(state, _)| state.get(key) == Some(found))
    };
    if !records.iter().all(may_be) {
        return Err("shows what was never there beside what is damaged".to_owned());
    }
    drop(store);
    let store = open(place).map_err(|error| format!("not opened again: {error}"))?;
    if store.stats()[0].adopted {
        return Err("damaged memory was taken over".to_owned());
    }
    match shown(&store)? {
        (records, 0) if states.iter().any(|(state, _)| *state == records) => {}
        _ => return Err("not healed".to_owned()),
    }
    store.verify().map_err(|error| format!("not sound afterwards: {error}"))?;
    Ok(true)
}

/// The log: its name, and the bytes of its frames.
fn log(place: &Path) -> (String, Vec<u64>) {
    let names = fs::read_dir(place).unwrap().map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| name.into_string().unwrap());
    let name = names.filter(|name| name.ends_with(".log")).max().unwrap();
    let bytes = fs::read(place.join(&name)).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64;
    (name, (DATA_AT..=end).collect())
}

/// Where bits are flipped: a name, the file, the bytes, and whether every write has to be there after it.
fn regions(scene: &Scene) -> Vec<(&'static str, String, Vec<u64>, bool)> {
    let live = scene.dir.path().join(live_name(0));
    let table = Name((word(&live, 128) >> 32) as u32);
    let slots_at = RING_AT as u64 + SEGMENT_BYTES_MIN;
    let (from, len) = table.range();
    let words = (from..from + len).step_by(8);
    let index = scene.dir.path().join(index_name(0));
    let named: Vec<u64> = words.filter(|at| word(&index, *at) != 0).take(12).collect();
    let slots = (slots_at + 6 * SLOT..slots_at + 12 * SLOT).step_by(2);
    let log = log(scene.dir.path());
    vec![
        ("header", live_name(0), (0..HEADER_LEN as u64).step_by(3).collect(), false),
        ("words", live_name(0), (128..384).collect(), false),
        ("ring", live_name(0), (RING_AT as u64..slots_at).step_by(2_039).collect(), false),
        ("slots", live_name(0), slots.collect(), true),
        ("index", index_name(0), named.iter().flat_map(|at| *at..*at + 8).collect(), true),
        ("empty words", index_name(0), (from..from + len).step_by(67).collect(), true),
        ("log", log.0, log.1.into_iter().step_by(7).collect(), true),
    ]
}

fn all(scene: &Scene) -> (BTreeMap<&'static str, (u64, u64)>, Outcome) {
    let (mut rng, mut counts) = (Rng::seeded(1), BTreeMap::new());
    for (name, file, bytes, keeps_all) in regions(scene) {
        let states = &scene.states[if keeps_all { scene.states.len() - 1 } else { 0 }..];
        for at in bytes {
            let bit = rng.below(8) as u32;
            let dir = scene.flipped(&file, at, bit);
            match judge(dir.path(), states) {
                Ok(found) => {
                    let (flips, told) = counts.entry(name).or_insert((0, 0));
                    *flips += 1;
                    *told += u64::from(found);
                }
                Err(what) => {
                    return (counts, Err(format!("{name}, byte {at}, bit {bit}: {what}")));
                }
            }
        }
    }
    (counts, Ok(()))
}

#[test]
fn a4_a_flipped_bit_in_memory_that_was_left_is_found_or_harms_nobody() {
    for is_closed in [true, false] {
        let scene = Scene::new(is_closed);
        let (counts, outcome) = all(&scene);
        println!("closed: {is_closed}; flips and how many were found: {counts:?}");
        assert_eq!(outcome, Ok(()));
        for name in ["slots", "index"] {
            let (flips, told) = counts[name];
            // Those of slots that are free harm nobody.
            assert!(told * 2 > flips, "{name}: {told} of {flips}");
        }
    }
}

/// The last durable write is damaged in the log of a process that was killed, and its memory is not to
/// be taken over.
fn without_memory() -> Outcome {
    let scene = Scene::new(false);
    let (name, bytes) = log(scene.dir.path());
    let suspect = scene.flipped(&live_name(0), 152, 0);
    let opened = open(suspect.path()).map_err(|error| error.to_string())?;
    if opened.stats()[0].adopted {
        return Err("damaged memory was taken over".to_owned());
    }
    assert_eq!(shown(&opened)?, (scene.last().clone(), 0));
    for at in bytes {
        let place = scene.flipped(&name, at, 3);
        flip(&place.path().join(live_name(0)), 152, 0);
        match open(place.path()) {
            Err(Error::Damaged { file, .. }) if file == name => {}
            Err(error) => return Err(format!("byte {at}: {error}")),
            Ok(_) => return Err(format!("byte {at} of the log: nobody was told")),
        }
    }
    Ok(())
}

#[test]
fn a4_a_durable_write_is_missed_though_the_memory_that_tells_of_it_is_damaged_too() {
    assert_eq!(without_memory(), Ok(()));
    plant(Some(Fault::DurableUnasked));
    let outcome = without_memory();
    plant(None);
    assert!(outcome.is_err(), "the planted fault was not found");
}

#[test]
fn a4_every_planted_fault_of_memory_is_found_by_flipped_bits() {
    let scene = Scene::new(true);
    for fault in [
        Fault::SlotUnchecked,
        Fault::SuspectTakenOver,
        Fault::NamesUnchecked,
        Fault::PlaceUnchecked,
        Fault::RingUnasked,
    ] {
        plant(Some(fault));
        let (_, outcome) = all(&scene);
        plant(None);
        println!("{fault:?}: {outcome:?}");
        assert!(outcome.is_err(), "{fault:?} was not found");
    }
}

#[test]
fn a4_a_slot_that_rots_under_an_open_store_is_told_by_whatever_looks_at_it_and_healed_by_opening() {
    let scene = Scene::new(true);
    let slots_at = RING_AT as u64 + SEGMENT_BYTES_MIN;
    let slot_of = |live: &Path, number: u64| {
        let mut padded = [0; 8];
        padded[..KEY].copy_from_slice(&key(number));
        let mut slots = (0..KEYS).map(|slot| slots_at + slot * SLOT);
        slots
            .find(|at| word(live, *at) != 0 && word(live, *at + 16) == u64::from_le_bytes(padded))
            .unwrap()
    };
    // A byte of the sequence, of the checksum, of the key and of the value.
    for byte in [0, 9, 18, 30] {
        let place = scene.flipped(live_name(0).as_str(), 4095, 0);
        let live = place.path().join(live_name(0));
        let store = open(place.path()).unwrap();
        assert!(store.stats()[0].adopted);
        let (rotten, written) = (key(30), store.stats()[0].sequence);
        flip(&live, slot_of(&live, 30) + byte, 3);
        let is_told = |error: Option<Error>| {
            let told = matches!(&error, Some(Error::BadSlot { shard: 0, .. }));
            assert!(told, "byte {byte}: {error:?}");
        };
        is_told(store.get(&rotten).err());
        is_told(Reader::open(place.path()).unwrap().get(&rotten).err());
        is_told(store.update(&rotten, Durability::Memory, |old| old.map(<[u8]>::to_vec)).err());
        is_told(store.insert(&rotten, &value(1), Durability::Memory).err());
        is_told(store.delete(&rotten, Durability::Memory).err());
        let swapped = store.compare_and_swap(&rotten, None, Some(&value(1)), Durability::Memory);
        is_told(swapped.err());
        is_told(store.for_each(|_, _| {}).err());
        is_told(store.upkeep().err());
        is_told(store.verify().err());
        is_told(store.compact().err());
        // Nothing of it came into the log, and the others are used as before.
        assert_eq!(store.stats()[0].sequence, written);
        assert_eq!(store.get(&key(31)).unwrap(), Some(value(32)));
        store.put(&key(31), &value(9), Durability::Memory).unwrap();
        drop(store);
        let store = open(place.path()).unwrap();
        assert!(!store.stats()[0].adopted);
        assert_eq!(store.get(&rotten).unwrap(), Some(value(31)));
        assert_eq!(store.get(&key(31)).unwrap(), Some(value(9)));
        store.verify().unwrap();
        store.upkeep().unwrap();
        store.close().unwrap();
        assert!(open(place.path()).unwrap().stats()[0].adopted);
    }
}

#[test]
fn a_value_that_rots_and_is_replaced_harms_nobody() {
    let scene = Scene::new(true);
    let place = scene.flipped(live_name(0).as_str(), 4095, 0);
    let live = place.path().join(live_name(0));
    let store = open(place.path()).unwrap();
    let slots_at = RING_AT as u64 + SEGMENT_BYTES_MIN;
    for slot in 0..KEYS {
        flip(&live, slots_at + slot * SLOT + 30, 1);
    }
    for number in 0..KEYS {
        store.put(&key(number), &value(number), Durability::Memory).unwrap();
        assert_eq!(store.get(&key(number)).unwrap(), Some(value(number)));
    }
    store.upkeep().unwrap();
    store.verify().unwrap();
}

#[test]
fn a_word_of_the_index_that_rots_under_an_open_store_is_told_by_verify_and_healed_by_opening() {
    let scene = Scene::new(true);
    let place = scene.flipped(live_name(0).as_str(), 4095, 0);
    let (_, index, words, _) = regions(&scene).swap_remove(4);
    let store = open(place.path()).unwrap();
    flip(&place.path().join(index), words[5], 2);
    assert!(matches!(store.verify(), Err(Error::Differs { shard: 0, .. })));
    drop(store);
    let store = open(place.path()).unwrap();
    assert!(!store.stats()[0].adopted);
    assert_eq!(shown(&store).unwrap(), (scene.last().clone(), 0));
}

#[test]
fn memory_of_an_earlier_release_is_made_anew_and_loses_no_write_of_a_process_that_was_killed() {
    let scene = Scene::new(false);
    let live = scene.dir.path().join(live_name(0));
    let file = File::options().read(true).write(true).open(&live).unwrap();
    let mut bytes = [0; HEADER_LEN];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let mut header = LiveHeader::read_from_bytes(&bytes).unwrap();
    header.flags = 0.into();
    file.write_all_at(&sealed(&header), 0).unwrap();
    let store = open(scene.dir.path()).unwrap();
    assert!(!store.stats()[0].adopted);
    assert_eq!(shown(&store).unwrap(), (scene.last().clone(), 0));
    store.verify().unwrap();
}
