//! What is read and written, and the sides that do it.

use std::path::Path;

use super::{iceoryx, lmdb, mmap_sync, ours, redis};
use crate::Outcome;
use crate::report::Report;

/// Sizes as they stand in the figures' names, and their words.
pub(super) const SIZES: [Size; 4] = [
    Size { name: "64", words: 8 },
    Size { name: "1k", words: 128 },
    Size { name: "4k", words: 512 },
    Size { name: "64k", words: 8_192 },
];

/// How large a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) name: &'static str,
    pub(super) words: usize,
}

impl Size {
    /// The size of this name.
    pub(super) fn named(name: &str) -> Outcome<Size> {
        let found = SIZES.into_iter().find(|size| size.name == name);
        found.ok_or_else(|| format!("no size is called {name}").into())
    }
}

/// Publishes values.
pub(super) trait Writer {
    /// Makes `value` the current one, as a whole.
    fn commit(&mut self, value: &[u64]) -> Outcome<()>;
}

/// Looks at the current value.
pub(super) trait Reader {
    /// The stamp of the current value, once all of it can be used (V3); [`TORN`] when it is torn.
    fn read(&mut self) -> Outcome<u64>;
}

/// Whoever can keep a value in shared memory, or behind a socket.
#[derive(Clone, Copy)]
pub(super) struct Keeper {
    /// As it stands in the figures.
    pub(super) name: &'static str,
    /// Makes the place for a value, with a first value of zeros.
    pub(super) writer: fn(&Path, Size) -> Outcome<Box<dyn Writer>>,
    /// Attaches to what a writer has made.
    pub(super) reader: fn(&Path, Size) -> Outcome<Box<dyn Reader>>,
}

/// Ours, then its peers; a server that is not installed is left out.
pub(super) fn keepers() -> Vec<Keeper> {
    let mut keepers = vec![ours::KEEPER, mmap_sync::KEEPER, iceoryx::KEEPER, lmdb::KEEPER];
    if redis::is_installed() {
        keepers.push(redis::KEEPER);
    }
    keepers
}

/// Says, once a report, who was left out.
pub(super) fn tell_who_is_missing(report: &mut Report) {
    const MISSING: &str = "redis: not installed, so left out; apt-get install redis-server";
    if !redis::is_installed() && !report.warnings.iter().any(|warning| warning == MISSING) {
        report.warnings.push(MISSING.to_owned());
    }
}

/// The keeper of this name.
pub(super) fn keeper(name: &str) -> Outcome<Keeper> {
    let found = keepers().into_iter().find(|keeper| keeper.name == name);
    found.ok_or_else(|| format!("nobody called {name} keeps values").into())
}

/// Sets the stamp of a value.
#[inline]
pub(super) fn stamp(value: &mut [u64], stamp: u64) {
    if let [first, .., last] = value {
        (*first, *last) = (stamp, stamp);
    }
}

/// Stands for the stamp of a torn value (V2): no writer comes to it.
pub(super) const TORN: u64 = u64::MAX;

/// The stamp of a value (V2).
#[inline]
pub(super) fn stamp_of(value: &[u64]) -> u64 {
    match value {
        [first, .., last] if first == last => *first,
        _ => TORN,
    }
}

/// The same value as bytes.
pub(super) fn bytes(value: &[u64]) -> &[u8] {
    zerocopy::IntoBytes::as_bytes(value)
}

/// Calls a function that is generic over the number of words.
macro_rules! with_words {
    ($size:expr, $call:ident($($argument:expr),*)) => {
        match $size.words {
            8 => $call::<8>($($argument),*),
            128 => $call::<128>($($argument),*),
            512 => $call::<512>($($argument),*),
            8_192 => $call::<8_192>($($argument),*),
            words => Err(format!("no value has {words} words").into()),
        }
    };
}
pub(super) use with_words;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_with_two_stamps_is_torn() {
        let mut value = vec![0; 8];
        stamp(&mut value, 7);
        assert_eq!(stamp_of(&value), 7);
        value[7] = 8;
        assert_eq!(stamp_of(&value), TORN);
    }

    #[test]
    fn what_each_keeper_is_given_it_gives_back_at_every_size() {
        for keeper in keepers() {
            for size in SIZES {
                let folder = tempfile::tempdir().unwrap();
                let mut writer = (keeper.writer)(folder.path(), size).unwrap();
                let mut reader = (keeper.reader)(folder.path(), size).unwrap();
                let mut value = vec![5; size.words];
                for number in [1, 2, 3] {
                    stamp(&mut value, number);
                    writer.commit(&value).unwrap();
                    let what = (keeper.name, size);
                    assert_eq!(reader.read().unwrap(), number, "{what:?}");
                }
            }
        }
    }
}
