//! States on a real bus: a `dbus-daemon` that each test starts for itself, and clients that know
//! nothing of this crate.

#![allow(clippy::unwrap_used, reason = "clippy does not see that all of this is a test")]

use mainstay_state::{
    Domain, Error, Hooked, Record, State, StateOptions,
    dbus::{Bus, Exported},
    limits::{DBUS_SIGNAL_VALUE_MAX, DBUS_VALUE_MAX},
};
use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader},
    num::NonZero,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};
use zbus::{Connection, MatchRule, Message, MessageStream, OwnedVariant, block_on, message::Type};

const NAME: &str = "org.example.Test";
const INTERFACE: &str = "org.mainstay.State1";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const PATIENCE: Duration = Duration::from_secs(20);

/// Anybody may connect, and say and hear all there is.
const CONFIG: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path=SOCKET</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
  </policy>
</busconfig>
"#;

/// A bus, and a folder of states.
struct World {
    folder: tempfile::TempDir,
    daemon: Child,
    address: String,
    domain: Domain,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Other users must come through to the socket.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let socket = folder.path().join("bus");
        let config = folder.path().join("bus.conf");
        fs::write(&config, CONFIG.replace("SOCKET", socket.to_str().unwrap())).unwrap();
        let daemon = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--nopidfile", "--nosyslog", "--print-address=1"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut daemon = daemon.unwrap_or_else(|error| {
            panic!("cannot start dbus-daemon ({error}); install it: apt-get install dbus")
        });
        let mut address = String::new();
        BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut address).unwrap();
        assert!(!address.is_empty(), "dbus-daemon has ended; run it by hand with {CONFIG}");
        let address = format!("unix:path={}", socket.display());
        let domain = Domain::open(folder.path().join("states")).unwrap();
        Self { folder, daemon, address, domain }
    }

    fn bus(&self) -> Bus {
        Bus::at(&self.address, NAME).unwrap()
    }

    fn client(&self) -> Client {
        let builder = zbus::connection::Builder::address(self.address.as_str());
        Client { connection: block_on(builder.build()).unwrap() }
    }

    /// Calls a method by a program of the bus itself, as this user.
    fn dbus_send(&self, user: u32, exported: &Exported, call: &[&str]) -> Output {
        let user = user.to_string();
        Command::new("setpriv")
            .args(["--reuid", &user, "--regid", &user, "--clear-groups", "dbus-send"])
            .arg(format!("--bus={}", self.address))
            .args(["--print-reply", &format!("--dest={NAME}"), exported.path()])
            .args(call)
            .output()
            .unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// One on the other side of the bus.
struct Client {
    connection: Connection,
}

type Reply<T> = Result<T, String>;

impl Client {
    fn call<B, R>(&self, path: &str, interface: &str, method: &str, body: &B) -> Reply<R>
    where
        B: serde::Serialize + zbus::DynamicType,
        R: for<'d> zbus::wire::DynamicDeserialize<'d>,
    {
        let call = self.connection.call_method(Some(NAME), path, Some(interface), method, body);
        match block_on(call) {
            Ok(reply) => Ok(reply.body().deserialize().unwrap()),
            Err(zbus::Error::MethodError(name, ..)) => Err(name.to_string()),
            // Of the bus itself.
            Err(error) => Err(error.to_string()),
        }
    }

    fn get(&self, path: &str) -> Reply<(u64, Vec<u8>)> {
        self.call(path, INTERFACE, "Get", &())
    }

    fn set(&self, path: &str, value: &[u8]) -> Reply<u64> {
        self.call(path, INTERFACE, "Set", &(value,))
    }

    fn set_if(&self, path: &str, base: u64, value: &[u8]) -> Reply<u64> {
        self.call(path, INTERFACE, "SetIf", &(base, value))
    }

    fn properties(&self, path: &str) -> Reply<HashMap<String, OwnedVariant>> {
        self.call(path, PROPERTIES, "GetAll", &(INTERFACE,))
    }

    /// The signals of an interface that come from now on, and when.
    fn signals(&self, interface: &'static str) -> Receiver<(Instant, Message)> {
        let rule = MatchRule::builder().msg_type(Type::Signal).interface(interface).build();
        let rule = rule.unwrap();
        let stream = MessageStream::for_match_rule(rule, &self.connection, NonZero::new(4_096));
        let mut stream = block_on(stream).unwrap();
        let (sender, signals) = mpsc::channel();
        thread::spawn(move || {
            block_on(async {
                while let Some(Ok(message)) = next(&mut stream).await {
                    if sender.send((Instant::now(), message)).is_err() {
                        return;
                    }
                }
            });
        });
        signals
    }
}

async fn next(stream: &mut MessageStream) -> Option<zbus::Result<Message>> {
    use futures_core::Stream;
    std::future::poll_fn(|context| std::pin::Pin::new(&mut *stream).poll_next(context)).await
}

fn changed(message: &Message) -> (u64, Vec<u8>) {
    message.body().deserialize().unwrap()
}

fn mode_of(domain: &Domain, name: &str, mode: u32) -> State<[u8]> {
    StateOptions::new().mode(mode).size(8).writer(domain, name).unwrap()
}

#[test]
fn a_state_is_read_and_set_over_the_bus() {
    let world = World::new();
    let state = world.domain.writer::<[u8]>("left.speed").unwrap();
    state.replace(b"80").unwrap();
    let exported = world.bus().export(&state, Duration::ZERO).unwrap();
    let (client, path) = (world.client(), exported.path());
    assert_eq!(path, "/org/mainstay/state/left_2espeed");
    assert_eq!(client.get(path), Ok((1, b"80".to_vec())));
    assert_eq!(client.set(path, b"90"), Ok(2));
    assert_eq!(&*state.read().unwrap(), b"90");
    // Compare and set.
    let conflict = Err("org.mainstay.State1.Error.Conflict".to_owned());
    assert_eq!(client.set_if(path, 1, b"100"), conflict);
    assert_eq!(client.set_if(path, 2, b"100"), Ok(3));
    assert_eq!(client.get(path), Ok((3, b"100".to_vec())));
    assert_eq!(client.set(path, b""), Err("org.mainstay.State1.Error.Size".to_owned()));
    state.delete().unwrap();
    assert_eq!(client.get(path), Err("org.mainstay.State1.Error.Deleted".to_owned()));
}

#[test]
fn the_properties_say_what_the_state_is() {
    #[derive(
        zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout,
    )]
    #[repr(C)]
    struct Pose {
        x: u32,
    }
    impl Record for Pose {
        const NAME: &'static str = "example.pose/1";
        const FIELDS: &'static str = "x: u32";
    }
    let world = World::new();
    let state = world.domain.writer::<Pose>("pose").unwrap();
    state.replace(&Pose { x: 7 }).unwrap();
    let exported = world.bus().export(&state, Duration::ZERO).unwrap();
    let client = world.client();
    let all = client.properties(exported.path()).unwrap();
    let text = |name: &str| String::try_from(all[name].try_clone().unwrap()).unwrap();
    let number = |name: &str| u64::try_from(all[name].try_clone().unwrap()).unwrap();
    assert_eq!(
        (&*text("Name"), &*text("TypeName"), &*text("Fields")),
        ("pose", "example.pose/1", "x: u32")
    );
    assert_eq!((number("Version"), number("Size")), (1, 4));
    let value = Vec::<u8>::try_from(all["Value"].try_clone().unwrap()).unwrap();
    assert_eq!(value, 7_u32.to_le_bytes());
    // Of a typed state nothing else than its type fits.
    let refused = client.set(exported.path(), &[0; 5]);
    assert_eq!(refused, Err("org.mainstay.State1.Error.Size".to_owned()));
    assert_eq!(client.set(exported.path(), &8_u32.to_le_bytes()), Ok(2));
    assert_eq!(state.read().unwrap().x, 8);
}

#[test]
fn a_commit_of_anybody_is_a_signal_with_version_and_value() {
    let world = World::new();
    let state = world.domain.writer::<[u8]>("speed").unwrap();
    let other = world.domain.writer::<[u8]>("speed").unwrap();
    let bus = world.bus();
    let exported = bus.export(&state, Duration::ZERO).unwrap();
    let client = world.client();
    let signals = client.signals(INTERFACE);
    let properties = client.signals(PROPERTIES);
    other.replace(b"80").unwrap();
    let (_, message) = signals.recv_timeout(PATIENCE).unwrap();
    assert_eq!(changed(&message), (1, b"80".to_vec()));
    assert_eq!(message.header().path().unwrap().as_str(), exported.path());
    let (_, message) = properties.recv_timeout(PATIENCE).unwrap();
    let body = message.body();
    let (interface, told, invalidated): (String, HashMap<String, OwnedVariant>, Vec<String>) =
        body.deserialize().unwrap();
    assert_eq!((&*interface, &*invalidated), (INTERFACE, &["Value".to_owned()][..]));
    assert_eq!(u64::try_from(told["Version"].try_clone().unwrap()), Ok(1));
    // A value that is too large for a signal has to be asked for.
    other.replace(&vec![1; DBUS_SIGNAL_VALUE_MAX + 1]).unwrap();
    assert_eq!(changed(&signals.recv_timeout(PATIENCE).unwrap().1), (2, Vec::new()));
    assert_eq!(client.get(exported.path()).unwrap().1.len(), DBUS_SIGNAL_VALUE_MAX + 1);
    // One at the limit is told.
    other.replace(&vec![1; DBUS_SIGNAL_VALUE_MAX]).unwrap();
    let (version, value) = changed(&signals.recv_timeout(PATIENCE).unwrap().1);
    assert_eq!((version, value.len()), (3, DBUS_SIGNAL_VALUE_MAX));
    // Off the bus, silence and no object.
    let path = exported.path().to_owned();
    drop(exported);
    other.replace(b"90").unwrap();
    assert!(signals.recv_timeout(Duration::from_millis(300)).is_err());
    let gone = client.get(&path).unwrap_err();
    assert!(gone.starts_with("org.freedesktop.DBus.Error.Unknown"), "{gone}");
    let again = bus.export(&state, Duration::ZERO).unwrap();
    assert_eq!(client.get(again.path()), Ok((4, b"90".to_vec())));
}

#[test]
fn a_value_of_16_mib_goes_over_a_bus_and_one_byte_more_is_refused() {
    let world = World::new();
    let state = StateOptions::new().slots(3).writer::<[u8]>(&world.domain, "frames").unwrap();
    let exported = world.bus().export(&state, Duration::ZERO).unwrap();
    let (client, path) = (world.client(), exported.path());
    let mut value = vec![7; DBUS_VALUE_MAX];
    state.replace(&value).unwrap();
    assert_eq!(client.get(path), Ok((1, value.clone())));
    value.push(8);
    state.replace(&value).unwrap();
    assert_eq!(client.get(path), Err("org.mainstay.State1.Error.TooLarge".to_owned()));
    // What a message takes can be set, whatever can be read.
    assert_eq!(client.set(path, &value[1..]), Ok(3));
    assert_eq!(client.get(path), Ok((3, value[1..].to_vec())));
}

#[test]
fn v2_a_flat_out_writer_does_not_flood_the_bus() {
    let world = World::new();
    let state = world.domain.writer::<[u8]>("speed").unwrap();
    let writer = state.try_clone().unwrap();
    let interval = Duration::from_millis(50);
    let exported = world.bus().export(&state, interval).unwrap();
    let signals = world.client().signals(INTERFACE);
    let start = Instant::now();
    let mut commits = 0;
    while start.elapsed() < Duration::from_millis(600) {
        commits = writer.replace(&[1; 8]).unwrap();
    }
    // The last one is told too, a while later.
    let mut told = Vec::new();
    while told.last().is_none_or(|(_, version)| *version != commits) {
        let (at, message) = signals.recv_timeout(PATIENCE).unwrap();
        told.push((at, changed(&message).0));
    }
    drop(exported);
    assert!((2..=15).contains(&told.len()), "{} signals of {commits} commits", told.len());
    assert!(told.windows(2).all(|pair| pair[0].1 < pair[1].1), "{told:?}");
}

#[test]
fn a_hook_of_one_s_own_commits_sends_a_signal_for_each() {
    let world = World::new();
    let state = world.domain.writer::<[u8]>("alarm").unwrap();
    let hooked = Hooked::new(world.bus().signals(&state).unwrap());
    let signals = world.client().signals(INTERFACE);
    for turn in 1..=20_u8 {
        hooked.replace(&state, &[turn]).unwrap();
    }
    for turn in 1..=20_u8 {
        let (_, message) = signals.recv_timeout(PATIENCE).unwrap();
        assert_eq!(changed(&message), (turn.into(), vec![turn]));
    }
}

#[test]
fn v1_a_caller_may_over_the_bus_what_it_may_with_the_file() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can call as somebody else");
        return;
    }
    let world = World::new();
    let bus = world.bus();
    let nobody = 65_534;
    for (mode, may_read, may_write) in
        [(0o600, false, false), (0o644, true, false), (0o666, true, true), (0o642, false, false)]
    {
        let state = mode_of(&world.domain, &format!("mode-{mode:o}"), 0o600);
        state.replace(b"12345678").unwrap();
        // Past the umask.
        let file = world.domain.folder().join(format!("{}.state", state.name()));
        fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
        let exported = bus.export(&state, Duration::ZERO).unwrap();
        let get = [&*format!("{INTERFACE}.Get")];
        let set = [&*format!("{INTERFACE}.Set"), "array:byte:1,2"];
        let value = [&*format!("{PROPERTIES}.Get"), &format!("string:{INTERFACE}"), "string:Value"];
        for (call, may) in [(&get[..], may_read), (&set, may_write), (&value, may_read)] {
            let output = world.dbus_send(nobody, &exported, call);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.success(), may, "{mode:o} {call:?}: {said}");
            assert!(may || said.contains(".Error.NotPermitted"), "{said}");
            // Its owner, or root, may anyway.
            assert!(world.dbus_send(0, &exported, call).status.success(), "{mode:o} {call:?}");
        }
    }
}

#[test]
fn v1_a_signal_does_not_carry_to_others_what_they_may_not_read() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can give a file to somebody else");
        return;
    }
    let world = World::new();
    let bus = world.bus();
    let client = world.client();
    let signals = client.signals(INTERFACE);
    // The bus is root's; what belongs to somebody else is not for all on it.
    for (mode, owner, is_told) in [(0o600, 0, true), (0o600, 1_000, false), (0o644, 1_000, true)] {
        let state = mode_of(&world.domain, &format!("mode-{mode:o}-{owner}"), 0o600);
        let file = world.domain.folder().join(format!("{}.state", state.name()));
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        std::os::unix::fs::chown(&file, Some(owner), None).unwrap();
        let exported = bus.export(&state, Duration::ZERO).unwrap();
        state.replace(b"secret").unwrap();
        let (version, value) = changed(&signals.recv_timeout(PATIENCE).unwrap().1);
        let wanted = if is_told { b"secret".to_vec() } else { Vec::new() };
        assert_eq!((version, value), (1, wanted), "{mode:o} of {owner}");
        drop(exported);
    }
}

#[test]
fn who_subscribed_for_reading_exports_what_cannot_be_set() {
    let world = World::new();
    let state = world.domain.writer::<[u8]>("speed").unwrap();
    state.replace(b"80").unwrap();
    // In a process that has it mapped for writing a reader's handle could write too.
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "export_as_a_reader", "--nocapture"])
        .env("DBUS_TEST_ADDRESS", &world.address)
        .env("DBUS_TEST_FOLDER", world.domain.folder())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("read 80, set not permitted"), "{said}");
}

/// Not a test by itself: the process of the one above.
#[test]
fn export_as_a_reader() {
    let Ok(address) = std::env::var("DBUS_TEST_ADDRESS") else { return };
    let folder = std::env::var("DBUS_TEST_FOLDER").unwrap();
    let domain = Domain::open(Path::new(&folder)).unwrap();
    let state = domain.reader::<[u8]>("speed").unwrap();
    let exported = Bus::at(&address, NAME).unwrap().export(&state, Duration::ZERO).unwrap();
    let client = Client {
        connection: block_on(zbus::connection::Builder::address(&*address).build()).unwrap(),
    };
    let (_, value) = client.get(exported.path()).unwrap();
    let refused = client.set(exported.path(), b"90").unwrap_err();
    assert_eq!(refused, "org.mainstay.State1.Error.NotPermitted");
    println!("read {}, set not permitted", String::from_utf8_lossy(&value));
}

#[test]
fn what_the_bus_refuses_is_an_error_that_says_so() {
    let world = World::new();
    let state = world.domain.writer::<[u8]>("speed").unwrap();
    let is_told = |result: Result<(), Error>| matches!(result, Err(Error::Bus { .. }));
    let bus = world.bus();
    let _exported = bus.export(&state, Duration::ZERO).unwrap();
    assert!(is_told(bus.export(&state, Duration::ZERO).map(drop)), "exported twice");
    assert!(is_told(Bus::at(&world.address, NAME).map(drop)), "the name is taken");
    assert!(is_told(Bus::at(&world.address, "no name").map(drop)));
    assert!(is_told(Bus::at("unix:path=/nowhere", NAME).map(drop)));
    // Nothing of the refused was left: the object still answers.
    assert!(world.client().get("/org/mainstay/state/speed").is_ok());
    assert!(world.folder.path().exists());
}
