//! Processes that are killed.

use crate::sandbox::{Running, Sandbox, wait_until};

fn kill(mut running: Running) {
    running.0.kill().unwrap();
    running.0.wait().unwrap();
}

#[test]
fn killing_every_subscriber_leaves_no_file_and_no_memory_and_the_next_starts_from_zeros() {
    let sandbox = Sandbox::new();
    let feeder = sandbox.feeder("speed");
    let watcher = sandbox.spawn(&["watch", "speed"]);
    let subscribers = || {
        let listed = sandbox.json(&["ls", "--sample", "0ms"]);
        listed[0]["subscribers"].as_array().map_or(0, Vec::len)
    };
    wait_until("both are subscribed", || subscribers() == 2);
    kill(feeder);
    kill(watcher);
    // Nobody is left to clean up: the next command does it.
    assert!(sandbox.listed().is_empty());
    // What remains are the two tables of the folder: they have the same size however many states
    // there were, and no state in them.
    assert_eq!(sandbox.files(), [".leases", ".records"]);
    let next = sandbox.json(&["feed", "speed", "--count", "1"]);
    assert_eq!(next["version"], 1);
    assert_eq!(sandbox.files(), [".leases", ".records"], "one that leaves in good order as well");
}

#[test]
fn a_state_outlives_its_killed_writer_while_somebody_watches_and_a_successor_goes_on() {
    let sandbox = Sandbox::new();
    let feeder = sandbox.feeder("speed");
    let _watcher = sandbox.spawn(&["watch", "speed", "--max-rate", "1"]);
    wait_until("it is watched", || {
        let info = sandbox.json(&["info", "speed", "--sample", "0ms"]);
        info["subscribers"].as_array().unwrap().len() == 2
    });
    kill(feeder);
    let left = sandbox.json(&["get", "speed"]);
    let (version, count) = (&left["version"], &left["value"]["count"]);
    assert_eq!(version, count, "the last version is whole");
    let next = sandbox.json(&["feed", "speed", "--count", "3"]);
    assert_eq!(next["version"].as_u64().unwrap(), version.as_u64().unwrap() + 3);
}
