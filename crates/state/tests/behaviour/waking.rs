use crate::{Scratch, worker};
use mainstay_state::State;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    os::fd::BorrowedFd,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

fn is_readable(fd: BorrowedFd<'_>, within: Duration) -> bool {
    let timeout = Timespec::try_from(within).unwrap();
    poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&timeout)).unwrap() > 0
}

#[test]
fn a_sleeper_in_another_process_is_woken() {
    let scratch = Scratch::new();
    let state = scratch.domain.writer::<[u8]>("speed").unwrap();
    let mut sleeper = worker::start("wake", &scratch);
    sleeper.ready();
    thread::sleep(Duration::from_millis(30));
    state.replace(b"80").unwrap();
    assert_eq!(sleeper.finish().output, "Some(1)");
}

#[test]
fn no_wake_up_is_lost_between_two_threads_that_take_turns() {
    let scratch = Scratch::new();
    let _keep: [State<[u8]>; 2] = ["ping", "pong"].map(|n| scratch.domain.writer(n).unwrap());
    let turns = 1_500;
    let (start, both_watch) = (Instant::now(), Barrier::new(2));
    let play = |mine: &str, theirs: &str, first: bool| {
        let mine = scratch.domain.writer::<[u8]>(mine).unwrap();
        let mut theirs = scratch.domain.reader::<[u8]>(theirs).unwrap().watch().unwrap();
        both_watch.wait();
        for turn in 0..turns {
            if first || turn > 0 {
                mine.replace(b"your turn").unwrap();
            }
            theirs.wait(Duration::from_secs(20)).unwrap().expect("a wake-up was lost");
        }
        mine.replace(b"your turn").unwrap();
    };
    thread::scope(|scope| {
        scope.spawn(|| play("ping", "pong", true));
        scope.spawn(|| play("pong", "ping", false));
    });
    assert_none_was_late(turns, start.elapsed());
}

/// A wake-up that is lost is found by looking again, and takes a tenth of a second; a turn takes
/// microseconds, on a busy machine milliseconds.
fn assert_none_was_late(turns: u32, took: Duration) {
    assert!(took < turns * Duration::from_millis(50), "{turns} turns took {took:?}");
}

/// Two threads take turns, each asleep on the descriptor of its watch when it is not its own; commits
/// come at any moment of the other's getting ready to sleep.
fn takes_turns_by_descriptors(how: &str, prepare: fn()) {
    let scratch = Scratch::new();
    let _keep: [State<[u8]>; 2] = ["ping", "pong"].map(|n| scratch.domain.writer(n).unwrap());
    let turns = 1_000;
    let (start, both_watch) = (Instant::now(), Barrier::new(2));
    let play = |mine: &str, theirs: &str, first: bool| {
        prepare();
        let mine = scratch.domain.writer::<[u8]>(mine).unwrap();
        let mut theirs = scratch.domain.reader::<[u8]>(theirs).unwrap().watch().unwrap();
        theirs.descriptor().unwrap();
        assert_eq!(theirs.how(), Some(how));
        both_watch.wait();
        for turn in 0..turns {
            if first || turn > 0 {
                mine.replace(b"your turn").unwrap();
            }
            while theirs.acknowledge().unwrap().is_none() {
                let fd = theirs.descriptor().unwrap();
                assert!(is_readable(fd, Duration::from_secs(20)), "a wake-up was lost");
            }
        }
        mine.replace(b"your turn").unwrap();
    };
    thread::scope(|scope| {
        scope.spawn(|| play("ping", "pong", true));
        scope.spawn(|| play("pong", "ping", false));
    });
    assert_none_was_late(turns, start.elapsed());
}

#[test]
fn no_wake_up_is_lost_by_descriptors_of_io_uring() {
    if is_io_uring_allowed() {
        takes_turns_by_descriptors("io_uring", || {});
    }
}

#[test]
fn no_wake_up_is_lost_by_descriptors_where_io_uring_is_refused() {
    // The filter is each thread's own.
    takes_turns_by_descriptors("bridge thread", refuse_io_uring);
}

/// One system call of the writer wakes all: sleepers, and descriptors of both kinds.
#[test]
fn however_many_wait_a_commit_wakes_them_all_at_once() {
    let scratch = Scratch::new();
    let state: State<[u8]> = scratch.domain.writer("speed").unwrap();
    let counted = || scratch.domain.counters().wakes;
    thread::scope(|scope| {
        let mut watches: Vec<_> = (0..20).map(|_| state.watch().unwrap()).collect();
        for watch in &mut watches {
            watch.descriptor().unwrap();
        }
        let sleepers: Vec<_> = (0..20)
            .map(|_| {
                let mut watch = state.watch().unwrap();
                scope.spawn(move || watch.wait(Duration::from_secs(60)).unwrap())
            })
            .collect();
        thread::sleep(Duration::from_millis(50));
        let before = counted();
        let version = state.replace(b"to all").unwrap();
        assert_eq!(counted(), before + 1);
        for sleeper in sleepers {
            assert_eq!(sleeper.join().unwrap(), Some(version));
        }
        for watch in &mut watches {
            assert!(is_readable(watch.descriptor().unwrap(), Duration::from_secs(20)));
            assert_eq!(watch.acknowledge().unwrap(), Some(version));
        }
    });
}

/// Says so where it is not.
fn is_io_uring_allowed() -> bool {
    let scratch = Scratch::new();
    let state = scratch.domain.writer::<[u8]>("speed").unwrap();
    let mut probe = state.watch().unwrap();
    probe.descriptor().unwrap();
    let is_allowed = probe.how() == Some("io_uring");
    if !is_allowed {
        eprintln!("skipped: this kernel or container refuses io_uring");
    }
    is_allowed
}

/// The rules of the descriptor, however it waits.
fn keeps_the_rules_of_the_descriptor(state: &State<[u8]>, how: &str) {
    let mut watch = state.watch().unwrap();
    assert!(!is_readable(watch.descriptor().unwrap(), Duration::from_millis(20)));
    assert_eq!(watch.how(), Some(how));
    for turn in 0..20_u8 {
        let version = state.replace(&[turn]).unwrap();
        assert!(is_readable(watch.descriptor().unwrap(), Duration::from_secs(10)), "turn {turn}");
        assert_eq!(watch.acknowledge().unwrap(), Some(version));
        assert_eq!(watch.acknowledge().unwrap(), None);
    }
    // Several commits are one piece of news.
    for turn in 0..5_u8 {
        state.replace(&[turn]).unwrap();
    }
    assert!(is_readable(watch.descriptor().unwrap(), Duration::from_secs(10)));
    assert_eq!(watch.acknowledge().unwrap(), Some(state.version().unwrap()));
    assert!(!is_readable(watch.descriptor().unwrap(), Duration::from_millis(50)));
}

#[test]
fn a_descriptor_tells_of_changes_by_io_uring_where_the_kernel_allows_it() {
    if is_io_uring_allowed() {
        let scratch = Scratch::new();
        let state = scratch.domain.writer::<[u8]>("speed").unwrap();
        keeps_the_rules_of_the_descriptor(&state, "io_uring");
    }
}

#[test]
fn a_descriptor_tells_of_changes_by_a_bridge_thread_where_io_uring_is_refused() {
    let scratch = Scratch::new();
    let state = scratch.domain.writer::<[u8]>("speed").unwrap();
    // The filter is this thread's own, and that of threads it starts.
    thread::scope(|scope| {
        let state = state.try_clone().unwrap();
        scope.spawn(move || {
            refuse_io_uring();
            keeps_the_rules_of_the_descriptor(&state, "bridge thread");
            let mut others: Vec<_> = (0..150).map(|_| state.watch().unwrap()).collect();
            for watch in &mut others {
                watch.descriptor().unwrap();
            }
            let version = state.replace(b"to all").unwrap();
            for watch in &mut others {
                assert!(is_readable(watch.descriptor().unwrap(), Duration::from_secs(10)));
                assert_eq!(watch.acknowledge().unwrap(), Some(version));
            }
        });
    });
}

/// Installs a seccomp filter that answers io_uring_setup(2) with `EPERM`, as containers do.
pub(crate) fn refuse_io_uring() {
    // Source: seccomp(2), and the classic BPF of <linux/filter.h>.
    let number_is_uring =
        libc::sock_filter { code: 0x15, jt: 0, jf: 1, k: libc::SYS_io_uring_setup as u32 };
    let load_number = libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: 0 };
    let answer = |k| libc::sock_filter { code: 0x06, jt: 0, jf: 0, k };
    let refuse = answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
    let mut filter = [load_number, number_is_uring, refuse, answer(libc::SECCOMP_RET_ALLOW)];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program and its filter are valid for the calls, which only restrict this thread.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &program, 0, 0), 0);
    }
}

#[test]
fn a_waiter_that_need_not_sleep_costs_the_writer_no_wake_up() {
    let scratch = Scratch::new();
    let state: State<[u8]> = scratch.domain.writer("speed").unwrap();
    let mut watch = state.watch().unwrap();
    for version in 1..=10 {
        state.replace(b"80").unwrap();
        assert_eq!(watch.wait(Duration::from_secs(20)).unwrap(), Some(version));
    }
    assert_eq!(scratch.domain.counters().wakes, 0);
}
