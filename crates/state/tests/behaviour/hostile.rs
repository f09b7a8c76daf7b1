//! Another process has scribbled over the files: typed errors, no panic, no wild access.

use crate::Scratch;
use mainstay_base::{Rng, crc32c};
use mainstay_state::{Domain, Error, Grade, MultiTransaction, State, StateOptions};
use std::{
    fs,
    os::unix::{ffi::OsStrExt, fs::FileExt},
    path::PathBuf,
};

fn file(scratch: &Scratch, ending: &str) -> PathBuf {
    let entries = fs::read_dir(scratch.domain.folder()).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let is_it = |path: &PathBuf| path.to_str().unwrap().contains(ending);
    paths.into_iter().find(is_it).unwrap()
}

fn scribble(path: &PathBuf, offset: u64, word: u64) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(&word.to_le_bytes(), offset).unwrap();
}

/// Does everything there is; errors are fine, and so are wrong values.
fn use_all(state: &State<[u8]>) {
    let _ = state.read().map(|snapshot| snapshot.iter().map(|b| u64::from(*b)).sum::<u64>());
    let _ = state.copy_to(&mut [0; 100]);
    let _ = state.replace(b"next");
    let _ = state.set_size(9_000);
    let _ = state.info();
    let _ = state.scavenge();
    let _ = state.persistence();
    if let Ok(mut transaction) = state.begin() {
        let _ = transaction.bytes_mut().map(|bytes| bytes.fill(1));
        let _ = transaction.commit();
    }
    let mut multi = MultiTransaction::new();
    let _ = multi.bytes_mut(state).map(|bytes| bytes.fill(2));
    let _ = multi.commit();
}

#[test]
fn a_word_that_names_no_slot_is_an_error_that_says_so() {
    for word in [64, 0xFF, 50, 1 << 8 | 40] {
        let scratch = Scratch::new();
        let options = StateOptions::new().slots(3).slots_max(4);
        let state: State<[u8]> = options.writer(&scratch.domain, "speed").unwrap();
        scribble(&file(&scratch, ".state"), 4_096, word);
        let error = state.read().unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{word:#x}: {error}");
        use_all(&state);
    }
}

#[test]
fn a_length_beyond_the_slot_is_an_error_that_says_so() {
    for len in [u64::MAX, 1 << 40, 64 << 20 | 4_096] {
        let scratch = Scratch::new();
        let state: State<[u8]> = scratch.domain.writer("speed").unwrap();
        state.replace(b"80").unwrap();
        let slot = (0..8).find(|slot| {
            let mut version = [0; 8];
            let file = fs::File::open(file(&scratch, ".state")).unwrap();
            file.read_exact_at(&mut version, 8_448 + slot * 64 + 8).unwrap();
            u64::from_le_bytes(version) == 1
        });
        scribble(&file(&scratch, ".state"), 8_448 + slot.unwrap() * 64 + 16, len);
        let error = state.read().unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{len:#x}: {error}");
        use_all(&state);
    }
}

/// In the file of a state.
const GRADE: u64 = 4_288;
const PATH_LEN: u64 = 4_296;
const PATH_CHECKSUM: u64 = 4_304;
const PATH: u64 = 4_352;

/// A state kept in `kept/1`, one kept in `other`, and a file at `kept/2` that is nobody's.
fn kept(scratch: &Scratch) -> (State<[u8]>, State<[u8]>, PathBuf) {
    let folder = scratch.path().join("kept");
    fs::create_dir(&folder).unwrap();
    let state: State<[u8]> = scratch.domain.writer("speed").unwrap();
    state.set_persistent(folder.join("1"), Grade::Process).unwrap();
    let other: State<[u8]> = scratch.domain.writer("other").unwrap();
    other.set_persistent(scratch.path().join("other"), Grade::Process).unwrap();
    let precious = folder.join("2");
    fs::write(&precious, b"precious").unwrap();
    (state, other, precious)
}

#[test]
fn a_path_that_was_scribbled_on_is_not_used() {
    let path_len = |scratch: &Scratch| scratch.path().join("kept/1").as_os_str().len() as u64;
    // Another file of the same folder; the folder; nothing; more than there is; another checksum;
    // no such grade.
    let scribbles: [fn(u64) -> (u64, u64); 6] = [
        |len| (PATH + len - 1, u64::from(b'2')),
        |len| (PATH_LEN, len - 2),
        |_| (PATH_LEN, 0),
        |_| (PATH_LEN, u64::MAX),
        |_| (PATH_CHECKSUM, 0),
        |_| (GRADE, 3),
    ];
    for (index, scribbled) in scribbles.into_iter().enumerate() {
        let scratch = Scratch::new();
        let (state, other, precious) = kept(&scratch);
        let (at, value) = scribbled(path_len(&scratch));
        scribble(&file(&scratch, "speed.state"), at, value);
        let is_told = |result: Result<(), Error>| {
            matches!(result, Err(Error::Corrupt { field: "grade or path", .. }))
        };
        other.replace(b"80").unwrap();
        assert!(is_told(other.sync()), "{index}");
        assert!(is_told(state.persistence().map(drop)), "{index}");
        assert!(is_told(state.delete()), "{index}");
        // Its neighbour was written all the same.
        let written = fs::read(scratch.path().join("other")).unwrap();
        assert!(written.ends_with(b"80"), "{index}");
        assert_eq!(fs::read(&precious).unwrap(), b"precious");
        use_all(&state);
    }
}

#[test]
fn a_file_that_is_no_state_s_is_neither_written_over_nor_removed() {
    let scratch = Scratch::new();
    let (state, _other, precious) = kept(&scratch);
    // A path that fits its checksum: as somebody would write it who knows how.
    let path = precious.as_os_str().as_bytes();
    let id = state.info().unwrap().id;
    let checksum = crc32c(&[&id.to_le_bytes()[..], path].concat());
    let memory = file(&scratch, "speed.state");
    scribble(&memory, PATH + path.len() as u64 - 1, u64::from(b'2'));
    scribble(&memory, PATH_CHECKSUM, checksum.into());
    assert_eq!(state.persistence().unwrap(), Some((precious.clone(), Grade::Process)));
    state.replace(b"80").unwrap();
    assert!(matches!(state.sync(), Err(Error::Corrupt { .. })));
    let refused = state.delete();
    assert!(matches!(refused, Err(Error::Corrupt { field: "magic", .. })), "{refused:?}");
    assert_eq!(fs::read(&precious).unwrap(), b"precious");
}

#[test]
fn a_damaged_header_is_refused_by_field_and_changes_nothing() {
    let scratch = Scratch::new();
    // The file is as long as its slots can come to be.
    let options = StateOptions::new().slots(3).slots_max(3).size_limit(4_096);
    let state: State<[u8]> = options.writer(&scratch.domain, "speed").unwrap();
    let path = file(&scratch, ".state");
    let whole = fs::read(&path).unwrap();
    // Keep the state alive while its file is looked at by name.
    let copy = Domain::open(scratch.path().join("copy")).unwrap();
    drop(copy.writer::<[u8]>("other").unwrap());
    for at in (0..4_096).step_by(37).chain([0, 8, 16, 24, 4_088]) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x40;
        if damaged == whole {
            continue;
        }
        let place = copy.folder().join("speed.state");
        fs::write(&place, &damaged).unwrap();
        let refused = copy.writer::<[u8]>("speed");
        let is_named = matches!(&refused, Err(Error::Corrupt { .. } | Error::Version { .. }));
        // The last bytes of the header are reserved and outside of the checksum.
        assert!(is_named || at > 4_091, "byte {at}: {refused:?}");
        assert_eq!(fs::read(&place).unwrap(), damaged);
    }
    drop(state);
}

#[test]
fn files_cut_short_emptied_or_replaced_by_noise_are_refused() {
    let scratch = Scratch::new();
    let place = scratch.domain.folder().join("speed.state");
    let mut rng = Rng::seeded(3);
    let noise: Vec<u8> = (0..40_000).map(|_| rng.next_u64() as u8).collect();
    for bytes in [&[][..], &[0; 100], &[0; 100_000], &noise] {
        fs::write(&place, bytes).unwrap();
        let refused = scratch.domain.reader::<[u8]>("speed");
        assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
        assert_eq!(fs::read(&place).unwrap(), bytes);
    }
    fs::remove_file(&place).unwrap();
    fs::create_dir(&place).unwrap();
    assert!(matches!(scratch.domain.reader::<[u8]>("speed"), Err(Error::Memory(_))));
}
