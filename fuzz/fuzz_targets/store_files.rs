//! Files of a store that nobody can trust. After an accident, a store that opens has what some
//! write left, and after that of one byte all of it; whatever was done on purpose, it is opened or
//! refused, and what is opened works.

#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use mainstay_fuzz::{
    folder::Files,
    store::{Base, Input, LENGTHS, contents, options},
    world,
};
use mainstay_store::{Durability, Error, RawStore, Survey};

thread_local! {
    static BASE: Base = Base::new();
}

fuzz_target!(|data: &[u8]| {
    world::plant();
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(data)) else { return };
    BASE.with(|base| try_all(base, &input));
});

fn try_all(base: &Base, input: &Input) {
    let files = Files::of(&input.apply(&base.files));
    let before = files.contents();
    let survey = Survey::over(&files, |_, _| {});
    assert_eq!(files.contents(), before, "looking changes nothing");
    let store = match RawStore::open(files.clone(), &options()) {
        Ok(store) => store,
        Err(error) => {
            assert!(error.to_string().len() > 20, "{error}");
            if let Ok(survey) = survey {
                assert!(!survey.can_be_opened(), "a survey finds what an opening finds: {error}");
            }
            return;
        }
    };
    if let Ok(survey) = &survey {
        assert!(survey.can_be_opened(), "an opening finds what a survey finds: {survey:?}");
    }
    let found = match contents(&store) {
        Ok(found) => found,
        Err(error) => panic!("it was opened: {error}"),
    };
    if input.is_one_byte() {
        assert_eq!(found, base.last, "what was durable is there");
    }
    if input.is_accident() {
        for (found, states) in found.iter().zip(&base.states) {
            assert!(states.contains(found), "no write left it like this");
        }
    }
    // It lives on.
    if lives(&store, files.clone()).is_err() {
        return;
    }
    drop(store);
    let again = RawStore::open(files, &options()).expect("what was written is read");
    assert_eq!(again.get(&[0xEE; LENGTHS.0]).expect("as long as before"), Some(vec![7; LENGTHS.1]));
}

/// An enemy may have left a store that is full, or fenced; it must say so.
fn lives(store: &RawStore<Files>, files: Files) -> Result<(), Error> {
    if store.lengths() != LENGTHS {
        return Err(Error::NotAStore);
    }
    for _ in 0..3 {
        store.put(&[0xEE; LENGTHS.0], &[7; LENGTHS.1], Durability::Group)?;
    }
    store.verify()?;
    store.compact()?;
    store.put(&[0xEF; LENGTHS.0], &[7; LENGTHS.1], Durability::Each)?;
    drop(files);
    Ok(())
}
