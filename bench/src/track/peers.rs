//! The two older ways to learn of a first write, done as well as they can be: a synchronous
//! userfaultfd with a handler thread, and mprotect with a SIGSEGV handler. Unsafe, as they are.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::thread::JoinHandle;

use linux_raw_sys::general::{
    UFFD_API, UFFD_FEATURE_WP_HUGETLBFS_SHMEM, UFFD_USER_MODE_ONLY, UFFDIO_REGISTER_MODE_WP,
    uffd_msg, uffdio_api, uffdio_range, uffdio_register, uffdio_writeprotect,
};
use linux_raw_sys::ioctl::{UFFDIO_API, UFFDIO_REGISTER, UFFDIO_WRITEPROTECT};

use super::PAGE;
use crate::Outcome;
use crate::raw::SharedWords;

/// From linux/userfaultfd.h.
const UFFDIO_WRITEPROTECT_MODE_WP: u64 = 1;
const WORDS: usize = PAGE / size_of::<u64>();

/// Pages of a memfd, mapped shared and written once.
fn pages(count: usize) -> Outcome<SharedWords> {
    let fd = rustix::fs::memfd_create("peer", rustix::fs::MemfdFlags::CLOEXEC)?;
    let words = SharedWords::map(&File::from(fd), count * WORDS)?;
    words.iter().step_by(WORDS).for_each(|word| word.store(1, SeqCst));
    Ok(words)
}

/// A thread is told of each first write, notes it, and lets the writer go on.
pub(super) struct Synchronous {
    words: SharedWords,
    uffd: Arc<OwnedFd>,
    stop: Arc<AtomicBool>,
    noted: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

fn ioctl<T>(fd: &OwnedFd, request: u32, arg: &mut T) -> io::Result<()> {
    // SAFETY: the callers below pass the structure that the request reads and writes; the ranges in
    // it are of the mapping that belongs to this value.
    match unsafe { libc::ioctl(fd.as_raw_fd(), request.into(), &raw mut *arg) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn protect(uffd: &OwnedFd, start: u64, len: u64, on: bool) -> io::Result<()> {
    let mode = if on { UFFDIO_WRITEPROTECT_MODE_WP } else { 0 };
    let mut arg = uffdio_writeprotect { range: uffdio_range { start, len }, mode };
    ioctl(uffd, UFFDIO_WRITEPROTECT, &mut arg)
}

impl Synchronous {
    pub(super) fn new(count: usize) -> Outcome<Self> {
        let words = pages(count)?;
        // Only one that does not block can be polled.
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK | UFFD_USER_MODE_ONLY as libc::c_int;
        // SAFETY: takes flags, returns a descriptor or an error.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error().into());
        }
        // SAFETY: a descriptor just given to us.
        let uffd = Arc::new(unsafe { OwnedFd::from_raw_fd(fd as i32) });
        let features = u64::from(UFFD_FEATURE_WP_HUGETLBFS_SHMEM);
        ioctl(&uffd, UFFDIO_API, &mut uffdio_api { api: UFFD_API.into(), features, ioctls: 0 })?;
        let (start, len) = (words.as_ptr().addr() as u64, (count * PAGE) as u64);
        let mode = UFFDIO_REGISTER_MODE_WP.into();
        let range = uffdio_range { start, len };
        ioctl(&uffd, UFFDIO_REGISTER, &mut uffdio_register { range, mode, ioctls: 0 })?;
        let (stop, noted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ours, stopped, notes) = (uffd.clone(), stop.clone(), noted.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(SeqCst) {
                let mut poll =
                    libc::pollfd { fd: ours.as_raw_fd(), events: libc::POLLIN, revents: 0 };
                // SAFETY: one structure, of this frame.
                if unsafe { libc::poll(&raw mut poll, 1, 50) } != 1 {
                    continue;
                }
                let mut message = std::mem::MaybeUninit::<uffd_msg>::uninit();
                let len = size_of::<uffd_msg>();
                // SAFETY: a buffer of that length, of this frame.
                let read =
                    unsafe { libc::read(ours.as_raw_fd(), message.as_mut_ptr().cast(), len) };
                if read != len as isize {
                    continue;
                }
                // SAFETY: the kernel has filled it, and of this registration come page faults only.
                let address = unsafe { message.assume_init().arg.pagefault.address };
                notes.fetch_add(1, SeqCst);
                let page = address & !(PAGE as u64 - 1);
                // Were it refused, the writer would hang, and the run with it.
                let _ = protect(&ours, page, PAGE as u64, false);
            }
        });
        Ok(Self { words, uffd, stop, noted, thread: Some(thread) })
    }

    pub(super) fn arm(&self) -> Outcome<()> {
        let len = (self.words.len() * size_of::<u64>()) as u64;
        Ok(protect(&self.uffd, self.words.as_ptr().addr() as u64, len, true)?)
    }

    pub(super) fn write(&self, page: usize, value: u64) {
        self.words[page * WORDS].store(value, SeqCst);
    }

    pub(super) fn noted(&self) -> u64 {
        self.noted.load(SeqCst)
    }
}

impl Drop for Synchronous {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the signal handler has to know: there is one mapping of this kind at a time.
static START: AtomicUsize = AtomicUsize::new(0);
static END: AtomicUsize = AtomicUsize::new(0);
static NOTED: AtomicU64 = AtomicU64::new(0);

/// A signal handler notes each first write, and makes the page writable.
pub(super) struct Protected {
    words: SharedWords,
}

extern "C" fn on_fault(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid structure, of a fault.
    let address = unsafe { (*info).si_addr() }.addr();
    if !(START.load(SeqCst)..END.load(SeqCst)).contains(&address) {
        // SAFETY: not one of ours: dies as it would have without us.
        unsafe { libc::abort() };
    }
    NOTED.fetch_add(1, SeqCst);
    let page = (address & !(PAGE - 1)) as *mut libc::c_void;
    // SAFETY: a page of the mapping, which was writable before it was protected.
    unsafe { libc::mprotect(page, PAGE, libc::PROT_READ | libc::PROT_WRITE) };
}

impl Protected {
    pub(super) fn new(count: usize) -> Outcome<Self> {
        let words = pages(count)?;
        START.store(words.as_ptr().addr(), SeqCst);
        END.store(words.as_ptr().addr() + count * PAGE, SeqCst);
        let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: zeros are a value of it, and the handler has the signature that SA_SIGINFO asks
        // for; it makes one system call and touches atomics.
        let done = unsafe {
            let action = action.assume_init_mut();
            action.sa_sigaction = on_fault as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            libc::sigaction(libc::SIGSEGV, action, std::ptr::null_mut())
        };
        if done != 0 {
            return Err(io::Error::last_os_error().into());
        }
        Ok(Self { words })
    }

    pub(super) fn arm(&self) -> Outcome<()> {
        let len = self.words.len() * size_of::<u64>();
        // SAFETY: the whole mapping, of which nobody holds a plain reference.
        let done =
            unsafe { libc::mprotect(self.words.as_ptr().cast_mut().cast(), len, libc::PROT_READ) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error().into()) }
    }

    pub(super) fn write(&self, page: usize, value: u64) {
        self.words[page * WORDS].store(value, SeqCst);
    }

    pub(super) fn noted(&self) -> u64 {
        NOTED.load(SeqCst)
    }
}

/// A file mapped whole, of which `msync` makes durable what was written.
pub(super) struct Synced {
    words: SharedWords,
}

impl Synced {
    pub(super) fn new(file: &File, count: usize) -> Outcome<Self> {
        let words = SharedWords::map(file, count * WORDS)?;
        words.iter().for_each(|word| word.store(1, SeqCst));
        let synced = Self { words };
        synced.sync()?;
        Ok(synced)
    }

    pub(super) fn write(&self, page: usize, value: u64) {
        let page = &self.words[page * WORDS..(page + 1) * WORDS];
        page.iter().for_each(|word| word.store(value, std::sync::atomic::Ordering::Relaxed));
    }

    pub(super) fn sync(&self) -> Outcome<()> {
        let len = self.words.len() * size_of::<u64>();
        // SAFETY: the whole mapping; it is written out, and not changed.
        let done =
            unsafe { libc::msync(self.words.as_ptr().cast_mut().cast(), len, libc::MS_SYNC) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error().into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_peers_note_each_first_write_once() {
        let (one, two) = (Synchronous::new(16).unwrap(), Protected::new(16).unwrap());
        one.arm().unwrap();
        two.arm().unwrap();
        let (noted_one, noted_two) = (one.noted(), two.noted());
        for page in [3, 7, 3] {
            one.write(page, 5);
            two.write(page, 5);
        }
        assert_eq!((one.noted() - noted_one, two.noted() - noted_two), (2, 2));
    }
}
