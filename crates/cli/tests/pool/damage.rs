//! Files that are no pools, or not sound ones.

use crate::calls::unchanged;
use crate::sandbox::Sandbox;
use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
};

/// Where extents start in a pool made on a machine with pages of 4,096 bytes, and with them the
/// owner words: docs/format/pool.md.
const OWNER_WORDS: u64 = 8_192;

/// Transient, held by nobody: no sequence of steps leads to it.
const IMPOSSIBLE: u64 = 2 << 32;

/// Every command that opens an existing pool.
const OPENING: [&[&str]; 12] = [
    &["info", "x"],
    &["show", "x"],
    &["dump", "x", "0"],
    &["holders", "x"],
    &["watch", "x", "--for", "1ms"],
    &["verify", "x"],
    &["export", "x"],
    &["fill", "x", "--blocks", "1"],
    &["recover", "x", "--free", "--yes"],
    &["repair", "x", "--yes"],
    &["checkpoint", "x"],
    &["import", "some.jsonl", "x", "--into"],
];

/// A sandbox with an export to import, and a file `x.pool`.
fn with_file(bytes: &[u8]) -> Sandbox {
    let sandbox = Sandbox::with_calls(3);
    sandbox.ok(&["export", "calls", "some.jsonl"]);
    fs::write(sandbox.path("x.pool"), bytes).unwrap();
    sandbox
}

#[test]
fn a_file_that_is_no_pool_is_refused_by_every_command_and_not_changed() {
    let noise: Vec<u8> =
        (0..20_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let files: [(&[u8], &str); 4] = [
        (b"", "is an empty file"),
        (b"short", "is not a pool"),
        (&[0; 20_000], "is not a pool"),
        (&noise, "is not a pool"),
    ];
    for (bytes, says) in files {
        let sandbox = with_file(bytes);
        for command in OPENING {
            unchanged(&sandbox.path("x.pool"), || {
                let error = sandbox.fails(1, command);
                assert!(error.contains(says), "{command:?}: {error}");
            });
        }
        let listed = sandbox.ok(&["ls"]);
        assert!(listed.contains(&format!("? {}", sandbox.text("x.pool"))), "{listed}");
        assert!(sandbox.json(&["ls"])[1]["error"].as_str().unwrap().contains(says));
    }
}

#[test]
fn a_damaged_header_or_a_truncated_file_is_damage_and_not_changed() {
    let sandbox = with_file(b"");
    let sound = fs::read(sandbox.path("calls.pool")).unwrap();
    let mut header = sound.clone();
    header[40] ^= 1;
    let mut version = sound.clone();
    version[8] = 9;
    let files = [
        (header, 3, "checksum"),
        (sound[..10_000].to_vec(), 3, "truncated"),
        (version, 1, "has format version 9"),
    ];
    for (bytes, code, says) in files {
        fs::write(sandbox.path("x.pool"), bytes).unwrap();
        for command in OPENING {
            unchanged(&sandbox.path("x.pool"), || {
                let error = sandbox.fails(code, command);
                assert!(error.contains(says), "{command:?}: {error}");
            });
        }
    }
}

#[test]
fn a_folder_is_refused_by_every_command() {
    let sandbox = with_file(b"");
    fs::remove_file(sandbox.path("x.pool")).unwrap();
    fs::create_dir(sandbox.path("x.pool")).unwrap();
    for command in OPENING {
        let error = sandbox.fails(1, command);
        assert!(error.contains("is a directory") || error.contains("is a folder"), "{error}");
    }
}

#[test]
fn impossible_blocks_are_found_mended_on_request_and_offered_for_recovery() {
    let sandbox = Sandbox::with_calls(4);
    let path = sandbox.path("calls.pool");
    let file = File::options().write(true).open(&path).unwrap();
    let damaged = &sandbox.numbers()[1..3];
    for number in damaged {
        file.write_all_at(&IMPOSSIBLE.to_le_bytes(), OWNER_WORDS + 8 * number).unwrap();
    }

    unchanged(&path, || {
        let run = sandbox.run(&["verify", "calls", "--json"]);
        assert_eq!(run.code, 3, "{}", run.stderr);
        let report: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
        assert_eq!((&report["sound"], &report["corrupt"]), (&false.into(), &2.into()));
        assert_eq!(report["findings"][0]["block"], damaged[0]);
        assert_eq!(sandbox.run(&["verify", "calls"]).code, 3);
        assert!(sandbox.ok(&["info", "calls"]).contains("run `mainstay pool verify`"));
        assert_eq!(sandbox.json_lines(&["show", "calls", "--state", "corrupt"]).len(), 2);
        let error = sandbox.fails(2, &["repair", "calls"]);
        assert!(error.contains("--yes"), "{error}");
    });

    let repaired = sandbox.json(&["repair", "calls", "--yes"]);
    assert_eq!((&repaired["orphaned"], &repaired["after"]["sound"]), (&2.into(), &true.into()));
    assert_eq!(sandbox.run(&["verify", "calls"]).code, 0);
    let recovered = sandbox.json(&["recover", "calls", "--park"]);
    assert_eq!((&recovered["offered"], &recovered["parked"]), (&2.into(), &2.into()));
    assert_eq!(sandbox.json(&["info", "calls"])["counts"]["parked"], 4);
    let number = damaged[0].to_string();
    let dump = sandbox.ok(&["dump", "calls", &number]);
    assert!(dump.contains(&format!("|block {number} of ")), "{dump}");
}

#[test]
fn a_pool_in_use_is_not_repaired() {
    let sandbox = Sandbox::with_calls(4);
    let _used = mainstay::pool::Pool::join_any(sandbox.path("calls.pool")).unwrap();
    let error = sandbox.fails(1, &["repair", "calls", "--yes"]);
    assert!(error.contains("has it open; end it first"), "{error}");
}
