//! LIP-109, Receive Message; Resolve Conflicts. Any order of arrival, with repetitions, gives the
//! same log, each message delivered once and after what it depends on.

use std::collections::HashSet;

use mainstay_base::Rng;
use mainstay_sds::{
    Channel, Config, FilterPolicy,
    wire::{Message, Profile},
};
use proptest::prelude::*;

use crate::group::{Group, START, Said, channel, drain, log};

/// A conversation: some writers who hear each other late, and the messages they send.
fn conversation(seed: u64, writers: usize, count: usize, profile: Profile) -> Vec<Vec<u8>> {
    let mut config = match profile {
        Profile::Lip => Config::lip(),
        Profile::Nim => Config::nim_own(),
    };
    (config.only_own_peers, config.filter_capacity) = (true, 100);
    config.filter_policy = FilterPolicy::Sparse;
    config.sync = false;
    let mut rng = Rng::seeded(seed);
    let mut channels: Vec<Channel> =
        (0..writers).map(|who| channel(&format!("w{who}"), config.clone())).collect();
    let mut sent: Vec<Vec<u8>> = Vec::new();
    let mut heard = vec![0; writers];
    for number in 0..count {
        let who = rng.below(writers as u64) as usize;
        // It has heard all up to some point.
        let up_to = heard[who] + rng.below((sent.len() - heard[who]) as u64 + 1) as usize;
        for bytes in &sent[heard[who]..up_to] {
            channels[who].receive(START, bytes).unwrap();
        }
        heard[who] = up_to;
        drain(&mut channels[who]);
        let now = START.after(rng.below(3));
        channels[who].send(now, format!("m{number}").as_bytes(), b"content").unwrap();
        let said = drain(&mut channels[who]);
        let Some(Said::Broadcast { bytes, .. }) = said.into_iter().next() else { panic!() };
        sent.push(bytes);
    }
    sent
}

fn shuffle<T>(items: &mut [T], rng: &mut Rng) {
    for end in (1..items.len()).rev() {
        items.swap(end, rng.below(end as u64 + 1) as usize);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn the_log_does_not_depend_on_the_order_of_arrival(
        seed in any::<u64>(),
        writers in 1_usize..6,
        count in 1_usize..60,
        nim in any::<bool>(),
    ) {
        let profile = if nim { Profile::Nim } else { Profile::Lip };
        let sent = conversation(seed, writers, count, profile);
        let config = if nim { Config::nim_own() } else { Config::lip() };
        let mut rng = Rng::seeded(seed ^ 1);
        let mut logs = Vec::new();
        for reader in 0..3 {
            let mut arriving: Vec<&Vec<u8>> = sent.iter().chain(&sent[..count / 2]).collect();
            if reader > 0 {
                shuffle(&mut arriving, &mut rng);
            }
            let mut channel = channel(&format!("r{reader}"), config.clone());
            let mut seen: HashSet<Vec<u8>> = HashSet::new();
            for bytes in arriving {
                channel.receive(START, bytes).unwrap();
                for said in drain(&mut channel) {
                    let Said::Delivered { id, .. } = said else { continue };
                    let message = sent.iter().map(|bytes| Message::decode(profile, bytes).unwrap())
                        .find(|message| message.id == id.as_bytes()).unwrap();
                    for entry in &message.causal {
                        prop_assert!(seen.contains(&entry.id), "{id} before what it depends on");
                    }
                    prop_assert!(seen.insert(message.id), "{} twice", id);
                }
            }
            prop_assert_eq!(channel.counts().buffered, 0);
            prop_assert_eq!(channel.counts().missing, 0);
            logs.push(log(&channel));
        }
        prop_assert_eq!(&logs[0], &logs[1]);
        prop_assert_eq!(&logs[0], &logs[2]);
        prop_assert_eq!(logs[0].len(), count);
    }

    #[test]
    fn a_group_that_loses_messages_at_random_ends_with_one_log(
        seed in any::<u64>(),
        size in 2_usize..7,
        loss in 0_u64..50,
    ) {
        let mut rng = Rng::seeded(seed);
        let mut config = Config::lip();
        config.participants = size as u32;
        let mut group = Group::new(size, &config);
        for number in 0..15 {
            let who = rng.below(size as u64) as usize;
            let lost: Vec<bool> = (0..size).map(|_| rng.below(100) < loss).collect();
            group.send(who, &format!("m{number}"), |to| !lost[to]);
            let pause = rng.below(20_000);
            group.pass(pause, &mut |_, _, _| rng.below(100) >= loss);
        }
        group.pass(3 * 3_600_000, &mut |_, _, _| rng.below(100) >= loss);
        prop_assert!(group.agrees(), "{:?}", group.logs());
        prop_assert_eq!(group.logs()[0].len(), 15);
        for who in 0..size {
            group.delivered(who);
        }
    }
}
