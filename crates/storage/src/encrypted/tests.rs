//! Encrypted files beside a model, over memory that refuses and forgets; what is changed beneath
//! them; keys; and the faults that must be found this way. Power cuts are in the tests of the store.

mod ram;

use std::{collections::HashSet, io, thread};

use aes_gcm::{Aes256Gcm, KeyInit, aead::AeadInOut};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

use self::ram::{Ram, RamFile};
use super::{
    Encrypted, EncryptedFile, Key, KeyError, Keys,
    planted::{Fault, plant},
    rekey,
    sector::{CONTENT_LEN, HEADERS_LEN, NONCE_LEN, Nonces, SECTOR_LEN, content_len, stored_len},
};
use crate::{Folder, Storage, limits};

const NAME: &str = "file";

fn keys(byte: u8) -> Keys {
    Keys::new(Key::new(&[byte; 32]))
}

fn file(ram: &Ram) -> EncryptedFile<RamFile> {
    Encrypted::new(ram.clone(), keys(1)).file(NAME).unwrap()
}

fn all(file: &impl Storage) -> Vec<u8> {
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

fn refused<T>(result: io::Result<T>) -> KeyError {
    let error = result.map(drop).unwrap_err();
    *error.into_inner().unwrap().downcast::<KeyError>().unwrap()
}

#[derive(Clone, Debug)]
enum Step {
    Write {
        at: u64,
        len: usize,
        byte: u8,
        is_synced: bool,
    },
    Append {
        len: usize,
        byte: u8,
    },
    /// Fails after so many sectors.
    Fail {
        at: u64,
        len: usize,
        sectors: usize,
    },
    SetLen(u64),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (at, len) = (0..2_200_u64, 0..1_500_usize);
    let step = prop_oneof![
        4 => (at.clone(), len.clone(), any::<u8>(), any::<bool>())
            .prop_map(|(at, len, byte, is_synced)| Step::Write { at, len, byte, is_synced }),
        4 => (len.clone(), any::<u8>()).prop_map(|(len, byte)| Step::Append { len: len / 8, byte }),
        2 => (at.clone(), len, 0..4_usize)
            .prop_map(|(at, len, sectors)| Step::Fail { at, len, sectors }),
        3 => at.prop_map(Step::SetLen),
        2 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..40)
}

/// Runs steps on a file and on a vector; what they differ in.
fn beside_a_model(steps: &[Step]) -> Result<(), String> {
    let ram = Ram::default();
    let (mut file, mut model) = (file(&ram), Vec::<u8>::new());
    for (number, step) in steps.iter().enumerate() {
        match *step {
            Step::Write { at, len, byte, is_synced } => {
                let bytes = vec![byte; len];
                if is_synced {
                    file.write_synced_at(at, &bytes).unwrap();
                } else {
                    file.write_at(at, &bytes).unwrap();
                }
                put(&mut model, at as usize, &bytes);
            }
            Step::Append { len, byte } => {
                let (at, bytes) = (model.len(), vec![byte; len]);
                file.write_at(at as u64, &bytes).unwrap();
                put(&mut model, at, &bytes);
            }
            Step::Fail { at, len, sectors } => {
                let at = at.min(model.len() as u64);
                let bytes = vec![0x5a; len];
                ram.0.lock().unwrap().fails_after = Some(sectors * SECTOR_LEN);
                let failed = file.write_at(at, &bytes);
                ram.0.lock().unwrap().fails_after = None;
                if failed.is_ok() {
                    put(&mut model, at as usize, &bytes);
                } else {
                    take_over(&mut model, &all(&file), at as usize, &bytes)
                        .map_err(|what| format!("step {number}, {step:?}: {what}"))?;
                }
            }
            Step::SetLen(len) => {
                file.set_len(len).unwrap();
                model.resize(len as usize, 0);
            }
            Step::Reopen => file = self::file(&ram),
        }
        let found = all(&file);
        if found != model {
            let at = found.iter().zip(&model).position(|(one, other)| one != other);
            let lens = (found.len(), model.len());
            return Err(format!("step {number}, {step:?}: differs at {at:?}, lengths {lens:?}"));
        }
        let (mut part, len) = (vec![0; model.len() / 3], model.len() as u64);
        file.read_at(len / 3, &mut part).unwrap();
        if part != model[model.len() / 3..][..part.len()] {
            return Err(format!("step {number}, {step:?}: a part differs"));
        }
        if file.read_at(len, &mut [0]).is_ok() {
            return Err(format!("step {number}, {step:?}: read behind the end"));
        }
    }
    Ok(())
}

fn put(model: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if !bytes.is_empty() {
        model.resize(model.len().max(at + bytes.len()), 0);
        model[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

/// After a write that failed each byte is as it was, or as it was to be.
fn take_over(model: &mut Vec<u8>, found: &[u8], at: usize, bytes: &[u8]) -> Result<(), String> {
    let mut written = model.clone();
    put(&mut written, at, bytes);
    if !(model.len()..=written.len()).contains(&found.len()) {
        return Err(format!("{} bytes after {} and {}", found.len(), model.len(), written.len()));
    }
    let is_one = |(place, byte): (usize, &u8)| {
        *byte == written[place] || *byte == model.get(place).copied().unwrap_or(0)
    };
    if let Some(place) = found.iter().enumerate().position(|byte| !is_one(byte)) {
        return Err(format!("byte {place} is neither as it was nor as it was to be"));
    }
    *model = found.to_vec();
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn e2_a_file_behaves_as_one_that_is_not_encrypted(steps in steps()) {
        if let Err(what) = beside_a_model(&steps) {
            prop_assert!(false, "{what}");
        }
    }

    #[test]
    fn lengths_are_told_from_the_length_of_the_file(len in 0..1_u64 << 60) {
        for len in [len, len % 5_000] {
            prop_assert_eq!(content_len(stored_len(len)), len);
            prop_assert!(stored_len(len + 1) > stored_len(len));
        }
    }

    #[test]
    fn any_length_of_a_file_is_some_length_of_content(stored in 0..1_u64 << 60) {
        prop_assert!(content_len(stored) <= stored);
    }
}

/// Is a fault found by steps drawn at random?
fn is_found_beside_a_model(fault: Fault) -> bool {
    let mut runner = TestRunner::deterministic();
    plant(Some(fault));
    let found = (0..400).any(|_| {
        let drawn = steps().new_tree(&mut runner).unwrap().current();
        beside_a_model(&drawn).is_err()
    });
    plant(None);
    found
}

/// Two files of several sectors, closed.
fn filled() -> Ram {
    let ram = Ram::default();
    let folder = Encrypted::new(ram.clone(), keys(1));
    for name in [NAME, "other"] {
        folder.file(name).unwrap().write_at(0, &[7; 3 * CONTENT_LEN + 100]).unwrap();
    }
    ram
}

/// What of a flipped bit is not found: where it is.
fn flips_not_found() -> Option<usize> {
    let sound = filled().bytes(NAME);
    // The bytes behind the last sector have no meaning but their number.
    (0..sound.len() - 100).find(|at| {
        let ram = filled();
        ram.with(NAME, |bytes| {
            bytes.clone_from(&sound);
            bytes[*at] ^= 1 << (at % 8);
        });
        let found = all(&file(&ram));
        let Some(sector) = at.checked_sub(HEADERS_LEN as usize).map(|at| at / SECTOR_LEN) else {
            // One copy of the header is enough.
            return found != [7; 3 * CONTENT_LEN + 100];
        };
        let mut expected = vec![7; 3 * CONTENT_LEN + 100];
        let end = expected.len().min((sector + 1) * CONTENT_LEN);
        expected[sector * CONTENT_LEN..end].fill(0xfd);
        found != expected
    })
}

/// Is a sector believed in another place?
fn is_moved_believed() -> bool {
    let ram = filled();
    let place = |sector: usize| HEADERS_LEN as usize + sector * SECTOR_LEN;
    ram.with(NAME, |bytes| bytes.copy_within(place(0)..place(1), place(1)));
    all(&file(&ram))[CONTENT_LEN..2 * CONTENT_LEN] != [0xfd; CONTENT_LEN]
}

fn nonces_of(bytes: &[u8], seen: &mut HashSet<[u8; NONCE_LEN]>) -> usize {
    let body = &bytes[HEADERS_LEN as usize..];
    let sectors = body.as_chunks::<SECTOR_LEN>().0;
    sectors.iter().filter(|sector| !seen.insert(sector[..NONCE_LEN].try_into().unwrap())).count()
}

/// How often a number was used again, in so many writes of a file that is opened again and again.
fn numbers_used_twice(writes: usize) -> usize {
    let (ram, mut seen, mut twice) = (Ram::default(), HashSet::new(), 0);
    let mut file = file(&ram);
    for write in 0..writes {
        if write % 1_000 == 999 {
            file = self::file(&ram);
        }
        file.write_at((write % 3) as u64, &[write as u8; 7]).unwrap();
        twice += nonces_of(&ram.bytes(NAME), &mut seen);
    }
    assert_eq!(seen.len() + twice, writes);
    twice
}

#[test]
fn e3_a_flipped_bit_anywhere_is_found() {
    assert_eq!(flips_not_found(), None);
}

#[test]
fn e3_a_sector_is_not_believed_in_another_place_or_another_file() {
    assert!(!is_moved_believed());
    let ram = filled();
    let other = ram.bytes("other");
    ram.with(NAME, |bytes| bytes[HEADERS_LEN as usize..].copy_from_slice(&other[1024..]));
    assert!(all(&file(&ram)).iter().all(|byte| *byte == 0xfd));
    // Nor is a file under another name.
    ram.with(NAME, |bytes| bytes.clone_from(&other));
    let folder = Encrypted::new(ram, keys(1));
    assert!(matches!(refused(folder.file(NAME)), KeyError::Damaged { .. }));
}

#[test]
fn e4_no_number_is_used_twice() {
    assert_eq!(numbers_used_twice(100_000), 0);
}

#[test]
fn e4_a_data_key_is_not_used_more_often_than_it_may_be() {
    let ram = filled();
    let file = file(&ram);
    file.shared().set_nonces(Nonces::from(u128::MAX - 1, 3));
    file.write_at(0, &[1; 2 * CONTENT_LEN]).unwrap();
    let before = ram.bytes(NAME);
    let error = refused(file.write_at(0, &[2; 2 * CONTENT_LEN]));
    let KeyError::Used { file: name, max } = error else { panic!("{error}") };
    assert_eq!((&*name, max), (NAME, limits::SECTOR_WRITES_MAX));
    assert_eq!(ram.bytes(NAME), before);
    file.write_at(0, &[3; 9]).unwrap();
    assert!(file.write_at(0, &[4]).is_err() && file.set_len(10_000).is_ok());
    assert_eq!(all(&file)[..10], [3, 3, 3, 3, 3, 3, 3, 3, 3, 1]);
}

#[test]
fn a_file_is_not_longer_than_it_may_be() {
    let file = file(&Ram::default());
    let max = limits::ENCRYPTED_BYTES_MAX;
    let is_refused = |result: io::Result<()>| {
        result.is_err_and(|error| error.kind() == io::ErrorKind::FileTooLarge)
    };
    assert!(is_refused(file.set_len(max + 1)) && is_refused(file.write_at(max, &[1])));
    assert!(is_refused(file.write_at(u64::MAX, &[1])) && file.is_empty().unwrap());
}

#[test]
fn every_planted_fault_is_found() {
    assert!(is_found_beside_a_model(Fault::CutKept));
    assert!(is_found_beside_a_model(Fault::TailTrusted));
    let found = |fault, find: fn() -> bool| {
        plant(Some(fault));
        let found = find();
        plant(None);
        found
    };
    assert!(found(Fault::TagIgnored, || flips_not_found().is_some()));
    assert!(found(Fault::PlaceIgnored, is_moved_believed));
    assert!(found(Fault::NonceRepeated, || numbers_used_twice(100) > 0));
}

#[test]
fn e1_nothing_of_the_content_is_in_the_file() {
    let ram = Ram::default();
    let file = file(&ram);
    for place in 0..200 {
        file.write_at(place * 37, b"in private").unwrap();
    }
    let stored = ram.bytes(NAME);
    assert!(!stored.windows(4).any(|bytes| b"in private".windows(4).any(|it| it == bytes)));
}

#[test]
fn e5_a_key_that_is_missing_is_told_by_name_and_nothing_is_changed() {
    let ram = filled();
    let before = ram.bytes(NAME);
    let error = refused(Encrypted::new(ram.clone(), keys(2)).file(NAME));
    let KeyError::Missing { file, wanted } = &error else { panic!("{error}") };
    assert_eq!((&**file, *wanted), (NAME, keys(1).current().id()));
    assert!(error.to_string().contains(&wanted.to_string()));
    assert_eq!(ram.bytes(NAME), before);
    let both = keys(2).with_older(keys(1).current().clone());
    assert_eq!(all(&Encrypted::new(ram, both).file(NAME).unwrap()), [7; 3 * CONTENT_LEN + 100]);
}

#[test]
fn e5_a_file_that_is_not_encrypted_is_told_so() {
    for len in [1, 640, 1_024, 1_025, 1_700, 9_000] {
        let ram = Ram::default();
        ram.with(NAME, |bytes| bytes.resize(len, b'x'));
        let error = refused(Encrypted::new(ram, keys(1)).file(NAME));
        assert!(matches!(error, KeyError::NotEncrypted { .. }), "{len}: {error}");
    }
}

#[test]
fn a_file_whose_header_did_not_come_through_is_empty() {
    let sound = filled().bytes(NAME)[..1_024].to_vec();
    for len in 0..1_024 {
        for sectors in [[true, true], [false, true], [true, false], [false, false]] {
            let mut left = sound.clone();
            for (sector, is_there) in left.chunks_mut(512).zip(sectors) {
                sector.iter_mut().for_each(|byte| *byte *= u8::from(is_there));
            }
            left.truncate(len);
            let ram = Ram::default();
            ram.with(NAME, |bytes| bytes.clone_from(&left));
            let file = file(&ram);
            assert!(file.is_empty().unwrap());
            file.write_at(0, b"anew").unwrap();
            assert_eq!(all(&self::file(&ram)), b"anew", "{len} {sectors:?}");
        }
    }
}

#[test]
fn a_file_of_a_newer_version_is_told_so() {
    let ram = filled();
    ram.with(NAME, |bytes| {
        bytes[8] = 2;
        let sum = mainstay_checksum::crc32c(&bytes[..124]);
        bytes[124..128].copy_from_slice(&sum.to_le_bytes());
    });
    let error = refused(Encrypted::new(ram, keys(1)).file(NAME));
    assert!(matches!(error, KeyError::Version { version: 2, .. }), "{error}");
}

#[test]
fn all_who_have_a_file_open_see_the_same() {
    let folder = Encrypted::new(Ram::default(), keys(1));
    let (one, other) = (folder.file(NAME).unwrap(), folder.clone().file(NAME).unwrap());
    one.write_at(0, b"abc").unwrap();
    other.write_at(3, b"def").unwrap();
    one.write_at(6, b"g").unwrap();
    assert_eq!((all(&one), all(&other)), (b"abcdefg".to_vec(), b"abcdefg".to_vec()));
    folder.remove(NAME).unwrap();
    assert!(folder.file(NAME).unwrap().is_empty().unwrap());
}

#[test]
fn e2_readers_never_see_half_of_what_is_being_written() {
    let file = file(&Ram::default());
    let file = &file;
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for at in 0..3_000 {
                file.write_at(at * 5, &[b'a' + (at % 26) as u8; 5]).unwrap();
            }
        });
        while !writer.is_finished() {
            let found = all(file);
            let right = |(at, byte): (usize, &u8)| *byte == b'a' + (at / 5 % 26) as u8;
            assert!(found.iter().enumerate().all(right));
        }
    });
    assert_eq!(file.len().unwrap(), 15_000);
}

#[test]
fn what_somebody_writes_into_files_that_are_not_encrypted_is_left_by_a_rotation() {
    let ram = filled();
    ram.with("README", |bytes| bytes.resize(5_000, b'x'));
    ram.with("empty", |_| ());
    let both = keys(2).with_older(keys(1).current().clone());
    let done = rekey(&ram, &both, |_, _| {}).unwrap();
    assert_eq!((done.changed, done.unchanged, done.others), (2, 0, 1));
    let again = rekey(&ram, &keys(2), |_, _| {}).unwrap();
    assert_eq!((again.changed, again.unchanged, again.others), (0, 2, 1));
    assert_eq!(all(&Encrypted::new(ram, keys(2)).file(NAME).unwrap()).len(), 1_552);
}

#[test]
fn a_rotation_without_the_old_key_is_refused_and_changes_nothing() {
    let ram = filled();
    let before = (ram.bytes(NAME), ram.bytes("other"));
    assert!(matches!(refused(rekey(&ram, &keys(2), |_, _| {})), KeyError::Missing { .. }));
    assert_eq!((ram.bytes(NAME), ram.bytes("other")), before);
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks_exact(2).map(byte).collect()
}

/// Test case 16 of McGrew and Viega, "The Galois/Counter Mode of Operation (GCM)", 2005.
#[test]
fn the_cipher_is_aes_256_gcm() {
    let key = hex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308");
    let mut text = hex("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
         1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39");
    let aad = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
    let nonce: [u8; 12] = hex("cafebabefacedbaddecaf888").try_into().unwrap();
    let key: [u8; 32] = key.try_into().unwrap();
    let cipher = Aes256Gcm::new((&key).into());
    let sealed = cipher.encrypt_inout_detached((&nonce).into(), &aad, text.as_mut_slice().into());
    assert_eq!(sealed.unwrap().to_vec(), hex("76fc6ece0f4e1768cddf8853bb2d551b"));
    assert_eq!(
        text,
        hex("522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa\
             8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662")
    );
}

/// A file of version 1, read by the code and, with the offsets of docs/format/encryption.md, by hand.
#[test]
fn a_file_of_the_first_version_is_read() {
    let stored = hex(include_str!("fixture-1.txt"));
    let content: Vec<u8> = (0..584_u32).map(|at| at as u8).collect();
    let key: [u8; 32] = std::array::from_fn(|at| at as u8);
    let ram = Ram::default();
    ram.with("fixture", |bytes| bytes.clone_from(&stored));
    let folder = Encrypted::new(ram, Keys::new(Key::new(&key)));
    assert_eq!(all(&folder.file("fixture").unwrap()), content);

    let open = |key: &[u8; 32], nonce: &[u8], tag: &[u8], aad: &[u8], sealed: &[u8]| {
        let nonce: [u8; 12] = nonce.try_into().unwrap();
        let tag: [u8; 16] = tag.try_into().unwrap();
        let mut bytes = sealed.to_vec();
        let buffer = bytes.as_mut_slice().into();
        let cipher = Aes256Gcm::new(key.into());
        cipher.decrypt_inout_detached((&nonce).into(), aad, buffer, (&tag).into()).unwrap();
        bytes
    };
    assert_eq!((&stored[..8], stored.len()), (&b"MAINSENC"[..], 1_024 + 2 * 512 + 100));
    for header in [&stored[..512], &stored[512..1_024]] {
        assert_eq!(header[8..16], [1, 0, 0, 0, 0, 0, 0, 0]);
        let aad = [&header[..32], b"fixture"].concat();
        let data_key = open(&key, &header[32..44], &header[80..96], &aad, &header[48..80]);
        let data_key: [u8; 32] = data_key.try_into().unwrap();
        let mut found = Vec::new();
        for number in 0..2 {
            let at = 1_024 + 512 * number;
            let (aad, sector) = ((number as u64).to_le_bytes(), &stored[at..at + 512]);
            found.extend(open(&data_key, &sector[..12], &sector[12..28], &aad, &sector[28..]));
        }
        assert_eq!(found[..584], content);
    }
}

#[test]
fn an_empty_file_whose_header_nobody_can_open_does_not_ask_for_the_old_key_after_a_rotation() {
    let ram = Ram::default();
    let file = Encrypted::new(ram.clone(), keys(1)).file("a").unwrap();
    file.write_at(0, b"x").unwrap();
    file.set_len(0).unwrap();
    drop(file);
    // Whoever did it made the checksums right.
    ram.with("a", |bytes| {
        for copy in [0, SECTOR_LEN] {
            bytes[copy + 50] ^= 1;
            let sum = mainstay_checksum::crc32c(&bytes[copy..copy + 124]).to_le_bytes();
            bytes[copy + 124..copy + 128].copy_from_slice(&sum);
        }
    });
    rekey(&ram, &keys(2).with_older(keys(1).current().clone()), |_, _| {}).unwrap();
    let file = Encrypted::new(ram, keys(2)).file("a").unwrap();
    assert_eq!(file.len().unwrap(), 0);
    file.write_at(0, b"y").unwrap();
}
