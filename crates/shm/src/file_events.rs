//! Who writes to a file past its mappings: `write`, `pwrite`, hole punching and the like.
//!
//! J1. [`FileEvents::modified`] is true when the file was changed by a system call through any
//!     descriptor since the last look, also when it was only made longer. Stores through mappings
//!     do not count.
//!
//! The kernel tells of all but what goes through the very descriptor that `memfd_create` returned:
//! so [`Backing::memfd`] lets go of that one.
//!
//! Source: inotify(7), IN_MODIFY.

use crate::{Backing, Error, Result};
use rustix::{fs::inotify, io::Errno};
use std::{
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

/// Looks whether a file is changed past its mappings.
///
/// ```
/// use mainstay_shm::{Access, Backing, FileEvents, Mapping};
/// let backing = Backing::memfd("example")?;
/// backing.allocate(0, 4096)?;
/// let events = FileEvents::new(&backing)?;
/// let mapping = Mapping::new(&backing, 4096, Access::ReadWrite)?;
/// mapping.refresh(&backing)?;
/// mapping.write(0, b"by a store")?;
/// assert!(!events.modified());
/// rustix::io::pwrite(&backing, b"by a call", 0)?;
/// assert!(events.modified() && !events.modified());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct FileEvents {
    fd: OwnedFd,
}

impl FileEvents {
    /// Begins to look.
    ///
    /// Example: see [`FileEvents`].
    ///
    /// # Errors
    /// `System` when the user has no inotify instance left.
    pub fn new(backing: &Backing) -> Result<Self> {
        let failed = |e: Errno| Error::System {
            path: backing.describe(),
            action: "watch for writes to the file",
            source: e.into(),
            hint: "raise fs.inotify.max_user_instances, or close other watchers",
        };
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let fd = inotify::init(flags).map_err(failed)?;
        let link = format!("/proc/self/fd/{}", backing.as_fd().as_raw_fd());
        inotify::add_watch(&fd, link, inotify::WatchFlags::MODIFY).map_err(failed)?;
        Ok(Self { fd })
    }

    /// Whether the file was changed by a system call since the last look (J1).
    ///
    /// Example: see [`FileEvents`].
    #[must_use]
    pub fn modified(&self) -> bool {
        let mut buffer = [const { MaybeUninit::uninit() }; 512];
        let mut reader = inotify::Reader::new(&self.fd, &mut buffer);
        let mut any = false;
        // Whatever arrives means a change, also the overflow of the queue. An error other than
        // "nothing there" is rather taken for a change than for none.
        loop {
            match reader.next() {
                Ok(_) => any = true,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return any,
                Err(_) => return true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Access, Mapping};

    fn check(backing: &Backing) {
        backing.allocate(0, 8_192).unwrap();
        let events = FileEvents::new(backing).unwrap();
        assert!(!events.modified(), "nothing yet");
        let mapping = Mapping::new(backing, 8_192, Access::ReadWrite).unwrap();
        mapping.refresh(backing).unwrap();
        mapping.write(0, b"store").unwrap();
        assert!(!events.modified(), "a store is no call");
        for descriptor in [backing.as_fd().try_clone_to_owned().unwrap(), backing.reopen().unwrap()]
        {
            rustix::io::pwrite(&descriptor, b"call", 4_096).unwrap();
            assert!(events.modified(), "J1: a call is told");
            assert!(!events.modified(), "once");
        }
        backing.allocate(8_192, 4_096).unwrap();
        assert!(events.modified(), "growth counts as well");
    }

    #[test]
    fn j1_writes_past_the_mappings_of_a_memfd_are_told_and_stores_are_not() {
        check(&Backing::memfd("test").unwrap());
    }

    #[test]
    fn j1_writes_past_the_mappings_of_a_file_are_told_and_stores_are_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        check(&Backing::open(file.path(), Access::ReadWrite).unwrap());
    }
}
