//! `docs/invariants.md` names files and tests, and the heads of modules name invariants: all of
//! them must be there.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The rows of all tables: their cells.
fn rows() -> Vec<Vec<String>> {
    let text = fs::read_to_string(crates().join("../docs/invariants.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| |"));
    rows.map(|line| {
        let cells = line.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().to_owned()).collect()
    })
    .collect()
}

/// What stands in backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[test]
fn every_test_and_file_named_in_the_table_of_invariants_exists() {
    let mut files = Vec::new();
    rust_files(&crates(), &mut files);
    rust_files(&crates().join("../bindings"), &mut files);
    let sources: String = files.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let defined: BTreeSet<&str> = sources
        .split("fn ")
        .filter_map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next())
        .collect();
    let rows = rows();
    assert!(rows.len() > 40, "the tables are found: {}", rows.len());
    for row in &rows {
        let [label, _, _, code, tests] = &row[..] else { panic!("five cells: {row:?}") };
        let mut places = quoted(code).peekable();
        assert!(places.peek().is_some(), "{label}: some code keeps it");
        for place in places {
            assert!(crates().join(place).exists(), "{label}: there is no {place}");
        }
        for test in quoted(tests).filter(|name| !name.contains(' ')) {
            assert!(defined.contains(test), "{label}: there is no test {test}");
        }
    }
}

#[test]
fn every_invariant_at_the_head_of_a_module_has_a_row() {
    let rows = rows();
    let rooms = [
        "base/src",
        "shm/src",
        "pool/src",
        "state/src",
        "track/src",
        "channel/src",
        "sim/src",
        "store/src",
        "replica/src",
        "scenarios/src/stream",
        "scenarios/src/channel",
    ];
    for room in rooms {
        let mut files = Vec::new();
        rust_files(&crates().join(room), &mut files);
        for file in files {
            let name = file.strip_prefix(crates()).unwrap().to_str().unwrap().to_owned();
            let text = fs::read_to_string(&file).unwrap();
            for line in text.lines().take_while(|line| line.starts_with("//!")) {
                let line = line.trim_start_matches("//! ").trim_start_matches("* ");
                let Some((label, _)) = line.split_once(". ") else { continue };
                let is_label = label.len() == 2
                    && label.starts_with(|c: char| c.is_ascii_uppercase())
                    && label.ends_with(|c: char| c.is_ascii_digit());
                // Properties of the whole pool stand where they matter most.
                if is_label {
                    let found = rows.iter().any(|row| {
                        row[0] == label && (label.starts_with('P') || row[3].contains(&name))
                    });
                    assert!(found, "docs/invariants.md has no row for {label} of {name}");
                }
            }
        }
    }
}
