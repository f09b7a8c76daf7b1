//! Who committed which version: every version since the last judgement has one author, and every
//! author all of its versions or none.

use super::ledger::{Phase, STATES, Seen, Touch};
use crate::{
    finding::{Check, Finding, ensure},
    verdict::Harm::{Lost, Torn},
};
use mainstay_sim::check::{Ledger as History, Transaction};
use std::collections::BTreeMap;

/// Versions of all states at one moment.
pub(super) type Versions = [u64; STATES];

/// A thread has one transaction open at most, so there are never more than this.
const OPEN_MAX: usize = 16;

/// What was committed between two moments.
#[derive(Debug)]
pub(super) struct Committed {
    pub(super) transactions: Vec<Seen>,
    /// The authors of those that were open and are there for certain: no other choice would
    /// explain what is there.
    pub(super) counted: Vec<u64>,
}

/// Which of the transactions were committed between two moments: the acknowledged ones, and of the
/// open ones those without which a version would have no author.
///
/// # Errors
/// An acknowledged commit is not there; one that is there was refused; a version has two authors or
/// none; an open transaction is there in part.
pub(super) fn committed(from: &Versions, to: &Versions, all: Vec<Seen>) -> Check<Committed> {
    // An open one of somebody who was frozen may have been counted the last time.
    let is_news = |seen: &Seen| {
        let is_late = |touch: &Touch| {
            // Whoever publishes may have slept over any number of versions before it did.
            touch.version >= from[touch.state]
                || touch.blind && seen.phase == Phase::Open && !seen.counted
        };
        seen.writes().all(is_late)
    };
    let mut authors: BTreeMap<(usize, u64), u64> = BTreeMap::new();
    for seen in &all {
        ensure(!seen.counted || seen.phase != Phase::Refused, Lost, || {
            format!("a commit that is there was refused: {}", describe(seen))
        })?;
        if seen.phase != Phase::Committed || !is_news(seen) {
            continue;
        }
        for touch in seen.writes() {
            let (state, version) = (touch.state, touch.version + 1);
            ensure(version <= to[state], Lost, || {
                format!("acknowledged, and the states are at {to:?}: {}", describe(seen))
            })?;
            let other = authors.insert((state, version), seen.author);
            ensure(other.is_none(), Lost, || {
                let other = other.unwrap_or(0);
                format!("what {other} has written was acknowledged again: {}", describe(seen))
            })?;
        }
    }
    let missing: Vec<(usize, u64)> = (0..STATES)
        .flat_map(|state| (from[state] + 1..=to[state]).map(move |version| (state, version)))
        .filter(|version| !authors.contains_key(version))
        .collect();
    let is_open = |seen: &&Seen| seen.phase == Phase::Open && is_news(seen);
    let open: Vec<&Seen> = all.iter().filter(is_open).collect();
    ensure(open.len() <= OPEN_MAX, Torn, || format!("{} transactions are open", open.len()))?;
    let explain = |choice: u32| {
        let chosen = open.iter().enumerate().filter(|(at, _)| choice & 1 << at != 0);
        explain(&missing, chosen.map(|(_, seen)| (*seen).clone()).collect())
    };
    let mut choices = (0_u32..1 << open.len()).filter_map(explain);
    let Some(chosen) = choices.next() else {
        let open: Vec<String> = open.into_iter().map(describe).collect();
        return Err(Finding {
            harm: Torn,
            what: format!(
                "no whole transactions of the dead explain the versions {missing:?}; open were \
                 {open:?}"
            ),
        });
    };
    let mut counted: Vec<u64> = chosen.iter().map(|seen| seen.author).collect();
    let is_there = |seen: &&Seen| seen.phase == Phase::Committed && is_news(seen);
    let transactions = all.iter().filter(is_there).cloned().chain(chosen).collect();
    if choices.next().is_some() {
        counted.clear();
    }
    Ok(Committed { transactions, counted })
}

/// These transactions as they made exactly the versions that are missing; none if they cannot have.
fn explain(missing: &[(usize, u64)], mut chosen: Vec<Seen>) -> Option<Vec<Seen>> {
    let mut left = missing.to_vec();
    for touch in chosen.iter().flat_map(Seen::writes).filter(|touch| !touch.blind) {
        let at = left.iter().position(|made| *made == (touch.state, touch.version + 1))?;
        left.remove(at);
    }
    // Of those who published nobody knows who was first; by when they began fits if anything does.
    chosen.sort_by_key(|seen| seen.began);
    for touch in chosen.iter_mut().flat_map(|seen| &mut seen.touches).filter(|touch| touch.blind) {
        let (state, after) = (touch.state, touch.version);
        let at = left.iter().position(|(at, version)| *at == state && *version > after)?;
        touch.version = left.remove(at).1 - 1;
    }
    left.is_empty().then_some(chosen)
}

fn describe(seen: &Seen) -> String {
    let writes = seen.writes().map(|touch| (touch.state, touch.version + 1));
    format!("{}: {:?}", seen.author, writes.collect::<Vec<_>>())
}

/// There is one order of all these transactions in which each of them read and wrote what it did,
/// and in which whoever had ended before another began comes before it. `from` was there at the
/// time `since`.
///
/// # Errors
/// A circle of transactions each of which comes before the next; a version that was old before the
/// transaction began.
pub(super) fn serializable(from: &Versions, since: u64, all: &[Seen]) -> Check {
    let mut history = History::new();
    for (state, version) in from.iter().enumerate() {
        history.initial(state, *version);
    }
    for seen in all {
        let old = seen.touches.iter().find(|touch| touch.version < from[touch.state]);
        if let Some(Touch { state, version, .. }) = old {
            ensure(seen.began < since, Torn, || {
                format!(
                    "not serializable: {} began after version {} of state {state} was there, and \
                     read version {version}",
                    seen.author, from[*state]
                )
            })?;
            // A reader that was frozen: what came before it is forgotten by now.
            continue;
        }
        let mut transaction = Transaction::new(seen.author.to_string());
        for touch in &seen.touches {
            transaction = transaction.reads(touch.state, touch.version);
            if touch.writes {
                transaction = transaction.writes(touch.state, touch.version + 1);
            }
        }
        history.commit(transaction.ran(seen.began, seen.ended));
    }
    match history.strictly_serializable() {
        Ok(_) => Ok(()),
        Err(anomaly) => Err(Finding { harm: Torn, what: format!("not serializable: {anomaly}") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(state: usize, version: u64) -> Touch {
        Touch::write(state, version - 1)
    }

    fn read(state: usize, version: u64) -> Touch {
        Touch::read(state, version)
    }

    fn seen(phase: Phase, author: u64, (began, ended): (u64, u64), touches: &[Touch]) -> Seen {
        Seen { phase, counted: false, author, began, ended, touches: touches.to_vec() }
    }

    const BEFORE: Versions = [4; STATES];

    fn after(changes: &[(usize, u64)]) -> Versions {
        let mut versions = BEFORE;
        changes.iter().for_each(|(state, version)| versions[*state] = *version);
        versions
    }

    #[test]
    fn acknowledged_versions_must_be_there_once() {
        let one = seen(Phase::Committed, 1, (0, 1), &[write(0, 5)]);
        let two = seen(Phase::Committed, 2, (0, 1), &[write(0, 5)]);
        let to = after(&[(0, 5)]);
        let done = committed(&BEFORE, &to, vec![one.clone()]).unwrap();
        assert_eq!(done.transactions, vec![one.clone()]);
        assert_eq!(committed(&BEFORE, &BEFORE, vec![one.clone()]).unwrap_err().harm, Lost);
        assert_eq!(committed(&BEFORE, &to, vec![one, two]).unwrap_err().harm, Lost);
        assert_eq!(committed(&BEFORE, &to, vec![]).unwrap_err().harm, Torn);
    }

    #[test]
    fn an_open_transaction_is_there_whole_or_not_at_all() {
        let dead = |author| seen(Phase::Open, author, (0, u64::MAX), &[write(0, 5), write(1, 5)]);
        let whole = after(&[(0, 5), (1, 5)]);
        let done = |to: &Versions, all| committed(&BEFORE, to, all).unwrap();
        let one = done(&whole, vec![dead(1)]);
        assert_eq!((one.transactions.len(), one.counted), (1, vec![1]));
        // Which of the two it was, nobody knows.
        let either = done(&whole, vec![dead(1), dead(2)]);
        assert_eq!((either.transactions.len(), either.counted), (1, vec![]));
        assert_eq!(done(&BEFORE, vec![dead(1)]).transactions.len(), 0);
        let half = after(&[(0, 5)]);
        assert_eq!(committed(&BEFORE, &half, vec![dead(1)]).unwrap_err().harm, Torn);
        let other = seen(Phase::Committed, 3, (0, 1), &[write(1, 5)]);
        assert!(committed(&BEFORE, &whole, vec![dead(1), other]).is_err());
    }

    #[test]
    fn what_was_counted_once_is_not_counted_again_and_must_not_be_refused() {
        let mut late = seen(Phase::Committed, 1, (0, 9), &[write(0, 4), write(1, 4)]);
        late.counted = true;
        assert_eq!(committed(&BEFORE, &BEFORE, vec![late.clone()]).unwrap().transactions, []);
        late.phase = Phase::Refused;
        assert_eq!(committed(&BEFORE, &BEFORE, vec![late]).unwrap_err().harm, Lost);
    }

    #[test]
    fn who_published_and_died_has_made_any_one_version_that_has_no_other_author() {
        let dead = |author, after| {
            seen(Phase::Open, author, (author, u64::MAX), &[Touch::publish(0, after)])
        };
        let other = seen(Phase::Committed, 9, (0, 5), &[write(0, 5)]);
        let done = |to, all| committed(&BEFORE, &after(&[(0, to)]), all);
        let late = done(6, vec![dead(1, 4), other.clone()]).unwrap();
        assert_eq!(late.counted, [1]);
        assert_eq!(late.transactions[1].touches, [Touch::publish(0, 5)]);
        // Also one that was frozen since before the last judgement.
        assert_eq!(done(5, vec![dead(1, 2)]).unwrap().counted, [1]);
        // Two that died made two versions, or one of them one.
        assert_eq!(done(6, vec![dead(1, 4), dead(2, 4)]).unwrap().counted, [1, 2]);
        assert_eq!(done(5, vec![dead(1, 4), dead(2, 4)]).unwrap().counted, [] as [u64; 0]);
        assert_eq!(done(6, vec![dead(1, 4)]).unwrap_err().harm, Torn);
        // Nobody makes a version that was there before it looked.
        assert_eq!(done(5, vec![dead(1, 5)]).unwrap_err().harm, Torn);
        let mut counted = dead(1, 2);
        counted.counted = true;
        assert_eq!(done(5, vec![counted]).unwrap_err().harm, Torn);
    }

    #[test]
    fn views_of_two_instants_and_stale_ones_are_not_serializable() {
        let one = seen(Phase::Committed, 1, (0, 10), &[write(0, 5), write(1, 5)]);
        let good = seen(Phase::Committed, 2, (5, 20), &[read(0, 5), read(1, 5)]);
        let split = seen(Phase::Committed, 2, (5, 20), &[read(0, 5), read(1, 4)]);
        let stale = seen(Phase::Committed, 2, (15, 20), &[read(0, 4), read(1, 4)]);
        assert!(serializable(&BEFORE, 0, &[one.clone(), good]).is_ok());
        assert!(serializable(&BEFORE, 0, &[one.clone(), split]).is_err());
        assert!(serializable(&BEFORE, 0, &[one, stale]).is_err());
    }

    #[test]
    fn a_version_that_was_old_before_a_reader_began_is_seen() {
        let reader = |began| seen(Phase::Committed, 1, (began, 30), &[read(0, 3)]);
        assert!(serializable(&BEFORE, 10, &[reader(5)]).is_ok(), "it was frozen");
        assert!(serializable(&BEFORE, 10, &[reader(15)]).is_err());
    }
}
