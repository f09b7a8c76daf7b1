//! Which keys are meant, in the order of their bytes.

use std::ops::{Bound, RangeBounds};

/// From which key on, and up to which.
pub(crate) type Ends = (Bound<Box<[u8]>>, Bound<Box<[u8]>>);

/// Keys from one on and before another, compared byte by byte from the first on. The ends may have
/// any length: `b` is before all keys that begin with it.
///
/// Each method narrows what there was before.
///
/// ```
/// use mainstay_store::Span;
/// let span = Span::ALL.prefix(b"49").from(b"4930").before(b"4940");
/// assert!(span.has(b"4930") && span.has(b"4939"));
/// assert!(!span.has(b"4929") && !span.has(b"4940"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    from: Vec<u8>,
    /// None: up to the last.
    to: Option<Vec<u8>>,
}

impl Span {
    /// All keys.
    ///
    /// Example: see [`Span`].
    pub const ALL: Self = Self { from: Vec::new(), to: None };

    /// Only this key, and those after it.
    ///
    /// Example: see [`Span`].
    #[must_use]
    pub fn from(self, key: &[u8]) -> Self {
        self.narrow(key.to_vec(), None)
    }

    /// Only those before this key.
    ///
    /// Example: see [`Span`].
    #[must_use]
    pub fn before(self, key: &[u8]) -> Self {
        self.narrow(Vec::new(), Some(key.to_vec()))
    }

    /// Only this key.
    ///
    /// ```
    /// use mainstay_store::Span;
    /// let span = Span::ALL.only(b"49");
    /// assert!(span.has(b"49") && !span.has(b"490") && !span.has(b"48"));
    /// ```
    #[must_use]
    pub fn only(self, key: &[u8]) -> Self {
        self.narrow(key.to_vec(), Some([key, &[0]].concat()))
    }

    /// Only those that begin with these bytes.
    ///
    /// Example: see [`Span`].
    #[must_use]
    pub fn prefix(self, prefix: &[u8]) -> Self {
        // What comes next is shorter by the bytes that cannot be higher; nothing does if all are.
        let counts = prefix.iter().rposition(|byte| *byte < u8::MAX);
        let next = counts.map(|last| {
            let mut next = prefix[..=last].to_vec();
            next[last] += 1;
            next
        });
        self.narrow(prefix.to_vec(), next)
    }

    /// Is this key one of them?
    ///
    /// Example: see [`Span`].
    #[must_use]
    pub fn has(&self, key: &[u8]) -> bool {
        key >= &self.from[..] && self.to.as_deref().is_none_or(|to| key < to)
    }

    /// Between keys that are nothing but their bytes.
    pub(crate) fn between<K>(bounds: &impl RangeBounds<K>, bytes: impl Fn(&K) -> Vec<u8>) -> Self {
        // Nothing is between a key and the same with a zero behind it.
        let behind = |key: &K| [bytes(key), vec![0]].concat();
        let from = match bounds.start_bound() {
            Bound::Included(key) => bytes(key),
            Bound::Excluded(key) => behind(key),
            Bound::Unbounded => Vec::new(),
        };
        let to = match bounds.end_bound() {
            Bound::Included(key) => Some(behind(key)),
            Bound::Excluded(key) => Some(bytes(key)),
            Bound::Unbounded => None,
        };
        Self { from, to }
    }

    fn narrow(mut self, from: Vec<u8>, to: Option<Vec<u8>>) -> Self {
        self.from = self.from.max(from);
        self.to = match (self.to, to) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        self
    }

    /// The first of all keys, if so many bits of all of them are the same.
    pub(crate) fn start_of_all(&self, bits: u32) -> Option<&[u8]> {
        let mut next = self.from.get(..bits.div_ceil(8) as usize)?.to_vec();
        // The least that begins otherwise: one more in the last of these bits.
        let one = 0x80 >> (bits.wrapping_sub(1) % 8);
        let mut carry = one;
        for (behind, byte) in next.iter_mut().rev().enumerate() {
            let counts = if behind == 0 { !(one - 1) } else { u16::MAX };
            let sum = (u16::from(*byte) & counts) + carry;
            (*byte, carry) = (sum as u8, sum >> 8);
        }
        // A key that is shorter comes before the same with zeros.
        next.truncate(next.iter().rposition(|byte| *byte > 0).map_or(0, |last| last + 1));
        let is_all = carry > 0 || self.to.as_ref().is_some_and(|to| *to <= next);
        is_all.then_some(&self.from)
    }

    /// The same for keys of any length.
    pub(crate) fn ends(&self) -> Ends {
        let to = self.to.as_deref().map(Box::from);
        (Bound::Included((&*self.from).into()), to.map_or(Bound::Unbounded, Bound::Excluded))
    }

    /// The same for keys of one length: from which one on, and up to which.
    pub(crate) fn bounds(&self, len: usize) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
        let fitted = |end: &[u8]| {
            let mut end = end.to_vec();
            end.resize(len, 0);
            end
        };
        let is_longer = |end: &[u8]| end.len() > len;
        let from = match &self.from {
            from if is_longer(from) => Bound::Excluded(fitted(from)),
            from => Bound::Included(fitted(from)),
        };
        let to = match &self.to {
            None => Bound::Unbounded,
            Some(to) if is_longer(to) => Bound::Included(fitted(to)),
            Some(to) => Bound::Excluded(fitted(to)),
        };
        (from, to)
    }
}

impl Default for Span {
    fn default() -> Self {
        Self::ALL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_of_the_highest_bytes_ends_with_the_last_key() {
        assert!(Span::ALL.prefix(&[255, 255]).has(&[255, 255, 255]));
        assert!(!Span::ALL.prefix(&[255, 255]).has(&[255, 254, 255]));
        assert!(!Span::ALL.prefix(&[7, 255]).has(&[8, 0]));
        assert!(Span::ALL.prefix(&[7, 255]).has(&[7, 255, 9]));
        assert_eq!(Span::ALL.prefix(b""), Span::ALL);
    }

    #[test]
    fn ends_of_any_length_choose_the_same_keys_as_their_bytes_do() {
        let ends: [&[u8]; 9] = [
            b"",
            &[0],
            &[1],
            &[1, 0],
            &[1, 0, 0],
            &[1, 0, 1],
            &[1, 2],
            &[1, 255, 9],
            &[255, 255, 0],
        ];
        let mut chosen = 0;
        for from in ends {
            for to in ends {
                let span = Span::ALL.from(from).before(to);
                let bounds = span.bounds(2);
                for key in [[0, 0], [1, 0], [1, 1], [1, 2], [1, 255], [2, 0], [255, 255]] {
                    assert_eq!(span.has(&key), from <= &key[..] && &key[..] < to);
                    assert_eq!(span.has(&key), bounds.contains(&key.to_vec()), "{span:?} {key:?}");
                    chosen += usize::from(span.has(&key));
                }
            }
        }
        assert!(chosen > 20, "{chosen}");
    }
}
