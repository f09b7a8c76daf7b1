//! The checker of transactions against every order tried by hand.

#![allow(clippy::unwrap_used, reason = "helpers of tests; a test may fail at any of them")]

use mainstay_base::Rng;
use mainstay_sim::{
    Chance,
    check::{Anomaly, Ledger, Reason, Transaction},
};
use std::collections::BTreeMap;

type Key = u8;
type Version = u64;
type Tx = Transaction<Key, Version>;

const KEYS: u64 = 3;

/// Does this order explain all? Each reads what is there, and what it writes is newer.
fn explains(order: &[&Tx]) -> bool {
    let mut there: BTreeMap<Key, Version> = (0..KEYS as u8).map(|key| (key, 0)).collect();
    order.iter().all(|tx| {
        let right = tx.reads.iter().all(|(key, version)| there[key] == *version);
        let newer = tx.writes.iter().all(|(key, version)| *version > there[key]);
        there.extend(tx.writes.iter().copied());
        right && newer
    })
}

/// Every order, without any cleverness; `strict` ones keep to time.
fn by_hand<'a>(chosen: &mut Vec<&'a Tx>, left: &[&'a Tx], strict: bool) -> bool {
    if !explains(chosen) {
        return false;
    }
    if left.is_empty() {
        return true;
    }
    (0..left.len()).any(|next| {
        let begins = left[next].ran.unwrap().0;
        let too_early = strict && left.iter().any(|other| other.ran.unwrap().1 < begins);
        let rest = [&left[..next], &left[next + 1..]].concat();
        chosen.push(left[next]);
        let found = !too_early && by_hand(chosen, &rest, strict);
        chosen.pop();
        found
    })
}

/// Transactions against a store that runs them one by one, except that some read what was there
/// some time ago.
fn transactions(rng: &mut Rng, count: usize, stale_ppm: u32) -> Vec<Tx> {
    let mut versions: BTreeMap<Key, Vec<Version>> =
        (0..KEYS as u8).map(|key| (key, vec![0])).collect();
    let mut made = 0;
    (0..count)
        .map(|at| {
            let began = (at as u64 * 10).saturating_sub(rng.below(25));
            let mut tx = Tx::new(format!("t{at}")).ran(began, at as u64 * 10 + rng.below(25));
            for (key, versions) in &mut versions {
                if rng.chance(500_000) {
                    let stale = rng.chance(stale_ppm);
                    let back = if stale { rng.below(versions.len() as u64) as usize } else { 0 };
                    tx = tx.reads(*key, versions[versions.len() - 1 - back]);
                }
                if rng.chance(400_000) {
                    made += 1;
                    versions.push(made);
                    tx = tx.writes(*key, made);
                }
            }
            tx
        })
        .collect()
}

fn ledger(transactions: &[Tx]) -> Ledger<Key, Version> {
    let mut ledger = Ledger::new();
    (0..KEYS as u8).for_each(|key| ledger.initial(key, 0));
    transactions.iter().for_each(|tx| ledger.commit(tx.clone()));
    ledger
}

/// Each edge of a circle is a fact, and the circle is closed.
fn check_circle(transactions: &[Tx], anomaly: &Anomaly<Key, Version>) {
    let Anomaly::Cycle(edges) = anomaly else { panic!("{anomaly}") };
    assert!(edges.len() >= 2, "{anomaly}");
    let find = |name: &str| transactions.iter().find(|tx| tx.name == name).unwrap();
    for (at, edge) in edges.iter().enumerate() {
        assert_eq!(edge.after, edges[(at + 1) % edges.len()].before, "{anomaly}");
        let (before, after) = (find(&edge.before), find(&edge.after));
        let next_of = |key: &Key, version: &Version| {
            let all = transactions.iter().flat_map(|tx| &tx.writes);
            all.filter(|(other, made)| other == key && made > version).map(|(_, made)| *made).min()
        };
        let is_fact = match &edge.reason {
            Reason::ReadFrom(key, version) => {
                before.writes.contains(&(*key, *version)) && after.reads.contains(&(*key, *version))
            }
            Reason::Overwritten(key, version) => {
                let next = next_of(key, version).unwrap();
                before.writes.contains(&(*key, *version)) && after.writes.contains(&(*key, next))
            }
            Reason::ReadBefore(key, version) => {
                let next = next_of(key, version).unwrap();
                before.reads.contains(&(*key, *version)) && after.writes.contains(&(*key, next))
            }
            Reason::RealTime => before.ran.unwrap().1 < after.ran.unwrap().0,
        };
        assert!(is_fact, "{edge}");
    }
}

#[test]
fn g1_g2_on_random_transactions_the_checker_agrees_with_every_order_tried_by_hand() {
    for (strict, seeds) in [(false, 0..3_000), (true, 10_000..13_000)] {
        let mut good = 0;
        for seed in seeds.clone() {
            let mut rng = Rng::seeded(seed);
            let stale_ppm = *rng.pick(&[0, 200_000]);
            let mut transactions = transactions(&mut rng, 6, stale_ppm);
            rng.shuffle(&mut transactions);
            let ledger = ledger(&transactions);
            let found = if strict { ledger.strictly_serializable() } else { ledger.serializable() };
            let all: Vec<_> = transactions.iter().collect();
            let expected = by_hand(&mut Vec::new(), &all, strict);
            assert_eq!(found.is_ok(), expected, "seed {seed}: {found:?} {transactions:#?}");
            match found {
                Ok(order) => {
                    good += 1;
                    let in_order = order.iter().map(|name| all.iter().find(|tx| tx.name == *name));
                    let in_order: Vec<&Tx> = in_order.map(|tx| *tx.unwrap()).collect();
                    assert!(in_order.len() == all.len() && explains(&in_order), "seed {seed}");
                }
                Err(anomaly) => check_circle(&transactions, &anomaly),
            }
        }
        assert!((1_000..2_900).contains(&good), "{good} of {seeds:?}");
    }
}

#[test]
fn a_lost_update_is_found_with_both_who_made_it() {
    let mut ledger = ledger(&[]);
    ledger.commit(Tx::new("t1").reads(0, 0).writes(0, 1));
    ledger.commit(Tx::new("t2").reads(0, 0).writes(0, 1));
    let by = ["t1".to_owned(), "t2".to_owned()];
    assert_eq!(ledger.serializable(), Err(Anomaly::WrittenTwice { key: 0, version: 1, by }));
    // The version that was there from the beginning cannot be made again either.
    let mut ledger = self::ledger(&[]);
    ledger.commit(Tx::new("t1").writes(0, 0));
    assert!(matches!(ledger.serializable(), Err(Anomaly::WrittenTwice { .. })));
}

#[test]
fn a_read_of_what_nobody_committed_is_found() {
    let mut ledger = ledger(&[]);
    ledger.commit(Tx::new("t1").reads(0, 5));
    let by = "t1".to_owned();
    assert_eq!(ledger.serializable(), Err(Anomaly::ReadFromNobody { key: 0, version: 5, by }));
}

#[test]
fn g3_a_stale_read_after_the_write_had_committed_is_serializable_and_not_strictly() {
    let stale = |began| {
        let mut ledger = ledger(&[]);
        ledger.commit(Tx::new("writer").writes(0, 1).ran(0, 10));
        ledger.commit(Tx::new("bystander").reads(1, 0).ran(12, 14));
        ledger.commit(Tx::new("reader").reads(0, 0).ran(began, began + 5));
        assert!(ledger.serializable().is_ok());
        ledger.strictly_serializable()
    };
    assert!(stale(10).is_ok(), "it began before the other was known to have committed");
    let Err(Anomaly::Cycle(edges)) = stale(20) else { panic!("it must be found") };
    let names: Vec<_> = edges.iter().map(|edge| (&*edge.before, &*edge.after)).collect();
    assert_eq!(names.len(), 2);
    assert!(names.contains(&("writer", "reader")) && names.contains(&("reader", "writer")));
}

#[test]
fn a_hundred_thousand_transactions_are_checked_in_a_moment() {
    let mut rng = Rng::seeded(1);
    let transactions = transactions(&mut rng, 100_000, 0);
    assert_eq!(ledger(&transactions).strictly_serializable().unwrap().len(), 100_000);
}
