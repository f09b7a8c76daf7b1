//! Making a pool anew from its checkpoint file.

use super::{
    fault_at,
    format::EXCLUSIVE,
    image::{Fault, Image},
    path_of, sync_folder,
};
use crate::{
    Error, Result, Uuid,
    geometry::Geometry,
    layout::{CHECKPOINT_OFFSET, Checkpoints, LIVE_OFFSET},
    word::{TAG_BITS, Word},
};
use mainstay_shm::{Backing, hook};
use rustix::fs::{self, FlockOperation, Mode, OFlags};
use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};
use zerocopy::IntoBytes;

/// What to do with a pool whose machine was cut off since it was last open.
///
/// ```
/// use mainstay_pool::{PoolOptions, Uuid, checkpoint::PowerCut};
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("calls.pool");
/// let options = PoolOptions::new("calls", 64);
/// # let pool = options.clone().create(&path)?;
/// # pool.checkpoint()?;
/// # pool.close()?;
/// let options = options.boot(Uuid::from_u128(7)); // as after a power cut
/// assert!(options.clone().after_power_cut(PowerCut::Refuse).join(&path).is_err());
/// assert!(options.after_power_cut(PowerCut::Restore).join(&path).is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub enum PowerCut {
    /// Make it anew from its last checkpoint. What was in the file is gone.
    #[default]
    Restore,
    /// Refuse to open it, so that somebody can look first.
    Refuse,
}

/// What a checkpoint file holds.
///
/// Example: see [`survey`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Survey {
    /// The number of the last completed cut.
    pub cut: u64,
    /// When it was made, in ns after 1970.
    pub stamp: u64,
    /// Live blocks in it.
    pub blocks: u64,
    /// Blocks whose data does not have its checksums.
    pub damaged: Vec<u32>,
}

/// The boot that this process runs in.
pub(crate) fn boot_id() -> Result<Uuid> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().parse().map_err(|_| {
        Error::checkpoint("/proc/sys/kernel/random/boot_id", "cannot be read: mount /proc")
    })
}

/// The boot in which a pool with checkpoints was last open; none of a pool that has none.
pub(crate) fn last_boot(backing: &Backing, version: u32) -> Result<Option<Uuid>> {
    if version < 2 {
        return Ok(None);
    }
    let mut bytes = [0; size_of::<Checkpoints>()];
    let failed = |e: rustix::io::Errno| Error::checkpoint(&backing.describe(), &e.to_string());
    let read = rustix::io::pread(backing, &mut bytes, CHECKPOINT_OFFSET).map_err(failed)?;
    let word = |at: usize| {
        let word = bytes[at..at + 8].try_into().expect("eight bytes are eight bytes");
        u64::from_le_bytes(word)
    };
    let enabled = read == bytes.len() && word(0) & 0xFFFF_FFFF == 1;
    Ok(enabled.then(|| Uuid::from_u64_pair(word(8), word(16))))
}

/// Makes the pool at `path`, which `backing` is, anew. If somebody else has done so meanwhile, it
/// is left as it is: look again.
pub(crate) fn restore_beside(path: &Path, backing: &Backing, boot: Uuid) -> Result<()> {
    let old = File::from(backing.reopen()?);
    let failed = |e: io::Error| Error::checkpoint(&path.display().to_string(), &e.to_string());
    // C6: whoever has this lock makes the pool anew; the others wait, and find another file.
    fs::flock(&old, FlockOperation::LockExclusive).map_err(|e| failed(e.into()))?;
    if !super::is_at(&old, path) {
        return Ok(());
    }
    let mode = fs::fstat(&old).map_err(|e| failed(e.into()))?.st_mode & 0o777;
    build(&path_of(path), path, mode, boot, true)
}

/// Makes a pool at `pool` from the checkpoint file at `checkpoint`: for a pool whose own file is
/// gone, or cannot be read any more.
///
/// ```
/// use mainstay_pool::{Kind, Pool, PoolOptions, checkpoint};
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("calls.pool");
/// let pool = PoolOptions::new("calls", 64).create(&path)?;
/// let call = pool.allocate(Kind::Recoverable)?.id();
/// pool.checkpoint()?;
/// # pool.close()?;
/// std::fs::remove_file(&path)?;
/// checkpoint::restore(dir.path().join("calls.pool.checkpoint"), &path)?;
/// assert!(Pool::join_any(&path)?.attach(call).is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// `Checkpoint` when there is a file at `pool` already, or the checkpoint file is damaged.
pub fn restore(checkpoint: impl AsRef<Path>, pool: impl AsRef<Path>) -> Result<()> {
    build(checkpoint.as_ref(), pool.as_ref(), 0o600, boot_id()?, false)
}

/// Reads a checkpoint file, and every block in it.
///
/// ```
/// use mainstay_pool::{Kind, PoolOptions, checkpoint};
/// let dir = tempfile::tempdir()?;
/// let pool = PoolOptions::new("calls", 64).create(dir.path().join("calls.pool"))?;
/// let _call = pool.allocate(Kind::Recoverable)?;
/// pool.checkpoint()?;
/// let survey = checkpoint::survey(dir.path().join("calls.pool.checkpoint"))?;
/// assert_eq!((survey.cut, survey.blocks, survey.damaged.len()), (2, 1, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// `Checkpoint` when it cannot be read, or its logs or records are damaged.
pub fn survey(checkpoint: impl AsRef<Path>) -> Result<Survey> {
    let path = checkpoint.as_ref();
    let image = load(path)?;
    let fault = |fault| fault_at(path, fault);
    let mut survey = Survey { cut: image.cut, stamp: image.stamp, blocks: 0, damaged: Vec::new() };
    let mut data = vec![0; image.geometry.block_size as usize];
    for number in 0..(image.extents * image.geometry.blocks_per_extent) as u32 {
        if image.record(number).is_live() {
            survey.blocks += 1;
            if !image.read(number, &mut data).map_err(fault)? {
                survey.damaged.push(number);
            }
        }
    }
    Ok(survey)
}

fn load(path: &Path) -> Result<Image<File>> {
    let file = File::open(path)
        .map_err(|e| Error::checkpoint(&path.display().to_string(), &format!("open: {e}")))?;
    Image::load(file).map_err(|fault| fault_at(path, fault))
}

/// Writes a new file, makes it durable, and gives it its name.
fn build(checkpoint: &Path, pool: &Path, mode: u32, boot: Uuid, replace: bool) -> Result<()> {
    let image = load(checkpoint)?;
    let failed = |e: io::Error| Error::checkpoint(&pool.display().to_string(), &e.to_string());
    let mut new = pool.to_owned().into_os_string();
    new.push(".restoring");
    let new = PathBuf::from(new);
    let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::RDWR | OFlags::CLOEXEC;
    let file = fs::open(&new, flags, Mode::from_raw_mode(mode)).map_err(|e| failed(e.into()))?;
    let file = File::from(file);
    let written = write(&image, &file, boot).map_err(|fault| fault_at(checkpoint, fault));
    let done = written.and_then(|()| {
        file.sync_all().map_err(failed)?;
        hook::step();
        let named = if replace {
            fs::rename(&new, pool)
        } else {
            fs::renameat_with(fs::CWD, &new, fs::CWD, pool, fs::RenameFlags::NOREPLACE)
        };
        named.map_err(|e| failed(e.into()))?;
        sync_folder(pool).map_err(failed)
    });
    if done.is_err() {
        // Nobody looks for a file of this name.
        let _ = fs::unlink(&new);
    }
    done
}

/// The pool as bytes: see `docs/format/pool.md`.
fn write(image: &Image<File>, file: &File, boot: Uuid) -> Result<(), Fault> {
    let geometry = &image.geometry;
    let len = geometry.file_len(image.extents);
    fs::fallocate(file, fs::FallocateFlags::empty(), 0, len).map_err(io::Error::from)?;
    file.write_all_at(image.header.as_bytes(), 0)?;
    file.write_all_at(&image.extents.to_le_bytes(), LIVE_OFFSET as u64)?;
    let mut words = vec![1_u64];
    let pair = |(high, low): (u64, u64)| [high, low];
    words.extend(pair(boot.as_u64_pair()));
    words.extend(pair(Uuid::from_bytes(image.id()).as_u64_pair()));
    words.extend([image.cut, image.stamp]);
    file.write_all_at(&little_endian(&words), CHECKPOINT_OFFSET)?;
    let mut data = vec![0; geometry.block_size as usize];
    let (mut blocks, mut count) = (Vec::new(), 0);
    for extent in 0..image.extents {
        let start = geometry.extent_offset(extent);
        let head = head_of(image, geometry, extent);
        file.write_all_at(&little_endian(&head), start)?;
        for place in 0..geometry.blocks_per_extent {
            let number = (extent * geometry.blocks_per_extent + place) as u32;
            if !image.record(number).is_live() {
                continue;
            }
            if !image.read(number, &mut data)? {
                count += 1;
                blocks.push(number);
            }
            file.write_all_at(&data, start + geometry.data_offset + place * geometry.stride)?;
        }
    }
    if count > 0 {
        blocks.truncate(100);
        return Err(Fault::Damaged { blocks, count });
    }
    Ok(())
}

/// Owner words, hints and cold headers of an extent, as words of eight bytes.
fn head_of(image: &Image<File>, geometry: &Geometry, extent: u64) -> Vec<u64> {
    let blocks = geometry.blocks_per_extent;
    let mut head = vec![0; (geometry.data_offset / 8) as usize];
    for place in 0..blocks {
        let record = image.record((extent * blocks + place) as u32);
        let cold = (geometry.cold_offset / 8 + place * 6) as usize;
        head[cold + 1] = record.generation;
        if !record.is_live() {
            if !record.is_unused() {
                // Behind its last life.
                head[place as usize] = Word::free_after(record.generation).0;
            }
            continue;
        }
        let tag = record.generation & ((1 << TAG_BITS) - 1);
        head[place as usize] = Word::orphan_of(tag, record.flags & EXCLUSIVE != 0).0;
        head[(geometry.bitmap_offset / 8 + place / 64) as usize] |= 1 << (place % 64);
        head[cold] = record.fingerprint;
        head[cold + 2] = record.uuid[0];
        head[cold + 3] = record.uuid[1];
        head[cold + 4] = u64::from(record.length) | u64::from(record.data_crc) << 32;
        head[cold + 5] = record.version;
    }
    head
}

fn little_endian(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
