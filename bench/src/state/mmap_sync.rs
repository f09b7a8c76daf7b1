//! mmap-sync: two copies in files, and a word that says which is current.
//!
//! Its guard does not keep a version from being overwritten once the writer's patience is over
//! (torn values were seen through it), so a value is copied out to be used at leisure (V3). The
//! raw write is used, which serialises nothing; and a writer that meets a reader sleeps for a
//! microsecond, not for a second as by default.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::value::{Keeper, Reader, Writer, bytes, stamp_of, with_words};
use crate::{Outcome, raw};

pub(super) const KEEPER: Keeper = Keeper {
    name: "mmap-sync",
    writer: |folder, size| with_words!(size, writer(folder)),
    reader: |folder, size| with_words!(size, reader(folder)),
};

const SLEEP_NS: u64 = 1_000;
/// How long a writer waits for readers of the version it is about to overwrite.
const GRACE: Duration = Duration::from_millis(1);

type Sync = raw::MmapSync<SLEEP_NS>;

struct Value<const N: usize> {
    sync: Sync,
    copy: Box<[u64; N]>,
}

fn place(folder: &Path) -> PathBuf {
    folder.join("mmap-sync")
}

fn writer<const N: usize>(folder: &Path) -> Outcome<Box<dyn Writer>> {
    let mut value = open::<N>(folder);
    value.commit(&[0; N])?;
    Ok(Box::new(value))
}

fn reader<const N: usize>(folder: &Path) -> Outcome<Box<dyn Reader>> {
    Ok(Box::new(open::<N>(folder)))
}

fn open<const N: usize>(folder: &Path) -> Value<N> {
    Value { sync: Sync::with_params(place(folder).as_os_str()), copy: Box::new([0; N]) }
}

impl<const N: usize> Writer for Value<N> {
    fn commit(&mut self, value: &[u64]) -> Outcome<()> {
        self.sync.write_raw::<[u64; N]>(bytes(value), GRACE)?;
        Ok(())
    }
}

impl<const N: usize> Reader for Value<N> {
    #[inline]
    fn read(&mut self) -> Outcome<u64> {
        raw::mmap_sync_copy(&mut self.sync, &mut self.copy)?;
        Ok(stamp_of(black_box(&*self.copy)))
    }
}

/// A reader that looks at the ends of a value where it lies: what it sees may be overwritten
/// meanwhile.
pub(super) fn unprotected(folder: &Path) -> Box<dyn Reader> {
    struct Unprotected(Sync);
    impl Reader for Unprotected {
        #[inline]
        fn read(&mut self) -> Outcome<u64> {
            let [first, last] = raw::mmap_sync_ends::<8_192>(&mut self.0)?;
            Ok(stamp_of(&[first, last]))
        }
    }
    Box::new(Unprotected(Sync::with_params(place(folder).as_os_str())))
}
