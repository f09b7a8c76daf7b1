//! What comes back from a place that keeps channels: damaged changes are refused, and whatever is
//! accepted makes a channel that works.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mainstay_base::crc32c;
use mainstay_sds::{Channel, Config, Keep, NimSnapshot, Now, wire::Profile};

fuzz_target!(|bytes: &[u8]| {
    let now = Now { mono_ms: 1000, wall_ms: 1_760_000_000_000 };
    for profile in [Profile::Lip, Profile::Nim] {
        let mut config = if profile == Profile::Lip { Config::lip() } else { Config::nim() };
        (config.keep, config.confirm, config.history) = (Keep::Durable, true, 4);
        let _refused = Channel::load("room", b"bob", config.clone(), now, &[bytes]);
        // With a right checksum, to get at what is behind it.
        let mut sealed = b"MSDC\x01".to_vec();
        sealed.push(u8::from(profile == Profile::Nim));
        sealed.extend_from_slice(bytes);
        let crc = crc32c(&sealed);
        sealed.extend_from_slice(&crc.to_le_bytes());
        if let Ok(channel) = Channel::load("room", b"bob", config.clone(), now, &[sealed]) {
            works(channel, now);
        }
    }
    let _meta = NimSnapshot::parse_meta(bytes);
    let mut snapshot = NimSnapshot::default();
    let _update = snapshot.apply_history_update(bytes);
    if let Ok(snapshot) = NimSnapshot::parse(bytes)
        && let Ok(channel) = Channel::import_nim("room", b"bob", Config::nim(), now, &snapshot)
    {
        works(channel, now);
    }
});

fn works(mut channel: Channel, now: Now) {
    drain(&mut channel);
    let _full_or_late = channel.send(now, b"fuzz", b"content");
    drain(&mut channel);
    for _ in 0..50 {
        let Some(at) = channel.poll_timeout() else { break };
        channel.handle_timeout(now.after(at.saturating_sub(now.mono_ms)));
        drain(&mut channel);
    }
    let ids: Vec<Vec<u8>> = channel.log().map(|entry| entry.id.to_vec()).collect();
    let mut unique = ids.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), ids.len(), "D1");
}

fn drain(channel: &mut Channel) {
    loop {
        let number = match channel.poll_output() {
            None => return,
            Some(mainstay_sds::Output::Persist(change)) => Some(change.number),
            Some(_) => None,
        };
        if let Some(number) = number {
            channel.persisted(number);
        }
    }
}
