//! Real processes that are killed at any moment, and what the next one finds: in place, and after
//! opening the store.

#![allow(clippy::unwrap_used, reason = "clippy does not see that all of this is a test")]

use std::{
    collections::BTreeMap,
    env, fs,
    io::Write,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread::sleep,
    time::{Duration, Instant},
};

use mainstay_base::Rng;
use mainstay_store::{
    Change, Directory, Durability, LogOptions, LogSurvey, OnDisk, Options, RawLogStore, RawStore,
    Reader, Survey,
};

/// Tells a process that it is the one that writes, where, and to what.
const FOLDER: &str = "KILLED_FOLDER";
const KIND: &str = "KILLED_KIND";
const KILLS: usize = 40;
/// A writer has returned from so many writes at most when it is killed, or from a few more.
const WRITES_MAX: u64 = 400;
const PATIENCE: Duration = Duration::from_secs(60);

type Records = BTreeMap<Vec<u8>, Vec<u8>>;
type Changes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// A store whose writers are killed.
trait Killed: Sized {
    const KIND: &'static str;
    const KEYS: u64;

    fn create(place: &Path);
    fn open(place: &Path) -> Self;
    /// The value that write number `number` gives a key.
    fn value(number: u64, rng: &mut Rng) -> Vec<u8>;
    fn shard_of(&self, key: &[u8]) -> u32;
    fn write(&self, changes: &[Change<'_>], how: Durability);
    /// What is done beside the writes, after write number `number`.
    fn look_after(&self, number: u64);
    /// All records, each once.
    fn contents(&self) -> Records;

    /// Write number `number`: some changes of one shard.
    fn changes(&self, number: u64) -> Changes {
        let mut rng = Rng::seeded(number);
        let mut change = || {
            let key = rng.below(Self::KEYS).to_le_bytes().to_vec();
            (key, (rng.below(5) > 0).then(|| Self::value(number, &mut rng)))
        };
        let first = change();
        let mut changes = vec![first];
        for _ in 0..number % 3 {
            changes.push(change());
        }
        let shard = self.shard_of(&changes[0].0);
        changes.retain(|(key, _)| self.shard_of(key) == shard);
        changes
    }
}

/// What both kinds do by methods of the same names.
macro_rules! by_the_same_names {
    () => {
        fn shard_of(&self, key: &[u8]) -> u32 {
            self.shard(key).unwrap()
        }

        fn write(&self, changes: &[Change<'_>], how: Durability) {
            self.batch(changes, how).unwrap();
        }

        fn contents(&self) -> Records {
            let mut found = Records::new();
            let add = |key: &[u8], value: &[u8]| {
                assert_eq!(found.insert(key.to_vec(), value.to_vec()), None, "a key twice");
            };
            self.for_each(add).unwrap();
            found
        }
    };
}

fn options() -> Options {
    Options { shards: 2, segment_bytes: 64 << 10, ..Options::default() }
}

impl Killed for RawStore<Directory> {
    const KIND: &'static str = "fixed";
    const KEYS: u64 = 5_000;

    fn create(place: &Path) {
        drop(RawStore::create(Directory::lock(place).unwrap(), 8, 64, &options()).unwrap());
    }

    fn open(place: &Path) -> Self {
        RawStore::open(Directory::lock(place).unwrap(), &options()).unwrap()
    }

    fn value(number: u64, _: &mut Rng) -> Vec<u8> {
        vec![number as u8; 64]
    }

    fn look_after(&self, number: u64) {
        if number.is_multiple_of(300) {
            self.tend().unwrap();
        }
    }

    by_the_same_names!();
}

fn log_options() -> LogOptions {
    let segment_bytes = 64 << 10;
    LogOptions { shards: 2, segment_bytes, compact_bytes_per_second: 1 << 30, ..Default::default() }
}

impl Killed for RawLogStore<Directory> {
    const KIND: &'static str = "log";
    const KEYS: u64 = 300;

    fn create(place: &Path) {
        drop(RawLogStore::create(Directory::lock(place).unwrap(), &log_options()).unwrap());
    }

    fn open(place: &Path) -> Self {
        RawLogStore::open(Directory::lock(place).unwrap(), &log_options()).unwrap()
    }

    fn value(number: u64, rng: &mut Rng) -> Vec<u8> {
        vec![number as u8; rng.below(3_000) as usize]
    }

    fn look_after(&self, number: u64) {
        if number.is_multiple_of(10) {
            self.upkeep().unwrap();
        }
    }

    by_the_same_names!();
}

/// One whose files are encrypted, so that its memory is gone with its process.
#[cfg(feature = "encryption")]
struct Encrypted(RawStore<Directory>);

#[cfg(feature = "encryption")]
impl Encrypted {
    fn lock(place: &Path) -> Directory {
        let keys = mainstay_store::Keys::new(mainstay_store::Key::new(&[7; 32]));
        Directory::lock_with(place, &keys).unwrap()
    }
}

#[cfg(feature = "encryption")]
impl std::ops::Deref for Encrypted {
    type Target = RawStore<Directory>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

#[cfg(feature = "encryption")]
impl Killed for Encrypted {
    const KIND: &'static str = "encrypted";
    const KEYS: u64 = RawStore::KEYS;

    fn create(place: &Path) {
        drop(RawStore::create(Self::lock(place), 8, 64, &options()).unwrap());
    }

    fn open(place: &Path) -> Self {
        Self(RawStore::open(Self::lock(place), &options()).unwrap())
    }

    fn value(number: u64, rng: &mut Rng) -> Vec<u8> {
        RawStore::value(number, rng)
    }

    fn look_after(&self, number: u64) {
        self.0.look_after(number);
    }

    by_the_same_names!();
}

#[cfg(feature = "encryption")]
#[test]
fn e2_a_killed_process_with_encrypted_files_loses_no_write_that_has_returned() {
    let look = |place: &Path| assert!(mainstay_store::encrypted_under(place).unwrap().is_some());
    kill(look, |store: &Encrypted, (), _| {
        store.verify().unwrap();
        assert!(store.stats().iter().all(|shard| !shard.adopted));
    });
}

fn make(records: &mut Records, changes: &Changes) {
    for (key, value) in changes {
        match value {
            Some(value) => records.insert(key.clone(), value.clone()),
            None => records.remove(key),
        };
    }
}

/// What was there before the write that a process died in, what would be after it, and what is.
struct Known {
    before: Records,
    after: Records,
    found: Records,
}

/// Between its fork and its exec a child has the locks of all directories of this process, also
/// those of another test.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Goes on from the number in a file, and says each number once its write has returned.
#[test]
fn a_writer_to_be_killed() {
    let Some(folder) = env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let kind = env::var(KIND).unwrap();
    #[cfg(feature = "encryption")]
    if kind == Encrypted::KIND {
        return write::<Encrypted>(folder);
    }
    if kind == RawLogStore::KIND {
        write::<RawLogStore<Directory>>(folder);
    } else {
        write::<RawStore<Directory>>(folder);
    }
}

fn write<T: Killed>(folder: &Path) {
    let first: u64 = fs::read_to_string(folder.join("next")).unwrap().parse().unwrap();
    let mut said = fs::OpenOptions::new().append(true).open(folder.join("said")).unwrap();
    let store = T::open(&folder.join("store"));
    for number in first.. {
        let changes = store.changes(number);
        let changes: Vec<Change<'_>> =
            changes.iter().map(|(key, value)| Change::of(key, value.as_deref())).collect();
        let how = if number % 50 == 0 { Durability::Group } else { Durability::Memory };
        store.write(&changes, how);
        store.look_after(number);
        said.write_all(&number.to_le_bytes()).unwrap();
    }
}

fn start(folder: &Path, kind: &str) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "a_writer_to_be_killed", "--nocapture"])
        .env(FOLDER, folder)
        .env(KIND, kind)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Starts a writer and kills it when it has said so many numbers. How many it has said by then.
fn killed_after(folder: &Path, kind: &str, count: u64, rng: &mut Rng) -> u64 {
    let said = || fs::metadata(folder.join("said")).unwrap().len() / 8;
    let mut child = start(folder, kind);
    let end = Instant::now() + PATIENCE;
    while said() < count {
        assert!(Instant::now() < end, "a writer has said {} numbers of {count}", said());
        sleep(Duration::from_micros(50));
    }
    // It may be at any place of the next write, or still opening the store.
    sleep(Duration::from_micros(rng.below(if count == 0 { 20_000 } else { 200 })));
    child.kill().unwrap();
    child.wait().unwrap();
    said()
}

/// Kills writers, and hands out what `look` saw before each next opening. How many writes were made.
fn kill<T: Killed, S>(look: impl Fn(&Path) -> S, mut check: impl FnMut(&T, S, &Known)) -> u64 {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let (folder, place) = (folder.path(), folder.path().join("store"));
    T::create(&place);
    let mut rng = Rng::seeded(u64::from(std::process::id()));
    let (mut records, mut done) = (Records::new(), 0_u64);
    for kill in 0..KILLS {
        fs::write(folder.join("next"), (done + 1).to_string()).unwrap();
        fs::write(folder.join("said"), b"").unwrap();
        let count = if kill % 5 == 4 { 0 } else { 1 + rng.below(WRITES_MAX) };
        let said = killed_after(folder, T::KIND, count, &mut rng);

        let seen = look(&place);
        let store = T::open(&place);
        for number in done + 1..=done + said {
            make(&mut records, &store.changes(number));
        }
        done += said;
        let mut after = records.clone();
        make(&mut after, &store.changes(done + 1));
        let known = Known { before: records, after, found: store.contents() };
        if known.found != known.before {
            assert!(known.found == known.after, "kill {kill}, after {done} writes");
            done += 1;
        }
        check(&store, seen, &known);
        records = known.found;
    }
    println!("{KILLS} kills, {done} writes");
    assert!(done > 1_000, "{done} writes");
    done
}

#[test]
fn a10_a_killed_process_loses_no_write_that_has_returned_and_leaves_none_half() {
    let mut adopted = 0;
    let look = |place: &Path| (in_place(place), on_disk(place));
    kill(look, |store: &RawStore<Directory>, (seen, looked_at), known| {
        assert!(looked_at == known.found, "who looks sees something else than who opens");
        // In place a write that was being made may be half there, and nothing else.
        for (key, value) in seen {
            let may_be = [known.before.get(&key), known.after.get(&key)];
            assert!(may_be.contains(&Some(&value)), "{key:?} was seen in place");
        }
        store.verify().unwrap();
        adopted += store.stats().iter().filter(|shard| shard.adopted).count();
    });
    assert_eq!(adopted, 2 * KILLS, "shards went on with the memory they had");
}

#[test]
fn v1_a_killed_process_loses_no_write_that_has_returned_and_leaves_none_half() {
    let (mut highest, mut newest) = (0, 0);
    let look = |place: &Path| {
        let survey = LogSurvey::of(place, |_, _| {}).unwrap();
        assert!(survey.damage.is_empty(), "{survey:?}");
        let names = fs::read_dir(place).unwrap().map(|entry| entry.unwrap().file_name());
        let number = |name: &str| u64::from_str_radix(name.get(9..25)?, 16).ok();
        names.filter_map(|name| number(name.to_str()?)).max().unwrap()
    };
    kill(look, |store: &RawLogStore<Directory>, number, _| {
        newest = newest.max(number);
        highest = highest.max(store.stats().iter().map(|shard| shard.segments).max().unwrap());
    });
    // Compaction kept up, and had something to do.
    println!("up to {highest} segments of {newest}");
    assert!(newest > highest, "{highest} segments of {newest}");
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
    let _alone = alone();
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
    let store = <RawStore<Directory> as Killed>::open(folder.path());
    assert!(store.stats().iter().all(|shard| shard.adopted));
    store.put(&7_u64.to_le_bytes(), &[9; 64], Durability::Memory).unwrap();
    assert_eq!(reader.get(&7_u64.to_le_bytes()).unwrap(), Some(vec![9; 64]));
}
