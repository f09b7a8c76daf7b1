//! What shared memory does about a peer that has died, or writes what it should not.

use crate::rig::PATIENCE;
use mainstay_channel::{Bounds, Bytes, Channel, Error, NodeId, Why, shm};
use mainstay_shm::{Access, Backing, Mapping, Shared64};
use std::{
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

const MS: Duration = Duration::from_millis(1);
/// What tells a copy of this program which part it plays.
const ROLE: &str = "MAINSTAY_TEST_JOIN";

/// The part that other processes play: joins, echoes, and waits to be killed.
#[test]
fn a_process_that_joins_and_echoes() {
    let Some(path) = std::env::var_os(ROLE) else {
        // Run by the others as a process of its own; by itself it has nothing to join.
        assert!(shm::join(Path::new("/nowhere/at/all"), NodeId(2)).is_err());
        return;
    };
    let channel = shm::join(Path::new(&path), NodeId(2)).unwrap();
    while let Ok(Some(message)) = channel.receive(PATIENCE) {
        channel.send(message).unwrap();
    }
}

fn spawn(path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "neighbours::a_process_that_joins_and_echoes", "--nocapture"])
        .env(ROLE, path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn with_peer(test: impl FnOnce(shm::ShmChannel, Child)) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.channel");
    let mut offer = shm::create(&path, NodeId(1), Bounds::default()).unwrap();
    let child = spawn(&path);
    let channel = offer.accept(PATIENCE).unwrap().expect("it joins");
    channel.send("are you there?".into()).unwrap();
    assert_eq!(channel.receive(PATIENCE).unwrap().unwrap(), "are you there?");
    test(channel, child);
}

fn lost(outcome: Result<Option<Bytes>, Error>) -> bool {
    matches!(outcome, Err(Error::ChannelClosed { why: Why::Lost { .. } }))
}

#[test]
fn a_process_that_is_killed_is_noticed_by_its_lease() {
    let _turn = crate::turn::take();
    with_peer(|channel, mut child| {
        thread::scope(|scope| {
            let waiting = scope.spawn(|| channel.receive(PATIENCE));
            thread::sleep(100 * MS);
            child.kill().unwrap();
            child.wait().unwrap();
            let killed = Instant::now();
            assert!(lost(waiting.join().unwrap()));
            assert!(killed.elapsed() < PATIENCE / 3, "{:?}", killed.elapsed());
        });
        assert!(channel.send("anybody?".into()).is_err());
    });
}

#[test]
fn a_process_that_is_stopped_is_not_taken_for_dead() {
    let _turn = crate::turn::take();
    use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
    with_peer(|channel, mut child| {
        let pid = Pid::from_child(&child);
        kill_process(pid, Signal::STOP).unwrap();
        // It may run on for a moment on another processor, long enough to answer.
        let (_, status) = waitpid(Some(pid), WaitOptions::UNTRACED).unwrap().unwrap();
        assert!(status.stopped());
        channel.send("wake up".into()).unwrap();
        assert_eq!(channel.receive(500 * MS).unwrap(), None, "alive, and slow");
        kill_process(pid, Signal::CONT).unwrap();
        assert_eq!(channel.receive(PATIENCE).unwrap().unwrap(), "wake up");
        channel.close();
        assert!(child.wait().unwrap().success(), "it was told of the end");
    });
}

#[test]
fn a_memory_has_two_ends_and_a_third_is_refused() {
    let _turn = crate::turn::take();
    let mut offer = shm::create_memfd(NodeId(1), Bounds::default()).unwrap();
    let first = shm::join_fd(offer.descriptor().unwrap(), NodeId(2)).unwrap();
    let second = shm::join_fd(offer.descriptor().unwrap(), NodeId(3));
    assert!(matches!(second, Err(Error::EndTaken { .. })), "while the first is there");
    drop(first);
    let third = shm::join_fd(offer.descriptor().unwrap(), NodeId(3));
    assert!(matches!(third, Err(Error::EndTaken { .. })), "and after it");
    assert!(offer.accept(Duration::ZERO).unwrap().is_some());
    assert!(matches!(offer.accept(Duration::ZERO), Err(Error::EndTaken { .. })));
}

#[test]
fn a_file_that_is_no_channel_is_refused_and_not_touched() {
    let _turn = crate::turn::take();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other");
    for len in [0, 10, 4_096, 100_000] {
        let bytes = vec![0x5A; len];
        std::fs::write(&path, &bytes).unwrap();
        assert!(shm::join(&path, NodeId(2)).is_err(), "{len} bytes");
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }
    let short = folder.path().join("short");
    drop(shm::create(&short, NodeId(1), Bounds::default()).unwrap());
    let file = std::fs::OpenOptions::new().write(true).open(&short).unwrap();
    file.set_len(8_192).unwrap();
    let refused = shm::join(&short, NodeId(2));
    assert!(matches!(refused, Err(Error::NotAChannel { field: "length", .. })), "{refused:?}");
}

/// Counters and bytes that a mad peer could write, and what then happens: an end, never more.
#[test]
fn a_peer_that_writes_nonsense_ends_the_channel_and_nothing_else() {
    let _turn = crate::turn::take();
    // Words of the joiner: docs/format/wire.md.
    const TAIL: usize = 5_120;
    const HEAD: usize = TAIL + 128;
    const TAKEN: usize = TAIL + 136;
    for (word, value) in
        [(TAIL, u64::MAX), (TAIL, 1 << 40), (HEAD, 1 << 50), (TAKEN, u64::MAX), (HEAD, u64::MAX)]
    {
        let mut offer = shm::create_memfd(NodeId(1), Bounds::default()).unwrap();
        let fd = offer.descriptor().unwrap();
        let backing = Backing::from_fd(fd.try_clone().unwrap(), Access::ReadWrite).unwrap();
        let theirs = shm::join_fd(fd, NodeId(2)).unwrap();
        let ours = offer.accept(PATIENCE).unwrap().unwrap();
        let mapping = Mapping::new(&backing, 8_192, Access::ReadWrite).unwrap();
        mapping.refresh(&backing).unwrap();
        use mainstay_shm::Atomic64;
        mapping.view::<Shared64>(word, 1).unwrap()[0].store(value, Ordering::SeqCst);
        let outcomes = [ours.receive(10 * MS).map(drop), ours.send("x".into())];
        assert!(outcomes.iter().any(Result::is_err), "word at {word} = {value}");
        assert!(outcomes.iter().flatten().count() < 2);
        assert!(!ours.is_open() && ours.send("x".into()).is_err());
        drop(theirs);
    }
    // A ring full of nonsense.
    let mut offer = shm::create_memfd(NodeId(1), Bounds::default()).unwrap();
    let fd = offer.descriptor().unwrap();
    let backing = Backing::from_fd(fd.try_clone().unwrap(), Access::ReadWrite).unwrap();
    let _theirs = shm::join_fd(fd, NodeId(2)).unwrap();
    let ours = offer.accept(PATIENCE).unwrap().unwrap();
    let len = backing.len().unwrap();
    let mapping = Mapping::new(&backing, len, Access::ReadWrite).unwrap();
    mapping.refresh(&backing).unwrap();
    let ring = 8_192 + (len as usize - 8_192) / 2;
    mapping.write(ring, &[0x77; 1_000]).unwrap();
    use mainstay_shm::Atomic64;
    mapping.view::<Shared64>(TAIL, 1).unwrap()[0].store(1_000, Ordering::SeqCst);
    let ended = ours.receive(PATIENCE);
    assert!(matches!(ended, Err(Error::ChannelClosed { why: Why::Protocol(_) })), "{ended:?}");
}
