//! Passing a pool's descriptor on: to the next run of this service, or to another process.
//!
//! Memory behind a memfd lives as long as somebody holds a descriptor of it. A service that must
//! survive its own restart lets the service manager hold one: `systemd` keeps a *file descriptor
//! store* per unit and gives the descriptors back to the next start, whatever ended the last one.
//! Two living processes pass descriptors over a Unix socket.
//!
//! # Guarantees
//! * H1. When [`fdstore_push`] or [`fdstore_remove`] returns without an error, the manager has read
//!   the request: a kill right afterwards no longer matters. The manager is asked to confirm
//!   (`BARRIER=1`), and waited for no longer than [`MANAGER_TIMEOUT`] at each step.
//! * H2. A passed descriptor is handed out at most once per process, and only in the process the
//!   manager started: a forked child is offered nothing.
//! * H3. Every descriptor handed out is closed on exec, and none is leaked on an error.
//! * H4. The environment is read, never changed: changing it is unsound while other threads run.
//!
//! # What it relies on
//! * The unit allows it: `FileDescriptorStoreMax=` of at least the number of names (the default is
//!   0, and the manager then drops what it is sent *without telling*), and `NotifyAccess=` or
//!   `Type=notify`.
//! * Nobody else closes the descriptors the manager passed, or takes them as theirs, before
//!   [`fdstore_take`]. Take them early. A program that replaces itself by exec in the same process
//!   id removes `LISTEN_PID` first.
//! * The description pushed holds no lease, so that the manager's copy does not keep a dead
//!   process looking alive. A pool's own `as_fd` is such a description.
//!
//! The protocols are those of sd_notify(3) and sd_listen_fds(3).
//!
//! Example: see [`send_fds`] and [`fdstore_push`].

use std::{
    env,
    ffi::OsStr,
    io::{self, IoSlice, IoSliceMut, Read},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram, UnixStream},
        },
    },
    process,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

pub use self::error::HandoverError;

mod error;
#[cfg(test)]
mod tests;

type Result<T, E = HandoverError> = std::result::Result<T, E>;

/// Most bytes in the name of a stored descriptor (a limit of the manager).
///
/// ```
/// use mainstay_pool::handover::{FD_NAME_BYTES_MAX, fdstore_take};
/// assert!(fdstore_take(&"n".repeat(FD_NAME_BYTES_MAX)).is_ok());
/// assert!(fdstore_take(&"n".repeat(FD_NAME_BYTES_MAX + 1)).is_err());
/// ```
pub const FD_NAME_BYTES_MAX: usize = 255;

/// Most descriptors [`send_fds`] sends, and [`receive_fds`] takes, in one message.
///
/// ```
/// use mainstay_pool::handover::{FDS_PER_MESSAGE_MAX, send_fds};
/// use std::os::{fd::AsFd, unix::net::UnixStream};
/// let (ours, _theirs) = UnixStream::pair()?;
/// assert!(send_fds(&ours, b"!", &[ours.as_fd(); FDS_PER_MESSAGE_MAX]).is_ok());
/// assert!(send_fds(&ours, b"!", &[ours.as_fd(); FDS_PER_MESSAGE_MAX + 1]).is_err());
/// # Ok::<(), std::io::Error>(())
/// ```
pub const FDS_PER_MESSAGE_MAX: usize = 32;

/// How long the service manager may take to accept a message, and again to confirm it.
///
/// ```
/// use mainstay_pool::handover::MANAGER_TIMEOUT;
/// println!("a push takes at most twice {MANAGER_TIMEOUT:?}");
/// ```
pub const MANAGER_TIMEOUT: Duration = Duration::from_secs(5);

/// Gives the service manager a duplicate of `fd` to keep under `name`, over the end of this process.
///
/// Names: 1 to [`FD_NAME_BYTES_MAX`] ASCII characters, neither control characters nor `:`. The
/// manager keeps several descriptors of one name; the same description pushed twice is kept once.
/// It is told not to watch the descriptor (`FDPOLL=0`), as it would drop one that reports a hang-up.
///
/// # Errors
/// [`HandoverError::FdName`]; [`HandoverError::NotManaged`] when no manager asked for messages;
/// [`HandoverError::ManagerTimedOut`]; [`HandoverError::System`] for what the system refused.
///
/// ```no_run
/// use mainstay_pool::handover;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let memory = std::fs::File::open("/dev/shm/calls")?;
/// handover::fdstore_push(std::os::fd::AsFd::as_fd(&memory), "calls")?;
/// # Ok(()) }
/// ```
pub fn fdstore_push(fd: BorrowedFd<'_>, name: &str) -> Result<()> {
    check_name(name)?;
    Manager::from_environment()?.push(fd, name)
}

/// Takes back one descriptor stored under `name` by an earlier run, if the manager passed one.
///
/// Asked again, it gives the next descriptor of that name, then `None`.
///
/// # Errors
/// [`HandoverError::FdName`]; [`HandoverError::PassedFds`] when the environment and the open descriptors do not
/// agree.
///
/// ```
/// // Not started by a service manager: nothing was passed.
/// assert!(mainstay_pool::handover::fdstore_take("calls")?.is_none());
/// # Ok::<(), mainstay_pool::handover::HandoverError>(())
/// ```
pub fn fdstore_take(name: &str) -> Result<Option<OwnedFd>> {
    Ok(take_passed(name, 1)?.pop())
}

/// Takes back every descriptor stored under `name` that was not taken yet, in the manager's order.
///
/// # Errors
/// As [`fdstore_take`].
///
/// ```
/// assert!(mainstay_pool::handover::fdstore_take_all("calls")?.is_empty());
/// # Ok::<(), mainstay_pool::handover::HandoverError>(())
/// ```
pub fn fdstore_take_all(name: &str) -> Result<Vec<OwnedFd>> {
    take_passed(name, usize::MAX)
}

/// Makes the service manager forget, and close, what it keeps under `name`.
///
/// Descriptors taken by this process stay open. Removing a name that is not stored is no error: the
/// manager does not tell.
///
/// # Errors
/// As [`fdstore_push`].
///
/// ```no_run
/// mainstay_pool::handover::fdstore_remove("calls")?;
/// # Ok::<(), mainstay_pool::handover::HandoverError>(())
/// ```
pub fn fdstore_remove(name: &str) -> Result<()> {
    check_name(name)?;
    Manager::from_environment()?.remove(name)
}

/// Sends `payload` with duplicates of `fds` over a blocking stream socket.
///
/// A payload longer than the socket's buffer goes out in pieces, the descriptors with the first.
/// At least one byte of payload is needed: a stream carries no descriptor without one.
///
/// # Errors
/// [`HandoverError::EmptyPayload`], [`HandoverError::TooManyFds`]; [`HandoverError::System`] for what the system refused,
/// a peer that has gone included.
///
/// ```
/// use std::{io::{Read, Seek, Write}, os::{fd::AsFd, unix::net::UnixStream}};
/// use mainstay_pool::handover::{receive_fds, send_fds};
///
/// let (old, new) = UnixStream::pair()?;
/// let mut memory = tempfile::tempfile()?;
/// memory.write_all(b"still here")?;
/// send_fds(&old, b"calls", &[memory.as_fd()])?;
///
/// let mut payload = [0; 16];
/// let (length, mut fds) = receive_fds(&new, &mut payload)?;
/// assert_eq!((&payload[..length], fds.len()), (&b"calls"[..], 1));
///
/// let mut same = std::fs::File::from(fds.remove(0));
/// same.rewind()?;
/// let mut text = String::new();
/// same.read_to_string(&mut text)?;
/// assert_eq!(text, "still here");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn send_fds(socket: &UnixStream, payload: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    if payload.is_empty() {
        return Err(HandoverError::EmptyPayload);
    }
    let refused = |source| HandoverError::System { action: "send descriptors", source };
    let mut sent = send_message(socket.as_fd(), payload, fds, refused)?;
    while sent < payload.len() {
        sent += send_message(socket.as_fd(), &payload[sent..], &[], refused)?;
    }
    Ok(())
}

/// Receives the next piece of payload, and the descriptors that came with it, from a stream socket.
///
/// Returns how many bytes of `payload` were filled: as with any stream, perhaps fewer than the peer
/// sent in one call; 0 when the peer has closed.
///
/// Example: see [`send_fds`].
///
/// # Errors
/// [`HandoverError::EmptyPayload`] when there is no room for a byte; [`HandoverError::TooManyFds`] or
/// [`HandoverError::FdsTruncated`] when descriptors were, or would have been, lost: those that did arrive
/// are closed; [`HandoverError::System`] for what the system refused.
///
/// See [`send_fds`] for an example.
pub fn receive_fds(socket: &UnixStream, payload: &mut [u8]) -> Result<(usize, Vec<OwnedFd>)> {
    if payload.is_empty() {
        return Err(HandoverError::EmptyPayload);
    }
    receive_message(socket.as_fd(), payload)
}

fn check_name(name: &str) -> Result<()> {
    let fault = if name.is_empty() {
        "it is empty"
    } else if name.len() > FD_NAME_BYTES_MAX {
        "it is longer than 255 bytes"
    } else if name.contains(':') {
        "it contains ':', which separates names in LISTEN_FDNAMES"
    } else if !name.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
        "it contains a control character or one that is not ASCII"
    } else {
        return Ok(());
    };
    Err(HandoverError::FdName { name: name.to_owned(), fault })
}

/// The service manager's end of the notification socket.
struct Manager {
    socket: UnixDatagram,
    timeout: Duration,
}

impl Manager {
    fn from_environment() -> Result<Self> {
        let address = env::var_os("NOTIFY_SOCKET").ok_or(HandoverError::NotManaged)?;
        Self::connect(&address, MANAGER_TIMEOUT)
    }

    /// `address` is a path, or `@` and an abstract name. (`sd-notify` knows no abstract names and
    /// waits without limit on a manager that does not read, hence a socket of our own.)
    fn connect(address: &OsStr, timeout: Duration) -> Result<Self> {
        let refused =
            |source| HandoverError::System { action: "reach the service manager's socket", source };
        let to = match address.as_bytes() {
            [b'/', ..] => SocketAddr::from_pathname(address),
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
            _ => return Err(HandoverError::ManagerAddress { address: address.to_owned() }),
        };
        let socket = UnixDatagram::unbound().map_err(refused)?;
        socket.connect_addr(&to.map_err(refused)?).map_err(refused)?;
        socket.set_write_timeout(Some(timeout)).map_err(refused)?;
        Ok(Self { socket, timeout })
    }

    fn push(&self, fd: BorrowedFd<'_>, name: &str) -> Result<()> {
        self.tell(&format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0"), &[fd])?;
        self.confirm()
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.tell(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[])?;
        self.confirm()
    }

    /// Waits until the manager has worked off what it was told before. It says so by closing the
    /// descriptor that comes with `BARRIER=1`, which ends the stream on our side.
    fn confirm(&self) -> Result<()> {
        let refused = |source| self.refused("wait for the service manager", source);
        let (ours, theirs) = UnixStream::pair().map_err(refused)?;
        self.tell("BARRIER=1", &[theirs.as_fd()])?;
        drop(theirs);
        ours.set_read_timeout(Some(self.timeout)).map_err(refused)?;
        retry_interrupted(|| (&ours).read(&mut [0])).map_err(refused)?;
        Ok(())
    }

    /// A datagram goes as a whole or not at all.
    fn tell(&self, message: &str, fds: &[BorrowedFd<'_>]) -> Result<()> {
        let refused = |source| self.refused("send to the service manager", source);
        send_message(self.socket.as_fd(), message.as_bytes(), fds, refused).map(drop)
    }

    fn refused(&self, action: &'static str, source: io::Error) -> HandoverError {
        match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                HandoverError::ManagerTimedOut { action, timeout: self.timeout }
            }
            _ => HandoverError::System { action, source },
        }
    }
}

/// What the manager passed to a process and nobody took yet.
struct Passed {
    /// The process it was passed to. A forked child inherits the table, but it is not for it (H2).
    process: u32,
    untaken: Vec<(RawFd, String)>,
}

/// Filled at the first question. Numbers are removed as they are handed out, so that none ever has
/// two owners (H2).
static PASSED: Mutex<Option<Passed>> = Mutex::new(None);

fn take_passed(name: &str, limit: usize) -> Result<Vec<OwnedFd>> {
    check_name(name)?;
    // A panic while the lock is held leaves the table whole: entries go one by one.
    let mut passed = PASSED.lock().unwrap_or_else(PoisonError::into_inner);
    let passed = match &mut *passed {
        Some(passed) => passed,
        none => none.insert(read_passed()?),
    };
    if passed.process != process::id() {
        return Ok(Vec::new());
    }
    let taken = passed.untaken.extract_if(.., |(_, theirs)| theirs == name).take(limit);
    // SAFETY: the manager opened this descriptor for this very process (LISTEN_PID was compared),
    // it was open when the table was read, and it has just left the table, so it is owned once.
    Ok(taken.map(|(fd, _)| unsafe { OwnedFd::from_raw_fd(fd) }).collect())
}

/// Reads `LISTEN_PID`, `LISTEN_FDS` and `LISTEN_FDNAMES`, and sets close-on-exec on each
/// descriptor, which also shows that it is open.
fn read_passed() -> Result<Passed> {
    let numbers = sd_notify::listen_fds().map_err(HandoverError::PassedFds)?;
    let names = env::var("LISTEN_FDNAMES");
    let names: Vec<_> = match &names {
        // Another process's: its children inherit the variables, not the descriptors.
        _ if numbers.len() == 0 => Vec::new(),
        Ok(names) => names.split(':').collect(),
        // A manager that gives no names at all. The word is that of sd_listen_fds(3).
        Err(_) => vec!["unknown"; numbers.len()],
    };
    if names.len() != numbers.len() {
        let fault = format!("{} descriptors, but {} names", numbers.len(), names.len());
        return Err(HandoverError::PassedFds(io::Error::new(io::ErrorKind::InvalidInput, fault)));
    }
    let untaken = numbers.zip(names.into_iter().map(str::to_owned)).collect();
    Ok(Passed { process: process::id(), untaken })
}

fn send_message(
    socket: BorrowedFd<'_>,
    payload: &[u8],
    fds: &[BorrowedFd<'_>],
    refused: impl Fn(io::Error) -> HandoverError,
) -> Result<usize> {
    if fds.len() > FDS_PER_MESSAGE_MAX {
        return Err(HandoverError::TooManyFds { count: fds.len(), limit: FDS_PER_MESSAGE_MAX });
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_PER_MESSAGE_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        let fits = control.push(SendAncillaryMessage::ScmRights(fds));
        assert!(fits, "the buffer is made for the limit checked above");
    }
    // NOSIGNAL: a peer that has gone is an error to report, not a signal that ends the host program.
    let send = || {
        let payload = [IoSlice::new(payload)];
        Ok(rustix::net::sendmsg(socket, &payload, &mut control, SendFlags::NOSIGNAL)?)
    };
    retry_interrupted(send).map_err(refused)
}

fn receive_message(socket: BorrowedFd<'_>, payload: &mut [u8]) -> Result<(usize, Vec<OwnedFd>)> {
    // Credentials are not asked for, but come unasked on a socket set to pass them: leave room, lest
    // they push descriptors out.
    const SPACE: usize = rustix::cmsg_space!(ScmRights(FDS_PER_MESSAGE_MAX), ScmCredentials(1));
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let receive = || {
        let mut payload = [IoSliceMut::new(payload)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        Ok(rustix::net::recvmsg(socket, &mut payload, &mut control, flags)?)
    };
    let message = retry_interrupted(receive)
        .map_err(|source| HandoverError::System { action: "receive descriptors", source })?;

    // Owned from here on: every return below closes what it does not hand out (H3).
    let mut fds = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(arrived) = part {
            fds.extend(arrived);
        }
    }
    // The spare room above and the padding of control data can hold a few more than the limit, so
    // that a message over it does not always count as truncated.
    if fds.len() > FDS_PER_MESSAGE_MAX {
        return Err(HandoverError::TooManyFds { count: fds.len(), limit: FDS_PER_MESSAGE_MAX });
    }
    if message.flags.contains(ReturnFlags::CTRUNC) {
        return Err(HandoverError::FdsTruncated { arrived: fds.len(), limit: FDS_PER_MESSAGE_MAX });
    }
    Ok((message.bytes, fds))
}

fn retry_interrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
