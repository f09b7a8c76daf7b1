//! Hooks and watches: who is told what, and in which order.

#![allow(clippy::unwrap_used, reason = "clippy does not see that all of this is a test")]

use std::{
    os::fd::AsFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use mainstay_base::Rng;
use mainstay_sim::Disk;
use mainstay_store::{
    Change, Durability, Durability::Memory, Error, FixedStore, History, News, Options, Position,
    RawStore, Span, limits::WATCH_BYTES_MAX, write_changes,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const SOON: Duration = Duration::from_secs(20);

fn of(shards: u32) -> Options {
    Options { shards, ..Options::default() }
}

#[test]
fn a14_two_writers_of_one_key_see_hooks_in_commit_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(FixedStore::<u64, [u64; 2]>::create(dir.path(), &of(1)).unwrap());
    let told = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&told);
    let (weak, mixed) = (Arc::downgrade(&store), Arc::new(AtomicU64::new(0)));
    let other = Arc::clone(&mixed);
    let hook = store.raw().on_commit(move |commit| {
        for change in commit.changes {
            let Change::Put(key, value) = change else { continue };
            // No later writer is in yet.
            let now = weak.upgrade().unwrap().raw().get(key).unwrap().unwrap();
            other.fetch_add(u64::from(now != *value), Relaxed);
            seen.lock().unwrap().push((commit.token.sequence, value.to_vec()));
        }
    });
    thread::scope(|scope| {
        for writer in 0..2 {
            let store = &store;
            scope.spawn(move || {
                for number in 0..3_000 {
                    let how = if number % 100 == 0 { Durability::Group } else { Memory };
                    store.put(&7, &[writer, number], how).unwrap();
                }
            });
        }
    });
    drop(hook);
    store.put(&7, &[9, 9], Memory).unwrap();
    let told = told.lock().unwrap();
    assert_eq!((told.len(), mixed.load(Relaxed)), (6_000, 0));
    assert!(told.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0), "out of order");
    // Each writer's own values came in its own order.
    for writer in 0..2_u64 {
        let own = told.iter().filter(|(_, value)| value[..8] == writer.to_le_bytes());
        let numbers = own.map(|(_, value)| value[8..].to_vec());
        assert!(numbers.eq((0..3_000_u64).map(|number| number.to_le_bytes().to_vec())));
    }
}

#[test]
fn a_hook_that_panics_changes_nothing_and_keeps_nobody_from_being_told() {
    let store = RawStore::create(Disk::new(1), 1, 1, &of(4)).unwrap();
    let count = Arc::new(AtomicU64::new(0));
    let _bad = store.on_commit(|_| panic!("on purpose"));
    let seen = Arc::clone(&count);
    let _good = store.on_commit(move |commit| {
        seen.fetch_add(commit.changes.len() as u64, Relaxed);
    });
    store.put(b"a", b"1", Memory).unwrap();
    let changes: Vec<[u8; 1]> = (0..40).map(|number| [number]).collect();
    let changes: Vec<Change<'_>> = changes.iter().map(|key| Change::Put(key, b"2")).collect();
    assert_eq!(store.batch_across(&changes).unwrap().len(), 4);
    assert_eq!(count.load(Relaxed), 41);
    store.verify().unwrap();
    assert!(store.stats().iter().all(|shard| shard.poisoned.is_none()));
}

#[test]
fn a_replica_tells_of_the_leaders_writes_and_of_what_it_was_mended_with() {
    let leader = RawStore::create(Disk::new(1), 1, 1, &of(1)).unwrap();
    let replica = RawStore::create_replica(Disk::new(2), &leader.identity(), &of(1)).unwrap();
    let mut watch = replica.watch(Span::ALL).unwrap();
    let mut bytes = Vec::new();
    write_changes(&[Change::Put(b"a", b"1")], &mut bytes);
    replica.apply(0, 5, 1, &bytes).unwrap();
    replica.mend(0, &[Change::Delete(b"a")], History::Mending(Position::START)).unwrap();
    let news = [watch.take().unwrap().unwrap(), watch.take().unwrap().unwrap()];
    assert!(matches!(&news[0], News::Put { key, value, .. } if key == b"a" && value == b"1"));
    assert!(matches!(&news[1], News::Deleted { key, .. } if key == b"a"));
    assert_eq!(watch.take().unwrap(), None);
}

#[test]
fn a14_a_watch_sees_every_change_of_its_keys_in_order_and_no_other() {
    let store = RawStore::create(Disk::new(1), 2, 8, &of(4)).unwrap();
    let key = |number: u64| [number as u8 / 16, number as u8 % 16];
    let spans = [Span::ALL, Span::ALL.prefix(&[3]), Span::ALL.only(&key(77)), Span::ALL.from(&[9])];
    let mut watches: Vec<_> = spans.iter().map(|span| store.watch(span.clone()).unwrap()).collect();
    // What each key went through, as its one writer knows it.
    let made = Mutex::new(vec![Vec::new(); 200]);
    thread::scope(|scope| {
        for writer in 0..4 {
            let (store, made) = (&store, &made);
            scope.spawn(move || {
                let mut rng = Rng::seeded(writer);
                for step in 0..1_500_u64 {
                    let number = rng.below(50) * 4 + writer;
                    let value = step.to_le_bytes();
                    let is_put = rng.below(4) > 0;
                    if is_put {
                        store.put(&key(number), &value, Memory).unwrap();
                    } else if store.delete(&key(number), Memory).unwrap().is_none() {
                        continue;
                    }
                    made.lock().unwrap()[number as usize].push(is_put.then(|| value.to_vec()));
                }
            });
        }
    });
    let made = made.into_inner().unwrap();
    for (span, watch) in spans.iter().zip(&mut watches) {
        let mut seen = vec![Vec::new(); 200];
        let mut last = [0; 4];
        while let Some(news) = watch.take().unwrap() {
            let (token, key, value) = match news {
                News::Put { token, key, value, .. } => (token, key, Some(value)),
                News::Deleted { token, key, .. } => (token, key, None),
                other => panic!("{other:?}"),
            };
            assert!(
                std::mem::replace(&mut last[token.shard as usize], token.sequence) < token.sequence
            );
            seen[usize::from(key[0]) * 16 + usize::from(key[1])].push(value);
        }
        for (number, (seen, made)) in seen.iter().zip(&made).enumerate() {
            if span.has(&key(number as u64)) {
                assert_eq!(seen, made, "key {number}");
            } else {
                assert!(seen.is_empty(), "key {number} is not in {span:?}");
            }
        }
    }
}

#[test]
fn a_descriptor_is_readable_while_there_is_something_to_take_and_wakes_who_waits() {
    let store = RawStore::create(Disk::new(1), 1, 1, &of(2)).unwrap();
    let mut watch = store.watch(Span::ALL).unwrap();
    let is_readable = |watch: &mainstay_store::Watch| {
        let mut fds = [PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    };
    assert!(!is_readable(&watch));
    for _ in 0..2 {
        store.put(b"a", b"1", Memory).unwrap();
        store.put(b"b", b"1", Memory).unwrap();
        assert!(is_readable(&watch));
        assert!(watch.take().unwrap().is_some());
        assert!(is_readable(&watch));
        assert!(watch.take().unwrap().is_some());
        assert!(!is_readable(&watch));
    }
    assert_eq!(watch.wait(Duration::from_millis(5)).unwrap(), None);
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(30));
            store.delete(b"a", Memory).unwrap();
        });
        assert!(matches!(watch.wait(SOON).unwrap(), Some(News::Deleted { .. })));
    });
    store.put(b"a", b"2", Memory).unwrap();
    store.close().unwrap();
    // First what was left, and then the end.
    assert!(matches!(watch.wait(SOON).unwrap(), Some(News::Put { .. })));
    assert!(is_readable(&watch));
    assert!(matches!(watch.wait(SOON), Err(Error::Ended)));
    assert!(matches!(watch.take(), Err(Error::Ended)));
}

#[test]
fn whoever_takes_nothing_gets_as_much_as_waits_and_with_one_byte_more_is_told_so() {
    const VALUE: usize = 4_031;
    // With 64 and a key of one byte: 4,096 for each.
    let store = RawStore::create(Disk::new(1), 1, VALUE, &of(1)).unwrap();
    let count = WATCH_BYTES_MAX / 4_096;
    let fill = |count: usize| {
        let mut watch = store.watch(Span::ALL.prefix(b"a")).unwrap();
        for _ in 0..count {
            store.put(b"a", &[1; VALUE], Memory).unwrap();
        }
        let mut news = Vec::new();
        while let Some(one) = watch.take().unwrap() {
            news.push(one);
        }
        news
    };
    let all = fill(count);
    assert_eq!((all.len(), all.contains(&News::Missed)), (count, false));
    let after = fill(count + 1);
    assert_eq!((after.len(), &after[0]), (2, &News::Missed));
    assert!(matches!(&after[1], News::Put { .. }));
}
