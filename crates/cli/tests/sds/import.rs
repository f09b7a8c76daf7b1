//! What the ancestor kept, taken over.

use mainstay::sds::{
    Channel, Config, Keep, Now,
    persist::{Durability, Persistence, StorePersistence},
};
use std::process::Command;

fn import(file: &str, into: &str) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
    command.args(["sds", "import", file, "--channel", "room", "--participant", "bob"]);
    let output = command.args(["--into", into]).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_snapshot_becomes_a_channel_that_a_node_goes_on_with_and_is_not_taken_over_twice() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).into_os_string().into_string().unwrap();
    let (file, into) = (path("snapshot"), path("store"));
    // A lamport time of 42, and a message m1 of alice's in the history.
    let message = b"\x0a\x02m1\x10\x29\x22\x04room\x2a\x05hello\x32\x00\x3a\x05alice";
    let mut bytes = b"\x0a\x04\x08\x01\x10\x2a\x12".to_vec();
    bytes.push(message.len() as u8);
    bytes.extend_from_slice(message);
    std::fs::write(&file, &bytes).unwrap();
    let (code, stdout, stderr) = import(&file, &into);
    assert_eq!((code, &*stderr), (0, ""));
    assert!(stdout.lines().any(|line| line.split_whitespace().eq(["messages", "1"])), "{stdout}");

    let mut place = StorePersistence::open(&into, Durability::Group).unwrap();
    let mut config = Config::nim();
    config.keep = Keep::Durable;
    let saved = place.load("room").unwrap();
    let channel = Channel::load("room", b"bob", config, Now::zero(), &saved).unwrap();
    assert!(channel.log().map(|entry| (entry.id, entry.content)).eq([(&b"m1"[..], &b"hello"[..])]));
    assert_eq!(channel.counts().lamport, 42);
    drop(place);

    let (code, _, stderr) = import(&file, &into);
    assert_eq!(code, 1);
    assert!(stderr.contains("there is a channel \"room\" already"), "{stderr}");
    std::fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
    let (code, _, stderr) = import(&file, &path("another store"));
    assert_eq!(code, 3, "{stderr}");
}
