//! Real processes, killed at any moment: no message that was delivered is lost, and none is
//! delivered twice to an application that keeps the number of what it has processed.
//!
//! A child takes part in a channel whose changes are in a pool, or in a store. Its application is a
//! file: a line a message it has processed, each written by one system call. The parent kills the
//! child again and again; each life is sent all messages so far from the first on and some that are
//! new, again and again until it is killed, as by a network that repeats everything. So each kill
//! hits a life in its middle, however fast the machine is.

#![cfg(all(feature = "pool", feature = "store"))]
#![allow(clippy::unwrap_used, reason = "helpers of tests; a test may fail at any of them")]

use std::{
    collections::BTreeSet,
    env,
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use mainstay_base::Rng;
use mainstay_sds::{
    Channel, Config, Keep, Now, Output, Reason,
    persist::{Durability, Persistence, PoolPersistence, StorePersistence},
};

const FOLDER: &str = "MAINSTAY_SDS_CRASH_FOLDER";
/// Which kind of place the child keeps its changes in.
const PLACE: &str = "MAINSTAY_SDS_CRASH_PLACE";
/// How many messages a child is sent, and again and again; without it, all of them once.
const UP_TO: &str = "MAINSTAY_SDS_CRASH_UP_TO";
/// What a child says when the conversation is made and its life begins.
const BORN: &str = "born";
const MESSAGES: u64 = 600;
const KILLS: u64 = 40;
const NOW: Now = Now { mono_ms: 1000, wall_ms: 1_760_000_000_000 };

fn config(keeps: bool) -> Config {
    let mut config = Config::lip();
    // Small, so that messages leave it; large enough that what a life sends does not make what the
    // next one receives too old.
    (config.history, config.outgoing_max) = (150, 8192);
    config.sync = false;
    if keeps {
        (config.keep, config.confirm) = (Keep::Durable, true);
    }
    config
}

/// What Alice says, in an order that makes Bob wait now and then.
fn conversation() -> Vec<Vec<u8>> {
    let mut alice = Channel::new("room", b"alice", config(false)).unwrap();
    let mut all = Vec::new();
    for number in 0..MESSAGES {
        alice.send(NOW.after(number), format!("m{number}").as_bytes(), b"content").unwrap();
        while let Some(output) = alice.poll_output() {
            if let Output::Broadcast(broadcast) = output {
                all.push(broadcast.bytes.to_vec());
            }
        }
    }
    for pair in all.chunks_mut(3) {
        pair.reverse();
    }
    all
}

/// The lines of a file that are whole.
fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_inclusive('\n')
        .filter_map(|line| line.strip_suffix('\n'))
        .map(str::to_owned)
        .collect()
}

fn append(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).unwrap()
}

/// The place of that kind in a folder.
fn place(kind: &str, folder: &Path) -> Box<dyn Persistence> {
    let open = || -> mainstay_sds::Result<Box<dyn Persistence>> {
        match kind {
            "pool" => Ok(Box::new(PoolPersistence::open(folder, "sds")?)),
            // A process dies here, and no system: what the system has is there.
            "store" => {
                let folder = folder.join("store");
                Ok(Box::new(StorePersistence::open(folder, Durability::Memory)?))
            }
            kind => panic!("{kind} is no place"),
        }
    };
    // The lock of one that was killed is let go of a moment after its death.
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match open() {
            Ok(place) => return place,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        sleep(Duration::from_millis(1));
    }
}

struct Life {
    channel: Channel,
    place: Box<dyn Persistence>,
    processed: File,
    done: u64,
    sent: File,
}

impl Life {
    fn begin(kind: &str, folder: &Path) -> Self {
        let (processed, sent) = (folder.join("processed"), folder.join("sent"));
        let mut place = place(kind, folder);
        let saved = place.load("room").unwrap();
        let channel = Channel::load("room", b"bob", config(true), NOW, &saved).unwrap();
        let done = lines(&processed).len() as u64;
        let mut life =
            Self { channel, place, processed: append(&processed), done, sent: append(&sent) };
        // The application knows what it has processed; what it has not comes again.
        life.channel.confirm(done).unwrap();
        life.drain();
        life
    }

    fn drain(&mut self) {
        loop {
            let (mut confirmed, mut kept) = (None, None);
            match self.channel.poll_output() {
                None => return,
                Some(Output::Persist(change)) => {
                    self.place.save("room", &change).unwrap();
                    kept = Some(change.number);
                }
                Some(Output::Deliver(delivery)) => {
                    if delivery.number > self.done {
                        let id = String::from_utf8_lossy(delivery.id);
                        let line = format!("{} {id}\n", delivery.number);
                        self.processed.write_all(line.as_bytes()).unwrap();
                        self.done = delivery.number;
                    }
                    confirmed = Some(delivery.number);
                }
                Some(Output::Broadcast(broadcast)) if broadcast.reason == Reason::Content => {
                    let id = String::from_utf8_lossy(broadcast.id);
                    self.sent.write_all(format!("{id}\n").as_bytes()).unwrap();
                }
                Some(_) => {}
            }
            if let Some(number) = confirmed {
                self.channel.confirm(number).unwrap();
            }
            if let Some(number) = kept {
                self.channel.persisted(number);
            }
        }
    }
}

/// One life; runs until it is killed, or when it is sent everything, to its end.
#[test]
fn a_life_of_the_child() {
    let Some(folder) = env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let up_to = env::var(UP_TO).ok().map(|number| number.parse::<usize>().unwrap());
    let conversation = conversation();
    println!("{BORN}");
    let mut life = Life::begin(&env::var(PLACE).unwrap(), folder);
    let born = lines(&folder.join("sent")).len();
    for (number, bytes) in conversation.iter().take(up_to.unwrap_or(usize::MAX)).enumerate() {
        life.channel.receive(NOW, bytes).unwrap();
        life.drain();
        if number % 200 == 100 {
            let id = format!("b{born}-{number}-{}", std::process::id());
            life.channel.send(NOW, id.as_bytes(), b"mine").unwrap();
            life.drain();
        }
    }
    while let Some(up_to) = up_to {
        for bytes in &conversation[..up_to] {
            life.channel.receive(NOW, bytes).unwrap();
            life.drain();
        }
    }
    fs::write(folder.join("through"), b"").unwrap();
}

/// A child whose life has just begun.
fn start(kind: &str, folder: &Path, up_to: Option<u64>) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "a_life_of_the_child", "--nocapture"]);
    command.env(FOLDER, folder).env(PLACE, kind);
    if let Some(up_to) = up_to {
        command.env(UP_TO, up_to.to_string());
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    // The line may have something of the harness of tests in front.
    let mut said = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    assert!(
        said.any(|line| line.unwrap().ends_with(BORN)),
        "the child ended before its life began"
    );
    child
}

#[test]
fn a_process_killed_at_any_moment_loses_no_delivery_and_delivers_none_twice() {
    killed_again_and_again("pool");
}

#[test]
fn a_process_with_a_store_killed_at_any_moment_loses_no_delivery_and_delivers_none_twice() {
    killed_again_and_again("store");
}

fn killed_again_and_again(kind: &str) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut rng = Rng::seeded(seed);
    let mut in_the_middle = 0;
    for life in 1..=KILLS {
        let up_to = MESSAGES * life / KILLS;
        let mut child = start(kind, folder, Some(up_to));
        // As many kills while it loads and takes what is new, which is soon over, as later.
        let longest = if rng.below(2) == 0 { 3_000 } else { 30_000 };
        sleep(Duration::from_micros(rng.below(longest)));
        assert!(child.try_wait().unwrap().is_none(), "life {life} ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();
        in_the_middle += u64::from((lines(&folder.join("processed")).len() as u64) < up_to);
    }
    println!("{in_the_middle} of {KILLS} were killed before they had everything");
    let mut child = start(kind, folder, None);
    let deadline = Instant::now() + Duration::from_secs(60);
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "the last life does not end");
        sleep(Duration::from_millis(10));
    }
    assert!(child.wait().unwrap().success());
    assert!(folder.join("through").exists());

    let processed = lines(&folder.join("processed"));
    let mut seen = BTreeSet::new();
    for (index, line) in processed.iter().enumerate() {
        let (number, id) = line.split_once(' ').unwrap();
        assert_eq!(number.parse::<usize>().unwrap(), index + 1, "no gap, no repetition");
        assert!(seen.insert(id.to_owned()), "{id} was delivered twice");
    }
    for number in 0..MESSAGES {
        assert!(seen.contains(&format!("m{number}")), "m{number} is lost");
    }
    // What was sent is kept: those that are not acknowledged are still there to be sent again.
    let mut place = place(kind, folder);
    let saved = place.load("room").unwrap();
    let channel = Channel::load("room", b"bob", config(true), NOW, &saved).unwrap();
    let sent = lines(&folder.join("sent"));
    assert!(!sent.is_empty());
    for id in &sent {
        assert!(channel.copy_of(id.as_bytes()).is_some(), "{id} was sent and is forgotten");
    }
    assert_eq!(channel.counts().unconfirmed, 0);
}
