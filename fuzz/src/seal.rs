//! Makes the checksums of files of a store with values of any size right, as somebody would who
//! changes them on purpose.
//!
//! The offsets are those of `docs/format/log-store.md`, written down again here: what is fuzzed must
//! not be its own judge.

use arbitrary::Arbitrary;
use mainstay_base::{Crc32c, crc32c};
use std::collections::BTreeMap;

use crate::{
    damage::{COPY_AT, DATA_AT, HEADER},
    folder::Contents,
};

const FRAME: usize = 48;
const RECORD: usize = 12;
const ENTRY: usize = 40;
const PART: u8 = 5;

/// How far whoever changed the files went.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seal {
    /// Not at all.
    None,
    /// Every checksum is that of its own bytes.
    Sums,
    /// And what names another checksum or a length names the right one.
    All,
}

/// The checksums of the frames that end at these offsets, and the sequence of the last one.
struct Log {
    last: u64,
    chains: BTreeMap<u64, u32>,
}

type Logs = BTreeMap<(u32, u64), Log>;

fn four(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn eight(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn set(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn seed(id: &[u8], shard: u32) -> u32 {
    let mut sum = Crc32c::new();
    sum.update(id);
    sum.update(&shard.to_le_bytes());
    sum.finish()
}

/// Makes the checksums of all files right.
pub fn seal(files: &mut Contents, how: Seal) {
    if how == Seal::None {
        return;
    }
    let mut logs = Logs::new();
    // Sorted as they are named: each log behind the one that it continues.
    for file in files.values_mut().filter(|file| file.starts_with(b"MAINSVAL")) {
        log(file, how, &mut logs);
    }
    for file in files.values_mut().filter(|file| file.len() >= DATA_AT) {
        match &file[..8] {
            b"MAINSLST" => list(file, how, &logs),
            b"MAINSHNT" => hint(file, how, &logs),
            b"MAINSCPY" => copy(file, how, &logs),
            b"MAINSANY" => headers(file, |_| {}),
            _ => {}
        }
    }
    // A file with nothing but the header of the store may be shorter.
    for file in files.values_mut().filter(|file| file.starts_with(b"MAINSANY")) {
        headers(file, |_| {});
    }
}

/// Makes the files those of a store with this identity, which only changes what is sealed.
pub fn rename(files: &mut Contents, id: [u8; 16]) {
    for file in files.values_mut() {
        for at in [16, COPY_AT + 16, DATA_AT + 16] {
            let is_store = at < DATA_AT || file.starts_with(b"MAINSCPY");
            if let Some(place) = file.get_mut(at..at + 16).filter(|_| is_store) {
                place.copy_from_slice(&id);
            }
        }
    }
    seal(files, Seal::All);
}

/// Changes both copies of a header, and makes their checksums right.
fn headers(file: &mut [u8], change: impl Fn(&mut [u8])) {
    for at in [0, COPY_AT] {
        // One that was never written is zeros.
        let header = file.get_mut(at..at + HEADER);
        if let Some(header) = header.filter(|header| header.iter().any(|byte| *byte != 0)) {
            change(header);
            let sum = crc32c(&header[..HEADER - 4]);
            set(header, HEADER - 4, sum);
        }
    }
}

fn log(file: &mut [u8], how: Seal, logs: &mut Logs) {
    if file.len() < DATA_AT {
        return;
    }
    let (shard, number, first) = (four(file, 32), eight(file, 40), eight(file, 56));
    let seed = seed(&file[16..32], shard);
    let before = number.checked_sub(1).and_then(|number| logs.get(&(shard, number)));
    let before = before.filter(|before| before.last.checked_add(1) == Some(first));
    let chain = match before.and_then(|before| before.chains.values().next_back()) {
        Some(chain) => *chain,
        None if first == 1 => seed,
        None => four(file, 36),
    };
    headers(file, |header| {
        if how == Seal::All {
            set(header, 36, chain);
        }
    });
    let mut log = Log { last: first.wrapping_sub(1), chains: BTreeMap::new() };
    let (mut at, mut chain) = (DATA_AT, chain);
    log.chains.insert(at as u64, chain);
    while at + FRAME <= file.len() {
        let len = four(file, at + 8) as usize;
        if !file[at..].starts_with(b"MSAF") || len < FRAME || len > file.len() - at {
            break;
        }
        let frame = &mut file[at..at + len];
        records(&mut frame[FRAME..]);
        if how == Seal::All {
            set(frame, 16, chain);
        }
        let mut sum = Crc32c::new();
        sum.update(&seed.to_le_bytes());
        sum.update(&frame[8..]);
        chain = sum.finish();
        set(frame, 4, chain);
        log.last = eight(frame, 32);
        at += len;
        log.chains.insert(at as u64, chain);
    }
    logs.insert((shard, number), log);
}

fn records(mut bytes: &mut [u8]) {
    while bytes.len() >= RECORD {
        let len = u64::from(bytes[8]) + (u64::from(bytes[9]) << 8) + u64::from(four(bytes, 4));
        let len = len as usize + RECORD;
        if len > bytes.len() || bytes[10] == 0 {
            return;
        }
        let (record, rest) = bytes.split_at_mut(len);
        if record[10] == PART && len > 2 * RECORD {
            records(&mut record[2 * RECORD..]);
        }
        let sum = crc32c(&record[4..]);
        set(record, 0, sum);
        bytes = rest;
    }
}

fn list(file: &mut [u8], how: Seal, logs: &Logs) {
    let (shard, through, sequence) = (four(file, 32), eight(file, 48), eight(file, 56));
    let seed = seed(&file[16..32], shard);
    let body = &mut file[DATA_AT..];
    if how == Seal::All {
        for entry in body.chunks_exact_mut(ENTRY) {
            let log = logs.get(&(shard, eight(entry, 0)));
            if let Some(chain) = log.and_then(|log| log.chains.get(&eight(entry, 24))) {
                set(entry, 32, *chain);
            }
        }
    }
    let (sum, count) = (crc32c(body), (body.len() / ENTRY) as u32);
    let next = logs.iter().find(|((of, number), _)| *of == shard && *number > through);
    let chain = match next.and_then(|(_, log)| log.chains.first_key_value()) {
        _ if sequence == 0 => Some(seed),
        Some((_, chain)) => Some(*chain),
        None => None,
    };
    headers(file, |header| {
        if let (Seal::All, Some(chain)) = (how, chain) {
            set(header, 64, chain);
            set(header, 36, count);
        }
        set(header, 68, sum);
    });
}

fn hint(file: &mut [u8], how: Seal, logs: &Logs) {
    let log = logs.get(&(four(file, 32), eight(file, 40)));
    let chain = log.and_then(|log| log.chains.get(&eight(file, 64))).copied();
    let body = &file[DATA_AT..];
    let (sum, len) = (crc32c(body), body.len() as u64);
    headers(file, |header| {
        if how == Seal::All {
            header[80..88].copy_from_slice(&len.to_le_bytes());
            if let Some(chain) = chain {
                set(header, 72, chain);
            }
        }
        set(header, 76, sum);
    });
}

fn copy(file: &mut [u8], how: Seal, logs: &Logs) {
    let body = &mut file[DATA_AT..];
    if body.len() < HEADER {
        return;
    }
    let (store, entries) = body.split_at_mut(HEADER);
    let sum = crc32c(&store[..HEADER - 4]);
    set(store, HEADER - 4, sum);
    if how == Seal::All {
        for entry in entries.chunks_exact_mut(ENTRY) {
            let log = logs.get(&(four(entry, 0), eight(entry, 8)));
            if let Some(chain) = log.and_then(|log| log.chains.get(&eight(entry, 32))) {
                set(entry, 4, *chain);
            }
        }
    }
    let (sum, count) = (crc32c(body), ((body.len() - HEADER) / ENTRY) as u32);
    headers(file, |header| {
        if how == Seal::All {
            set(header, 32, count);
        }
        set(header, 36, sum);
    });
}

/// Takes the last write of a log away, as a crash may that came before it was in the file.
pub fn without_last(file: &mut Vec<u8>) {
    let mut ends = vec![DATA_AT];
    while let Some(&at) = ends.last().filter(|at| file.len() >= **at + FRAME) {
        match four(file, at + 8) as usize {
            len if len >= FRAME && len <= file.len() - at => ends.push(at + len),
            _ => break,
        }
    }
    if let [.., at, _] = ends[..] {
        file.truncate(at);
    }
}
