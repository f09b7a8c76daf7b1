use super::*;
use crate::frame::Decoder;
use proptest::prelude::*;

fn local(node: u64) -> Local {
    let secret = Secret::new(*b"0123456789abcdef").unwrap();
    Local::new(NodeId(node), ClusterId::default(), Purpose::new("test").unwrap())
        .with_secret(secret)
}

fn frame(bytes: &[u8]) -> Frame {
    let mut decoder = Decoder::new(HANDSHAKE_LEN_MAX);
    decoder.feed(bytes);
    decoder.next_frame().unwrap().unwrap()
}

/// What both ends come to; and how many bytes the acceptor got and gave.
fn meet(dialler: (Handshake, Bytes), mut acceptor: Handshake) -> (Ending, Ending, usize, usize) {
    let (mut dialler, hello) = dialler;
    let (mut to_acceptor, mut to_dialler) = (Some(hello), None::<Bytes>);
    let (mut ours, mut theirs) = (None, None);
    let (mut received, mut sent) = (0, 0);
    for _ in 0..8 {
        if theirs.is_none()
            && let Some(bytes) = to_acceptor.take()
        {
            received += bytes.len();
            let (out, ending) = split(acceptor.handle(&frame(&bytes)));
            sent += out.as_ref().map_or(0, Bytes::len);
            (to_dialler, theirs) = (out, ending);
        }
        if let Some(bytes) = to_dialler.take().filter(|_| ours.is_none()) {
            (to_acceptor, ours) = split(dialler.handle(&frame(&bytes)));
        }
    }
    // A dialler that refuses the acceptor's last word can only tell it afterwards.
    if let (Some(Ok(_)), Some(bytes)) = (&theirs, to_acceptor) {
        theirs = split(acceptor.handle(&frame(&bytes))).1;
    }
    (ours.unwrap(), theirs.unwrap(), received, sent)
}

type Ending = Result<Agreement, Refusal>;

fn split(step: Step) -> (Option<Bytes>, Option<Ending>) {
    match step {
        Step::Send(bytes) => (Some(bytes), None),
        Step::Done(agreement, bytes) => (bytes, Some(Ok(agreement))),
        Step::Refused(refusal, bytes) => (bytes, Some(Err(refusal))),
    }
}

fn refused(ours: Local, theirs: Local, expected: Option<NodeId>) -> (Refusal, Refusal) {
    let ends = meet(Handshake::dial(ours, expected, [1; 32]), Handshake::accept(theirs, [2; 32]));
    assert!(ends.3 <= ends.2, "H2: sent {} bytes for {}", ends.3, ends.2);
    (ends.0.unwrap_err(), ends.1.unwrap_err())
}

#[test]
fn h3_two_members_agree_on_version_features_limits_and_names() {
    let mut ours = local(1).with_features(0b0110, 0b0010);
    ours.message_len_max = 1_000;
    let mut theirs = local(2).with_features(0b0011, 0b0010);
    theirs.message_len_max = 2_000;
    theirs.versions = 1..=4;
    let dialler = Handshake::dial(ours, Some(NodeId(2)), [1; 32]);
    let (ours, theirs, received, sent) = meet(dialler, Handshake::accept(theirs, [2; 32]));
    let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
    assert_eq!((ours.node, theirs.node), (NodeId(2), NodeId(1)));
    assert_eq!((ours.message_len_max, theirs.message_len_max), (2_000, 1_000));
    assert_eq!((ours.features, theirs.features), (0b0010, 0b0010));
    assert_eq!((ours.version, theirs.version), (1, 1));
    assert!(ours.proved && theirs.proved);
    assert!(sent <= received, "H2: sent {sent} bytes for {received}");
}

#[test]
fn h4_each_mismatch_is_refused_with_its_reason_on_both_sides() {
    let other_secret = Secret::new(*b"another secret of the kind").unwrap();
    let cluster = ClusterId(uuid::Uuid::from_u128(7));
    let later = Local { versions: 2..=3, ..local(2) };
    let purpose = Purpose::new("other").unwrap();
    let cases = [
        (Local { cluster, ..local(2) }, None, Reason::Cluster),
        (Local { purpose, ..local(2) }, None, Reason::Purpose),
        (Local { secret: None, ..local(2) }, None, Reason::ProofMode),
        (local(2).with_secret(other_secret), None, Reason::Proof),
        (local(2).with_features(0, 8), None, Reason::Features),
        (local(1), None, Reason::SameNode),
        (local(2), Some(NodeId(3)), Reason::OtherNode),
    ];
    for (theirs, expected, reason) in cases {
        let (here, there) = refused(local(1), theirs, expected);
        assert_eq!((here.reason, here.by_peer), (reason, true));
        assert_eq!((there.reason, there.by_peer), (reason, false));
    }
    let (here, there) = refused(local(1), later, None);
    assert_eq!(here.reason, Reason::Version { ours: (1, 1), theirs: (2, 3) });
    assert_eq!(there.reason, Reason::Version { ours: (2, 3), theirs: (1, 1) });
}

#[test]
fn h2_who_has_not_said_as_much_as_a_refusal_costs_is_hung_up_on_without_a_word() {
    let refusal_len = HEADER_LEN + wire::REFUSAL_LEN;
    for len in 0..20 {
        let mut acceptor = Handshake::accept(local(2), [2; 32]);
        let payload = Bytes::from(vec![0; len]);
        let (told, ending) = split(acceptor.handle(&Frame { kind: Kind::Hello, payload }));
        assert_eq!(ending.unwrap().unwrap_err().reason, Reason::Malformed, "we know it, anyway");
        let earned = HEADER_LEN + len >= refusal_len;
        assert_eq!(told.map(|told| told.len()), earned.then_some(refusal_len), "{len} bytes");
    }
    let silence = Handshake::accept(local(2), [2; 32]).refuse(Reason::Late);
    assert_eq!(silence, Step::Refused(Refusal { by_peer: false, reason: Reason::Late }, None));
}

#[test]
fn h2_what_was_said_pays_for_one_refusal_and_not_for_one_after_the_other() {
    let mut acceptor = Handshake::accept(local(2), [2; 32]);
    let (mut received, mut sent, mut told) = (0, 0, 0);
    for _ in 0..30 {
        received += HEADER_LEN;
        let refused = acceptor.handle(&Frame { kind: Kind::Proof, payload: Bytes::new() });
        if let (Some(bytes), _) = split(refused) {
            (sent, told) = (sent + bytes.len(), told + 1);
        }
        assert!(sent <= received, "sent {sent} bytes for {received}");
    }
    assert_eq!(told, 20, "two frames of three are answered");
}

#[test]
fn h4_one_who_is_late_with_its_proof_is_told_so() {
    let (mut dialler, hello) = Handshake::dial(local(1), None, [1; 32]);
    let mut acceptor = Handshake::accept(local(2), [2; 32]);
    assert!(matches!(acceptor.handle(&frame(&hello)), Step::Send(_)));
    let (told, _) = split(acceptor.refuse(Reason::Late));
    let heard = split(dialler.handle(&frame(&told.expect("its hello has paid for it")))).1;
    assert_eq!(heard.unwrap().unwrap_err(), Refusal { by_peer: true, reason: Reason::Late });
}

#[test]
fn a_certificate_of_another_node_is_refused_on_both_sides_whoever_shows_it() {
    let only = |node| -> Vouch { Arc::new(move |named| named == NodeId(node)) };
    let dialler = Handshake::dial(local(1), None, [1; 32]);
    let acceptor = Handshake::accept(local(2), [2; 32]).vouched(only(9));
    let (ours, theirs, ..) = meet(dialler, acceptor);
    assert_eq!(ours.unwrap_err(), Refusal { by_peer: true, reason: Reason::Identity });
    assert_eq!(theirs.unwrap_err(), Refusal { by_peer: false, reason: Reason::Identity });

    let (dialler, hello) = Handshake::dial(local(1), None, [1; 32]);
    let acceptor = Handshake::accept(local(2), [2; 32]);
    let (ours, theirs, ..) = meet((dialler.vouched(only(9)), hello), acceptor);
    assert_eq!(ours.unwrap_err(), Refusal { by_peer: false, reason: Reason::Identity });
    assert_eq!(theirs.unwrap_err(), Refusal { by_peer: true, reason: Reason::Identity });
}

#[test]
fn h3_an_acceptor_without_the_secret_is_refused_although_it_takes_any_proof() {
    let (mut dialler, hello) = Handshake::dial(local(1), None, [1; 32]);
    let wrong = Secret::new(*b"another secret of the kind").unwrap();
    let mut acceptor = Handshake::accept(local(2).with_secret(wrong), [2; 32]);
    let Step::Send(challenge) = acceptor.handle(&frame(&hello)) else { panic!("a challenge") };
    assert!(matches!(dialler.handle(&frame(&challenge)), Step::Send(_)));
    // The impostor skips the check and answers with a proof of its own secret, and with an echo.
    let welcome = Welcome { node: NodeId(2), features: 0, message_len_max: 9, proof: [7; 32] };
    let step = dialler
        .handle(&Frame { kind: Kind::Welcome, payload: Bytes::copy_from_slice(&welcome.encode()) });
    assert_eq!(split(step).1.unwrap().unwrap_err().reason, Reason::Proof);
}

#[test]
fn h3_a_recorded_proof_is_worth_nothing_with_another_challenge() {
    let (mut dialler, hello) = Handshake::dial(local(1), None, [1; 32]);
    let mut first = Handshake::accept(local(2), [2; 32]);
    let Step::Send(challenge) = first.handle(&frame(&hello)) else { panic!("a challenge") };
    let Step::Send(proof) = dialler.handle(&frame(&challenge)) else { panic!("a proof") };
    assert!(matches!(first.handle(&frame(&proof)), Step::Done(..)));

    let mut second = Handshake::accept(local(2), [3; 32]);
    assert!(matches!(second.handle(&frame(&hello)), Step::Send(_)));
    let ending = split(second.handle(&frame(&proof))).1.unwrap();
    assert_eq!(ending.unwrap_err().reason, Reason::Proof);
}

#[test]
fn h1_a_stranger_is_told_nothing_but_that_it_is_not_welcome() {
    let mut acceptor = Handshake::accept(local(0x1122_3344_5566_7788), [2; 32]);
    let stranger = Local { secret: Some(Secret::new([0; 16]).unwrap()), ..local(1) };
    let (mut dialler, hello) = Handshake::dial(stranger, None, [1; 32]);
    let Step::Send(challenge) = acceptor.handle(&frame(&hello)) else { panic!("a challenge") };
    let Step::Send(proof) = dialler.handle(&frame(&challenge)) else { panic!("a proof") };
    let Step::Refused(_, Some(refusal)) = acceptor.handle(&frame(&proof)) else {
        panic!("a refusal")
    };
    let told = [challenge, refusal].concat();
    let name = 0x1122_3344_5566_7788_u64.to_le_bytes();
    assert!(!told.windows(8).any(|bytes| bytes == name), "not even the node's id");
}

#[test]
fn h5_whatever_comes_at_the_wrong_time_ends_the_handshake() {
    for kind in [Kind::Message, Kind::Close, Kind::Challenge, Kind::Welcome, Kind::Proof] {
        let mut acceptor = Handshake::accept(local(2), [2; 32]);
        let step = acceptor.handle(&Frame { kind, payload: Bytes::new() });
        assert_eq!(split(step).1.unwrap().unwrap_err().reason, Reason::Malformed);
        let (_, hello) = Handshake::dial(local(1), None, [1; 32]);
        let again = acceptor.handle(&frame(&hello));
        assert_eq!(split(again).1.unwrap().unwrap_err().reason, Reason::Malformed, "it is over");
    }
}

proptest! {
    #[test]
    fn any_bytes_in_any_frame_end_in_a_step_and_never_in_a_proof(
        frames in proptest::collection::vec(
            (0_u8..25, proptest::collection::vec(any::<u8>(), 0..256)), 1..4),
    ) {
        let mut acceptor = Handshake::accept(local(2), [2; 32]);
        for (kind, payload) in frames {
            let mut bytes = encode(Kind::Message, &payload).to_vec();
            bytes[4] = kind;
            let crc = mainstay_base::crc32c(&[&bytes[..12], &payload].concat());
            bytes[12..16].copy_from_slice(&crc.to_le_bytes());
            let mut decoder = Decoder::new(HANDSHAKE_LEN_MAX);
            decoder.feed(&bytes);
            if let Ok(Some(frame)) = decoder.next_frame() {
                prop_assert!(!matches!(acceptor.handle(&frame), Step::Done(..)));
            }
        }
    }
}
