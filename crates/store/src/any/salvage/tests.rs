//! Every kind of damage in stores of many histories, beside what their bytes were before; and the
//! faults that must be found this way.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_base::Rng;
use mainstay_sim::Disk;
use mainstay_storage::{Folder, Storage};

use super::*;
use crate::{
    Directory, Durability, LogOnDisk, OnDisk, Options, RawStore, ScrubOptions,
    any::{ANY_FILE, LogSurvey, format::Frame},
    format::{DATA_AT, FRAME_LEN, chain_start},
    keyed::Files,
    limits::SEGMENT_BYTES_MIN,
    machine::{as_it_is, disk},
    mark::{Maker, UNFINISHED, mark},
    planted::plant,
    scrub,
};

pub(crate) type Bytes = BTreeMap<String, Vec<u8>>;
pub(crate) type Records = BTreeMap<Vec<u8>, Vec<u8>>;
pub(crate) type Over = fn(&Disk) -> Files<Disk>;

const SHARDS: u32 = 2;
const KEYS: u64 = 24;

fn options() -> LogOptions {
    LogOptions {
        shards: SHARDS,
        segment_bytes: SEGMENT_BYTES_MIN,
        threads: 1,
        dead_percent: 40,
        ..LogOptions::default()
    }
}

fn key(number: u64) -> Vec<u8> {
    vec![b'a' + number as u8; 1 + number as usize % 5]
}

/// A store with a history, closed or not.
fn written(seed: u64, over: Over, is_closed: bool) -> Disk {
    let (disk, mut rng) = (Disk::new(seed), Rng::seeded(seed));
    let store = RawLogStore::create(over(&disk), &options()).unwrap();
    for step in 0..60 + rng.below(60) {
        let name = key(rng.below(KEYS));
        let value = vec![rng.next_u64() as u8; rng.below(2_500) as usize];
        let how = if rng.below(3) == 0 { Durability::Memory } else { Durability::Group };
        match rng.below(12) {
            0 | 1 => drop(store.delete(&name, how).unwrap()),
            2 => drop(store.put_until(&name, &value, Some(u64::MAX - step), how).unwrap()),
            3 => {
                let other = key(rng.below(KEYS));
                let changes = [Change::Put(&name, &value), Change::Delete(&other)];
                drop(store.batch_across(&changes).unwrap());
            }
            4 => {
                let others =
                    (0..KEYS).map(key).filter(|it| store.shard(it).ok() == store.shard(&name).ok());
                let others: Vec<_> = others.take(3).collect();
                let changes: Vec<_> = others.iter().map(|it| Change::Put(it, &value)).collect();
                assert!(store.batch(&changes, how).unwrap().is_some());
            }
            5 if rng.below(4) == 0 => store.compact().map(drop).unwrap(),
            6 => store.upkeep().unwrap(),
            _ => drop(store.put(&name, &value, how).unwrap()),
        }
    }
    if is_closed {
        store.close().unwrap();
    } else {
        store.sync().unwrap();
        drop(store);
        disk.kill();
    }
    disk
}

/// What the files are; one that nobody can read is none.
pub(crate) fn bytes_of(folder: &impl Folder) -> Bytes {
    let mut all = Bytes::new();
    for name in folder.names().unwrap() {
        let Ok(file) = folder.file(&name) else { continue };
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_at(0, &mut bytes).unwrap();
        all.insert(name, bytes);
    }
    all
}

/// A change in a log.
struct Found {
    file: String,
    shard: u32,
    frame: std::ops::Range<usize>,
    record: std::ops::Range<usize>,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

impl Found {
    fn is_sound(&self, part: &std::ops::Range<usize>, before: &Bytes, after: &Bytes) -> bool {
        let now = after.get(&self.file).and_then(|bytes| bytes.get(part.clone()));
        now == before[&self.file].get(part.clone())
    }
}

/// All changes of the logs, in their order, a shard after the other.
fn changes(id: &[u8; 16], files: &Bytes) -> Vec<Found> {
    let mut all = Vec::new();
    // Names are in the order of shards and numbers.
    for (name, bytes) in files {
        let Some((shard, _, Kind::Log)) = parse_name(name) else { continue };
        let mut at = DATA_AT as usize;
        while let Some(frame) = Frame::read(chain_start(id, shard), &bytes[at.min(bytes.len())..]) {
            let len = frame.header.len.get() as usize;
            for record in frame.records().unwrap() {
                let (key, value) = match record.change {
                    Change::Put(key, value) => (key, Some(value.to_vec())),
                    Change::Delete(key) => (key, None),
                };
                let stored = super::super::format::stored_len(&record.change, record.end);
                let from = at + record.at;
                let to = from + record_bytes(key.len(), stored) as usize;
                let (file, key) = (name.clone(), key.to_vec());
                all.push(Found { file, shard, frame: at..at + len, record: from..to, key, value });
            }
            at += len;
        }
    }
    all
}

/// Damages something: flips bits, shortens or removes a file.
pub(crate) fn damage(disk: &Disk, rng: &mut Rng, wanted: impl Fn(&str) -> bool) {
    let names: Vec<_> = disk.names().into_iter().filter(|name| wanted(name)).collect();
    for _ in 0..1 + rng.below(3) {
        let name = &names[rng.below(names.len() as u64) as usize];
        let file = disk.file(name);
        let len = file.len().unwrap();
        if len == 0 {
            continue;
        }
        match rng.below(10) {
            0 => drop(disk.remove(name)),
            1 => file.set_len(rng.below(len)).unwrap(),
            _ => {
                // Headers are small, and are hit as well.
                let at = if rng.below(6) == 0 { rng.below(len.min(1024)) } else { rng.below(len) };
                let count = [1, 1, 1, 64, 5_000][rng.below(5) as usize].min(len - at);
                let mut bytes = vec![0; count as usize];
                file.read_at(at, &mut bytes).unwrap();
                let bits = 1 << rng.below(8);
                bytes.iter_mut().for_each(|byte| *byte ^= bits);
                file.write_at(at, &bytes).unwrap();
            }
        }
    }
}

fn salvaged(over: Over, disk: &Disk) -> Result<(Records, LogSalvaged)> {
    let (store, told) = RawLogStore::salvage(&over(disk), Disk::new(1), &options(), |_, _| {})?;
    let records = contents(&store)?;
    assert_eq!(told.records, records.len() as u64);
    Ok((records, told))
}

fn id_of(disk: &Disk, over: Over) -> [u8; 16] {
    any_header(&over(disk)).unwrap().id
}

/// Of a store that was closed exactly what is sound is there, and all that is not is told, by its
/// key.
fn closed(seed: u64, over: Over) -> std::result::Result<u64, String> {
    let disk = written(seed, over, true);
    let (id, before) = (id_of(&disk, over), bytes_of(&over(&disk)));
    let is_hint = |name: &str| matches!(parse_name(name), Some((.., Kind::Hint)));
    damage(&disk, &mut Rng::seeded(!seed), |name| !is_hint(name));
    let after = bytes_of(&over(&disk));
    let (mut expected, mut lost) = (BTreeMap::new(), BTreeSet::new());
    for found in changes(&id, &before) {
        let is_sound = found.is_sound(&found.record, &before, &after);
        expected.remove(&found.key);
        lost.remove(&found.key);
        match &found.value {
            Some(value) if is_sound => drop(expected.insert(found.key.clone(), value.clone())),
            Some(_) => drop(lost.insert(found.key.clone())),
            None => {}
        }
    }
    let (records, told) = match salvaged(over, &disk) {
        // Every header of a shard, and the store's, was hit.
        Err(Error::NotAStore | Error::HeaderGone { .. } | Error::Encrypted { .. }) => return Ok(0),
        found => found.map_err(|error| error.to_string())?,
    };
    if records != expected {
        let differs = |key: &&Vec<u8>| records.get(*key) != expected.get(*key);
        let keys: Vec<_> = records.keys().chain(expected.keys()).filter(differs).collect();
        return Err(format!("{keys:?} differ; {:?}", told.damage));
    }
    let told_lost: BTreeSet<_> = told.lost.iter().map(|key| key.to_vec()).collect();
    if told_lost != lost {
        return Err(format!("{lost:?} are lost, and {told_lost:?} told"));
    }
    let is_hit = |name: &String| {
        let is_log = matches!(parse_name(name), Some((.., Kind::Log | Kind::List)));
        let body = |files: &Bytes| files.get(name)?.get(DATA_AT as usize..).map(<[u8]>::to_vec);
        is_log && body(&before) != body(&after)
    };
    if before.keys().any(is_hit) && told.damage.is_empty() {
        return Err("nothing is told of damage".into());
    }
    Ok(lost.len() as u64)
}

/// Of one that was not, and of one whose hints are hit as well, whatever is sound is there; and if
/// anything else is there, or anything is not, that is told.
fn open(seed: u64, over: Over) -> std::result::Result<u64, String> {
    let disk = written(seed, over, seed.is_multiple_of(3));
    let (id, before) = (id_of(&disk, over), bytes_of(&over(&disk)));
    damage(&disk, &mut Rng::seeded(!seed), |_| true);
    let after = bytes_of(&over(&disk));
    let all = changes(&id, &before);
    let (records, told) = match salvaged(over, &disk) {
        Err(Error::NotAStore | Error::HeaderGone { .. } | Error::Encrypted { .. }) => return Ok(0),
        found => found.map_err(|error| error.to_string())?,
    };
    let mut older = 0;
    for key in (0..KEYS).map(key) {
        let of_key: Vec<_> = all.iter().filter(|found| found.key == key).collect();
        let got = records.get(&key);
        let Some(newest) = of_key.last() else { continue };
        if got == newest.value.as_ref() {
            continue;
        }
        let is_there = newest.is_sound(&newest.frame, &before, &after);
        // Where nothing sound is behind it, it looks as a write does that was not finished.
        let is_end = !all.iter().any(|found| {
            let is_behind = (&found.file, found.frame.start) > (&newest.file, newest.frame.start);
            found.shard == newest.shard
                && is_behind
                && found.is_sound(&found.frame, &before, &after)
        });
        let is_never_durable = !told.damage.iter().any(|damage| damage.file == newest.file);
        if is_there && !is_never_durable {
            return Err(format!("{key:?} is sound, and not there; {:?}", told.damage));
        }
        if got.is_some_and(|got| !of_key.iter().any(|found| found.value.as_ref() == Some(got))) {
            return Err(format!("{key:?} has a value that it never had"));
        }
        if is_end || is_never_durable {
            continue;
        }
        let is_told = if got.is_some() { told.doubtful > 0 } else { true };
        if told.is_whole() || !is_told {
            return Err(format!("{key:?} is not what it was, and {told:?}"));
        }
        older += u64::from(got.is_some());
    }
    Ok(older)
}

pub(crate) fn run(
    seeds: std::ops::Range<u64>,
    over: Over,
    judge: fn(u64, Over) -> std::result::Result<u64, String>,
) -> std::result::Result<u64, String> {
    let mut counted = 0;
    for seed in seeds {
        counted += judge(seed, over).map_err(|wrong| format!("seed {seed}: {wrong}"))?;
    }
    Ok(counted)
}

#[test]
fn v16_of_a_closed_store_exactly_the_sound_records_are_saved_and_the_lost_keys_told() {
    let lost = run(0..300, as_it_is, closed);
    assert!(lost.as_ref().is_ok_and(|lost| *lost > 200), "{lost:?}");
}

#[test]
fn v16_without_hints_what_is_older_than_something_lost_is_told() {
    let older = run(0..300, as_it_is, open);
    assert!(older.as_ref().is_ok_and(|older| *older > 20), "{older:?}");
}

#[cfg(feature = "encryption")]
#[test]
fn v16_encrypted_stores_are_saved_as_well() {
    use crate::machine::encrypted;
    let lost = run(0..60, encrypted, closed);
    assert!(lost.as_ref().is_ok_and(|lost| *lost > 40), "{lost:?}");
    assert!(run(0..60, encrypted, open).is_ok());
}

#[test]
fn v16_the_planted_faults_of_salvage_are_found() {
    for fault in [Fault::LossUntold, Fault::OlderShown, Fault::SalvageUnchecked] {
        plant(Some(fault));
        let found = [run(0..100, as_it_is, closed), run(0..100, as_it_is, open)];
        plant(None);
        assert!(found.iter().any(std::result::Result::is_err), "{fault:?} is not found");
    }
}

/// A power cut at each step of a salvage or a copy: nothing without a mark is less than all of it, and
/// whoever does it again begins anew.
pub(crate) fn cuts(
    salvage: impl Fn(Disk) -> Result<Records>,
    open: impl Fn(Disk) -> Result<Records>,
) -> std::result::Result<u64, String> {
    let expected = salvage(Disk::new(1)).map_err(|error| error.to_string())?;
    let (mut images, mut unfinished) = (0, 0);
    for steps in 0.. {
        let to = disk(steps);
        to.die_after(steps);
        let made = salvage(to.clone());
        for image in to.crash_images(3) {
            images += 1;
            let has_mark = image.names().iter().any(|name| name == UNFINISHED);
            let found = match open(image.clone()) {
                Err(Error::NotAStore) => continue,
                Err(Error::Unfinished | Error::NotCopied) if has_mark => {
                    unfinished += 1;
                    salvage(image)
                }
                found => found,
            };
            if found.map_err(|error| format!("after {steps} steps: {error}"))? != expected {
                return Err(format!("after {steps} steps it is not all there"));
            }
        }
        if made.is_ok() {
            break;
        }
    }
    if unfinished < 100 {
        return Err(format!("only {unfinished} were found unfinished"));
    }
    Ok(images)
}

fn contents(store: &RawLogStore<Disk>) -> Result<Records> {
    let mut records = Records::new();
    store.for_each(|key, value| drop(records.insert(key.to_vec(), value.to_vec())))?;
    Ok(records)
}

/// The damaged store is as it was.
fn cut(seed: u64) -> std::result::Result<u64, String> {
    let disk = written(seed, as_it_is, true);
    damage(&disk, &mut Rng::seeded(!seed), |name| name.ends_with(".log"));
    let before = bytes_of(&disk);
    let images = cuts(
        |to| contents(&RawLogStore::salvage(&disk, to, &options(), |_, _| {})?.0),
        |image| contents(&RawLogStore::open(image, &options())?),
    )?;
    if bytes_of(&disk) == before { Ok(images) } else { Err("the damaged store was changed".into()) }
}

/// `cut` says how many disks after power cuts were whole or had a mark.
pub(crate) fn without_a_mark_is_whole(
    seeds: u64,
    unsynced: Fault,
    cut: fn(u64) -> std::result::Result<u64, String>,
) {
    let images: std::result::Result<u64, String> = (0..seeds).map(cut).sum();
    assert!(images.as_ref().is_ok_and(|images| *images > 500), "{images:?}");
    for fault in [unsynced, Fault::MarkIgnored, Fault::MarkLeftOut] {
        plant(Some(fault));
        let found = (0..seeds).try_for_each(|seed| cut(seed).map(drop));
        plant(None);
        assert!(found.is_err(), "{fault:?} is not found");
    }
}

#[test]
fn v16_a_store_without_a_mark_is_whole_after_a_power_cut() {
    without_a_mark_is_whole(4, Fault::SalvageUnsynced, cut);
}

#[test]
fn v16_what_a_salvage_has_not_finished_is_no_store_for_anybody() {
    let place = tempfile::tempdir().unwrap();
    let (from, to) = (place.path().join("from"), place.path().join("to"));
    let lock = |path: &std::path::Path| Directory::lock(path).unwrap();
    let salvage = || RawLogStore::salvage(&lock(&from), lock(&to), &options(), |_, _| {});
    // Without a store to save nothing is begun.
    assert!(matches!(salvage(), Err(Error::NotAStore)));
    assert!(!to.join(UNFINISHED).exists());

    let store = RawLogStore::create(lock(&from), &options()).unwrap();
    store.put(b"de", b"in Europe", Durability::Group).unwrap();
    store.close().unwrap();
    // As one that was killed has left it.
    RawLogStore::create(lock(&to), &options()).unwrap().close().unwrap();
    mark(&lock(&to), Maker::Salvage).unwrap();
    let refused = [
        RawLogStore::open(lock(&to), &options()).map(drop),
        RawLogStore::create(lock(&to), &options()).map(drop),
        RawLogStore::repair(lock(&to), |_, _| {}).map(drop),
        RawStore::open(lock(&to), &Options::default()).map(drop),
        RawStore::create(lock(&to), 2, 3, &Options::default()).map(drop),
        LogOnDisk::open(&to).map(drop),
        OnDisk::open(&to).map(drop),
        LogSurvey::of(&to, |_, _| {}).map(drop),
        scrub(&to, &ScrubOptions::default(), |_, _| true).map(drop),
    ];
    for (number, refused) in refused.iter().enumerate() {
        assert!(matches!(refused, Err(Error::Unfinished)), "{number}: {refused:?}");
    }
    let (store, told) = salvage().unwrap();
    assert_eq!((told.records, told.is_whole()), (1, true));
    drop(store);
    let store = RawLogStore::open(lock(&to), &options()).unwrap();
    assert_eq!(store.get(b"de").unwrap().as_deref(), Some(&b"in Europe"[..]));
    drop(store);
    // A whole store is not made of another one, and stays whole.
    assert!(matches!(salvage(), Err(Error::Exists)));
    assert!(RawLogStore::open(lock(&to), &options()).is_ok());
    // In the place that somebody made for it the mark stays as long as they want.
    let replacing = crate::Replacing::begin(lock(&to)).unwrap();
    let folder = lock(replacing.path());
    drop(RawLogStore::salvage(&lock(&from), folder, &options(), |_, _| {}).unwrap());
    assert!(replacing.path().join(UNFINISHED).exists());
    replacing.finish().unwrap();
    assert!(!to.join(UNFINISHED).exists() && RawLogStore::open(lock(&to), &options()).is_ok());
}

#[test]
fn a_value_that_looks_like_records_is_none() {
    let (disk, nested) = (Disk::new(7), Disk::new(8));
    let other = RawLogStore::create(nested.clone(), &options()).unwrap();
    other.put(b"inner", b"not of this store", Durability::Group).unwrap();
    other.close().unwrap();
    let of_other = bytes_of(&nested);
    let log = of_other
        .iter()
        .find(|(name, bytes)| name.ends_with(".log") && bytes.len() > DATA_AT as usize + FRAME_LEN);
    let value = log.unwrap().1[DATA_AT as usize..].to_vec();
    let one = LogOptions { shards: 1, ..options() };
    let store = RawLogStore::create(disk.clone(), &one).unwrap();
    store.put(b"copy", &value, Durability::Group).unwrap();
    store.put(b"next", b"sound", Durability::Group).unwrap();
    drop(store);
    disk.kill();
    // The magic of the first frame, and the length of its record.
    let file = disk.file("any-0000-0000000000000001.log");
    file.write_at(DATA_AT, b"?").unwrap();
    file.write_at(DATA_AT + FRAME_LEN as u64 + 4, &[5]).unwrap();
    let (store, told) = RawLogStore::salvage(&disk, Disk::new(1), &one, |_, _| {}).unwrap();
    assert_eq!((told.records, told.unknown, told.doubtful), (1, 1, 0));
    assert!(store.contains(b"next").unwrap() && !store.contains(b"inner").unwrap());
}

#[test]
fn what_a_disk_cannot_say_any_more_is_not_guessed() {
    let disk = Disk::new(7);
    assert!(matches!(salvaged(as_it_is, &disk), Err(Error::NotAStore)));
    // Without the header, the shards and the identity are known from the logs.
    let disk = written(3, as_it_is, true);
    let (expected, _) = salvaged(as_it_is, &disk).unwrap();
    disk.remove(ANY_FILE);
    assert!(matches!(LogSurvey::over(&disk, |_, _| {}), Err(Error::HeaderGone { .. })));
    let (records, told) = salvaged(as_it_is, &disk).unwrap();
    assert_eq!((records, told.damage.len(), told.is_whole()), (expected, 1, true));
    assert!(told.is_guessed);
}

/// A store of four shards whose last write, of the first shard, is a batch of which the others have not
/// written their parts: each has three records before it. The keys are in the order of their shards.
fn half_made(shard_bits: u32) -> (Disk, Vec<Vec<u8>>) {
    let options = LogOptions { shards: 4, shard_bits, ..options() };
    let disk = Disk::new(7);
    let store = RawLogStore::create(disk.clone(), &options).unwrap();
    let of_shard = |shard: u32| {
        let keys = (0..=u16::MAX).map(|key| key.to_be_bytes().to_vec());
        keys.filter(|key| store.shard(key).unwrap() == shard).take(4).collect::<Vec<_>>()
    };
    let keys: Vec<_> = (0..4).map(of_shard).collect();
    for key in keys.iter().flat_map(|keys| &keys[1..]) {
        store.put(key, b"before", Durability::Group).unwrap();
    }
    let before = bytes_of(&disk);
    let firsts: Vec<_> = keys.into_iter().map(|mut keys| keys.remove(0)).collect();
    let changes: Vec<_> = firsts.iter().map(|key| Change::Put(key, b"of the batch")).collect();
    store.batch_across(&changes).unwrap();
    store.sync().unwrap();
    drop(store);
    disk.kill();
    for (name, bytes) in before {
        if parse_name(&name).is_some_and(|(shard, _, kind)| shard > 0 && kind == Kind::Log) {
            disk.file(&name).set_len(0).unwrap();
            disk.file(&name).write_at(0, &bytes).unwrap();
        }
    }
    (disk, firsts)
}

#[test]
fn a_batch_behind_writes_that_are_gone_is_saved_and_these_are_told_to_be_lost() {
    let (disk, keys) = half_made(0);
    // The last two of the three records of the third shard.
    let name = "any-0002-0000000000000001.log";
    let all = bytes_of(&disk);
    let first =
        Frame::read(chain_start(&id_of(&disk, as_it_is), 2), &all[name][DATA_AT as usize..]);
    disk.file(name).set_len(DATA_AT + u64::from(first.unwrap().header.len.get())).unwrap();
    assert!(RawLogStore::open(disk.clone(), &options()).is_err());
    let (records, told) = salvaged(as_it_is, &disk).unwrap();
    assert!(keys.iter().all(|key| records[key] == b"of the batch"), "{records:?}");
    assert_eq!((records.len(), told.damage.len()), (4 * 4 - 2, 1));
    assert!(!told.is_whole(), "{told:?}");
    assert_eq!((told.unknown, told.writes_lost, told.doubtful), (1, 2, 1));
}

#[test]
fn without_the_header_the_parts_of_a_batch_are_made_wherever_they_belong() {
    for shard_bits in [0, 8] {
        let (disk, keys) = half_made(shard_bits);
        disk.remove(ANY_FILE);
        let (records, told) = salvaged(as_it_is, &disk).unwrap();
        assert!(keys.iter().all(|key| records.contains_key(key)), "{shard_bits}: {told:?}");
        assert!(told.is_guessed && told.is_whole() && records.len() == 16, "{told:?}");
    }
}

/// Their checksums are right, and no store has written them.
#[test]
fn numbers_that_are_higher_than_there_can_be_are_refused_and_what_is_sound_is_saved() {
    let one = LogOptions { shards: 1, ..options() };
    let made = |seed| {
        let disk = Disk::new(seed);
        let store = RawLogStore::create(disk.clone(), &one).unwrap();
        for number in 0..9 {
            store.put(&key(number), &[7; 3_000], Durability::Group).unwrap();
        }
        let id = store.header.id;
        store.close().unwrap();
        (disk, id)
    };
    let refused = |disk: &Disk| {
        assert!(matches!(RawLogStore::open(disk.clone(), &one), Err(Error::Damaged { .. })));
        let (records, told) = salvaged(as_it_is, disk).unwrap();
        assert!(records.len() == 9 && !told.damage.is_empty(), "{told:?}");
    };

    // A frame says what is durable. There are segments behind its own.
    let (disk, id) = made(5);
    let file = disk.file(&Kind::Log.name(0, 1));
    disk.names().iter().filter(|name| name.ends_with(".hint")).for_each(|name| {
        assert!(disk.remove(name));
    });
    let mut frames = vec![0; (file.len().unwrap() - DATA_AT) as usize];
    file.read_at(DATA_AT, &mut frames).unwrap();
    let len = Frame::len_of(&frames).unwrap();
    frames[40..48].fill(0xFF);
    let mut sum = mainstay_base::Crc32c::new();
    sum.update(&chain_start(&id, 0).to_le_bytes());
    sum.update(&frames[8..len]);
    frames[4..8].copy_from_slice(&sum.finish().to_le_bytes());
    file.write_at(DATA_AT, &frames).unwrap();
    refused(&disk);

    // A list says how far it goes.
    let (disk, _) = made(6);
    let list = disk.names().into_iter().find(|name| name.ends_with(".list")).unwrap();
    let file = disk.file(&list);
    let found = crate::format::read_headers::<crate::any::format::ListHeader>(&file, &list);
    let mut head = found.unwrap().pop().unwrap();
    head.through = u64::MAX.into();
    crate::format::write_header(&file, &head).unwrap();
    refused(&disk);
}
