//! Every kind of damage in stores of many histories, beside what their bytes were before; and the
//! faults that must be found this way.

use std::ops::Range;

use mainstay_base::Rng;
use mainstay_sim::Disk;
use mainstay_storage::Storage;
use zerocopy::FromBytes;

use super::*;
use crate::{
    Change,
    any::damaging::{Bytes, Over, Records, bytes_of, cuts, damage, run, without_a_mark_is_whole},
    format::{CHUNK_LEN, ChunkHeader, DATA_AT, HEADER_LEN, ImageHeader, STORE_FILE, parse_name},
    limits::SEGMENT_BYTES_MIN,
    log::Frame,
    machine::as_it_is,
    planted::plant,
};

const KEYS: u64 = 40;
const KEY: usize = 1;
const VALUE: usize = 400;

fn options() -> Options {
    Options {
        shards: 2,
        segment_bytes: SEGMENT_BYTES_MIN,
        threads: 1,
        // An image takes several calls.
        compact_bytes_per_second: 24_000,
        ..Options::default()
    }
}

/// What a store is given.
#[derive(Clone, Copy)]
struct Story {
    steps: u64,
    has_batches: bool,
    /// All writes are durable when they return.
    is_durable: bool,
    is_closed: bool,
}

fn written(seed: u64, over: Over, story: Story) -> Disk {
    let (disk, mut rng) = (Disk::new(seed), Rng::seeded(seed));
    let store = RawStore::create(over(&disk), KEY, VALUE, &options()).unwrap();
    for step in 0..story.steps {
        let key = [rng.below(KEYS) as u8];
        let mut value = [rng.next_u64() as u8; VALUE];
        // None is like another one.
        value[..8].copy_from_slice(&(step + 1).to_le_bytes());
        let is_in_memory = !story.is_durable && rng.below(3) == 0;
        let how = if is_in_memory { Durability::Memory } else { Durability::Group };
        match rng.below(24) {
            0..5 => drop(store.delete(&key, how).unwrap()),
            5 if story.has_batches => {
                let other = [rng.below(KEYS) as u8];
                let changes = [Change::Put(&key, &value), Change::Delete(&other)];
                drop(store.batch_across(&changes).unwrap());
            }
            6..9 => store.tend().unwrap(),
            9 if rng.below(8) == 0 => store.compact().unwrap(),
            10 => {
                let others: Vec<_> = (0..KEYS as u8)
                    .map(|other| [other])
                    .filter(|other| store.shard(other).ok() == store.shard(&key).ok())
                    .take(3)
                    .collect();
                let changes: Vec<_> = others.iter().map(|it| Change::Put(it, &value)).collect();
                assert!(store.batch(&changes, how).unwrap().is_some());
            }
            _ => drop(store.put(&key, &value, how).unwrap()),
        }
    }
    if story.is_closed {
        store.close().unwrap();
    } else {
        store.sync().unwrap();
        drop(store);
        disk.kill();
    }
    disk
}

/// What a file says of a key.
struct Version {
    file: String,
    shard: u32,
    /// The frame or the chunk, and in it the record's value.
    part: Range<usize>,
    at: Range<usize>,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
    /// The write up to which it is the newest.
    as_of: u64,
    /// It is in an image that has all of the writes up to this one.
    image: Option<u64>,
    /// Another frame follows, or the next segment.
    is_followed: bool,
}

impl Version {
    fn is_sound(&self, before: &Bytes, after: &Bytes) -> bool {
        let now = after.get(&self.file).and_then(|bytes| bytes.get(self.part.clone()));
        now == before[&self.file].get(self.part.clone())
    }
}

/// All that files of a store say, a shard after the other, the images first.
fn versions(files: &Bytes) -> Vec<Version> {
    let mut all = Vec::new();
    for (file, bytes) in files {
        let Some((shard, _, is_image)) = parse_name(file) else { continue };
        let mut at = DATA_AT as usize;
        if is_image {
            let head = ImageHeader::read_from_bytes(&bytes[..HEADER_LEN]).unwrap();
            for _ in 0..head.chunks.get() {
                let chunk = ChunkHeader::read_from_bytes(&bytes[at..at + CHUNK_LEN]).unwrap();
                let stride = 8 + KEY + VALUE;
                let part = at..at + CHUNK_LEN + chunk.count.get() as usize * stride;
                for start in (at + CHUNK_LEN..part.end).step_by(stride) {
                    let (sequence, record) = sequence_and_key(&bytes[start..start + stride]);
                    all.push(Version {
                        file: file.clone(),
                        shard,
                        part: part.clone(),
                        at: start + 8 + KEY..start + stride,
                        key: record[..KEY].to_vec(),
                        value: Some(record[KEY..].to_vec()),
                        as_of: sequence.max(head.from.get()),
                        image: Some(head.from.get()),
                        is_followed: false,
                    });
                }
                at = part.end;
            }
            continue;
        }
        while let Some(frame) = bytes.get(at..).and_then(Frame::read) {
            let (head, start) = (frame.header, bytes.as_ptr() as usize);
            let part = at..at + head.len.get() as usize;
            at = part.end;
            let is_later = |name: &String| {
                parse_name(name).is_some_and(|it| it.0 == shard && !it.2) && name > file
            };
            let is_followed = bytes.get(at..).and_then(Frame::read).is_some()
                || files.iter().any(|(name, it)| is_later(name) && it[0] != 0);
            let each = |change: Change<'_>| {
                let (key, value) = match change {
                    Change::Put(key, value) => (key, Some(value)),
                    Change::Delete(key) => (key, None),
                };
                let from = key.as_ptr() as usize - start + KEY;
                all.push(Version {
                    file: file.clone(),
                    shard,
                    part: part.clone(),
                    at: from..from + value.map_or(0, <[u8]>::len),
                    key: key.to_vec(),
                    value: value.map(<[u8]>::to_vec),
                    as_of: head.sequence.get(),
                    image: None,
                    is_followed,
                });
            };
            assert!(frame.changes(KEY, VALUE, each));
        }
    }
    all.sort_by_key(|it| (it.shard, it.image.is_none(), it.as_of));
    all
}

/// What is to be there of what is sound. Where an image is whole, nothing of before it counts.
fn expected(all: &[Version], is_sound: impl Fn(&Version) -> bool) -> Records {
    let mut newest = std::collections::BTreeMap::new();
    let whole = |shard: u32| {
        let mut of_image = all.iter().filter(|it| it.shard == shard && it.image.is_some());
        if of_image.all(&is_sound) {
            all.iter().filter(|it| it.shard == shard).find_map(|it| it.image)
        } else {
            None
        }
    };
    let whole: Vec<_> = (0..2).map(|shard| whole(shard).unwrap_or(0)).collect();
    for version in all.iter().filter(|it| is_sound(it)) {
        if version.image.is_none() && version.as_of <= whole[version.shard as usize] {
            continue;
        }
        let known = newest.entry(&version.key).or_insert(version);
        if version.as_of >= known.as_of {
            *known = version;
        }
    }
    let there = newest.into_values();
    there.filter_map(|it| Some((it.key.clone(), it.value.clone()?))).collect()
}

fn contents<F: Folder>(store: &RawStore<F>) -> Result<Records> {
    let mut records = Records::new();
    store.for_each(|key, value| drop(records.insert(key.to_vec(), value.to_vec())))?;
    Ok(records)
}

fn salvaged(over: Over, disk: &Disk) -> Result<(Records, Salvaged)> {
    let (store, told) = RawStore::salvage(&over(disk), Disk::new(1), &options(), |_, _| {})?;
    let records = contents(&store)?;
    assert_eq!(told.records, records.len() as u64);
    Ok((records, told))
}

/// A bit at each place of each file: everything but what is in the damaged place is there.
fn flipped(seed: u64, is_closed: bool) -> std::result::Result<u64, String> {
    let story = Story { steps: 120, has_batches: false, is_durable: true, is_closed };
    let disk = written(seed, as_it_is, story);
    let (before, mut rng) = (bytes_of(&disk), Rng::seeded(!seed));
    let all = versions(&before);
    let truth = expected(&all, |_| true);
    assert!(all.iter().any(|it| it.image.is_some()) && all.iter().any(|it| it.image.is_none()));
    let mut lost = 0;
    for (name, bytes) in &before {
        let file = disk.file(name);
        for (at, byte) in bytes.iter().enumerate() {
            let is_used =
                *byte != 0 || all.iter().any(|it| it.file == *name && it.part.contains(&at));
            // Of what is zeros anyhow, and of what is like its neighbours, a few.
            let is_in_value = all.iter().any(|it| it.file == *name && it.at.contains(&at));
            if rng.below(if is_in_value {
                30
            } else if is_used {
                1
            } else {
                200
            }) > 0
            {
                continue;
            }
            let wrong = |what: &str| Err(format!("seed {seed}, {name} at {at}: {what}"));
            file.write_at(at as u64, &[byte ^ 1 << rng.below(8)]).unwrap();
            let (records, told) = salvaged(as_it_is, &disk).map_err(|error| error.to_string())?;
            file.write_at(at as u64, &[*byte]).unwrap();
            let is_lost = |it: &Version| {
                let of_part = it.part.contains(&at).then(|| at - it.part.start);
                it.file == *name
                    && of_part.is_some_and(|at| {
                        // The magic, and a checksum that the next frame names, are known.
                        let is_known = it.image.is_none() && (at < 4 || at < 8 && it.is_followed);
                        !is_known
                    })
            };
            if records != expected(&all, |it| !is_lost(it)) {
                return wrong("not all that is sound is there, or more");
            }
            if records == truth {
                continue;
            }
            lost += 1;
            let is_last =
                all.iter().all(|it| it.image.is_some() || !is_lost(it) || !it.is_followed);
            if !is_closed && is_last && name.ends_with(".log") {
                // As a write that was not finished.
                continue;
            }
            if told.is_whole() || !told.damage.iter().any(|damage| damage.file == *name) {
                return wrong("nothing is told");
            }
            for key in truth.keys().chain(records.keys()) {
                let (old, new) = (truth.get(key), records.get(key));
                if old == new {
                    continue;
                }
                if new.is_some() && told.doubtful == 0 {
                    return wrong("something older is there, and in no doubt");
                }
                let of_key = |it: &&Version| it.file == *name && it.key == *key;
                let is_in_value = all.iter().filter(of_key).any(|it| it.at.contains(&at));
                if is_in_value && !told.named.iter().any(|named| **named == **key) {
                    return wrong("the key of a damaged value is not told");
                }
            }
        }
    }
    Ok(lost)
}

/// Any damage: nothing is there that never was, and whatever is not as it was is told.
fn damaged(seed: u64, over: Over) -> std::result::Result<u64, String> {
    let story = Story {
        steps: 100 + seed % 400,
        has_batches: seed.is_multiple_of(2),
        is_durable: false,
        is_closed: !seed.is_multiple_of(3),
    };
    let disk = written(seed, over, story);
    let before = bytes_of(&over(&disk));
    let all = versions(&before);
    let truth = expected(&all, |_| true);
    damage(&disk, &mut Rng::seeded(!seed), |_| true);
    let after = bytes_of(&over(&disk));
    let (records, told) = match salvaged(over, &disk) {
        // The only file that says how long keys are.
        Err(Error::NotAStore | Error::HeaderGone { .. } | Error::Encrypted { .. }) => return Ok(0),
        Err(Error::Damaged { file, .. }) if file == STORE_FILE => return Ok(0),
        found => found.map_err(|error| error.to_string())?,
    };
    let mut older = 0;
    for key in (0..KEYS as u8).map(|key| vec![key]) {
        let (old, new) = (truth.get(&key), records.get(&key));
        let of_key = || all.iter().filter(|it| it.key == key);
        if new.is_some_and(|new| !of_key().any(|it| it.value.as_ref() == Some(new))) {
            return Err(format!("{key:?} has a value that it never had"));
        }
        if old == new {
            continue;
        }
        let Some(newest) = of_key().max_by_key(|it| (it.as_of, it.image.is_none())) else {
            continue;
        };
        let is_behind = |it: &&Version| it.shard == newest.shard && it.as_of > newest.as_of;
        // Where nothing sound is behind it, it looks as a write does that was not finished.
        let is_end = newest.image.is_none()
            && !all.iter().filter(is_behind).any(|it| it.is_sound(&before, &after));
        let is_told = !told.is_whole() && (new.is_none() || told.doubtful > 0);
        if newest.is_sound(&before, &after) && !is_end {
            return Err(format!("{key:?} is sound, and not there; {:?}", told.damage));
        }
        if !is_end && !is_told {
            return Err(format!("{key:?} is not what it was, and {told:?}"));
        }
        older += u64::from(new.is_some());
    }
    Ok(older)
}

/// Records that an image has newer than the log up to which it is complete, where the frames that made
/// them are damaged: what is left of the log does not make them older. How many there were.
fn ahead() -> std::result::Result<u64, String> {
    let one = Options { shards: 1, ..options() };
    let disk = Disk::new(7);
    let store = RawStore::create(disk.clone(), KEY, VALUE, &one).unwrap();
    let put = |key: u64, value: u64| {
        let mut bytes = [0; VALUE];
        bytes[..8].copy_from_slice(&value.to_le_bytes());
        store.put(&[key as u8], &bytes, Durability::Group).unwrap();
    };
    let mut step = 0;
    while store.stats()[0].image == 0 {
        put(step % KEYS, step);
        // Long enough to be worth an image, which is made beside those who write.
        if step > 300 {
            put(step % KEYS, step + 10_000);
            store.tend().unwrap();
        }
        step += 1;
    }
    store.close().unwrap();
    let before = bytes_of(&disk);
    let all = versions(&before);
    let mut count = 0;
    for newest in all.iter().filter(|it| it.image.is_some_and(|from| from < it.as_of)) {
        let of_key = || all.iter().filter(|it| it.key == newest.key && it.image.is_none());
        let older = of_key().filter(|it| it.as_of < newest.as_of && Some(it.as_of) > newest.image);
        if older.count() == 0 || of_key().any(|it| it.as_of > newest.as_of) {
            continue;
        }
        let frame = of_key().find(|it| it.as_of == newest.as_of).unwrap();
        let byte = before[&frame.file][frame.at.start];
        disk.file(&frame.file).write_at(frame.at.start as u64, &[!byte]).unwrap();
        let (records, told) = salvaged(as_it_is, &disk).map_err(|error| error.to_string())?;
        disk.file(&frame.file).write_at(frame.at.start as u64, &[byte]).unwrap();
        if records.get(&newest.key) != newest.value.as_ref() || told.writes_lost != 1 {
            return Err(format!("{:?} is older than in the image; {told:?}", newest.key));
        }
        count += 1;
    }
    Ok(count)
}

#[test]
fn a18_what_an_image_has_of_later_writes_is_not_made_older_by_the_log() {
    let count = ahead();
    assert!(count.as_ref().is_ok_and(|count| *count > 3), "{count:?}");
}

#[test]
fn a18_of_a_flipped_bit_anywhere_the_place_is_lost_and_told_and_nothing_else() {
    for (seed, is_closed) in [(1, true), (2, false)] {
        let lost = flipped(seed, is_closed);
        assert!(lost.as_ref().is_ok_and(|lost| *lost > 300), "{lost:?}");
    }
}

#[test]
fn a18_nothing_is_saved_that_never_was_and_what_may_be_older_is_told() {
    let older = run(0..400, as_it_is, damaged);
    assert!(older.as_ref().is_ok_and(|older| *older > 20), "{older:?}");
}

#[cfg(feature = "encryption")]
#[test]
fn a18_encrypted_stores_are_saved_as_well() {
    let older = run(0..100, crate::machine::encrypted, damaged);
    assert!(older.as_ref().is_ok_and(|older| *older > 5), "{older:?}");
}

#[test]
fn a18_the_planted_faults_of_salvage_are_found() {
    let faults = [
        Fault::LossUntold,
        Fault::OlderShown,
        Fault::OlderTaken,
        Fault::SalvageUnchecked,
        Fault::ChecksumIgnored,
    ];
    for fault in faults {
        plant(Some(fault));
        let found = [run(0..100, as_it_is, damaged), ahead(), flipped(1, true)];
        plant(None);
        assert!(found.iter().any(std::result::Result::is_err), "{fault:?} is not found");
    }
}

fn cut(seed: u64) -> std::result::Result<u64, String> {
    let story = Story { steps: 60, has_batches: true, is_durable: false, is_closed: true };
    let disk = written(seed, as_it_is, story);
    damage(&disk, &mut Rng::seeded(!seed), |name| name.ends_with(".log"));
    let before = bytes_of(&disk);
    let images = cuts(
        |to| contents(&RawStore::salvage(&disk, to, &options(), |_, _| {})?.0),
        |image| contents(&RawStore::open(image, &options())?),
    )?;
    if bytes_of(&disk) == before { Ok(images) } else { Err("the damaged store was changed".into()) }
}

#[test]
fn a18_a_store_without_a_mark_is_whole_after_a_power_cut() {
    without_a_mark_is_whole(5, Fault::SalvageUnsynced, cut);
}
