//! LIP-109, SDS-R: Determine T_req; Determine response group; Determine T_resp; SDS-R send message;
//! SDS-R receive message; the two buffer sweeps; SDS-R Periodic Sync Message; R1 to R5.

use mainstay_sds::{
    Channel, Config, Now, Reason,
    repair::{request_delay_ms, response_delay_ms},
    wire::{HistoryEntry, Message, MessageView, Profile},
};

use crate::group::{
    Group, L, START, Said, broadcasts, channel, drain, message, receive, send, text,
};

/// A content message of `sender` that asks for these.
fn asking(sender: &str, id: &str, wanted: &[(&str, &str)]) -> Message {
    let entry = |(id, sender): &(&str, &str)| HistoryEntry {
        id: id.as_bytes().to_vec(),
        sender: sender.as_bytes().to_vec(),
        hint: Vec::new(),
    };
    Message { requests: wanted.iter().map(entry).collect(), ..message(sender, id, L + 50, &[]) }
}

fn repairs(said: &[Said]) -> Vec<&str> {
    said.iter()
        .filter_map(|said| match said {
            Said::Broadcast { id, reason: Reason::Repair, .. } => Some(id.as_str()),
            _ => None,
        })
        .collect()
}

/// No resends and no sync messages, so that timers are those of repair.
fn config() -> Config {
    let mut config = Config::lip();
    config.sync = false;
    config.resend_ms = 100_000_000;
    config.lost_after_ms = None;
    config
}

#[test]
fn a_missing_message_is_asked_for_at_its_time_and_not_before() {
    let mut bob = channel("bob", config());
    receive(&mut bob, START, &message("alice", "m2", L + 2, &["m1"]));
    drain(&mut bob);
    let delay = request_delay_ms(Profile::Lip, b"bob", b"m1", 30_000, 120_000);
    assert_eq!(bob.poll_timeout(), Some(START.mono_ms + delay));
    let early = send(&mut bob, START.after(delay - 1), "b1");
    assert!(MessageView::parse(Profile::Lip, &early).unwrap().requests.is_empty());
    let due = send(&mut bob, START.after(delay), "b2");
    let due = MessageView::parse(Profile::Lip, &due).unwrap();
    assert!(due.requests.iter().map(|entry| entry.id).eq([b"m1"]));
    let after = send(&mut bob, START.after(delay + 1), "b3");
    assert!(
        MessageView::parse(Profile::Lip, &after).unwrap().requests.is_empty(),
        "once at a time"
    );
}

#[test]
fn a_message_carries_three_requests_the_earliest_first() {
    let mut bob = channel("bob", config());
    receive(&mut bob, START, &message("alice", "m9", L + 9, &["a", "b", "c", "d", "e"]));
    drain(&mut bob);
    let mut all = ["a", "b", "c", "d", "e"];
    all.sort_by_key(|id| request_delay_ms(Profile::Lip, b"bob", id.as_bytes(), 30_000, 120_000));
    let bytes = send(&mut bob, START.after(120_000), "b1");
    let view = MessageView::parse(Profile::Lip, &bytes).unwrap();
    let asked: Vec<&[u8]> = view.requests.iter().map(|entry| entry.id).collect();
    assert_eq!(asked, all[..3].iter().map(|id| id.as_bytes()).collect::<Vec<_>>());
}

#[test]
fn a_request_is_repeated_until_the_message_is_here() {
    let mut bob = channel("bob", config());
    receive(&mut bob, START, &message("alice", "m2", L + 2, &["m1"]));
    let mut now = START;
    // After eight times in vain half as often, and so on, but at least once in half an hour.
    let pauses = [1, 2, 4, 8, 16, 16].into_iter().flat_map(|pause| std::iter::repeat_n(pause, 8));
    for (round, pause) in pauses.enumerate() {
        now = now.after(pause * 30_000 - 1);
        let early = send(&mut bob, now, &format!("early{round}"));
        assert!(MessageView::parse(Profile::Lip, &early).unwrap().requests.is_empty());
        drain(&mut bob);
        now = now.after(pause * 90_000 + 1);
        let bytes = send(&mut bob, now, &format!("b{round}"));
        let view = MessageView::parse(Profile::Lip, &bytes).unwrap();
        assert_eq!(view.requests.len(), 1, "round {round}");
    }
    receive(&mut bob, now, &message("alice", "m1", L + 1, &[]));
    drain(&mut bob);
    let bytes = send(&mut bob, now.after(10_000_000), "b99");
    assert!(MessageView::parse(Profile::Lip, &bytes).unwrap().requests.is_empty());
    assert_eq!(bob.counts().wanted, 0);
}

#[test]
fn hearing_another_one_ask_puts_ones_own_request_off_and_does_not_drop_it() {
    let mut bob = channel("bob", config());
    receive(&mut bob, START, &message("alice", "m2", L + 2, &["m1"]));
    let delay = request_delay_ms(Profile::Lip, b"bob", b"m1", 30_000, 120_000);
    let now = START.after(delay - 1);
    receive(&mut bob, now, &asking("carol", "c1", &[("m1", "alice")]));
    drain(&mut bob);
    let at = bob.poll_timeout().expect("it is not dropped");
    assert!(at >= now.mono_ms + 30_000);
    let bytes = send(&mut bob, START.after(delay), "b1");
    assert!(MessageView::parse(Profile::Lip, &bytes).unwrap().requests.is_empty(), "put off");
    let bytes = send(&mut bob, now.after(120_000), "b2");
    assert_eq!(MessageView::parse(Profile::Lip, &bytes).unwrap().requests.len(), 1);
}

#[test]
fn a_messages_own_sender_answers_at_once_with_the_message_and_without_a_filter() {
    let mut alice = channel("alice", config());
    let original = send(&mut alice, START, "m1");
    receive(&mut alice, START, &asking("bob", "b1", &[("m1", "alice")]));
    alice.handle_timeout(START);
    let said = drain(&mut alice);
    assert_eq!(repairs(&said), ["m1"]);
    let copy = Message::decode(Profile::Lip, &broadcasts(&said)[0]).unwrap();
    let original = Message::decode(Profile::Lip, &original).unwrap();
    assert_eq!(copy, Message { filter: None, ..original });
}

/// Bob, who has a message of Alice's.
fn holder(name: &str) -> Channel {
    let mut config = config();
    config.response_groups = Some(1);
    let mut bob = channel(name, config);
    receive(&mut bob, START, &message("alice", "m1", L, &[]));
    drain(&mut bob);
    bob
}

#[test]
fn others_answer_at_their_time_unless_somebody_else_did() {
    let delay = response_delay_ms(Profile::Lip, b"bob", b"alice", b"m1", 120_000);
    for somebody_else in [false, true] {
        let mut bob = holder("bob");
        receive(&mut bob, START, &asking("carol", "c1", &[("m1", "alice")]));
        drain(&mut bob);
        assert_eq!(bob.poll_timeout(), Some(START.mono_ms + delay));
        if somebody_else {
            receive(&mut bob, START, &message("alice", "m1", L, &[]));
        }
        bob.handle_timeout(START.after(delay));
        assert_eq!(repairs(&drain(&mut bob)).len(), usize::from(!somebody_else));
    }
}

#[test]
fn asking_again_and_again_does_not_put_the_answer_off() {
    let mut bob = holder("bob");
    receive(&mut bob, START, &asking("carol", "c0", &[("m1", "alice")]));
    let at = bob.poll_timeout().unwrap();
    for second in 1..20 {
        let now = START.after(second * 1000);
        receive(&mut bob, now, &asking("carol", &format!("c{second}"), &[("m1", "alice")]));
    }
    drain(&mut bob);
    assert_eq!(bob.poll_timeout(), Some(at));
}

#[test]
fn who_sent_a_message_is_known_to_those_who_have_it_whatever_a_request_says() {
    let delay = response_delay_ms(Profile::Lip, b"bob", b"alice", b"m1", 120_000);
    assert!(delay > 0);
    for claimed in ["alice", "", "bob", "carol"] {
        let mut bob = holder("bob");
        receive(&mut bob, START, &asking("mallory", "x1", &[("m1", claimed)]));
        drain(&mut bob);
        assert_eq!(bob.poll_timeout(), Some(START.mono_ms + delay), "{claimed:?}");
    }
}

#[test]
fn one_forged_citation_does_not_keep_a_message_from_being_repaired() {
    let mut config = config();
    (config.t_min_ms, config.t_max_ms) = (1000, 2000);
    let mut group = Group::new(2, &config);
    group.send(0, "m1", |_| false);
    // Before anybody else does, mallory says whose it is.
    let mut forged = message("mallory", "x1", L + 1, &[]);
    let (id, hint) = (b"m1".to_vec(), b"nowhere".to_vec());
    forged.causal = vec![HistoryEntry { id, sender: b"mallory".to_vec(), hint }];
    receive(&mut group.channels[1], START, &forged);
    group.send(0, "m2", |_| true);
    for number in 0..10 {
        group.pass(2000, &mut |_, _, _| true);
        // Requests go with something.
        group.send(1, &format!("b{number}"), |_| true);
    }
    group.pass(10_000, &mut |_, _, _| true);
    assert!(group.delivered(1).contains(&"m1"), "{:?}", group.said[1]);
}

#[test]
fn whose_a_message_is_counts_by_the_latest_word_after_a_request_in_vain() {
    let mut bob = channel("bob", config());
    let citing = |id: &str, lamport, sender: &str, hint: &str| {
        let entry = HistoryEntry { id: b"m1".to_vec(), sender: sender.into(), hint: hint.into() };
        Message { causal: vec![entry], ..message("mallory", id, lamport, &[]) }
    };
    let asked = |bytes: &[u8]| {
        let requests = Message::decode(Profile::Lip, bytes).unwrap().requests;
        requests.first().map(|entry| (text(&entry.sender), text(&entry.hint)))
    };
    receive(&mut bob, START, &citing("x1", L + 1, "mallory", "nowhere"));
    receive(&mut bob, START, &citing("x2", L + 2, "alice", "at the store"));
    drain(&mut bob);
    let now = START.after(120_000);
    let first = asked(&send(&mut bob, now, "b1"));
    assert_eq!(first, Some(("mallory".into(), "nowhere".into())), "the first word counts");
    receive(&mut bob, now, &citing("x3", L + 3, "alice", "at the store"));
    drain(&mut bob);
    let now = now.after(120_000);
    let second = asked(&send(&mut bob, now, "b2"));
    assert_eq!(second, Some(("alice".into(), "at the store".into())));
}

#[test]
fn a_message_that_waits_here_is_sent_again_for_others_too() {
    let mut config = config();
    config.response_groups = Some(1);
    let mut bob = channel("bob", config);
    receive(&mut bob, START, &message("alice", "m2", L + 2, &["m1"]));
    receive(&mut bob, START, &asking("carol", "c1", &[("m2", "alice")]));
    bob.handle_timeout(START.after(120_000));
    assert_eq!(repairs(&drain(&mut bob)), ["m2"]);
}

#[test]
fn one_message_does_not_make_others_send_five_hundred() {
    let mut alice = channel("alice", config());
    let ids: Vec<String> = (0..500).map(|number| format!("m{number}")).collect();
    for id in &ids {
        send(&mut alice, START, id);
    }
    let wanted: Vec<(&str, &str)> = ids.iter().map(|id| (id.as_str(), "alice")).collect();
    let all = asking("mallory", "x", &wanted).encode(Profile::Lip);
    assert!(alice.receive(START, &all).is_err(), "more than the limit of requests");
    receive(&mut alice, START, &asking("mallory", "x", &wanted[..64]));
    alice.handle_timeout(START);
    assert_eq!(repairs(&drain(&mut alice)).len(), 1);
    for tenth in 1..=10 {
        alice.handle_timeout(START.after(tenth * 100));
    }
    assert!(repairs(&drain(&mut alice)).len() <= 10, "ten a second at most");
}

#[test]
fn one_message_is_sent_again_once_in_t_min_however_often_it_is_asked_for() {
    let mut alice = channel("alice", config());
    send(&mut alice, START, "m1");
    let mut answers = 0;
    for second in 0..60 {
        let now = START.after(second * 1000);
        receive(&mut alice, now, &asking("bob", &format!("b{second}"), &[("m1", "alice")]));
        alice.handle_timeout(now);
        answers += repairs(&drain(&mut alice)).len();
    }
    assert_eq!(answers, 2, "at 0 and at 30 seconds");
}

#[test]
fn a_response_group_that_is_silent_is_widened_until_somebody_answers() {
    let mut config = config();
    config.participants = 1000;
    let mut bob = channel("bob", config);
    // A message whose group Bob is not in.
    let id = (0..)
        .map(|number| format!("m{number}"))
        .find(|id| {
            !mainstay_sds::repair::in_response_group(
                Profile::Lip,
                b"bob",
                b"alice",
                id.as_bytes(),
                2,
            )
        })
        .unwrap();
    receive(&mut bob, START, &message("alice", &id, L, &[]));
    drain(&mut bob);
    let mut heard = 0;
    while bob.poll_timeout().is_none() {
        heard += 1;
        assert!(heard < 20, "at some point everybody answers");
        receive(&mut bob, START, &asking("carol", &format!("c{heard}"), &[(&id, "alice")]));
    }
    assert_eq!(heard, 12, "64 groups, halved at every second request");
}

#[test]
fn without_an_id_of_ones_own_there_is_no_repair() {
    let mut nobody = Channel::new("room", b"", config()).unwrap();
    receive(&mut nobody, START, &message("alice", "m2", L + 2, &["m1"]));
    receive(&mut nobody, START, &asking("carol", "c1", &[("m2", "alice")]));
    drain(&mut nobody);
    assert_eq!((nobody.poll_timeout(), nobody.counts().wanted), (None, 0));
}

#[test]
fn a_message_that_never_comes_is_given_up_and_what_depends_on_it_delivered() {
    let mut config = config();
    config.lost_after_ms = Some(600_000);
    let mut bob = channel("bob", config);
    receive(&mut bob, START, &message("alice", "m2", L + 2, &["m1"]));
    receive(&mut bob, START, &message("alice", "m3", L + 3, &["m2"]));
    drain(&mut bob);
    bob.handle_timeout(START.after(599_999));
    assert!(drain(&mut bob).is_empty());
    bob.handle_timeout(START.after(600_000));
    let said = drain(&mut bob);
    assert_eq!(said[0], Said::Lost("m1".into()));
    assert_eq!(crate::group::delivered(&said), ["m2", "m3"]);
    assert_eq!(bob.poll_timeout(), None);
    // It comes after all: delivered once, in its place.
    receive(&mut bob, START.after(700_000), &message("alice", "m1", L + 1, &[]));
    assert_eq!(crate::group::log(&bob), ["m1", "m2", "m3"]);
    receive(&mut bob, START.after(700_000), &message("alice", "m1", L + 1, &[]));
    assert_eq!(crate::group::delivered(&drain(&mut bob)), ["m1"]);
}

#[test]
fn the_application_is_told_to_fetch_and_told_again_with_growing_pauses() {
    let mut config = config();
    config.fetch = true;
    config.repair = false;
    let mut bob = channel("bob", config);
    let mut m2 = message("alice", "m2", L + 2, &["m1"]);
    m2.causal[0].hint = b"where".to_vec();
    m2.causal[0].sender = b"alice".to_vec();
    receive(&mut bob, START, &m2);
    let missing = Said::Missing {
        id: "m1".into(),
        hint: "where".into(),
        sender: "alice".into(),
        before_joining: false,
    };
    assert_eq!(drain(&mut bob), [missing]);
    let mut pauses = Vec::new();
    let mut now = START;
    for _ in 0..6 {
        let at = bob.poll_timeout().unwrap();
        pauses.push(at - now.mono_ms);
        now = now.after(at - now.mono_ms);
        bob.handle_timeout(now);
        assert_eq!(drain(&mut bob), [Said::Fetch("m1".into())]);
    }
    assert_eq!(pauses, [0, 10_000, 20_000, 40_000, 80_000, 160_000]);
    receive(&mut bob, now, &message("alice", "m1", L + 1, &[]));
    assert_eq!(bob.poll_timeout(), None);
}

#[test]
fn hints_travel_with_the_messages_they_are_about() {
    let mut alice = channel("alice", config());
    send(&mut alice, START, "m1");
    alice.set_retrieval_hint(b"m1", b"hash").unwrap();
    let m2 = send(&mut alice, START, "m2");
    let view = MessageView::parse(Profile::Lip, &m2).unwrap();
    let entry = view.causal.iter().next().unwrap();
    assert_eq!((entry.id, entry.hint, entry.sender), (&b"m1"[..], &b"hash"[..], &b"alice"[..]));
}

#[test]
fn a_late_message_outside_of_the_tail_is_cited_all_the_same() {
    let mut config = config();
    config.causal = 2;
    let mut bob = channel("bob", config);
    for number in 1..=9 {
        if number != 3 {
            receive(&mut bob, START, &message("alice", &format!("m{number}"), L + number, &[]));
        }
    }
    drain(&mut bob);
    // All others are cited by somebody; then the late one comes.
    let cited: Vec<String> = (1..=9).filter(|n| *n != 3).map(|n| format!("m{n}")).collect();
    let cited: Vec<&str> = cited.iter().map(String::as_str).collect();
    receive(&mut bob, START, &message("carol", "c1", L + 20, &cited));
    receive(&mut bob, START, &message("carol", "c2", L + 21, &["c1"]));
    receive(&mut bob, START, &message("carol", "c3", L + 22, &["c2"]));
    receive(&mut bob, START, &message("alice", "m3", L + 3, &[]));
    drain(&mut bob);
    let bytes = send(&mut bob, START, "b1");
    let view = MessageView::parse(Profile::Lip, &bytes).unwrap();
    let causal: Vec<&[u8]> = view.causal.iter().map(|entry| entry.id).collect();
    assert_eq!(causal, [&b"m3"[..], b"c2", b"c3"]);
    let bytes = send(&mut bob, START, "b2");
    let view = MessageView::parse(Profile::Lip, &bytes).unwrap();
    assert_eq!(view.causal.len(), 2, "once is enough");
}

/// The ids that the next sync message cites.
fn next_sync(channel: &mut Channel, now: &mut Now) -> Vec<String> {
    loop {
        let at = channel.poll_timeout().expect("a sync message is planned");
        *now = now.after(at.saturating_sub(now.mono_ms));
        channel.handle_timeout(*now);
        for bytes in broadcasts(&drain(channel)) {
            let view = MessageView::parse(Profile::Lip, &bytes).unwrap();
            if view.content.is_none() {
                return view.causal.iter().map(|entry| text(entry.id)).collect();
            }
        }
    }
}

/// One with a log of which nobody cites the message `late` and its neighbours, before the tail.
fn with_late_ones(count: u64) -> Channel {
    let mut config = config();
    (config.causal, config.sync_causal, config.sync) = (2, 2, true);
    let mut bob = channel("bob", config);
    for number in 1..=count {
        receive(&mut bob, START, &message("alice", &format!("late{number}"), L + number, &[]));
    }
    receive(&mut bob, START, &message("carol", "c1", L + 100, &[]));
    receive(&mut bob, START, &message("carol", "c2", L + 101, &["c1"]));
    drain(&mut bob);
    bob
}

#[test]
fn what_only_sync_messages_or_waiting_ones_cite_is_cited_all_the_same() {
    let mut bob = with_late_ones(2);
    let sync = Message { content: None, ..message("dave", "s", L + 200, &["late1"]) };
    receive(&mut bob, START, &sync);
    // It waits for one that does not exist, and is never part of the log.
    receive(&mut bob, START, &message("mallory", "x", L + 201, &["late2", "none"]));
    drain(&mut bob);
    assert_eq!(next_sync(&mut bob, &mut START.clone()), ["late1", "late2", "c1", "c2"]);
}

#[test]
fn a_message_that_waited_cites_others_when_it_is_in_the_log() {
    let mut bob = with_late_ones(1);
    receive(&mut bob, START, &message("dave", "d2", L + 201, &["late1", "d1"]));
    receive(&mut bob, START, &message("dave", "d1", L + 200, &["c2"]));
    drain(&mut bob);
    assert_eq!(next_sync(&mut bob, &mut START.clone()), ["d1", "d2"]);
}

#[test]
fn however_many_messages_nobody_cites_each_has_its_turn() {
    let mut bob = with_late_ones(40);
    let mut now = START;
    let mut cited: Vec<String> = (0..3).flat_map(|_| next_sync(&mut bob, &mut now)).collect();
    cited.retain(|id| id.starts_with("late"));
    cited.sort();
    cited.dedup();
    assert_eq!(cited.len(), 40);
}

#[test]
fn a_group_with_losses_converges_and_delivers_everything_once() {
    let mut rng = mainstay_base::Rng::seeded(11);
    let mut group = Group::new(12, &Config::lip());
    for number in 0..40 {
        let who = number % 12;
        let lost: Vec<bool> = (0..12).map(|_| rng.below(100) < 30).collect();
        group.send(who, &format!("m{number}"), |to| !lost[to]);
        group.pass(2000, &mut |_, _, _| rng.below(100) >= 30);
    }
    group.pass(1_800_000, &mut |_, _, _| rng.below(100) >= 30);
    assert!(group.agrees(), "{:?}", group.logs());
    assert_eq!(group.logs()[0].len(), 40);
    for who in 0..12 {
        group.delivered(who);
    }
}
