//! What is done about certificates that are not good: at whichever end they are, both are told.

use crate::{
    certificates::Authority,
    rig::{CLUSTER, NetRig, PATIENCE, Tls},
    strangers::words_of,
};
use mainstay_channel::{
    Channel, Error, NodeId,
    handshake::Reason,
    net::{self, Credentials, Listener, QuicEndpoint, Wire},
};
use std::time::Duration;

fn certified(credentials: Credentials, quic: bool) -> Wire {
    if quic { Wire::Quic(QuicEndpoint::new(credentials).unwrap()) } else { Wire::Tls(credentials) }
}

/// A node's certificate that is good in every way but one.
fn good(node: u64) -> Credentials {
    Authority::shared().credentials(CLUSTER, NodeId(node))
}

/// At either end, over either transport: who looks at the certificate finds this, and who shows it
/// is told so by this alert.
fn is_found_out(flawed: impl Fn(NodeId) -> Credentials, found: &str, alert: &str) {
    for quic in [false, true] {
        for at_listener in [false, true] {
            let place = format!("quic: {quic}, at the listener: {at_listener}");
            let here = if at_listener { flawed(NodeId(1)) } else { good(1) };
            let there = if at_listener { good(2) } else { flawed(NodeId(2)) };
            let wire = certified(here, quic);
            let listener = Listener::bind(&wire, "127.0.0.1:0", Tls::settings(1)).unwrap();
            let address = listener.address().to_string();
            let dial = |credentials| {
                net::connect(&certified(credentials, quic), &address, &Tls::settings(2))
            };
            let error = dial(there).expect_err(&place).to_string();
            let words = words_of(&listener);
            let (finder, shower) = if at_listener { (error, words) } else { (words, error) };
            assert!(finder.contains(found), "{place}: {finder}");
            // QUIC tells the whole reason; TLS has a word for it.
            let told = if quic { found } else { alert };
            assert!(shower.contains(told), "{place}: {shower}");
            assert!(listener.accept(Duration::ZERO).unwrap().is_none(), "{place}");
            if !at_listener {
                // Nothing but the certificate was wrong.
                let there = dial(good(2)).expect(&place);
                let here = listener.accept(PATIENCE).unwrap().expect("a member is let in");
                there.send("hello".into()).unwrap();
                assert_eq!(here.receive(PATIENCE).unwrap().unwrap(), "hello");
            }
        }
    }
}

#[test]
fn an_expired_certificate_is_refused_at_either_end_and_both_are_told() {
    let _turn = crate::turn::take();
    let authority = Authority::shared();
    let expired = |node| authority.papers_for(CLUSTER, node, 2_020..2_021).credentials(authority);
    is_found_out(expired, "certificate expired", "CertificateExpired");
}

#[test]
fn a_certificate_that_is_not_valid_yet_is_refused_at_either_end_and_both_are_told() {
    let _turn = crate::turn::take();
    let authority = Authority::shared();
    let early = |node| authority.papers_for(CLUSTER, node, 2_090..2_091).credentials(authority);
    is_found_out(early, "certificate not valid yet", "CertificateExpired");
}

#[test]
fn a_certificate_of_an_unknown_authority_is_refused_at_either_end_and_both_are_told() {
    let _turn = crate::turn::take();
    // It believes in our authority, so that it is we who refuse.
    for (name, found, alert) in [
        ("other cluster", "UnknownIssuer", "UnknownCA"),
        // One that takes the name of ours.
        ("test cluster", "BadSignature", "DecryptError"),
    ] {
        let stranger = Authority::new(name);
        let unknown = |node| stranger.papers(CLUSTER, node).credentials(Authority::shared());
        is_found_out(unknown, found, alert);
    }
}

#[test]
fn a_certificate_of_another_node_is_refused_with_its_reason() {
    let _turn = crate::turn::take();
    for quic in [false, true] {
        let wire = |node| certified(good(node), quic);
        let listener = Listener::bind(&wire(1), "127.0.0.1:0", Tls::settings(1)).unwrap();
        let address = listener.address().to_string();
        // Node 3's certificate in the hands of somebody who says to be node 2.
        let error = net::connect(&wire(3), &address, &Tls::settings(2)).unwrap_err();
        assert!(matches!(error, Error::Refused { reason: Reason::Identity, .. }), "{error}");
        assert!(words_of(&listener).contains("not that of the node"));
        // And the other way round: a listener that is not who its certificate says.
        let liar = Listener::bind(&wire(3), "127.0.0.1:0", Tls::settings(1)).unwrap();
        let error =
            net::connect(&wire(2), &liar.address().to_string(), &Tls::settings(2)).unwrap_err();
        assert!(
            matches!(error, Error::Refused { reason: Reason::Identity, by: "here", .. }),
            "{error}"
        );
    }
}
