//! Which store is meant, and opening it.

use super::{
    keys,
    opened::{Opened, View, is_any},
};
use crate::{
    error::{CliError, Result},
    progress::{Bar, Progress},
};
use mainstay::store::{
    Directory, Error, LogOptions, OnDisk, Options, RawLogStore, RawStore, Survey,
};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(super) struct Target {
    /// The directory of the store
    #[arg(value_name = "STORE", value_hint = clap::ValueHint::DirPath)]
    pub(super) path: PathBuf,
}

impl Target {
    pub(super) fn failed(&self) -> impl Fn(Error) -> CliError + use<> {
        failed(&self.path)
    }

    /// To look only.
    pub(super) fn view(&self) -> Result<OnDisk> {
        view(&self.path)
    }

    pub(super) fn is_any(&self) -> bool {
        is_any(&self.path)
    }

    /// What its checksums say, with a bar.
    pub(super) fn survey(&self, what: &'static str) -> Result<Survey> {
        let mut bar = Bar::new(what);
        let survey = keys::survey(&self.path, |done, total| bar.to(done, total));
        survey.map_err(self.failed())
    }

    /// To look only, of either kind, also while somebody has it open.
    pub(super) fn look(&self) -> Result<View> {
        if self.is_any() {
            let _progress = Progress::spinner("reading");
            let view = keys::view_any(&self.path).map_err(self.failed())?;
            return Ok(View::Any(Box::new(view)));
        }
        match keys::view(&self.path) {
            Err(Error::Locked) => keys::live(&self.path).map(View::Live),
            view => view.map(View::Fixed),
        }
        .map_err(self.failed())
    }

    /// To write, of either kind.
    pub(super) fn open_either(&self) -> Result<Opened> {
        if self.is_any() {
            self.open_any().map(Opened::Any)
        } else {
            Opened::fixed(self.open()?).map_err(self.failed())
        }
    }

    pub(super) fn open_any(&self) -> Result<RawLogStore<Directory>> {
        let (folder, mut bar) = (self.lock()?, Bar::new("opening"));
        let told = |done, all| bar.to(done, all);
        RawLogStore::open_with_progress(folder, &LogOptions::default(), told).map_err(self.failed())
    }

    /// To write.
    pub(super) fn open(&self) -> Result<RawStore<Directory>> {
        if !self.path.is_dir() {
            return Err(self.failed()(Error::NotAStore));
        }
        let (folder, mut bar) = (self.lock()?, Bar::new("opening"));
        let told = |done, all| bar.to(done, all);
        RawStore::open_with_progress(folder, &Options::default(), told).map_err(self.failed())
    }

    fn lock(&self) -> Result<Directory> {
        keys::lock(&self.path).map_err(self.failed())
    }
}

pub(super) fn view(path: &Path) -> Result<OnDisk> {
    let _progress = Progress::spinner("reading");
    keys::view(path).map_err(failed(path))
}

/// The same of a store that may be encrypted or not, whatever another one is.
pub(super) fn view_either(path: &Path) -> Result<OnDisk> {
    let _progress = Progress::spinner("reading");
    keys::view_either(path).map_err(failed(path))
}

/// An error of the store at `path`.
pub(super) fn failed(path: &Path) -> impl Fn(Error) -> CliError + use<> {
    let path = path.to_path_buf();
    move |source| keys::refused(&path, source)
}

/// Refuses a store with values of any size, where a command is not for those.
pub(super) fn fixed_only(path: &Path, cannot_be: &'static str) -> Result<()> {
    if is_any(path) {
        return Err(CliError::AnySize { path: path.to_path_buf(), cannot_be });
    }
    Ok(())
}
