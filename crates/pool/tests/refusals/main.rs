//! Opening what is not the pool that was asked for: a typed error that says what to do, and the
//! file is byte for byte what it was.
//!
//! The offsets are those of `docs/format/pool.md`, written down again: a test that asked the code
//! where a field is would move with its mistakes.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]
mod place;
mod surroundings;

use mainstay_base::{NameError, Rng};
use mainstay_pool::{Corruption, Error, Pool, PoolOptions, PoolView};
use mainstay_shm::Error as Shm;
use place::*;
use std::{
    fs::{self, File},
    io::Write,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{FileExt, symlink},
            net::UnixStream,
        },
    },
    path::Path,
};

#[test]
fn the_right_name_and_size_are_welcome() {
    let place = Place::new();
    let pool = options().join(place.path()).unwrap();
    assert_eq!(pool.blocks().unwrap().filter(|block| block.kind.is_some()).count(), 9);
}

#[test]
fn another_block_size_is_refused_and_wipes_nothing() {
    let place = Place::new();
    for size in [BLOCK_SIZE - 1, BLOCK_SIZE + 1, 64, 4_096] {
        let error = PoolOptions::new("refused", size).open(place.path()).unwrap_err();
        let told = matches!(error, Error::WrongBlockSize { found: 100, wanted, .. }
            if wanted == size as u64);
        assert!(told, "{error:?}");
        helpful(&error);
    }
    assert!(fs::read(place.path()).unwrap() == place.bytes);
}

#[test]
fn another_name_is_refused_and_wipes_nothing() {
    let place = Place::new();
    for name in ["refuse", "refused2", "Refused"] {
        let error = PoolOptions::new(name, BLOCK_SIZE).open(place.path()).unwrap_err();
        let told = matches!(&error, Error::WrongName { found, wanted, .. }
            if found == "refused" && wanted == name);
        assert!(told, "{error:?}");
        helpful(&error);
    }
    assert!(fs::read(place.path()).unwrap() == place.bytes);
}

#[test]
fn a_pool_that_is_there_is_not_created_again() {
    let place = Place::new();
    let error = options().create(place.path()).unwrap_err();
    assert!(matches!(error, Error::Shm(Shm::AlreadyExists { .. })), "{error:?}");
    helpful(&error);
    assert!(fs::read(place.path()).unwrap() == place.bytes);
}

#[test]
fn another_format_version_is_refused_by_name() {
    let place = Place::new();
    for version in [0, 3, u32::MAX] {
        let path = place.write(&place.with(VERSION, 4, version.into()));
        refused(
            &path,
            |error| matches!(error, Error::FormatVersion { found, known: 2, .. } if *found == version),
        );
    }
}

#[test]
fn unknown_flags_are_refused() {
    let place = Place::new();
    for flags in [1, 1 << 31] {
        let path = place.write(&place.with(FLAGS, 4, flags));
        refused(&path, |error| {
            matches!(error, Error::UnknownFeatures { flags: told, .. }
                if u64::from(*told) == flags)
        });
    }
}

#[test]
fn a_file_truncated_at_any_interesting_length_is_refused() {
    let place = Place::new();
    let full = place.bytes.len();
    let extents = number(&place.bytes, EXTENTS_OFFSET, 8) as usize;
    let extent = number(&place.bytes, EXTENT_SIZE, 8) as usize;
    assert_eq!(full, extents + 2 * extent);
    let around = |at: usize| [at - 1, at, at + 1];
    let lengths = [8, 512, 1_024, 1_088, 2_048, 4_096, extents, extents + extent]
        .into_iter()
        .flat_map(around)
        .chain([1, full - 4_096, full - 1]);
    for len in lengths {
        let path = place.write(&place.bytes[..len]);
        refused(&path, |error| match error {
            Error::NotAPool { .. } => len < 512,
            Error::Corrupt { what: Corruption::Truncated { file_len, needed }, .. } => {
                let expected = if len < extents { extents } else { full };
                (*file_len, *needed) == (len as u64, expected as u64)
            }
            _ => false,
        });
    }
}

#[test]
fn a_file_longer_than_its_extents_is_welcome() {
    let place = Place::new();
    let mut bytes = place.bytes.clone();
    bytes.resize(bytes.len() + 5_000, 0);
    let pool = options().join(place.write(&bytes)).unwrap();
    assert_eq!(pool.info().unwrap().extents, 2);
}

#[test]
fn more_extents_than_there_can_be_are_refused() {
    let place = Place::new();
    for count in [11, 1 << 32, u64::MAX] {
        let mut bytes = place.bytes.clone();
        bytes[LIVE..LIVE + 8].copy_from_slice(&count.to_le_bytes());
        let path = place.write(&bytes);
        refused(&path, |error| {
            matches!(error, Error::Corrupt { what: Corruption::Extents { found, max: 10 }, .. }
                if *found == count)
        });
    }
}

#[test]
fn an_empty_file_is_refused_as_such() {
    let place = Place::new();
    let path = place.write(&[]);
    refused(&path, |error| matches!(error, Error::Empty { .. }));
}

#[test]
fn a_file_of_zeros_is_refused_as_such() {
    let place = Place::new();
    for len in [512, 4_096, place.bytes.len()] {
        let path = place.write(&vec![0; len]);
        refused(
            &path,
            |error| matches!(error, Error::NotAPool { reason, .. } if reason.contains("zeros")),
        );
    }
}

#[test]
fn a_file_of_noise_is_refused() {
    let place = Place::new();
    let mut rng = Rng::seeded(1);
    for len in [1, 511, 512, 10_000] {
        let noise: Vec<u8> = (0..len).map(|_| rng.next_u64() as u8).collect();
        refused(&place.write(&noise), |error| matches!(error, Error::NotAPool { .. }));
    }
    // Noise behind the magic and the version is noise all the same.
    let mut bytes = place.bytes.clone();
    bytes[12..].fill_with(|| rng.next_u64() as u8);
    refused(&place.write(&bytes), |error| {
        matches!(error, Error::Corrupt { what: Corruption::HeaderChecksum { .. }, .. })
    });
}

#[test]
fn one_wrong_bit_anywhere_in_the_header_is_refused() {
    let place = Place::new();
    for at in 0..512 {
        let mut bytes = place.bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        let path = place.write(&bytes);
        let error = Pool::join_any(&path).unwrap_err();
        let right = match at {
            0..8 => matches!(error, Error::NotAPool { .. }),
            8..12 => matches!(error, Error::FormatVersion { .. }),
            _ => matches!(&error, Error::Corrupt { what: Corruption::HeaderChecksum { .. }, .. }),
        };
        assert!(right, "byte {at}: {error:?}");
        assert!(fs::read(&path).unwrap() == bytes);
    }
}

/// Whether `error` says that this field of the header is impossible.
fn names_field(error: &Error, name: &str) -> bool {
    matches!(error, Error::Corrupt { what: Corruption::HeaderField { field, .. }, .. }
        if *field == name)
}

#[test]
fn each_derived_header_field_off_by_one_is_refused_by_its_name() {
    let place = Place::new();
    let fields = [
        ("stride", 40),
        ("blocks_per_extent", 48),
        ("extent_size", 56),
        ("extents_offset", 64),
        ("align", 80),
        ("checkpoint_offset", 96),
    ];
    for (name, at) in fields {
        let right = number(&place.bytes, at, 8);
        for value in [right - 1, right + 1, 0, u64::MAX] {
            let path = place.write(&place.with(at, 8, value));
            refused(&path, |error| names_field(error, name));
        }
    }
    // Offset and length of the place for checkpoints are one place, and told by its offset.
    let right = number(&place.bytes, 104, 8);
    for value in [right - 1, right + 1] {
        let path = place.write(&place.with(104, 8, value));
        refused(&path, |error| names_field(error, "checkpoint_offset"));
    }
}

#[test]
fn header_numbers_past_their_limits_are_refused_by_name() {
    let place = Place::new();
    let cases = [
        ("block_size", 32, 0),
        ("block_size", 32, (1 << 30) + 1),
        ("block_size", 32, u64::MAX),
        ("blocks_per_extent", 48, 1 << 17),
        ("align", 80, 2_048),
        ("align", 80, 1 << 22),
        ("extents_max", 72, 0),
        ("extents_max", 72, (1 << 32) / 8 + 1),
        ("extents_max", 72, u64::MAX),
        ("name", 128, 0),
        ("name", 128, 248),
        ("name", 128, u64::MAX),
    ];
    for (name, at, value) in cases {
        let path = place.write(&place.with(at, 8, value));
        refused(&path, |error| names_field(error, name));
    }
}

#[test]
fn a_block_size_or_name_off_by_one_is_another_pool_or_none() {
    let place = Place::new();
    // 100 and 101 have the same stride, so the header is a good one: of another pool.
    let path = place.write(&place.with(32, 8, 101));
    let error = options().join(&path).unwrap_err();
    assert!(matches!(error, Error::WrongBlockSize { found: 101, wanted: 100, .. }), "{error:?}");
    // 129 has another stride than the header says.
    refused(&place.write(&place.with(32, 8, 129)), |error| names_field(error, "stride"));
    let path = place.write(&place.with(128, 8, 6));
    let error = options().join(&path).unwrap_err();
    assert!(matches!(&error, Error::WrongName { found, .. } if found == "refuse"), "{error:?}");
    for (byte, at) in [(b'/', 140), (b'.', 136), (0xFF, 137), (0, 142)] {
        let path = place.write(&place.with(at, 1, byte.into()));
        refused(&path, |error| names_field(error, "name"));
    }
}

#[test]
fn what_is_not_a_file_is_refused_by_its_kind() {
    let not_a = |kind: &'static str| move |error: &Error| matches!(error, Error::Shm(Shm::NotAFile { found, .. }) if *found == kind);
    let dir = tempfile::tempdir().unwrap();
    refused(dir.path(), not_a("folder"));
    refused(Path::new("/dev/null"), not_a("device"));
    let pipe = dir.path().join("pipe");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    // Opened here by name only: it is nobody's to wait for the other end of a pipe.
    for error in [options().open(&pipe).unwrap_err(), PoolView::open(&pipe).unwrap_err()] {
        assert!(not_a("pipe")(&error), "{error:?}");
    }
}

#[test]
fn a_descriptor_of_something_else_is_refused_by_its_kind() {
    let (reader, writer) = std::io::pipe().unwrap();
    let (socket, _other) = UnixStream::pair().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let cases: [(OwnedFd, &str); 5] = [
        (reader.into(), "pipe"),
        (writer.into(), "pipe"),
        (socket.into(), "socket"),
        (File::open(dir.path()).unwrap().into(), "folder"),
        (File::open("/dev/null").unwrap().into(), "device"),
    ];
    for (fd, kind) in cases {
        let again = || fd.try_clone().unwrap();
        for error in [
            options().join_fd(again()).unwrap_err(),
            Pool::join_any_fd(again()).unwrap_err(),
            PoolView::open_fd(again()).unwrap_err(),
        ] {
            let right = matches!(&error, Error::Shm(Shm::NotAFile { found, .. }) if *found == kind);
            assert!(right, "{kind}: {error:?}");
            helpful(&error);
        }
    }
}

#[test]
fn a_missing_file_and_a_dangling_link_are_not_found() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("link");
    symlink(dir.path().join("nowhere"), &link).unwrap();
    for path in [dir.path().join("missing"), link.clone(), dir.path().join("no/such/folder")] {
        for error in [
            options().join(&path).unwrap_err(),
            Pool::join_any(&path).unwrap_err(),
            PoolView::open(&path).unwrap_err(),
        ] {
            assert!(matches!(error, Error::Shm(Shm::NotFound { .. })), "{error:?}");
            helpful(&error);
        }
    }
    // The link is a name that is taken: nothing is created through it, nor in its place.
    let error = options().open(&link).unwrap_err();
    assert!(!matches!(error, Error::Shm(Shm::System { .. })), "{error:?}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let error = options().create(dir.path().join("no/such/folder")).unwrap_err();
    assert!(matches!(error, Error::Shm(Shm::NotFound { .. })), "{error:?}");
}

#[test]
fn a_link_to_a_pool_is_that_pool() {
    let place = Place::new();
    let link = place.dir.path().join("link");
    symlink(place.path(), &link).unwrap();
    assert_eq!(options().join(&link).unwrap().name(), "refused");
}

#[test]
fn a_name_that_breaks_a_rule_is_refused_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new.pool");
    let cases = [
        ("", NameError::Empty),
        (".a", NameError::LeadingDot),
        ("a/b", NameError::ForeignCharacter { at: 1, found: '/' }),
    ];
    for (name, rule) in cases {
        let error = PoolOptions::new(name, 64).create(&path).unwrap_err();
        assert!(matches!(&error, Error::Name { source, .. } if *source == rule), "{error:?}");
    }
    assert!(!path.exists());
}

#[test]
fn a_memfd_that_is_sealed_against_writing_is_refused_for_work_and_shown() {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
    let place = Place::new();
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(memfd_create("sealed", flags).unwrap());
    (&file).write_all(&place.bytes).unwrap();
    fcntl_add_seals(&file, SealFlags::WRITE).unwrap();
    let again = || OwnedFd::from(file.try_clone().unwrap());
    let error = options().join_fd(again()).unwrap_err();
    assert!(matches!(error, Error::Shm(_)), "{error:?}");
    let view = PoolView::open_fd(again()).unwrap();
    assert_eq!(view.info().unwrap().counts.parked, 9);
    let mut bytes = vec![0; place.bytes.len()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == place.bytes);
}
