//! Where pools are: a path, or a plain name in the folder where states are too.
//!
//! The folder is `$MAINSTAY_DIR`, else `$XDG_RUNTIME_DIR/mainstay`, else
//! `/dev/shm/mainstay-<uid>`. Whoever names one in MAINSTAY_DIR knows who else can write there; the
//! other two must belong to the user and be closed to others, for anybody may make a folder in
//! `/dev/shm`.

use crate::error::{CliError, Result};
use mainstay_base::Name;
use std::{
    env,
    ffi::{OsStr, OsString},
    fs::{self, DirBuilder},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

const SUFFIX: &str = ".pool";

/// The folder in which plain names are looked up.
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    /// Named by the user, who answers for it.
    chosen: bool,
}

impl Folder {
    /// Which folder it is; it may not exist yet.
    ///
    /// # Errors
    /// `ForeignFolder` when others can change what is in it.
    pub(crate) fn find() -> Result<Self> {
        let uid = rustix::process::geteuid().as_raw();
        let folder = Self::among(|name| env::var_os(name), uid);
        folder.check(uid)?;
        Ok(folder)
    }

    fn among(variable: impl Fn(&str) -> Option<OsString>, uid: u32) -> Self {
        let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(path) = set("MAINSTAY_DIR") {
            return Self { path, chosen: true };
        }
        let session = set("XDG_RUNTIME_DIR").filter(|path| path.is_absolute() && path.is_dir());
        let path = match session {
            Some(session) => session.join("mainstay"),
            None => PathBuf::from(format!("/dev/shm/mainstay-{uid}")),
        };
        Self { path, chosen: false }
    }

    fn check(&self, uid: u32) -> Result<()> {
        let refuse = |why| Err(CliError::ForeignFolder { path: self.path.clone(), why });
        let Ok(found) = fs::symlink_metadata(&self.path) else { return Ok(()) };
        match found {
            _ if self.chosen => Ok(()),
            found if !found.is_dir() => refuse("it is not a folder, or a link to one"),
            found if found.uid() != uid => refuse("it belongs to another user"),
            found if found.mode() & 0o022 != 0 => refuse("its mode lets others write"),
            _ => Ok(()),
        }
    }

    /// Makes it if it is not there.
    pub(crate) fn make(&self) -> Result<()> {
        let hint = "name another in MAINSTAY_DIR";
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.path);
        made.map_err(CliError::file(&self.path, "make the folder of pools and states", hint))?;
        // Somebody may have been faster.
        self.check(rustix::process::geteuid().as_raw())
    }

    fn file(&self, name: &Name) -> PathBuf {
        self.path.join(format!("{name}{SUFFIX}"))
    }
}

/// What the user calls a pool, as given.
#[derive(clap::Args)]
pub(crate) struct Target {
    /// A pool: a name in the pool folder, or a path (with a '/')
    #[arg(value_name = "POOL", value_hint = clap::ValueHint::FilePath)]
    pub(crate) pool: OsString,
}

impl Target {
    /// The file of a pool that should exist.
    pub(crate) fn existing(&self) -> Result<PathBuf> {
        let given = &self.pool;
        if is_path(given) {
            return Ok(given.into());
        }
        let name = name_of(given);
        let folder = Folder::find()?;
        if let Ok(name) = &name {
            let file = folder.file(name);
            if file.symlink_metadata().is_ok() {
                return Ok(file);
            }
        }
        if Path::new(given).is_file() {
            return Ok(Path::new(".").join(given));
        }
        Err(CliError::NoPool { name: name?.to_string(), folder: folder.path })
    }

    /// The file that a pool of this name has, whether it is there or not.
    pub(crate) fn path(&self) -> Result<PathBuf> {
        if is_path(&self.pool) {
            return Ok(PathBuf::from(&self.pool));
        }
        Ok(Folder::find()?.file(&name_of(&self.pool)?))
    }

    /// File and name for a new pool; makes the pool folder if it is needed. The name of one given
    /// by path is that of the file, unless the user says another.
    pub(crate) fn fresh(&self, called: Option<&str>) -> Result<(PathBuf, String)> {
        if is_path(&self.pool) {
            let path = PathBuf::from(&self.pool);
            let name = match called {
                Some(name) => name.to_owned(),
                None => name_of_file(&path)?,
            };
            return Ok((path, name));
        }
        let name = name_of(&self.pool)?;
        let folder = Folder::find()?;
        folder.make()?;
        Ok((folder.file(&name), called.unwrap_or(name.as_str()).to_owned()))
    }
}

/// The pools of a folder, by name: files that end in `.pool`, but no hidden ones.
pub(crate) fn list(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let hint = "check the folder's name and mode";
    let entries = match fs::read_dir(folder) {
        // The pool folder is made by the first `create`.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(CliError::file(folder, "list it", hint))?,
    };
    let mut pools = Vec::new();
    for entry in entries {
        let entry = entry.map_err(CliError::file(folder, "list it", hint))?;
        let file_name = entry.file_name();
        let file_name = file_name.to_string_lossy();
        if let Some(name) = file_name.strip_suffix(SUFFIX)
            && !name.is_empty()
            && !name.starts_with('.')
        {
            pools.push((name.to_owned(), entry.path()));
        }
    }
    pools.sort();
    Ok(pools)
}

fn is_path(given: &OsStr) -> bool {
    given.as_encoded_bytes().contains(&b'/')
}

fn name_of(given: &OsStr) -> Result<Name> {
    let text = given.to_string_lossy();
    Name::new(&text).map_err(|source| CliError::Name { name: text.into_owned(), source })
}

fn name_of_file(path: &Path) -> Result<String> {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = file.strip_suffix(SUFFIX).unwrap_or(&file);
    name_of(OsStr::new(stem)).map(|name| name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn folder_with(set: &[(&str, &str)]) -> Folder {
        let lookup = |name: &str| {
            set.iter().find(|(variable, _)| *variable == name).map(|(_, value)| value.into())
        };
        Folder::among(lookup, 7)
    }

    #[test]
    fn the_folder_is_the_one_named_then_the_sessions_then_in_shared_memory() {
        let session = tempfile::tempdir().unwrap();
        let session = session.path().to_str().unwrap();
        let both = [("MAINSTAY_DIR", "/pools"), ("XDG_RUNTIME_DIR", session)];
        assert_eq!(folder_with(&both).path, Path::new("/pools"));
        assert_eq!(folder_with(&both[1..]).path, Path::new(session).join("mainstay"));
        assert_eq!(folder_with(&[]).path, Path::new("/dev/shm/mainstay-7"));
        assert_eq!(folder_with(&[("MAINSTAY_DIR", "")]).path, Path::new("/dev/shm/mainstay-7"));
        let gone = [("XDG_RUNTIME_DIR", "/no/such/session")];
        assert_eq!(folder_with(&gone).path, Path::new("/dev/shm/mainstay-7"));
    }

    #[test]
    fn a_folder_that_others_can_change_is_refused_unless_the_user_named_it() {
        let dir = tempfile::tempdir().unwrap();
        let uid = dir.path().metadata().unwrap().uid();
        let folder = |chosen| Folder { path: dir.path().into(), chosen };
        assert!(folder(false).check(uid).is_ok());
        assert!(folder(false).check(uid + 1).is_err(), "another user's");
        assert!(folder(true).check(uid + 1).is_ok(), "as the user said");

        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(folder(false).check(uid).is_err(), "open to all");

        let link = dir.path().join("link");
        symlink("/tmp", &link).unwrap();
        assert!(Folder { path: link, chosen: false }.check(uid).is_err(), "a link");
    }

    #[test]
    fn only_files_that_end_in_pool_and_are_not_hidden_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.pool", "a.pool", ".c.pool", "d.txt", ".pool"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let names: Vec<String> =
            list(dir.path()).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(list(&dir.path().join("none")).unwrap().is_empty());
    }

    #[test]
    fn a_pool_given_by_path_is_called_like_its_file() {
        assert_eq!(name_of_file(Path::new("/x/calls.pool")).unwrap(), "calls");
        assert_eq!(name_of_file(Path::new("/x/calls")).unwrap(), "calls");
        assert!(name_of_file(Path::new("/x/my calls.pool")).is_err());
        assert!(name_of_file(Path::new("/")).is_err());
    }
}
