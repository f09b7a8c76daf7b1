//! A change of a channel as bytes: one header, then what was put and what was dropped, then a
//! checksum. The table is in `docs/format/sds.md`.
//!
//! * C1. A change is read whole or not at all: its checksum covers every byte before it.
//! * C2. Changes are applied in the order of their numbers, and what comes later wins; a base
//!   replaces all that was before it.

use std::collections::HashMap;

use mainstay_base::crc32c;

use crate::wire::Profile;

pub(crate) const MAGIC: [u8; 4] = *b"MSDC";
pub(crate) const VERSION: u8 = 1;

/// Where the fields of the header are.
pub(crate) mod head {
    pub(crate) const MAGIC: usize = 0;
    pub(crate) const VERSION: usize = MAGIC + 4;
    pub(crate) const PROFILE: usize = VERSION + 1;
    pub(crate) const FLAGS: usize = PROFILE + 1;
    pub(crate) const RESERVED: usize = FLAGS + 1;
    pub(crate) const NUMBER: usize = RESERVED + 1;
    pub(crate) const LAMPORT: usize = NUMBER + 8;
    pub(crate) const HORIZON: usize = LAMPORT + 8;
    pub(crate) const DELIVERED: usize = HORIZON + 8;
    pub(crate) const CONFIRMED: usize = DELIVERED + 8;
    pub(crate) const LEN: usize = CONFIRMED + 8;
}

/// Where the fields of an entry are; id, hint and body follow.
pub(crate) mod item {
    pub(crate) const TAG: usize = 0;
    pub(crate) const FLAGS: usize = TAG + 1;
    pub(crate) const ATTEMPTS: usize = FLAGS + 1;
    pub(crate) const RESERVED: usize = ATTEMPTS + 1;
    pub(crate) const LAMPORT: usize = RESERVED + 1;
    pub(crate) const NUMBER: usize = LAMPORT + 8;
    pub(crate) const ID_LEN: usize = NUMBER + 8;
    pub(crate) const HINT_LEN: usize = ID_LEN + 2;
    pub(crate) const BODY_LEN: usize = HINT_LEN + 2;
    pub(crate) const LEN: usize = BODY_LEN + 4;
}

/// The bytes of the checksum at the end.
pub(crate) const CRC_LEN: usize = 4;

/// Bits of the header's flags.
pub(crate) const BASE: u8 = 1;
pub(crate) const JOINED: u8 = 1 << 1;

/// What happened to a message. The numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Tag {
    /// It is in the log.
    Logged = 1,
    /// It waits for others.
    Buffered = 2,
    /// Only its id counts.
    Tombstone = 3,
    /// Nothing of it is known any more.
    Forgotten = 4,
    /// It needs no acknowledgement any more.
    Settled = 5,
}

impl Tag {
    fn read(byte: u8) -> Option<Self> {
        [Self::Logged, Self::Buffered, Self::Tombstone, Self::Forgotten, Self::Settled]
            .into_iter()
            .find(|tag| *tag as u8 == byte)
    }
}

/// Bits of an entry's flags beside those of the record: it waits for an acknowledgement; it has
/// left the log and is kept for those who still need its body.
pub(crate) const UNACKNOWLEDGED: u8 = 1 << 6;
pub(crate) const EVICTED: u8 = 1 << 7;

/// The numbers of a channel that every change carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scalars {
    pub(crate) lamport: u64,
    /// What is not later than this is too old to be told from what was delivered before.
    pub(crate) horizon: u64,
    /// The number of the last delivery.
    pub(crate) delivered: u64,
    /// The number up to which deliveries are confirmed.
    pub(crate) confirmed: u64,
    /// A message was accepted before.
    pub(crate) joined: bool,
}

/// One entry of a change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) tag: Tag,
    pub(crate) flags: u8,
    pub(crate) attempts: u8,
    pub(crate) lamport: u64,
    pub(crate) number: u64,
    pub(crate) id: &'a [u8],
    pub(crate) hint: &'a [u8],
    pub(crate) body: &'a [u8],
}

impl<'a> Entry<'a> {
    pub(crate) fn of(tag: Tag, id: &'a [u8]) -> Self {
        Self { tag, flags: 0, attempts: 0, lamport: 0, number: 0, id, hint: &[], body: &[] }
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.tag as u8, self.flags, self.attempts, 0]);
        out.extend_from_slice(&self.lamport.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&(self.id.len() as u16).to_le_bytes());
        out.extend_from_slice(&(self.hint.len() as u16).to_le_bytes());
        out.extend_from_slice(&(self.body.len() as u32).to_le_bytes());
        out.extend_from_slice(self.id);
        out.extend_from_slice(self.hint);
        out.extend_from_slice(self.body);
    }

    /// The entry at the front of `bytes`, and what is behind it.
    fn read(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (fixed, rest) = bytes.split_at_checked(item::LEN)?;
        let short = |at: usize| u16::from_le_bytes([fixed[at], fixed[at + 1]]) as usize;
        let body_len = u32_at(fixed, item::BODY_LEN) as usize;
        let (id, rest) = rest.split_at_checked(short(item::ID_LEN))?;
        let (hint, rest) = rest.split_at_checked(short(item::HINT_LEN))?;
        let (body, rest) = rest.split_at_checked(body_len)?;
        if fixed[item::RESERVED] != 0 {
            return None;
        }
        let entry = Self {
            tag: Tag::read(fixed[item::TAG])?,
            flags: fixed[item::FLAGS],
            attempts: fixed[item::ATTEMPTS],
            lamport: u64_at(fixed, item::LAMPORT),
            number: u64_at(fixed, item::NUMBER),
            id,
            hint,
            body,
        };
        Some((entry, rest))
    }
}

/// Writes a header; entries and [`seal`] follow.
pub(crate) fn open(out: &mut Vec<u8>, profile: Profile, base: bool, number: u64, now: &Scalars) {
    let profile = match profile {
        Profile::Lip => 0,
        Profile::Nim => 1,
    };
    let flags = if base { BASE } else { 0 } | if now.joined { JOINED } else { 0 };
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[VERSION, profile, flags, 0]);
    for number in [number, now.lamport, now.horizon, now.delivered, now.confirmed] {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

/// Writes the checksum (C1).
pub(crate) fn seal(out: &mut Vec<u8>) {
    let crc = crc32c(out);
    out.extend_from_slice(&crc.to_le_bytes());
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(four)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(eight)
}

/// A change that was read back.
#[derive(Debug)]
pub(crate) struct ReadChange<'a> {
    pub(crate) profile: Profile,
    pub(crate) base: bool,
    pub(crate) number: u64,
    pub(crate) scalars: Scalars,
    pub(crate) entries: Vec<Entry<'a>>,
}

impl<'a> ReadChange<'a> {
    /// What is wrong with the bytes, if they are no change.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, &'static str> {
        let Some(end) = bytes.len().checked_sub(CRC_LEN).filter(|end| *end >= head::LEN) else {
            return Err("a change is shorter than its header; restore it from elsewhere");
        };
        if bytes[..4] != MAGIC {
            return Err("a change does not begin with MSDC; check what the place holds");
        }
        if bytes[head::VERSION] != VERSION {
            return Err("a change is of another version; use the build that wrote it");
        }
        if crc32c(&bytes[..end]) != u32_at(bytes, end) {
            return Err("the checksum of a change is wrong; restore it from elsewhere");
        }
        let profile = match bytes[head::PROFILE] {
            0 => Profile::Lip,
            1 => Profile::Nim,
            _ => return Err("a change is of an unknown profile; use a newer build"),
        };
        let flags = bytes[head::FLAGS];
        if flags & !(BASE | JOINED) != 0 || bytes[head::RESERVED] != 0 {
            return Err("a change has unknown flags; use a newer build");
        }
        let mut entries = Vec::new();
        let mut rest = &bytes[head::LEN..end];
        while !rest.is_empty() {
            let Some((entry, others)) = Entry::read(rest) else {
                return Err("an entry of a change makes no sense; restore it from elsewhere");
            };
            entries.push(entry);
            rest = others;
        }
        Ok(Self {
            profile,
            base: flags & BASE != 0,
            number: u64_at(bytes, head::NUMBER),
            scalars: Scalars {
                lamport: u64_at(bytes, head::LAMPORT),
                horizon: u64_at(bytes, head::HORIZON),
                delivered: u64_at(bytes, head::DELIVERED),
                confirmed: u64_at(bytes, head::CONFIRMED),
                joined: flags & JOINED != 0,
            },
            entries,
        })
    }
}

/// One message of a loaded channel.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) tag: Tag,
    pub(crate) flags: u8,
    pub(crate) attempts: u8,
    pub(crate) lamport: u64,
    pub(crate) number: u64,
    pub(crate) hint: Vec<u8>,
    pub(crate) body: Vec<u8>,
    /// When it became what it is, among all entries.
    pub(crate) since: u64,
}

/// A channel as its changes leave it.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) scalars: Scalars,
    pub(crate) number: u64,
    pub(crate) items: HashMap<Vec<u8>, Item>,
    clock: u64,
}

impl Loaded {
    /// The bit of an item's flags that says it was delivered.
    pub(crate) const DELIVERED: u8 = 1;

    /// Adds an item behind all others; one of the same id keeps its place.
    pub(crate) fn put(&mut self, id: &[u8], item: Item) {
        self.clock += 1;
        let since = self.items.get(id).map_or(self.clock, |item| item.since);
        self.items.insert(id.to_vec(), Item { since, ..item });
    }

    /// Applies changes, which must be of `profile`, in their order (C2).
    pub(crate) fn read<'a>(
        profile: Profile,
        changes: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Self, &'static str> {
        let mut loaded = Self::default();
        for bytes in changes {
            let change = ReadChange::read(bytes)?;
            if change.profile != profile {
                return Err("it is of the other profile; open it with that one");
            }
            if change.number <= loaded.number {
                return Err("its changes are out of order; give them as they were saved");
            }
            if loaded.number == 0 && !change.base {
                return Err("its first change is no base; give all that was saved");
            }
            loaded.apply(&change);
        }
        Ok(loaded)
    }

    fn apply(&mut self, change: &ReadChange<'_>) {
        if change.base {
            self.items.clear();
        }
        self.number = change.number;
        self.scalars = change.scalars;
        for entry in &change.entries {
            self.clock += 1;
            match entry.tag {
                Tag::Logged | Tag::Buffered => {
                    let item = Item {
                        tag: entry.tag,
                        flags: entry.flags,
                        attempts: entry.attempts,
                        lamport: entry.lamport,
                        number: entry.number,
                        hint: entry.hint.to_vec(),
                        body: entry.body.to_vec(),
                        since: self.clock,
                    };
                    self.items.insert(entry.id.to_vec(), item);
                }
                Tag::Tombstone => self.bury(entry),
                Tag::Forgotten => {
                    self.items.remove(entry.id);
                }
                Tag::Settled => {
                    if let Some(item) = self.items.get_mut(entry.id) {
                        item.flags &= !UNACKNOWLEDGED;
                    }
                }
            }
        }
    }

    /// A message leaves the log. Its body stays as long as somebody may need it: what was not
    /// confirmed comes again, what was not acknowledged is sent again.
    fn bury(&mut self, entry: &Entry<'_>) {
        let clock = self.clock;
        let item = self.items.entry(entry.id.to_vec()).or_insert_with(|| Item {
            tag: Tag::Tombstone,
            flags: entry.flags,
            attempts: 0,
            lamport: entry.lamport,
            number: 0,
            hint: Vec::new(),
            body: Vec::new(),
            since: clock,
        });
        item.since = clock;
        if item.tag == Tag::Logged {
            item.flags |= EVICTED;
        } else {
            item.tag = Tag::Tombstone;
            item.flags = entry.flags;
            item.lamport = entry.lamport;
            item.body = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CRC_LEN, head, item};

    /// The rows of the table below a heading of the format document: where, how long, what.
    fn table(heading: &str) -> Vec<(usize, usize, String)> {
        let text = include_str!("../../../../docs/format/sds.md");
        let (_, section) = text.split_once(&format!("## {heading}\n")).unwrap();
        let section = section.split("\n## ").next().unwrap();
        let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
        rows.map(|row| {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            (cells[0].parse().unwrap(), cells[1].parse().unwrap(), cells[2].to_owned())
        })
        .collect()
    }

    fn compare(heading: &str, code: &[(usize, &str)], end: usize) {
        let ends = code[1..].iter().map(|(at, _)| *at).chain([end]);
        let code: Vec<(usize, usize, String)> = code
            .iter()
            .zip(ends)
            .map(|((at, name), end)| (*at, end - at, (*name).to_owned()))
            .collect();
        assert_eq!(table(heading), code, "{heading}");
    }

    #[test]
    fn the_tables_of_saved_changes_are_those_of_the_code() {
        let header = [
            (head::MAGIC, "magic"),
            (head::VERSION, "version"),
            (head::PROFILE, "profile"),
            (head::FLAGS, "flags"),
            (head::RESERVED, "reserved"),
            (head::NUMBER, "number"),
            (head::LAMPORT, "lamport"),
            (head::HORIZON, "horizon"),
            (head::DELIVERED, "delivered"),
            (head::CONFIRMED, "confirmed"),
        ];
        compare("Changes: header", &header, head::LEN);
        let entry = [
            (item::TAG, "tag"),
            (item::FLAGS, "flags"),
            (item::ATTEMPTS, "attempts"),
            (item::RESERVED, "reserved"),
            (item::LAMPORT, "lamport"),
            (item::NUMBER, "number"),
            (item::ID_LEN, "id length"),
            (item::HINT_LEN, "hint length"),
            (item::BODY_LEN, "body length"),
        ];
        compare("Changes: entries", &entry, item::LEN);
        assert_eq!(CRC_LEN, 4);
    }

    #[cfg(feature = "pool")]
    #[test]
    fn the_table_of_blocks_is_that_of_the_code() {
        use crate::persist::blocks::at;
        let block = [
            (at::MAGIC, "magic"),
            (at::VERSION, "version"),
            (at::KIND, "kind"),
            (at::NAME_LEN, "name length"),
            (at::NUMBER, "number"),
            (at::PART, "part"),
            (at::PARTS, "parts"),
            (at::LEN, "length"),
            (at::CRC, "checksum"),
        ];
        compare("Blocks of a pool", &block, at::END);
    }

    #[cfg(feature = "store")]
    #[test]
    fn the_tables_of_records_of_a_store_are_those_of_the_code() {
        use crate::persist::store::{VALUE_LEN, key, value};
        let keys = [(key::CHANNEL, "channel"), (key::NUMBER, "number"), (key::PART, "part")];
        compare("Records of a store: keys", &keys, key::LEN);
        let values = [
            (value::PARTS, "parts"),
            (value::LENGTH, "length"),
            (value::NAME_LEN, "name length"),
            (value::KIND, "kind"),
        ];
        compare("Records of a store: values", &values, value::LEN);
        assert_eq!((key::LEN, VALUE_LEN), (28, 2048));
    }
}
