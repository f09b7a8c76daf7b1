//! Files of persistent states that nobody can trust, as after a power cut or by an enemy. A state
//! begins with exactly what the rules of the format say, or is refused, and then the file is as it was.

#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use mainstay_fuzz::{
    durable::{self, Files, Found},
    world,
};
use mainstay_state::{Domain, Error, Grade, StateOptions};
use std::{fs, path::Path};

thread_local! {
    static FOLDER: tempfile::TempDir = world::folder();
}

fuzz_target!(|data: &[u8]| {
    world::prepare();
    let Ok(files) = Files::arbitrary_take_rest(Unstructured::new(data)) else { return };
    FOLDER.with(|folder| try_all(folder.path(), &files));
});

fn try_all(folder: &Path, files: &Files) {
    files.put(folder);
    let [path, _] = durable::paths(folder);
    let wanted = durable::expected(&path);
    let before = fs::read(&path).ok();
    let domain = Domain::open(folder.join("states")).expect("nobody has damaged the folder");
    let options = StateOptions::new().size(8).size_limit(4_096).slots(3).slots_max(3);
    let state = options.persistent(&path, Grade::Process).writer::<[u8]>(&domain, "first");
    let state = match state {
        Ok(state) => state,
        Err(error) => {
            assert_eq!(wanted, Found::Damaged, "{error}");
            assert!(error.to_string().len() > 20, "{error}");
            assert_eq!(fs::read(&path).ok(), before, "a refusal changes nothing: {error}");
            assert!(matches!(domain.info("first"), Ok(None)), "a refusal makes nothing");
            return;
        }
    };
    let (version, value) = match wanted {
        Found::Whole(whole) => (whole.version, whole.data),
        Found::Nothing => (0, vec![0; 8]),
        Found::Damaged => panic!("damage was taken for version {:?}", state.version()),
    };
    {
        let snapshot = state.read().expect("what was restored can be read");
        assert_eq!((snapshot.version(), &*snapshot), (version, &*value));
    }
    // It lives on.
    assert_eq!(state.replace(b"next").expect("there is room"), version + 1);
    state.sync().expect("the file can be written");
    match durable::expected(&path) {
        Found::Whole(whole) => {
            assert_eq!((whole.version, &*whole.data), (version + 1, &b"next"[..]))
        }
        found => panic!("a sync has left {found:?}"),
    }
    match state.delete() {
        Ok(()) => assert!(!path.exists()),
        Err(error) => panic!("{error}"),
    }
    assert!(matches!(state.read(), Err(Error::Deleted { .. })));
}
