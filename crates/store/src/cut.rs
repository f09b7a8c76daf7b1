//! Files of a store's memory that are cut off, or that cannot grow: the memory is made anew from the
//! log, or the write is refused, and nothing is lost (A4).

use std::{
    env, fs,
    fs::File,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::{
    Change, Durability, Error, Options, RawStore, Reader,
    flipped::{KEYS, Scene, State, copy, key, open, options, scratch, shown, value},
    folder::Directory,
    format::{index_name, live_name},
    limits::SEGMENT_BYTES_MIN,
    live::RING_AT,
    planted::{Fault, plant},
};

/// Makes a file as long as that, shorter or longer.
fn set_len(path: &Path, len: u64) {
    File::options().write(true).open(path).unwrap().set_len(len).unwrap();
}

/// What a reader in place is shown: something that was there, nothing, or that it cannot tell.
fn judge_reader(place: &Path, states: &[State]) -> Result<(), String> {
    let reader = match Reader::open(place) {
        Ok(reader) => reader,
        Err(Error::NotInMemory { .. } | Error::Damaged { .. }) => return Ok(()),
        Err(error) => return Err(format!("a reader is told: {error}")),
    };
    for number in [12, KEYS - 1] {
        let is_right = match reader.get(&key(number)) {
            Ok(Some(found)) => {
                states.iter().any(|(state, _)| state.get(&key(number)) == Some(&found))
            }
            Ok(None) => states.iter().any(|(state, _)| !state.contains_key(&key(number))),
            Err(Error::Damaged { .. } | Error::BadSlot { .. }) => true,
            Err(_) => false,
        };
        if !is_right {
            return Err(format!("a reader is shown something else of key {number}"));
        }
    }
    Ok(())
}

/// Opens what was cut: all is there, and the store works on. Was the memory taken over?
fn judge(place: &Path, states: &[State]) -> Result<bool, String> {
    let told = |error: Error| error.to_string();
    let store = open(place).map_err(told)?;
    let was_adopted = store.stats()[0].adopted;
    let found = shown(&store)?;
    if !states.iter().any(|(state, _)| (state, 0) == (&found.0, found.1)) {
        let (records, damaged) = found;
        return Err(format!(
            "{} records and {damaged} damaged, adopted: {was_adopted}",
            records.len()
        ));
    }
    store.verify().map_err(told)?;
    let mut records = found.0;
    store.put(&key(3), &value(3), Durability::Group).map_err(told)?;
    records.insert(key(3), value(3));
    store.close().map_err(told)?;
    let store = open(place).map_err(told)?;
    if !store.stats()[0].adopted || shown(&store)? != (records, 0) {
        return Err("not as it was after a close".to_owned());
    }
    Ok(was_adopted)
}

/// Lengths that a file of so many bytes is cut to, or made longer to.
fn lengths(len: u64) -> Vec<u64> {
    let slots_at = RING_AT as u64 + SEGMENT_BYTES_MIN;
    let mut lengths = vec![0, 1, 64, 127, 128, 160, 383, 384, RING_AT as u64 - 1, RING_AT as u64];
    lengths.extend((RING_AT as u64..len).step_by(977));
    // In the middle of slots, and between two.
    lengths.extend((slots_at..slots_at + 500).step_by(24));
    lengths.extend([len - 1, len, len + 1, len + 4096, 2 * len]);
    lengths
}

fn cut_at_all_lengths() -> Result<(u64, u64), String> {
    let (mut adopted, mut anew) = (0, 0);
    for is_closed in [true, false] {
        let scene = Scene::new(is_closed);
        for (file, keeps_all) in [(live_name(0), is_closed), (index_name(0), true)] {
            let len = fs::metadata(scene.dir.path().join(&file)).unwrap().len();
            let first = if keeps_all { scene.states.len() - 1 } else { 0 };
            for (number, cut) in lengths(len).into_iter().enumerate() {
                let dir = scratch();
                copy(scene.dir.path(), dir.path());
                set_len(&dir.path().join(&file), cut);
                let told =
                    |what: String| format!("{file} of {cut} bytes, closed: {is_closed}: {what}");
                // Who reads in place looks long for what is not there, so not each time.
                if number.is_multiple_of(10) {
                    judge_reader(dir.path(), &scene.states).map_err(told)?;
                }
                let was_adopted = judge(dir.path(), &scene.states[first..]).map_err(told)?;
                *if was_adopted { &mut adopted } else { &mut anew } += 1;
            }
        }
    }
    Ok((adopted, anew))
}

#[test]
fn a4_memory_whose_files_were_cut_off_is_made_anew_and_nothing_is_lost() {
    let (adopted, anew) = cut_at_all_lengths().unwrap();
    println!("{adopted} were taken over, {anew} made anew");
    // What is behind the last slot, or the last table, is nothing.
    assert!(adopted > 20 && anew > 100, "{adopted} {anew}");
    plant(Some(Fault::CutIgnored));
    let outcome = cut_at_all_lengths();
    plant(None);
    assert!(outcome.is_err(), "memory that was cut off was taken over, and nobody saw it");
}

/// A store in which nothing was written yet, whose memory ends in its ring; what it has after some writes,
/// once that memory is gone.
fn empty_and_cut(cut: u64) -> Result<usize, String> {
    let told = |error: Error| error.to_string();
    let dir = scratch();
    let folder = Directory::lock(dir.path()).map_err(told)?;
    drop(RawStore::create(folder, key(0).len(), value(0).len(), &options()).map_err(told)?);
    set_len(&dir.path().join(live_name(0)), cut);
    let store = open(dir.path()).map_err(told)?;
    // A frame that needs no slot, so that the memory does not grow.
    store.batch(&[Change::Delete(&key(2))], Durability::Memory).map_err(told)?;
    store.close().map_err(told)?;
    let store = open(dir.path()).map_err(told)?;
    store.put(&key(1), &value(1), Durability::Group).map_err(told)?;
    store.close().map_err(told)?;
    for name in [live_name(0), index_name(0)] {
        fs::remove_file(dir.path().join(name)).map_err(|error| error.to_string())?;
    }
    let store = open(dir.path()).map_err(told)?;
    store.verify().map_err(told)?;
    Ok(shown(&store)?.0.len())
}

#[test]
fn a4_memory_of_an_empty_store_that_ends_in_its_ring_takes_no_frame_with_it() {
    for cut in [384, RING_AT as u64, RING_AT as u64 + 100, RING_AT as u64 + SEGMENT_BYTES_MIN - 8] {
        assert_eq!(empty_and_cut(cut), Ok(1), "{cut}");
    }
    plant(Some(Fault::CutIgnored));
    let outcome = empty_and_cut(RING_AT as u64);
    plant(None);
    assert_ne!(outcome, Ok(1), "the planted fault was not found");
}

/// In a process that is to do something: where, and with which file.
const PLACE: &str = "MAINSTAY_CUT_PLACE";
const FILE: &str = "MAINSTAY_CUT_FILE";

fn place() -> Option<PathBuf> {
    env::var_os(PLACE).map(PathBuf::from)
}

/// Runs a test of this file in a process of its own, whose files may have so many kilobytes.
fn run_alone(test: &str, place: &Path, file: &str, kilobytes: Option<u64>) -> Output {
    // It is told in blocks of 512 bytes.
    let limit = kilobytes.map(|limit| format!("ulimit -f {};", 2 * limit)).unwrap_or_default();
    let limited = format!(r#"trap "" XFSZ; {limit} exec "$@""#);
    let mut child = Command::new("sh");
    child.args(["-c", &limited, "sh"]).arg(env::current_exe().unwrap());
    child.args([&*format!("cut::{test}"), "--exact", "--nocapture"]);
    child.env(PLACE, place).env(FILE, file).output().unwrap()
}

fn many(number: u64) -> (Vec<u8>, Vec<u8>) {
    (key(number), value(number))
}

#[test]
fn a_memory_that_cannot_grow_refuses_the_write_and_the_store_goes_on() {
    if let Some(place) = place() {
        let store = open(&place).unwrap();
        let before = store.stats()[0].records;
        let mut number = before;
        let refused = loop {
            let (key, value) = many(number);
            match store.put(&key, &value, Durability::Group) {
                Ok(_) => number += 1,
                Err(error) => break error,
            }
        };
        assert!(refused.is_full(), "{refused:?}");
        assert!(refused.to_string().contains("no room"), "{refused}");
        let written = store.stats()[0].sequence;
        for _again in 0..3 {
            let (key, value) = many(number);
            let refused = store.put(&key, &value, Durability::Group);
            assert!(refused.is_err_and(|error| error.is_full()));
            let refused = store.batch_across(&[Change::Put(&key, &value)]);
            assert!(refused.is_err_and(|error| error.is_full()));
            assert_eq!(store.get(&key).unwrap(), None);
        }
        assert_eq!((store.stats()[0].sequence, store.stats()[0].records), (written, number));
        assert!(store.stats()[0].poisoned.is_none());
        // What is there can be read and deleted, and then there is room: a delete needs none.
        for number in 0..number {
            assert_eq!(store.get(&many(number).0).unwrap(), Some(many(number).1));
        }
        plant(Some(Fault::DeletesReserve));
        let refused = store.delete(&many(0).0, Durability::Group);
        plant(None);
        assert!(refused.is_err_and(|error| error.is_full()), "the planted fault was not found");
        // Not each delete empties a word of the index, but some of a few do.
        let (key, value) = many(number);
        let deleted = (0..20).position(|old| {
            store.delete(&many(old).0, Durability::Group).unwrap();
            store.put(&key, &value, Durability::Group).is_ok()
        });
        assert!(deleted.is_some());
        println!("refused the {number}th, which is {} more", number - before);
        return;
    }
    // The index has its tables at places in a file that grows beside the slots.
    for kilobytes in [100, 150, 250, 400, 700, 1_200] {
        let dir = scratch();
        let small = Options { segment_bytes: 32 << 10, ..options() };
        let folder = Directory::lock(dir.path()).unwrap();
        drop(RawStore::create(folder, key(0).len(), value(0).len(), &small).unwrap());
        let test = "a_memory_that_cannot_grow_refuses_the_write_and_the_store_goes_on";
        let output = run_alone(test, dir.path(), "", Some(kilobytes));
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{kilobytes}: {output:?}");
        print!(
            "{kilobytes} KiB: {}",
            text.lines().find(|line| line.contains("refused the")).unwrap()
        );
        // Without that limit it takes more.
        let store = open(dir.path()).unwrap();
        let there = store.stats()[0].records;
        assert_eq!(store.get(&many(0).0).unwrap(), None);
        let found = |at| store.get(&many(at).0).unwrap();
        assert!((20..=there).all(|at| found(at) == Some(many(at).1)));
        for number in there + 20..there + 2_000 {
            let (key, value) = many(number);
            store.put(&key, &value, Durability::Memory).unwrap();
        }
        store.verify().unwrap();
    }
}

#[test]
fn a_process_under_which_a_file_of_memory_is_cut_off_ends_and_nothing_durable_is_lost() {
    const TEST: &str =
        "a_process_under_which_a_file_of_memory_is_cut_off_ends_and_nothing_durable_is_lost";
    if let (Some(place), Ok(file)) = (place(), env::var(FILE)) {
        let store = open(&place).unwrap();
        store.put(&key(30), &value(200), Durability::Group).unwrap();
        set_len(&place.join(file), 0);
        // It may be told, or be ended by the kernel; it is not shown what was never there.
        for number in 0..KEYS {
            let found = store.get(&key(number)).ok().flatten();
            assert!(found.is_none_or(|found| found[0] != 0));
        }
        std::process::exit(77);
    }
    for file in [live_name(0), index_name(0)] {
        let scene = Scene::new(false);
        let output = run_alone(TEST, scene.dir.path(), &file, None);
        const SIGBUS: i32 = 7;
        let ended = (output.status.signal(), output.status.code());
        assert!(ended == (Some(SIGBUS), None) || ended == (None, Some(77)), "{output:?}");
        let store = open(scene.dir.path()).unwrap();
        assert!(!store.stats()[0].adopted);
        let (found, damaged) = shown(&store).unwrap();
        let mut expected = scene.states.last().unwrap().0.clone();
        expected.insert(key(30), value(200));
        assert_eq!((found, damaged), (expected, 0), "{file}");
        store.verify().unwrap();
    }
}
