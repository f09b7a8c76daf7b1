//! The handshake: who is there, of which cluster, what for, and is it true?
//!
//! H1. Nobody is told anything about this node before having proved to belong to the cluster,
//!     except whether the offer would be taken.
//! H2. An acceptor never sends more bytes than it has received, and stores at most one frame of
//!     [`HANDSHAKE_LEN_MAX`] bytes.
//! H3. Both ends prove, over fresh random numbers of both and all that was said, that they know the
//!     secret; so nothing that was recorded or reflected is a proof.
//! H4. A refusal has a reason, and both ends learn it; an acceptor that has not received as much as
//!     the refusal costs hangs up without a word (H2).
//! H5. It ends: each end takes at most two frames, and the driver bounds the time.
//!
//! Where TLS proves who is there, the secret may be left out; then the certificate has to name the
//! node that the handshake names.
//!
//! Sans-IO: frames and random numbers go in, frames and an [`Agreement`] come out. The byte tables
//! are in `docs/format/wire.md`; the shape is a challenge and response as in ISO/IEC 9798-4, with
//! HMAC (RFC 2104).

mod reason;
mod wire;

pub use reason::{HandshakeError, Reason};
pub use wire::{Purpose, PurposeError};

use crate::{
    Bytes, ClusterId, NodeId, Secret,
    frame::{Frame, HEADER_LEN, Kind, encode},
    limits::{HANDSHAKE_LEN_MAX, MESSAGE_LEN_MAX},
};
use std::{fmt, ops::RangeInclusive, sync::Arc};
use wire::{Challenge, Hello, Welcome};

/// The versions of the protocol that this crate speaks.
///
/// ```
/// assert!(mainstay_channel::handshake::VERSIONS.contains(&1));
/// ```
pub const VERSIONS: RangeInclusive<u16> = 1..=1;

/// What a node says of itself, and demands of others.
///
/// ```
/// use mainstay_channel::{ClusterId, NodeId, Secret, handshake::{Local, Purpose}};
/// let cluster: ClusterId = "6f8a4b1e-0d0c-4a3e-9a51-3f2d3b7f9c10".parse()?;
/// let local = Local::new(NodeId(1), cluster, Purpose::new("calls")?)
///     .with_secret(Secret::new(*b"0123456789abcdef")?);
/// assert_eq!(local.node, NodeId(1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Local {
    /// Who we are.
    pub node: NodeId,
    /// Where we belong.
    pub cluster: ClusterId,
    /// What the channel is for; both ends must mean the same.
    pub purpose: Purpose,
    /// What we can do: bits that the application gives a meaning.
    pub features_offered: u64,
    /// What the peer must be able to do; part of what is offered.
    pub features_required: u64,
    /// What proves that we belong to the cluster, where TLS does not.
    pub secret: Option<Secret>,
    /// The longest message we take, in bytes.
    pub message_len_max: usize,
    /// The versions we speak.
    pub versions: RangeInclusive<u16>,
}

impl Local {
    /// A node without features, and without a secret.
    ///
    /// Example: see [`Local`].
    #[must_use]
    pub fn new(node: NodeId, cluster: ClusterId, purpose: Purpose) -> Self {
        Self {
            node,
            cluster,
            purpose,
            features_offered: 0,
            features_required: 0,
            secret: None,
            message_len_max: MESSAGE_LEN_MAX,
            versions: VERSIONS,
        }
    }

    /// The same with the cluster's secret.
    ///
    /// Example: see [`Local`].
    #[must_use]
    pub fn with_secret(mut self, secret: Secret) -> Self {
        self.secret = Some(secret);
        self
    }

    /// The same with features; what is required is offered as well.
    ///
    /// ```
    /// # use mainstay_channel::{ClusterId, NodeId, handshake::{Local, Purpose}};
    /// # let local = Local::new(NodeId(1), ClusterId::default(), Purpose::new("calls")?);
    /// let local = local.with_features(0b01, 0b10);
    /// assert_eq!(local.features_offered, 0b11);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_features(mut self, offered: u64, required: u64) -> Self {
        (self.features_offered, self.features_required) = (offered | required, required);
        self
    }
}

/// What both ends know when the handshake is through.
///
/// Example: see [`Handshake`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Agreement {
    /// Who the peer is.
    pub node: NodeId,
    /// The version both speak.
    pub version: u16,
    /// What both can do.
    pub features: u64,
    /// The longest message the peer takes, in bytes.
    pub message_len_max: usize,
    /// Whether both proved to know the secret.
    pub proved: bool,
}

/// What a step of the handshake leads to. A frame is to be sent in any case before going on.
///
/// Example: see [`Handshake`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Send this, then wait for the next frame.
    Send(Bytes),
    /// Send this, if there is something: the channel is made.
    Done(Agreement, Option<Bytes>),
    /// Send this, if there is something, and hang up.
    Refused(Refusal, Option<Bytes>),
}

/// Who refused, and why.
///
/// Example: see [`Reason`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Whether the peer refused us, and not we the peer.
    pub by_peer: bool,
    /// Why.
    pub reason: Reason,
}

/// Decides whether a certificate is that of a node.
///
/// Example: see [`Handshake::vouched`].
pub type Vouch = Arc<dyn Fn(NodeId) -> bool + Send + Sync>;

/// One end of a handshake.
///
/// ```
/// use mainstay_channel::{ClusterId, NodeId, Secret};
/// use mainstay_channel::frame::Decoder;
/// use mainstay_channel::handshake::{Handshake, Local, Purpose, Step};
/// let local = |node| Local::new(NodeId(node), ClusterId::default(), Purpose::new("calls").unwrap())
///     .with_secret(Secret::new(*b"0123456789abcdef").unwrap());
/// let frame = |bytes: &[u8]| {
///     let mut decoder = Decoder::new(256);
///     decoder.feed(bytes);
///     decoder.next_frame().unwrap().unwrap()
/// };
/// // Nonces come from the system in real life.
/// let (mut dialler, hello) = Handshake::dial(local(1), None, [1; 32]);
/// let mut acceptor = Handshake::accept(local(2), [2; 32]);
/// let Step::Send(challenge) = acceptor.handle(&frame(&hello)) else { panic!() };
/// let Step::Send(proof) = dialler.handle(&frame(&challenge)) else { panic!() };
/// let Step::Done(theirs, Some(welcome)) = acceptor.handle(&frame(&proof)) else { panic!() };
/// let Step::Done(ours, None) = dialler.handle(&frame(&welcome)) else { panic!() };
/// assert_eq!((theirs.node, ours.node), (NodeId(1), NodeId(2)));
/// ```
pub struct Handshake {
    local: Local,
    /// The node that the dialler wants.
    expected: Option<NodeId>,
    vouch: Option<Vouch>,
    /// H2: how many bytes this end may still send. An acceptor earns them by what it receives; a
    /// dialler answers one whom it chose itself, and has no limit.
    credit: usize,
    state: State,
}

enum State {
    /// The acceptor waits for a hello.
    Listening {
        nonce: [u8; 32],
    },
    /// The acceptor waits for a proof.
    Challenged {
        hello: Hello,
        said: Said,
    },
    /// The dialler waits for a challenge.
    Greeted {
        hello: Bytes,
    },
    /// The dialler waits for a welcome.
    Proved {
        said: Said,
        version: u16,
    },
    Ended,
}

/// What both have said so far: what a proof is over.
struct Said {
    hello: Bytes,
    challenge: Bytes,
}

/// Who proves: different words, so that no proof can be sent back as one's own.
const DIALLER: &[u8] = b"mainstay channel 1, dialler";
const ACCEPTOR: &[u8] = b"mainstay channel 1, acceptor";

impl Handshake {
    /// The end that dials, and the frame it begins with. `nonce` is random and never used again.
    ///
    /// Example: see [`Handshake`].
    #[must_use]
    pub fn dial(local: Local, expected: Option<NodeId>, nonce: [u8; 32]) -> (Self, Bytes) {
        let hello = Hello {
            version_min: *local.versions.start(),
            version_max: *local.versions.end(),
            has_secret: local.secret.is_some(),
            node: local.node,
            cluster: local.cluster,
            features_offered: local.features_offered,
            features_required: local.features_required,
            expected: expected.unwrap_or_default(),
            nonce,
            message_len_max: clamp(local.message_len_max),
            purpose: local.purpose.clone(),
        };
        let hello = Bytes::copy_from_slice(&hello.encode());
        let frame = encode(Kind::Hello, &hello);
        let state = State::Greeted { hello };
        (Self { local, expected, vouch: None, credit: usize::MAX, state }, frame)
    }

    /// The end that was dialled.
    ///
    /// Example: see [`Handshake`].
    #[must_use]
    pub fn accept(local: Local, nonce: [u8; 32]) -> Self {
        Self { local, expected: None, vouch: None, credit: 0, state: State::Listening { nonce } }
    }

    /// The same on a connection that has shown a certificate: the node that the peer says it is
    /// must be one that `vouch` agrees to.
    ///
    /// ```
    /// # use mainstay_channel::{ClusterId, NodeId, handshake::{Handshake, Local, Purpose}};
    /// # let local = Local::new(NodeId(1), ClusterId::default(), Purpose::new("calls")?);
    /// let acceptor = Handshake::accept(local, [2; 32])
    ///     .vouched(std::sync::Arc::new(|node| node == NodeId(7)));
    /// # drop(acceptor);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn vouched(mut self, vouch: Vouch) -> Self {
        self.vouch = Some(vouch);
        self
    }

    /// Takes in a frame of the peer.
    ///
    /// Example: see [`Handshake`].
    pub fn handle(&mut self, frame: &Frame) -> Step {
        if frame.kind == Kind::Refusal {
            self.state = State::Ended;
            let reason = Reason::decode(&frame.payload, &self.local.versions);
            return Step::Refused(Refusal { by_peer: true, reason }, None);
        }
        self.credit = self.credit.saturating_add(HEADER_LEN + frame.payload.len());
        let state = std::mem::replace(&mut self.state, State::Ended);
        let step = match (state, frame.kind) {
            (State::Listening { nonce }, Kind::Hello) => self.hear_hello(&frame.payload, nonce),
            (State::Challenged { hello, said }, Kind::Proof) => {
                self.hear_proof(&frame.payload, &hello, &said)
            }
            (State::Greeted { hello }, Kind::Challenge) => {
                self.hear_challenge(&frame.payload, hello)
            }
            (State::Proved { said, version }, Kind::Welcome) => {
                self.hear_welcome(&frame.payload, &said, version)
            }
            _ => Err(Reason::Malformed),
        };
        let step = step.unwrap_or_else(|reason| self.refuse(reason));
        if let Step::Send(answer) | Step::Done(_, Some(answer)) = &step {
            self.credit = self
                .credit
                .checked_sub(answer.len())
                .expect("H2: a hello earns more than a challenge and a welcome cost; see wire.rs");
        }
        step
    }

    /// Ends the handshake for a reason that the driver knows: the time is over, there is no room.
    /// The peer is told if it has said enough to earn an answer (H2).
    ///
    /// ```
    /// # use mainstay_channel::{ClusterId, NodeId, handshake::{Handshake, Local, Purpose}};
    /// use mainstay_channel::handshake::{Reason, Step};
    /// # let local = |node| Local::new(NodeId(node), ClusterId::default(), Purpose::new("calls").unwrap());
    /// let mut acceptor = Handshake::accept(local(1), [2; 32]);
    /// // Who said nothing gets nothing.
    /// assert!(matches!(acceptor.refuse(Reason::Late), Step::Refused(_, None)));
    /// let (mut dialler, _hello) = Handshake::dial(local(2), None, [1; 32]);
    /// assert!(matches!(dialler.refuse(Reason::Late), Step::Refused(_, Some(_))));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn refuse(&mut self, reason: Reason) -> Step {
        self.state = State::Ended;
        let frame = encode(Kind::Refusal, &reason.encode(&self.local.versions));
        let left = self.credit.checked_sub(frame.len());
        self.credit = left.unwrap_or(self.credit);
        Step::Refused(Refusal { by_peer: false, reason }, left.map(|_| frame))
    }

    fn hear_hello(&mut self, payload: &Bytes, nonce: [u8; 32]) -> Result<Step, Reason> {
        let hello = Hello::decode(payload)?;
        let version = self.common_version(hello.version_min, hello.version_max)?;
        let local = &self.local;
        if hello.cluster != local.cluster {
            return Err(Reason::Cluster);
        }
        if hello.purpose != local.purpose {
            return Err(Reason::Purpose);
        }
        if hello.has_secret != local.secret.is_some() {
            return Err(Reason::ProofMode);
        }
        if hello.expected != NodeId::default() && hello.expected != local.node {
            return Err(Reason::OtherNode);
        }
        self.check_node(hello.node)?;
        self.check_features(hello.features_offered, hello.features_required)?;
        let challenge = Bytes::copy_from_slice(&Challenge { version, nonce }.encode());
        let frame = encode(Kind::Challenge, &challenge);
        let said = Said { hello: payload.clone(), challenge };
        self.state = State::Challenged { hello, said };
        Ok(Step::Send(frame))
    }

    fn hear_challenge(&mut self, payload: &Bytes, hello: Bytes) -> Result<Step, Reason> {
        let challenge = Challenge::decode(payload)?;
        let version = self.common_version(challenge.version, challenge.version)?;
        let said = Said { hello, challenge: payload.clone() };
        let frame = encode(Kind::Proof, &self.prove(DIALLER, &said, &[]));
        self.state = State::Proved { said, version };
        Ok(Step::Send(frame))
    }

    fn hear_proof(&mut self, payload: &[u8], hello: &Hello, said: &Said) -> Result<Step, Reason> {
        self.check_proof(payload, DIALLER, said, &[])?;
        let features = hello.features_offered & self.local.features_offered;
        let mut welcome = Welcome {
            node: self.local.node,
            features,
            message_len_max: clamp(self.local.message_len_max),
            proof: [0; 32],
        };
        welcome.proof = self.prove(ACCEPTOR, said, &welcome.covered());
        let agreement = Agreement {
            node: hello.node,
            version: self.common_version(hello.version_min, hello.version_max)?,
            features,
            message_len_max: widen(hello.message_len_max),
            proved: self.local.secret.is_some(),
        };
        Ok(Step::Done(agreement, Some(encode(Kind::Welcome, &welcome.encode()))))
    }

    fn hear_welcome(&mut self, payload: &Bytes, said: &Said, version: u16) -> Result<Step, Reason> {
        let welcome = Welcome::decode(payload)?;
        self.check_proof(&welcome.proof, ACCEPTOR, said, &welcome.covered())?;
        if self.expected.is_some_and(|expected| expected != welcome.node) {
            return Err(Reason::OtherNode);
        }
        self.check_node(welcome.node)?;
        self.check_features(welcome.features, 0)?;
        let agreement = Agreement {
            node: welcome.node,
            version,
            features: welcome.features & self.local.features_offered,
            message_len_max: widen(welcome.message_len_max),
            proved: self.local.secret.is_some(),
        };
        Ok(Step::Done(agreement, None))
    }

    fn common_version(&self, min: u16, max: u16) -> Result<u16, Reason> {
        let ours = &self.local.versions;
        let common = max.min(*ours.end());
        if common < min.max(*ours.start()) {
            return Err(Reason::Version { ours: (*ours.start(), *ours.end()), theirs: (min, max) });
        }
        Ok(common)
    }

    fn check_node(&self, node: NodeId) -> Result<(), Reason> {
        if node == NodeId::default() {
            return Err(Reason::Malformed);
        }
        if node == self.local.node {
            return Err(Reason::SameNode);
        }
        match &self.vouch {
            Some(vouch) if !vouch(node) => Err(Reason::Identity),
            _ => Ok(()),
        }
    }

    fn check_features(&self, offered: u64, required: u64) -> Result<(), Reason> {
        let local = &self.local;
        let missing_here = required & !local.features_offered;
        let missing_there = local.features_required & !offered;
        if missing_here | missing_there == 0 { Ok(()) } else { Err(Reason::Features) }
    }

    fn prove(&self, who: &[u8], said: &Said, more: &[u8]) -> [u8; 32] {
        let parts = [who, &*said.hello, &*said.challenge, more];
        self.local.secret.as_ref().map_or([0; 32], |secret| secret.prove(&parts))
    }

    fn check_proof(
        &self,
        proof: &[u8],
        who: &[u8],
        said: &Said,
        more: &[u8],
    ) -> Result<(), Reason> {
        let parts = [who, &*said.hello, &*said.challenge, more];
        let holds = match &self.local.secret {
            Some(secret) => secret.is_proof(proof, &parts),
            None => proof == [0; 32],
        };
        if holds || crate::planted("proof-unchecked") { Ok(()) } else { Err(Reason::Proof) }
    }
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Listening { .. } => "listening",
            State::Challenged { .. } => "challenged",
            State::Greeted { .. } => "greeted",
            State::Proved { .. } => "proved",
            State::Ended => "ended",
        };
        write!(f, "Handshake({}, {state})", self.local.node)
    }
}

fn clamp(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

fn widen(len: u32) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

const _: () = assert!(wire::HELLO_LEN <= HANDSHAKE_LEN_MAX);

#[cfg(test)]
mod tests;
