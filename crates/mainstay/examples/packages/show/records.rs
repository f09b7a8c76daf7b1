//! How a package is a record, and what the update does to the records.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, BufWriter, ErrorKind, Read, Write},
    path::Path,
};

use super::Result;

/// Bytes of a key: name and architecture, filled up with zeros.
pub(crate) const KEY_LEN: usize = 96;
/// Bytes of a value: version, size, section and the beginning of the description.
pub(crate) const VALUE_LEN: usize = 128;

pub(crate) type Key = [u8; KEY_LEN];
pub(crate) type Value = [u8; VALUE_LEN];
/// All records of a copy.
pub(crate) type Records = BTreeMap<Key, Value>;

/// The key of a package; none if its name is too long for one.
pub(crate) fn key(name: &str, architecture: &str) -> Option<Key> {
    let text = format!("{name}:{architecture}");
    let mut key = [0; KEY_LEN];
    key.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
    Some(key)
}

/// A value of these fields; what does not fit is cut off.
pub(crate) fn value(fields: &[&str]) -> Value {
    let text = fields.join("\t");
    let mut len = text.len().min(VALUE_LEN);
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    let mut value = [0; VALUE_LEN];
    value[..len].copy_from_slice(&text.as_bytes()[..len]);
    value
}

/// One step of an import or of an update. Made twice, it is made once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// The package is there, in this version.
    Put(Key, Value),
    /// It is not.
    Delete(Key),
}

impl Step {
    /// Makes the step.
    pub(crate) fn make(&self, records: &mut Records) {
        match self {
            Self::Put(key, value) => drop(records.insert(*key, *value)),
            Self::Delete(key) => drop(records.remove(key)),
        }
    }

    /// Whether it has been made to these records.
    pub(crate) fn is_made(&self, records: &Records) -> bool {
        match self {
            Self::Put(key, value) => records.get(key) == Some(value),
            Self::Delete(key) => !records.contains_key(key),
        }
    }
}

/// An update as a machine has it: every seventh package in a new version, every eleventh gone, and
/// some new ones.
pub(crate) fn update(records: &Records) -> Vec<Step> {
    let mut steps = Vec::new();
    for (place, (key, value)) in records.iter().enumerate() {
        match place {
            place if place % 7 == 0 => {
                let old = String::from_utf8_lossy(value);
                let (version, rest) = old.split_once('\t').unwrap_or((&old, ""));
                let new = format!("{version}+update\t{}", rest.trim_end_matches('\0'));
                steps.push(Step::Put(*key, self::value(&[&new])));
            }
            place if place % 11 == 3 => steps.push(Step::Delete(*key)),
            place if place % 23 == 5 => {
                let mut new = *key;
                new.copy_within(..KEY_LEN - 4, 4);
                new[..4].copy_from_slice(b"new-");
                steps.push(Step::Put(new, *value));
            }
            _ => {}
        }
    }
    steps
}

/// Writes steps to a file, for a process of the show to make.
pub(crate) fn save<'a>(path: &Path, steps: impl Iterator<Item = &'a Step>) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for step in steps {
        let (kind, key, value) = match step {
            Step::Put(key, value) => (b'+', key, value),
            Step::Delete(key) => (b'-', key, &[0; VALUE_LEN]),
        };
        file.write_all(&[kind])?;
        file.write_all(key)?;
        file.write_all(value)?;
    }
    Ok(file.flush()?)
}

/// Reads such a file.
pub(crate) fn load(path: &Path) -> Result<Vec<Step>> {
    let mut file = BufReader::new(File::open(path)?);
    let mut steps = Vec::new();
    let (mut kind, mut key, mut value) = ([0], [0; KEY_LEN], [0; VALUE_LEN]);
    loop {
        match file.read_exact(&mut kind) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(steps),
            read => read?,
        }
        file.read_exact(&mut key)?;
        file.read_exact(&mut value)?;
        match kind {
            [b'+'] => steps.push(Step::Put(key, value)),
            [b'-'] => steps.push(Step::Delete(key)),
            [other] => return Err(format!("{}: no step is a {other}", path.display()).into()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]
mod tests {
    use super::*;

    fn index() -> Records {
        let record = |n: u32| Some((key(&format!("package-{n}"), "all")?, value(&["1.0", "7"])));
        (0..200).map(|n| record(n).unwrap()).collect()
    }

    #[test]
    fn a_value_is_cut_between_two_characters() {
        let text = "ä".repeat(VALUE_LEN);
        let value = value(&["x", &text]);
        let text = std::str::from_utf8(&value[..]).unwrap();
        assert!(text.trim_end_matches('\0').len() >= VALUE_LEN - 1);
        assert_eq!(key(&"x".repeat(KEY_LEN - 4), "all").map(|key| key[KEY_LEN - 1]), Some(b'l'));
        assert_eq!(key(&"x".repeat(KEY_LEN - 3), "all"), None);
    }

    #[test]
    fn an_update_changes_removes_and_adds_and_made_twice_it_is_made_once() {
        let before = index();
        let steps = update(&before);
        let mut after = before.clone();
        steps.iter().for_each(|step| step.make(&mut after));
        let removed = before.keys().filter(|key| !after.contains_key(*key)).count();
        let added = after.keys().filter(|key| !before.contains_key(*key)).count();
        let changed =
            before.iter().filter(|(key, value)| after.get(*key).is_some_and(|new| new != *value));
        assert_eq!((removed, changed.count(), added), (15, 29, 7));
        assert!(steps.iter().all(|step| step.is_made(&after)));
        assert!(steps.iter().all(|step| !step.is_made(&before)));
        let once = after.clone();
        steps.iter().for_each(|step| step.make(&mut after));
        assert_eq!(after, once);
    }

    #[test]
    fn steps_come_back_from_their_file_and_a_torn_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("steps");
        let steps = update(&index());
        save(&path, steps.iter()).unwrap();
        assert_eq!(load(&path).unwrap(), steps);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert!(load(&path).is_err());
    }
}
