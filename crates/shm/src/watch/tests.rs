#![expect(clippy::single_range_in_vec_init, reason = "a list of one range is what is meant")]

use super::*;
use crate::Access;
use std::process::{Child, Command, Stdio};

const PAGE: u64 = 4_096;

fn watched(backing: &Backing, len: u64) -> Option<(Mapping, Watch)> {
    backing.allocate(0, len).unwrap();
    let mapping = Mapping::new(backing, len, Access::ReadWrite).unwrap();
    mapping.refresh(backing).unwrap();
    match Watch::new(&mapping) {
        Ok(watch) => Some((mapping, watch)),
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    }
}

fn taken(watch: &Watch, range: Range<u64>) -> Vec<Range<u64>> {
    let mut written = Vec::new();
    watch.take(range, &mut written).unwrap();
    written
}

fn check(backing: &Backing, page: u64) {
    let len = 8 * page;
    let Some((mapping, watch)) = watched(backing, len) else { return };
    // G2: what was never touched may count as written once a load has touched it.
    (0..8).for_each(|at| mapping.write((at * page) as usize, b"x").unwrap());
    assert_eq!(taken(&watch, 0..len), [0..len]);
    assert!(!watch.any(0..len).unwrap());
    let mut byte = [0];
    mapping.read(0, &mut byte).unwrap();
    assert!(!watch.any(0..len).unwrap(), "a load is no store");
    mapping.write(3 * page as usize + 5, b"x").unwrap();
    mapping.write(4 * page as usize, b"x").unwrap();
    mapping.write(7 * page as usize - 1, b"x").unwrap();
    assert!(watch.any(0..len).unwrap());
    assert_eq!(taken(&watch, 0..len), [3 * page..5 * page, 6 * page..7 * page]);
    assert!(!watch.any(0..len).unwrap(), "taken is forgotten");
    // The kernel's own stores: a system call that fills a buffer in the mapping.
    let zeros = File::open("/dev/zero").unwrap();
    // SAFETY: the page is inside of the mapping, and nobody refers to it.
    let read = unsafe {
        libc::read(zeros.as_raw_fd(), mapping.base().as_ptr().add(page as usize).cast(), 64)
    };
    assert_eq!(read, 64);
    assert_eq!(taken(&watch, 0..len), [page..2 * page], "G1: of system calls too");
    // Only what was asked for is forgotten.
    mapping.write(0, b"x").unwrap();
    mapping.write(5 * page as usize, b"x").unwrap();
    assert_eq!(taken(&watch, 4 * page..len), [5 * page..6 * page]);
    assert_eq!(taken(&watch, 0..len), [0..page]);
}

#[test]
fn g1_exactly_the_written_pages_of_a_memfd_are_taken() {
    check(&Backing::memfd("test").unwrap(), PAGE);
}

#[test]
fn g1_exactly_the_written_pages_of_a_file_are_taken() {
    let file = tempfile::NamedTempFile::new().unwrap();
    check(&Backing::open(file.path(), Access::ReadWrite).unwrap(), PAGE);
}

#[test]
fn g1_exactly_the_written_huge_pages_are_taken() {
    const HUGE: u64 = 2 << 20;
    let flags = libc::MFD_HUGETLB | libc::MFD_CLOEXEC;
    // SAFETY: a name that ends with a zero byte, and flags.
    let fd = unsafe { libc::memfd_create(c"huge".as_ptr(), flags) };
    assert!(fd >= 0, "memfd_create: {}", io::Error::last_os_error());
    // SAFETY: a descriptor just given to us.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let backing = Backing::from_fd(fd, Access::ReadWrite).unwrap();
    match backing.allocate(0, 8 * HUGE) {
        Ok(()) => check(&backing, HUGE),
        Err(error) => println!("skipped: no huge pages (vm.nr_hugepages): {error}"),
    }
}

#[test]
fn a_mapping_has_one_watch_at_a_time() {
    let backing = Backing::memfd("test").unwrap();
    let Some((mapping, watch)) = watched(&backing, 4 * PAGE) else { return };
    let second = Watch::new(&mapping).unwrap_err();
    assert!(matches!(second, Error::WatchRefused { step: "register the mapping", .. }), "{second}");
    drop(watch);
    assert!(Watch::new(&mapping).is_ok());
}

#[test]
fn more_scattered_pages_than_one_call_returns_are_all_taken() {
    let pages = 4 * REGIONS as u64 + 2;
    let backing = Backing::memfd("test").unwrap();
    let Some((mapping, watch)) = watched(&backing, pages * PAGE) else { return };
    taken(&watch, 0..pages * PAGE);
    for page in (0..pages).step_by(2) {
        mapping.write((page * PAGE) as usize, b"x").unwrap();
    }
    let written = taken(&watch, 0..pages * PAGE);
    assert_eq!(written.len() as u64, pages / 2);
    assert!(written.iter().enumerate().all(|(i, range)| range.start == 2 * i as u64 * PAGE));
}

#[test]
fn g5_a_child_made_by_fork_is_refused() {
    let backing = Backing::memfd("test").unwrap();
    let Some((_mapping, watch)) = watched(&backing, 4 * PAGE) else { return };
    // SAFETY: the child makes one call and leaves by _exit.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let refused = matches!(watch.any(0..PAGE), Err(Error::Forked { .. }));
        // SAFETY: ends the child.
        unsafe { libc::_exit(i32::from(!refused)) };
    }
    let mut status = 0;
    // SAFETY: waits for the child just made.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(status, 0);
}

/// Set for the other process of the tests below: it maps the file, watches it, writes the pages it
/// reads from its input, and answers each line.
const OTHER: &str = "MAINSTAY_WATCH_TEST_OTHER";

struct Other {
    child: Child,
    lines: std::io::Lines<std::io::BufReader<std::process::ChildStdout>>,
    base: u64,
}

impl Other {
    fn start(file: &std::path::Path) -> Self {
        use std::io::BufRead;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "watch::tests::the_other_process_of_these_tests",
                "--exact",
                "--nocapture",
                "--test-threads=1",
            ])
            .args(["--format", "terse"])
            .env(OTHER, file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        let base = loop {
            let line = lines.next().unwrap().unwrap();
            if let Some((_, base)) = line.split_once("base=") {
                break base.parse().unwrap();
            }
        };
        Self { child, lines, base }
    }

    fn write_page(&mut self, page: u64) {
        use std::io::Write;
        writeln!(self.child.stdin.as_mut().unwrap(), "{page}").unwrap();
        assert_eq!(self.lines.next().unwrap().unwrap(), "done");
    }

    fn remote(&self, backing: &Backing) -> Result<RemoteWatch> {
        let pid = self.child.id();
        let start = crate::lease::start_time_of(&pid.to_string());
        RemoteWatch::new(backing, pid, start, self.base)
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_other_process_of_these_tests() {
    let Some(path) = std::env::var_os(OTHER) else { return };
    let backing = Backing::open(path.as_ref(), Access::ReadWrite).unwrap();
    let len = backing.len().unwrap();
    let mapping = Mapping::new(&backing, len, Access::ReadWrite).unwrap();
    mapping.refresh(&backing).unwrap();
    let _watch = Watch::new(&mapping).unwrap();
    println!("base={}", mapping.base().addr().get());
    for line in std::io::stdin().lines() {
        let page: usize = line.unwrap().parse().unwrap();
        mapping.write(page * PAGE as usize, b"x").unwrap();
        println!("done");
    }
}

#[test]
fn stores_of_another_process_are_taken_and_its_death_is_told() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let backing = Backing::open(file.path(), Access::ReadWrite).unwrap();
    let Some((mapping, _)) = watched(&backing, 16 * PAGE) else { return };
    let mut other = Other::start(file.path());
    let remote = other.remote(&backing).unwrap();
    let mut written = Vec::new();
    remote.take(0..16 * PAGE, &mut written).unwrap().unwrap();
    for page in [3, 9] {
        other.write_page(page);
        written.clear();
        remote.take(0..16 * PAGE, &mut written).unwrap().unwrap();
        assert_eq!(written, [page * PAGE..(page + 1) * PAGE]);
    }
    // Our own stores go through another mapping, and are not seen there.
    mapping.write(0, b"x").unwrap();
    written.clear();
    remote.take(0..16 * PAGE, &mut written).unwrap().unwrap();
    assert!(written.is_empty());
    other.write_page(5);
    other.child.kill().unwrap();
    other.child.wait().unwrap();
    assert!(remote.take(0..16 * PAGE, &mut written).unwrap().is_none(), "dead: all may be written");
    assert!(matches!(other.remote(&backing), Err(Error::RemoteRefused { .. })));
}

#[test]
fn a_wrong_address_or_start_time_or_process_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let backing = Backing::open(file.path(), Access::ReadWrite).unwrap();
    if watched(&backing, 16 * PAGE).is_none() {
        return;
    }
    let other = Other::start(file.path());
    let pid = other.child.id();
    let start = crate::lease::start_time_of(&pid.to_string());
    for (pid, start, base) in [
        (pid, start, other.base + PAGE),
        (pid, start + 1, other.base),
        (0, start, other.base),
        (u32::MAX, start, other.base),
    ] {
        let refused = RemoteWatch::new(&backing, pid, start, base).unwrap_err();
        assert!(matches!(refused, Error::RemoteRefused { .. }), "{refused}");
    }
    let strange = Backing::memfd("another file").unwrap();
    assert!(RemoteWatch::new(&strange, pid, start, other.base).is_err());
}
