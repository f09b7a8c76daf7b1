//! The same seed gives the same trace, in another process too: where memory lies elsewhere, and what
//! is hashed has other keys.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::process::Command;

/// What a process prints of one seed of a scenario: its trace's sum, and every line of the trace.
fn told(scenario: &str, seed: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_mainstay-scenarios"))
        .args([scenario, "--seeds", seed, "--trace"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{scenario} seed {seed}");
    let text = String::from_utf8(output.stdout).unwrap();
    // How long it took is no part of it.
    text.lines()
        .filter(|line| !line.contains(" seeds in "))
        .map(|line| format!("{line}\n"))
        .collect()
}

#[test]
fn a_seed_has_the_same_trace_in_every_process_and_another_seed_has_another() {
    for scenario in ["channel", "register"] {
        let [first, again, other] = ["7", "7", "8"].map(|seed| told(scenario, seed));
        assert!(first.contains(": trace ") && first.lines().count() > 20, "{first}");
        assert!(first == again, "{scenario}: two processes differ");
        assert!(first != other, "{scenario}: two seeds do not");
    }
}
