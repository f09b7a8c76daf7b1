//! A directory whose store is given other numbers of shards again and again: by processes that are
//! killed meanwhile, and by one that is not.

#![allow(clippy::unwrap_used, reason = "clippy does not see that all of this is a test")]

use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead, BufReader, Write},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
};

use mainstay_base::Rng;
use mainstay_store::{
    Directory, Durability::Memory, Error, FixedStore, LogOptions, LogStore, OnDisk, Options,
    Reader, limits::SEGMENT_BYTES_MIN,
};

type Store = FixedStore<u64, u64>;
type AnyStore = LogStore<u64, u64>;

/// A store of either kind, with the numbers that are written to it.
trait Numbers: Sized + Send + Sync {
    /// The test that a process is started for.
    const TEST: &str;
    fn create(path: &Path);
    fn open(path: &Path) -> Self;
    fn put(&self, key: u64, number: u64) -> Result<(), Error>;
    fn get(&self, key: u64) -> Option<u64>;
    fn newest(&self) -> u64;
    fn shards(&self) -> usize;
    fn reshard(&self, shards: u32, chunk: u64) -> Self;
}

/// What both kinds call the same.
macro_rules! alike {
    () => {
        fn put(&self, key: u64, number: u64) -> Result<(), Error> {
            self.put(&key, &number, Memory).map(drop)
        }

        fn get(&self, key: u64) -> Option<u64> {
            self.get(&key).unwrap()
        }

        fn newest(&self) -> u64 {
            let mut newest = 0;
            self.for_each(|_, value| newest = newest.max(value)).unwrap();
            newest
        }

        fn shards(&self) -> usize {
            self.stats().len()
        }
    };
}

impl Numbers for Store {
    const TEST: &str = "a17_whoever_is_killed";

    fn create(path: &Path) {
        drop(Self::create(path, &options(1)).unwrap());
    }

    fn open(path: &Path) -> Self {
        Self::open(path, &options(1)).unwrap()
    }

    alike!();

    fn reshard(&self, shards: u32, chunk: u64) -> Self {
        reshard(self, shards, chunk)
    }
}

fn log_options(shards: u32) -> LogOptions {
    LogOptions { shards, segment_bytes: 4 * SEGMENT_BYTES_MIN, ..LogOptions::default() }
}

impl Numbers for AnyStore {
    const TEST: &str = "v12_whoever_is_killed";

    fn create(path: &Path) {
        drop(Self::create(path, &log_options(1)).unwrap());
    }

    fn open(path: &Path) -> Self {
        Self::open(path, &log_options(1)).unwrap()
    }

    alike!();

    fn reshard(&self, shards: u32, chunk: u64) -> Self {
        let mut resharding = loop {
            match self.reshard(&log_options(shards)) {
                Err(Error::Locked) => thread::yield_now(),
                begun => break begun.unwrap(),
            }
        };
        while !resharding.advance(chunk).unwrap() {}
        resharding.finish().unwrap()
    }
}

/// Tells a process that it is the one that writes, and where.
const FOLDER: &str = "RESHARDED_FOLDER";
const KEYS: u64 = 2_000;
const KILLS: u64 = 25;

fn options(shards: u32) -> Options {
    Options { shards, segment_bytes: 4 * SEGMENT_BYTES_MIN, ..Options::default() }
}

fn beside(path: &Path) -> std::path::PathBuf {
    let name = format!("{}.resharding", path.file_name().unwrap().to_str().unwrap());
    path.with_file_name(name)
}

/// Lets writers end, also if somebody panics.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Gives the store other shards. A writer may still hold the one that was replaced before.
fn reshard(old: &Store, shards: u32, chunk: u64) -> Store {
    let mut resharding = loop {
        match old.reshard(&options(shards)) {
            Err(Error::Locked) => thread::yield_now(),
            begun => break begun.unwrap(),
        }
    };
    while !resharding.advance(chunk).unwrap() {}
    resharding.finish().unwrap()
}

/// Writes one number after another, says which ones have been written, and changes the shards as
/// often as it can.
fn write<S: Numbers>(path: &Path) {
    let first = S::open(path);
    let from = first.newest();
    let store = RwLock::new(Arc::new(first));
    let now = || Arc::clone(&store.read().unwrap_or_else(PoisonError::into_inner));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut out = std::io::stdout().lock();
            for number in from + 1.. {
                loop {
                    match now().put(number % KEYS, number) {
                        Ok(()) => break,
                        Err(Error::Resharded) => thread::yield_now(),
                        Err(error) => panic!("{error}"),
                    }
                }
                writeln!(out, "{number}").unwrap();
            }
        });
        for round in 0_u32.. {
            let old = now();
            let new = old.reshard(1 << (round % 4), 300);
            *store.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        }
    });
}

#[test]
fn a17_whoever_is_killed_while_shards_become_others_loses_nothing() {
    killed::<Store>();
}

#[test]
fn v12_whoever_is_killed_while_shards_become_others_loses_nothing() {
    killed::<AnyStore>();
}

fn killed<S: Numbers>() {
    if let Some(path) = env::var_os(FOLDER) {
        // Whoever panics beside a writer that goes on would never end.
        std::panic::set_hook(Box::new(|panic| {
            eprintln!("{panic}");
            std::process::abort();
        }));
        return write::<S>(Path::new(&path));
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("numbers");
    S::create(&path);
    let mut rng = Rng::seeded(1);
    // What has been written last, for each key.
    let mut written: BTreeMap<u64, u64> = BTreeMap::new();
    let (mut shards_seen, mut begun) = (std::collections::BTreeSet::new(), 0);
    let mut kills = 0;
    // On a busy machine some more, until enough has come of it.
    while kills < KILLS || (kills < 8 * KILLS && (shards_seen.len() <= 2 || begun == 0)) {
        kills += 1;
        let mut child = Command::new(env::current_exe().unwrap())
            .args([S::TEST, "--nocapture"])
            .env(FOLDER, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let wanted = 500 + rng.below(9_000);
        let mut note = |line: String| {
            if let Ok(number) = line.parse::<u64>() {
                written.insert(number % KEYS, number);
            }
        };
        lines.by_ref().take(wanted as usize).for_each(|line| note(line.unwrap()));
        child.kill().unwrap();
        // What it said before it died counts as well, but for a last line that is cut.
        let rest: Vec<String> = lines.map_while(Result::ok).collect();
        rest.iter().take(rest.len().saturating_sub(1)).for_each(|line| note(line.clone()));
        assert_eq!(child.wait().unwrap().signal(), Some(9), "it did not live to be killed");
        begun += u64::from(beside(&path).is_dir());
        let store = S::open(&path);
        shards_seen.insert(store.shards());
        let last = written.values().copied().max().unwrap();
        for (key, number) in &written {
            let found = store.get(*key).unwrap_or_else(|| panic!("{key} is lost"));
            // One that was made and not said, and one of which the line was cut.
            assert!(found >= *number && found % KEYS == *key, "{key}: {found}, written {number}");
            assert!(found <= last + 2, "{key}: {found} was never written");
        }
    }
    assert!(shards_seen.len() > 2, "{shards_seen:?}: nothing became of it");
    assert!(begun > 0, "nobody was killed in the middle");
}

#[test]
fn the_old_one_can_be_read_until_it_is_dropped_and_then_its_files_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("numbers");
    let old = Store::create(&path, &options(2)).unwrap();
    (0..500).for_each(|number| drop(old.put(&number, &number, Memory).map(drop)));
    let reader = Reader::open(&path).unwrap();
    let resharding = old.reshard(&options(4)).unwrap();
    assert!(beside(&path).is_dir());
    let new = resharding.finish().unwrap();
    new.put(&1, &1_000, Memory).unwrap();
    assert_eq!((old.get(&1).unwrap(), new.get(&1).unwrap()), (Some(1), Some(1_000)));
    // Other processes are told to look again.
    let told = reader.get(&1_u64.to_le_bytes()).err();
    assert!(matches!(told, Some(Error::OtherMemory)), "{told:?}");
    let found = Reader::open(&path).unwrap().get(&1_u64.to_le_bytes()).unwrap();
    assert_eq!(found, Some(1_000_u64.to_le_bytes().to_vec()));
    // Both directories are somebody's, so nothing is begun in the one beside.
    assert!(matches!(Directory::lock(&path), Err(Error::Locked)));
    assert!(matches!(new.reshard(&options(1)).err(), Some(Error::Locked)));
    drop(old);
    assert!(!beside(&path).exists());
    let new = new.reshard(&options(1)).unwrap().finish().map(|newer| drop((new, newer)));
    new.unwrap();
    let looked = OnDisk::open(&path).unwrap();
    assert_eq!((looked.shards().count(), fs::read_dir(dir.path()).unwrap().count()), (1, 1));
}

#[test]
fn one_that_is_given_up_leaves_the_store_and_no_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("numbers");
    let store = Store::create(&path, &options(2)).unwrap();
    store.put(&1, &1, Memory).unwrap();
    let mut resharding = store.reshard(&options(4)).unwrap();
    resharding.advance(1).unwrap();
    drop(resharding);
    assert!(!beside(&path).exists());
    // What a killed one left is removed by the next; what has no mark is not touched.
    fs::create_dir(beside(&path)).unwrap();
    fs::write(beside(&path).join("store"), b"half").unwrap();
    assert!(matches!(store.reshard(&options(4)).err(), Some(Error::InTheWay { .. })));
    assert_eq!(fs::read_dir(beside(&path)).unwrap().count(), 1, "nothing is put there either");
    fs::write(beside(&path).join("unfinished"), b"\n").unwrap();
    drop(store.reshard(&options(4)).unwrap());
    assert!(!beside(&path).exists());
    fs::write(beside(&path), b"somebody's").unwrap();
    assert!(store.reshard(&options(4)).is_err());
    assert_eq!(fs::read(beside(&path)).unwrap(), b"somebody's");
    // Nor is a link that leads nowhere taken for one that somebody takes away.
    fs::remove_file(beside(&path)).unwrap();
    std::os::unix::fs::symlink("nowhere", beside(&path)).unwrap();
    assert!(matches!(store.reshard(&options(4)).err(), Some(Error::InTheWay { .. })));
    store.put(&1, &2, Memory).unwrap();
}

#[test]
fn writers_go_on_with_the_new_one_while_shards_become_others() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("numbers");
    let store = RwLock::new(Arc::new(Store::create(&path, &options(1)).unwrap()));
    let now = || Arc::clone(&store.read().unwrap());
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..2_u64)
            .map(|writer| {
                let (now, is_done) = (&now, &is_done);
                scope.spawn(move || {
                    let mut number = 0;
                    while !is_done.load(Relaxed) {
                        number += 1;
                        let key = 2 * (number % 500) + writer;
                        while let Err(error) = now().put(&key, &number, Memory) {
                            assert!(matches!(error, Error::Resharded), "{error}");
                            thread::yield_now();
                        }
                    }
                    number
                })
            })
            .collect();
        let done = Done(&is_done);
        for shards in [4, 2, 8, 1] {
            let old = now();
            let new = reshard(&old, shards, 100);
            *store.write().unwrap() = Arc::new(new);
        }
        drop(done);
        for (writer, last) in (0_u64..).zip(writers) {
            let last = last.join().unwrap();
            for number in last.saturating_sub(499).max(1)..=last {
                let key = 2 * (number % 500) + writer;
                assert_eq!(now().get(&key).unwrap(), Some(number), "of {last}");
            }
        }
    });
}
