//! A state as an object on D-Bus: for programs that have a bus, and no shared memory.
//!
//! V1. Nobody gets by the bus what the permissions of the state's file do not give them: a caller
//!     reads or writes as if it had opened the file itself, by the user and groups that the bus knows
//!     it by. A signal goes to all, so it carries the value only where all on that bus may read it.
//! V2. A writer at full speed sends no more than a signal every interval, and waits for none.
//!
//! The interface is `org.mainstay.State1`, the path `/org/mainstay/state/` and the name of the state,
//! with `_` and two hexadecimal digits for every character that a path does not allow:
//!
//! | member | | what |
//! |---|---|---|
//! | `Get() -> (t version, ay value)` | method | the newest version |
//! | `Set(ay value) -> t version` | method | replaces the value |
//! | `SetIf(t base, ay value) -> t version` | method | replaces that very version, or fails with `Conflict` |
//! | `Changed(t version, ay value)` | signal | a newer version; an empty value means: `Get` it |
//! | `Name`, `TypeName`, `Fields`: `s` | properties | what never changes |
//! | `Version`: `t`, `Value`: `ay`, `Size`: `t` | properties | what is there now; `PropertiesChanged` tells of the first, and that the second is new |
//!
//! Errors begin with `org.mainstay.State1.Error.`: `NotPermitted`, `Conflict`, `Size`, `Deleted`,
//! `TooLarge`, `Failed`.
//!
//! Source: the D-Bus specification, version 0.43.

use crate::{
    Commit, CommitHook, Error, Follower, Result, State,
    limits::{DBUS_SIGNAL_VALUE_MAX, DBUS_VALUE_MAX},
    value::Value,
};
use std::{
    collections::HashMap,
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use zbus::{
    Connection, DBusError, ObjectPath, Variant, block_on, connection::Builder, fdo::DBusProxy,
    interface, message::Header, names::InterfaceName, object_server::SignalEmitter,
};

/// The name of the interface.
const INTERFACE: &str = "org.mainstay.State1";
/// What the paths of all states begin with.
const ROOT: &str = "/org/mainstay/state/";
/// How the bus itself is called.
const DAEMON: &str = "org.freedesktop.DBus";

/// A connection to a bus, under a name that others find it by. Cheap to clone; states that were
/// exported by it stay on the bus as long as their [`Exported`] lives.
///
/// ```no_run
/// use mainstay_state::{Domain, dbus::Bus};
/// use std::time::Duration;
///
/// let speed = Domain::user()?.writer::<[u8]>("speed")?;
/// let bus = Bus::session("org.example.Car")?;
/// let _exported = bus.export(&speed, Duration::from_millis(100))?;
/// // busctl --user call org.example.Car /org/mainstay/state/speed org.mainstay.State1 Get
/// # Ok::<(), mainstay_state::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Bus {
    connection: Connection,
}

impl Bus {
    /// The bus of the user's session.
    ///
    /// Example: see [`Bus`].
    ///
    /// # Errors
    /// `Bus` when there is none, or the name is taken or not one that a bus allows.
    pub fn session(name: &str) -> Result<Self> {
        Self::connect(Builder::session(), name)
    }

    /// The bus of the system, whose policy says who may have which name.
    ///
    /// Example: see [`Bus`].
    ///
    /// # Errors
    /// As [`Bus::session`].
    pub fn system(name: &str) -> Result<Self> {
        Self::connect(Builder::system(), name)
    }

    /// The bus at an address, such as `unix:path=/run/bus`.
    ///
    /// Example: see [`Bus`].
    ///
    /// # Errors
    /// As [`Bus::session`].
    pub fn at(address: &str, name: &str) -> Result<Self> {
        Self::connect(Builder::address(address), name)
    }

    fn connect(builder: Builder<'_>, name: &str) -> Result<Self> {
        // Who has the name keeps it, and so do we.
        let builder = builder.allow_name_replacements(false).replace_existing_names(false);
        let connection = block_on(builder.name(name).build());
        let connection = connection.map_err(failed("connect to the bus and take the name"))?;
        Ok(Self { connection })
    }

    /// Puts a state on the bus, and sends a signal when it has changed, by whichever process: at most
    /// one every `interval`, with the newest version. Who subscribed for reading only exports a state
    /// that cannot be set.
    ///
    /// Example: see [`Bus`].
    ///
    /// # Errors
    /// `Bus` when this connection has exported it already, or is broken; else as [`State::follow`].
    pub fn export<T: Value + ?Sized>(
        &self,
        state: &State<T>,
        interval: Duration,
    ) -> Result<Exported> {
        let bytes = State::<[u8]>::new(state.memory().clone())?;
        let follower = bytes.follow(interval, self.signals(state)?)?;
        let path = path_of(state.name());
        let object = Object { state: Mutex::new(bytes) };
        let placed = block_on(self.connection.object_server().at(path.as_str(), object));
        match placed.map_err(failed("put an object on the bus"))? {
            None => {}
            Some(_) => return Err(failed("put an object on the bus")(zbus::Error::NameTaken)),
        }
        Ok(Exported { connection: self.connection.clone(), path, follower: Some(follower) })
    }

    /// A hook that sends the signal, and no more: one for each commit that it is told of. Where there
    /// may be many, have it called by [`State::follow`], as [`Bus::export`] does.
    ///
    /// ```no_run
    /// # use mainstay_state::{Domain, Hooked, dbus::Bus};
    /// let alarm = Domain::user()?.writer::<[u8]>("alarm")?;
    /// let hooked = Hooked::new(Bus::system("org.example.Car")?.signals(&alarm)?);
    /// hooked.replace(&alarm, b"door open")?; // has been sent when this returns
    /// # Ok::<(), mainstay_state::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Bus` when the connection is broken; `Durable` when the state's file cannot be looked at.
    pub fn signals<T: Value + ?Sized>(&self, state: &State<T>) -> Result<Signals> {
        let path = ObjectPath::try_from(path_of(state.name()));
        let path = path.map_err(failed("name an object"))?;
        let with_value = block_on(all_may_read(&self.connection, &Rights::of(state)?));
        let emitter = SignalEmitter::from_parts(self.connection.clone(), path);
        Ok(Signals { emitter, with_value })
    }
}

fn failed(action: &'static str) -> impl Fn(zbus::Error) -> Error {
    move |source| Error::Bus { action, source: Box::new(source) }
}

/// The object of a state: letters and digits stand for themselves.
fn path_of(name: &str) -> String {
    let mut path = String::from(ROOT);
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() {
            path.push(byte.into());
        } else {
            path.push_str(&format!("_{byte:02x}"));
        }
    }
    path
}

/// A state that is on a bus as long as this lives.
///
/// Example: see [`Bus`].
#[derive(Debug)]
#[must_use = "the state is on the bus as long as this lives"]
pub struct Exported {
    connection: Connection,
    path: String,
    follower: Option<Follower>,
}

impl Exported {
    /// The path of its object.
    ///
    /// ```no_run
    /// # use mainstay_state::{Domain, dbus::Bus};
    /// # let speed = Domain::user()?.writer::<[u8]>("left.speed")?;
    /// let exported = Bus::session("org.example.Car")?.export(&speed, std::time::Duration::ZERO)?;
    /// assert_eq!(exported.path(), "/org/mainstay/state/left_2espeed");
    /// # Ok::<(), mainstay_state::Error>(())
    /// ```
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl Drop for Exported {
    fn drop(&mut self) {
        // First what sends, then what is called. A bus that is gone has no objects.
        drop(self.follower.take());
        let _ = block_on(self.connection.object_server().remove::<Object, _>(self.path.as_str()));
    }
}

/// Sends the signal of a state for each commit.
///
/// Example: see [`Bus::signals`].
#[derive(Debug)]
pub struct Signals {
    emitter: SignalEmitter<'static>,
    /// Whether all on the bus may know the value (V1).
    with_value: bool,
}

impl Signals {
    async fn send(&self, commit: &Commit<'_>) -> zbus::Result<()> {
        let is_told = self.with_value && commit.value.len() <= DBUS_SIGNAL_VALUE_MAX;
        let value = if is_told { commit.value } else { &[] };
        Object::changed(&self.emitter, commit.version, value).await?;
        let changed = HashMap::from([("Version", Variant::from(commit.version))]);
        let interface = InterfaceName::from_static_str_unchecked(INTERFACE);
        let invalidated = ["Value"][..].into();
        zbus::fdo::Properties::properties_changed(&self.emitter, interface, changed, invalidated)
            .await
    }
}

impl CommitHook for Signals {
    fn committed(&mut self, commit: &Commit<'_>) {
        // A signal that cannot be sent has nobody to hear it: the bus is gone.
        let _ = block_on(self.send(commit));
    }
}

/// What a caller is told that is not served.
#[derive(DBusError, Debug)]
#[zbus(prefix = "org.mainstay.State1.Error")]
enum Refused {
    #[zbus(error)]
    Bus(zbus::Error),
    NotPermitted(String),
    Conflict(String),
    Size(String),
    Deleted(String),
    TooLarge(String),
    Failed(String),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::NotPermitted { .. } => Self::NotPermitted(text),
            Error::Conflict { .. } | Error::RetriesExhausted { .. } => Self::Conflict(text),
            Error::Size { .. } => Self::Size(text),
            Error::Deleted { .. } => Self::Deleted(text),
            _ => Self::Failed(text),
        }
    }
}

/// The permissions of a state's file.
#[derive(Clone, Copy, Debug)]
struct Rights {
    user: u32,
    group: u32,
    mode: u32,
}

const READ: u32 = 4;
const READ_WRITE: u32 = 6;

impl Rights {
    fn of<T: Value + ?Sized>(state: &State<T>) -> Result<Self> {
        let backing = &state.memory().backing;
        let about = rustix::fs::fstat(backing).map_err(|error| Error::Durable {
            path: Path::new(std::ffi::OsStr::from_bytes(backing.describe().as_bytes())).into(),
            action: "look at the permissions of the file",
            source: error.into(),
        })?;
        Ok(Self { user: about.st_uid, group: about.st_gid, mode: about.st_mode })
    }

    /// Whether this user may do that: by the first class that it belongs to, as a file has it.
    fn allow(self, user: u32, groups: &[u32], wanted: u32) -> bool {
        let bits = if user == 0 {
            READ_WRITE
        } else if user == self.user {
            self.mode >> 6
        } else if groups.contains(&self.group) {
            self.mode >> 3
        } else {
            self.mode
        };
        bits & wanted == wanted
    }
}

/// Whether everybody on a bus may read: by the file, or because it is the bus of the file's owner.
async fn all_may_read(connection: &Connection, rights: &Rights) -> bool {
    if rights.mode & READ != 0 {
        return true;
    }
    let Ok(daemon) = DBusProxy::new(connection).await else { return false };
    let Ok(name) = DAEMON.try_into() else { return false };
    daemon.get_connection_unix_user(name).await.is_ok_and(|user| user == rights.user)
}

/// What is called.
#[derive(Debug)]
struct Object {
    state: Mutex<State<[u8]>>,
}

impl Object {
    fn with<R>(&self, act: impl FnOnce(&State<[u8]>) -> Result<R, Refused>) -> Result<R, Refused> {
        // A panic elsewhere leaves a handle as it was.
        act(&self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Fails unless whoever has sent this may do that with the file (V1).
    async fn permit(
        &self,
        header: Option<&Header<'_>>,
        connection: &Connection,
        wanted: u32,
    ) -> Result<(), Refused> {
        let (rights, name) =
            self.with(|state| Ok((Rights::of(state)?, state.name().to_owned())))?;
        let Some(sender) = header.and_then(Header::sender) else {
            return Err(Refused::NotPermitted(format!("{name}: the bus does not say who asks")));
        };
        let daemon = DBusProxy::new(connection).await?;
        let caller = daemon.get_connection_credentials(sender.clone().into()).await;
        let caller = caller.map_err(|error| Refused::Failed(error.to_string()))?;
        let groups = caller.unix_group_ids().map_or(&[][..], Vec::as_slice);
        let is_allowed =
            caller.unix_user_id().is_some_and(|user| rights.allow(user, groups, wanted));
        if is_allowed {
            return Ok(());
        }
        let what = if wanted == READ { "read" } else { "write" };
        Err(Refused::NotPermitted(format!(
            "{name}: you may not {what} its file; ask its owner to change the file's permissions"
        )))
    }

    fn newest(&self) -> Result<(u64, Vec<u8>), Refused> {
        self.with(|state| {
            let snapshot = state.read()?;
            if snapshot.len() > DBUS_VALUE_MAX {
                return Err(Refused::TooLarge(format!(
                    "{}: has {} bytes, and a message takes {DBUS_VALUE_MAX}; read it from shared memory",
                    state.name(),
                    snapshot.len()
                )));
            }
            Ok((snapshot.version(), snapshot.to_vec()))
        })
    }
}

#[interface(name = "org.mainstay.State1")]
impl Object {
    /// The newest version, and its number.
    #[zbus(out_args("version", "value"))]
    async fn get(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(u64, Vec<u8>), Refused> {
        self.permit(Some(&header), connection, READ).await?;
        self.newest()
    }

    /// Makes this the next version, whatever is current; returns its number.
    #[zbus(out_args("version"))]
    async fn set(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
        value: Vec<u8>,
    ) -> Result<u64, Refused> {
        self.permit(Some(&header), connection, READ_WRITE).await?;
        self.with(|state| Ok(state.replace(&value)?))
    }

    /// Makes this the version after `base`, if that is still current; returns its number.
    #[zbus(out_args("version"))]
    async fn set_if(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
        base: u64,
        value: Vec<u8>,
    ) -> Result<u64, Refused> {
        self.permit(Some(&header), connection, READ_WRITE).await?;
        self.with(|state| {
            let mut transaction = state.begin()?;
            if transaction.base_version() != base {
                return Err(Error::Conflict { state: state.name().into() }.into());
            }
            transaction.resize(value.len())?;
            transaction.bytes_mut()?.copy_from_slice(&value);
            Ok(transaction.commit()?)
        })
    }

    /// There is a newer version.
    #[zbus(signal)]
    async fn changed(emitter: &SignalEmitter<'_>, version: u64, value: &[u8]) -> zbus::Result<()>;

    /// The name of the state.
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> Result<String, Refused> {
        self.with(|state| Ok(state.name().to_owned()))
    }

    /// The name of its type; empty for bytes.
    #[zbus(property(emits_changed_signal = "const"))]
    fn type_name(&self) -> Result<String, Refused> {
        self.with(|state| Ok(state.memory().header.type_name()))
    }

    /// The fields of its type.
    #[zbus(property(emits_changed_signal = "const"))]
    fn fields(&self) -> Result<String, Refused> {
        self.with(|state| Ok(state.memory().header.fields()))
    }

    /// The number of the newest version.
    #[zbus(property)]
    fn version(&self) -> Result<u64, Refused> {
        self.with(|state| Ok(state.version()?))
    }

    /// How many bytes the newest version has.
    #[zbus(property(emits_changed_signal = "false"))]
    fn size(&self) -> Result<u64, Refused> {
        self.with(|state| Ok(state.size()? as u64))
    }

    /// The newest version.
    #[zbus(property(emits_changed_signal = "invalidates"))]
    async fn value(
        &self,
        #[zbus(header)] header: Option<Header<'_>>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<u8>, Refused> {
        self.permit(header.as_ref(), connection, READ).await?;
        Ok(self.newest()?.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_state_says_its_name_and_no_two_names_have_one() {
        assert_eq!(path_of("speed"), "/org/mainstay/state/speed");
        assert_eq!(path_of("left.speed-2_x"), "/org/mainstay/state/left_2espeed_2d2_5fx");
        assert_ne!(path_of("a.b"), path_of("a_2eb"));
        assert!(ObjectPath::try_from(path_of("1.A-z_9")).is_ok());
    }

    #[test]
    fn v1_a_caller_may_what_the_first_class_of_the_file_that_it_is_in_may() {
        let rights = Rights { user: 1_000, group: 50, mode: 0o100_640 };
        assert!(rights.allow(1_000, &[], READ_WRITE) && rights.allow(0, &[], READ_WRITE));
        assert!(rights.allow(1_001, &[7, 50], READ) && !rights.allow(1_001, &[50], READ_WRITE));
        assert!(!rights.allow(1_001, &[7], READ));
        // The owner's own class counts, also where others may more.
        let odd = Rights { mode: 0o100_066, ..rights };
        assert!(!odd.allow(1_000, &[50], READ) && odd.allow(1_001, &[], READ_WRITE));
    }
}
