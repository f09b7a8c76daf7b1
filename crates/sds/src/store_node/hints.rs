//! By which hints the messages of a channel are found (N3).

use std::collections::{HashMap, VecDeque};

/// How many of the oldest hints are looked at for one that means nothing, when one has to go.
const SECOND_CHANCES: usize = 8;

/// Whose word it is that a hint means a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// The application's.
    Own,
    /// Somebody's, and there is a record of it.
    Kept,
    /// Somebody's.
    Learned,
}

/// An id, or a hint.
pub(super) type Name = Box<[u8]>;

/// The hints of one channel.
#[derive(Debug)]
pub(super) struct Hints {
    by_hint: HashMap<Name, (Name, Word)>,
    /// Those that are no word of the application's, oldest first; and how many there may be.
    learned: VecDeque<Name>,
    max: usize,
    /// How many records there are of what was learned: they are never removed.
    kept: usize,
}

impl Hints {
    pub(super) fn new(max: usize) -> Self {
        Self { by_hint: HashMap::new(), learned: VecDeque::new(), max, kept: 0 }
    }

    pub(super) fn get(&self, hint: &[u8]) -> Option<&[u8]> {
        self.by_hint.get(hint).map(|(id, _)| &**id)
    }

    /// Notes that a hint means a message. Whether that is news.
    pub(super) fn note(
        &mut self,
        hint: &[u8],
        id: &[u8],
        word: Word,
        is_here: impl Fn(&[u8]) -> bool,
    ) -> bool {
        self.kept += usize::from(word == Word::Kept);
        if let Some((known, whose)) = self.by_hint.get_mut(hint) {
            let is_news = **known != *id;
            let stays = *whose == Word::Own || is_here(known);
            // What strangers say too is the application's word from now on.
            if word != Word::Own && (stays || !is_news) {
                return false;
            }
            if word == Word::Own && *whose != Word::Own {
                self.learned.retain(|other| **other != *hint);
            }
            (*known, *whose) = (id.into(), word);
            return is_news;
        }
        if word != Word::Own {
            if self.learned.len() >= self.max {
                self.drop_one(&is_here);
            }
            if self.learned.len() >= self.max {
                return false;
            }
            self.learned.push_back(hint.into());
        }
        self.by_hint.insert(hint.into(), (id.into(), word));
        true
    }

    /// Makes room: an old one that means no message that is here, or else the oldest.
    fn drop_one(&mut self, is_here: &impl Fn(&[u8]) -> bool) {
        for _ in 0..SECOND_CHANCES.min(self.learned.len()) {
            let Some(hint) = self.learned.pop_front() else { return };
            if !self.by_hint.get(&hint).is_some_and(|(id, _)| is_here(id)) {
                self.by_hint.remove(&hint);
                return;
            }
            self.learned.push_back(hint);
        }
        if let Some(hint) = self.learned.pop_front() {
            self.by_hint.remove(&hint);
        }
    }

    /// Whether there may be another record of something learned, which has to be of a message that
    /// is here; it counts from then on (N2).
    pub(super) fn may_keep(&mut self, is_here: bool) -> bool {
        let may = is_here && self.kept < self.max;
        self.kept += usize::from(may);
        may
    }
}

/// A record of a hint: the three names, the first two with their lengths before them.
pub(super) struct Hint<'a> {
    pub(super) channel: &'a [u8],
    pub(super) id: &'a [u8],
    pub(super) hint: &'a [u8],
}

impl<'a> Hint<'a> {
    pub(super) fn encode(&self, kind: u8) -> Vec<u8> {
        let mut out = vec![kind];
        for name in [self.channel, self.id] {
            out.extend_from_slice(&(name.len() as u16).to_le_bytes());
            out.extend_from_slice(name);
        }
        out.extend_from_slice(self.hint);
        out
    }

    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let name = |bytes: &'a [u8]| {
            let (len, rest) = bytes.split_first_chunk::<2>()?;
            rest.split_at_checked(u16::from_le_bytes(*len) as usize)
        };
        let (channel, rest) = name(bytes)?;
        let (id, hint) = name(rest)?;
        Some(Self { channel, id, hint })
    }
}
