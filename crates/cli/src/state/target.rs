//! The folder of states, and the state that the user names.

use super::fields::Layout;
use crate::{error::Result, place::Folder};
use mainstay::state::{Domain, Error, State, StateInfo, StateOptions};

/// What the user calls a state.
#[derive(clap::Args)]
pub(super) struct Target {
    /// A state: letters, digits, '.', '-' and '_'
    #[arg(value_name = "NAME")]
    pub(super) name: String,
}

/// The folder of states; made if it is not there.
pub(super) fn domain() -> Result<Domain> {
    let folder = Folder::find()?;
    folder.make()?;
    Ok(Domain::open(&folder.path)?)
}

/// The folder of states, unless nobody has made it yet.
pub(super) fn existing_domain() -> Result<Option<Domain>> {
    let folder = Folder::find()?;
    if folder.path.is_dir() { Ok(Some(Domain::open(&folder.path)?)) } else { Ok(None) }
}

impl Target {
    /// What there is to say about the state; none if there is no such state. One whose subscribers
    /// were all killed is none.
    pub(super) fn look(&self, domain: &Domain) -> Result<Option<StateInfo>> {
        mainstay_base::Name::new(&self.name).map_err(Error::from)?;
        domain.sweep()?;
        Ok(domain.info(&self.name)?)
    }

    /// The same for a state that should exist.
    pub(super) fn existing(&self) -> Result<(Domain, StateInfo)> {
        let missing = || Error::NotFound { state: self.name.clone() };
        let domain = existing_domain()?.ok_or_else(missing)?;
        let info = self.look(&domain)?.ok_or_else(missing)?;
        Ok((domain, info))
    }

    /// Subscribes to read, whatever its type is.
    pub(super) fn reader(&self, domain: &Domain) -> Result<State<[u8]>> {
        Ok(StateOptions::new().any_type().reader(domain, &self.name)?)
    }

    /// Subscribes to write, whatever its type is.
    pub(super) fn writer(&self, domain: &Domain) -> Result<State<[u8]>> {
        Ok(StateOptions::new().any_type().writer(domain, &self.name)?)
    }
}

/// What the bytes of a state mean, if it says so. A typed state has the size of its type.
pub(super) fn layout(info: &StateInfo) -> Option<Layout> {
    Layout::parse(&info.fields, usize::try_from(info.size).ok()?)
}
