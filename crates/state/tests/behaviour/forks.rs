use crate::Scratch;
use mainstay_state::Error;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Runs `body` in a forked child; whether it said yes.
fn in_child(body: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child looks at what it inherited and leaves by `_exit`, without destructors.
    match unsafe { libc::fork() } {
        0 => {
            // A child that hangs is killed, and has not said yes.
            // SAFETY: sets a timer of the child's own.
            unsafe { libc::alarm(30) };
            let code = i32::from(!body());
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(code) }
        }
        child => {
            let mut status = 0;
            // SAFETY: waits for the child just made.
            unsafe { libc::waitpid(child, &mut status, 0) };
            libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
        }
    }
}

#[test]
fn a_forked_child_is_refused_and_disturbs_nothing() {
    let scratch = Scratch::new();
    let state = scratch.domain.writer::<[u8]>("speed").unwrap();
    state.replace(b"80").unwrap();
    let mut publisher = state.publisher().unwrap();
    let is_forked = |error: Error| matches!(error, Error::Forked { .. });
    assert!(in_child(|| {
        state.read().is_err_and(is_forked)
            && state.copy_to(&mut [0; 2]).is_err_and(is_forked)
            && state.begin().is_err_and(is_forked)
            && state.replace(b"90").is_err_and(is_forked)
            && publisher.publish(b"90").is_err_and(is_forked)
            && state.version().is_err_and(is_forked)
            && state.watch().is_err_and(is_forked)
            && state.delete().is_err_and(is_forked)
    }));
    assert_eq!(&*state.read().unwrap(), b"80");
    assert_eq!(state.replace(b"90").unwrap(), 2);
}

#[test]
fn a_forked_child_may_open_the_folder_anew() {
    let scratch = Scratch::new();
    let state = scratch.domain.writer::<[u8]>("speed").unwrap();
    state.replace(b"80").unwrap();
    assert!(in_child(|| {
        let domain = mainstay_state::Domain::open(scratch.domain.folder());
        let own = domain.and_then(|domain| domain.writer::<[u8]>("speed"));
        own.is_ok_and(|own| own.replace(b"child").is_ok())
    }));
    assert_eq!(&*state.read().unwrap(), b"child");
}

#[test]
fn a_child_forked_while_others_open_folders_may_open_one_too() {
    let scratch = Scratch::new();
    let done = AtomicBool::new(false);
    let folder = |index: usize| scratch.path().join(format!("folder{index}"));
    std::thread::scope(|scope| {
        for index in 1..3 {
            let (folder, done) = (folder(index), &done);
            scope.spawn(move || {
                while !done.load(Relaxed) {
                    drop(mainstay_state::Domain::open(&folder));
                }
            });
        }
        let opened = (0..40).all(|_| in_child(|| mainstay_state::Domain::open(folder(0)).is_ok()));
        done.store(true, Relaxed);
        assert!(opened);
    });
}
