//! A leader whose followers are enemies. It changes no record for them, holds no more for them than
//! it may, and takes no more writes only if one of them has shown a higher epoch.

#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use mainstay_fuzz::{
    folder::{Contents, Files},
    kinds::{Any, Fixed, Kind, Record, Sizes, records},
    stream::{Ends, Said},
    world,
};
use mainstay_replica::{
    LeadSettings, Leader,
    leader::{Input, Output},
    wire::{Hello, Message, decode, encode},
};
use mainstay_store::Position;
use std::{collections::BTreeMap, time::Duration};

#[derive(Arbitrary, Debug)]
enum Step {
    Connected(u8),
    /// A follower that fits, has lost everything, and has room for so much.
    Joined(u8, u8),
    Lost(u8),
    Said(u8, Said),
    Later(u16),
    Written(Record),
    Taken,
}

const STEPS_MAX: usize = 64;
/// What waits for a follower beyond its allowance: a message of records or writes, and short ones.
const HELD_MAX: usize = 1 << 20;

thread_local! {
    static FIXED: Contents = Fixed::base();
    static ANY: Contents = Any::base();
}

fuzz_target!(|data: &[u8]| {
    world::plant();
    let input = <(Sizes, Vec<Step>)>::arbitrary_take_rest(Unstructured::new(data));
    let Ok((sizes, steps)) = input else { return };
    match sizes {
        Sizes::Fixed => FIXED.with(|base| try_all(&Fixed::open(Files::of(base)), &steps)),
        Sizes::Any => ANY.with(|base| try_all(&Any::open(Files::of(base)), &steps)),
    }
});

/// What a follower has allowed, and was sent of what counts.
#[derive(Default)]
struct Flow {
    allowance: u64,
    sent: u64,
    largest: u64,
}

fn try_all<S: Kind>(store: &S, steps: &[Step]) {
    let places = (0..2).map(|shard| {
        store.history(shard).ok().and_then(|history| history.position()).unwrap_or(Position::START)
    });
    let ends = Ends { identity: store.who(), epoch: store.epoch(), places: places.collect() };
    let mut wanted = records(store).expect("it is sound");
    let mut now = Duration::ZERO;
    let mut leader = Leader::new(store.clone(), LeadSettings::default(), now);
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
            Step::Written(record) => {
                // Local writes have no ends here.
                let record = Record { end: 0, ..*record };
                if let Ok(shard) = store.put(record) {
                    let (key, rest) = (record.key(&ends.identity), record.rest(&ends.identity));
                    wanted[shard as usize].insert(key, rest);
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
    assert_eq!(records(store).expect("it is sound"), wanted, "followers change nothing");
}

fn take(leader: &mut Leader<impl Kind>, now: Duration, flows: &mut BTreeMap<u64, Flow>) {
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
