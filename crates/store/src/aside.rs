//! Records that a replica is about to lose, in a file beside it; and reading them again.

use std::path::Path;

use mainstay_storage::{Folder, Storage};

use crate::{
    any::any_header,
    error::{Error, Result},
    expiring::split_end,
    history::Position,
    keyed::Ring,
    read_only::ReadOnly,
    recover::store_header,
};

/// A record as it is kept, and when it ends; 0: never.
pub(crate) type Kept<'a> = (&'a [u8], &'a [u8], u64);

/// Bytes that are read at a time.
const READ_BYTES: usize = 64 << 10;
/// No line is longer: a key and a value of any size in digits, and a little.
const LINE_BYTES_MAX: usize =
    2 * (crate::limits::ANY_KEY_BYTES_MAX + crate::limits::ANY_VALUE_BYTES_MAX) + 128;

/// Appends records durably to the file `aside-SHARD-EPOCH-SEQUENCE`: a line of JSON each, as `mainstay
/// store import` takes it, with `key_hex` and `value_hex`, and `ends` in milliseconds since 1970 if it
/// ends.
pub(crate) fn set_aside<'a>(
    folder: &impl Folder,
    shard: u32,
    from: Position,
    records: impl IntoIterator<Item = Kept<'a>>,
) -> Result<()> {
    let hex = |out: &mut String, bytes: &[u8]| {
        for byte in bytes {
            for digit in [byte >> 4, byte & 15] {
                out.extend(char::from_digit(digit.into(), 16));
            }
        }
    };
    let mut lines = String::new();
    for (key, value, end) in records {
        lines.push_str(r#"{"key_hex":""#);
        hex(&mut lines, key);
        lines.push_str(r#"","value_hex":""#);
        hex(&mut lines, value);
        lines.push('"');
        if end != 0 {
            lines.push_str(&format!(r#","ends":{end}"#));
        }
        lines.push_str("}\n");
    }
    let name = format!("aside-{shard:04}-{:x}-{}", from.epoch, from.sequence);
    let mut keep = || {
        let file = folder.file(&name)?;
        let (end, mut last) = (file.len()?, *b"\n");
        if end > 0 {
            file.read_at(end - 1, &mut last)?;
        }
        // What an earlier call could not write to its end must not swallow a record of this one.
        if last != *b"\n" {
            lines.insert(0, '\n');
        }
        file.write_at(end, lines.as_bytes())?;
        file.sync()?;
        folder.sync_names()
    };
    keep().map_err(Error::io(&*name))
}

/// What a store had to give up for its leader, and has kept beside it.
///
/// Nothing is locked: the store may be open.
///
/// ```
/// use mainstay_store::{Aside, Directory, Options, Position, RawStore};
/// let dir = tempfile::tempdir()?;
/// let store = RawStore::create(Directory::lock(dir.path())?, 2, 3, &Options::default())?;
/// store.set_aside(0, Position::START, [(&b"de"[..], &b"049"[..])])?;
/// let aside = Aside::of(dir.path())?;
/// let mut found = Vec::new();
/// for file in aside.files() {
///     aside.for_each(file, |key, value, end| found.push((key.to_vec(), value.to_vec(), end)))?;
/// }
/// assert_eq!(found, [(b"de".to_vec(), b"049".to_vec(), None)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Aside {
    folder: ReadOnly,
    files: Vec<AsideFile>,
    /// Values of earlier versions begin with a time.
    has_ends: bool,
}

/// A file with records that were set aside.
///
/// Example: see [`Aside`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AsideFile {
    /// Its name in the directory of the store.
    pub name: String,
    /// The shard whose records these were.
    pub shard: u32,
    /// The epoch of the history that was given up.
    pub epoch: u64,
    /// The write up to which that history went here.
    pub sequence: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

impl Aside {
    /// Looks for what was set aside in the directory of a store of either kind.
    ///
    /// Example: see [`Aside`].
    ///
    /// # Errors
    /// [`Error::NotAStore`]; those of keys; what the disk says.
    pub fn of(path: &Path) -> Result<Self> {
        Self::of_as(path, Ring::NONE)
    }

    /// The same of a store that is encrypted: so is what it has set aside.
    ///
    /// ```
    /// use mainstay_store::{Aside, Directory, Key, Keys, Options, Position, RawStore};
    /// let dir = tempfile::tempdir()?;
    /// let keys = Keys::new(Key::new(&[7; 32]));
    /// let folder = Directory::lock_with(dir.path(), &keys)?;
    /// let store = RawStore::create(folder, 2, 3, &Options::default())?;
    /// store.set_aside(0, Position::START, [(&b"de"[..], &b"049"[..])])?;
    /// let aside = Aside::of_with(dir.path(), &keys)?;
    /// aside.for_each(&aside.files()[0], |key, _, _| assert_eq!(key, b"de"))?;
    /// assert!(Aside::of(dir.path()).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`of`](Self::of).
    #[cfg(feature = "encryption")]
    pub fn of_with(path: &Path, keys: &crate::Keys) -> Result<Self> {
        Self::of_as(path, Ring::of(keys))
    }

    fn of_as(path: &Path, ring: Ring<'_>) -> Result<Self> {
        if !path.is_dir() {
            return Err(Error::NotAStore);
        }
        let folder = ReadOnly::beside(path, ring)?;
        let has_ends = match store_header(&folder) {
            Err(Error::OtherKind { .. }) => any_header(&folder).map(|_| false)?,
            header => header?.has_ends(),
        };
        let mut files = Vec::new();
        for name in folder.names().map_err(Error::io("the directory"))? {
            let Some((shard, epoch, sequence)) = place_of(&name) else { continue };
            let bytes = folder.file(&name).and_then(|file| Storage::len(&file));
            let bytes = bytes.map_err(Error::io(&*name))?;
            files.push(AsideFile { name, shard, epoch, sequence, bytes });
        }
        files.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(Self { folder, files, has_ends })
    }

    /// The files, by name.
    ///
    /// Example: see [`Aside`].
    #[must_use]
    pub fn files(&self) -> &[AsideFile] {
        &self.files
    }

    /// Shows the records of a file to a closure: key, value, and when it would end, in milliseconds since
    /// 1970. A line that a crash cut short is left out: its record was kept again behind it. How many
    /// these were.
    ///
    /// Example: see [`Aside`].
    ///
    /// # Errors
    /// [`Error::Damaged`] for a line that nobody writes; what the disk says.
    pub fn for_each(
        &self,
        file: &AsideFile,
        mut show: impl FnMut(&[u8], &[u8], Option<u64>),
    ) -> Result<u64> {
        let failed = Error::io(&*file.name);
        let source = match self.folder.file(&file.name) {
            Ok(source) => source,
            Err(error) => return Err(failed(error)),
        };
        let (mut line, mut at, mut begins, mut cut) = (Vec::new(), 0, 0, 0);
        let mut bytes = vec![0; READ_BYTES];
        let mut take = |line: &[u8], begins: u64| -> Result<()> {
            if line.is_empty() {
                return Ok(());
            }
            let damaged = || Error::damaged(&file.name, begins, "a line is no record");
            if line.last() != Some(&b'}') {
                cut += 1;
                return Ok(());
            }
            let Line { key, value, end, is_old } = Line::parse(line).ok_or_else(damaged)?;
            if is_old && self.has_ends {
                let (end, value) = split_end(&value);
                show(&key, value, end);
            } else {
                show(&key, &value, end);
            }
            Ok(())
        };
        while at < file.bytes {
            let part = bytes.len().min((file.bytes - at) as usize);
            let part = &mut bytes[..part];
            if let Err(error) = source.read_at(at, part) {
                return Err(Error::io(&*file.name)(error));
            }
            for piece in part.split_inclusive(|byte| *byte == b'\n') {
                at += piece.len() as u64;
                match piece.strip_suffix(b"\n") {
                    Some(rest) => {
                        line.extend_from_slice(rest);
                        take(&line, begins)?;
                        line.clear();
                        begins = at;
                    }
                    None => line.extend_from_slice(piece),
                }
                if line.len() > LINE_BYTES_MAX {
                    return Err(Error::damaged(&file.name, begins, "a line is too long"));
                }
            }
        }
        take(&line, begins)?;
        Ok(cut)
    }
}

/// What a name says: shard, epoch, sequence.
fn place_of(name: &str) -> Option<(u32, u64, u64)> {
    let mut parts = name.strip_prefix("aside-")?.split('-');
    let (shard, epoch, sequence) = (parts.next()?, parts.next()?, parts.next()?);
    let place = (shard.parse().ok()?, u64::from_str_radix(epoch, 16).ok()?, sequence.parse().ok()?);
    let again = format!("aside-{:04}-{:x}-{}", place.0, place.1, place.2);
    (again == name).then_some(place)
}

struct Line {
    key: Vec<u8>,
    value: Vec<u8>,
    end: Option<u64>,
    /// As earlier versions wrote it, with other names of fields.
    is_old: bool,
}

impl Line {
    fn parse(line: &[u8]) -> Option<Self> {
        let text = str::from_utf8(line).ok()?;
        let new = (r#"{"key_hex":""#, r#","value_hex":""#, r#","ends":"#);
        let old = (r#"{"key":""#, r#","value":""#, r#","end":"#);
        let parse = |(key, value, ends): (&str, &str, &str)| {
            let (key, rest) = text.strip_prefix(key)?.split_once('"')?;
            let (value, rest) = rest.strip_prefix(value)?.split_once('"')?;
            let end = match rest.strip_suffix('}')? {
                "" => None,
                rest => Some(rest.strip_prefix(ends)?.parse().ok()?),
            };
            Some((unhex(key)?, unhex(value)?, end))
        };
        let found = parse(new).map(|record| (record, false));
        let ((key, value, end), is_old) = found.or_else(|| Some((parse(old)?, true)))?;
        Some(Self { key, value, end, is_old })
    }
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| Some(char::from(*byte).to_digit(16)? as u8);
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(pair.first()?)? << 4 | digit(pair.get(1)?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Directory, LogOptions, Options, RawExpiring, RawLogStore, RawStore};

    type Found = Vec<(Vec<u8>, Vec<u8>, Option<u64>)>;

    fn all(path: &Path) -> Result<(Found, u64)> {
        let aside = Aside::of(path)?;
        let (mut found, mut cut) = (Vec::new(), 0);
        for file in aside.files() {
            let show = |key: &[u8], value: &[u8], end| found.push((key.into(), value.into(), end));
            cut += aside.for_each(file, show)?;
        }
        Ok((found, cut))
    }

    #[test]
    fn lines_of_earlier_versions_and_ones_cut_short_are_read_as_what_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Directory::lock(dir.path()).unwrap();
        let store = RawStore::create(folder, 1, 1, &Options::default()).unwrap();
        let old = b"{\"key\":\"01\",\"value\":\"02\"}\n{\"key\":\"03\",\"value\":\"04\",\"end\":7}\n{\"key\":\"05";
        std::fs::write(dir.path().join("aside-0000-0-0"), old).unwrap();
        store.set_aside(0, Position::START, [(&[5][..], &[6][..])]).unwrap();
        std::fs::write(dir.path().join("aside-1-0-0"), "not one of them").unwrap();
        let one = |key, value, end| (vec![key], vec![value], end);
        let found = vec![one(1, 2, None), one(3, 4, Some(7)), one(5, 6, None)];
        assert_eq!(all(dir.path()).unwrap(), (found, 1));
        for line in ["{\"key_hex\":\"0g\",\"value_hex\":\"\"}", "{\"key_hex\":\"01\"}", "{}"] {
            std::fs::write(dir.path().join("aside-0000-0-0"), line).unwrap();
            assert!(matches!(all(dir.path()), Err(Error::Damaged { .. })), "{line}");
        }
    }

    #[test]
    fn a_record_that_ends_is_kept_with_its_end_and_without_its_stamp() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Directory::lock(dir.path()).unwrap();
        let store = RawExpiring::create(folder, 1, 2, &Options::default(), || 0).unwrap();
        let stamped = |end: u64| [&end.to_le_bytes()[..], b"ab"].concat();
        let (one, other) = (stamped(0), stamped(9));
        let records = [(&[1][..], &one[..]), (&[2][..], &other[..])];
        store.raw().set_aside(0, Position::START, records).unwrap();
        let old = "{\"key\":\"03\",\"value\":\"05000000000000006162\"}\n";
        std::fs::write(dir.path().join("aside-0001-0-0"), old).unwrap();
        let one = |key, end| (vec![key], b"ab".to_vec(), end);
        let found = vec![one(1, None), one(2, Some(9)), one(3, Some(5))];
        assert_eq!(all(dir.path()).unwrap(), (found, 0));
    }

    #[test]
    fn values_that_are_longer_than_what_is_read_at_a_time_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Directory::lock(dir.path()).unwrap();
        let store = RawLogStore::create(folder, &LogOptions::default()).unwrap();
        let value = |number: u8| vec![number; 20_000 * usize::from(number)];
        let mut records = Vec::new();
        for number in 0..5_u8 {
            store.put(&[number, 1], &value(number), crate::Durability::Memory).unwrap();
            records.push(store.record(&[number, 1]).unwrap().unwrap());
        }
        store.set_aside(3, Position::START, records.iter().map(|record| &record[..])).unwrap();
        let found = (0..5).map(|number| (vec![number, 1], value(number), None)).collect();
        assert_eq!(all(dir.path()).unwrap(), (found, 0));
        assert!(matches!(Aside::of(&dir.path().join("none")), Err(Error::NotAStore)));
    }
}
