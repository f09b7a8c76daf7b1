//! The packages that this machine knows of: the package lists that apt has fetched, or, where it
//! has fetched none, what dpkg has installed.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{
    Result,
    records::{self, Key, Value},
};

const LISTS: &str = "/var/lib/apt/lists";
const STATUS: &str = "/var/lib/dpkg/status";
/// Comes with apt, and reads whatever apt has packed.
const UNPACKER: &str = "/usr/lib/apt/apt-helper";

/// All packages, one of each name and architecture.
#[derive(Default)]
pub(crate) struct Index {
    /// In the order of their keys.
    pub(crate) records: BTreeMap<Key, Value>,
    /// How many files they come from.
    pub(crate) files: u64,
    /// Packages whose names are longer than a key.
    pub(crate) left_out: u64,
}

impl Index {
    /// The index of this machine; empty on a machine without Debian's packages.
    pub(crate) fn read() -> Result<Self> {
        let mut index = Self::default();
        for list in lists() {
            // A list that cannot be unpacked is as good as one that was not fetched.
            if let Some(bytes) = unpacked(&list) {
                index.add(&bytes);
            }
        }
        if index.records.is_empty() && Path::new(STATUS).exists() {
            index.add(&fs::read(STATUS)?);
        }
        Ok(index)
    }

    /// Adds the packages of a file: paragraphs of `Name: value` lines, as deb-control(5) and
    /// dpkg's own files have them. What a later file says of a package replaces what was said.
    fn add(&mut self, bytes: &[u8]) {
        self.files += 1;
        let mut paragraph = Paragraph::default();
        let text = String::from_utf8_lossy(bytes);
        for line in text.lines().chain([""]) {
            if !line.trim().is_empty() {
                paragraph.take(line);
                continue;
            }
            let package = std::mem::take(&mut paragraph);
            if package.name.is_empty() {
                continue;
            }
            match records::key(package.name, package.architecture) {
                Some(key) => drop(self.records.insert(key, package.value())),
                None => self.left_out += 1,
            }
        }
    }
}

/// What is said of a package, as far as it is kept.
#[derive(Default)]
struct Paragraph<'a> {
    name: &'a str,
    architecture: &'a str,
    version: &'a str,
    size: &'a str,
    section: &'a str,
    about: &'a str,
}

impl<'a> Paragraph<'a> {
    fn take(&mut self, line: &'a str) {
        // A line that goes on from the one before begins with a space, and is none of these.
        let Some((name, value)) = line.split_once(':') else { return };
        let field = match name {
            "Package" => &mut self.name,
            "Architecture" => &mut self.architecture,
            "Version" => &mut self.version,
            "Installed-Size" => &mut self.size,
            "Section" => &mut self.section,
            "Description" => &mut self.about,
            _ => return,
        };
        *field = value.trim();
    }

    fn value(&self) -> Value {
        records::value(&[self.version, self.size, self.section, self.about])
    }
}

fn lists() -> Vec<PathBuf> {
    let files = fs::read_dir(LISTS).into_iter().flatten().flatten();
    let is_list = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.split_once("_Packages")
            .is_some_and(|(_, rest)| rest.is_empty() || rest.starts_with('.'))
    };
    let mut lists: Vec<_> = files.map(|file| file.path()).filter(is_list).collect();
    lists.sort();
    lists
}

fn unpacked(list: &Path) -> Option<Vec<u8>> {
    if list.extension().is_none_or(|extension| extension.to_string_lossy().contains("_Packages")) {
        return fs::read(list).ok();
    }
    let mut unpacker = Command::new(UNPACKER);
    let unpacker = unpacker.arg("cat-file").arg(list).stdin(Stdio::null()).stderr(Stdio::null());
    let output = unpacker.output().ok()?;
    output.status.success().then_some(output.stdout)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]
mod tests {
    use super::*;

    const TWO: &str = "\
Package: bash
Version: 5.2
Architecture: amd64
Installed-Size: 7164
Section: shells
Description: GNU Bourne Again SHell
 Package: a line that goes on
Depends: libc6

Package: tzdata
Architecture: all
Version: 2026a";

    #[test]
    fn a_paragraph_is_a_record_and_the_last_one_needs_no_empty_line_behind_it() {
        let mut index = Index::default();
        index.add(TWO.as_bytes());
        let found: Vec<_> =
            index.records.iter().map(|(key, value)| (text(key), text(value))).collect();
        let bash =
            ("bash:amd64".to_owned(), "5.2\t7164\tshells\tGNU Bourne Again SHell".to_owned());
        let tzdata = ("tzdata:all".to_owned(), "2026a\t\t\t".to_owned());
        assert_eq!(found, [bash, tzdata]);
        assert_eq!((index.files, index.left_out), (1, 0));
    }

    #[test]
    fn a_later_file_replaces_what_an_earlier_one_said_and_long_names_are_counted() {
        let mut index = Index::default();
        index.add(TWO.as_bytes());
        let long = "x".repeat(records::KEY_LEN);
        let more = format!("Package: bash\nArchitecture: amd64\nVersion: 5.3\n\nPackage: {long}\n");
        index.add(more.as_bytes());
        assert_eq!((index.records.len(), index.left_out), (2, 1));
        assert!(text(&index.records[&records::key("bash", "amd64").unwrap()]).starts_with("5.3"));
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
    }
}
