//! What there is of a hint. It says nothing that its segment does not: one that is not sound, or that
//! the disk cannot read, is as good as none.

use std::io::ErrorKind::{Interrupted, NotFound, UnexpectedEof};

use mainstay_storage::{Folder, Storage};

use crate::{
    any::{
        format::{AnyHeader, Hint, HintHeader, Kind, Past},
        shard::Log,
    },
    error::{Error, MISPLACED, Result},
    format::{DATA_AT, NUMBERS_END, read_headers},
    limits::SEGMENT_BYTES_MAX,
    planted::{self, Fault},
};

/// What is said of one that the disk cannot read.
pub(in crate::any) const UNREAD_HINT: &str = "the disk cannot read the hint";

/// A hint as found.
pub(in crate::any) enum Hinted {
    Sound(Hint, HintHeader),
    /// It is not as it was written, or not yet written.
    NotSound,
    /// The disk cannot read it.
    Unread(Error),
}

impl Hinted {
    pub(in crate::any) fn sound(self) -> Option<(Hint, HintHeader)> {
        match self {
            Self::Sound(hint, header) => Some((hint, header)),
            Self::NotSound | Self::Unread(_) => None,
        }
    }
}

/// The hint of a segment, if there is one.
pub(in crate::any) fn hint_of<F: Folder>(
    folder: &F,
    store: &AnyHeader,
    shard: u32,
    number: u64,
) -> Result<Option<Hinted>> {
    let name = Kind::Hint.name(shard, number);
    if !folder.names().map_err(Error::io("the directory"))?.contains(&name) {
        return Ok(None);
    }
    read_hint(folder, store, shard, number).map(Some)
}

/// One that is there.
pub(in crate::any) fn read_hint<F: Folder>(
    folder: &F,
    store: &AnyHeader,
    shard: u32,
    number: u64,
) -> Result<Hinted> {
    match read(folder, store, shard, number) {
        Ok(Some((hint, header))) => Ok(Hinted::Sound(hint, header)),
        Ok(None) | Err(Error::Damaged { .. }) => Ok(Hinted::NotSound),
        Err(error) if is_unread(&error) => Ok(Hinted::Unread(error)),
        Err(error) => Err(error),
    }
}

/// What is wrong with a hint that is there, if something is. One that is being written is not.
pub(in crate::any) fn wrong_with<F: Folder>(
    folder: &F,
    store: &AnyHeader,
    shard: u32,
    number: u64,
) -> Result<Option<&'static str>> {
    let found = match read_hint(folder, store, shard, number)? {
        Hinted::Sound(hint, _) => {
            let route = store.route();
            let is_whole = hint.each(|line| route.elsewhere(shard, line.key).is_none());
            return Ok((!is_whole).then_some(MISPLACED));
        }
        Hinted::NotSound => is_unfinished(folder, &Kind::Hint.name(shard, number)),
        Hinted::Unread(error) => Err(error),
    };
    match found {
        Ok(true) => Ok(None),
        Ok(false) => Ok(Some("the hint is not as it was written")),
        Err(error) if is_unread(&error) => Ok(Some(UNREAD_HINT)),
        Err(error) => Err(error),
    }
}

/// Whoever writes a hint begins it anew, and writes its header at the end.
pub(in crate::any) fn is_unfinished(folder: &impl Folder, name: &str) -> Result<bool> {
    let file = match folder.file(name).map_err(Error::io(name)) {
        Err(Error::Damaged { .. }) => return Ok(false),
        file => file?,
    };
    let len = file.len().map_err(Error::io(name))?;
    let mut front = vec![0; len.min(DATA_AT) as usize];
    file.read_at(0, &mut front).map_err(Error::io(name))?;
    Ok(front.iter().all(|byte| *byte == 0))
}

/// A hint beside the frames that it describes.
pub(super) struct Beside {
    hint: Hint,
    pub(super) header: HintHeader,
    is_right: bool,
}

impl Beside {
    pub(super) fn new(hint: Hint, header: HintHeader) -> Self {
        Self { hint, header, is_right: false }
    }

    /// Looks whether all that it says is so, where it says that what it describes ends.
    pub(super) fn look<S>(&mut self, log: &Log<S>) {
        let header = &self.header;
        if log.at != header.bytes.get() {
            return;
        }
        let is_header = header.first.get() == log.first
            && header.last.get() == log.sequence
            && header.chain.get() == log.chain
            && Past::from_bytes(&header.past) == log.past;
        self.is_right =
            self.hint.is(&log.hint) && (is_header || planted::is(Fault::HintHeaderIgnored));
    }

    /// Does it say something else than the frames? Then, whether an opening would believe it.
    pub(super) fn is_wrong(&self, first: u64) -> Option<bool> {
        (!self.is_right).then(|| self.header.first.get() == first)
    }
}

/// Is this an error of the disk, and not of a file that is being removed or written anew?
pub(in crate::any) fn is_unread(error: &Error) -> bool {
    let Error::Io { source, .. } = error else { return false };
    !matches!(source.kind(), NotFound | UnexpectedEof | Interrupted)
        && !planted::is(Fault::HintNeeded)
}

fn read<F: Folder>(
    folder: &F,
    store: &AnyHeader,
    shard: u32,
    number: u64,
) -> Result<Option<(Hint, HintHeader)>> {
    let name = Kind::Hint.name(shard, number);
    let file = folder.file(&name).map_err(Error::io(&*name))?;
    let Some(header) = read_headers::<HintHeader>(&file, &name)?.pop() else { return Ok(None) };
    let is_it = header.id == store.id
        && header.shard.get() == shard
        && header.number.get() == number
        && header.last.get() < NUMBERS_END
        && (DATA_AT..=SEGMENT_BYTES_MAX).contains(&header.bytes.get());
    if !is_it {
        return Ok(None);
    }
    Ok(Hint::read(&file, &header, &name)?.map(|hint| (hint, header)))
}
