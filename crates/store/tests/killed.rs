//! Real processes that are killed at any moment, and what the next one finds: in place, and after
//! opening the store.

#![allow(clippy::unwrap_used, reason = "clippy does not see that all of this is a test")]

use std::{
    collections::BTreeMap,
    env, fs,
    io::Write,
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use mainstay_base::Rng;
use mainstay_store::{Change, Directory, Durability, OnDisk, Options, RawStore, Reader, Survey};

/// Tells a process that it is the one that writes, and where.
const FOLDER: &str = "KILLED_FOLDER";
const KILLS: usize = 40;
const KEYS: u64 = 5_000;

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

fn options() -> Options {
    Options { shards: 2, segment_bytes: 64 << 10, ..Options::default() }
}

/// Write number `number`: some changes of one shard.
fn write(number: u64) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let mut rng = Rng::seeded(number);
    let key = |rng: &mut Rng| rng.below(KEYS).to_le_bytes().to_vec();
    (0..1 + rng.below(3))
        .map(|_| (key(&mut rng), (rng.below(5) > 0).then(|| vec![number as u8; 64])))
        .collect()
}

fn in_one_shard(store: &RawStore<Directory>, number: u64) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let mut changes = write(number);
    let shard = store.shard(&changes[0].0).unwrap();
    changes.retain(|(key, _)| store.shard(key).unwrap() == shard);
    changes
}

fn make(records: &mut Records, changes: &[(Vec<u8>, Option<Vec<u8>>)]) {
    for (key, value) in changes {
        match value {
            Some(value) => records.insert(key.clone(), value.clone()),
            None => records.remove(key),
        };
    }
}

fn open(folder: &Path) -> RawStore<Directory> {
    RawStore::open(Directory::lock(folder).unwrap(), &options()).unwrap()
}

/// Goes on from the number in a file, and says each number once its write has returned.
#[test]
fn a_writer_to_be_killed() {
    let Some(folder) = env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let first: u64 = fs::read_to_string(folder.join("next")).unwrap().parse().unwrap();
    let mut said = fs::OpenOptions::new().append(true).open(folder.join("said")).unwrap();
    let store = open(&folder.join("store"));
    for number in first.. {
        let changes = in_one_shard(&store, number);
        let changes: Vec<Change<'_>> = changes
            .iter()
            .map(|(key, value)| match value {
                Some(value) => Change::Put(key, value),
                None => Change::Delete(key),
            })
            .collect();
        let how = if number % 50 == 0 { Durability::Group } else { Durability::Memory };
        store.batch(&changes, how).unwrap();
        if number % 300 == 0 {
            store.tend().unwrap();
        }
        said.write_all(&number.to_le_bytes()).unwrap();
    }
}

fn start(folder: &Path) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "a_writer_to_be_killed", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a10_a_killed_process_loses_no_write_that_has_returned_and_leaves_none_half() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, place) = (folder.path(), folder.path().join("store"));
    drop(RawStore::create(Directory::lock(&place).unwrap(), 8, 64, &options()).unwrap());
    let mut rng = Rng::seeded(u64::from(std::process::id()));
    let (mut records, mut done, mut adopted) = (Records::new(), 0_u64, 0);
    for kill in 0..KILLS {
        fs::write(folder.join("next"), (done + 1).to_string()).unwrap();
        fs::write(folder.join("said"), b"").unwrap();
        let mut child = start(folder);
        sleep(Duration::from_millis(8 + rng.below(60)));
        child.kill().unwrap();
        child.wait().unwrap();
        let said = fs::read(folder.join("said")).unwrap().len() as u64 / 8;

        let (seen, looked_at) = (in_place(&place), on_disk(&place));
        let store = open(&place);
        for number in done + 1..=done + said {
            make(&mut records, &in_one_shard(&store, number));
        }
        done += said;
        let mut next = records.clone();
        make(&mut next, &in_one_shard(&store, done + 1));
        let mut found = Records::new();
        let add = |key: &[u8], value: &[u8]| {
            assert_eq!(found.insert(key.to_vec(), value.to_vec()), None, "a key twice");
        };
        store.for_each(add).unwrap();
        if found != records {
            assert!(found == next, "kill {kill}, after {done} writes");
            done += 1;
        }
        assert!(looked_at == found, "kill {kill}: who looks sees something else than who opens");
        // In place a write that was being made may be half there, and nothing else.
        for (key, value) in seen {
            let known = [records.get(&key), next.get(&key)];
            assert!(known.contains(&Some(&value)), "kill {kill}: {key:?} was seen in place");
        }
        records = found;
        store.verify().unwrap();
        adopted += store.stats().iter().filter(|shard| shard.adopted).count();
    }
    println!("{done} writes, {KILLS} kills, {adopted} shards went on with the memory they had");
    assert!(done > 1_000 && adopted == 2 * KILLS, "{done} writes, {adopted} adopted");
}

/// What the files say, and the memory of writes that are in no file yet.
fn on_disk(place: &Path) -> Records {
    let survey = Survey::of(place, |_, _| {}).unwrap();
    assert!(survey.is_sound(), "{survey:?}");
    let mut records = Records::new();
    let view = OnDisk::open(place).unwrap();
    view.for_each(|key, value| drop(records.insert(key.to_vec(), value.to_vec()))).unwrap();
    assert_eq!(survey.records, records.len() as u64);
    let last = |shard: u32| {
        let files = survey.files.iter().filter(|file| file.shard == Some(shard));
        files.map(|file| file.sequence).max().unwrap()
    };
    let sequences: Vec<_> = view.shards().map(|shard| shard.sequence).collect();
    assert_eq!(sequences, [last(0), last(1)]);
    records
}

/// What another process sees without opening the store: all slots, and what the index says of them.
fn in_place(place: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut seen = Vec::new();
    let reader = Reader::open(place).unwrap();
    reader.for_each(|key, value| seen.push((key.to_vec(), value.to_vec()))).unwrap();
    let by_index = |(key, _): &(Vec<u8>, Vec<u8>)| Some((key.clone(), reader.get(key).unwrap()?));
    let indexed: Vec<_> = seen.iter().filter_map(by_index).collect();
    seen.extend(indexed);
    seen
}

#[test]
fn a9_a_reader_in_another_process_follows_the_owner_through_growth_and_a_new_opening() {
    let folder = tempfile::tempdir().unwrap();
    let store =
        RawStore::create(Directory::lock(folder.path()).unwrap(), 8, 64, &options()).unwrap();
    let reader = Reader::open(folder.path()).unwrap();
    for number in 0..20_000_u64 {
        let (key, value) = (number.to_le_bytes(), [number as u8; 64]);
        store.put(&key, &value, Durability::Memory).unwrap();
        assert_eq!(reader.get(&key).unwrap(), Some(value.to_vec()));
        assert_eq!(
            reader.get(&(number / 2).to_le_bytes()).unwrap(),
            Some(vec![(number / 2) as u8; 64])
        );
        assert_eq!(reader.get(&(number + 1).to_le_bytes()).unwrap(), None);
    }
    let mut count = 0;
    reader.for_each(|_, _| count += 1).unwrap();
    assert_eq!(count, 20_000);
    drop(store);
    let store = open(folder.path());
    assert!(store.stats().iter().all(|shard| shard.adopted));
    store.put(&7_u64.to_le_bytes(), &[9; 64], Durability::Memory).unwrap();
    assert_eq!(reader.get(&7_u64.to_le_bytes()).unwrap(), Some(vec![9; 64]));
}
