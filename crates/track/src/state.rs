//! What a tracker knows of the blocks, and how it finds what differs.
//!
//! A flush has two halves. *Collecting* gathers the blocks that may have changed into `pending`: a
//! set that outlives a failure (T4). *Examining* looks at each, compares it with what is known, and
//! takes it out of the set.

use crate::{Result, marks::Marks, neighbours::Neighbours};
use mainstay_base::{
    hlc::{Clock, NodeId, Stamp, Version},
    mix64,
};
use mainstay_pool::{BlockId, Error as PoolError, Ground, Look, Uuid};
use mainstay_shm::{Watch, hook};
use std::{
    collections::{HashMap, HashSet},
    ops::Range,
};

/// What happened to a block.
///
/// Example: see [`Change`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ChangeKind {
    /// A life that was not reported before.
    New,
    /// Its content, or its length, differs.
    Written,
    /// It was freed. `id` and `uuid` are those of the life that ended.
    Freed,
}

/// A block that differs from the last flush.
///
/// ```
/// use mainstay_pool::{Kind, PoolOptions};
/// use mainstay_track::{ChangeKind, Tracker};
/// let pool = PoolOptions::new("calls", 64).create_memfd()?;
/// let tracker = Tracker::new(&pool)?;
/// let call = pool.allocate(Kind::Recoverable)?; // all zeros: new all the same
/// let kinds = |flush: mainstay_track::Flush| flush.changes.iter().map(|c| c.kind).collect::<Vec<_>>();
/// assert_eq!(kinds(tracker.flush()?), [ChangeKind::New]);
/// call.write(0, b"ringing")?;
/// assert_eq!(kinds(tracker.flush()?), [ChangeKind::Written]);
/// call.free()?;
/// assert_eq!(kinds(tracker.flush()?), [ChangeKind::Freed]);
/// # Ok::<(), mainstay_track::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Change {
    /// Which life of which block.
    pub id: BlockId,
    /// Its UUID.
    pub uuid: Uuid,
    /// What happened.
    pub kind: ChangeKind,
    /// When, in the order of this node.
    pub version: Version,
    /// CRC32C of the data; 0 when it was freed.
    pub checksum: u32,
    /// The header claims more bytes than a block has: what it says of its length is garbage.
    pub overlong: bool,
}

/// What is known of one block. All zeros: nothing.
#[derive(Clone, Copy, Default)]
struct Known {
    generation: u64,
    /// CRC-64 of the data, mixed with the length.
    content: u64,
    version: Version,
    uuid: Uuid,
    checksum: u32,
}

pub(crate) struct State {
    pub(crate) clock: Clock,
    known: Vec<Box<[Known]>>,
    /// As the owner words told it: 0 not live. Apart from the rest, since each flush reads it all.
    lives: Vec<Box<[u32]>>,
    /// Blocks to be examined: one bit each.
    pending: Vec<u64>,
    /// Every block has to be examined.
    pub(crate) everything: bool,
    /// What was found, and not handed out yet.
    found: Vec<Change>,
    pub(crate) neighbours: Neighbours,
    pub(crate) acknowledged: HashMap<NodeId, crate::ClockVector>,
    /// Blocks that changed since the last checkpoint, while somebody makes any.
    pub(crate) since_cut: Option<HashSet<u32>>,
    /// Buffers to be used again.
    piece: Vec<u8>,
    words: Vec<u32>,
    regions: Vec<Range<u64>>,
}

/// What collecting has seen.
#[derive(Default)]
pub(crate) struct Collected {
    /// Extents with written pages.
    pub(crate) extents: Vec<u64>,
    /// Pages the kernel said were written, in bytes.
    pub(crate) bytes: u64,
    /// The kernel's watch has failed: from now on contents have to be compared.
    pub(crate) watch_failed: bool,
}

impl State {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            known: Vec::new(),
            lives: Vec::new(),
            pending: Vec::new(),
            everything: false,
            found: Vec::new(),
            neighbours: Neighbours::default(),
            acknowledged: HashMap::new(),
            since_cut: None,
            piece: Vec::new(),
            words: Vec::new(),
            regions: Vec::new(),
        }
    }

    /// Makes room for extents that are new.
    fn extend(&mut self, ground: Ground<'_>) -> Result<u64> {
        let extents = ground.extents()?;
        let per_extent = ground.blocks_per_extent() as usize;
        while (self.known.len() as u64) < extents {
            self.known.push(vec![Known::default(); per_extent].into());
            self.lives.push(vec![0; per_extent].into());
        }
        self.pending.resize((self.known.len() * per_extent).div_ceil(64), 0);
        Ok(extents)
    }

    /// Learns what the headers say, and believes those whose checksum is right (T5): the others
    /// are reported by the first flush.
    pub(crate) fn learn(&mut self, ground: Ground<'_>, now_ns: u64) -> Result<()> {
        let extents = self.extend(ground)?;
        let node = self.clock.node();
        for extent in 0..extents {
            ground.life_marks(extent, &mut self.words);
            for (place, life) in self.words.iter().enumerate() {
                let number = (extent * ground.blocks_per_extent()) as u32 + place as u32;
                if *life == 0 {
                    continue;
                }
                let Ok(Some(look)) = ground.look(number, &mut self.piece) else { continue };
                let stamp = Stamp::from_bits(look.version);
                let noted = look.checksum != 0 && look.version != 0;
                // A version from the future is not believed, or this clock would follow it.
                if noted
                    && look.checksum == look.sums.crc32c
                    && self.clock.observe(now_ns, stamp).is_ok()
                {
                    let version = Version { stamp, node };
                    self.known[extent as usize][place] = Known::of(&look, version);
                    self.lives[extent as usize][place] = *life;
                }
            }
        }
        Ok(())
    }

    /// Gathers what may have changed.
    pub(crate) fn collect(
        &mut self,
        ground: Ground<'_>,
        watch: Option<&Watch>,
        marks: &Marks,
    ) -> Result<Collected> {
        let extents = self.extend(ground)?;
        let mut collected = Collected::default();
        for extent in 0..extents {
            self.regions.clear();
            if let Some(watch) = watch
                && watch.take(ground.data(extent), &mut self.regions).is_err()
            {
                // The bits may be gone (G4 of the watch).
                collected.watch_failed = true;
                self.everything = true;
            }
            self.neighbours.take(ground.data(extent), &mut self.regions, &mut self.everything);
            if !self.regions.is_empty() {
                collected.extents.push(extent);
            }
            for region in &self.regions {
                collected.bytes += region.end - region.start;
                let blocks = ground.blocks_in(extent, region);
                blocks.for_each(|number| set(&mut self.pending, number));
            }
        }
        for extent in 0..extents {
            ground.life_marks(extent, &mut self.words);
            let first = (extent * ground.blocks_per_extent()) as u32;
            let known = &self.lives[extent as usize];
            if !self.everything && *self.words == **known {
                continue;
            }
            for (place, (life, known)) in self.words.iter().zip(known).enumerate() {
                if life != known || (self.everything && *life != 0) {
                    set(&mut self.pending, first + place as u32);
                }
            }
        }
        let blocks = extents * ground.blocks_per_extent();
        let pending = &mut self.pending;
        marks.take(|number| {
            if u64::from(number) < blocks {
                set(pending, number);
            }
        });
        // All that is live is pending now, whatever happens next.
        self.everything = false;
        Ok(collected)
    }

    /// Looks at what is pending, finds what differs; returns how many blocks it looked at.
    pub(crate) fn examine(&mut self, ground: Ground<'_>, now_ns: u64) -> Result<u64> {
        let mut version = self.found.first().map(|change| change.version);
        let mut examined = 0;
        let mut next = first_from(&self.pending, 0);
        while let Some(number) = next {
            // The memory of a block is seldom in the cache: the next one's comes meanwhile.
            next = first_from(&self.pending, number as usize + 1);
            next.inspect(|next| ground.expect_look(*next));
            examined += 1;
            match ground.look(number, &mut self.piece) {
                Ok(look) => {
                    self.pending[number as usize / 64] &= !(1 << (number % 64));
                    self.compare(ground, number, look, &mut version, now_ns);
                }
                // It changes hands all the time: it stays pending.
                Err(PoolError::NoSuchBlock { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(examined)
    }

    /// Hands out what was found.
    pub(crate) fn found(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.found)
    }

    /// Of all blocks that are known.
    pub(crate) fn versions(&self) -> impl Iterator<Item = Version> {
        let known = self.known.iter().flat_map(|known| known.iter());
        known.map(|known| known.version).filter(|version| version.stamp != Stamp::ZERO)
    }

    fn compare(
        &mut self,
        ground: Ground<'_>,
        number: u32,
        look: Option<Look>,
        version: &mut Option<Version>,
        now_ns: u64,
    ) {
        let (extent, place) = split(ground, number);
        let known = &mut self.known[extent][place];
        let life = &mut self.lives[extent][place];
        let content = look.as_ref().map(content_of);
        let same = match &look {
            None => *life == 0,
            Some(look) => {
                *life != 0
                    && known.generation == look.id.generation
                    && Some(known.content) == content
            }
        };
        if same {
            return;
        }
        let version = *version.get_or_insert_with(|| self.clock.tick(now_ns));
        if let Some(since_cut) = &mut self.since_cut {
            since_cut.insert(number);
        }
        let Some(look) = look else {
            let id = BlockId { number, generation: known.generation };
            *life = 0;
            (known.version, known.checksum) = (version, 0);
            self.found.push(known.change(id, ChangeKind::Freed, false));
            return;
        };
        let new = *life == 0 || known.generation != look.id.generation;
        let kind = if new { ChangeKind::New } else { ChangeKind::Written };
        *known = Known::of(&look, version);
        *life = life_of(&look);
        if hook::planted("header-not-noted") {
            return;
        }
        let overlong = look.length as usize > ground.block_size();
        self.found.push(known.change(look.id, kind, overlong));
        ground.note(look.id, look.sums.crc32c, version.stamp.bits());
    }

    /// Takes a block as it is now for known, of this version.
    pub(crate) fn adopt(
        &mut self,
        ground: Ground<'_>,
        number: u32,
        version: Version,
    ) -> Result<()> {
        self.extend(ground)?;
        if let Some(look) = ground.look(number, &mut self.piece)? {
            let (extent, place) = split(ground, number);
            self.known[extent][place] = Known::of(&look, version);
            self.lives[extent][place] = life_of(&look);
            if let Some(since_cut) = &mut self.since_cut {
                since_cut.insert(number);
            }
            ground.note(look.id, look.sums.crc32c, version.stamp.bits());
        }
        Ok(())
    }

    /// What is later than `seen`, in the order of versions.
    pub(crate) fn since(&self, seen: &crate::ClockVector) -> Vec<Change> {
        let mut changes = Vec::new();
        for (extent, known) in self.known.iter().enumerate() {
            for (place, known) in known.iter().enumerate() {
                if known.version.stamp == Stamp::ZERO || seen.covers(known.version) {
                    continue;
                }
                let number = (extent * self.known[0].len() + place) as u32;
                let id = BlockId { number, generation: known.generation };
                let freed = self.lives[extent][place] == 0;
                let kind = if freed { ChangeKind::Freed } else { ChangeKind::Written };
                changes.push(known.change(id, kind, false));
            }
        }
        changes.sort_by_key(|change| (change.version, change.id));
        changes
    }
}

impl Known {
    fn of(look: &Look, version: Version) -> Self {
        let (generation, uuid, checksum) = (look.id.generation, look.uuid, look.sums.crc32c);
        Self { generation, content: content_of(look), version, uuid, checksum }
    }

    fn change(&self, id: BlockId, kind: ChangeKind, overlong: bool) -> Change {
        let (uuid, version, checksum) = (self.uuid, self.version, self.checksum);
        Change { id, uuid, kind, version, checksum, overlong }
    }
}

fn content_of(look: &Look) -> u64 {
    look.sums.crc64 ^ mix64(u64::from(look.length) | 1 << 32)
}

/// As `Ground::life_marks` tells it of a live block.
fn life_of(look: &Look) -> u32 {
    (look.id.generation as u32 & ((1 << 27) - 1)) << 1 | 1
}

fn split(ground: Ground<'_>, number: u32) -> (usize, usize) {
    let per_extent = ground.blocks_per_extent();
    let number = u64::from(number);
    ((number / per_extent) as usize, (number % per_extent) as usize)
}

/// The first number that is set, from `start` on.
fn first_from(bits: &[u64], start: usize) -> Option<u32> {
    let mut rest = *bits.get(start / 64)? & (!0 << (start % 64));
    let mut at = start / 64;
    while rest == 0 {
        at += 1;
        rest = *bits.get(at)?;
    }
    Some(at as u32 * 64 + rest.trailing_zeros())
}

fn set(bits: &mut [u64], number: u32) {
    bits[number as usize / 64] |= 1 << (number % 64);
}
