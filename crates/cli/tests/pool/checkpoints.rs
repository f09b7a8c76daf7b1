//! Checkpoints from the command line.

use crate::sandbox::{Sandbox, wait_until};
use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
};

#[test]
fn a_checkpoint_holds_what_was_there_and_brings_it_back() {
    let sandbox = Sandbox::with_calls(30);
    let said = sandbox.ok(&["checkpoint", "calls"]);
    assert!(said.starts_with("checkpoint 2: 0 blocks"), "{said}");
    sandbox.ok(&["fill", "calls", "--blocks", "5"]);
    let row = sandbox.json(&["checkpoint", "calls"]);
    assert_eq!((row["cut"].as_u64(), row["blocks"].as_u64()), (Some(3), Some(5)));
    let exported = sandbox.ok(&["export", "calls"]);

    let refused = sandbox.fails(1, &["checkpoint", "calls", "--restore"]);
    assert!(refused.contains("exists already"), "{refused}");
    fs::remove_file(sandbox.path("calls.pool")).unwrap();
    let restored = sandbox.json(&["checkpoint", "calls", "--restore"]);
    assert_eq!((restored["cut"].as_u64(), restored["blocks"].as_u64()), (Some(3), Some(35)));
    let blocks = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines.len()
    };
    assert_eq!(blocks(&sandbox.ok(&["export", "calls"])), blocks(&exported));
    let verified = sandbox.json(&["verify", "calls"]);
    assert_eq!(verified["checksums"]["matching"], 35);
    assert_eq!((&verified["sound"], &verified["checkpoint"]["cut"]), (&true.into(), &3.into()));
}

#[test]
fn verify_tells_what_checksums_say_and_finds_a_damaged_checkpoint() {
    let sandbox = Sandbox::with_calls(10);
    let text = sandbox.ok(&["verify", "calls"]);
    assert!(text.contains("10 live blocks have none"), "{text}");
    sandbox.ok(&["checkpoint", "calls"]);
    let text = sandbox.ok(&["verify", "calls"]);
    assert!(text.contains("checkpoint 2: sound; 10 blocks checked"), "{text}");

    // The data of some block in the image: a byte of it is another now.
    let file = sandbox.path("calls.pool.checkpoint");
    let file = File::options().read(true).write(true).open(&file).unwrap();
    // It is sparse, and far longer than what is in it.
    let mut bytes = vec![0; 64 << 10];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let records_len = u64::from_le_bytes(bytes[48..56].try_into().unwrap()) as usize;
    let live = (0..64).find(|k| bytes[4_096 + 72 * k + 4] == 1).unwrap();
    let data = 4_096 + records_len + 64 * live;
    file.write_all_at(&[bytes[data] ^ 1], data as u64).unwrap();
    let run = sandbox.run(&["verify", "calls"]);
    let text = String::from_utf8(run.stdout).unwrap();
    assert_eq!(run.code, 3, "{text}");
    assert!(text.contains("is damaged in the checkpoint file"), "{text}");
}

#[test]
fn checkpoints_are_made_until_interrupted_and_a_last_one_then() {
    let sandbox = Sandbox::with_calls(3);
    let mut running = sandbox.spawn(&["checkpoint", "calls", "--every", "20ms"]);
    let file = sandbox.path("calls.pool.checkpoint");
    wait_until("there is a checkpoint file", || file.exists());
    sandbox.ok(&["fill", "calls", "--blocks", "2"]);
    let pid = rustix::process::Pid::from_child(&running.0);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(running.0.wait().unwrap().code(), Some(0));
    assert_eq!(sandbox.json(&["verify", "calls"])["checkpoint"]["blocks"], 5);
}
