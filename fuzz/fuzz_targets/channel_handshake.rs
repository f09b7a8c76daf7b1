//! Two members shake hands through a network that belongs to the enemy: it delivers, changes,
//! repeats, swaps and invents. Whoever takes the handshake for done has met the other one, and what
//! they agreed on is what both said; the acceptor never gives more bytes than it got.

#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use mainstay_channel::{
    Bytes, ClusterId, NodeId, Secret,
    frame::{Decoder, Frame, HEADER_LEN, Kind},
    handshake::{Agreement, Handshake, Local, Purpose, Step},
};
use mainstay_fuzz::world;

#[derive(Arbitrary, Debug)]
enum Act {
    /// Hands the newest frame for the acceptor, or else for the dialler, over.
    Deliver { to_acceptor: bool },
    /// The same with a byte changed.
    Change { to_acceptor: bool, at: u8, by: u8 },
    /// A frame from long ago, whoever it was for.
    Replay { to_acceptor: bool, which: u8 },
    /// A frame of the enemy's own.
    Invent { to_acceptor: bool, kind: u8, payload: Vec<u8> },
}

const ACTS_MAX: usize = 24;
const OFFERED: u64 = 0b0110;
const LIMITS: (usize, usize) = (1_000, 2_000);

fuzz_target!(|data: &[u8]| {
    world::prepare();
    let acts = Vec::<Act>::arbitrary_take_rest(Unstructured::new(data));
    if let Ok(acts) = acts {
        attack(&acts[..acts.len().min(ACTS_MAX)]);
    }
});

fn local(node: u64) -> Local {
    let secret = Secret::new(b"what the enemy does not know").expect("it is long enough");
    let purpose = Purpose::new("fuzz").expect("a word is a purpose");
    let mut local = Local::new(NodeId(node), ClusterId::default(), purpose).with_secret(secret);
    local.features_offered = OFFERED;
    local.message_len_max = if node == 1 { LIMITS.0 } else { LIMITS.1 };
    local
}

struct End {
    handshake: Handshake,
    done: Option<Agreement>,
    received: usize,
    sent: usize,
}

impl End {
    fn take(&mut self, frame: &Frame, seen: &mut Vec<(bool, Frame)>, to_acceptor: bool) {
        self.received += HEADER_LEN + frame.payload.len();
        let bytes = match self.handshake.handle(frame) {
            Step::Send(bytes) => Some(bytes),
            Step::Done(agreement, bytes) => {
                assert!(self.done.is_none(), "a handshake ends once");
                self.done = Some(agreement);
                bytes
            }
            Step::Refused(_, bytes) => bytes,
        };
        if let Some(bytes) = bytes {
            self.sent += bytes.len();
            seen.push((!to_acceptor, parse(&bytes)));
        }
    }
}

fn attack(acts: &[Act]) {
    let (dialler, hello) = Handshake::dial(local(1), Some(NodeId(2)), [1; 32]);
    let end = |handshake| End { handshake, done: None, received: 0, sent: 0 };
    let mut dialler = end(dialler);
    let mut acceptor = end(Handshake::accept(local(2), [2; 32]));
    // Everything that was said, and for whom it was meant.
    let mut seen = vec![(true, parse(&hello))];
    for act in acts {
        let newest = |to: bool, seen: &[(bool, Frame)]| {
            seen.iter().rev().find(|(meant, _)| *meant == to).map(|(_, frame)| frame.clone())
        };
        let (to_acceptor, frame) = match act {
            Act::Deliver { to_acceptor } => (*to_acceptor, newest(*to_acceptor, &seen)),
            Act::Change { to_acceptor, at, by } => {
                let frame = newest(*to_acceptor, &seen).map(|frame| change(&frame, *at, *by));
                (*to_acceptor, frame)
            }
            Act::Replay { to_acceptor, which } => {
                let frame = &seen[usize::from(*which) % seen.len()].1;
                (*to_acceptor, Some(frame.clone()))
            }
            Act::Invent { to_acceptor, kind, payload } => (
                *to_acceptor,
                Some(Frame { kind: kind_of(*kind), payload: payload.clone().into() }),
            ),
        };
        let Some(frame) = frame else { continue };
        if to_acceptor {
            acceptor.take(&frame, &mut seen, true);
            assert!(acceptor.sent <= acceptor.received, "H2: no amplification");
        } else {
            dialler.take(&frame, &mut seen, false);
        }
    }
    if let Some(agreement) = acceptor.done {
        assert_eq!((agreement.node, agreement.version), (NodeId(1), 1), "H3: it met the dialler");
        assert_eq!((agreement.features, agreement.message_len_max), (OFFERED, LIMITS.0));
    }
    if let Some(agreement) = dialler.done {
        assert!(acceptor.done.is_some(), "H3: the acceptor has met it, too");
        assert_eq!((agreement.node, agreement.version), (NodeId(2), 1));
        assert_eq!((agreement.features, agreement.message_len_max), (OFFERED, LIMITS.1));
    }
}

fn parse(bytes: &[u8]) -> Frame {
    let mut decoder = Decoder::new(256);
    decoder.feed(bytes);
    decoder.next_frame().expect("an end sends frames").expect("and whole ones")
}

fn change(frame: &Frame, at: u8, by: u8) -> Frame {
    let mut payload = frame.payload.to_vec();
    let len = payload.len().max(1);
    if let Some(byte) = payload.get_mut(usize::from(at) % len) {
        *byte ^= by;
    }
    Frame { kind: frame.kind, payload: Bytes::from(payload) }
}

fn kind_of(number: u8) -> Kind {
    let kinds = [
        Kind::Message,
        Kind::Close,
        Kind::KeepAlive,
        Kind::Hello,
        Kind::Challenge,
        Kind::Proof,
        Kind::Welcome,
        Kind::Refusal,
    ];
    kinds[usize::from(number) % kinds.len()]
}
