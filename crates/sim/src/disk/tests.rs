use super::*;
use mainstay_storage::Folder;
use std::collections::BTreeSet;

const A: [u8; SECTOR_BYTES] = [b'a'; SECTOR_BYTES];
const B: [u8; SECTOR_BYTES] = [b'b'; SECTOR_BYTES];

fn all_of(file: &impl Storage) -> Vec<u8> {
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

/// First bytes of all sectors, for each image a power cut may leave.
fn images(disk: &Disk, max: usize) -> BTreeSet<Vec<u8>> {
    let first_bytes = |disk: Disk| {
        let bytes = all_of(&disk.file("f"));
        bytes.chunks(SECTOR_BYTES).map(|sector| sector[0]).collect::<Vec<_>>()
    };
    disk.crash_images(max).map(first_bytes).collect()
}

/// Two sectors, synced, of zeros.
fn two_sectors() -> (Disk, DiskFile) {
    let disk = Disk::new(1);
    let file = disk.file("f");
    file.write_at(0, &[0; 2 * SECTOR_BYTES]).unwrap();
    file.sync().unwrap();
    (disk, file)
}

#[test]
fn d1_a_read_sees_the_newest_write_synced_or_not() {
    let (_, file) = two_sectors();
    file.write_at(500, &[7; 100]).unwrap();
    file.write_at(510, &[8; 10]).unwrap();
    let mut found = [0; 102];
    file.read_at(499, &mut found).unwrap();
    assert_eq!(found[..3], [0, 7, 7]);
    assert_eq!(found[11..21], [8; 10]);
    assert_eq!(found[101], 0);
}

#[test]
fn d2_all_images_of_two_writes_are_shown_each_sector_on_its_own() {
    let (disk, file) = two_sectors();
    file.write_at(0, &[A, A].concat()).unwrap();
    file.write_at(0, &B).unwrap();
    assert!(disk.crash_images(6).is_all());
    let expected = [[0, 0], [b'a', 0], [b'b', 0], [0, b'a'], [b'a', b'a'], [b'b', b'a']];
    assert_eq!(images(&disk, 6), expected.map(Vec::from).into());
    assert!(!disk.crash_images(5).is_all());
    assert_eq!(disk.crash_images(5).count(), 5);
}

#[test]
fn d2_images_that_are_drawn_are_among_all_and_come_to_all_in_the_end() {
    let (disk, file) = two_sectors();
    file.write_at(0, &[A, A].concat()).unwrap();
    file.write_at(0, &B).unwrap();
    let all = images(&disk, 6);
    let seen: BTreeSet<_> = (0..200).flat_map(|_| images(&disk, 1)).collect();
    assert_eq!(seen, all);
}

#[test]
fn d2_what_was_synced_is_in_every_image() {
    let (disk, file) = two_sectors();
    file.write_at(0, &A).unwrap();
    file.sync().unwrap();
    file.write_at(SECTOR_BYTES as u64, &B).unwrap();
    assert_eq!(images(&disk, 9), [[b'a', 0], [b'a', b'b']].map(Vec::from).into());
}

#[test]
fn d2_a_power_cut_leaves_one_of_the_images_and_ends_the_process() {
    for seed in 0..50 {
        let disk = Disk::new(seed);
        let file = disk.file("f");
        file.write_at(0, &[A, A].concat()).unwrap();
        let possible = images(&disk, 100);
        disk.power_cut();
        assert!(file.len().is_err());
        let left = images(&disk, 1);
        assert!(left.is_subset(&possible), "{left:?} of {possible:?}");
    }
}

#[test]
fn d2_a_file_cut_short_and_made_longer_again_may_have_its_old_bytes_only_if_it_is_not_synced() {
    let disk = Disk::new(1);
    let file = disk.file("f");
    file.write_at(0, &[A, A].concat()).unwrap();
    file.sync().unwrap();
    file.set_len(100).unwrap();
    file.set_len(2 * SECTOR_BYTES as u64).unwrap();
    assert_eq!(all_of(&file)[99..101], [b'a', 0]);
    assert!(images(&disk, 100).contains(&vec![b'a', b'a']));
    file.sync().unwrap();
    assert_eq!(images(&disk, 100), [vec![b'a', 0]].into());
    disk.power_cut();
    assert_eq!(all_of(&disk.file("f"))[99..101], [b'a', 0]);
}

#[test]
fn d3_a_failed_sync_saves_nothing_and_the_next_one_only_says_that_it_does() {
    let (disk, file) = two_sectors();
    file.write_at(0, &A).unwrap();
    disk.set_faults(DiskFaults { sync_error_ppm: 1_000_000, ..DiskFaults::NONE });
    assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(EIO));
    disk.set_faults(DiskFaults::NONE);
    file.sync().unwrap();
    assert_eq!(images(&disk, 9), [[0, 0], [b'a', 0]].map(Vec::from).into());
    file.write_at(0, &A).unwrap();
    file.sync().unwrap();
    assert_eq!(images(&disk, 9), [vec![b'a', 0]].into());
}

#[test]
fn d4_a_process_that_dies_loses_nothing() {
    let (disk, file) = two_sectors();
    file.write_at(0, &A).unwrap();
    disk.kill();
    assert!(file.sync().is_err());
    assert_eq!(all_of(&disk.file("f"))[0], b'a');
}

#[test]
fn d5_a_misdirected_sector_lands_where_nobody_wrote() {
    let found = (0..100).any(|seed| {
        let disk = Disk::new(seed);
        let file = disk.file("f");
        file.write_at(0, &[0; 8 * SECTOR_BYTES]).unwrap();
        file.sync().unwrap();
        disk.set_faults(DiskFaults { misdirect_ppm: 1_000_000, ..DiskFaults::NONE });
        file.write_at(0, &A).unwrap();
        disk.power_cut();
        all_of(&disk.file("f")).chunks(SECTOR_BYTES).skip(1).any(|sector| sector == A)
    });
    assert!(found);
}

#[test]
fn d5_a_shredded_sector_is_torn_at_eight_bytes() {
    let mut torn = false;
    for seed in 0..100 {
        let (disk, file) = two_sectors();
        disk.lock().rng = Rng::seeded(seed);
        disk.set_faults(DiskFaults { shred_ppm: 1_000_000, ..DiskFaults::NONE });
        file.write_at(0, &A).unwrap();
        disk.power_cut();
        let bytes = all_of(&disk.file("f"));
        let changed = bytes[..SECTOR_BYTES].iter().filter(|byte| **byte == b'a').count();
        assert_eq!(changed % 8, 0);
        torn |= changed > 0 && changed < SECTOR_BYTES;
    }
    assert!(torn);
}

#[test]
fn a_full_disk_says_so_and_may_have_written_part_of_it() {
    let disk = Disk::new(1);
    disk.set_faults(DiskFaults { bytes_max: 1_024, ..DiskFaults::NONE });
    let (file, other) = (disk.file("f"), disk.file("g"));
    other.write_at(0, &[1; 500]).unwrap();
    file.write_at(0, &[1; 524]).unwrap();
    assert_eq!(file.write_at(524, &[1]).unwrap_err().raw_os_error(), Some(ENOSPC));
    assert_eq!(file.set_len(525).unwrap_err().raw_os_error(), Some(ENOSPC));
    // Writing over what is there needs no room.
    file.write_at(0, &[2; 524]).unwrap();
    // What somebody has open takes room without a name, too.
    assert!(disk.remove("g"));
    assert!(file.write_at(524, &[1; 500]).is_err());
    drop(other);
    file.write_at(524, &[1; 500]).unwrap();
}

#[test]
fn a_file_may_have_its_limit_of_bytes_and_not_one_more() {
    let file = Disk::new(1).file("f");
    file.set_len(FILE_BYTES_MAX).unwrap();
    assert_eq!(file.set_len(FILE_BYTES_MAX + 1).unwrap_err().raw_os_error(), Some(ENOSPC));
    assert!(file.write_at(u64::MAX, &[1]).is_err());
    assert_eq!(file.len().unwrap(), FILE_BYTES_MAX);
}

#[test]
fn reads_and_writes_fail_as_often_as_they_are_told_to() {
    let (disk, file) = two_sectors();
    let half = 500_000;
    disk.set_faults(DiskFaults { read_error_ppm: half, write_error_ppm: half, ..DiskFaults::NONE });
    let failed = (0..1_000).filter(|_| file.read_at(0, &mut [0]).is_err()).count();
    assert!((400..600).contains(&failed), "{failed}");
    let failed = (0..1_000).filter(|_| file.write_at(0, &[1]).is_err()).count();
    assert!((400..600).contains(&failed), "{failed}");
}

#[test]
fn reading_past_the_end_is_an_error() {
    let (_, file) = two_sectors();
    let end = file.len().unwrap();
    let kind = |offset, len| file.read_at(offset, &mut vec![0; len]).map_err(|e| e.kind());
    assert_eq!(kind(end - 4, 4), Ok(()));
    assert_eq!(kind(end - 4, 5), Err(io::ErrorKind::UnexpectedEof));
    assert_eq!(kind(u64::MAX, 1), Err(io::ErrorKind::UnexpectedEof));
}

#[test]
fn a_real_file_and_a_simulated_one_answer_alike() {
    let folder = tempfile::tempdir().unwrap();
    let options = std::fs::OpenOptions::new().read(true).write(true).create_new(true).clone();
    let real = options.open(folder.path().join("f")).unwrap();
    let simulated = Disk::new(1).file("f");
    let mut rng = Rng::seeded(5);
    for _ in 0..500 {
        let (offset, len) = (rng.below(3_000), rng.below(600) as usize);
        match rng.below(4) {
            0 => {
                let bytes = vec![rng.below(256) as u8; len];
                Storage::write_at(&real, offset, &bytes).unwrap();
                Storage::write_at(&simulated, offset, &bytes).unwrap();
            }
            1 => {
                Storage::set_len(&real, offset).unwrap();
                simulated.set_len(offset).unwrap();
            }
            2 => {
                Storage::sync(&real).unwrap();
                simulated.sync().unwrap();
            }
            _ => {
                let (mut a, mut b) = (vec![0; len], vec![0; len]);
                let real = Storage::read_at(&real, offset, &mut a).map_err(|e| e.kind());
                let simulated = simulated.read_at(offset, &mut b).map_err(|e| e.kind());
                // What a failed read leaves in the buffer is nobody's business.
                assert_eq!(real.map(|()| a), simulated.map(|()| b));
            }
        }
        assert_eq!(Storage::len(&real).unwrap(), simulated.len().unwrap());
    }
}

#[test]
fn a_write_that_syncs_itself_saves_its_sectors_and_no_others() {
    let disk = Disk::new(21);
    let file = disk.file("f");
    file.write_at(0, &[0; 4 * SECTOR_BYTES]).unwrap();
    file.sync().unwrap();
    file.write_at(0, b"lost").unwrap();
    file.write_synced_at(2 * SECTOR_BYTES as u64, b"kept").unwrap();
    let images: Vec<Vec<u8>> =
        disk.crash_images(100).map(|image| all_of(&image.file("f"))).collect();
    assert_eq!(images.len(), 2);
    assert!(images.iter().all(|image| image[2 * SECTOR_BYTES..].starts_with(b"kept")));
    assert!(images.iter().any(|image| image.starts_with(&[0; 4])));
}

#[test]
fn a_removed_file_stays_with_who_has_it_open_and_is_none_of_a_new_one_of_its_name() {
    let disk = Disk::new(1);
    let old = disk.file("f");
    old.write_at(0, b"old").unwrap();
    assert!(disk.remove("f"));
    assert!(disk.names().is_empty());
    let new = disk.file("f");
    new.write_at(0, b"newer").unwrap();
    old.write_at(3, b"est").unwrap();
    assert_eq!((all_of(&old), all_of(&new)), (b"oldest".to_vec(), b"newer".to_vec()));
    let copy = old.clone();
    drop(old);
    assert_eq!(all_of(&copy), b"oldest");
    // The next process does not find it any more.
    disk.kill();
    assert!(copy.len().is_err());
    assert_eq!(all_of(&disk.file("f")), b"newer");
}

/// First bytes of all files, for each image a power cut may leave.
fn files_left(disk: &Disk) -> BTreeSet<Vec<(String, u8)>> {
    let files = |disk: Disk| {
        let first = |name: String| (name.clone(), all_of(&disk.file(&name))[0]);
        disk.names().into_iter().map(first).collect::<Vec<_>>()
    };
    disk.crash_images(300).map(files).collect()
}

fn named<const N: usize>(files: [(&str, u8); N]) -> Vec<(String, u8)> {
    files.map(|(name, byte)| (name.to_owned(), byte)).into()
}

/// A file with a byte, synced; its name is not.
fn synced(disk: &Disk, name: &str, byte: u8) -> DiskFile {
    let file = disk.file(name);
    file.write_at(0, &[byte]).unwrap();
    file.sync().unwrap();
    file
}

const LOSES_NAMES: DiskFaults = DiskFaults { names_lost: true, ..DiskFaults::NONE };

#[test]
fn d6_a_name_made_since_the_last_sync_of_names_may_be_gone_though_its_file_was_synced() {
    let disk = Disk::new(1);
    synced(&disk, "safe", 1);
    disk.set_faults(LOSES_NAMES);
    synced(&disk, "new", 2);
    let both = named([("new", 2), ("safe", 1)]);
    assert_eq!(files_left(&disk), [both.clone(), named([("safe", 1)])].into());
    // A process that dies has lost nothing, and the next one may lose it yet.
    disk.kill();
    assert_eq!(disk.names(), ["new", "safe"]);
    assert_eq!(files_left(&disk).len(), 2);
    disk.sync_names().unwrap();
    assert_eq!(files_left(&disk), [both].into());
}

#[test]
fn d6_a_name_removed_since_the_last_sync_of_names_may_be_there_again() {
    let disk = Disk::new(1);
    disk.set_faults(LOSES_NAMES);
    let old = synced(&disk, "f", 1);
    disk.sync_names().unwrap();
    assert!(disk.remove("f"));
    assert_eq!(files_left(&disk), [named([]), named([("f", 1)])].into());
    // As it is by then, and not as it was when it was removed.
    old.write_at(0, &[2]).unwrap();
    old.sync().unwrap();
    synced(&disk, "f", 3);
    let all = [named([]), named([("f", 2)]), named([("f", 3)])];
    assert_eq!(files_left(&disk), all.into());
    let bytes = DiskFaults { bytes_max: 2, ..LOSES_NAMES };
    disk.set_faults(bytes);
    assert!(disk.file("g").write_at(0, &[1]).is_err());
    // What nobody has open takes no room, whether or not it may come back.
    drop(old);
    disk.file("g").write_at(0, &[1]).unwrap();
    disk.remove("g");
    disk.sync_names().unwrap();
    assert_eq!(files_left(&disk), [named([("f", 3)])].into());
}

#[test]
fn d6_names_are_lost_from_some_time_on_or_each_on_its_own_and_a_power_cut_leaves_an_image() {
    let changed = |seed| {
        let disk = Disk::new(seed);
        disk.set_faults(LOSES_NAMES);
        ["a", "b"].iter().for_each(|name| drop(synced(&disk, name, 1)));
        disk
    };
    let all = files_left(&changed(1));
    assert_eq!(all.len(), 4, "{all:?}");
    let left = |seed| {
        let disk = changed(seed);
        disk.power_cut();
        let left = files_left(&disk);
        assert_eq!(left.len(), 1, "what a power cut has left is safe");
        left.into_iter().next().unwrap()
    };
    assert_eq!((0..100).map(left).collect::<BTreeSet<_>>(), all);
}

#[test]
fn d6_a_failed_sync_of_names_saves_none_and_a_process_may_die_at_it() {
    let disk = Disk::new(1);
    disk.set_faults(DiskFaults { sync_error_ppm: 1_000_000, ..LOSES_NAMES });
    disk.file("f").write_at(0, &[1]).unwrap();
    assert_eq!(disk.sync_names().unwrap_err().raw_os_error(), Some(EIO));
    disk.set_faults(LOSES_NAMES);
    assert!(disk.crash_images(50).any(|image| image.names().is_empty()));
    disk.die_after(0);
    assert!(disk.sync_names().is_err() && disk.is_dead());
    assert!(Folder::file(&disk, "g").is_err() && Folder::remove(&disk, "f").is_err());
    disk.kill();
    assert_eq!(disk.names(), ["f"]);
    // Where no names are lost, all are safe.
    disk.set_faults(DiskFaults::NONE);
    assert!(disk.crash_images(50).all(|image| image.names() == ["f"]));
}
