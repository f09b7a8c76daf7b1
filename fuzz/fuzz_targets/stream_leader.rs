//! A leader whose followers are enemies. It changes no record for them, holds no more for them than
//! it may, and takes no more writes only if one of them has shown a higher epoch.

#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use mainstay_fuzz::{
    folder::Files,
    store::{Base, contents, options},
    stream::{Ends, Said},
    world,
};
use mainstay_replica::{
    LeadSettings, Leader,
    leader::{Input, Output},
    wire::{Hello, Message, decode, encode},
};
use mainstay_store::{Durability, Position, RawStore};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

#[derive(Arbitrary, Debug)]
enum Step {
    Connected(u8),
    /// A follower that fits, has lost everything, and has room for so much.
    Joined(u8, u8),
    Lost(u8),
    Said(u8, Said),
    Later(u16),
    Written(u8, u8),
    Taken,
}

const STEPS_MAX: usize = 64;
/// What waits for a follower beyond its allowance: a message of records or writes, and short ones.
const HELD_MAX: usize = 1 << 20;

thread_local! {
    static BASE: Base = Base::new();
}

fuzz_target!(|data: &[u8]| {
    world::plant();
    let Ok(steps) = Vec::<Step>::arbitrary_take_rest(Unstructured::new(data)) else { return };
    BASE.with(|base| {
        let files = Files::of(&base.files);
        let store = RawStore::open(files, &options()).expect("nobody has damaged it");
        try_all(&Arc::new(store), &steps);
    });
});

/// What a follower has allowed, and was sent of what counts.
#[derive(Default)]
struct Flow {
    allowance: u64,
    sent: u64,
    largest: u64,
}

fn try_all(store: &Arc<RawStore<Files>>, steps: &[Step]) {
    let places = (0..2).map(|shard| {
        store.history(shard).ok().and_then(|history| history.position()).unwrap_or(Position::START)
    });
    let ends = Ends { identity: store.identity(), epoch: store.epoch(), places: places.collect() };
    let mut wanted = contents(store).expect("it is sound");
    let mut now = Duration::ZERO;
    let mut leader = Leader::new(Arc::clone(store), LeadSettings::default(), now);
    let mut flows = BTreeMap::<u64, Flow>::new();
    let mut highest = 0;
    for step in steps.iter().take(STEPS_MAX) {
        match step {
            Step::Connected(peer) => {
                let peer = u64::from(peer % 3);
                flows.insert(peer, Flow::default());
                leader.handle(now, Input::Connected { peer });
            }
            Step::Joined(peer, allowance) => {
                let peer = u64::from(peer % 3);
                let allowance = u64::from(*allowance);
                flows.insert(peer, Flow { allowance, ..Flow::default() });
                leader.handle(now, Input::Connected { peer });
                let (identity, write_bytes_max) = (ends.identity, 1 << 20);
                let hello = Hello { identity, write_bytes_max, ..Hello::default() };
                let at = Some(Position::START);
                let sync = |shard| Message::Sync { shard, at, is_empty: true };
                let ack = Message::Ack { allowance, acks: &[] };
                for message in [Message::Hello(hello), sync(0), sync(1), ack] {
                    let bytes = encode(ends.epoch, &message);
                    leader.handle(now, Input::Message { peer, bytes: &bytes });
                }
            }
            Step::Lost(peer) => leader.handle(now, Input::Lost { peer: u64::from(peer % 3) }),
            Step::Said(peer, said) => {
                let peer = u64::from(peer % 3);
                let bytes = said.bytes(&ends);
                if let Ok((epoch, message)) = decode(&bytes) {
                    highest = highest.max(epoch);
                    if let (Message::Ack { allowance, .. }, Some(flow)) =
                        (message, flows.get_mut(&peer))
                    {
                        flow.allowance = flow.allowance.max(allowance);
                    }
                }
                leader.handle(now, Input::Message { peer, bytes: &bytes });
            }
            Step::Later(by) => {
                now += Duration::from_millis((*by).into());
                leader.handle(now, Input::Tick);
            }
            Step::Written(key, of) => {
                let (key, value) = ([0, *key], [*of; 60]);
                if store.put(&key, &value, Durability::Memory).is_ok() {
                    let shard = store.shard(&key).expect("its length is right") as usize;
                    wanted[shard].insert(key.to_vec(), value.to_vec());
                } else {
                    assert!(highest > ends.epoch, "only a higher epoch ends a leader");
                }
            }
            Step::Taken => take(&mut leader, now, &mut flows),
        }
        let allowed: u64 = flows.values().map(|flow| flow.allowance.min(1 << 20)).sum();
        assert!(leader.held_bytes() as u64 <= allowed + 3 * HELD_MAX as u64, "N6");
        let _any = (leader.deadline(now), leader.lag(0, 0, now));
    }
    take(&mut leader, now, &mut flows);
    assert!(leader.replaced_by().is_none_or(|by| by <= highest), "E3");
    assert_eq!(contents(store).expect("it is sound"), wanted, "followers change nothing");
}

fn take(leader: &mut Leader<Arc<RawStore<Files>>>, now: Duration, flows: &mut BTreeMap<u64, Flow>) {
    for _ in 0..10_000 {
        let Some(output) = leader.poll(now) else { return };
        let Output::Send { peer, bytes, .. } = output else { continue };
        let (_, message) = decode(&bytes).expect("a leader sends messages");
        let counts = matches!(
            message,
            Message::Records { .. } | Message::Stale { .. } | Message::Writes { .. }
        );
        let Some(flow) = flows.get_mut(&peer).filter(|_| counts) else { continue };
        flow.sent += bytes.len() as u64;
        flow.largest = flow.largest.max(bytes.len() as u64);
        assert!(flow.sent <= flow.allowance.saturating_add(2 * flow.largest), "E2");
    }
    panic!("it says something for ever");
}
