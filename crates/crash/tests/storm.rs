//! The suite itself, run small: as the workspace's tests build it, without stop points.

use std::process::Command;

fn suite(arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_mainstay-crash")).args(arguments).output();
    let output = output.expect("the suite was built with this test");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn p2_a_small_storm_loses_tears_blocks_and_leaks_nothing() {
    let (code, text) = suite(&["pool", "--kills", "20", "--seed", "3"]);
    let last = text.lines().rfind(|line| line.starts_with("CRASH"));
    assert_eq!(last, Some("CRASH pool kills=20 lost=0 torn=0 stuck=0 leaked=0"), "{text}");
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn t1_a_small_storm_over_a_tracker_and_its_checkpoints_loses_and_tears_nothing() {
    let (code, text) = suite(&["track", "--kills", "20", "--seed", "3"]);
    let last = text.lines().rfind(|line| line.starts_with("CRASH"));
    assert_eq!(last, Some("CRASH track kills=20 lost=0 torn=0 stuck=0 leaked=0"), "{text}");
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn a_small_storm_loses_tears_blocks_and_leaks_no_state() {
    let (code, text) = suite(&["state", "--kills", "20", "--seed", "3"]);
    let last = text.lines().rfind(|line| line.starts_with("CRASH"));
    assert_eq!(last, Some("CRASH state kills=20 lost=0 torn=0 stuck=0 leaked=0"), "{text}");
    assert!(text.contains("conflicts") && text.contains("scavenged"), "{text}");
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn s1_a_small_storm_loses_no_message_and_delivers_none_twice() {
    let (code, text) = suite(&["sds", "--kills", "20", "--seed", "3"]);
    let last = text.lines().rfind(|line| line.starts_with("CRASH"));
    assert_eq!(last, Some("CRASH sds kills=20 lost=0 torn=0 stuck=0 leaked=0"), "{text}");
    assert_eq!(code, Some(0), "{text}");
}

#[cfg(not(feature = "hook"))]
#[test]
fn without_stop_points_the_other_modes_say_what_to_build() {
    for (part, mode) in [
        ("pool", "--every-store"),
        ("pool", "--planted"),
        ("state", "--planted"),
        ("sds", "--planted"),
    ] {
        let (code, text) = suite(&[part, mode]);
        assert_eq!(code, Some(2));
        assert!(text.contains("--features hook"), "{text}");
    }
}

#[test]
fn help_has_examples() {
    for part in ["pool", "state", "sds"] {
        let (code, text) = suite(&[part, "--help"]);
        assert_eq!(code, Some(0));
        assert!(text.contains("--every-store") && text.contains("Examples:"), "{text}");
    }
}
