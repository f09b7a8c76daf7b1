//! A writer that nobody watches makes no system call: counted by the kernel, which kills whoever
//! makes one.
//!
//! A filter (seccomp) lets the thread write to its standard output; any other call is the death of
//! its process. The writers here are processes of their own (this program, run again), and say how
//! far they came.
//!
//! Source: seccomp(2).

#![allow(clippy::unwrap_used, reason = "clippy does not see that all of this is a test")]

use mainstay_state::{Domain, MultiTransaction, RetryPolicy, State};
use std::{
    env, io,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

/// Tells a process that it is the writer, and where.
const FOLDER: &str = "QUIET_FOLDER";
const COMMITS: u64 = 10_000;

/// Runs one test of this file again, as the writer in `folder`.
fn writer(test: &str, folder: &Path) -> Output {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads", "1"]);
    command.env(FOLDER, folder).output().unwrap()
}

/// From here on any system call of this thread but write ends this process.
fn be_quiet() {
    let number = std::mem::offset_of!(libc::seccomp_data, nr) as u32;
    let step =
        |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut steps = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, number),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_write as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: takes a right away from this process, and no memory.
    let done = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
    // SAFETY: the program and its steps live until the kernel has copied them.
    let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
}

/// Writes without a lock or a buffer, neither of which may be had any more.
fn say(text: &str) {
    // SAFETY: the bytes are those of a text that lives as long as the call.
    unsafe { libc::write(1, text.as_ptr().cast(), text.len()) };
}

/// Commits in every way there is; nobody else writes, so nothing conflicts.
fn commit_often(state: &State<[u8]>, other: &State<[u8]>) {
    for count in 1..=COMMITS {
        let mut transaction = state.begin().unwrap();
        transaction.bytes_mut().unwrap()[..8].copy_from_slice(&count.to_le_bytes());
        transaction.commit().unwrap();
        state.replace(&[count as u8; 100]).unwrap();
        MultiTransaction::transact(RetryPolicy::default(), |both| {
            both.bytes_mut(state)?[0] = 1;
            both.bytes_mut(other)?[0] = 1;
            Ok(())
        })
        .unwrap();
    }
}

#[test]
fn a_writer_that_nobody_watches_makes_no_system_call() {
    let Some(folder) = env::var_os(FOLDER) else {
        let folder = tempfile::tempdir().unwrap();
        let domain = Domain::open(folder.path()).unwrap();
        let reader = domain.writer::<[u8]>("x").unwrap();
        // One that has stopped waiting does not cost anything any more.
        let mut watch = domain.writer::<[u8]>("y").unwrap().watch().unwrap();
        assert_eq!(watch.wait(Duration::from_millis(1)).unwrap(), None);
        drop(watch);

        let output = writer("a_writer_that_nobody_watches_makes_no_system_call", folder.path());
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("all committed\n"), "{said}\n{}", output.status);
        assert_eq!(reader.version().unwrap(), 3 * COMMITS + 1);
        // It was quiet from its own will: the first call it made was the last.
        assert!(!said.contains("alive"), "{said}");
        assert_eq!(output.status.signal(), Some(libc::SIGSYS));
        return;
    };
    let domain = Domain::open(folder).unwrap();
    let (state, other) = (domain.writer::<[u8]>("x").unwrap(), domain.writer::<[u8]>("y").unwrap());
    // The first version makes the memory there is; the wake-up that "y" was armed for is spent.
    state.replace(&[1; 100]).unwrap();
    other.replace(&[1; 100]).unwrap();
    be_quiet();
    commit_often(&state, &other);
    say("all committed\n");
    // SAFETY: takes nothing and changes nothing.
    unsafe { libc::getppid() };
    say("alive\n");
}

#[test]
fn a_writer_that_somebody_waits_for_makes_one_and_so_is_heard() {
    let Some(folder) = env::var_os(FOLDER) else {
        let folder = tempfile::tempdir().unwrap();
        let domain = Domain::open(folder.path()).unwrap();
        let mut watch = domain.writer::<[u8]>("x").unwrap().watch().unwrap();
        // A sleeper looks by itself now and then; that it is armed is what matters here.
        assert_eq!(watch.wait(Duration::from_millis(1)).unwrap(), None);
        let output =
            writer("a_writer_that_somebody_waits_for_makes_one_and_so_is_heard", folder.path());
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("ready\n") && !said.contains("committed"), "{said}");
        assert_eq!(output.status.signal(), Some(libc::SIGSYS), "the call is the wake-up");
        assert_eq!(watch.wait(Duration::from_secs(10)).unwrap(), Some(1), "it was committed");
        return;
    };
    let state = Domain::open(folder).unwrap().writer::<[u8]>("x").unwrap();
    be_quiet();
    say("ready\n");
    state.replace(&[1]).unwrap();
    say("committed\n");
}
