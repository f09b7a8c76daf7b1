//! A machine for tests: a disk that loses what was not synced, and memory that outlives processes
//! but no power cut.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::{fd::AsFd, unix::fs::FileExt},
    sync::{Arc, Mutex, PoisonError},
};

use mainstay_base::Rng;
use mainstay_shm::Backing;
use mainstay_sim::{Disk, DiskFaults, DiskFile};
use mainstay_storage::Folder;

use crate::keyed::{FileOf, Files as Keyed, Ring};

type Files = BTreeMap<String, File>;

#[derive(Clone)]
pub(crate) struct Machine {
    pub(crate) disk: Disk,
    /// What is on it, perhaps encrypted.
    folder: Keyed<Disk>,
    /// None: this machine has no such memory.
    files: Option<Arc<Mutex<Files>>>,
    boot: u8,
}

/// A disk that refuses nothing, and may lose what was not synced, names as well.
pub(crate) const SOUND: DiskFaults = DiskFaults { names_lost: true, ..DiskFaults::NONE };

/// One that tears sectors inside, besides.
pub(crate) const SHREDS: DiskFaults = DiskFaults { shred_ppm: 300_000, ..SOUND };

/// One that writes some sectors elsewhere in their file.
pub(crate) const MISDIRECTS: DiskFaults = DiskFaults { misdirect_ppm: 50_000, ..SOUND };

/// An empty disk that is sound.
pub(crate) fn disk(seed: u64) -> Disk {
    disk_with(seed, SOUND)
}

pub(crate) fn disk_with(seed: u64, faults: DiskFaults) -> Disk {
    let disk = Disk::new(seed);
    disk.set_faults(faults);
    disk
}

/// What the files were at some time, as a kernel may have written them to the disk.
pub(crate) type Snapshot = BTreeMap<String, Vec<u8>>;

const PAGE: usize = 4096;

fn memfd() -> io::Result<File> {
    let backing = Backing::memfd("machine").map_err(io::Error::other)?;
    Ok(File::from(backing.as_fd().try_clone_to_owned()?))
}

pub(crate) fn as_it_is(disk: &Disk) -> Keyed<Disk> {
    Ring::NONE.over(disk.clone())
}

#[cfg(feature = "encryption")]
pub(crate) fn encrypted(disk: &Disk) -> Keyed<Disk> {
    Ring::of(&crate::Keys::new(crate::Key::new(&[7; 32]))).over(disk.clone())
}

impl Machine {
    pub(crate) fn new(disk: Disk, has_memory: bool) -> Self {
        let folder = as_it_is(&disk);
        Self { disk, folder, files: has_memory.then(Arc::default), boot: 1 }
    }

    /// One whose disk has encrypted files only.
    #[cfg(feature = "encryption")]
    pub(crate) fn encrypted(disk: Disk) -> Self {
        let folder = encrypted(&disk);
        Self { disk, folder, files: None, boot: 1 }
    }

    pub(crate) fn has_memory(&self) -> bool {
        self.files.is_some()
    }

    fn with<T>(&self, act: impl FnOnce(&mut Files) -> T) -> Option<T> {
        let files = self.files.as_ref()?;
        Some(act(&mut files.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let copy = |(name, file): (&String, &File)| {
            let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
            file.read_exact_at(&mut bytes, 0).unwrap();
            (name.clone(), bytes)
        };
        self.with(|files| files.iter().map(copy).collect()).unwrap_or_default()
    }

    /// The machine after a power cut: another disk, and of the files what is in the snapshots, each
    /// page as in one of them.
    pub(crate) fn after_power_cut(&self, disk: Disk, kept: &[Snapshot], rng: &mut Rng) -> Self {
        let files = Files::new();
        let folder = match &self.folder {
            Keyed::Plain(_) => as_it_is(&disk),
            #[cfg(feature = "encryption")]
            Keyed::Encrypted(_) => encrypted(&disk),
        };
        let after = Self {
            disk,
            folder,
            files: self.files.as_ref().map(|_| Arc::new(Mutex::new(files))),
            boot: self.boot + 1,
        };
        let Some(newest) = kept.last() else { return after };
        for (name, bytes) in newest {
            let file = memfd().unwrap();
            file.set_len(bytes.len() as u64).unwrap();
            // Mostly all of one time, so that much of it is plausible.
            let (mixed, one) = (rng.below(2) == 0, rng.below(kept.len() as u64));
            for at in (0..bytes.len()).step_by(PAGE) {
                let of = if mixed { rng.below(kept.len() as u64) } else { one };
                let Some(old) = kept[of as usize].get(name) else { continue };
                if let Some(page) = old.get(at..old.len().min(at + PAGE)) {
                    file.write_all_at(page, at as u64).unwrap();
                }
            }
            after.with(|files| files.insert(name.clone(), file));
        }
        after
    }
}

impl Folder for Machine {
    type File = FileOf<DiskFile>;

    fn file(&self, name: &str) -> io::Result<Self::File> {
        self.folder.file(name)
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = self.folder.names()?;
        names.extend(
            self.with(|files| files.keys().cloned().collect::<Vec<_>>()).unwrap_or_default(),
        );
        Ok(names)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.folder.remove(name)?;
        self.with(|files| files.remove(name));
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        self.folder.sync_names()
    }

    fn mapped(&self, name: &str) -> io::Result<Option<File>> {
        let open = |files: &mut Files| {
            if !files.contains_key(name) {
                files.insert(name.to_owned(), memfd()?);
            }
            files[name].try_clone()
        };
        self.with(open).transpose()
    }

    fn boot(&self) -> io::Result<[u8; 16]> {
        Ok([self.boot; 16])
    }
}
