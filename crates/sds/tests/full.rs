//! Saves that fail: what was kept before is still kept, the channel is told, and all of it is kept
//! by the next one that succeeds (S1, S2).
//!
//! A child takes part in a channel whose changes are in a pool, or in a store, under a limit on the
//! length of files: none can grow when the life begins. Its application is a file: a line a message
//! that it has processed.

#![cfg(all(feature = "pool", feature = "store"))]
#![allow(clippy::unwrap_used, reason = "helpers of tests; a test may fail at any of them")]

use std::{
    env,
    fs::{self, File},
    io::Write,
    path::Path,
    process::Command,
};

use mainstay_sds::{
    Channel, Config, Keep, Now, Output,
    persist::{Durability, Persistence, PoolPersistence, StorePersistence},
};

const FOLDER: &str = "MAINSTAY_SDS_FULL_FOLDER";
const PLACE: &str = "MAINSTAY_SDS_FULL_PLACE";
/// More than any place takes without growing.
const MESSAGES: u64 = 4000;
const CONTENT_LEN: usize = 60_000;
const NOW: Now = Now { mono_ms: 1000, wall_ms: 1_760_000_000_000 };

fn config(keeps: bool) -> Config {
    let mut config = Config::lip();
    (config.only_own_peers, config.filter_capacity, config.sync) = (true, 100, false);
    if keeps {
        (config.keep, config.confirm) = (Keep::Durable, true);
    }
    config
}

fn place(kind: &str, folder: &Path) -> Box<dyn Persistence> {
    match kind {
        "pool" => Box::new(PoolPersistence::open(folder, "sds").unwrap()),
        "store" => Box::new(StorePersistence::open(folder, Durability::Memory).unwrap()),
        kind => panic!("{kind} is no place"),
    }
}

/// What Alice says, one after the other.
fn alice() -> impl Iterator<Item = Vec<u8>> {
    let mut alice = Channel::new("room", b"alice", config(false)).unwrap();
    (0..MESSAGES).map(move |number| {
        let id = format!("m{number}");
        alice.send(NOW.after(number), id.as_bytes(), &[7; CONTENT_LEN]).unwrap();
        let mut sent = None;
        while let Some(output) = alice.poll_output() {
            if let Output::Broadcast(broadcast) = output {
                sent = Some(broadcast.bytes.to_vec());
            }
        }
        sent.unwrap()
    })
}

/// Whether everything could be kept.
fn drain(channel: &mut Channel, place: &mut dyn Persistence, processed: &mut File) -> bool {
    loop {
        let (mut confirmed, mut kept) = (None, None);
        match channel.poll_output() {
            None => return true,
            Some(Output::Persist(change)) => {
                kept = Some((change.number, place.save("room", &change).is_ok()));
            }
            Some(Output::Deliver(delivery)) => {
                let id = String::from_utf8_lossy(delivery.id);
                processed.write_all(format!("{} {id}\n", delivery.number).as_bytes()).unwrap();
                confirmed = Some(delivery.number);
            }
            Some(_) => {}
        }
        match (confirmed, kept) {
            (Some(number), _) => channel.confirm(number).unwrap(),
            (_, Some((number, true))) => channel.persisted(number),
            (_, Some((number, false))) => {
                channel.persist_failed(NOW, number);
                return false;
            }
            _ => {}
        }
    }
}

/// One life, until nothing more can be kept.
#[test]
fn a_life_of_the_child() {
    let Some(folder) = env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let mut place = place(&env::var(PLACE).unwrap(), folder);
    let mut processed = File::options().append(true).open(folder.join("processed")).unwrap();
    let mut channel = Channel::new("room", b"bob", config(true)).unwrap();
    let mut before = Vec::new();
    for bytes in alice() {
        channel.receive(NOW, &bytes).unwrap();
        if !drain(&mut channel, &mut *place, &mut processed) {
            // Nothing of what could not be kept shows, and nothing that was kept is gone.
            let kept = place.load("room").unwrap();
            assert!(kept == before, "{} changes, of {} before", kept.len(), before.len());
            assert!(channel.poll_output().is_none(), "nothing goes out that is not kept");
            fs::write(folder.join("full"), b"").unwrap();
            return;
        }
        before = place.load("room").unwrap();
    }
}

fn fills_up(kind: &str) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // What is there may be written to; in it nothing is kept yet.
    drop(place(kind, folder));
    File::create(folder.join("processed")).unwrap();
    let lens = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
    let blocks = lens.max().unwrap().div_ceil(512);
    // The child is told by an error of the call, and not by a signal.
    let limited = format!("trap '' XFSZ; ulimit -S -f {blocks}; exec \"$0\" \"$@\"");
    let output = Command::new("sh")
        .args(["-c", &limited])
        .arg(env::current_exe().unwrap())
        .args(["--exact", "a_life_of_the_child", "--nocapture"])
        .env(FOLDER, folder)
        .env(PLACE, kind)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(folder.join("full").exists(), "everything could be kept: {blocks} blocks");

    // The next life has room. It has all that was processed, and gets the rest.
    let mut place = place(kind, folder);
    let saved = place.load("room").unwrap();
    let mut channel = Channel::load("room", b"bob", config(true), NOW, &saved).unwrap();
    let path = folder.join("processed");
    let done = fs::read_to_string(&path).unwrap().lines().count() as u64;
    channel.confirm(done).unwrap();
    let mut processed = File::options().append(true).open(&path).unwrap();
    for bytes in alice().take(done as usize + 3) {
        channel.receive(NOW, &bytes).unwrap();
        assert!(drain(&mut channel, &mut *place, &mut processed));
    }
    let lines = fs::read_to_string(&path).unwrap();
    let expected = (0..done + 3).map(|number| format!("{} m{number}", number + 1));
    assert!(lines.lines().eq(expected), "each once and in order: {lines}");
}

#[test]
fn s2_a_pool_that_is_full_loses_nothing_and_goes_on_when_there_is_room() {
    fills_up("pool");
}

#[test]
fn s2_a_store_that_is_full_loses_nothing_and_goes_on_when_there_is_room() {
    fills_up("store");
}
