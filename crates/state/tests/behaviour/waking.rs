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
    let turns = 3_000;
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
    // One that is only found by looking again takes a tenth of a second.
    let took = start.elapsed();
    assert!(took < Duration::from_secs(40), "{turns} turns took {took:?}");
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
    let scratch = Scratch::new();
    let state = scratch.domain.writer::<[u8]>("speed").unwrap();
    let mut probe = state.watch().unwrap();
    probe.descriptor().unwrap();
    if probe.how() == Some("io_uring") {
        keeps_the_rules_of_the_descriptor(&state, "io_uring");
    } else {
        eprintln!("skipped: this kernel or container refuses io_uring");
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
