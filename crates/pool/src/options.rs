//! Creating and joining pools. The two are told apart, and no mismatch ever changes a file.

use crate::{
    Error, Pool, Result,
    checkpoint::{self, PowerCut},
    extents::Extents,
    geometry::Geometry,
    inner::Inner,
    layout::{HEADER_LEN, Header, SLOTS_OFFSET},
    limits::RESERVE_DEFAULT,
};
use mainstay_base::{Name, Rng};
use mainstay_shm::{
    Access, Backing, Unpublished, hook,
    lease::{self, LEASE_SLOTS, SlotEntry},
};
use rustix::io::Errno;
use std::{os::fd::OwnedFd, path::Path, time::SystemTime};
use uuid::Uuid;
use zerocopy::IntoBytes;

/// How a pool is made or found.
///
/// ```
/// use mainstay_pool::{Kind, PoolOptions};
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("calls.pool");
/// let options = PoolOptions::new("calls", 256).max_blocks(10_000);
/// let pool = options.clone().create(&path)?;
/// assert!(options.clone().create(&path).is_err(), "it exists");
/// let same = options.join(&path)?;
/// assert!(PoolOptions::new("calls", 128).join(&path).is_err(), "other block size");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct PoolOptions {
    name: String,
    block_size: usize,
    reserve: u64,
    max_blocks: Option<u64>,
    growth_step: Option<u32>,
    seed: Option<u64>,
    mode: u32,
    boot: Option<Uuid>,
    after_power_cut: PowerCut,
}

impl PoolOptions {
    /// A pool called `name` (see [`mainstay_base::Name`] for the rules) with blocks of
    /// `block_size` bytes of data, 1 to 1 GiB.
    ///
    /// Example: see [`PoolOptions`].
    #[must_use]
    pub fn new(name: &str, block_size: usize) -> Self {
        Self {
            name: name.to_owned(),
            block_size,
            reserve: RESERVE_DEFAULT,
            max_blocks: None,
            growth_step: None,
            seed: None,
            mode: 0o600,
            boot: None,
            after_power_cut: PowerCut::default(),
        }
    }

    /// Address space that every process reserves for the pool, in bytes: what it can grow to.
    /// 64 GiB unless told otherwise. Decided at creation.
    ///
    /// ```
    /// use mainstay_pool::PoolOptions;
    /// let pool = PoolOptions::new("calls", 64).reserve(1 << 30).create_memfd()?;
    /// assert!(pool.info()?.reserved <= 1 << 30);
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    #[must_use]
    pub fn reserve(mut self, bytes: u64) -> Self {
        self.reserve = bytes;
        self
    }

    /// A limit on the number of blocks, rounded up to whole growth steps. Decided at creation.
    ///
    /// Example: see [`PoolOptions::growth_step`].
    #[must_use]
    pub fn max_blocks(mut self, blocks: u64) -> Self {
        self.max_blocks = Some(blocks);
        self
    }

    /// How many blocks are added at once, rounded up to a power of two; unless told otherwise
    /// about 1 MiB of data, at most 4,096 blocks. Decided at creation.
    ///
    /// ```
    /// use mainstay_pool::PoolOptions;
    /// let options = PoolOptions::new("calls", 64).growth_step(100).max_blocks(200);
    /// let info = options.create_memfd()?.info()?;
    /// assert_eq!((info.blocks_per_extent, info.blocks_max()), (128, 256));
    /// assert!(info.blocks() <= info.blocks_max());
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    #[must_use]
    pub fn growth_step(mut self, blocks: u32) -> Self {
        self.growth_step = Some(blocks);
        self
    }

    /// Decides the UUIDs this process gives to blocks, for tests that must repeat. Random unless
    /// told otherwise.
    ///
    /// ```
    /// use mainstay_pool::{Kind, PoolOptions};
    /// let options = PoolOptions::new("calls", 64).seed(7);
    /// let (one, two) = (options.clone().create_memfd()?, options.create_memfd()?);
    /// let uuid = one.allocate(Kind::Transient)?.uuid();
    /// assert_eq!(uuid, two.allocate(Kind::Transient)?.uuid());
    /// # Ok::<(), mainstay_pool::Error>(())
    /// ```
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Permissions of a new file, as for chmod(2), less the umask. 0o600 unless told otherwise.
    ///
    /// ```
    /// use std::os::unix::fs::PermissionsExt;
    /// let dir = tempfile::tempdir()?;
    /// let path = dir.path().join("calls.pool");
    /// mainstay_pool::PoolOptions::new("calls", 64).mode(0o640).create(&path)?;
    /// assert_eq!(path.metadata()?.permissions().mode() & 0o137, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// Which boot of the machine this is, for tests of power cuts; what the kernel says unless told
    /// otherwise.
    ///
    /// Example: see [`crate::checkpoint`].
    #[must_use]
    pub fn boot(mut self, boot: Uuid) -> Self {
        self.boot = Some(boot);
        self
    }

    /// What to do with a pool that has checkpoints, and was last open in another boot: made anew
    /// from the last one, unless told otherwise.
    ///
    /// Example: see [`PowerCut`].
    #[must_use]
    pub fn after_power_cut(mut self, what: PowerCut) -> Self {
        self.after_power_cut = what;
        self
    }

    /// Makes a new pool in a new file. The file appears complete or not at all.
    ///
    /// Example: see [`PoolOptions`].
    ///
    /// # Errors
    /// `AlreadyExists` when there is such a file, `Name`, `Limit`, and what the system refuses.
    pub fn create(self, path: impl AsRef<Path>) -> Result<Pool> {
        let (name, geometry) = self.planned()?;
        let new = Unpublished::create(path.as_ref(), self.mode)?;
        if hook::planted("name-before-header") {
            let backing = new.publish()?;
            write_head(&backing, &name, &geometry)?;
            return Joining::of(backing)?.join(self.seed, self.boot);
        }
        write_head(new.backing(), &name, &geometry)?;
        Joining::of(new.publish()?)?.join(self.seed, self.boot)
    }

    /// Joins the pool in an existing file, alone or beside other processes.
    ///
    /// Example: see [`PoolOptions`].
    ///
    /// # Errors
    /// `NotFound`; `WrongName`, `WrongBlockSize`, `FormatVersion`, `NotAPool`, `Corrupt` and the
    /// like, none of which change the file.
    pub fn join(self, path: impl AsRef<Path>) -> Result<Pool> {
        let joining = Joining::at(path.as_ref(), self.boot, self.after_power_cut)?;
        self.join_checked(joining)
    }

    /// Joins the pool if the file exists, creates it if not.
    ///
    /// ```
    /// use mainstay_pool::PoolOptions;
    /// let dir = tempfile::tempdir()?;
    /// let path = dir.path().join("calls.pool");
    /// let first = PoolOptions::new("calls", 64).open(&path)?;
    /// let again = PoolOptions::new("calls", 64).open(&path)?;
    /// assert_eq!(first.uuid(), again.uuid());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`PoolOptions::join`] and [`PoolOptions::create`].
    pub fn open(self, path: impl AsRef<Path>) -> Result<Pool> {
        let path = path.as_ref();
        match self.clone().join(path) {
            Err(Error::Shm(mainstay_shm::Error::NotFound { .. })) => {}
            joined => return joined,
        }
        match self.clone().create(path) {
            // Somebody was faster; what is there now is complete.
            Err(Error::Shm(mainstay_shm::Error::AlreadyExists { .. })) => self.join(path),
            created => created,
        }
    }

    /// Makes a new pool in memory. Other processes join it by its descriptor, and it lives as long
    /// as anybody (also systemd's FD store) has one.
    ///
    /// Example: see [`PoolOptions::join_fd`].
    ///
    /// # Errors
    /// `Name`, `Limit`, and what the system refuses.
    pub fn create_memfd(self) -> Result<Pool> {
        let (name, geometry) = self.planned()?;
        let backing = Backing::memfd(name.as_str())?;
        write_head(&backing, &name, &geometry)?;
        Joining::of(backing)?.join(self.seed, self.boot)
    }

    /// Joins the pool behind a descriptor that was inherited, received, or taken from a store.
    ///
    /// ```
    /// # use mainstay_pool::PoolOptions;
    /// let pool = PoolOptions::new("calls", 64).create_memfd()?;
    /// let fd = pool.as_fd().try_clone_to_owned()?; // or received, or inherited
    /// let same = PoolOptions::new("calls", 64).join_fd(fd)?;
    /// assert_eq!(same.uuid(), pool.uuid());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`PoolOptions::join`].
    pub fn join_fd(self, fd: OwnedFd) -> Result<Pool> {
        let joining = Joining::of(Backing::from_fd(fd, Access::ReadWrite)?)?;
        let joining = joining.of_this_boot(self.boot)?;
        self.join_checked(joining)
    }

    fn join_checked(self, joining: Joining) -> Result<Pool> {
        let pool = joining.backing.describe();
        if joining.name.as_str() != self.name {
            let found = joining.name.to_string();
            return Err(Error::WrongName { pool, found, wanted: self.name });
        }
        if joining.geometry.block_size != self.block_size as u64 {
            let (found, wanted) = (joining.geometry.block_size, self.block_size as u64);
            return Err(Error::WrongBlockSize { pool, found, wanted });
        }
        joining.join(self.seed, self.boot)
    }

    fn planned(&self) -> Result<(Name, Geometry)> {
        let name = Name::new(&self.name)
            .map_err(|source| Error::Name { name: self.name.clone(), source })?;
        let page = rustix::param::page_size() as u64;
        let geometry =
            Geometry::plan(self.block_size, self.growth_step, self.reserve, self.max_blocks, page)?;
        Ok((name, geometry))
    }
}

/// How often a pool that is made anew under our hands is opened again.
const RESTORES_MAX: u32 = 100;

/// A backing whose header was read and found good.
pub(crate) struct Joining {
    pub(crate) backing: Backing,
    pub(crate) name: Name,
    pub(crate) uuid: Uuid,
    pub(crate) created: u64,
    pub(crate) geometry: Geometry,
}

impl Joining {
    /// The pool in the file at `path`; one whose machine was cut off is made anew first.
    pub(crate) fn at(path: &Path, boot: Option<Uuid>, after: PowerCut) -> Result<Self> {
        // Somebody else may make it anew at the same time: then there is another file to be opened.
        for _ in 0..RESTORES_MAX {
            let joining = Self::of(Backing::open(path, Access::ReadWrite)?)?;
            let Some(boot) = joining.other_boot(boot)? else { return Ok(joining) };
            match after {
                PowerCut::Restore => checkpoint::restore_beside(path, &joining.backing, boot)?,
                PowerCut::Refuse => break,
            }
        }
        Err(Error::PowerCut { pool: path.display().to_string() })
    }

    /// Refuses a pool whose machine was cut off: behind a descriptor it cannot be replaced.
    pub(crate) fn of_this_boot(self, boot: Option<Uuid>) -> Result<Self> {
        match self.other_boot(boot)? {
            None => Ok(self),
            Some(_) => Err(Error::PowerCut { pool: self.backing.describe() }),
        }
    }

    /// This boot, if the pool has checkpoints and was last open in another.
    fn other_boot(&self, boot: Option<Uuid>) -> Result<Option<Uuid>> {
        let Some(last) = checkpoint::last_boot(&self.backing, self.geometry.version)? else {
            return Ok(None);
        };
        let boot = boot.map_or_else(checkpoint::boot_id, Ok)?;
        Ok((boot != last).then_some(boot))
    }

    /// Reads the header, and checks it.
    pub(crate) fn header(backing: &Backing) -> Result<(Header, Name, Geometry)> {
        let mut head = [0; HEADER_LEN];
        let filled = read_at(backing, &mut head, 0)?;
        Header::parse(&backing.describe(), &head[..filled], backing.len()?)
    }

    pub(crate) fn of(backing: Backing) -> Result<Self> {
        let (header, name, geometry) = Self::header(&backing)?;
        let uuid = Uuid::from_bytes(header.uuid);
        Ok(Self { backing, name, uuid, created: header.created, geometry })
    }

    pub(crate) fn join(self, seed: Option<u64>, boot: Option<Uuid>) -> Result<Pool> {
        let Self { backing, name, uuid, geometry, .. } = self;
        let order = slots_clean_first(&backing)?;
        let (mapping, slot) = lease::acquire(&backing, geometry.reservation(), &order)?;
        let extents = Extents::new(mapping, backing, geometry, name.as_str())?;
        let seed = seed.unwrap_or_else(random_seed);
        let inner = Inner::new(extents, slot, name, uuid, seed, boot);
        Pool::started(inner)
    }
}

/// Slots that are clean come first: to lease one whose owner died means to sweep the whole pool.
fn slots_clean_first(backing: &Backing) -> Result<Vec<u32>> {
    let mut bytes = [0; LEASE_SLOTS * size_of::<SlotEntry>()];
    read_at(backing, &mut bytes, SLOTS_OFFSET as u64)?;
    let state = |slot: u32| bytes[slot as usize * size_of::<SlotEntry>()];
    let mut order: Vec<u32> = (0..LEASE_SLOTS as u32).collect();
    order.sort_by_key(|slot| state(*slot) != lease::CLEAN as u8);
    Ok(order)
}

fn write_head(backing: &Backing, name: &Name, geometry: &Geometry) -> Result<()> {
    backing.allocate(0, geometry.extents_offset)?;
    let mut rng = Rng::seeded(random_seed());
    let uuid = uuid::Builder::from_random_bytes(
        (u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64())).to_be_bytes(),
    );
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let created = u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX);
    let header = Header::new(name, uuid.into_uuid().into_bytes(), geometry, created);
    let mut rest = header.as_bytes();
    let mut at = 0;
    while !rest.is_empty() {
        match rustix::io::pwrite(backing, rest, at) {
            Ok(written) => {
                rest = &rest[written..];
                at += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err(io_error(backing, "write the header", e)),
        }
    }
    Ok(())
}

/// Fills `target` from `offset` on as far as the file reaches; returns how far.
fn read_at(backing: &Backing, target: &mut [u8], offset: u64) -> Result<usize> {
    let mut filled = 0;
    while filled < target.len() {
        match rustix::io::pread(backing, &mut target[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(Errno::INTR) => {}
            Err(e) => return Err(io_error(backing, "read the header", e)),
        }
    }
    Ok(filled)
}

fn io_error(backing: &Backing, action: &'static str, e: Errno) -> Error {
    let hint = "check the disk, and the descriptor's access mode";
    mainstay_shm::Error::System { path: backing.describe(), action, source: e.into(), hint }.into()
}

fn random_seed() -> u64 {
    getrandom::u64().expect("getrandom(2) works on every Linux that runs this")
}
