//! Who is at the other end, and how that is known.

use crate::{Error, Result, limits};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::{fmt, net::SocketAddr, str::FromStr};
use uuid::Uuid;

/// A node of a cluster. Zero is nobody.
///
/// ```
/// use mainstay_channel::NodeId;
/// assert_eq!(NodeId(7).to_string(), "7");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which cluster a node belongs to; nodes of different clusters never talk.
///
/// ```
/// use mainstay_channel::ClusterId;
/// let cluster: ClusterId = "6f8a4b1e-0d0c-4a3e-9a51-3f2d3b7f9c10".parse()?;
/// assert_eq!(cluster.to_string(), "6f8a4b1e-0d0c-4a3e-9a51-3f2d3b7f9c10");
/// assert!("calls".parse::<ClusterId>().is_err());
/// # Ok::<(), mainstay_channel::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct ClusterId(pub Uuid);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ClusterId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Uuid::parse_str(text).map(Self).map_err(|_| Error::ClusterId { text: text.to_owned() })
    }
}

/// What the nodes of a cluster know and nobody else does. Never printed, never sent.
///
/// ```
/// use mainstay_channel::{Error, Secret};
/// assert!(Secret::new(*b"0123456789abcdef").is_ok());
/// assert!(matches!(Secret::new(*b"guess me"), Err(Error::Secret { len: 8, .. })));
/// ```
#[derive(Clone)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// A secret of 16 to 1,024 bytes. Take random ones: a phrase can be guessed.
    ///
    /// Example: see [`Secret`].
    ///
    /// # Errors
    /// `Secret` when it is too short or too long.
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self> {
        let bytes = bytes.as_ref();
        let (min, max) = (limits::SECRET_LEN_MIN, limits::SECRET_LEN_MAX);
        if !(min..=max).contains(&bytes.len()) {
            return Err(Error::Secret { len: bytes.len(), min, max });
        }
        Ok(Self(bytes.into()))
    }

    /// HMAC-SHA-256 over `parts`, one behind the other. Source: RFC 2104.
    pub(crate) fn prove(&self, parts: &[&[u8]]) -> [u8; 32] {
        self.mac(parts).finalize().into_bytes().into()
    }

    /// Whether `proof` is that of `parts`, compared in constant time.
    pub(crate) fn is_proof(&self, proof: &[u8], parts: &[&[u8]]) -> bool {
        self.mac(parts).verify_slice(proof).is_ok()
    }

    fn mac(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes any length of key");
        for part in parts {
            mac.update(part);
        }
        mac
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

/// How it is known who the peer is.
///
/// Example: see [`Peer`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Proof {
    /// It is in this process.
    SameProcess,
    /// It could open the shared memory: the right to the file, or a descriptor that was passed.
    SharedMemory,
    /// It knows the cluster's secret.
    SharedSecret,
    /// Its certificate says so.
    Certificate,
    /// Nothing proves it: for tests, and networks that nobody else can reach.
    Nothing,
}

/// Over what a channel runs.
///
/// Example: see [`Peer`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Transport {
    /// Two queues in this process.
    Memory,
    /// Two rings in memory shared by two processes.
    SharedMemory,
    /// TCP.
    Tcp,
    /// TLS 1.3 over TCP.
    Tls,
    /// A stream of a QUIC connection.
    Quic,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Memory => "memory",
            Self::SharedMemory => "shm",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Quic => "quic",
        })
    }
}

/// Who is at the other end.
///
/// ```
/// use mainstay_channel::{Channel, NodeId, Proof, Transport, memory};
/// let group = memory::group(3);
/// let channel = group.channel(0, 2);
/// let peer = channel.peer();
/// assert_eq!((peer.node, peer.proof), (NodeId(2), Proof::SameProcess));
/// assert_eq!(peer.transport, Transport::Memory);
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Peer {
    /// Which node it is.
    pub node: NodeId,
    /// How that is known.
    pub proof: Proof,
    /// Over what the channel runs.
    pub transport: Transport,
    /// Its address, where it has one.
    pub address: Option<SocketAddr>,
    /// What both ends can do, of what they offered in the handshake.
    pub features: u64,
}

impl Peer {
    /// A peer without an address or features, for a transport of one's own.
    ///
    /// ```
    /// use mainstay_channel::{NodeId, Peer, Proof, Transport};
    /// let peer = Peer::new(NodeId(1), Proof::Nothing, Transport::Memory);
    /// assert_eq!(peer.address, None);
    /// ```
    #[must_use]
    pub fn new(node: NodeId, proof: Proof, transport: Transport) -> Self {
        Self { node, proof, transport, address: None, features: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_16_to_1024_bytes_and_is_never_shown() {
        for len in [15, 1_025] {
            assert!(matches!(Secret::new(vec![b'x'; len]), Err(Error::Secret { .. })), "{len}");
        }
        for len in [16, 1_024] {
            let secret = Secret::new(vec![b'x'; len]).unwrap();
            assert!(!format!("{secret:?}").contains("xx"));
        }
    }

    #[test]
    fn the_proof_is_hmac_sha_256_as_in_rfc_4231() {
        // Test case 6: a key of 131 bytes of 0xaa.
        let secret = Secret::new([0xAA; 131]).unwrap();
        let text = b"Test Using Larger Than Block-Size Key - Hash Key First";
        let proof = secret.prove(&[&text[..10], &text[10..]]);
        let hex: String = proof.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
        assert!(secret.is_proof(&proof, &[text]));
        assert!(!secret.is_proof(&proof[..31], &[text]));
        assert!(!secret.is_proof(&proof, &[text, b"x"]));
    }
}
