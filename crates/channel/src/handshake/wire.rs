//! The payloads of the handshake's frames, as bytes. `docs/format/wire.md` has the same tables.

use crate::{ClusterId, NodeId, frame::HEADER_LEN, handshake::Reason, limits::PURPOSE_LEN_MAX};
use std::fmt;
use uuid::Uuid;

/// The first eight bytes of a hello and of a challenge.
const MAGIC: [u8; 8] = *b"MSTYCHAN";

/// Longer than all that an acceptor can answer: see H2.
pub(super) const HELLO_LEN: usize = 192;
pub(super) const CHALLENGE_LEN: usize = 48;
pub(super) const WELCOME_LEN: usize = 56;
pub(super) const REFUSAL_LEN: usize = 8;
const PURPOSE_AT: usize = 121;

const _: () = assert!(PURPOSE_AT + PURPOSE_LEN_MAX + 7 == HELLO_LEN);
// H2: what a hello earns, with its header, pays for a challenge, a welcome, and a refusal as well,
// each with a header: so whoever has said a whole hello learns why it is refused (H4).
const _: () =
    assert!(HEADER_LEN + HELLO_LEN >= 3 * HEADER_LEN + CHALLENGE_LEN + WELCOME_LEN + REFUSAL_LEN);

/// What a channel is for: 1 to 64 bytes of letters, digits and `.-_/`.
///
/// ```
/// use mainstay_channel::handshake::Purpose;
/// assert_eq!(Purpose::new("calls/stream")?.as_str(), "calls/stream");
/// assert!(Purpose::new("two words").is_err());
/// # Ok::<(), mainstay_channel::handshake::PurposeError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Purpose(String);

/// A text that is no purpose.
///
/// Example: see [`Purpose`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{text:?} is no purpose of a channel; give it 1 to {PURPOSE_LEN_MAX} letters, digits, '.', '-', \
     '_' or '/'"
)]
pub struct PurposeError {
    /// The text.
    pub text: String,
}

impl Purpose {
    /// Checks `text` against the rules.
    ///
    /// Example: see [`Purpose`].
    ///
    /// # Errors
    /// `PurposeError`, with the text.
    pub fn new(text: &str) -> Result<Self, PurposeError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_/".contains(&byte);
        if (1..=PURPOSE_LEN_MAX).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(PurposeError { text: text.to_owned() })
        }
    }

    /// The purpose as text.
    ///
    /// Example: see [`Purpose`].
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

pub(super) struct Hello {
    pub(super) version_min: u16,
    pub(super) version_max: u16,
    pub(super) has_secret: bool,
    pub(super) node: NodeId,
    pub(super) cluster: ClusterId,
    pub(super) features_offered: u64,
    pub(super) features_required: u64,
    /// Zero when any node will do.
    pub(super) expected: NodeId,
    pub(super) nonce: [u8; 32],
    pub(super) message_len_max: u32,
    pub(super) purpose: Purpose,
}

impl Hello {
    pub(super) fn encode(&self) -> [u8; HELLO_LEN] {
        let mut bytes = Writer::<HELLO_LEN>::new();
        bytes.put(0, &MAGIC);
        bytes.put(8, &self.version_min.to_le_bytes());
        bytes.put(10, &self.version_max.to_le_bytes());
        bytes.put(12, &[u8::from(self.has_secret)]);
        bytes.put(16, &self.node.0.to_le_bytes());
        bytes.put(24, self.cluster.0.as_bytes());
        bytes.put(40, &self.features_offered.to_le_bytes());
        bytes.put(48, &self.features_required.to_le_bytes());
        bytes.put(56, &self.expected.0.to_le_bytes());
        bytes.put(64, &self.nonce);
        bytes.put(96, &self.message_len_max.to_le_bytes());
        let purpose = self.purpose.0.as_bytes();
        bytes.put(120, &[u8::try_from(purpose.len()).expect("a purpose has at most 64 bytes")]);
        bytes.put(PURPOSE_AT, purpose);
        bytes.0
    }

    pub(super) fn decode(payload: &[u8]) -> Result<Self, Reason> {
        let bytes: &[u8; HELLO_LEN] = payload.try_into().map_err(|_| Reason::Malformed)?;
        if take(bytes, 0) != MAGIC {
            return Err(Reason::Malformed);
        }
        let purpose_len = usize::from(bytes[120]);
        let all = &bytes[PURPOSE_AT..PURPOSE_AT + PURPOSE_LEN_MAX];
        let text = all.get(..purpose_len).and_then(|text| std::str::from_utf8(text).ok());
        let purpose = text.and_then(|text| Purpose::new(text).ok()).ok_or(Reason::Malformed)?;
        let hello = Self {
            version_min: u16::from_le_bytes(take(bytes, 8)),
            version_max: u16::from_le_bytes(take(bytes, 10)),
            has_secret: bytes[12] == 1,
            node: NodeId(u64::from_le_bytes(take(bytes, 16))),
            cluster: ClusterId(Uuid::from_bytes(take(bytes, 24))),
            features_offered: u64::from_le_bytes(take(bytes, 40)),
            features_required: u64::from_le_bytes(take(bytes, 48)),
            expected: NodeId(u64::from_le_bytes(take(bytes, 56))),
            nonce: take(bytes, 64),
            message_len_max: u32::from_le_bytes(take(bytes, 96)),
            purpose,
        };
        // What a later version adds may stand in the reserved bytes of a later version only.
        let is_known = hello.version_max <= *super::VERSIONS.end();
        if is_known && hello.encode() != *bytes {
            return Err(Reason::Malformed);
        }
        Ok(hello)
    }
}

pub(super) struct Challenge {
    pub(super) version: u16,
    pub(super) nonce: [u8; 32],
}

impl Challenge {
    pub(super) fn encode(&self) -> [u8; CHALLENGE_LEN] {
        let mut bytes = Writer::<CHALLENGE_LEN>::new();
        bytes.put(0, &MAGIC);
        bytes.put(8, &self.version.to_le_bytes());
        bytes.put(16, &self.nonce);
        bytes.0
    }

    pub(super) fn decode(payload: &[u8]) -> Result<Self, Reason> {
        let bytes: &[u8; CHALLENGE_LEN] = payload.try_into().map_err(|_| Reason::Malformed)?;
        let challenge =
            Self { version: u16::from_le_bytes(take(bytes, 8)), nonce: take(bytes, 16) };
        if challenge.encode() == *bytes { Ok(challenge) } else { Err(Reason::Malformed) }
    }
}

pub(super) struct Welcome {
    pub(super) node: NodeId,
    pub(super) features: u64,
    pub(super) message_len_max: u32,
    pub(super) proof: [u8; 32],
}

impl Welcome {
    /// What the proof is over, beside what was said before.
    pub(super) fn covered(&self) -> [u8; 24] {
        take(&self.encode(), 0)
    }

    pub(super) fn encode(&self) -> [u8; WELCOME_LEN] {
        let mut bytes = Writer::<WELCOME_LEN>::new();
        bytes.put(0, &self.node.0.to_le_bytes());
        bytes.put(8, &self.features.to_le_bytes());
        bytes.put(16, &self.message_len_max.to_le_bytes());
        bytes.put(24, &self.proof);
        bytes.0
    }

    pub(super) fn decode(payload: &[u8]) -> Result<Self, Reason> {
        let bytes: &[u8; WELCOME_LEN] = payload.try_into().map_err(|_| Reason::Malformed)?;
        let welcome = Self {
            node: NodeId(u64::from_le_bytes(take(bytes, 0))),
            features: u64::from_le_bytes(take(bytes, 8)),
            message_len_max: u32::from_le_bytes(take(bytes, 16)),
            proof: take(bytes, 24),
        };
        if welcome.encode() == *bytes { Ok(welcome) } else { Err(Reason::Malformed) }
    }
}

/// Fields at their offsets, zeros between them.
struct Writer<const LEN: usize>([u8; LEN]);

impl<const LEN: usize> Writer<LEN> {
    fn new() -> Self {
        Self([0; LEN])
    }

    fn put(&mut self, at: usize, field: &[u8]) {
        self.0[at..at + field.len()].copy_from_slice(field);
    }
}

/// The `N` bytes at `at`, which is a constant within the array wherever this is called.
fn take<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::tests::table;

    #[test]
    fn a_purpose_has_1_to_64_bytes_of_plain_characters() {
        assert!(Purpose::new("").is_err());
        assert!(Purpose::new(&"p".repeat(64)).is_ok());
        assert!(Purpose::new(&"p".repeat(65)).is_err());
        assert!(Purpose::new("a b").is_err() && Purpose::new("é").is_err());
    }

    #[test]
    fn the_payloads_have_the_bytes_of_the_format_document() {
        let document = include_str!("../../../../docs/format/wire.md");
        for (heading, len) in [
            ("### Hello", HELLO_LEN),
            ("### Challenge", CHALLENGE_LEN),
            ("### Proof", 32),
            ("### Welcome", WELCOME_LEN),
            ("### Refusal", REFUSAL_LEN),
        ] {
            let rows = table(document, heading);
            let mut end = 0;
            for (at, size) in &rows {
                assert_eq!(*at, end, "{heading}: no gap, no overlap");
                end += size;
            }
            assert_eq!(end, len, "{heading}");
        }
        let hello = Hello {
            version_min: 0x0101,
            version_max: 0x0202,
            has_secret: true,
            node: NodeId(0x0404_0404_0404_0404),
            cluster: ClusterId(Uuid::from_bytes([5; 16])),
            features_offered: 0x0606_0606_0606_0606,
            features_required: 0x0707_0707_0707_0707,
            expected: NodeId(0x0808_0808_0808_0808),
            nonce: [9; 32],
            message_len_max: 0x0A0A_0A0A,
            purpose: Purpose::new("calls").unwrap(),
        }
        .encode();
        let at = |row: usize| {
            let (from, len) = table(document, "### Hello")[row];
            &hello[from..from + len]
        };
        assert_eq!(at(0), MAGIC);
        assert_eq!(at(1), [1; 2]);
        assert_eq!(at(2), [2; 2]);
        assert_eq!(at(3), [1]);
        assert_eq!(at(4), [0; 3]);
        assert_eq!(at(5), [4; 8]);
        assert_eq!(at(6), [5; 16]);
        assert_eq!(at(7), [6; 8]);
        assert_eq!(at(8), [7; 8]);
        assert_eq!(at(9), [8; 8]);
        assert_eq!(at(10), [9; 32]);
        assert_eq!(at(11), [10; 4]);
        assert_eq!(at(12), [0; 20]);
        assert_eq!(at(13), [5]);
        assert_eq!(&at(14)[..6], b"calls\0");
        assert_eq!(at(15), [0; 7]);
    }

    #[test]
    fn a_hello_of_a_known_version_with_anything_in_its_reserved_bytes_is_refused() {
        let mut hello = Hello {
            version_min: 1,
            version_max: 1,
            has_secret: false,
            node: NodeId(1),
            cluster: ClusterId::default(),
            features_offered: 0,
            features_required: 0,
            expected: NodeId(0),
            nonce: [9; 32],
            message_len_max: 1,
            purpose: Purpose::new("calls").unwrap(),
        }
        .encode();
        assert!(Hello::decode(&hello).is_ok());
        for at in [13, 101, 130, 191] {
            hello[at] = 1;
            assert_eq!(Hello::decode(&hello).err(), Some(Reason::Malformed), "byte {at}");
            hello[at] = 0;
        }
        hello[10] = 9;
        hello[191] = 1;
        assert!(Hello::decode(&hello).is_ok(), "what a later version adds is not our concern");
        assert!(Hello::decode(&hello[1..]).is_err());
    }
}
