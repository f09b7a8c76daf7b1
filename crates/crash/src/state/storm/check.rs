//! The judge: compares the states with the ledger while the workers rest, are frozen, or are dead.

use super::{
    SLOTS,
    account::{self, Committed, Versions},
    ledger::{ALL, Ledger, STATES, Storm, Tallies, now_ns},
};
use crate::{
    finding::{Check, Finding, ensure},
    state::{
        actor::{Actor, Plan},
        site,
    },
    storm::{Found, WORKERS},
    verdict::{
        Harm::{Leaked, Torn},
        Verdict,
    },
};
use mainstay_shm::Access;
use mainstay_state::{Domain, Error};
use std::{
    path::Path,
    sync::atomic::Ordering::SeqCst,
    thread,
    time::{Duration, Instant},
};

/// How long the kernel may take to end a process that was killed.
const DEATH_TIME_MAX: Duration = Duration::from_secs(2);

pub(super) struct Judge<'a> {
    pub(super) ledger: &'a Ledger,
    pub(super) verdict: &'a Verdict,
    pub(super) folder: &'a Path,
    pub(super) found: [Found; WORKERS],
    /// Nobody has died since the last judgement.
    pub(super) none_died: bool,
}

impl Judge<'_> {
    /// Everything there is to check. Findings are reported one by one.
    pub(super) fn judge(&self) {
        self.note(self.judge_all());
    }

    pub(super) fn note(&self, check: Check) {
        if let Err(Finding { harm, what }) = check {
            self.verdict.report(harm, &format!("the judge: {what}"));
        }
    }

    fn any_frozen(&self) -> bool {
        self.found.iter().any(|found| matches!(found, Found::Frozen { .. }))
    }

    fn judge_all(&self) -> Check {
        let actor = Actor::open::<Storm>(self.folder, &ALL, Access::ReadWrite)?;
        if self.none_died && !self.any_frozen() {
            // The living let go of what they had, without anybody's help.
            self.note(self.nobody_holds_anything(&actor));
        }
        let before = versions(&actor)?;
        for at in ALL {
            actor.state(at).scavenge()?;
        }
        if !self.any_frozen() {
            self.note(self.nobody_holds_anything(&actor));
            self.note(all_slots_are_free(&actor));
        }
        let after = versions(&actor)?;
        ensure(before == after, Torn, || {
            format!("versions change while all rest: {before:?}, then {after:?}")
        })?;
        self.note(self.compare(&after));
        Ok(())
    }

    /// What the logs say, and what is there.
    fn compare(&self, to: &Versions) -> Check {
        let from: Versions = std::array::from_fn(|at| self.ledger.judged[at].load(SeqCst));
        let logs = self.ledger.logs.iter().flatten();
        let all = logs.flat_map(|log| log.entries().collect::<Vec<_>>()).collect();
        let done = account::committed(&from, to, all);
        let counted = done.as_ref().map_or(&[][..], |done| &done.counted);
        for (row, found) in self.found.iter().enumerate() {
            for log in &self.ledger.logs[row] {
                match found {
                    Found::Frozen { .. } => log.keep_the_open_one(counted),
                    Found::Resting { .. } | Found::Dead => log.clear(),
                }
            }
        }
        ALL.iter().for_each(|at| self.ledger.judged[*at].store(to[*at], SeqCst));
        let since = self.ledger.judged_at.swap(now_ns(), SeqCst);
        let Committed { transactions, .. } = done?;
        account::serializable(&from, since, &transactions)?;
        Tallies::add(&self.ledger.tallies.checked, transactions.len() as u64);
        Ok(())
    }

    /// At rest nobody has a claim or a pin, and of the dead nothing is left.
    fn nobody_holds_anything(&self, actor: &Actor) -> Check {
        for name in Storm::NAMES {
            let info = actor.domain.info(name)?;
            for other in info.into_iter().flat_map(|info| info.subscribers) {
                let holds = other.claims > 0 || other.pins > 0 || !other.alive;
                ensure(!holds, Leaked, || {
                    format!("{name}: at rest, somebody still holds something: {other:?}")
                })?;
            }
        }
        Ok(())
    }

    /// Adds what the library has counted in this folder, and removes what workers that were killed
    /// have left of passing states.
    pub(super) fn tally_and_sweep(&self) -> Check {
        let domain = Domain::open(self.folder)?;
        site::age(self.folder);
        domain.sweep()?;
        let (counted, tallies) = (domain.counters(), &self.ledger.tallies);
        Tallies::add(&tallies.conflicts, counted.conflicts);
        Tallies::add(&tallies.claims, counted.scavenged_claims);
        Tallies::add(&tallies.pins, counted.scavenged_pins);
        Tallies::add(&tallies.records, counted.ended_records);
        Ok(())
    }

    /// The last subscriber leaves in an orderly way: nothing is left, and nobody had to look.
    pub(super) fn all_evaporate(&self) -> Check {
        self.until_empty(|| Ok(()))
    }

    /// The last subscriber was killed: the next who looks finds nothing.
    pub(super) fn all_evaporate_when_looked_at(&self) -> Check {
        self.until_empty(|| {
            site::age(self.folder);
            Ok(Domain::open(self.folder)?.sweep().map(drop)?)
        })?;
        let reader = Actor::open::<Storm>(self.folder, &ALL, Access::ReadOnly);
        let gone =
            matches!(&reader, Err(refusal) if refusal.is(|e| matches!(e, Error::NotFound { .. })));
        ensure(gone, Leaked, || "a state without subscribers can be read".into())?;
        let next = Actor::make::<Storm>(self.folder, SLOTS)?;
        let versions = versions(&next)?;
        ensure(versions == [0; STATES], Leaked, || {
            format!("the next subscriber begins with versions {versions:?}")
        })
    }

    fn until_empty(&self, look: impl Fn() -> Check) -> Check {
        let until = Instant::now() + DEATH_TIME_MAX;
        loop {
            look()?;
            let files = site::files(self.folder);
            if files.is_empty() {
                return Ok(());
            }
            ensure(Instant::now() < until, Leaked, || {
                format!("nobody is subscribed, and the folder holds {files:?}")
            })?;
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The versions of one instant: each whole, and the accounts add up.
fn versions(actor: &Actor) -> Check<Versions> {
    let contents = actor.look(&ALL)?;
    Ok(std::array::from_fn(|at| contents[at].version))
}

/// Every slot but the current one can be had.
fn all_slots_are_free(actor: &Actor) -> Check {
    for at in ALL {
        let free = actor.claim_all(at)?.len();
        ensure(free == SLOTS as usize - 1, Leaked, || {
            let info = actor.domain.info(Storm::NAMES[at]);
            format!(
                "{}: {free} slots can be had, and {} should be: {:?}",
                Storm::NAMES[at],
                SLOTS - 1,
                info.map(|info| info.map(|info| info.subscribers))
            )
        })?;
    }
    Ok(())
}
