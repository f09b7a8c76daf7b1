//! The process that fuzzes: how much it may take, and whether it gives everything back.

use rustix::{
    fs::{MemfdFlags, memfd_create},
    io::fcntl_dupfd_cloexec,
    process::{Resource, Rlimit, setrlimit},
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    fs::File,
    io::Read,
    os::fd::{AsRawFd, OwnedFd},
    os::unix::fs::FileExt,
    path::Path,
    sync::Once,
};

/// No file grows beyond this, in bytes: a mutated header may ask for blocks of a gigabyte.
pub const FILE_LEN_MAX: u64 = 8 << 20;

/// Sets the limits, and plants the fault that the environment names. Call it first in a target.
pub fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: only changes what becomes of a signal: growth past the limit is then an error.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        let limit = Rlimit { current: Some(FILE_LEN_MAX), maximum: Some(FILE_LEN_MAX) };
        setrlimit(Resource::Fsize, limit).expect("a limit can be lowered");
    });
    plant();
}

/// Plants the fault that the environment names. For targets that cannot have the limits: stores
/// reserve files without bytes that are longer than any.
pub fn plant() {
    #[cfg(feature = "planted")]
    {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            if let Ok(fault) = std::env::var("MAINSTAY_PLANT") {
                mainstay_shm::hook::plant(fault.leak());
            }
        });
    }
}

/// A folder in memory, if there is one: a disk would make each input wait.
#[must_use]
pub fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("mainstay-fuzz-").tempdir_in(parent).expect("there is room")
}

/// A memfd with these bytes; unlike a pool's own it may be shrunk.
#[must_use]
pub fn memfd(bytes: &[u8]) -> File {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(memfd_create("mainstay-fuzz", flags).expect("descriptors are left"));
    file.write_all_at(bytes, 0).expect("an image is below the limit");
    file
}

/// All bytes of a file, not moving its position.
#[must_use]
pub fn contents(file: &File) -> Vec<u8> {
    let len = file.metadata().expect("an open file").len();
    let mut bytes = vec![0; usize::try_from(len).expect("below the limit")];
    file.read_exact_at(&mut bytes, 0).expect("nobody shrinks it");
    bytes
}

/// Another descriptor of the same file.
#[must_use]
pub fn again(file: &File) -> OwnedFd {
    file.try_clone().expect("descriptors are left").into()
}

/// What this process has open: compared before and after, it shows what was leaked.
#[derive(PartialEq, Eq, Debug)]
pub struct Holdings {
    /// The kernel gives the lowest free number, so a descriptor left open moves it.
    lowest_free: i32,
    mappings: usize,
}

impl Holdings {
    /// Looks at the process now.
    #[must_use]
    pub fn now() -> Self {
        let probe = File::open("/proc/self/maps").expect("/proc is mounted");
        let lowest_free = probe.as_raw_fd();
        let mut maps = String::new();
        (&probe).read_to_string(&mut maps).expect("maps is text");
        let ours = |line: &&str| line.contains("memfd:mainstay-fuzz");
        Self { lowest_free, mappings: maps.lines().filter(ours).count() }
    }
}

/// A descriptor that a child inherits under the same number.
#[must_use]
pub fn duplicate(file: &File) -> OwnedFd {
    fcntl_dupfd_cloexec(file, 0).expect("descriptors are left")
}

/// No more than this is asked of an allocator at once, in bytes: files are shorter.
const BLOCK_MAX: usize = 8 * FILE_LEN_MAX as usize;

/// An allocator that ends the process when a number of a file is taken for how much memory to take.
pub struct Bounded;

fn check_block(bytes: usize) {
    if bytes > BLOCK_MAX {
        // Nothing here may allocate.
        std::process::abort();
    }
}

// SAFETY: all is done by the allocator of the system, as it was asked.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check_block(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check_block(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        check_block(bytes);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(block, layout, bytes) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(block, layout) }
    }
}
