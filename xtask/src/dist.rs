//! `cargo xtask dist`: what a package of Mainstay holds.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    error::{Error, Result},
    project::{self, Project},
};

/// Build a release and lay it out in dist/: program, C library, completions, man pages, licences
///
/// The layout is that of a prefix such as /usr: copy dist/ over one, or package it. An older
/// dist/ is replaced. Prints every file written.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask dist\n  \
    cp -r dist/. ~/.local/                 after it: install for this user")]
pub(crate) struct Args {}

/// Shell, and where a distribution keeps its completions.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "share/bash-completion/completions/mainstay"),
    ("zsh", "share/zsh/site-functions/_mainstay"),
    ("fish", "share/fish/vendor_completions.d/mainstay.fish"),
];

const MAN: &str = "share/man/man1";
const DOC: &str = "share/doc/mainstay";
const DOCUMENTS: [&str; 4] = ["README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE"];

/// The C library and what programs are built against it with: where each file is, and where it goes.
const C_LIBRARY: [(&str, &str); 5] = [
    ("target/release/libsds.so", "lib/libsds.so"),
    ("target/release/libsds.a", "lib/libsds.a"),
    ("bindings/c/include/libsds.h", "include/libsds.h"),
    ("bindings/c/include/mainstay_sds.h", "include/mainstay_sds.h"),
    ("bindings/c/libsds.pc", "lib/pkgconfig/libsds.pc"),
];

pub(crate) fn run(project: &Project, _: &Args) -> Result<()> {
    let packages = ["-p", "mainstay-cli", "-p", "mainstay-c"];
    let mut build = project.cargo(&["build", "--release", "--locked"]);
    project::run(build.args(packages))?;
    let built = project.target().join("release/mainstay");
    let dist = Dist::empty(project.root().join("dist"))?;

    let program = dist.place("bin/mainstay")?;
    copy(&built, &program)?;
    for (shell, place) in COMPLETIONS {
        let script = ask(Command::new(&program).args(["completions", shell]))?;
        write(&dist.place(place)?, &script)?;
    }
    let man = dist.folder(MAN)?;
    project::run(Command::new(&program).arg("man").arg(&man))?;
    if !man.join("mainstay.1").is_file() {
        let complaint = "wrote no mainstay.1".to_owned();
        return Err(Error::Output { command: "mainstay man".to_owned(), complaint });
    }
    for (from, place) in C_LIBRARY {
        // Builds go where cargo was told to put them.
        let from = match from.strip_prefix("target/") {
            Some(built) => project.target().join(built),
            None => project.root().join(from),
        };
        copy(&from, &dist.place(place)?)?;
    }
    for document in DOCUMENTS {
        copy(&project.root().join(document), &dist.folder(DOC)?.join(document))?;
    }
    dist.list()
}

/// The folder under construction.
struct Dist {
    root: PathBuf,
}

impl Dist {
    /// Nothing of an older release may stay behind.
    fn empty(root: PathBuf) -> Result<Self> {
        match fs::remove_dir_all(&root) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                Err(Error::File { action: "remove", path: root, source })
            }
            _ => Ok(Self { root }),
        }
    }

    fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.root.join(name);
        create(&path)?;
        Ok(path)
    }

    /// A file's path, its folder made.
    fn place(&self, name: &str) -> Result<PathBuf> {
        let path = self.root.join(name);
        create(path.parent().unwrap_or(&self.root))?;
        Ok(path)
    }

    /// Prints every file with its size; an empty one is an error.
    fn list(&self) -> Result<()> {
        let mut files = Vec::new();
        collect(&self.root, &mut files)?;
        files.sort();
        for (path, bytes) in &files {
            println!("{bytes:>10}  {}", path.display());
            if *bytes == 0 {
                let command = "mainstay completions or mainstay man".to_owned();
                let complaint = format!("left {} empty", path.display());
                return Err(Error::Output { command, complaint });
            }
        }
        println!("DIST files={} folder={}", files.len(), self.root.display());
        Ok(())
    }
}

fn collect(folder: &Path, files: &mut Vec<(PathBuf, u64)>) -> Result<()> {
    let failed = |source| Error::File { action: "list", path: folder.to_path_buf(), source };
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let metadata = entry.metadata().map_err(failed)?;
        if metadata.is_dir() {
            collect(&entry.path(), files)?;
        } else {
            files.push((entry.path(), metadata.len()));
        }
    }
    Ok(())
}

/// What a program prints.
fn ask(command: &mut Command) -> Result<Vec<u8>> {
    let shown = project::show(command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .map_err(|source| Error::Start { command: shown.clone(), source })?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(Error::Command { command: shown, status: output.status })
    }
}

fn create(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(|source| Error::File {
        action: "create",
        path: folder.to_path_buf(),
        source,
    })
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).map_err(|source| Error::File {
        action: "write",
        path: path.to_path_buf(),
        source,
    })
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(|_| ()).map_err(|source| Error::File {
        action: "copy",
        path: from.to_path_buf(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_release_is_removed_first() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("dist");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("old"), "old").unwrap();
        let dist = Dist::empty(root.clone()).unwrap();
        assert!(!root.exists());
        fs::write(dist.place("bin/new").unwrap(), "new").unwrap();
        dist.list().unwrap();
    }

    #[test]
    fn a_file_that_came_out_empty_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let dist = Dist::empty(folder.path().join("dist")).unwrap();
        write(&dist.place("share/man/man1/mainstay.1").unwrap(), b"").unwrap();
        let error = dist.list().unwrap_err().to_string();
        assert!(error.contains("mainstay.1 empty"), "{error}");
    }
}
