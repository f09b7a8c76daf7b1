//! Real processes that write to a store of any sizes and are killed at any moment, and what the next
//! one finds.

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
use mainstay_store::{Change, Directory, Durability, LogOptions, LogSurvey, RawLogStore};

/// Tells a process that it is the one that writes, and where.
const FOLDER: &str = "LOG_KILLED_FOLDER";
const KILLS: usize = 40;
const KEYS: u64 = 300;

type Records = BTreeMap<Vec<u8>, Vec<u8>>;
type Changes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

fn options() -> LogOptions {
    let segment_bytes = 64 << 10;
    LogOptions { shards: 2, segment_bytes, compact_bytes_per_second: 1 << 30, ..Default::default() }
}

/// Write number `number`: some changes of one shard.
fn write(store: &RawLogStore<Directory>, number: u64) -> Changes {
    let mut rng = Rng::seeded(number);
    let key = |rng: &mut Rng| rng.below(KEYS).to_le_bytes().to_vec();
    let value = |rng: &mut Rng| vec![number as u8; rng.below(3_000) as usize];
    let mut changes: Changes = (0..1 + rng.below(3))
        .map(|_| (key(&mut rng), (rng.below(5) > 0).then(|| value(&mut rng))))
        .collect();
    let shard = store.shard(&changes[0].0).unwrap();
    changes.retain(|(key, _)| store.shard(key).unwrap() == shard);
    changes
}

fn make(records: &mut Records, changes: &Changes) {
    for (key, value) in changes {
        match value {
            Some(value) => records.insert(key.clone(), value.clone()),
            None => records.remove(key),
        };
    }
}

fn open(folder: &Path) -> RawLogStore<Directory> {
    RawLogStore::open(Directory::lock(folder).unwrap(), &options()).unwrap()
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
        let changes = write(&store, number);
        let changes: Vec<Change<'_>> = changes
            .iter()
            .map(|(key, value)| match value {
                Some(value) => Change::Put(key, value),
                None => Change::Delete(key),
            })
            .collect();
        let how = if number % 50 == 0 { Durability::Group } else { Durability::Memory };
        store.batch(&changes, how).unwrap();
        if number % 10 == 0 {
            store.upkeep().unwrap();
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
fn v1_a_killed_process_loses_no_write_that_has_returned_and_leaves_none_half() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, place) = (folder.path(), folder.path().join("store"));
    drop(RawLogStore::create(Directory::lock(&place).unwrap(), &options()).unwrap());
    let mut rng = Rng::seeded(u64::from(std::process::id()));
    let (mut records, mut done, mut highest) = (Records::new(), 0_u64, 0);
    for kill in 0..KILLS {
        fs::write(folder.join("next"), (done + 1).to_string()).unwrap();
        fs::write(folder.join("said"), b"").unwrap();
        let mut child = start(folder);
        sleep(Duration::from_millis(8 + rng.below(60)));
        child.kill().unwrap();
        child.wait().unwrap();
        let said = fs::read(folder.join("said")).unwrap().len() as u64 / 8;

        let survey = LogSurvey::of(&place, |_, _| {}).unwrap();
        assert!(survey.damage.is_empty(), "kill {kill}: {survey:?}");
        let store = open(&place);
        for number in done + 1..=done + said {
            make(&mut records, &write(&store, number));
        }
        done += said;
        let mut next = records.clone();
        make(&mut next, &write(&store, done + 1));
        let mut found = Records::new();
        store.for_each(|key, value| drop(found.insert(key.to_vec(), value.to_vec()))).unwrap();
        assert!(found == records || found == next, "kill {kill} after write {done}");
        if found == next && found != records {
            (records, done) = (next, done + 1);
        }
        highest = highest.max(store.stats().iter().map(|shard| shard.segments).max().unwrap());
    }
    // Compaction kept up, and had something to do.
    let segments = fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().file_name());
    let number = |name: &str| u64::from_str_radix(name.get(9..25)?, 16).ok();
    let newest = segments.filter_map(|name| number(name.to_str()?)).max().unwrap();
    println!("{KILLS} kills, {done} writes, up to {highest} segments of {newest}");
    assert!(done > 500 && newest > highest, "{done} writes, {highest} segments of {newest}");
}
