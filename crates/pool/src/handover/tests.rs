//! The peers here are real sockets and real descriptors. What reads the environment runs in a
//! process of its own: the variables of this one are shared by all its tests.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{Seek, Write},
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Instant,
};

use tempfile::TempDir;

use super::*;

/// A service manager, as far as its notification socket goes.
struct Peer {
    folder: TempDir,
    socket: UnixDatagram,
}

impl Peer {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self { folder, socket }
    }

    fn address(&self) -> PathBuf {
        self.folder.path().join("notify")
    }

    fn manager(&self, timeout: Duration) -> Manager {
        Manager::connect(self.address().as_os_str(), timeout).unwrap()
    }

    fn read(&self) -> (String, Vec<OwnedFd>) {
        let mut text = [0; 1000];
        let (length, fds) = receive_message(self.socket.as_fd(), &mut text).unwrap();
        (String::from_utf8(text[..length].to_vec()).unwrap(), fds)
    }
}

fn memory(content: &str) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file
}

fn content(fd: impl Into<File>) -> String {
    let mut file = fd.into();
    file.rewind().unwrap();
    io::read_to_string(file).unwrap()
}

fn close_on_exec(fd: impl AsFd) -> bool {
    rustix::io::fcntl_getfd(fd).unwrap().contains(rustix::io::FdFlags::CLOEXEC)
}

/// How many descriptors of this process, of those open now, refer to the file behind `fd`.
fn open_copies(file: &File) -> usize {
    let wanted = file.metadata().unwrap();
    let links = fs::read_dir("/proc/self/fd").unwrap();
    let open = links.filter_map(|link| fs::metadata(link.unwrap().path()).ok());
    open.filter(|open| (open.dev(), open.ino()) == (wanted.dev(), wanted.ino())).count()
}

/// Set in a process that runs one test only, to the name of the test.
const ALONE: &str = "MAINSTAY_TEST_ALONE";

/// Runs the rest of the named test in a process of its own, whose environment `setup` prepares.
/// The shell commands in `prelude` run in that process before it becomes the test.
///
/// `None` in the parent, once the child has passed; `Some` in the child.
fn alone(test: &str, prelude: &str, setup: impl FnOnce(&mut Command)) -> Option<()> {
    if env::var(ALONE).is_ok_and(|name| name == test) {
        return Some(());
    }
    let script = format!("{prelude}\nexec \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh"]).arg(env::current_exe().unwrap());
    command.args(["--exact", &format!("handover::tests::{test}"), "--nocapture"]);
    command.env(ALONE, test).env_remove("NOTIFY_SOCKET").env_remove("LISTEN_PID");
    setup(&mut command);
    let output = command.output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}\n{complaint}");
    assert!(printed.contains("1 passed"), "the test is not named {test}: {printed}");
    None
}

/// What a manager does before it starts a service: descriptors from 3 on, their names, its pid.
fn passing(files: &[&Path], names: &str) -> String {
    let mut prelude = String::new();
    for (fd, file) in (3..).zip(files) {
        prelude += &format!("exec {fd}<'{}'\n", file.display());
    }
    prelude + &format!("export LISTEN_PID=$$ LISTEN_FDS={} LISTEN_FDNAMES={names}", files.len())
}

#[test]
fn a_name_the_manager_would_refuse_is_an_error_before_anything_is_sent() {
    let longest = "n".repeat(FD_NAME_BYTES_MAX);
    for allowed in ["p", "pool of calls #1", &*longest] {
        check_name(allowed).unwrap();
    }
    let too_long = "n".repeat(FD_NAME_BYTES_MAX + 1);
    for refused in ["", "a:b", "line\n", "\u{7f}", "größe", &*too_long] {
        assert!(matches!(check_name(refused), Err(HandoverError::FdName { .. })), "{refused:?}");
        assert!(matches!(fdstore_take(refused), Err(HandoverError::FdName { .. })), "{refused:?}");
    }
}

#[test]
fn h1_a_push_returns_only_after_the_manager_has_read_it() {
    let peer = Peer::new();
    let file = memory("blocks");
    let manager = peer.manager(Duration::from_secs(10));
    let confirmed_at = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (request, mut fds) = peer.read();
            assert_eq!(request, "FDSTORE=1\nFDNAME=calls\nFDPOLL=0");
            assert_eq!(fds.len(), 1);
            assert_eq!(content(fds.remove(0)), "blocks");
            let (request, fds) = peer.read();
            assert_eq!((&*request, fds.len()), ("BARRIER=1", 1));
            thread::sleep(Duration::from_millis(50));
            let confirmed_at = Instant::now();
            drop(fds);
            confirmed_at
        });
        manager.push(file.as_fd(), "calls").unwrap();
        let returned_at = Instant::now();
        let confirmed_at = reader.join().unwrap();
        assert!(returned_at > confirmed_at, "it returned before the manager confirmed");
        confirmed_at
    });
    assert!(confirmed_at.elapsed() < Duration::from_secs(9), "it waited for the time-out");
    assert_eq!(open_copies(&file), 1, "the sender kept a copy");
}

#[test]
fn a_remove_names_what_to_forget_and_waits_too() {
    let peer = Peer::new();
    let manager = peer.manager(Duration::from_secs(10));
    thread::scope(|scope| {
        scope.spawn(|| manager.remove("calls").unwrap());
        let (request, fds) = peer.read();
        assert_eq!((&*request, fds.len()), ("FDSTOREREMOVE=1\nFDNAME=calls", 0));
        let (request, fds) = peer.read();
        assert_eq!((&*request, fds.len()), ("BARRIER=1", 1));
    });
}

#[test]
fn h1_a_manager_that_never_confirms_is_a_typed_error() {
    let peer = Peer::new();
    let timeout = Duration::from_millis(50);
    let error = peer.manager(timeout).push(memory("").as_fd(), "calls").unwrap_err();
    let HandoverError::ManagerTimedOut { timeout: waited, .. } = error else { panic!("{error}") };
    assert_eq!(waited, timeout);
}

#[test]
fn h1_a_manager_that_never_reads_is_a_typed_error() {
    let peer = Peer::new();
    let manager = peer.manager(Duration::from_millis(50));
    let full = (0..100_000).find_map(|_| manager.tell("STATUS=filling", &[]).err());
    assert!(matches!(full, Some(HandoverError::ManagerTimedOut { .. })), "{full:?}");
    let error = manager.push(memory("").as_fd(), "calls").unwrap_err();
    assert!(matches!(error, HandoverError::ManagerTimedOut { .. }), "{error}");
}

#[test]
fn an_abstract_address_is_reached() {
    let name = format!("mainstay-handover-{}", process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    let manager = Manager::connect(OsStr::new(&format!("@{name}")), MANAGER_TIMEOUT).unwrap();
    manager.tell("READY=1", &[]).unwrap();
    let mut text = [0; 100];
    let (length, _) = receive_message(socket.as_fd(), &mut text).unwrap();
    assert_eq!(&text[..length], b"READY=1");
}

#[test]
fn an_address_of_another_kind_and_a_socket_that_is_gone_are_typed_errors() {
    for address in ["", "vsock:2:1234", "relative/path"] {
        let error = Manager::connect(OsStr::new(address), MANAGER_TIMEOUT).err();
        assert!(
            matches!(error, Some(HandoverError::ManagerAddress { .. })),
            "{address}: {error:?}"
        );
    }
    let gone = Manager::connect(OsStr::new("/nowhere/notify"), MANAGER_TIMEOUT).err();
    assert!(matches!(gone, Some(HandoverError::System { .. })), "{gone:?}");
}

#[test]
fn without_a_manager_a_push_is_an_error_and_nothing_is_passed() {
    let test = "without_a_manager_a_push_is_an_error_and_nothing_is_passed";
    let Some(()) = alone(test, "", |_| {}) else { return };
    let error = fdstore_push(memory("").as_fd(), "calls").unwrap_err();
    assert!(matches!(error, HandoverError::NotManaged), "{error}");
    assert!(matches!(fdstore_remove("calls"), Err(HandoverError::NotManaged)));
    assert!(fdstore_take("calls").unwrap().is_none());
}

#[test]
fn a_push_goes_to_the_socket_named_in_the_environment() {
    let test = "a_push_goes_to_the_socket_named_in_the_environment";
    let peer = Peer::new();
    thread::scope(|scope| {
        if env::var_os(ALONE).is_none() {
            scope.spawn(|| {
                assert_eq!(peer.read().0, "FDSTORE=1\nFDNAME=calls\nFDPOLL=0");
                assert_eq!(peer.read().0, "BARRIER=1");
            });
        }
        let address = peer.address();
        let set = |command: &mut Command| {
            command.env("NOTIFY_SOCKET", address);
        };
        let Some(()) = alone(test, "", set) else { return };
        fdstore_push(memory("").as_fd(), "calls").unwrap();
    });
}

#[test]
fn h2_h3_each_passed_descriptor_is_handed_out_once_by_name_and_closed_on_exec() {
    let test = "h2_h3_each_passed_descriptor_is_handed_out_once_by_name_and_closed_on_exec";
    let folder = tempfile::tempdir().unwrap();
    let files = ["one", "two", "three", "four"].map(|text| {
        let path = folder.path().join(text);
        fs::write(&path, text).unwrap();
        path
    });
    let files = files.each_ref().map(|path| &**path);
    let prelude = passing(&files, "calls:users:calls:users");
    let Some(()) = alone(test, &prelude, |_| {}) else { return };

    let before: BTreeSet<_> = env::vars_os().collect();
    assert!(fdstore_take("unheard-of").unwrap().is_none());
    let first = fdstore_take("calls").unwrap().unwrap();
    let second = fdstore_take("calls").unwrap().unwrap();
    assert!(close_on_exec(&first) && close_on_exec(&second));
    assert_eq!((first.as_raw_fd(), second.as_raw_fd()), (3, 5));
    assert_eq!((&*content(first), &*content(second)), ("one", "three"));
    assert!(fdstore_take("calls").unwrap().is_none(), "handed out twice");

    let users = fdstore_take_all("users").unwrap();
    assert_eq!(users.into_iter().map(content).collect::<Vec<_>>(), ["two", "four"]);
    assert!(fdstore_take_all("users").unwrap().is_empty(), "handed out twice");
    assert_eq!(env::vars_os().collect::<BTreeSet<_>>(), before, "H4");
}

#[test]
fn h2_what_was_passed_to_another_process_is_not_taken() {
    let test = "h2_what_was_passed_to_another_process_is_not_taken";
    let prelude = passing(&[Path::new("/dev/null")], "calls") + "\nexport LISTEN_PID=1";
    let Some(()) = alone(test, &prelude, |_| {}) else { return };
    assert!(fdstore_take("calls").unwrap().is_none());
}

#[test]
fn h2_a_forked_child_is_offered_nothing_even_after_its_parent_has_asked() {
    let test = "h2_a_forked_child_is_offered_nothing_even_after_its_parent_has_asked";
    let null = Path::new("/dev/null");
    let Some(()) = alone(test, &passing(&[null, null], "calls:users"), |_| {}) else { return };
    assert!(fdstore_take("calls").unwrap().is_some());
    // SAFETY: the child takes one lock that no other thread of this process ever takes, and ends
    // without running anything of the parent's.
    match unsafe { libc::fork() } {
        0 => {
            let nothing = fdstore_take("users").is_ok_and(|fd| fd.is_none());
            // SAFETY: always sound.
            unsafe { libc::_exit(if nothing { 0 } else { 1 }) }
        }
        child => {
            let child = rustix::process::Pid::from_raw(child).expect("fork works");
            let options = rustix::process::WaitOptions::empty();
            let (_, status) = rustix::process::waitpid(Some(child), options).unwrap().unwrap();
            assert_eq!(status.exit_status(), Some(0), "it took what was not its own");
        }
    }
    assert!(fdstore_take("users").unwrap().is_some());
}

#[test]
fn an_announcement_that_does_not_match_the_open_descriptors_is_a_typed_error() {
    let test = "an_announcement_that_does_not_match_the_open_descriptors_is_a_typed_error";
    let null = Path::new("/dev/null");
    let closed = passing(&[null], "calls") + "\nexec 3<&-";
    let names_missing = passing(&[null, null], "calls");
    let not_a_number = passing(&[null], "calls") + "\nexport LISTEN_FDS=many";
    let too_many = passing(&[null], "calls") + "\nexport LISTEN_FDS=4294967295";
    for prelude in [closed, names_missing, not_a_number, too_many] {
        if alone(test, &prelude, |_| {}).is_some() {
            let error = fdstore_take("calls").unwrap_err();
            assert!(matches!(error, HandoverError::PassedFds(_)), "{error}");
            return;
        }
    }
}

#[test]
fn h3_descriptors_travel_with_their_payload_and_arrive_closed_on_exec() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (calls, users) = (memory("calls"), memory("users"));
    send_fds(&ours, b"two pools", &[calls.as_fd(), users.as_fd()]).unwrap();
    let mut payload = [0; 100];
    let (length, fds) = receive_fds(&theirs, &mut payload).unwrap();
    assert_eq!(&payload[..length], b"two pools");
    assert!(fds.iter().all(close_on_exec));
    assert_eq!(fds.into_iter().map(content).collect::<Vec<_>>(), ["calls", "users"]);
}

#[test]
fn a_payload_longer_than_the_socket_buffer_arrives_whole_with_its_descriptors_once() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let sent: Vec<u8> = (0..2_000_000_u32).map(|at| (at % 251) as u8).collect();
    let file = memory("blocks");
    let (mut received, mut fds) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        scope.spawn(|| {
            send_fds(&ours, &sent, &[file.as_fd()]).unwrap();
            ours.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut piece = [0; 10_000];
        loop {
            let (length, more) = receive_fds(&theirs, &mut piece).unwrap();
            if length == 0 {
                break;
            }
            received.extend_from_slice(&piece[..length]);
            fds.extend(more);
        }
    });
    assert!(received == sent);
    assert_eq!(fds.len(), 1);
}

#[test]
fn the_number_of_descriptors_is_limited_on_both_sides_and_none_leaks() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let file = memory("blocks");
    let mut payload = [0; 8];

    let allowed = [file.as_fd(); FDS_PER_MESSAGE_MAX];
    send_fds(&ours, b"x", &allowed).unwrap();
    let (_, fds) = receive_fds(&theirs, &mut payload).unwrap();
    assert_eq!(fds.len(), FDS_PER_MESSAGE_MAX);
    drop(fds);

    let over = [file.as_fd(); FDS_PER_MESSAGE_MAX + 1];
    let error = send_fds(&ours, b"x", &over).unwrap_err();
    assert!(matches!(error, HandoverError::TooManyFds { count: 33, limit: 32 }), "{error}");

    // A peer that does not keep to the limit: one over it, and the most the kernel lets through.
    for count in [FDS_PER_MESSAGE_MAX + 1, 253] {
        let fds = vec![file.as_fd(); count];
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        let payload_sent = [IoSlice::new(b"x")];
        rustix::net::sendmsg(&ours, &payload_sent, &mut control, SendFlags::empty()).unwrap();
        let error = receive_fds(&theirs, &mut payload).unwrap_err();
        assert!(
            matches!(error, HandoverError::TooManyFds { .. } | HandoverError::FdsTruncated { .. }),
            "{count}: {error}"
        );
        assert_eq!(open_copies(&file), 1, "{count}: leaked");
    }
}

#[test]
fn a_peer_that_has_gone_and_an_empty_payload_are_typed_errors() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    assert!(matches!(send_fds(&ours, b"", &[]), Err(HandoverError::EmptyPayload)));
    assert!(matches!(receive_fds(&ours, &mut []), Err(HandoverError::EmptyPayload)));
    drop(theirs);
    let error = send_fds(&ours, b"x", &[memory("").as_fd()]).unwrap_err();
    assert!(matches!(error, HandoverError::System { .. }), "{error}");
    assert_eq!(receive_fds(&ours, &mut [0]).unwrap().0, 0);
}
