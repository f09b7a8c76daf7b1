//! What can go wrong with a command, and what the shell is told about it.

use crate::{
    output::escape,
    pool::portable::FormatError,
    state::FieldError,
    store::{LineError, kept},
};
use mainstay::{channel, pool, state, store};
use std::{
    fmt, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Part of the help of every group of commands.
pub(crate) const EXIT_STATUS: &str = "\
Exit status:
  0  all is well
  1  it failed; standard error says why, and what to do next
  2  the command line is wrong, or a question could not be asked
  3  damage was found
  130  interrupted; standard error says what is left

Examples:
  mainstay demo
  mainstay pool create calls --block-size 256
  mainstay pool ls
  mainstay pool info calls --json
  mainstay channel bench --over tcp
  mainstay sds chat --name alice --loss 30
  mainstay state ls
  mainstay state watch temperature --max-rate 5
  mainstay store create ./people --key-bytes 16 --value-bytes 64
  mainstay store get ./people alice";

/// What a command came to, when nothing failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// All is well.
    Fine,
    /// It looked for damage, found some, and has said so.
    Damaged,
}

pub(crate) type Result<T, E = CliError> = std::result::Result<T, E>;

/// Each variant says what was wrong, where, and what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CliError {
    #[error(transparent)]
    Pool(#[from] pool::Error),
    #[cfg(feature = "sds")]
    #[error(transparent)]
    Sds(#[from] mainstay::sds::Error),
    #[cfg(feature = "sds")]
    #[error(transparent)]
    Driver(#[from] mainstay::sds::driver::Error),
    #[cfg(feature = "sds")]
    #[error(
        "{} never acknowledged: nobody was there, or too much is lost",
        crate::size::counted(*count as u64, "message was", "messages were")
    )]
    Unacknowledged { count: usize },
    #[cfg(feature = "sds")]
    #[error("{what}: {why}")]
    NotSds { what: String, why: String },
    #[cfg(feature = "sds")]
    #[error("--hex: {why}; give two hexadecimal digits for each byte")]
    NotDigits { why: String },
    #[cfg(feature = "sds")]
    #[error("the simulation: {what}")]
    Simulation { what: String },
    #[cfg(feature = "sds")]
    #[error(
        "{group:?} is no multicast group: give an IPv4 address and a port, as in 239.77.3.1:7731, or \
         choose another way with --over"
    )]
    NotAGroup { group: String },
    #[cfg(feature = "sds")]
    #[error("{option} is of no use over {over}: leave it out, or choose --over {ways}")]
    NotOver { option: &'static str, over: &'static str, ways: String },
    /// The program was built without it.
    #[cfg(all(feature = "sds", not(feature = "gossipsub")))]
    #[error(
        "this program was built without gossipsub, which needs a C compiler; build one with `cargo \
         install --path crates/cli --features gossipsub`"
    )]
    WithoutGossipsub,
    #[cfg(feature = "sds")]
    #[error("cannot read standard input: {0}; check where it comes from")]
    Input(io::Error),

    #[error(transparent)]
    Replica(#[from] mainstay::replica::Error),
    #[error(transparent)]
    Channel(#[from] channel::Error),
    #[error("{0}")]
    Purpose(#[from] channel::handshake::PurposeError),
    #[error(
        "nothing came back within {after:?}: {received} of {sent} came; check that the other end runs"
    )]
    NoAnswer { after: std::time::Duration, sent: u64, received: u64 },
    #[error("--over {over} needs {missing}")]
    Missing { over: String, missing: &'static str },
    /// The program was built without it.
    #[cfg(not(feature = "tls"))]
    #[error(
        "this program was built without TLS and QUIC, which need a C compiler; build one with \
         `cargo install --path crates/cli --features tls`"
    )]
    WithoutTls,
    #[cfg(feature = "tls")]
    #[error(
        "cannot make the certificate: {0}; choose another folder, or remove what is damaged in it"
    )]
    Certificate(#[from] rcgen::Error),
    #[cfg(feature = "tls")]
    #[error(
        "{}: is of cluster {cluster}, and not of {given}; leave --cluster out, or choose another \
         folder", folder.display()
    )]
    OtherCluster { folder: PathBuf, cluster: channel::ClusterId, given: channel::ClusterId },
    /// The text after `: ` of the inner error says what to do.
    #[error("{file}: {source}")]
    Import { file: String, source: FormatError },

    #[error("{}: cannot {action}: {source}; {hint}", path.display())]
    File { path: PathBuf, action: &'static str, source: io::Error, hint: &'static str },
    #[error("{}: exists already; choose another name, or say --force to replace it", .0.display())]
    FileExists(PathBuf),
    #[error("{}: is not a regular file; write to standard output (-) and redirect it", .0.display())]
    NotAFile(PathBuf),

    #[error(
        "{}: is not safe to keep pools and states in ({why}); remove it, or name another folder in \
         MAINSTAY_DIR", path.display()
    )]
    ForeignFolder { path: PathBuf, why: &'static str },
    #[error("{name:?} is no name of a pool: {source}; a path has a '/' in it, as in ./{name}")]
    Name { name: String, source: mainstay_base::NameError },
    #[error(
        "there is no pool {name:?} in {}; `mainstay pool ls` shows what there is, `mainstay pool \
         create {name} --block-size 256` makes one", folder.display()
    )]
    NoPool { name: String, folder: PathBuf },
    #[error(
        "{}: exists already; choose another name, or import into it with --into", .0.display()
    )]
    PoolExists(PathBuf),
    #[error("{}: another import is under way; wait for it, or end it", .0.display())]
    Importing(PathBuf),
    #[error(
        "{pool}: has a block {uuid} already; import into a new pool, or free that block first; \
         nothing was imported"
    )]
    UuidTaken { pool: String, uuid: pool::Uuid },
    #[error(
        "block {uuid} has {needed} bytes, and blocks of this pool {block_size}; import it into a \
         new pool with --block-size {needed} or more; nothing was imported"
    )]
    BlocksTooSmall { uuid: pool::Uuid, needed: u64, block_size: usize },

    #[error("{given:?} names no block of {pool}: {why}")]
    NoBlock { pool: String, given: String, why: &'static str },
    #[error("{given:?} is not a block: give a number (12), an id (12@7) or a UUID")]
    NotABlock { given: String },
    #[error("{source}; {done} of {wanted} blocks were filled, and stay")]
    FilledInPart { done: u64, wanted: u64, source: pool::Error },

    #[error(transparent)]
    State(#[from] state::Error),
    /// The program was built without it.
    #[cfg(not(feature = "dbus"))]
    #[error(
        "this program was built without D-Bus; build one with `cargo install --path crates/cli \
         --features dbus`"
    )]
    WithoutDbus,
    #[error(
        "{name}: there is no such state, and a transient one would end with this command: say \
         --hold to keep it until interrupted, or --persist FILE to keep it in a file"
    )]
    WouldVanish { name: String },
    #[error(
        "{name}: there is no such state, and no file {}; `mainstay state ls` shows what there is",
        path.display()
    )]
    NothingToPersist { name: String, path: PathBuf },
    /// The text after `: ` of the inner error says what to write.
    #[error("{name}: the value {source}; nothing was changed")]
    Field { name: String, source: FieldError },
    #[error("{0:?} is not hexadecimal: write two digits a byte, as in 48690a; nothing was changed")]
    NotHex(String),

    #[error("{}: {source}", path.display())]
    Store { path: PathBuf, source: store::Error },
    #[error(
        "{}: is encrypted under key {key}; give the file with that key by --key-file, or name it in \
         MAINSTAY_KEY_FILE", path.display()
    )]
    NeedsKey { path: PathBuf, key: String },
    #[error(
        "{}: {file} is encrypted under key {wanted}, which was not given; `mainstay store key id FILE` \
         says what the key in a file is called, and of a rotation that was interrupted both are given: \
         --key-file NEW --key-file OLD", path.display()
    )]
    OtherKey { path: PathBuf, file: String, wanted: String },
    #[error(
        "{}: {file} is not encrypted, or what says so is lost; leave out --key-file (and \
         MAINSTAY_KEY_FILE) if it never was, or restore it from a backup; to encrypt a store, create \
         another one with the key, export this one and import it there", path.display()
    )]
    NotEncrypted { path: PathBuf, file: String },
    #[error(
        "{}: is encrypted, and nobody can read it in the memory of the program that has it open; watch \
         it in that program, or `scan` it when it is closed", .0.display()
    )]
    NotToWatch(PathBuf),
    #[error(transparent)]
    Key(#[from] store::KeyError),
    #[error(
        "{}: exists already, and a key is never replaced: what is encrypted under it could not be read \
         any more; choose another name", .0.display()
    )]
    KeyExists(PathBuf),
    #[error(
        "no key that the store is under now; give its file by --key-file, or name it in \
         MAINSTAY_KEY_FILE"
    )]
    NoOldKey,
    #[error(
        "{}: exists already; a store is restored to a place of its own: name another one, or move this \
         one away", .0.display()
    )]
    StoreExists(PathBuf),
    #[error(
        "{}: another restore to this place is under way; wait for it, or end it", .0.display()
    )]
    Restoring(PathBuf),
    #[error(
        "{}: the copy is damaged, `mainstay store verify {}` says where; nothing was restored: take \
         another copy, or `mainstay store repair` this one", .0.display(), .0.display()
    )]
    DamagedCopy(PathBuf),
    #[error(
        "{}: the copy is not finished: it was interrupted, and has only a part of what is to be in it; run \
         the same `mainstay store backup` (or `follow`) again, until that is done; if what it is of is \
         gone, `mainstay store promote {} --unfinished` takes it as it is", .0.display(), .0.display()
    )]
    Unfinished(PathBuf),
    #[error(
        "{}: is no store, but a copy of one with values of any size; `mainstay store restore` makes a \
         store of it, `verify` checks it", .0.display()
    )]
    IsCopy(PathBuf),
    #[error(
        "{}: is not equal to {} after the copy; `mainstay store verify {} --against {}` shows the \
         records, and the disks should be checked",
        copy.display(), of.display(), of.display(), copy.display()
    )]
    Unequal { copy: PathBuf, of: PathBuf },
    #[error(
        "{}: a store with values of any size cannot be {cannot_be}; `mainstay store export` writes its \
         records to a file, `mainstay store import` reads them", path.display()
    )]
    AnySize { path: PathBuf, cannot_be: &'static str },
    #[error("the {part} has {bytes} bytes, and those of the store have {must}; give it as many")]
    Size { part: &'static str, bytes: usize, must: usize },
    #[error("the {part} has more than {most} bytes, and no {part} has more; shorten it")]
    TooLong { part: &'static str, most: usize },
    #[error(
        "the {part} {given:?} is no whole number of at most {len} bytes; write digits only, as in 42"
    )]
    NotANumber { part: &'static str, given: String, len: usize },
    #[error("--prefix is text or, with --key-as hex, digits: a number or a file has none")]
    NoPrefix,
    #[error(
        "{}: has no record {key}; `mainstay store scan {}` shows what there is",
        path.display(), path.display()
    )]
    NoRecord { path: PathBuf, key: String },
    #[error(
        "{}: records of this store do not end; make one whose records do, by `create --expiring` or \
         `create --values any`, and import an export of this one there", .0.display()
    )]
    NoEnds(PathBuf),
    #[error("{}: {key} {has}; nothing was changed", path.display())]
    NotAsExpected { path: PathBuf, key: String, has: String },
    /// The text after `: ` of the inner error says what to do.
    #[error("{file}, line {line}: {source}; {}", kept(*imported))]
    Line { file: String, line: u64, source: LineError, imported: u64 },
    #[error(
        "{} has keys of {key} bytes and values of {value}, {} of {other_key} and {other_value}; \
         compare stores of the same sizes", here.display(), there.display()
    )]
    NotComparable {
        here: PathBuf,
        there: PathBuf,
        key: usize,
        value: usize,
        other_key: usize,
        other_value: usize,
    },

    #[error("this {what}: say --yes to do it without being asked")]
    NeedsYes { what: String },
    #[error("not done; nothing was changed")]
    Declined,
    #[error("interrupted; {left}")]
    Interrupted { left: &'static str },
    /// A leader has another store than the one that is to be repaired.
    #[error(
        "{}: {address} leads another store; repair it from its own leader, or without --from",
        path.display()
    )]
    OtherStore { path: PathBuf, address: String },
    /// It is of before what the store knew that is to be repaired.
    #[error(
        "{address} leads with epoch {epoch}, and the damaged store knew of {known}; repair it from that \
         leader, or promote this one with --above {known} if that one is gone; the damaged store is \
         where it was"
    )]
    StaleLeader { address: String, epoch: u64, known: u64 },
    /// Standard output is closed: whoever read it has seen enough.
    #[error("cannot write to standard output: {0}; check where it leads to")]
    Output(io::Error),
}

impl CliError {
    pub(crate) fn file(
        path: &Path,
        action: &'static str,
        hint: &'static str,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::File { path, action, source, hint }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Output(source) if source.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Missing { .. } | Self::Purpose(_) => 2,
            #[cfg(feature = "sds")]
            Self::NotAGroup { .. } | Self::NotOver { .. } => 2,
            #[cfg(feature = "sds")]
            Self::Driver(mainstay::sds::driver::Error::NotAGroup { .. }) => 2,
            #[cfg(feature = "sds")]
            Self::NotDigits { .. } => 2,
            Self::NeedsYes { .. } | Self::NotABlock { .. } | Self::Name { .. } => 2,
            Self::State(state::Error::Name(_)) | Self::NotHex(_) => 2,
            Self::Pool(pool::Error::Corrupt { .. }) => 3,
            Self::State(state::Error::Corrupt { .. }) => 3,
            Self::NoOldKey => 2,
            Self::Size { .. } | Self::TooLong { .. } => 2,
            Self::NotANumber { .. } | Self::NoPrefix => 2,
            Self::Store { source: store::Error::OutOfLimits { .. }, .. } => 2,
            Self::Store { source: store::Error::Damaged { .. }, .. }
            | Self::Store { source: store::Error::Misplaced { .. }, .. } => 3,
            Self::DamagedCopy(_) | Self::Unequal { .. } => 3,
            Self::Import { source, .. } if source.is_damage() => 3,
            #[cfg(feature = "sds")]
            Self::NotSds { .. } => 3,
            Self::Interrupted { .. } => 130,
            _ => 1,
        }
    }
}

/// Tells the user and the shell how it went.
pub(crate) fn exit(result: Result<Outcome>) -> ExitCode {
    match result {
        Ok(Outcome::Fine) => ExitCode::SUCCESS,
        Ok(Outcome::Damaged) => ExitCode::from(3),
        Err(error) => {
            let code = error.exit_code();
            if code != 0 {
                complain("error", &error);
            }
            ExitCode::from(code)
        }
    }
}

/// Something the user should know although the command goes on.
pub(crate) fn warn(text: &dyn fmt::Display) {
    complain("warning", text);
}

fn complain(what: &str, text: &dyn fmt::Display) {
    use io::Write;
    // Where standard error is closed, nobody wants to know.
    let _ = writeln!(io::stderr(), "{what}: {}", escape(&text.to_string()));
}
