//! Messages of both profiles: whatever is accepted is written again in one form, which is read as
//! the same message; what is refused is refused with a reason.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mainstay_fuzz::world;
use mainstay_sds::{
    Error, limits,
    wire::{Kind, Message, MessageView, Profile},
};

fuzz_target!(|bytes: &[u8]| {
    world::plant();
    for profile in [Profile::Lip, Profile::Nim] {
        let _channel = profile.channel_of(bytes);
        match MessageView::parse(profile, bytes) {
            Ok(view) => accepted(profile, bytes, &view),
            Err(Error::Malformed { at, .. }) => assert!(at <= bytes.len()),
            Err(Error::OtherProfile { expected, found }) => assert_ne!(expected, found),
            Err(Error::Limit { value, max, .. }) => assert!(value > max),
            Err(other) => panic!("an error that no message can have: {other}"),
        }
    }
});

fn accepted(profile: Profile, bytes: &[u8], view: &MessageView<'_>) {
    assert!(view.causal.len() <= limits::CAUSAL_MAX && view.requests.len() <= limits::REQUESTS_MAX);
    assert!(view.id.len() <= limits::ID_LEN_MAX);
    assert_eq!(view.causal.iter().count(), view.causal.len(), "W1");
    assert_eq!(view.requests.iter().count(), view.requests.len(), "W1");
    assert!(profile == Profile::Lip || view.lamport.is_some());
    if profile.channel_of(bytes).is_some() {
        assert_eq!(profile.channel_of(bytes), Some(view.channel));
    }
    let message = Message::from(view);
    assert_eq!(message.content.is_none(), view.kind() == Kind::Sync);
    let written = message.encode(profile);
    // W3: of an id that was written as absent or as empty the one form is kept.
    if let Ok(read) = Message::decode(profile, &written) {
        assert_eq!(read.encode(profile), written);
        assert_eq!(
            (&read.id, &read.causal, &read.content),
            (&message.id, &message.causal, &message.content)
        );
    } else {
        assert!(message.id.is_empty(), "{message:?}");
    }
}
