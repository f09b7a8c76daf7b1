//! What a crash of the keeper leaves, and what a power cut would have left.
//!
//! The model of the disk: what was there when the last checkpoint was acknowledged is there. Of the
//! sectors of the checkpoint file that were written since, some have reached the disk, each whole.
//! Of the pool's own file, which the kernel writes whenever it likes, any page may be of either time.

use std::fs;
use std::path::Path;

use mainstay::pool::{Pool, Uuid};
use mainstay_base::Rng;
use zerocopy::FromBytes;

use super::super::error::{DemoError, Trying};
use super::super::twin::{Reading, TWIN_LEN, read};
use super::keeper::{HEAD_LEN, Head, weight};
use super::{checkpoint_in, options, pool_in};

const SECTOR: usize = 512;
const PAGE: usize = 4_096;

/// What is left of the keeper's pool.
pub(super) struct Left {
    pub(super) sweep: u64,
    pub(super) records: u64,
    /// Blocks without a whole side.
    pub(super) torn: u64,
    /// The records are those that the head is about.
    agrees: bool,
}

/// P1: looks at the pool as the crash left it.
pub(super) fn crashed(folder: &Path) -> Result<Left, DemoError> {
    let pool = options().join(pool_in(folder)).trying("join the pool after the crash")?;
    look(&pool)
}

fn look(pool: &Pool) -> Result<Left, DemoError> {
    let (mut head, mut records, mut torn, mut sum) = (Head::default(), 0, 0, 0_u64);
    let look = "look at the pool";
    for info in pool.blocks().trying(look)?.filter(|info| info.kind.is_some()) {
        let Some((info, data)) = pool.copy_block(info.id.number).trying(look)? else { continue };
        if info.used_len == HEAD_LEN {
            head = Head::read_from_prefix(&data).map(|(head, _)| head).unwrap_or_default();
            continue;
        }
        let bytes: Option<&[u8; TWIN_LEN]> = data.first_chunk();
        match bytes.map(read) {
            Some(Reading::Whole(side)) => {
                records += 1;
                sum = sum.wrapping_add(weight(&side));
            }
            // Allocated when the keeper was killed, and never acknowledged.
            Some(Reading::Unwritten) => {}
            Some(Reading::Torn) | None => torn += 1,
        }
    }
    let agrees = (records, sum) == (head.records.get(), head.sum.get());
    Ok(Left { sweep: head.sweep.get(), records, torn, agrees })
}

/// What came back after a power cut.
pub(super) enum Found {
    /// A pool of one moment.
    Whole {
        /// The last sweep in it.
        sweep: u64,
    },
    /// A pool of more than one moment.
    Mixed,
    /// No pool.
    Refused,
}

/// The disk under the keeper.
#[derive(Default)]
pub(super) struct Disk {
    /// The checkpoint file when the last checkpoint was acknowledged.
    synced: Vec<u8>,
    /// The same when the power was cut: what was written, whether or not it is on the disk.
    written: Vec<u8>,
    /// The pool's own file when the last checkpoint was acknowledged.
    pool_before: Vec<u8>,
    /// The same when the power was cut.
    pool: Vec<u8>,
}

impl Disk {
    /// When a checkpoint has just been acknowledged.
    pub(super) fn read(folder: &Path) -> Result<Self, DemoError> {
        let synced = fs::read(checkpoint_in(folder)).trying("read the checkpoint file")?;
        let pool_before = fs::read(pool_in(folder)).trying("read the pool's file")?;
        Ok(Self { synced, pool_before, ..Self::default() })
    }

    /// Now the power is cut.
    pub(super) fn cut_off_with(&mut self, folder: &Path) -> Result<(), DemoError> {
        self.written = fs::read(checkpoint_in(folder)).trying("read the checkpoint file")?;
        self.pool = fs::read(pool_in(folder)).trying("read the pool's file")?;
        Ok(())
    }

    /// P2: one of the many things that may be on the disk, opened as after the machine came back.
    pub(super) fn power_cut(
        &self,
        folder: &Path,
        image: u64,
        rng: &mut Rng,
    ) -> Result<Found, DemoError> {
        let folder = folder.join(format!("image-{image}"));
        fs::create_dir(&folder).trying("make an image")?;
        fs::write(checkpoint_in(&folder), self.checkpoint(image, rng)).trying("make an image")?;
        fs::write(pool_in(&folder), self.pool(rng)).trying("make an image")?;
        let another = Uuid::from_u128(u128::from(rng.next_u64()));
        let found = match options().boot(another).join(pool_in(&folder)) {
            Ok(pool) => match look(&pool)? {
                Left { sweep, torn: 0, agrees: true, .. } => Found::Whole { sweep },
                Left { .. } => Found::Mixed,
            },
            Err(_) => Found::Refused,
        };
        fs::remove_dir_all(&folder).trying("remove an image")?;
        Ok(found)
    }

    /// None, all, or some of the sectors that were written since the last sync, in turns.
    fn checkpoint(&self, image: u64, rng: &mut Rng) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        bytes.resize(self.written.len().max(bytes.len()), 0);
        let kept = [0, 100, 50, 90][(image % 4) as usize];
        for (old, new) in bytes.chunks_mut(SECTOR).zip(self.written.chunks(SECTOR)) {
            if old != new && rng.below(100) < kept {
                old.copy_from_slice(new);
            }
        }
        bytes
    }

    /// Each page as it is, or as it was when the last checkpoint was acknowledged.
    fn pool(&self, rng: &mut Rng) -> Vec<u8> {
        let mut bytes = self.pool.clone();
        for (new, old) in bytes.chunks_mut(PAGE).zip(self.pool_before.chunks(PAGE)) {
            if new.len() == old.len() && rng.below(2) == 0 {
                new.copy_from_slice(old);
            }
        }
        bytes
    }
}
