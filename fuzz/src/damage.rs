//! What may happen to files of a store, whichever kind it is: headers are alike, and so is where
//! they end.

use arbitrary::Arbitrary;

use crate::folder::Contents;

/// Bytes of a header.
pub const HEADER: usize = 128;
/// Where its second copy is.
pub const COPY_AT: usize = 512;
/// Where what is behind both begins.
pub const DATA_AT: usize = 4096;

const SECTOR: usize = 512;

/// How often the files are damaged, at most.
pub const DAMAGE_MAX: usize = 16;

/// Something that has happened to the files.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Damage(Kind);

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Kind {
    /// Bits of a byte.
    Byte {
        file: u8,
        at: u16,
        bits: u8,
    },
    /// A number of a header, a frame or a chunk.
    Number {
        file: u8,
        at: u8,
        value: Value,
    },
    /// One that may be anywhere in the file, of four bytes.
    Deep {
        file: u8,
        at: u16,
        value: Value,
    },
    Cut {
        file: u8,
        at: u16,
    },
    Longer {
        file: u8,
        by: u16,
    },
    /// A sector that was written to another place.
    Misdirected {
        from: (u8, u8),
        to: (u8, u8),
    },
    /// One that was not written.
    Blank {
        file: u8,
        sector: u8,
    },
    Removed {
        file: u8,
    },
    Swapped {
        one: u8,
        other: u8,
    },
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Value {
    Small(u8),
    Most(u8),
    Any(u64),
}

impl Value {
    fn get(self) -> u64 {
        match self {
            Self::Small(value) => value.into(),
            Self::Most(less) => u64::MAX - u64::from(less),
            Self::Any(value) => value,
        }
    }
}

fn name(files: &Contents, file: u8) -> Option<String> {
    let index = usize::from(file).checked_rem(files.len())?;
    files.keys().nth(index).cloned()
}

fn pick(files: &mut Contents, file: u8) -> Option<&mut Vec<u8>> {
    let index = usize::from(file).checked_rem(files.len())?;
    files.values_mut().nth(index)
}

impl Damage {
    /// Does it all, one after another.
    pub fn apply_all(all: &[Self], files: &mut Contents) {
        for damage in all.iter().take(DAMAGE_MAX) {
            damage.0.apply(files);
        }
    }

    /// Only bits of one byte.
    #[must_use]
    pub fn is_byte(&self) -> bool {
        matches!(self.0, Kind::Byte { .. })
    }

    /// A file is gone, or under the name of another.
    #[must_use]
    pub fn is_of_names(&self) -> bool {
        matches!(self.0, Kind::Removed { .. } | Kind::Swapped { .. })
    }
}

impl Kind {
    fn apply(self, files: &mut Contents) {
        match self {
            Self::Byte { file, at, bits } => {
                let Some(file) = pick(files, file) else { return };
                let len = file.len().max(1);
                if let Some(byte) = file.get_mut(usize::from(at) % len) {
                    *byte ^= bits;
                }
            }
            Self::Number { file, at, value } => {
                let Some(file) = pick(files, file) else { return };
                // The first copy of the header, or what comes first behind it.
                let at = 4 * usize::from(at % 64);
                let at = if at < HEADER { at } else { DATA_AT + at - HEADER };
                if let Some(place) = file.get_mut(at..at + 8) {
                    place.copy_from_slice(&value.get().to_le_bytes());
                }
                copy_header(file, at);
            }
            Self::Deep { file, at, value } => {
                let Some(file) = pick(files, file) else { return };
                let at = 4 * (usize::from(at) % (file.len() / 4).max(1));
                if let Some(place) = file.get_mut(at..at + 4) {
                    place.copy_from_slice(&value.get().to_le_bytes()[..4]);
                }
                copy_header(file, at);
            }
            Self::Cut { file, at } => {
                let Some(file) = pick(files, file) else { return };
                file.truncate(usize::from(at) % (file.len() + 1));
            }
            Self::Longer { file, by } => {
                let Some(file) = pick(files, file) else { return };
                file.resize(file.len() + usize::from(by), 0);
            }
            Self::Misdirected { from, to } => {
                let read = |file: &mut Vec<u8>| {
                    let at = usize::from(from.1) * SECTOR;
                    file.get(at..at + SECTOR).map(<[u8]>::to_vec)
                };
                let Some(sector) = pick(files, from.0).and_then(read) else { return };
                let at = usize::from(to.1) * SECTOR;
                let Some(file) = pick(files, to.0) else { return };
                if let Some(place) = file.get_mut(at..at + SECTOR) {
                    place.copy_from_slice(&sector);
                }
            }
            Self::Blank { file, sector } => {
                let at = usize::from(sector) * SECTOR;
                let Some(file) = pick(files, file) else { return };
                if let Some(place) = file.get_mut(at..at + SECTOR) {
                    place.fill(0);
                }
            }
            Self::Removed { file } => {
                if let Some(name) = name(files, file) {
                    files.remove(&name);
                }
            }
            Self::Swapped { one, other } => {
                let (Some(one), Some(other)) = (name(files, one), name(files, other)) else {
                    return;
                };
                let (Some(first), Some(second)) = (files.remove(&one), files.remove(&other)) else {
                    return;
                };
                files.insert(one, second);
                files.insert(other, first);
            }
        }
    }
}

/// Both copies say the same.
fn copy_header(file: &mut [u8], changed: usize) {
    if changed < HEADER && file.len() > COPY_AT + HEADER {
        file.copy_within(..HEADER, COPY_AT);
    }
}
