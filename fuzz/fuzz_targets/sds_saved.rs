//! What comes back from a place that keeps channels: damaged changes are refused, and whatever is
//! accepted makes a channel that works.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mainstay_base::crc32c;
use mainstay_fuzz::world;
use mainstay_sds::{Channel, Config, Keep, NimSnapshot, Now, wire::Profile};

fuzz_target!(|bytes: &[u8]| {
    world::plant();
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
        // A base and changes behind it, as the input cuts itself.
        let changes: Vec<Vec<u8>> =
            pieces(bytes).enumerate().map(|(at, piece)| change(profile, at, piece)).collect();
        if let Ok(channel) = Channel::load("room", b"bob", config.clone(), now, &changes) {
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

/// Cut where the input says: each piece has its length before it.
fn pieces(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (&len, behind) = rest.split_first()?;
        let (piece, others) = behind.split_at(usize::from(len).min(behind.len()));
        rest = others;
        Some(piece)
    })
    .take(16)
}

/// A change with a right head and checksum around some entries: the first one is a base, and their
/// numbers grow.
fn change(profile: Profile, at: usize, entries: &[u8]) -> Vec<u8> {
    let mut change = b"MSDC\x01".to_vec();
    change.extend_from_slice(&[u8::from(profile == Profile::Nim), u8::from(at == 0), 0]);
    for number in [at as u64 + 1, 1, 0, 3, 1] {
        change.extend_from_slice(&number.to_le_bytes());
    }
    change.extend_from_slice(entries);
    let crc = crc32c(&change);
    change.extend_from_slice(&crc.to_le_bytes());
    change
}

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
