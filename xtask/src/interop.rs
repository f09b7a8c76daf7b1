//! `cargo xtask interop`: SDS beside the implementation that is in the field.
//!
//! The test `waku` of `mainstay-sds` talks to the real `@waku/sds`, which runs in a small node
//! program. Here the library is installed from the npm registry, as the lock file beside that
//! program says, into the target folder; a folder that is complete is used again.

use std::{ffi::OsStr, fs, path::PathBuf, process::Command};

use crate::{
    error::{Error, Result},
    project::{self, Project},
    report::Outcome,
};

/// What the rig consists of, in `crates/sds/tests/waku`.
const FILES: [&str; 4] = [".npmrc", "package-lock.json", "package.json", "peer.mjs"];

/// The oldest node that the library runs on.
const NODE_MAJOR_MIN: u32 = 20;

/// Test SDS beside the real @waku/sds, installed from the npm registry into the target folder
///
/// Needs node and npm; without them it prints what is missing and ends with status 0. The last line
/// is `INTEROP passed` or `INTEROP skipped: <reason>`.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  cargo xtask interop")]
pub(crate) struct Args {}

pub(crate) fn run(project: &Project, _: &Args) -> Result<()> {
    match test(project, &["-p", "mainstay-sds"])? {
        Outcome::Passed => println!("INTEROP passed"),
        Outcome::Skipped(reason) => println!("INTEROP skipped: {reason}"),
    }
    Ok(())
}

/// The step of `cargo xtask test`. `packages` are the arguments of cargo that say which are built,
/// and with which features.
pub(crate) fn test(project: &Project, packages: &[impl AsRef<OsStr>]) -> Result<Outcome> {
    if let Some(reason) = obstacle() {
        return Ok(Outcome::Skipped(reason));
    }
    let folder = install(project)?;
    let mut command = project.cargo(&["test", "--test", "waku"]);
    command.args(packages);
    command.env("MAINSTAY_WAKU", &folder);
    project::run(&mut command)?;
    Ok(Outcome::Passed)
}

/// Why this machine cannot do it, if so.
fn obstacle() -> Option<String> {
    let version = |program: &str| {
        let output = Command::new(program).arg("--version").output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(node) = version("node") else {
        return Some("there is no node; install the packages nodejs and npm".to_owned());
    };
    if version("npm").is_none() {
        return Some("there is no npm; install the package npm".to_owned());
    }
    too_old(&node)
}

fn too_old(version: &str) -> Option<String> {
    let major = version.trim_start_matches('v').split('.').next().unwrap_or_default();
    let is_new = major.parse::<u32>().is_ok_and(|major| major >= NODE_MAJOR_MIN);
    (!is_new).then(|| format!("node is {version}, and {NODE_MAJOR_MIN} or newer is needed"))
}

/// Brings the folder into the state of the lock file, and returns it.
fn install(project: &Project) -> Result<PathBuf> {
    let from = project.root().join("crates/sds/tests/waku");
    let folder = project.target().join("waku");
    let read = |path: PathBuf| {
        fs::read(&path).map_err(|source| Error::File { action: "read", path, source })
    };
    fs::create_dir_all(&folder).map_err(|source| Error::File {
        action: "create",
        path: folder.clone(),
        source,
    })?;
    let mut is_new = false;
    for name in FILES {
        let (wanted, path) = (read(from.join(name))?, folder.join(name));
        if fs::read(&path).is_ok_and(|there| there == wanted) {
            continue;
        }
        is_new |= name != "peer.mjs";
        fs::write(&path, wanted).map_err(|source| Error::File { action: "write", path, source })?;
    }
    // npm writes this file last: without it an installation was interrupted.
    let is_complete = folder.join("node_modules/.package-lock.json").is_file();
    if is_new || !is_complete {
        let mut npm = Command::new("npm");
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&folder);
        project::run(&mut npm)?;
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_too_old_is_an_obstacle_and_a_newer_one_is_none() {
        assert_eq!(too_old("v20.20.2"), None);
        assert_eq!(too_old("v100.0.0"), None);
        let reason = too_old("v18.19.1").unwrap();
        assert!(reason.contains("v18.19.1") && reason.contains("20"), "{reason}");
        assert!(too_old("noise").is_some());
    }
}
