//! Why a handshake was refused.

use crate::{frame::FrameError, handshake::wire::REFUSAL_LEN};
use std::ops::RangeInclusive;

/// Why a handshake was refused, as both ends are told.
///
/// ```
/// use mainstay_channel::handshake::Reason;
/// assert!(Reason::Cluster.to_string().contains("cluster"));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// There is no version that both speak.
    #[error(
        "one end speaks versions {} to {} of the protocol, the other {} to {}; update the older one",
        ours.0, ours.1, theirs.0, theirs.1
    )]
    Version {
        /// Lowest and highest version of this end.
        ours: (u16, u16),
        /// Lowest and highest version of the peer.
        theirs: (u16, u16),
    },
    /// The two ends belong to different clusters.
    #[error("the two ends are of different clusters; give both the same cluster id")]
    Cluster,
    /// The two ends want different things of the channel.
    #[error(
        "the two ends want the channel for different purposes; check the port that was dialled"
    )]
    Purpose,
    /// One end requires what the other does not offer.
    #[error("one end requires a feature that the other does not offer; update the older one")]
    Features,
    /// The proof does not hold.
    #[error("the proof of the shared secret does not hold; give both ends the same secret")]
    Proof,
    /// One end has a secret and the other has none.
    #[error("one end wants a shared secret proved and the other has none; give both the same")]
    ProofMode,
    /// Both ends have the same node id.
    #[error("both ends say they are the same node; give each node an id of its own")]
    SameNode,
    /// This is not the node that was dialled.
    #[error("this is not the node that was to be dialled; check its address")]
    OtherNode,
    /// The certificate is not that of the node.
    #[error(
        "the certificate is not that of the node that it was shown for; make one for this node"
    )]
    Identity,
    /// Too many are in the middle of their handshakes.
    #[error("the listener has no room for another handshake; try again later")]
    Busy,
    /// It took too long.
    #[error("the handshake took too long; check the load of both ends and of the network")]
    Late,
    /// What came was no part of a handshake.
    #[error("the peer does not follow the protocol; check that a mainstay node is at its end")]
    Malformed,
    /// The peer gave a reason that this version does not know.
    #[error("the peer gave reason {0}, which this version does not know; look into its log")]
    Unknown(u16),
}

impl Reason {
    fn code(self) -> u16 {
        match self {
            Self::Version { .. } => 1,
            Self::Cluster => 2,
            Self::Purpose => 3,
            Self::Features => 4,
            Self::Proof => 5,
            Self::ProofMode => 6,
            Self::SameNode => 7,
            Self::OtherNode => 8,
            Self::Identity => 9,
            Self::Busy => 10,
            Self::Late => 11,
            Self::Malformed => 12,
            Self::Unknown(code) => code,
        }
    }

    /// The payload of a refusal: the code, and the versions of whoever refuses.
    pub(super) fn encode(self, versions: &RangeInclusive<u16>) -> [u8; REFUSAL_LEN] {
        let mut payload = [0; REFUSAL_LEN];
        payload[..2].copy_from_slice(&self.code().to_le_bytes());
        payload[2..4].copy_from_slice(&versions.start().to_le_bytes());
        payload[4..6].copy_from_slice(&versions.end().to_le_bytes());
        payload
    }

    /// Of a refusal that came after this end had taken the handshake for done.
    #[cfg(feature = "tcp")]
    pub(crate) fn of_peer(payload: &[u8]) -> Self {
        Self::decode(payload, &super::VERSIONS)
    }

    pub(super) fn decode(payload: &[u8], versions: &RangeInclusive<u16>) -> Self {
        let [c0, c1, a0, a1, b0, b1, _, _] = *payload else { return Self::Malformed };
        match u16::from_le_bytes([c0, c1]) {
            1 => Self::Version {
                ours: (*versions.start(), *versions.end()),
                theirs: (u16::from_le_bytes([a0, a1]), u16::from_le_bytes([b0, b1])),
            },
            2 => Self::Cluster,
            3 => Self::Purpose,
            4 => Self::Features,
            5 => Self::Proof,
            6 => Self::ProofMode,
            7 => Self::SameNode,
            8 => Self::OtherNode,
            9 => Self::Identity,
            10 => Self::Busy,
            11 => Self::Late,
            12 => Self::Malformed,
            code => Self::Unknown(code),
        }
    }
}

/// What a peer did instead of a handshake.
///
/// Example: see [`crate::Error`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// It does not speak in frames.
    #[error("the peer does not speak this protocol ({0})")]
    Frame(#[from] FrameError),
    /// It hung up.
    #[error("the peer hung up in the middle of the handshake")]
    HungUp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_survives_the_wire_and_a_version_names_both_ranges() {
        let versions = 3..=5;
        for code in 0..=13_u16 {
            let mut payload = [0; REFUSAL_LEN];
            payload[..2].copy_from_slice(&code.to_le_bytes());
            let reason = Reason::decode(&payload, &versions);
            assert_eq!(reason.code(), code);
            assert_eq!(matches!(reason, Reason::Unknown(_)), !(1..=12).contains(&code));
        }
        let sent = Reason::Version { ours: (3, 5), theirs: (1, 2) }.encode(&versions);
        let heard = Reason::decode(&sent, &(1..=2));
        assert_eq!(heard, Reason::Version { ours: (1, 2), theirs: (3, 5) });
    }
}
