//! Which file a name stands for, now and after a power cut.

use super::{
    Contents, Disk, DiskFaults, DiskFile, EIO, Inner,
    images::{Loss, any},
};
use crate::Chance;
use mainstay_base::Rng;
use mainstay_storage::Folder;
use std::{collections::BTreeMap, io, sync::Arc};

/// An address that all have who opened the same file.
pub(super) type Identity = Arc<()>;

/// Names, the newest change last: what each stood for before.
type Before<T> = Vec<(String, Option<T>)>;

/// The files of a disk.
#[derive(Default)]
pub(super) struct Files {
    pub(super) named: BTreeMap<String, Contents>,
    identities: BTreeMap<String, Identity>,
    /// Files without a name that somebody has open, or that a power cut may give a name again.
    nameless: Vec<Nameless>,
    /// What was made and removed since the names were synced.
    unsynced: Before<Identity>,
}

struct Nameless {
    identity: Identity,
    contents: Contents,
    /// Whoever has it open is dead.
    is_closed: bool,
}

/// What a power cut finds.
#[derive(Clone)]
pub(super) struct InDoubt {
    pub(super) named: BTreeMap<String, Contents>,
    unsynced: Before<Contents>,
}

impl Files {
    pub(super) fn of(named: BTreeMap<String, Contents>) -> Self {
        Self { named, ..Self::default() }
    }

    fn open(&mut self, name: &str, may_be_lost: bool) -> Identity {
        if !self.named.contains_key(name) {
            self.named.insert(name.to_owned(), Contents::default());
            if may_be_lost {
                self.unsynced.push((name.to_owned(), None));
            }
        }
        Arc::clone(self.identities.entry(name.to_owned()).or_default())
    }

    fn remove(&mut self, name: &str, may_be_lost: bool) -> bool {
        let Some(contents) = self.named.remove(name) else { return false };
        let identity = self.identities.remove(name).unwrap_or_default();
        if may_be_lost {
            self.unsynced.push((name.to_owned(), Some(Arc::clone(&identity))));
        }
        self.nameless.push(Nameless { identity, contents, is_closed: false });
        self.tidy();
        true
    }

    /// All names are as they are from now on.
    pub(super) fn sync_names(&mut self) {
        self.unsynced.clear();
        self.tidy();
    }

    /// Nobody has a file open any more.
    pub(super) fn are_closed(&mut self) {
        self.nameless.iter_mut().for_each(|file| file.is_closed = true);
        self.tidy();
    }

    /// How many changes of names a file would come back by.
    fn returns(unsynced: &Before<Identity>, identity: &Identity) -> usize {
        let before = unsynced.iter().filter_map(|(_, before)| before.as_ref());
        before.filter(|before| Arc::ptr_eq(before, identity)).count()
    }

    fn is_open(unsynced: &Before<Identity>, file: &Nameless) -> bool {
        let known = 1 + Self::returns(unsynced, &file.identity);
        !file.is_closed && Arc::strong_count(&file.identity) > known
    }

    fn tidy(&mut self) {
        let unsynced = &self.unsynced;
        self.nameless.retain(|file| {
            Self::is_open(unsynced, file) || Self::returns(unsynced, &file.identity) > 0
        });
    }

    /// Bytes that all have together. A file that is gone takes room as long as somebody has it open.
    pub(super) fn bytes(&mut self) -> u64 {
        self.tidy();
        let open = self.nameless.iter().filter(|file| Self::is_open(&self.unsynced, file));
        let open = open.map(|file| file.contents.len());
        self.named.values().map(Contents::len).chain(open).sum()
    }

    /// The file that somebody has opened by a name, which may be another's by now.
    pub(super) fn find(&mut self, name: &str, identity: &Identity) -> Option<&mut Contents> {
        if self.identities.get(name).is_some_and(|known| Arc::ptr_eq(known, identity)) {
            return self.named.get_mut(name);
        }
        let mut nameless = self.nameless.iter_mut().filter(|file| !file.is_closed);
        let this = nameless.find(|file| Arc::ptr_eq(&file.identity, identity));
        this.map(|file| &mut file.contents)
    }

    pub(super) fn in_doubt(&self) -> InDoubt {
        let contents_of = |identity: &Identity| {
            let mut nameless = self.nameless.iter();
            let this = nameless.find(|file| Arc::ptr_eq(&file.identity, identity));
            this.map(|file| file.contents.clone())
        };
        let before = |(name, before): &(String, Option<Identity>)| {
            (name.clone(), before.as_ref().and_then(contents_of))
        };
        let unsynced = self.unsynced.iter().map(before).collect();
        InDoubt { named: self.named.clone(), unsynced }
    }
}

impl InDoubt {
    pub(super) fn loses_names(&self) -> bool {
        !self.unsynced.is_empty()
    }

    pub(super) fn after_power_cut(
        &self,
        faults: &DiskFaults,
        rng: &mut Rng,
    ) -> BTreeMap<String, Contents> {
        let how = Loss::drawn(rng);
        let mut left: BTreeMap<&String, &Contents> = self.named.iter().collect();
        for (name, before) in self.lost_names(how, rng) {
            match before {
                Some(contents) => left.insert(name, contents),
                None => left.remove(name),
            };
        }
        let left = left.into_iter();
        left.map(|(name, contents)| (name.clone(), contents.after_power_cut(how, faults, rng)))
            .collect()
    }

    /// The changes that are undone, in the order in which they are.
    fn lost_names(
        &self,
        how: Loss,
        rng: &mut Rng,
    ) -> impl Iterator<Item = (&String, Option<&Contents>)> {
        let count = self.unsynced.len();
        // From which change on, of all or of those of one name.
        let mut from = BTreeMap::new();
        let first = match how {
            Loss::Everything => 0,
            Loss::Nothing => count,
            Loss::After if count > 0 => any(count, rng),
            Loss::After => 0,
            Loss::Anything => {
                for (name, _) in &self.unsynced {
                    let _of_this_name = from.entry(name).or_insert_with(|| any(count, rng));
                }
                0
            }
        };
        let changes = self.unsynced.iter().enumerate().rev();
        let undone =
            changes.filter(move |(at, (name, _))| *at >= *from.get(name).unwrap_or(&first));
        undone.map(|(_, (name, before))| (name, before.as_ref()))
    }
}

impl Inner {
    pub(super) fn open(&mut self, name: &str) -> Identity {
        self.files.open(name, self.faults.names_lost)
    }

    pub(super) fn remove(&mut self, name: &str) -> bool {
        self.files.remove(name, self.faults.names_lost)
    }

    /// One more operation, if the process still lives.
    pub(super) fn operate(&mut self) -> io::Result<()> {
        self.dead |= self.dies_at.is_some_and(|at| self.operations >= at);
        if self.dead {
            return Err(io::Error::other("the process is dead"));
        }
        self.operations += 1;
        Ok(())
    }
}

/// Names are durable at once here, and what is done to them no operation of its own, where they are
/// not to be lost.
impl Folder for Disk {
    type File = DiskFile;

    fn file(&self, name: &str) -> io::Result<DiskFile> {
        let mut inner = self.lock();
        if inner.faults.names_lost && !inner.files.named.contains_key(name) {
            inner.operate()?;
        }
        drop(inner);
        Ok(Self::file(self, name))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(Self::names(self))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.lock();
        if inner.faults.names_lost {
            inner.operate()?;
        } else if inner.dead {
            return Err(io::Error::other("the process is dead"));
        }
        inner.remove(name);
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let inner = &mut *self.lock();
        if inner.faults.names_lost {
            inner.operate()?;
            if inner.rng.chance(inner.faults.sync_error_ppm) {
                return Err(io::Error::from_raw_os_error(EIO));
            }
        }
        inner.files.sync_names();
        Ok(())
    }
}
