//! Stores that earlier versions wrote are opened, with everything in them. The files are in
//! `tests/upgrade` as text. When the version of a format changes, the files of the last one are made
//! by the example `fixture` of the last release, and join the others here; none is ever replaced:
//!
//! ```text
//! cargo run -p mainstay-store --example fixture -- fixed > crates/store/tests/upgrade/fixed-N.txt
//! ```

#![allow(clippy::unwrap_used, reason = "clippy does not see that all of this is a test")]

use mainstay_store::{Directory, Durability, LogSurvey, RawLogStore, RawStore, Survey};

#[allow(dead_code, unreachable_pub)]
#[path = "upgrade/story.rs"]
mod story;

use story::{LENGTHS, Records, any_len, any_options, changes, fixed_options, records, unpack};

#[test]
fn a_store_of_the_first_version_is_opened_with_everything_in_it() {
    let dir = tempfile::tempdir().unwrap();
    unpack(include_str!("upgrade/fixed-1.txt"), dir.path()).unwrap();
    let survey = Survey::of(dir.path(), |_, _| {}).unwrap();
    assert!(survey.is_sound(), "{survey:?}");
    let wanted = records(&changes(|_| LENGTHS.1));
    for _ in 0..2 {
        let store = RawStore::open(Directory::lock(dir.path()).unwrap(), &fixed_options()).unwrap();
        let mut found = Records::new();
        store.for_each(|key, value| drop(found.insert(key.to_vec(), value.to_vec()))).unwrap();
        assert_eq!(found, wanted);
        store.verify().unwrap();
        // It can be written to, and opened again.
        let (key, value) = wanted.first_key_value().unwrap();
        store.put(key, value, Durability::Group).unwrap();
        store.compact().unwrap();
        store.close().unwrap();
    }
}

#[test]
fn a_store_of_any_sizes_of_the_first_version_is_opened_with_everything_in_it() {
    let dir = tempfile::tempdir().unwrap();
    unpack(include_str!("upgrade/any-1.txt"), dir.path()).unwrap();
    let survey = LogSurvey::of(dir.path(), |_, _| {}).unwrap();
    assert!(survey.damage.is_empty(), "{survey:?}");
    let wanted = records(&changes(any_len));
    for _ in 0..2 {
        let store =
            RawLogStore::open(Directory::lock(dir.path()).unwrap(), &any_options()).unwrap();
        let mut found = Records::new();
        store.for_each(|key, value| drop(found.insert(key.to_vec(), value.to_vec()))).unwrap();
        assert_eq!(found, wanted);
        let (key, value) = wanted.first_key_value().unwrap();
        store.put(key, value, Durability::Group).unwrap();
        store.compact().unwrap();
        store.close().unwrap();
    }
}

#[test]
fn files_as_text_are_the_same_files() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    story::make_fixed(one.path()).unwrap();
    story::make_any(other.path()).unwrap();
    for dir in [one, other] {
        let text = story::describe(dir.path()).unwrap();
        let again = tempfile::tempdir().unwrap();
        unpack(&text, again.path()).unwrap();
        assert!(text == story::describe(again.path()).unwrap() && text.len() > 10_000);
    }
}
