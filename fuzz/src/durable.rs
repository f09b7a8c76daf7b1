//! Files of persistent states as an input describes them, and what has to come of them.
//!
//! The offsets are those of `docs/format/state.md`, and the rules those of its section on the durable
//! file, written down again here: what is fuzzed must not be its own judge.

use arbitrary::Arbitrary;
use mainstay_base::crc32c;
use std::{
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

const MAGIC: &[u8; 8] = b"MAINDURA";
const HEAD: usize = 64;
const GROUP_LEN: usize = 12;
const NUMBER: usize = 16;
const PREVIOUS: usize = 24;
const STATE_VERSION: usize = 32;
const DATA_LEN: usize = 40;
const FINGERPRINT: usize = 48;
const BODY_CHECKSUM: usize = 56;
const CHECKSUM: usize = 60;

/// A file that somebody may have written, and what has happened to it since.
#[derive(Arbitrary, Clone, Debug)]
pub struct Written {
    number: u8,
    previous: u8,
    version: u8,
    group: Vec<Named>,
    data: Vec<u8>,
    damage: Vec<Damage>,
    fix_checksums: bool,
}

/// Which file a group names.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Named {
    First,
    Second,
    Gone,
    Odd,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Damage {
    Byte(u16, u8),
    Number(u8, u64),
    Cut(u16),
    Longer(u8),
}

/// How many names a group has at most, how many bytes the data, how often it is damaged.
const MAX: usize = 40;

/// The files of two states: the newest of each, and the next one.
#[derive(Arbitrary, Clone, Debug)]
pub struct Files {
    newest: [Option<Written>; 2],
    next: [Option<Written>; 2],
}

/// Where the two states are kept.
#[must_use]
pub fn paths(folder: &Path) -> [PathBuf; 2] {
    ["first", "second"].map(|name| folder.join(name))
}

fn next_of(path: &Path) -> PathBuf {
    let mut next = path.as_os_str().to_owned();
    next.push(".next");
    next.into()
}

impl Files {
    /// Puts them where the states are kept, and takes away what else is there.
    pub fn put(&self, folder: &Path) {
        for (at, path) in paths(folder).iter().enumerate() {
            for (file, path) in [(&self.newest[at], path), (&self.next[at], &next_of(path))] {
                match file {
                    Some(file) => fs::write(path, file.bytes(folder)).expect("there is room"),
                    None => drop(fs::remove_file(path)),
                }
            }
        }
    }
}

impl Written {
    fn bytes(&self, folder: &Path) -> Vec<u8> {
        let [first, second] = paths(folder);
        let named = |named: &Named| match named {
            Named::First => first.clone(),
            Named::Second => second.clone(),
            Named::Gone => folder.join("gone"),
            Named::Odd => "/dev/zero".into(),
        };
        let group: Vec<PathBuf> = self.group.iter().take(MAX).map(named).collect();
        let group: Vec<&[u8]> = group.iter().map(|path| path.as_os_str().as_bytes()).collect();
        let group = group.join(&b'\n');
        let data = &self.data[..self.data.len().min(MAX)];
        let mut bytes = vec![0; HEAD];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..GROUP_LEN].copy_from_slice(&1_u32.to_le_bytes());
        bytes[GROUP_LEN..NUMBER].copy_from_slice(&(group.len() as u32).to_le_bytes());
        put(&mut bytes, NUMBER, self.number.into());
        put(&mut bytes, PREVIOUS, self.previous.into());
        put(&mut bytes, STATE_VERSION, self.version.into());
        put(&mut bytes, DATA_LEN, data.len() as u64);
        bytes.extend_from_slice(&group);
        bytes.extend_from_slice(data);
        fix(&mut bytes);
        for damage in self.damage.iter().take(MAX) {
            damage.apply(&mut bytes);
        }
        if self.fix_checksums {
            fix(&mut bytes);
        }
        bytes
    }
}

impl Damage {
    fn apply(self, bytes: &mut Vec<u8>) {
        let len = bytes.len();
        match self {
            Self::Byte(at, bits) if len > 0 => bytes[usize::from(at) % len] ^= bits,
            Self::Number(field, value) if len >= HEAD => {
                put(bytes, 8 + 8 * (usize::from(field) % 6), value);
            }
            Self::Cut(at) => bytes.truncate(usize::from(at) % (len + 1)),
            Self::Longer(by) => bytes.resize(len + usize::from(by), 0xA5),
            Self::Byte(..) | Self::Number(..) => {}
        }
    }
}

fn put(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

fn fix(bytes: &mut [u8]) {
    if bytes.len() >= HEAD {
        let body = crc32c(&bytes[HEAD..]).to_le_bytes();
        bytes[BODY_CHECKSUM..CHECKSUM].copy_from_slice(&body);
        let head = crc32c(&bytes[..CHECKSUM]).to_le_bytes();
        bytes[CHECKSUM..HEAD].copy_from_slice(&head);
    }
}

/// A file that follows the rules.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Whole {
    number: u64,
    previous: u64,
    fingerprint: u64,
    group: Vec<PathBuf>,
    /// The version of the state.
    pub version: u64,
    /// What it holds.
    pub data: Vec<u8>,
}

/// What is at a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// No file.
    Nothing,
    /// One that breaks a rule.
    Damaged,
    /// One that follows them.
    Whole(Whole),
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn checksum(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Reads a file by the rules of the format.
#[must_use]
pub fn look(path: &Path) -> Found {
    if !path.exists() {
        return Found::Nothing;
    }
    if !path.is_file() {
        return Found::Damaged;
    }
    let bytes = fs::read(path).expect("it is there");
    let is_head = bytes.len() >= HEAD
        && &bytes[..8] == MAGIC
        && checksum(&bytes, 8) == 1
        && checksum(&bytes, CHECKSUM) == crc32c(&bytes[..CHECKSUM])
        && checksum(&bytes, BODY_CHECKSUM) == crc32c(&bytes[HEAD..]);
    if !is_head {
        return Found::Damaged;
    }
    let (body, group_len) = (&bytes[HEAD..], u64::from(checksum(&bytes, GROUP_LEN)));
    if group_len.checked_add(number(&bytes, DATA_LEN)) != Some(body.len() as u64) {
        return Found::Damaged;
    }
    let (group, data) = body.split_at(group_len as usize);
    let lines = group.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let whole = Whole {
        number: number(&bytes, NUMBER),
        previous: number(&bytes, PREVIOUS),
        fingerprint: number(&bytes, FINGERPRINT),
        group: lines.map(|line| Path::new(std::ffi::OsStr::from_bytes(line)).into()).collect(),
        version: number(&bytes, STATE_VERSION),
        data: data.to_vec(),
    };
    let follows = whole.number < 1 << 63
        && whole.previous < 1 << 63
        && whole.version < (1 << 54) - 1
        && !whole.data.is_empty()
        && (whole.version > 0 || whole.data.iter().all(|byte| *byte == 0))
        && whole.group.iter().all(|path| path.is_absolute());
    if follows { Found::Whole(whole) } else { Found::Damaged }
}

/// What a state that is kept at this path begins with: by the rule on next files.
#[must_use]
pub fn expected(path: &Path) -> Found {
    let was_written = |other: &PathBuf, sync: u64| {
        let next = look(&next_of(other));
        if matches!(&next, Found::Whole(next) if next.number == sync) {
            return true;
        }
        match look(other) {
            Found::Nothing => next == Found::Nothing,
            Found::Damaged => false,
            Found::Whole(there) => there.number == sync || there.previous >= sync,
        }
    };
    let chosen = match look(&next_of(path)) {
        Found::Whole(next) if next.group.iter().all(|other| was_written(other, next.number)) => {
            Found::Whole(next)
        }
        _ => look(path),
    };
    match chosen {
        // Of a type that nobody asked for.
        Found::Whole(whole) if whole.fingerprint != 0 => Found::Damaged,
        found => found,
    }
}
