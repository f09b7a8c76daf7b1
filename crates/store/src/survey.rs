//! What every checksum of a store's files says. Opening stops at the first damage; a survey goes
//! on, so that one knows what there is to mend.
//!
//! A place where no frame can be read is damage if a frame behind it, or the header of the segment,
//! says that a write which is missing was durable (A4), or if the next segment goes on after it. Otherwise it is the end of
//! the log: what a writer did not finish.

use std::path::Path;

use mainstay_storage::{Folder, Storage};
use zerocopy::{FromBytes, IntoBytes};

use crate::{
    any::LogDamage,
    error::{Error, Result},
    format::{
        BAD_COPY, CHUNK_LEN, CHUNK_RECORDS, ChunkHeader, DATA_AT, Header, IMPLAUSIBLE, ImageHeader,
        NUMBERS_END, Plausible, STORE_FILE, SegmentHeader, StoreHeader, bad_copies, chunk_sum,
        parse_name,
    },
    keyed::Ring,
    log::Frame,
    parts::complete,
    read_only::ReadOnly,
    recover::{Loaded, load_apart, store_header},
    scrub::is_begun,
    store::check_header,
    unwritten::Unwritten,
};

const MISSING: &str = "a write that was durable is not as it was written";

/// What kind of file a store has.
///
/// Example: see [`Survey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileKind {
    /// The header of the store.
    Store,
    /// A segment of a shard's log.
    Segment,
    /// An image of a shard.
    Image,
    /// Something that no opening reads: unfinished, or replaced. The next one removes it.
    Leftover,
}

/// A place that is not as it was written.
///
/// Example: see [`Survey`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// Where in the file.
    pub offset: u64,
    /// What is wrong.
    pub what: &'static str,
    /// Is there a sound copy of it, so that nothing is lost?
    pub has_copy: bool,
}

/// What was found in a file.
///
/// Example: see [`Survey`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileReport {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: FileKind,
    /// Of which shard; none for the header of the store.
    pub shard: Option<u32>,
    /// How long it is.
    pub bytes: u64,
    /// Sound frames, or chunks.
    pub parts: u64,
    /// Records in them, or changes.
    pub records: u64,
    /// The last sound write of a segment; what an image holds everything up to.
    pub sequence: u64,
    /// Bytes behind the end of the log that are no write: one that was not finished.
    pub unfinished: bool,
    /// What is not as it was written.
    pub damage: Vec<Damage>,
    /// Where writes are missing that nothing in the same file says were durable.
    gaps: Vec<u64>,
}

/// All files of a store, and what their checksums say.
///
/// ```
/// use mainstay_store::{Durability, FixedStore, Options, Survey};
/// let dir = tempfile::tempdir()?;
/// let store = FixedStore::<u64, u64>::create(dir.path(), &Options::default())?;
/// store.put(&1, &2, Durability::Group)?;
/// store.close()?;
/// let survey = Survey::of(dir.path(), |_done, _total| {})?;
/// assert!(survey.is_sound());
/// assert_eq!(survey.files.iter().map(|file| file.records).sum::<u64>(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Survey {
    /// What tells the store from all others, and what its replicas have as well.
    pub id: [u8; 16],
    /// Bytes of a key.
    pub key_bytes: usize,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Shards.
    pub shards: u32,
    /// Records that an opening finds; none in shards that cannot be opened.
    pub records: u64,
    /// The files: the header first, then by shard and number.
    pub files: Vec<FileReport>,
}

impl Survey {
    /// Reads all files of a directory that nobody has open; changes nothing. `progress` is told
    /// how many of how many bytes are read.
    ///
    /// Example: see [`Survey`].
    ///
    /// # Errors
    /// [`Error::NotAStore`]; [`Error::Locked`]; [`Error::Damaged`] if neither copy of the store's
    /// header is sound, since without it nothing can be read; what the disk says.
    pub fn of(path: &Path, progress: impl FnMut(u64, u64)) -> Result<Self> {
        Self::of_as(path, Ring::NONE, progress)
    }

    /// The same of a store that is encrypted.
    ///
    /// ```
    /// # use mainstay_store::{Directory, Key, Keys, Options, RawStore, Survey};
    /// # let dir = tempfile::tempdir()?;
    /// let keys = Keys::new(Key::new(&[7; 32]));
    /// let folder = Directory::lock_with(dir.path(), &keys)?;
    /// RawStore::create(folder, 2, 3, &Options::default())?.close()?;
    /// assert!(Survey::of_with(dir.path(), &keys, |_, _| {})?.is_sound());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`of`](Self::of); [`Error::OtherKey`]; [`Error::NotEncrypted`].
    #[cfg(feature = "encryption")]
    pub fn of_with(
        path: &Path,
        keys: &crate::Keys,
        progress: impl FnMut(u64, u64),
    ) -> Result<Self> {
        Self::of_as(path, Ring::of(keys), progress)
    }

    pub(crate) fn of_as(
        path: &Path,
        ring: Ring<'_>,
        progress: impl FnMut(u64, u64),
    ) -> Result<Self> {
        Self::over(&ReadOnly::open(path, ring)?, progress)
    }

    /// The same over any folder, which must not be written to meanwhile.
    ///
    /// ```
    /// use mainstay_store::{Options, RawStore, Survey};
    /// let disk = mainstay_sim::Disk::new(7);
    /// RawStore::create(disk.clone(), 2, 3, &Options::default())?.close()?;
    /// assert!(Survey::over(&disk, |_, _| {})?.is_sound());
    /// # Ok::<(), mainstay_store::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn over<F: Folder>(folder: &F, mut progress: impl FnMut(u64, u64)) -> Result<Self> {
        let header = store_header(folder)?;
        check_header(&header)?;
        let mut names = folder.names().map_err(Error::io("the directory"))?;
        names.retain(|name| parse_name(name).is_some());
        names.sort_unstable_by_key(|name| {
            parse_name(name).map(|(shard, number, _)| (shard, number))
        });
        let mut total = 0;
        for name in &names {
            let len = folder.file(name).and_then(|file| file.len());
            total += len.map_err(Error::io(&**name))?;
        }
        let lengths = (header.key_len.get() as usize, header.value_len.get() as usize);
        let mut survey = Self {
            id: header.id,
            key_bytes: lengths.0,
            value_bytes: lengths.1,
            shards: header.shards.get(),
            records: 0,
            files: vec![store_report(folder)?],
        };
        let mut done = 0;
        let unwritten = (0..survey.shards).map(|shard| Unwritten::find(folder, &header, shard));
        let unwritten: Vec<_> = unwritten.collect::<Result<_>>()?;
        for name in &names {
            let report = file_report(folder, &header, &unwritten, name)?;
            done += report.bytes;
            progress(done, total);
            survey.files.push(report);
        }
        survey.close_gaps();
        let mut has_parts = false;
        for shard in 0..survey.shards {
            has_parts |= survey.judge(folder, &header, shard)?;
        }
        if has_parts && survey.can_be_opened() {
            survey.complete(folder, &header)?;
        }
        Ok(survey)
    }

    /// Is everything as it was written?
    ///
    /// Example: see [`Survey`].
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.files.iter().all(|file| file.damage.is_empty())
    }

    /// Can the store be opened: has all damage a sound copy?
    ///
    /// Example: see [`Survey`].
    #[must_use]
    pub fn can_be_opened(&self) -> bool {
        self.files.iter().flat_map(|file| &file.damage).all(|damage| damage.has_copy)
    }

    /// Before a segment is begun, the one before it is synced: only the last can have an end that
    /// was not durable.
    fn close_gaps(&mut self) {
        let mut after = None;
        for file in self.files.iter_mut().rev().filter(|file| file.kind == FileKind::Segment) {
            if after == file.shard {
                let damage =
                    |offset: &u64| Damage { offset: *offset, what: MISSING, has_copy: false };
                file.damage.extend(file.gaps.iter().map(damage));
                file.damage.sort_by_key(|damage| damage.offset);
            } else {
                file.unfinished = !file.gaps.is_empty();
            }
            after = file.shard;
        }
    }

    /// Asks what an opening would ask: which files count, and whether they fit together. Does the log
    /// end with a batch that may have to be finished?
    fn judge<F: Folder>(&mut self, folder: &F, header: &StoreHeader, shard: u32) -> Result<bool> {
        let ours = |file: &&mut FileReport| file.shard == Some(shard);
        match load_apart(folder, header, shard) {
            Ok(loaded) => {
                self.records += loaded.table.len();
                for file in self.files.iter_mut().filter(ours) {
                    if loaded.leftovers.contains(&file.name) {
                        file.kind = FileKind::Leftover;
                        file.damage.clear();
                    }
                    // It was opened all the same: whatever is damaged was not needed.
                    file.damage.iter_mut().for_each(|damage| damage.has_copy = true);
                }
                Ok(loaded.parts.is_some())
            }
            Err(Error::Damaged { file, offset, what }) => {
                self.add(&file, offset, what, shard);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Counts the records that an opening finds when it has finished batches.
    fn complete<F: Folder>(&mut self, folder: &F, header: &StoreHeader) -> Result<()> {
        let shards = (0..self.shards).map(|shard| load_apart(folder, header, shard));
        let shards: Vec<Loaded> = shards.collect::<Result<_>>()?;
        match complete(header, &shards.iter().collect::<Vec<_>>()) {
            Ok(()) => self.records = shards.iter().map(|loaded| loaded.table.len()).sum(),
            Err(Error::Damaged { file, offset, what }) => {
                let shard = parse_name(&file).map_or(0, |(shard, ..)| shard);
                self.add(&file, offset, what, shard);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Adds damage with which the store cannot be opened.
    fn add(&mut self, name: &str, offset: u64, what: &'static str, shard: u32) {
        let damage = Damage { offset, what, has_copy: false };
        match self.files.iter_mut().find(|file| file.name == name) {
            Some(file) if file.damage.iter().all(|damage| damage.has_copy) => {
                file.damage.push(damage);
            }
            Some(_) => {}
            // A shard without a single file.
            None => self.files.push(FileReport {
                kind: FileKind::Segment,
                shard: Some(shard),
                damage: vec![damage],
                ..FileReport::new(name, 0)
            }),
        }
    }
}

impl FileReport {
    fn new(name: &str, bytes: u64) -> Self {
        Self {
            name: name.to_owned(),
            kind: FileKind::Store,
            shard: None,
            bytes,
            parts: 0,
            records: 0,
            sequence: 0,
            unfinished: false,
            damage: Vec::new(),
            gaps: Vec::new(),
        }
    }

    fn add(&mut self, offset: u64, what: &'static str) {
        self.damage.push(Damage { offset, what, has_copy: false });
    }

    /// A header has two copies. One that was never written is zeros, and no damage.
    fn check_copies<H: Header>(&mut self, file: &impl Storage) -> Result<Option<H>> {
        let (sound, bad) = bad_copies::<H>(file, &self.name)?;
        if sound.is_some() {
            let damage = |offset| Damage { offset, what: BAD_COPY, has_copy: true };
            self.damage.extend(bad.into_iter().map(damage));
        }
        Ok(sound)
    }
}

/// What is not as it was written in one file of a store that somebody may write to. `names` are all
/// files, in their order.
pub(crate) fn scrub_fixed<F: Folder>(
    folder: &F,
    names: &[String],
    name: &str,
) -> Result<Vec<LogDamage>> {
    let report = if name == STORE_FILE {
        store_header(folder)?;
        store_report(folder)?
    } else {
        let header = store_header(folder)?;
        check_header(&header)?;
        let Some((shard, number, is_image)) = parse_name(name) else { return Ok(Vec::new()) };
        let is_later = |other: &&String| {
            parse_name(other).is_some_and(|(of, at, image)| of == shard && !image && at > number)
        };
        // What follows it is asked before it is read itself.
        let mut is_full = false;
        for later in names.iter().filter(is_later).filter(|_| !is_image) {
            is_full = is_full || is_begun::<SegmentHeader>(folder, later)?;
        }
        let mut report = file_report(folder, &header, &[], name)?;
        if report.kind == FileKind::Leftover {
            let file = folder.file(name).map_err(Error::io(name))?;
            let mut front = vec![0; report.bytes.min(DATA_AT) as usize];
            file.read_at(0, &mut front).map_err(Error::io(name))?;
            // One that is being made has zeros there.
            if front.iter().any(|byte| *byte != 0) {
                report.add(0, "neither copy of the header is sound");
            }
        }
        // Before the next segment is begun, this one is synced.
        if is_full {
            for offset in std::mem::take(&mut report.gaps) {
                report.add(offset, MISSING);
            }
        }
        report
    };
    let place = |damage: Damage| LogDamage {
        file: name.to_owned(),
        offset: damage.offset,
        what: damage.what,
        has_copy: damage.has_copy,
    };
    Ok(report.damage.into_iter().map(place).collect())
}

fn store_report<F: Folder>(folder: &F) -> Result<FileReport> {
    let file = folder.file(STORE_FILE).map_err(Error::io(STORE_FILE))?;
    let mut report = FileReport::new(STORE_FILE, file.len().map_err(Error::io(STORE_FILE))?);
    report.check_copies::<StoreHeader>(&file)?;
    Ok(report)
}

fn file_report<F: Folder>(
    folder: &F,
    store: &StoreHeader,
    unwritten: &[Option<Unwritten>],
    name: &str,
) -> Result<FileReport> {
    let file = folder.file(name).map_err(Error::io(name))?;
    let mut report = FileReport::new(name, file.len().map_err(Error::io(name))?);
    let Some((shard, _, is_image)) = parse_name(name) else { return Ok(report) };
    report.shard = Some(shard);
    if is_image {
        report.kind = FileKind::Image;
        match report.check_copies::<ImageHeader>(&file)? {
            Some(header) if !header.is_plausible() => report.add(0, IMPLAUSIBLE),
            Some(header) => image(&mut report, &file, store, &header)?,
            None => report.kind = FileKind::Leftover,
        }
    } else {
        report.kind = FileKind::Segment;
        match report.check_copies::<SegmentHeader>(&file)? {
            Some(header) if !header.is_plausible() => report.add(0, IMPLAUSIBLE),
            Some(header) => {
                let unwritten = unwritten.get(shard as usize).and_then(Option::as_ref);
                segment(&mut report, &file, store, &header, unwritten)?;
            }
            // Whether it was ever begun is for the opening to say.
            None => report.kind = FileKind::Leftover,
        }
    }
    Ok(report)
}

/// Checks every frame, and goes on behind what cannot be read.
fn segment(
    report: &mut FileReport,
    file: &impl Storage,
    store: &StoreHeader,
    header: &SegmentHeader,
    mut unwritten: Option<&Unwritten>,
) -> Result<()> {
    let mut bytes = vec![0; report.bytes as usize];
    file.read_at(0, &mut bytes).map_err(Error::io(&*report.name))?;
    let lengths = (store.key_len.get() as usize, store.value_len.get() as usize);
    let shard = header.shard.get();
    let (mut sequence, mut chain) =
        (header.first_sequence.get().saturating_sub(1), header.chain.get());
    let mut at = DATA_AT as usize;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let mut changes = 0;
        let sound = Frame::read(rest).filter(|frame| {
            frame.header.sequence.get() == sequence + 1
                && frame.header.chain.get() == chain
                && frame.header.shard.get() == shard
                && frame.changes(lengths.0, lengths.1, |_| changes += 1)
        });
        if let Some(frame) = sound {
            report.parts += 1;
            report.records += changes;
            sequence += 1;
            chain = frame.header.checksum.get();
            at += frame.header.len.get() as usize;
            continue;
        }
        let (place, after) = ((header.number.get(), at), (sequence, chain, shard));
        if unwritten.is_some_and(|unwritten| unwritten.complete(place, &mut bytes, after)) {
            unwritten = None;
            continue;
        }
        // The next frame that is sound by itself.
        let later = (at..bytes.len()).step_by(8).find_map(|at| {
            let frame = Frame::read(&bytes[at..])?;
            let is_ours = frame.header.shard.get() == shard;
            // One that is not made of changes would be found here again and again.
            let is_whole = frame.changes(lengths.0, lengths.1, |_| {});
            let is_later = (sequence + 1..NUMBERS_END).contains(&frame.header.sequence.get());
            (is_ours && is_whole && is_later).then_some((at, frame.header))
        });
        match later {
            Some((next, head)) => {
                // One that was never durable is the end of the log with something behind it.
                if head.durable.get().max(header.vouched.get()) > sequence {
                    report.add(at as u64, MISSING);
                } else {
                    report.gaps.push(at as u64);
                }
                (at, sequence, chain) = (next, head.sequence.get() - 1, head.chain.get());
            }
            None => {
                if header.vouched.get() > sequence {
                    report.add(at as u64, MISSING);
                } else if bytes[at..].iter().any(|byte| *byte != 0) {
                    report.gaps.push(at as u64);
                }
                break;
            }
        }
    }
    report.sequence = sequence;
    Ok(())
}

/// Checks every chunk, and goes on behind one that is not sound if its length can be believed.
fn image(
    report: &mut FileReport,
    file: &impl Storage,
    store: &StoreHeader,
    header: &ImageHeader,
) -> Result<()> {
    let stride = 8 + (store.key_len.get() + store.value_len.get()) as usize;
    let end = header.bytes.get().min(report.bytes);
    report.sequence = header.from.get();
    let mut at = DATA_AT;
    let mut bytes = Vec::new();
    for index in 0..header.chunks.get() {
        let mut head = [0; CHUNK_LEN];
        let Some(from) = at.checked_add(CHUNK_LEN as u64).filter(|from| *from <= end) else {
            report.add(at, "the image ends too early");
            return Ok(());
        };
        file.read_at(at, &mut head).map_err(Error::io(&*report.name))?;
        let Ok(chunk) = ChunkHeader::read_from_bytes(head.as_bytes()) else { return Ok(()) };
        let count = chunk.count.get() as usize;
        let len = count.min(CHUNK_RECORDS + 1) * stride;
        if count > CHUNK_RECORDS || from + len as u64 > end {
            report.add(at, "a chunk of the image has an impossible length; the rest is not read");
            return Ok(());
        }
        bytes.resize(len, 0);
        file.read_at(from, &mut bytes).map_err(Error::io(&*report.name))?;
        let is_it = chunk.index.get() == index && chunk.image.get() == header.number.get() as u32;
        if is_it && chunk_sum(&chunk, &bytes) == chunk.checksum.get() {
            report.parts += 1;
            report.records += count as u64;
        } else {
            report.add(at, "a chunk of the image is not as it was written");
        }
        at = from + len as u64;
    }
    Ok(())
}
