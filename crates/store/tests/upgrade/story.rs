// The stores that fixtures are made of, and their files as text. Shared by the test and by the
// example that makes the next fixture.

use std::{collections::BTreeMap, fmt::Write, fs, path::Path};

use mainstay_store::{
    Change, Directory, Durability::Memory, LogOptions, Options, RawLogStore, RawStore, Result,
};

pub type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// A key and its new value; none: it is deleted.
pub type OneChange = (Vec<u8>, Option<Vec<u8>>);
pub type Batch = Vec<OneChange>;

/// Bytes of a key and of a value of the store of fixed sizes.
pub const LENGTHS: (usize, usize) = (4, 24);

fn value(number: u32, len: usize) -> Vec<u8> {
    (0..len as u32).map(|at| (number * 31 + at) as u8).collect()
}

/// Which changes are made, one batch after the other, with values of these lengths.
pub fn changes(len_of: impl Fn(u32) -> usize) -> Vec<Batch> {
    let one = |number: u32| {
        let key = (number % 70).to_be_bytes().to_vec();
        let put = (key.clone(), Some(value(number, len_of(number))));
        match number % 7 {
            3 => vec![(key, None)],
            5 => vec![put, ((number % 70 + 1).to_be_bytes().to_vec(), None)],
            _ => vec![put],
        }
    };
    (0..400).map(one).collect()
}

/// What the store has in the end.
pub fn records(changes: &[Batch]) -> Records {
    let mut records = Records::new();
    for (key, value) in changes.iter().flatten() {
        match value {
            Some(value) => records.insert(key.clone(), value.clone()),
            None => records.remove(key),
        };
    }
    records
}

pub fn fixed_options() -> Options {
    Options { shards: 1, segment_bytes: 16 << 10, threads: 1, ..Options::default() }
}

pub fn any_options() -> LogOptions {
    LogOptions { shards: 1, segment_bytes: 16 << 10, threads: 1, ..LogOptions::default() }
}

pub fn any_len(number: u32) -> usize {
    (number % 13) as usize * 11
}

fn each<'a>(batch: &'a [OneChange]) -> Vec<Change<'a>> {
    batch.iter().map(|(key, value)| Change::of(key, value.as_deref())).collect()
}

/// Makes the store of fixed sizes: with an image in the middle, several segments, and closed.
pub fn make_fixed(dir: &Path) -> Result<()> {
    let folder = Directory::lock(dir)?;
    let store = RawStore::create(folder, LENGTHS.0, LENGTHS.1, &fixed_options())?;
    for (at, batch) in changes(|_| LENGTHS.1).iter().enumerate() {
        store.batch(&each(batch), Memory)?;
        if at == 250 {
            store.compact()?;
        }
    }
    store.close()
}

/// Makes the store of any sizes: compacted in the middle, several segments, and closed.
pub fn make_any(dir: &Path) -> Result<()> {
    let store = RawLogStore::create(Directory::lock(dir)?, &any_options())?;
    for (at, batch) in changes(any_len).iter().enumerate() {
        store.batch(&each(batch), Memory)?;
        if at == 250 {
            store.upkeep()?;
            store.compact()?;
        }
    }
    store.close()
}

/// The files of a directory as text: names, lengths, and whatever is not zero. The memory of a
/// store is left out: it is of no worth on another machine.
pub fn describe(dir: &Path) -> std::io::Result<String> {
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.extend(entry?.file_name().into_string());
    }
    names.retain(|name| name != "lock" && !name.ends_with(".live") && !name.ends_with(".index"));
    names.sort();
    let mut text = String::new();
    for name in names {
        let bytes = fs::read(dir.join(&name))?;
        let _never = writeln!(text, "file {name} {}", bytes.len());
        for (at, line) in bytes.chunks(48).enumerate() {
            if line.iter().any(|byte| *byte != 0) {
                let hex: String = line.iter().map(|byte| format!("{byte:02x}")).collect();
                let _never = writeln!(text, "{} {hex}", at * 48);
            }
        }
    }
    Ok(text)
}

/// The opposite.
pub fn unpack(text: &str, dir: &Path) -> std::io::Result<()> {
    let wrong = || std::io::Error::other("a line that is none");
    let mut file: Option<(String, Vec<u8>)> = None;
    for line in text.lines().chain(["file  0"]) {
        let mut words = line.split(' ');
        let (first, second) = (words.next().ok_or_else(wrong)?, words.next().ok_or_else(wrong)?);
        if first == "file" {
            if let Some((name, bytes)) = file.take() {
                fs::write(dir.join(name), bytes)?;
            }
            let len = words.next().and_then(|len| len.parse().ok()).ok_or_else(wrong)?;
            file = Some((second.to_owned(), vec![0; len]));
            continue;
        }
        let (_, bytes) = file.as_mut().ok_or_else(wrong)?;
        let at: usize = first.parse().map_err(|_| wrong())?;
        for (index, pair) in second.as_bytes().chunks(2).enumerate() {
            let hex = std::str::from_utf8(pair).map_err(|_| wrong())?;
            let byte = u8::from_str_radix(hex, 16).map_err(|_| wrong())?;
            *bytes.get_mut(at + index).ok_or_else(wrong)? = byte;
        }
    }
    Ok(())
}
