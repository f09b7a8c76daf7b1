use crate::Scratch;
use mainstay_state::{Commit, Error, Hooked};
use std::{
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::Sender,
    },
    task::{Context, Wake, Waker},
    time::Duration,
};

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
    let mut publisher = state.publisher().unwrap();
    // Each has done its work before, and would do it by a shorter way now.
    for _ in 0..4 {
        publisher.publish(b"80").unwrap();
        state.copy_to(&mut [0; 2]).unwrap();
    }
    let hooked = Hooked::new(|_: &Commit<'_>| {});
    let is_forked = |error: Error| matches!(error, Error::Forked { .. });
    assert!(in_child(|| {
        state.read().is_err_and(is_forked)
            && state.copy_to(&mut [0; 2]).is_err_and(is_forked)
            && state.begin().is_err_and(is_forked)
            && state.replace(b"90").is_err_and(is_forked)
            && publisher.publish(b"90").is_err_and(is_forked)
            && state.version().is_err_and(is_forked)
            && state.watch().is_err_and(is_forked)
            && state.changes().is_err_and(is_forked)
            && hooked.replace(&state, b"90").is_err_and(is_forked)
            && state.delete().is_err_and(is_forked)
    }));
    assert_eq!(&*state.read().unwrap(), b"80");
    assert_eq!(state.replace(b"90").unwrap(), 5);
    assert_eq!(publisher.publish(b"90").unwrap(), 6);
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
fn a_forked_child_is_told_of_changes_by_a_thread_of_its_own() {
    let scratch = Scratch::new();
    let state = scratch.domain.writer::<[u8]>("speed").unwrap();
    // The parent has a thread for this, and the child inherits all but the thread.
    let mut changes = state.changes().unwrap();
    let mut context = Context::from_waker(Waker::noop());
    assert!(pin!(changes.next()).poll(&mut context).is_pending());
    assert!(in_child(|| {
        let own = mainstay_state::Domain::open(scratch.domain.folder())
            .and_then(|domain| domain.writer::<[u8]>("speed"))
            .unwrap();
        let (sender, told) = std::sync::mpsc::channel();
        let waker = Waker::from(Arc::new(Send(sender.into())));
        let mut changes = own.changes().unwrap();
        let mut next = pin!(changes.next());
        let mut context = Context::from_waker(&waker);
        let is_asleep = next.as_mut().poll(&mut context).is_pending();
        own.replace(b"80").unwrap();
        let is_woken = told.recv_timeout(Duration::from_secs(20)).is_ok();
        is_asleep && is_woken && next.as_mut().poll(&mut context).is_ready()
    }));
}

/// Wakes by a message.
struct Send(Mutex<Sender<()>>);

impl Wake for Send {
    fn wake(self: Arc<Self>) {
        let _ = self.0.lock().unwrap().send(());
    }
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
