//! The file of a persistent state (D1), and what makes it believed after a power cut (D2, D3).

use crate::{Error, Result, limits::PATH_MAX, word::VERSION_MAX};
use mainstay_base::{Crc32c, Fingerprint, crc32c};
use mainstay_shm::hook;
use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read, Write},
    mem::offset_of,
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    path::{Path, PathBuf},
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// First eight bytes of the file of a persistent state.
const MAGIC: [u8; 8] = *b"MAINDURA";
const VERSION: u32 = 1;
/// Syncs have smaller numbers: nanoseconds after 1970 reach this in the year 2262.
const NUMBER_MAX: u64 = 1 << 63;
/// What the name of a file that is being written ends with.
const NEXT: &str = ".next";

/// The head of the file: then the paths of those written with it, a line each, then the data.
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy, Debug)]
struct Head {
    magic: [u8; 8],
    version: u32,
    /// Bytes of the paths.
    group_len: u32,
    /// Which sync wrote it: grows, and no two have the same.
    number: u64,
    /// Which sync wrote the one before it.
    previous: u64,
    state_version: u64,
    data_len: u64,
    fingerprint: u64,
    /// CRC32C of paths and data.
    body_checksum: u32,
    checksum: u32,
}
const _: () = assert!(size_of::<Head>() == 64 && offset_of!(Head, checksum) == 60);

impl Head {
    /// The head of a file with this body, paths and data.
    fn new(sync: Sync, version: u64, fingerprint: u64, group: &[u8], data: &[u8]) -> Self {
        let mut body = Crc32c::new();
        body.update(group);
        body.update(data);
        let mut head = Self {
            magic: MAGIC,
            version: VERSION,
            group_len: group.len() as u32,
            number: sync.number,
            previous: sync.previous,
            state_version: version,
            data_len: data.len() as u64,
            fingerprint,
            body_checksum: body.finish(),
            checksum: 0,
        };
        head.checksum = crc32c(&head.as_bytes()[..offset_of!(Head, checksum)]);
        head
    }
}

/// Which sync writes a file, and which one wrote the file before it; 0 none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sync {
    pub(super) number: u64,
    pub(super) previous: u64,
}

/// What a file has: a version of a state.
#[derive(Debug)]
pub(crate) struct Root {
    head: Head,
    group: Vec<PathBuf>,
    pub(crate) version: u64,
    pub(crate) data: Vec<u8>,
}

/// The file of a persistent state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Durable {
    path: PathBuf,
}

impl Root {
    /// Which sync wrote it.
    pub(super) fn number(&self) -> u64 {
        self.head.number
    }
}

impl Durable {
    /// The file at a path that [`Durable::at`] has let pass before.
    pub(super) fn known(path: PathBuf) -> Self {
        Self { path }
    }

    /// The file at `path`, which may not exist yet.
    pub(crate) fn at(path: &Path) -> Result<Self> {
        let wrong = |why| Error::Path { path: path.into(), why };
        let absolute = std::path::absolute(path).map_err(|_| wrong("it is empty"))?;
        if absolute.file_name().is_none() {
            return Err(wrong("it names a folder, not a file"));
        }
        if absolute.as_os_str().len() > PATH_MAX - NEXT.len() {
            return Err(wrong("it is too long"));
        }
        if absolute.as_os_str().as_bytes().contains(&b'\n') {
            return Err(wrong("it has a line break"));
        }
        Ok(Self { path: absolute })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn next(&self) -> PathBuf {
        let mut next = self.path.clone().into_os_string();
        next.push(NEXT);
        next.into()
    }

    fn failed(&self, action: &'static str) -> impl Fn(io::Error) -> Error + '_ {
        move |source| Error::Durable { path: self.path.clone(), action, source }
    }

    /// The newest version that was synced completely; none when there is no file.
    pub(crate) fn newest(&self, fingerprint: Fingerprint) -> Result<Option<Root>> {
        self.newest_of(fingerprint.bits())
    }

    /// The same, of a type whose fingerprint is this number.
    pub(super) fn newest_of(&self, fingerprint: u64) -> Result<Option<Root>> {
        let Some(root) = self.settle()? else { return Ok(None) };
        if root.head.fingerprint != fingerprint {
            return Err(Error::OtherType {
                state: self.path.display().to_string(),
                found: format!("another type ({:#x})", root.head.fingerprint),
                wanted: format!("the one asked for ({fingerprint:#x})"),
            });
        }
        Ok(Some(root))
    }

    /// Decides about a next file that a sync has left (D2), and returns what there is then.
    fn settle(&self) -> Result<Option<Root>> {
        let next = Root::read(&self.next());
        let is_whole = |root: &Root| {
            let was = |other: &PathBuf| was_written(other, root.head.number);
            root.group.iter().all(was) || hook::planted("durable-group-ignored")
        };
        if let Ok(Some(root)) = &next
            && is_whole(root)
        {
            hook::step();
            fs::rename(self.next(), &self.path).map_err(self.failed("take over the next file"))?;
            self.sync_folder()?;
        } else if !matches!(next, Ok(None)) {
            // Torn, or not all of its group was synced: as if it had never been.
            hook::step();
            fs::remove_file(self.next()).map_err(self.failed("remove a file left half written"))?;
            self.sync_folder()?;
        }
        Root::read(&self.path)
    }

    /// Writes this version into the next file, and syncs it.
    pub(super) fn prepare(
        &self,
        sync: Sync,
        version: u64,
        fingerprint: u64,
        group: &[u8],
        data: &[u8],
    ) -> Result<()> {
        let head = Head::new(sync, version, fingerprint, group, data);
        let write = || -> io::Result<()> {
            hook::step();
            let mut file = File::create(self.next())?;
            hook::step();
            file.write_all(head.as_bytes())?;
            file.write_all(group)?;
            hook::step();
            file.write_all(data)?;
            hook::step();
            file.sync_data()
        };
        write().map_err(self.failed("write the next file"))?;
        self.sync_folder()
    }

    /// Refuses a file that is not the file of a state, whole or damaged (D4).
    fn check_magic(&self) -> Result<()> {
        let mut magic = Vec::new();
        match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            file => file
                .and_then(|file| file.take(MAGIC.len() as u64).read_to_end(&mut magic))
                .map_err(self.failed("read the file"))?,
        };
        if magic == MAGIC {
            return Ok(());
        }
        let found = String::from_utf8_lossy(&magic).into_owned();
        Err(crate::layout::corrupt(&self.path.display().to_string(), "magic", found))
    }

    /// Whether a file can be made there at all.
    pub(super) fn probe(&self) -> Result<()> {
        let next = self.next();
        let made = File::create(&next).and_then(|_| fs::remove_file(&next));
        made.map_err(self.failed("make a file"))
    }

    /// Makes the next file the file.
    pub(super) fn adopt(&self) -> Result<()> {
        hook::step();
        fs::rename(self.next(), &self.path).map_err(self.failed("rename the next file"))
    }

    pub(super) fn sync_folder(&self) -> Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        File::open(folder).and_then(|f| f.sync_all()).map_err(self.failed("sync the folder"))
    }

    /// Removes the file, and a next one.
    pub(super) fn remove(&self) -> Result<()> {
        self.check_magic()?;
        for path in [self.next(), self.path.clone()] {
            hook::step();
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(self.failed("remove the file")(error));
                }
                _ => {}
            }
        }
        self.sync_folder()
    }
}

/// Whether the sync of this number has written the file of `path`: as its next one, as its newest,
/// or as one before that. A file that is gone belonged to a state that was deleted.
fn was_written(path: &Path, number: u64) -> bool {
    let durable = Durable { path: path.into() };
    if let Ok(Some(next)) = Root::read(&durable.next())
        && next.head.number == number
    {
        return true;
    }
    match Root::read(path) {
        Ok(None) => !durable.next().exists(),
        Ok(Some(newest)) => newest.head.number == number || newest.head.previous >= number,
        Err(_) => false,
    }
}

impl Root {
    /// Reads a file; none when there is none.
    fn read(path: &Path) -> Result<Option<Self>> {
        let durable = Durable { path: path.into() };
        // A group may name anything, also what can be read for ever or waits for somebody who writes.
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let file = match file {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(durable.failed("read the file"))?,
        };
        let about = file.metadata().map_err(durable.failed("read the file"))?;
        let place = path.display().to_string();
        if !about.is_file() {
            return Err(crate::layout::corrupt(&place, "kind of the file", "not a regular file"));
        }
        let mut bytes = Vec::new();
        file.take(about.len()).read_to_end(&mut bytes).map_err(durable.failed("read the file"))?;
        Self::decode(&place, &bytes).map(Some)
    }

    /// Decodes the bytes of a file.
    fn decode(place: &str, bytes: &[u8]) -> Result<Self> {
        let corrupt = |field, found: String| crate::layout::corrupt(place, field, found);
        let (head, body) = Head::read_from_prefix(bytes)
            .map_err(|_| corrupt("length of the file", bytes.len().to_string()))?;
        if head.magic != MAGIC {
            return Err(corrupt("magic", String::from_utf8_lossy(&head.magic).into_owned()));
        }
        if head.version != VERSION {
            let (found, known) = (head.version, VERSION);
            return Err(Error::Version { place: place.into(), found, known });
        }
        if crc32c(&bytes[..offset_of!(Head, checksum)]) != head.checksum {
            return Err(corrupt("checksum of the head", format!("{:#010x}", head.checksum)));
        }
        let group_len = head.group_len as usize;
        let wanted = (group_len as u64).checked_add(head.data_len);
        if wanted != Some(body.len() as u64) && !hook::planted("durable-length-unchecked") {
            return Err(corrupt("length of the file", bytes.len().to_string()));
        }
        if crc32c(body) != head.body_checksum && !hook::planted("durable-body-unchecked") {
            return Err(corrupt("checksum of the data", format!("{:#010x}", head.body_checksum)));
        }
        let (group, data) = body.split_at(group_len);
        let lines = group.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let group: Vec<_> = lines.map(|line| PathBuf::from(OsStr::from_bytes(line))).collect();
        // Sums that fit say only that somebody meant it.
        let checks = [
            ("number", head.number < NUMBER_MAX && head.previous < NUMBER_MAX),
            ("version of the state", head.state_version < VERSION_MAX / 2),
            ("length of the data", !data.is_empty()),
            ("data never written", head.state_version > 0 || data.iter().all(|byte| *byte == 0)),
            ("group", group.iter().all(|path| path.is_absolute())),
        ];
        if let Some((field, _)) = checks.into_iter().find(|(_, good)| !good) {
            return Err(corrupt(field, "out of range".into()));
        }
        Ok(Self { head, group, version: head.state_version, data: data.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(durable: &Durable, number: u64, previous: u64, group: &[&Durable], data: &[u8]) {
        let paths: Vec<&[u8]> = group.iter().map(|d| d.path.as_os_str().as_bytes()).collect();
        let group = paths.join(&b'\n');
        let sync = Sync { number, previous };
        durable.prepare(sync, number, 0, &group, data).unwrap();
    }

    fn two() -> (tempfile::TempDir, Durable, Durable) {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| Durable::at(&folder.path().join(name)).unwrap();
        let (a, b) = (at("a"), at("b"));
        for durable in [&a, &b] {
            file(durable, 1, 0, &[&a, &b], b"one");
            durable.adopt().unwrap();
        }
        (folder, a, b)
    }

    fn newest(durable: &Durable) -> Vec<u8> {
        durable.newest(Fingerprint::NONE).unwrap().unwrap().data
    }

    #[test]
    fn what_was_synced_together_comes_back_together_or_not_at_all() {
        // Only one of the two was prepared when the power went.
        let (_folder, a, b) = two();
        file(&a, 2, 1, &[&a, &b], b"two");
        assert_eq!((newest(&a), newest(&b)), (b"one".to_vec(), b"one".to_vec()));
        assert!(!a.next().exists());
        // Both were, and neither renamed.
        let (_folder, a, b) = two();
        file(&a, 2, 1, &[&a, &b], b"two");
        file(&b, 2, 1, &[&a, &b], b"two");
        assert_eq!((newest(&a), newest(&b)), (b"two".to_vec(), b"two".to_vec()));
        // One was renamed, and even written again by a later sync.
        let (_folder, a, b) = two();
        file(&a, 2, 1, &[&a, &b], b"two");
        file(&b, 2, 1, &[&a, &b], b"two");
        a.adopt().unwrap();
        file(&a, 3, 2, &[&a], b"three");
        a.adopt().unwrap();
        assert_eq!((newest(&b), newest(&a)), (b"two".to_vec(), b"three".to_vec()));
    }

    #[test]
    fn a_later_sync_of_one_does_not_make_an_unfinished_one_of_the_other_valid() {
        let (_folder, a, b) = two();
        file(&b, 2, 1, &[&a, &b], b"two");
        assert_eq!(newest(&a), b"one");
        file(&a, 3, 1, &[&a], b"three");
        a.adopt().unwrap();
        assert_eq!(newest(&b), b"one");
    }

    #[test]
    fn any_torn_or_flipped_byte_of_a_next_file_leaves_the_one_before() {
        let (_folder, a, b) = two();
        file(&b, 2, 1, &[&b], b"two");
        let whole = fs::read(b.next()).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs::write(b.next(), &flipped).unwrap();
            assert_eq!(newest(&b), b"one", "byte {at} flipped");
            fs::write(b.next(), &whole[..at]).unwrap();
            assert_eq!(newest(&b), b"one", "cut at {at}");
        }
        fs::write(b.next(), &whole).unwrap();
        assert_eq!(newest(&b), b"two");
        drop(a);
    }

    #[test]
    fn a_damaged_file_is_an_error_that_names_the_field() {
        let (_folder, a, _) = two();
        let mut bytes = fs::read(&a.path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&a.path, &bytes).unwrap();
        let error = a.newest(Fingerprint::NONE).unwrap_err();
        assert!(matches!(error, Error::Corrupt { field: "checksum of the data", .. }), "{error}");
    }

    /// What a file with right sums is refused for.
    fn refused_for(durable: &Durable, change: impl FnOnce(&mut Head), body: &[u8]) -> &'static str {
        let mut head = Root::read(&durable.path).unwrap().unwrap().head;
        head.data_len = body.len() as u64 - u64::from(head.group_len);
        change(&mut head);
        head.body_checksum = crc32c(body);
        head.checksum = crc32c(&head.as_bytes()[..offset_of!(Head, checksum)]);
        match Root::decode("x", &[head.as_bytes(), body].concat()) {
            Err(Error::Corrupt { field, .. }) => field,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_file_that_nobody_can_have_written_is_refused_although_its_sums_are_right() {
        let (_folder, a, _) = two();
        let body = fs::read(&a.path).unwrap()[size_of::<Head>()..].to_vec();
        let of = |change: fn(&mut Head)| refused_for(&a, change, &body);
        assert_eq!(of(|head| head.number = NUMBER_MAX), "number");
        assert_eq!(of(|head| head.previous = u64::MAX), "number");
        assert_eq!(of(|head| head.state_version = VERSION_MAX / 2), "version of the state");
        assert_eq!(of(|head| head.state_version = 0), "data never written");
        assert_eq!(of(|head| head.data_len = u64::MAX), "length of the file");
        let group_len = body.len() - b"one".len();
        assert_eq!(refused_for(&a, |_| {}, &body[..group_len]), "length of the data");
        let relative = [&b"x"[..], &body[1..]].concat();
        assert_eq!(refused_for(&a, |_| {}, &relative), "group");
    }

    #[test]
    fn what_is_no_regular_file_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        for path in [Path::new("/dev/zero"), &pipe, folder.path()] {
            let refused = Root::read(path);
            assert!(matches!(refused, Err(Error::Corrupt { field: "kind of the file", .. })));
        }
    }

    #[test]
    fn a_path_has_room_for_the_name_of_its_next_file_and_one_byte_more_is_refused() {
        let path = |len: usize| format!("/{}", "x".repeat(len - 1));
        let longest = PATH_MAX - NEXT.len();
        let durable = Durable::at(Path::new(&path(longest))).unwrap();
        assert_eq!(durable.next().as_os_str().len(), PATH_MAX);
        assert!(matches!(Durable::at(Path::new(&path(longest + 1))), Err(Error::Path { .. })));
    }

    #[test]
    fn a_path_that_cannot_be_a_file_is_refused() {
        for path in ["/", "", "/a\nb", &format!("/{}", "x/".repeat(3_000))] {
            assert!(matches!(Durable::at(Path::new(path)), Err(Error::Path { .. })), "{path}");
        }
    }
}
