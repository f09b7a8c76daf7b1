//! Files of a store with values of any size, or of a copy of one, that nobody can trust. After an
//! accident, what is shown is what some write left, and each value that is not is told; whatever was
//! done on purpose, it is opened or refused, and what is opened works.

#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use mainstay_fuzz::{
    any::{Base, Input, Read, Records, STORIES, What, is_like, options, read, whole},
    folder::Files,
    world,
};
use mainstay_store::{Durability, Error, LogSalvaged, LogScan, LogSurvey, RawLogStore, Span};
use std::cell::OnceCell;

/// Files are no longer than [`world::FILE_LEN_MAX`]: nobody needs more memory at once.
#[global_allocator]
static MEMORY: world::Bounded = world::Bounded;

thread_local! {
    static BASES: [OnceCell<Base>; STORIES as usize] = const { [const { OnceCell::new() }; STORIES as usize] };
}

fuzz_target!(|data: &[u8]| {
    world::plant();
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let story = input.story % STORIES;
    BASES.with(|bases| {
        let base = bases[usize::from(story)].get_or_init(|| Base::new(story));
        match input.what {
            What::Store => open(base, &input),
            What::Salvage => salvage(base, &input),
            What::Copy => restore(base, &input),
            What::Backup => backup(base, &input),
        }
    });
});

/// An error says what is wrong, and what to do.
fn check(error: &Error) {
    assert!(error.to_string().len() > 20, "{error}");
}

fn open(base: &Base, input: &Input) {
    let files = Files::of(&input.apply(&base.files));
    let before = files.contents();
    let survey = LogSurvey::over(&files, |_, _| {});
    assert!(files.contents() == before, "looking changes nothing");
    // It does not compare all that a hint says of the end of its segment, which an enemy may change.
    let is_sound = match &survey {
        _ if !input.is_accident() => false,
        Ok(survey) => survey.damage.iter().all(|damage| damage.has_copy),
        Err(error) => {
            check(error);
            false
        }
    };
    let store = match RawLogStore::open(files.clone(), &options(input.ordered)) {
        Ok(store) => store,
        Err(error) => {
            check(&error);
            assert!(!is_sound, "a survey finds what an opening finds: {error}, {survey:?}");
            return;
        }
    };
    let found = read(&store);
    compare(&store, &found, input);
    let all = whole(&found);
    assert!(all.is_some() || !is_sound, "a survey finds what is damaged: {survey:?}");
    if input.is_one_byte() && base.is_closed {
        let pairs = || found.iter().zip(&base.last);
        assert!(pairs().all(|(found, last)| is_like(found, last)), "what was durable is there");
        assert!(all.is_some() || survey.is_ok());
    }
    // What a closed log has at its end is vouched for by its hint as well.
    if input.is_one() && base.is_closed {
        for (found, states) in found.iter().zip(&base.states) {
            let is_one = states.iter().any(|state| is_like(found, state));
            assert!(is_one, "no write left it like this: {input:?}");
        }
    }
    if input.is_accident() {
        for (key, value) in found.iter().flatten() {
            let record = value.clone().map(|value| (key.clone(), value));
            let is_one = record.is_none_or(|record| base.written.contains(&record));
            assert!(is_one, "nobody wrote this: {key:?}, {input:?}");
        }
    }
    if let (true, Ok(survey)) = (is_sound, &survey) {
        let records: u64 = store.stats().iter().map(|shard| shard.records).sum();
        assert_eq!(survey.records, records, "a survey counts what is there: {input:?}");
    }
    // It lives on.
    if let Err(error) = lives(&store) {
        check(&error);
        assert!(!is_sound || !input.is_accident(), "what is sound can be moved: {error}");
        return;
    }
    drop(store);
    let again =
        RawLogStore::open(files, &options(input.ordered)).expect("what was written is read");
    assert_eq!(again.get(b"again").expect("as written").as_deref(), Some(&[7; 700][..]));
}

/// Whatever way one looks, there is the same; but an enemy may have put keys where nobody looks for
/// them.
fn compare(store: &RawLogStore<Files>, found: &[Read], input: &Input) {
    let (all, is_accident) = (whole(found), input.is_accident());
    let mut shown = vec![Records::new(); found.len()];
    let done = store.for_each(|key, value| {
        let shard = store.shard(key).expect("it has one") as usize;
        let is_new = shown[shard].insert(key.to_vec(), value.into()).is_none();
        assert!(is_new || !is_accident, "a key twice");
    });
    assert!(done.is_ok() == all.is_some() || !is_accident, "damage is told by both");
    if let Some(all) = all.as_ref().filter(|_| is_accident) {
        assert!(shown == *all, "the same one by one");
    }
    let done = store.snapshot().for_each(|_, _| {});
    assert!(done.is_ok() == all.is_some() || !is_accident, "damage is told by both");
    for shard in 0..found.len() as u32 {
        let (mut scan, mut rounds) = (LogScan::default(), 0);
        while let Ok(true) = store.scan(shard, &mut scan, (3, 2_000), |_| true, |_, _| {}) {
            rounds += 1;
            assert!(rounds < 10_000, "it ends");
        }
    }
    if input.ordered {
        let mut keys: Vec<_> = found.iter().flatten().collect();
        keys.sort_unstable();
        let range = store.range(&Span::ALL).expect("they are in order");
        let mut right = keys.iter();
        if !is_accident {
            assert!(range.take(10_000).count() < 10_000, "it ends");
            return;
        }
        for record in range {
            let (key, value) = right.next().expect("no more than there are");
            match record {
                Ok((found, bytes)) => {
                    assert_eq!((&*found, Some(&bytes)), (&key[..], value.as_ref()))
                }
                Err(error) => assert!(value.is_none(), "{error}"),
            }
        }
        assert!(right.next().is_none(), "no fewer");
    }
}

/// An enemy may have left a store that is full, or fenced, or damaged where it was not read yet.
fn lives(store: &RawLogStore<Files>) -> Result<(), Error> {
    for number in 0..30_u8 {
        store.put(&[b'n', number % 4], &[number; 700], Durability::Group)?;
    }
    store.sweep(100)?;
    store.compact()?;
    store.upkeep()?;
    store.put(b"again", &[7; 700], Durability::Each)?;
    store.vouch()
}

fn salvage(base: &Base, input: &Input) {
    let files = Files::of(&input.apply(&base.files));
    let before = files.contents();
    let saved = RawLogStore::salvage(&files, Files::default(), &options(false), |_, _| {});
    assert!(files.contents() == before, "the damaged one is not touched");
    let (store, told) = match saved {
        Ok(saved) => saved,
        Err(error) => {
            check(&error);
            assert!(!input.has_all_files() || matches!(error, Error::NotAStore), "{error}");
            return;
        }
    };
    let found = whole(&read(&store)).expect("what was saved is sound");
    let found: Records = found.into_iter().flatten().collect();
    if input.is_accident() {
        for (key, value) in &found {
            let record = (key.clone(), value.clone());
            assert!(base.written.contains(&record), "nobody wrote this: {record:?}");
        }
    }
    if input.is_one_byte() && base.is_closed {
        account(base, &found, &told);
    }
    store.put(b"again", b"it lives", Durability::Each).expect("it is a sound store");
    store.compact().expect("it is a sound store");
}

/// Each record that is lost is told, and so is how many may be older than one.
fn account(base: &Base, found: &Records, told: &LogSalvaged) {
    let last: Records =
        base.last.iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
    let older = found.iter().filter(|(key, value)| last.get(*key) != Some(value)).count();
    assert!(older as u64 <= told.doubtful, "{older} are older: {told:?}");
    let is_told = |key: &Vec<u8>| told.unknown > 0 || told.lost.iter().any(|lost| **lost == **key);
    for key in last.keys().filter(|key| !found.contains_key(*key)) {
        assert!(is_told(key), "it is lost, and that is not told: {key:?}");
    }
}

fn restore(base: &Base, input: &Input) {
    let files = Files::of(&input.apply(&base.copy));
    let before = files.contents();
    let checked = RawLogStore::check_copy(&files, |_, _| {});
    let to = Files::default();
    let restored = RawLogStore::restore(&files, to.clone(), &options(input.ordered), |_, _| {});
    assert!(files.contents() == before, "looking changes nothing");
    let store = match (checked, restored) {
        (Ok(()), Ok(store)) => store,
        (checked, Err(error)) => {
            check(&error);
            assert!(checked.is_err() || !input.is_accident(), "it was found to be sound: {error}");
            return;
        }
        (Err(error), Ok(_)) => panic!("not all of it was looked at: {error}"),
    };
    let found = read(&store);
    compare(&store, &found, input);
    let found = whole(&found);
    if input.is_accident() {
        assert!(found.as_ref() == Some(&base.copied), "it is what was copied");
    }
    if lives(&store).is_err() {
        return;
    }
    drop(store);
    RawLogStore::open(to, &options(input.ordered)).expect("what was written is read");
}

fn backup(base: &Base, input: &Input) {
    let store = RawLogStore::open(Files::of(&base.files), &options(false)).expect("it is sound");
    let files = Files::of(&input.apply(&base.copy));
    if let Err(error) = store.backup(&files, |_, _| {}) {
        check(&error);
        return;
    }
    match RawLogStore::restore(&files, Files::default(), &options(input.ordered), |_, _| {}) {
        Ok(restored) if input.is_accident() => {
            let found = whole(&read(&restored));
            assert!(found.as_ref() == Some(&base.last), "it is what was copied");
        }
        Ok(_) => {}
        Err(error) => check(&error),
    }
}
