//! What the header of a store says, whatever else is damaged.

use mainstay_storage::Folder;

use crate::{
    any::any_header,
    error::{Error, Result},
    rank::Ranked,
    recover::store_header,
};

/// Which store is in a folder, and which leaders it knows of.
///
/// ```
/// use mainstay_store::{Known, Options, RawStore};
/// let disk = mainstay_sim::Disk::new(7);
/// let store = RawStore::create(disk.clone(), 2, 3, &Options::default())?;
/// store.fence(store.epoch() + 5)?;
/// let known = Known::of(&disk)?;
/// assert_eq!((known.id, known.epoch), (store.identity().id, store.epoch() + 5));
/// # Ok::<(), mainstay_store::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Known {
    /// What tells the store from all others, and what its replicas have as well.
    pub id: [u8; 16],
    /// The highest epoch of a leader that it knows of, itself included if it is one.
    pub epoch: u64,
}

impl Known {
    /// Of a store of either kind. Its header is read, and nothing else.
    ///
    /// Example: see [`Known`].
    ///
    /// # Errors
    /// [`Error::NotAStore`]; [`Error::Damaged`] if no copy of the header is sound; those of keys; what
    /// the disk says.
    pub fn of(folder: &impl Folder) -> Result<Self> {
        match store_header(folder) {
            Ok(header) => Ok(Self { id: header.id, epoch: header.rank().known() }),
            Err(Error::OtherKind { .. }) => {
                let header = any_header(folder)?;
                Ok(Self { id: header.id, epoch: header.rank().known() })
            }
            Err(error) => Err(error),
        }
    }
}
