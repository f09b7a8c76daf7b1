//! Several pools of different block sizes as one: size classes.

use crate::{Block, BlockId, Error, Kind, Offer, Pool, PoolOptions, Result};
use std::{fmt, path::Path};

/// Pools of several block sizes, used as one: a block is taken from the smallest class it fits.
///
/// ```
/// use mainstay_pool::{Kind, PoolSet};
/// let set = PoolSet::create_memfd("mixed", &[64, 1024])?;
/// let small = set.allocate(10, Kind::Recoverable)?;
/// let large = set.allocate(65, Kind::Recoverable)?;
/// assert_eq!((small.len(), large.len()), (64, 1024));
/// assert_eq!(small.used_len(), 10);
/// let id = set.id_of(&large);
/// drop(large);
/// assert_eq!(set.attach(id)?.used_len(), 65);
/// # Ok::<(), mainstay_pool::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct PoolSet {
    /// By block size, ascending, no two alike.
    classes: Vec<Pool>,
}

/// Names a block of a set for ever: its size class, and the block in it.
///
/// Example: see [`PoolSet`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SetBlockId {
    /// Block size of the class, in bytes.
    pub block_size: usize,
    /// The block.
    pub block: BlockId,
}

impl fmt::Display for SetBlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.block_size, self.block)
    }
}

impl PoolSet {
    /// Joins or creates one file for each class in `folder`, called `NAME.SIZE.pool`.
    ///
    /// ```
    /// let dir = tempfile::tempdir()?;
    /// let set = mainstay_pool::PoolSet::open(dir.path(), "mixed", &[64, 1024])?;
    /// assert!(dir.path().join("mixed.64.pool").exists());
    /// assert_eq!(set.classes()[1].name(), "mixed.1024");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `NoClasses`, and as [`PoolOptions::open`].
    pub fn open(folder: impl AsRef<Path>, name: &str, block_sizes: &[usize]) -> Result<Self> {
        Self::of(name, block_sizes, |options, name| {
            options.open(folder.as_ref().join(format!("{name}.pool")))
        })
    }

    /// Creates all classes in memory.
    ///
    /// Example: see [`PoolSet`].
    ///
    /// # Errors
    /// `NoClasses`, and as [`PoolOptions::create_memfd`].
    pub fn create_memfd(name: &str, block_sizes: &[usize]) -> Result<Self> {
        Self::of(name, block_sizes, |options, _| options.create_memfd())
    }

    fn of(
        name: &str,
        block_sizes: &[usize],
        make: impl Fn(PoolOptions, &str) -> Result<Pool>,
    ) -> Result<Self> {
        let mut sizes = block_sizes.to_vec();
        sizes.sort_unstable();
        sizes.dedup();
        if sizes.is_empty() {
            return Err(Error::NoClasses);
        }
        let class = |size: &usize| {
            let name = format!("{name}.{size}");
            make(PoolOptions::new(&name, *size), &name)
        };
        Ok(Self { classes: sizes.iter().map(class).collect::<Result<_>>()? })
    }

    /// The pools, by block size.
    ///
    /// Example: see [`PoolSet::open`].
    #[must_use]
    pub fn classes(&self) -> &[Pool] {
        &self.classes
    }

    /// Allocates a zeroed block for `len` bytes and notes `len` as its used length.
    ///
    /// Example: see [`PoolSet`].
    ///
    /// # Errors
    /// `NoSizeClass`, and as [`Pool::allocate`].
    pub fn allocate(&self, len: usize, kind: Kind) -> Result<Block> {
        let at = self.classes.partition_point(|pool| pool.block_size() < len);
        let Some(pool) = self.classes.get(at) else {
            let largest = self.classes.last().map_or(0, Pool::block_size);
            return Err(Error::NoSizeClass { len, largest });
        };
        let block = pool.allocate(kind)?;
        block.set_used_len(len)?;
        Ok(block)
    }

    /// Names a block of this set.
    ///
    /// Example: see [`PoolSet`].
    #[must_use]
    pub fn id_of(&self, block: &Block) -> SetBlockId {
        SetBlockId { block_size: block.len(), block: block.id() }
    }

    /// As [`Pool::attach`], in the class that `id` names.
    ///
    /// Example: see [`PoolSet`].
    ///
    /// # Errors
    /// `NoSizeClass` when the set has no such class, and as [`Pool::attach`].
    pub fn attach(&self, id: SetBlockId) -> Result<Block> {
        match self.classes.binary_search_by_key(&id.block_size, Pool::block_size) {
            Ok(at) => self.classes[at].attach(id.block),
            Err(_) => {
                let largest = self.classes.last().map_or(0, Pool::block_size);
                Err(Error::NoSizeClass { len: id.block_size, largest })
            }
        }
    }

    /// As [`Pool::recover`], over all classes: calls `each` with every block that could be kept.
    ///
    /// ```
    /// use mainstay_pool::{Kind, Offer, PoolSet};
    /// let set = PoolSet::create_memfd("mixed", &[64, 1024])?;
    /// drop((set.allocate(10, Kind::Recoverable)?, set.allocate(65, Kind::Recoverable)?));
    /// let mut used = Vec::new();
    /// set.recover(Offer::Unheld, |block| Ok(used.push(block.used_len())))?;
    /// assert_eq!(used, [10, 65]);
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Pool::recover`]; the first error of `each` ends it.
    pub fn recover(&self, offer: Offer, mut each: impl FnMut(Block) -> Result<()>) -> Result<()> {
        for pool in &self.classes {
            for offered in pool.recover(offer)? {
                match offered.keep() {
                    Ok(block) => each(block)?,
                    // Somebody else was faster, or it is a box: not ours to hand out.
                    Err(Error::NoSuchBlock { .. } | Error::Exclusive { .. }) => {}
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(())
    }
}
