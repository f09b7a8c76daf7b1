//! The header and the sectors of an encrypted file that nobody can trust. Whatever was done to it by
//! somebody without the key, it is opened or refused, and nothing is read but what was written there,
//! zeros where a sector is blank, or bytes that are none of any format.

#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use mainstay_base::crc32c;
use mainstay_fuzz::{
    folder::{Contents, Files},
    world,
};
use mainstay_storage::{Encrypted, Folder, Key, Keys, Storage, rekey};

/// The numbers of `docs/format/encryption.md`, written down again here.
const SECTOR: usize = 512;
const CONTENT: usize = 484;
const HEADERS: usize = 1024;
const CHECKSUM_AT: usize = 124;
const UNREADABLE: u8 = 0xfd;

const NAME: &str = "notes";
/// Bytes that the file has: some sectors, the last one in part.
const LEN: usize = 6 * CONTENT + 100;
const LEN_MAX: u64 = 1 << 16;

thread_local! {
    static BASE: Contents = base();
}

/// Keys are dear to make; these are as random as any others.
fn keys() -> Keys {
    Keys::new(Key::new(&[7; 32]))
}

fn content() -> Vec<u8> {
    (0..LEN).map(|at| (at / CONTENT) as u8 + 1).collect()
}

fn base() -> Contents {
    let files = Files::default();
    let file = Encrypted::new(files.clone(), keys()).file(NAME).expect("memory takes it");
    file.write_at(0, &content()).expect("memory takes it");
    file.sync().expect("memory takes it");
    files.contents()
}

#[derive(Arbitrary, Debug)]
struct Input {
    damage: Vec<Damage>,
    /// Whoever did it made the checksums of the headers right.
    fix_checksums: bool,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Damage {
    Bits {
        at: u16,
        bits: u8,
    },
    /// Bytes of a copy of the header.
    Header {
        is_second: bool,
        at: u8,
        bytes: [u8; 4],
    },
    Cut {
        len: u16,
    },
    Longer {
        by: u16,
    },
    Copied {
        from: u8,
        to: u8,
    },
    Blank {
        sector: u8,
    },
}

#[derive(Arbitrary, Debug)]
enum Step {
    Write { at: u16, len: u16, byte: u8, is_synced: bool },
    Resize { len: u16 },
    Read { at: u16, len: u16 },
    OpenAgain,
}

impl Damage {
    fn apply(&self, file: &mut Vec<u8>) {
        let sector = |number: u8, len: usize| {
            let from = usize::from(number) % 10 * SECTOR;
            (from + SECTOR <= len).then_some(from..from + SECTOR)
        };
        match *self {
            Self::Bits { at, bits } => {
                let len = file.len();
                if let Some(byte) = file.get_mut(usize::from(at) % len.max(1)) {
                    *byte ^= bits;
                }
            }
            Self::Header { is_second, at, bytes } => {
                let at = usize::from(is_second) * SECTOR + usize::from(at) % CHECKSUM_AT;
                if let Some(part) = file.get_mut(at..at + 4) {
                    part.copy_from_slice(&bytes);
                }
            }
            Self::Cut { len } => file.truncate(usize::from(len)),
            Self::Longer { by } => file.resize(file.len() + usize::from(by) % 2_000, 0xa5),
            Self::Copied { from, to } => {
                if let (Some(from), Some(to)) = (sector(from, file.len()), sector(to, file.len())) {
                    file.copy_within(from, to.start);
                }
            }
            Self::Blank { sector: number } => {
                if let Some(place) = sector(number, file.len()) {
                    file[place].fill(0);
                }
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    world::plant();
    #[cfg(feature = "planted")]
    if std::env::var("MAINSTAY_PLANT").is_ok_and(|fault| fault == "sector-tag-unchecked") {
        use mainstay_storage::planted::{Fault, plant};
        plant(Some(Fault::TagIgnored));
    }
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(data)) else { return };
    try_all(&BASE.with(Clone::clone), &input);
});

fn try_all(base: &Contents, input: &Input) {
    let mut damaged = base.clone();
    let file = damaged.get_mut(NAME).expect("it was made");
    input.damage.iter().for_each(|damage| damage.apply(file));
    if input.fix_checksums {
        for copy in [0, SECTOR] {
            if let Some(header) = file.get_mut(copy..copy + CHECKSUM_AT + 4) {
                let sum = crc32c(&header[..CHECKSUM_AT]).to_le_bytes();
                header[CHECKSUM_AT..].copy_from_slice(&sum);
            }
        }
    }
    let stored = file.len();
    let files = Files::of(&damaged);
    let folder = Encrypted::new(files.clone(), keys());
    let opened = folder.file(NAME);
    assert_eq!(files.contents(), damaged, "opening changes nothing");
    let Ok(opened) = opened else {
        // Of a file that is refused nothing is changed by a rotation, either.
        let ring = Keys::new(Key::new(&[8; 32])).with_older(Key::new(&[7; 32]));
        let _refused = rekey(&files, &ring, |_, _| {});
        return;
    };
    let mut model = read_all(&opened);
    assert!(model.len() <= stored.saturating_sub(HEADERS), "more than there is");
    check(&model);
    live(&folder, opened, &mut model, &input.steps);
    // Under a new key it is the same.
    drop(folder);
    let new = Key::new(&[8; 32]);
    let ring = Keys::new(new.clone()).with_older(Key::new(&[7; 32]));
    rekey(&files, &ring, |_, _| {}).expect("it was opened with the old key");
    let file = Encrypted::new(files, Keys::new(new)).file(NAME).expect("it has the new key");
    assert_eq!(read_all(&file), model, "a rotation changes no content");
}

fn read_all(file: &impl Storage) -> Vec<u8> {
    let len = file.len().expect("memory has it") as usize;
    let mut bytes = vec![0; len];
    file.read_at(0, &mut bytes).expect("it is within the file");
    bytes
}

/// Each sector is what was written there, blank, or nothing; at the end of the file, parts of that.
fn check(found: &[u8]) {
    let written = content();
    for (number, part) in found.chunks(CONTENT).enumerate() {
        // What is behind the end of the content in its last sector are zeros.
        let as_it_was: Vec<u8> = (0..part.len())
            .map(|at| written.get(number * CONTENT + at).copied().unwrap_or_default())
            .collect();
        let is_it = number * CONTENT < LEN && part == as_it_was;
        let is_nothing = [0, UNREADABLE].iter().any(|byte| part.iter().all(|it| it == byte));
        assert!(is_it || is_nothing, "sector {number} reads as what was never written there");
    }
}

/// It is used as any other file, beside a model.
fn live<F: Folder>(folder: &F, file: F::File, model: &mut Vec<u8>, steps: &[Step]) {
    let mut file = file;
    for step in steps.iter().take(24) {
        match *step {
            Step::Write { at, len, byte, is_synced } => {
                let (at, len) = (usize::from(at) % 6_000, usize::from(len) % 2_000);
                let bytes = vec![byte; len];
                if is_synced {
                    file.write_synced_at(at as u64, &bytes).expect("memory takes it");
                } else {
                    file.write_at(at as u64, &bytes).expect("memory takes it");
                }
                if len > 0 {
                    model.resize(model.len().max(at + len), 0);
                    model[at..at + len].copy_from_slice(&bytes);
                }
            }
            Step::Resize { len } => {
                let len = u64::from(len) % LEN_MAX;
                file.set_len(len).expect("memory takes it");
                model.resize(len as usize, 0);
            }
            Step::Read { at, len } => {
                let (at, mut bytes) = (usize::from(at), vec![1; usize::from(len)]);
                let expected = model.get(at..at + bytes.len());
                let read = file.read_at(at as u64, &mut bytes);
                match expected {
                    Some(expected) => {
                        assert!(read.is_ok() && bytes == expected, "what was written")
                    }
                    None => assert!(read.is_err() || bytes.is_empty(), "it ends before"),
                }
            }
            Step::OpenAgain => {
                drop(file);
                file = folder.file(NAME).expect("it was opened before");
            }
        }
        assert_eq!(file.len().expect("memory has it"), model.len() as u64);
    }
    assert_eq!(&read_all(&file), model, "what was written is read");
}
