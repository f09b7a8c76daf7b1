//! The files of a directory as they are, found by its descriptor, whatever its name is by now. A crash test
//! may stop the process before each call that changes them.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::ffi::OsStringExt,
};

use mainstay_shm::hook;
use mainstay_storage::{Folder, Storage};
use rustix::{
    fs::{AtFlags, Dir, Mode, OFlags, openat, unlinkat},
    io::{Errno, retry_on_intr},
};

/// The files of a directory.
pub(super) struct Bare(pub(super) File);

impl Folder for Bare {
    type File = BareFile;

    fn file(&self, name: &str) -> io::Result<BareFile> {
        hook::step();
        open_in(&self.0, name).map(BareFile)
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let names = names_in(&self.0)?.into_iter();
        // A name that is no text is none of ours.
        Ok(names.filter_map(|name| name.into_string().ok()).collect())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        hook::step();
        match unlinkat(&self.0, name, AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            other => Ok(other?),
        }
    }

    fn sync_names(&self) -> io::Result<()> {
        hook::step();
        self.0.sync_all()
    }

    fn mapped(&self, name: &str) -> io::Result<Option<File>> {
        self.file(name).map(|file| Some(file.0))
    }

    fn boot(&self) -> io::Result<[u8; 16]> {
        boot_id()
    }
}

/// One of them.
pub(super) struct BareFile(File);

impl Storage for BareFile {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, bytes)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        hook::step();
        self.0.write_at(offset, bytes)
    }

    fn write_synced_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        hook::step();
        self.0.write_synced_at(offset, bytes)
    }

    fn len(&self) -> io::Result<u64> {
        Storage::len(&self.0)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        hook::step();
        Storage::set_len(&self.0, len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        hook::step();
        self.0.allocate(len)
    }

    fn forget(&self) {
        self.0.forget();
    }

    fn sync(&self) -> io::Result<()> {
        hook::step();
        self.0.sync()
    }
}

pub(super) fn open_in(directory: &File, name: &str) -> io::Result<File> {
    open_as(directory, name, OFlags::empty())
}

pub(super) fn open_as(directory: &File, name: &str, more: OFlags) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | more;
    // What the mask of the process leaves of it, as with any file.
    let mode = Mode::from_raw_mode(0o666);
    Ok(File::from(retry_on_intr(|| openat(directory, name, flags, mode))?))
}

/// The names of all that is in a directory.
pub(super) fn names_in(directory: &File) -> io::Result<BTreeSet<OsString>> {
    let mut names = BTreeSet::new();
    for entry in Dir::read_from(directory)? {
        names.insert(OsString::from_vec(entry?.file_name().to_bytes().to_vec()));
    }
    names.retain(|name| name != "." && name != "..");
    Ok(names)
}

/// The kernel's name for this running of the machine.
pub(crate) fn boot_id() -> io::Result<[u8; 16]> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits = text.chars().filter(char::is_ascii_hexdigit).collect::<String>();
    let id = u128::from_str_radix(&digits, 16).map_err(io::Error::other)?;
    Ok(id.to_le_bytes())
}
