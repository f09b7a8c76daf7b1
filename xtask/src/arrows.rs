//! `cargo xtask arrows`: the rules on what may depend on what.
//!
//! Guarantees, each a function below:
//!
//! * R1: crates of the workspace depend on one another only as [`PLACES`] says.
//! * R2: [`OWN_WORKSPACES`] share no lock file with the product.
//! * R3: no [`PEERS`] of the benchmarks is part of what a user builds, and no crate names one.
//! * R4: what a user builds needs a Rust toolchain and nothing else ([`NEEDS_C`]).
//! * R5: the crates of [`NO_UNSAFE`] forbid unsafe code.
//!
//! R3 and R4 are about ordinary and build dependencies. What only tests need may bring a peer
//! along (loom logs through a crate that uses `sharded-slab`): no user ever compiles that.

use std::{fmt, fs, path::Path};

use crate::{
    error::{Error, Result},
    metadata::{Metadata, Package},
    project::Project,
};

/// Check which crate depends on which, and what else must not creep in
///
/// Prints every broken rule, then `ARROWS crates=<n> broken=<n>`.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  cargo xtask arrows")]
pub(crate) struct Args {}

/// Where each crate stands: its name and all it may depend on, lowest first. An arrow points
/// from a crate only to crates above its own line here, so there can be no cycle.
const PLACES: &[(&str, &[&str])] = &[
    ("mainstay-checksum", &[]),
    ("mainstay-storage", &["mainstay-checksum"]),
    ("mainstay-base", &["mainstay-checksum"]),
    ("mainstay-sim", &["mainstay-base", "mainstay-storage"]),
    ("mainstay-shm", &["mainstay-base"]),
    ("mainstay-pool", &["mainstay-base", "mainstay-shm"]),
    ("mainstay-track", &["mainstay-base", "mainstay-shm", "mainstay-pool"]),
    ("mainstay-state", &["mainstay-base", "mainstay-sim", "mainstay-shm", "mainstay-pool"]),
    ("mainstay-store", &["mainstay-base", "mainstay-storage", "mainstay-sim", "mainstay-shm"]),
    ("mainstay-channel", &["mainstay-base", "mainstay-sim", "mainstay-shm"]),
    (
        "mainstay-sds",
        &[
            "mainstay-base",
            "mainstay-sim",
            "mainstay-shm",
            "mainstay-pool",
            "mainstay-store",
            "mainstay-channel",
        ],
    ),
    (
        "mainstay-replica",
        &[
            "mainstay-storage",
            "mainstay-base",
            "mainstay-sim",
            "mainstay-shm",
            "mainstay-pool",
            "mainstay-track",
            "mainstay-state",
            "mainstay-store",
            "mainstay-channel",
        ],
    ),
    (
        "mainstay",
        &[
            "mainstay-base",
            "mainstay-shm",
            "mainstay-pool",
            "mainstay-track",
            "mainstay-state",
            "mainstay-store",
            "mainstay-channel",
            "mainstay-sds",
            "mainstay-replica",
        ],
    ),
    ("mainstay-c", &["mainstay-sds"]),
    ("mainstay-cli", &["mainstay-base", "mainstay-sim", "mainstay"]),
    (
        "mainstay-crash",
        &[
            "mainstay-base",
            "mainstay-sim",
            "mainstay-shm",
            "mainstay-pool",
            "mainstay-track",
            "mainstay-state",
            "mainstay-store",
            "mainstay-sds",
        ],
    ),
    (
        "mainstay-scenarios",
        &[
            "mainstay-base",
            "mainstay-sim",
            "mainstay-shm",
            "mainstay-pool",
            "mainstay-track",
            "mainstay-state",
            "mainstay-store",
            "mainstay-channel",
            "mainstay-sds",
            "mainstay-replica",
        ],
    ),
    ("xtask", &[]),
];

/// Folders that are workspaces of their own, with lock files of their own.
pub(crate) const OWN_WORKSPACES: [&str; 2] = ["bench", "fuzz"];

/// What the benchmarks compare with.
const PEERS: [&str; 12] = [
    "armdb",
    "crc32c",
    "crossbeam-channel",
    "fjall",
    "heed",
    "iceoryx2",
    "mmap-sync",
    "noxu-rep",
    "redb",
    "sharded-slab",
    "shared_memory",
    "slab",
];

/// Crates that compile C or look for headers, libraries or cmake when they are built.
const NEEDS_C: [&str; 13] = [
    "aws-lc-fips-sys",
    "aws-lc-rs",
    "aws-lc-sys",
    "bindgen",
    "cc",
    "clang-sys",
    "cmake",
    "libz-sys",
    "openssl",
    "openssl-sys",
    "pkg-config",
    "vcpkg",
    "zstd-sys",
];

/// Crates that have no need of unsafe code and say so to the compiler.
const NO_UNSAFE: [&str; 11] = [
    "mainstay",
    "mainstay-base",
    "mainstay-cli",
    "mainstay-replica",
    "mainstay-scenarios",
    "mainstay-sds",
    "mainstay-sim",
    "mainstay-storage",
    "mainstay-store",
    "mainstay-track",
    "xtask",
];

/// The line the compiler must see at the head of such a crate.
const FORBIDDEN: &str = "#![forbid(unsafe_code)]";

/// A broken rule: which one, and what to change.
#[derive(Debug, PartialEq, Eq)]
struct Broken {
    rule: &'static str,
    what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}

pub(crate) fn run(project: &Project, _: &Args) -> Result<()> {
    check(project.root())
}

/// Checks the project at `root` and prints what it finds.
pub(crate) fn check(root: &Path) -> Result<()> {
    let metadata = Metadata::with_dependencies(&root.join("Cargo.toml"))?;
    let mut broken = wrong_arrows(&metadata);
    for folder in OWN_WORKSPACES {
        broken.extend(joined_workspace(root, folder)?);
    }
    broken.extend(peers(&metadata));
    broken.extend(needs_c(&metadata));
    broken.extend(unsafe_allowed(&metadata)?);

    for one in &broken {
        println!("{one}");
    }
    println!("ARROWS crates={} broken={}", metadata.members().count(), broken.len());
    if broken.is_empty() { Ok(()) } else { Err(Error::Rules { broken: broken.len() }) }
}

/// R1. Development and build dependencies count as well: an arrow is an arrow.
fn wrong_arrows(metadata: &Metadata) -> Vec<Broken> {
    metadata.members().flat_map(wrong_arrows_of).collect()
}

fn wrong_arrows_of(package: &Package) -> Vec<Broken> {
    let name = &*package.name;
    let broken = |what| Broken { rule: "R1 arrows", what };
    let Some((_, allowed)) = PLACES.iter().find(|(place, _)| *place == name) else {
        let what = format!("`{name}` has no place; give it one in PLACES, xtask/src/arrows.rs");
        return vec![broken(what)];
    };
    package
        .dependencies
        .iter()
        .filter(|dependency| dependency.path.is_some() && dependency.name != name)
        // With itself a crate only switches on features for its own tests.
        .filter(|dependency| !allowed.contains(&&*dependency.name))
        .map(|dependency| {
            let may = if allowed.is_empty() { "none".to_owned() } else { allowed.join(", ") };
            broken(format!(
                "`{name}` depends on `{}`; of this project it may depend on: {may}",
                dependency.name
            ))
        })
        .collect()
}

/// R2.
fn joined_workspace(root: &Path, folder: &str) -> Result<Option<Broken>> {
    let broken = |what| Ok(Some(Broken { rule: "R2 own workspaces", what }));
    let manifest = root.join(folder).join("Cargo.toml");
    if !manifest.is_file() {
        return broken(format!("`{folder}/Cargo.toml` is missing; restore it"));
    }
    let text = read(&manifest)?;
    if !text.lines().any(|line| line.trim() == "[workspace]") {
        return broken(format!(
            "`{folder}/Cargo.toml` has no `[workspace]` line; add one, so that it keeps a lock \
             file of its own"
        ));
    }
    let metadata = Metadata::of_manifest(&manifest)?;
    if metadata.workspace_root != root.join(folder) {
        return broken(format!("`{folder}` belongs to {}", metadata.workspace_root.display()));
    }
    Ok(None)
}

/// R3.
fn peers(metadata: &Metadata) -> Vec<Broken> {
    let broken = |what| Broken { rule: "R3 peers", what };
    let named = metadata.members().flat_map(|package| {
        package.dependencies.iter().filter(|dependency| PEERS.contains(&&*dependency.name)).map(
            |dependency| {
                format!("`{}` names `{}`; move it to bench/", package.name, dependency.name)
            },
        )
    });
    named.chain(brought_in(metadata, &PEERS)).map(broken).collect()
}

/// R4.
fn needs_c(metadata: &Metadata) -> Vec<Broken> {
    let broken = |what| Broken { rule: "R4 Rust only", what };
    brought_in(metadata, &NEEDS_C).map(broken).collect()
}

/// Which of `names` are part of what a user builds, with the chain that brings each in.
fn brought_in(metadata: &Metadata, names: &[&str]) -> impl Iterator<Item = String> {
    metadata.shipped().into_iter().filter(|package| names.contains(&package.name())).map(
        |package| {
            let chain = package.chain.join(" -> ");
            format!("`{}` comes in by {chain}; drop the link", package.name())
        },
    )
}

/// R5.
fn unsafe_allowed(metadata: &Metadata) -> Result<Vec<Broken>> {
    let mut broken = Vec::new();
    for package in metadata.members().filter(|package| NO_UNSAFE.contains(&&*package.name)) {
        for target in &package.targets {
            let is_shipped = target.kind.iter().any(|kind| kind == "lib" || kind == "bin");
            if is_shipped && !forbids_unsafe(&read(&target.src_path)?) {
                let what = format!("{} lacks `{FORBIDDEN}`; add it", target.src_path.display());
                broken.push(Broken { rule: "R5 no unsafe", what });
            }
        }
    }
    Ok(broken)
}

fn forbids_unsafe(source: &str) -> bool {
    source.lines().any(|line| line.trim() == FORBIDDEN)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|source| Error::File {
        action: "read",
        path: path.to_path_buf(),
        source,
    })
}

#[cfg(test)]
mod tests;
