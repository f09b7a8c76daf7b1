use std::path::PathBuf;

use serde_json::{Value, json};

use super::*;

/// A crate of the workspace that depends on these crates of the workspace.
fn member(name: &str, on: &[&str]) -> Value {
    let dependencies: Vec<_> =
        on.iter().map(|on| json!({ "name": on, "path": format!("/p/{on}") })).collect();
    json!({ "id": name, "name": name, "dependencies": dependencies, "targets": [] })
}

/// A package of the registry.
fn package(name: &str) -> Value {
    json!({ "id": name, "name": name, "dependencies": [], "targets": [] })
}

/// A resolved dependency; `kind` as cargo writes it.
fn edge(to: &str, kind: Value) -> Value {
    json!({ "pkg": to, "dep_kinds": [{ "kind": kind, "target": null }] })
}

fn metadata(members: &[Value], others: &[Value], nodes: &[(&str, Vec<Value>)]) -> Metadata {
    let ids: Vec<_> = members.iter().map(|member| &member["id"]).collect();
    let nodes: Vec<_> = nodes.iter().map(|(id, deps)| json!({ "id": id, "deps": deps })).collect();
    serde_json::from_value(json!({
        "packages": ([members, others].concat()),
        "workspace_members": ids,
        "workspace_root": "/p",
        "target_directory": "/p/target",
        "resolve": { "nodes": nodes },
    }))
    .unwrap()
}

fn arrows_of(members: &[Value]) -> Vec<String> {
    wrong_arrows(&metadata(members, &[], &[])).iter().map(ToString::to_string).collect()
}

#[test]
fn the_arrows_of_the_house_are_accepted() {
    let found = arrows_of(&[
        member("mainstay-base", &[]),
        member("mainstay-shm", &["mainstay-base"]),
        member("mainstay-pool", &["mainstay-shm", "mainstay-base"]),
        member("mainstay", &["mainstay-pool"]),
        member("mainstay-cli", &["mainstay"]),
        member("mainstay-crash", &["mainstay-pool", "mainstay-shm"]),
        member("xtask", &[]),
    ]);
    assert_eq!(found, [""; 0]);
}

#[test]
fn an_arrow_that_points_upwards_is_found_and_named() {
    let found = arrows_of(&[member("mainstay-shm", &["mainstay-base", "mainstay-pool"])]);
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("`mainstay-shm` depends on `mainstay-pool`"), "{found:?}");
}

#[test]
fn an_arrow_past_the_facade_is_found() {
    let found = arrows_of(&[member("mainstay-cli", &["mainstay", "mainstay-pool"])]);
    assert_eq!(found.len(), 1);
}

#[test]
fn an_arrow_between_neighbours_is_found() {
    assert_eq!(arrows_of(&[member("mainstay-state", &["mainstay-store"])]).len(), 1);
    assert_eq!(arrows_of(&[member("mainstay-channel", &["mainstay-pool"])]).len(), 1);
}

#[test]
fn an_arrow_to_a_program_is_found_from_every_crate() {
    for (name, _) in PLACES {
        for program in ["mainstay-cli", "mainstay-crash", "xtask"] {
            // An arrow to itself is a test that switches on features.
            let found = usize::from(*name != program);
            assert_eq!(arrows_of(&[member(name, &[program])]).len(), found, "{name} -> {program}");
        }
    }
}

#[test]
fn a_crate_without_a_place_is_found() {
    let found = arrows_of(&[member("mainstay-shed", &[])]);
    assert!(found[0].contains("`mainstay-shed` has no place"), "{found:?}");
}

#[test]
fn an_arrow_out_of_the_workspace_into_the_checkout_is_found() {
    assert_eq!(arrows_of(&[member("mainstay-pool", &["mainstay-bench"])]).len(), 1);
}

#[test]
fn the_places_themselves_allow_no_cycle() {
    for (line, (name, allowed)) in PLACES.iter().enumerate() {
        for on in *allowed {
            let below = PLACES[..line].iter().any(|(place, _)| place == on);
            assert!(below, "{name} may depend on {on}, which stands no lower");
        }
    }
}

#[test]
fn a_peer_that_a_crate_names_is_found_even_for_tests_only() {
    let mut pool = member("mainstay-pool", &[]);
    pool["dependencies"] = json!([{ "name": "heed", "kind": "dev", "path": null }]);
    let found = peers(&metadata(&[pool], &[], &[]));
    assert_eq!(found.len(), 1);
    assert!(found[0].what.contains("`mainstay-pool` names `heed`"), "{found:?}");
}

#[test]
fn a_peer_in_what_a_user_builds_is_found_with_the_way_it_came() {
    let found = peers(&metadata(
        &[member("mainstay-pool", &[])],
        &[package("middle"), package("slab")],
        &[
            ("mainstay-pool", vec![edge("middle", Value::Null)]),
            ("middle", vec![edge("slab", Value::Null)]),
        ],
    ));
    assert_eq!(found.len(), 1);
    assert!(found[0].what.contains("mainstay-pool -> middle -> slab"), "{found:?}");
}

#[test]
fn a_peer_that_only_a_test_tool_brings_is_accepted() {
    let found = peers(&metadata(
        &[member("mainstay-pool", &[])],
        &[package("loom"), package("sharded-slab")],
        &[
            ("mainstay-pool", vec![edge("loom", json!("dev"))]),
            ("loom", vec![edge("sharded-slab", Value::Null)]),
        ],
    ));
    assert_eq!(found, []);
}

#[test]
fn a_crate_that_compiles_c_is_found_behind_a_build_dependency() {
    let found = needs_c(&metadata(
        &[member("mainstay-shm", &[])],
        &[package("fast-sums"), package("cc")],
        &[
            ("mainstay-shm", vec![edge("fast-sums", Value::Null)]),
            ("fast-sums", vec![edge("cc", json!("build"))]),
        ],
    ));
    assert_eq!(found.len(), 1);
    assert!(found[0].what.contains("mainstay-shm -> fast-sums -> cc"), "{found:?}");
}

#[test]
fn a_crate_that_allows_unsafe_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("lib.rs");
    let mut base = member("mainstay-base", &[]);
    base["targets"] = json!([{ "name": "b", "kind": ["lib"], "src_path": source }]);
    let metadata = metadata(&[base], &[], &[]);

    fs::write(&source, "//! Says #![forbid(unsafe_code)] in words only.\n").unwrap();
    assert_eq!(unsafe_allowed(&metadata).unwrap().len(), 1);
    fs::write(&source, "//! Says so.\n#![forbid(unsafe_code)]\n").unwrap();
    assert_eq!(unsafe_allowed(&metadata).unwrap(), []);
}

#[test]
fn a_missing_or_joined_workspace_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let root = fs::canonicalize(folder.path()).unwrap();
    let found = |root: &PathBuf| joined_workspace(root, "bench").unwrap().map(|broken| broken.what);
    assert!(found(&root).unwrap().contains("missing"));

    let package = "[package]\nname = \"b\"\nversion = \"0.0.0\"\n[lib]\npath = \"b.rs\"\n";
    fs::create_dir(root.join("bench")).unwrap();
    fs::write(root.join("bench/b.rs"), "").unwrap();
    fs::write(root.join("bench/Cargo.toml"), package).unwrap();
    assert!(found(&root).unwrap().contains("no `[workspace]` line"));

    fs::write(root.join("bench/Cargo.toml"), format!("{package}\n[workspace]\n")).unwrap();
    assert_eq!(found(&root), None);
}

/// The project itself keeps R1, R3, R4 and R5: a wrong arrow fails the ordinary tests too.
#[test]
fn this_project_keeps_its_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let metadata = Metadata::with_dependencies(&root.join("Cargo.toml")).unwrap();
    assert_eq!(wrong_arrows(&metadata), []);
    assert_eq!(peers(&metadata), []);
    assert_eq!(needs_c(&metadata), []);
    assert_eq!(unsafe_allowed(&metadata).unwrap(), []);
}
