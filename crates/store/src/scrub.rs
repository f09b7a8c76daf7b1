//! Reading all files of a store that is in use, within a budget, to hear of damage before somebody needs
//! what is damaged.
//!
//! The files are read beside whoever writes, without a lock. That is sound as no byte of them is
//! changed that was once durable, but those of headers, which have two copies. Something may be half
//! written where it is looked at: so what seems damaged is read again, from the beginning, and only
//! what is damaged then as well is told. What a frame, a hint or a header says was durable was so before
//! they were written, so a second reading finds it.

use std::{
    io::{self, ErrorKind},
    path::Path,
};

use mainstay_storage::{Folder, Storage};

use crate::{
    any::{ANY_FILE, LogDamage, any_parts, scrub_any},
    error::{Error, Result},
    format::{Header, STORE_FILE, read_headers},
    keyed::Ring,
    mark::check_whole,
    paced::{Pace, Paced},
    planted::{self, Fault},
    read_only::ReadOnly,
    survey::scrub_fixed,
};

/// How often a file is read while others go that say something of it.
const TRIES: usize = 100;

/// How a store is scrubbed.
///
/// Example: see [`scrub`].
#[derive(Clone, Debug)]
pub struct ScrubOptions {
    /// How many bytes a second are read, at most; 0: as fast as it goes.
    ///
    /// Example: see [`scrub`].
    pub bytes_per_second: u64,
    /// Begin with this file, where one before has stopped: [`Scrubbed::next`].
    ///
    /// Example: see [`scrub`].
    pub from: Option<String>,
}

impl Default for ScrubOptions {
    fn default() -> Self {
        Self { bytes_per_second: 8 << 20, from: None }
    }
}

/// What was found when a store was scrubbed.
///
/// Example: see [`scrub`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Scrubbed {
    /// Files that were read.
    pub files: u64,
    /// Bytes that were read, some of them more than once.
    pub bytes: u64,
    /// Places that are not as they were written.
    pub damage: Vec<LogDamage>,
    /// With which file to go on; none if all were read.
    pub next: Option<String>,
}

/// Reads all files of a store, of either kind, and checks all checksums: of headers, logs, images,
/// lists and hints. A program may have the store open meanwhile, and write. `told` hears before each file,
/// and before each piece of it, how many bytes are behind, and of how many; it goes on as long as that
/// returns true. A file that was not read to its end is read from its beginning by who goes on.
///
/// Records that are in memory only are not looked at. What an opening would make of the files is for
/// [`Survey`](crate::Survey) and [`LogSurvey`](crate::LogSurvey) to say.
///
/// ```
/// use mainstay_store::{Durability::Group, FixedStore, Options, ScrubOptions, scrub};
/// let dir = tempfile::tempdir()?;
/// let store = FixedStore::<u64, u64>::create(dir.path(), &Options::default())?;
/// store.put(&1, &2, Group)?;
/// let fast = ScrubOptions { bytes_per_second: 0, ..ScrubOptions::default() };
/// let scrubbed = scrub(dir.path(), &fast, |_behind, _all| true)?;
/// assert!(scrubbed.damage.is_empty() && scrubbed.next.is_none() && scrubbed.files >= 3);
/// // It can be stopped, and go on.
/// let stopped = scrub(dir.path(), &fast, |behind, _| behind == 0)?;
/// let rest = scrub(dir.path(), &ScrubOptions { from: stopped.next, ..fast }, |_, _| true)?;
/// assert_eq!(stopped.files + rest.files, scrubbed.files);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::NotAStore`]; [`Error::Unfinished`]; [`Error::NoSuchFile`] if it is to begin behind all files; [`Error::Encrypted`];
/// [`Error::Damaged`] if no header of the store is sound, as
/// nothing can be checked without; what the disk says.
pub fn scrub(
    path: &Path,
    options: &ScrubOptions,
    told: impl FnMut(u64, u64) -> bool + Send,
) -> Result<Scrubbed> {
    scrub_as(path, Ring::NONE, options, told)
}

/// The same of a store that is encrypted.
///
/// ```
/// use mainstay_store::{Directory, Key, Keys, LogOptions, RawLogStore, ScrubOptions, scrub_with};
/// # let dir = tempfile::tempdir()?;
/// let keys = Keys::new(Key::new(&[7; 32]));
/// let folder = Directory::lock_with(dir.path(), &keys)?;
/// let store = RawLogStore::create(folder, &LogOptions::default())?;
/// let scrubbed = scrub_with(dir.path(), &keys, &ScrubOptions::default(), |_, _| true)?;
/// assert!(scrubbed.damage.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`scrub`]; [`Error::OtherKey`]; [`Error::NotEncrypted`].
#[cfg(feature = "encryption")]
pub fn scrub_with(
    path: &Path,
    keys: &crate::Keys,
    options: &ScrubOptions,
    told: impl FnMut(u64, u64) -> bool + Send,
) -> Result<Scrubbed> {
    scrub_as(path, Ring::of(keys), options, told)
}

fn scrub_as(
    path: &Path,
    ring: Ring<'_>,
    options: &ScrubOptions,
    told: impl FnMut(u64, u64) -> bool + Send,
) -> Result<Scrubbed> {
    if !path.is_dir() {
        return Err(Error::NotAStore);
    }
    scrub_over(|| ReadOnly::beside(path, ring), options, told)
}

/// The same of any folder. `open` opens it anew: what a file once was is not kept.
pub(crate) fn scrub_over<F: Folder>(
    open: impl Fn() -> Result<F>,
    options: &ScrubOptions,
    mut told: impl FnMut(u64, u64) -> bool + Send,
) -> Result<Scrubbed> {
    let folder = open()?;
    check_whole(&folder)?;
    let mut names = folder.names().map_err(Error::io("the directory"))?;
    let is_any = names.iter().any(|name| name == ANY_FILE);
    names.retain(|name| match is_any {
        true => name == ANY_FILE || any_parts(name).is_some(),
        false => name == STORE_FILE || crate::format::parse_name(name).is_some(),
    });
    if names.is_empty() {
        return Err(Error::NotAStore);
    }
    names.sort_unstable();
    if let Some(from) = options.from.as_ref().filter(|from| names.last() < Some(from)) {
        return Err(Error::NoSuchFile { file: from.clone() });
    }
    let mut sizes = Vec::new();
    for name in &names {
        let size = folder.file(name).and_then(|file| file.len());
        sizes.push(match unless_gone(size, name) {
            // What the disk cannot say is asked again when the file is read.
            Err(Error::Io { .. }) => 0,
            size => size?.unwrap_or(0),
        });
    }
    let (all, mut behind) = (sizes.iter().sum(), 0);
    let pace = Pace::new(options.bytes_per_second, all, &mut told);
    let mut scrubbed = Scrubbed::default();
    let check = |name: &str| -> Result<Vec<LogDamage>> {
        let mut last = Error::Locked;
        for _ in 0..TRIES {
            let folder = Paced { inner: open()?, pace: &pace };
            let found = match is_any {
                true => scrub_any(&folder, &names, name),
                false => scrub_fixed(&folder, &names, name),
            };
            match found {
                Err(Error::Damaged { file, offset, what }) => {
                    return Ok(vec![LogDamage { file, offset, what, has_copy: false }]);
                }
                // Something was removed meanwhile: this file, or another one that says of it.
                Err(Error::Io { source, .. }) if is_gone(&source) => {
                    if unless_gone(folder.file(name), name)?.is_none() {
                        return Ok(Vec::new());
                    }
                    last = Error::Locked;
                }
                // It was made shorter after it was asked how long it is.
                Err(Error::Io { what, source }) if source.kind() == ErrorKind::UnexpectedEof => {
                    last = Error::Io { what, source };
                }
                found => return found,
            }
        }
        Err(last)
    };
    for (name, size) in names.iter().zip(sizes) {
        if options.from.as_ref().is_some_and(|from| name < from) {
            behind += size;
            continue;
        }
        let check = || if pace.begin(behind, size) { check(name) } else { Ok(Vec::new()) };
        let mut found = check();
        if found.as_ref().is_ok_and(|damage| !damage.is_empty()) && !planted::is(Fault::ScrubOnce) {
            let again = check();
            found = found.and_then(|mut damage| {
                let again = again?;
                damage.retain(|place| again.contains(place));
                Ok(damage)
            });
        }
        // Whatever it says then is of a file that was not read to its end.
        if pace.is_stopped() {
            scrubbed.next = Some(name.clone());
            break;
        }
        let damage = found?;
        scrubbed.damage.extend(damage);
        scrubbed.files += 1;
        behind += size;
    }
    scrubbed.bytes = pace.bytes();
    Ok(scrubbed)
}

/// Was this file begun: has it a sound header? A segment is made, blank, long before it is needed.
pub(crate) fn is_begun<H: Header>(folder: &impl Folder, name: &str) -> Result<bool> {
    match unless_gone(folder.file(name), name)? {
        Some(file) => Ok(!read_headers::<H>(&file, name)?.is_empty()),
        None => Ok(false),
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound
}

fn unless_gone<T>(found: io::Result<T>, name: &str) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => match Error::io(name)(error) {
            Error::Damaged { .. } => Ok(None),
            error => Err(error),
        },
    }
}

#[cfg(test)]
mod tests;
