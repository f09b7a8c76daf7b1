//! What the demo measured, and what follows from it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::ledger::Faults;
use super::packages::Packages;
use super::power::Power;
use super::vitals::Vitals;

/// One round: the recorder worked, was killed, and a successor took over.
#[derive(Clone, Copy, Default, Debug, Serialize)]
pub(super) struct Round {
    /// From 1.
    pub(super) round: u64,
    /// Processes killed: a second one when the successor was killed too, while it recovered.
    pub(super) kills: u64,
    /// How long the recorder was left to work.
    pub(super) worked_ms: f64,
    /// Records promised when it was killed.
    pub(super) held: u64,
    /// Whole records the successor found.
    pub(super) recovered: u64,
    /// Promised and not found.
    pub(super) lost: u64,
    /// Without a whole copy.
    pub(super) torn: u64,
    /// Live and nobody's.
    pub(super) leaked: u64,
    /// From the successor's joining to every block in its hands and checked.
    pub(super) recover_ms: f64,
    /// From the kill to the first new sample, starting a process included.
    pub(super) back_ms: f64,
    /// Of the reader, over the whole round.
    pub(super) reads_per_s: u64,
    /// The reader's longest time between two reads.
    pub(super) reader_gap_ms: f64,
    /// Records that the reader saw fall back behind an update it had seen: they count as lost.
    pub(super) rolled_back: u64,
    /// Gaps that nothing but the pool explains.
    pub(super) reader_stalls: u64,
    /// Fewest and most live blocks the watcher saw.
    pub(super) watched: [u64; 2],
}

impl Round {
    /// Adds what the ledger found.
    pub(super) fn add(&mut self, faults: Faults) {
        self.lost += faults.lost;
        self.torn += faults.torn;
        self.leaked += faults.leaked;
    }

    fn is_faultless(&self) -> bool {
        self.lost == 0 && self.torn == 0 && self.leaked == 0 && self.reader_stalls == 0
    }
}

/// The planned hand-over.
#[derive(Clone, Copy, Default, Debug, Serialize)]
pub(super) struct HandOver {
    /// Records handed over.
    pub(super) held: u64,
    /// From the last sample of the old recorder to the first of the new one.
    pub(super) pause_ms: f64,
    /// Of it, until the old one had parked every block and closed the pool.
    pub(super) close_ms: f64,
    /// Of it, the new one's taking and checking of every block.
    pub(super) recover_ms: f64,
}

/// Over all rounds, the hand-over and the last look.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub(super) struct Totals {
    pub(super) kills: u64,
    pub(super) lost: u64,
    pub(super) torn: u64,
    pub(super) leaked: u64,
    pub(super) reader_stalls: u64,
}

/// The whole demo.
#[derive(Clone, Default, Debug, Serialize)]
pub(super) struct Outcome {
    /// What decided the times of the kills.
    pub(super) seed: u64,
    /// The fault done on purpose, if one was.
    pub(super) planted: Option<&'static str>,
    /// Kills asked for.
    pub(super) kills_wanted: u64,
    /// Records at the end, by kind.
    pub(super) sampled: BTreeMap<&'static str, u64>,
    /// Entities beyond the limit of their kind, in the last sweep.
    pub(super) skipped: u64,
    /// Complete sweeps of all recorders.
    pub(super) sweeps: u64,
    /// Updates of all recorders that were acknowledged.
    pub(super) updates: u64,
    /// Of the reader, over everything.
    pub(super) reads: u64,
    /// `scheduler` or `cpu clock`: how a gap in reading is explained.
    pub(super) gaps_explained_by: &'static str,
    pub(super) rounds: Vec<Round>,
    pub(super) hand_over: HandOver,
    /// The first faults, one by one.
    pub(super) details: Vec<String>,
    /// Faults found outside of the rounds: at the hand-over and in the last look.
    pub(super) afterwards: Round,
    /// What the pool's own check found wrong in the end.
    pub(super) damage: u64,
    pub(super) seconds: f64,
    /// The second act; none if a planted fault ended the demo after the first.
    pub(super) vitals: Option<Vitals>,
    /// The third act; none if a planted fault ended the demo before it.
    pub(super) power: Option<Power>,
    /// The fourth act; none if a planted fault ended the demo before it.
    pub(super) packages: Option<Packages>,
    pub(super) totals: Totals,
    pub(super) ok: bool,
}

impl Outcome {
    /// Adds up, and judges.
    pub(super) fn conclude(mut self) -> Self {
        let mut totals = Totals::default();
        for round in self.rounds.iter().chain([&self.afterwards]) {
            totals.kills += round.kills;
            totals.lost += round.lost;
            totals.torn += round.torn;
            totals.leaked += round.leaked;
            totals.reader_stalls += round.reader_stalls;
        }
        self.totals = totals;
        self.ok = totals.kills >= self.kills_wanted
            && self.damage == 0
            && self.reads > 0
            && self.watched()[0] > 0
            && self.rounds.iter().all(|round| round.recovered > 0)
            && self.rounds.iter().chain([&self.afterwards]).all(Round::is_faultless);
        self
    }

    /// Adds the second act, and what it says about the whole.
    pub(super) fn with_vitals(mut self, vitals: Vitals) -> Self {
        self.ok &= vitals.ok;
        self.vitals = Some(vitals);
        self
    }

    /// Adds the third act, and what it says about the whole.
    pub(super) fn with_power(mut self, power: Power) -> Self {
        self.ok &= power.ok;
        self.power = Some(power);
        self
    }

    /// Adds the fourth act, and what it says about the whole.
    pub(super) fn with_packages(mut self, packages: Packages) -> Self {
        self.ok &= packages.ok;
        self.packages = Some(packages);
        self
    }

    /// How the planned hand-over went.
    pub(super) fn of_the_hand_over(&self) -> String {
        let HandOver { held, pause_ms, close_ms, recover_ms } = self.hand_over;
        format!(
            "Planned hand-over by a passed descriptor: {} blocks; sampling paused for \
             {pause_ms:.2} ms, in which the old recorder parked every block and closed the pool \
             ({close_ms:.2} ms) and the new one took and checked them ({recover_ms:.2} ms).",
            grouped(held)
        )
    }

    /// What was sampled, and how much.
    pub(super) fn of_the_machine(&self) -> String {
        let kinds: Vec<_> = self
            .sampled
            .iter()
            .map(|(plural, count)| format!("{} {plural}", grouped(*count)))
            .collect();
        let skipped = match self.skipped {
            0 => String::new(),
            more => format!(" ({} more than the limit of their kind)", grouped(more)),
        };
        let [fewest, most] = self.watched();
        format!(
            "Sampled from this machine: {} records of {}{skipped}. In {:.1} s: {} sweeps, {} \
             updates, {} reads. The watcher saw {} to {} live blocks. Gaps between reads are \
             explained by the {}.",
            grouped(self.sampled.values().sum()),
            kinds.join(", "),
            self.seconds,
            grouped(self.sweeps),
            grouped(self.updates),
            grouped(self.reads),
            grouped(fewest),
            grouped(most),
            self.gaps_explained_by,
        )
    }

    /// Fewest and most live blocks the watcher saw, once there were any.
    fn watched(&self) -> [u64; 2] {
        let of_full_pool = self.rounds.iter().skip(1).chain([&self.afterwards]);
        of_full_pool
            .map(|round| round.watched)
            .fold([u64::MAX, 0], |[fewest, most], [a, b]| [fewest.min(a), most.max(b)])
    }

    /// The verdict in words.
    pub(super) fn verdict(&self) -> String {
        let Totals { kills, lost, torn, leaked, reader_stalls } = self.totals;
        let worst_ms = |of: fn(&Round) -> f64| self.rounds.iter().map(of).fold(0.0, f64::max);
        if self.ok {
            let second_act = self.vitals.as_ref().map_or_else(String::new, |vitals| {
                format!(
                    " In the second act {} samples were written; no value was torn, no pair mixed, \
                     no change missed or seen too soon, and the killed writer's successor went on \
                     after {:.0} ms.",
                    grouped(vitals.samples),
                    vitals.back_ms,
                )
            });
            let third_act = self.power.as_ref().map_or_else(String::new, |power| {
                format!(
                    " In the third act {} power cuts in the middle of a checkpoint left {} records \
                     as of the last one or the next, and no mix.",
                    power.images,
                    grouped(power.records),
                )
            });
            let fourth_act = match &self.packages {
                Some(act) if act.packages > 0 => format!(
                    " In the fourth act three copies of {} packages ended equal, record by record; \
                     a follower took over {:.0} ms after its leader was killed, and what the other \
                     had missed took {:.1} MB of {:.1}.",
                    grouped(act.records),
                    act.promoted_ms,
                    act.missed_bytes as f64 / 1e6,
                    act.whole_bytes as f64 / 1e6,
                ),
                _ => String::new(),
            };
            return format!(
                "All is well. The recorder was killed {kills} times in the middle of {} updates; \
                 every time a successor found every record that had been acknowledged, whole, and \
                 sampled on after {:.0} ms at worst ({:.1} ms of them to recover). The reader read \
                 {} records meanwhile and was never held up. The planned hand-over paused sampling \
                 for {:.1} ms.{second_act}{third_act}{fourth_act}",
                grouped(self.updates),
                worst_ms(|round| round.back_ms),
                worst_ms(|round| round.recover_ms),
                grouped(self.reads),
                self.hand_over.pause_ms,
            );
        }
        let of_vitals = |of: fn(&Vitals) -> u64| self.vitals.as_ref().map_or(0, of);
        let of_power = |of: fn(&Power) -> u64| self.power.as_ref().map_or(0, of);
        let of_packages = |of: fn(&Packages) -> u64| self.packages.as_ref().map_or(0, of);
        let faults: Vec<_> = [
            (lost, "acknowledged records lost"),
            (torn, "records torn"),
            (leaked, "blocks leaked"),
            (reader_stalls, "stalls of the reader"),
            (self.damage, "faults in the pool's own check"),
            (self.kills_wanted.saturating_sub(kills), "kills missing"),
            (of_vitals(|act| act.torn), "values torn in the second act"),
            (of_vitals(|act| act.mixed), "pairs mixed from two instants"),
            (of_vitals(|act| act.early), "changes that came too soon"),
            (of_vitals(|act| act.behind), "readers that missed the last change"),
            (of_vitals(|act| act.left), "states left behind"),
            (of_power(|act| act.torn), "records torn in the third act"),
            (of_power(|act| act.lost), "pools lost in a power cut"),
            (of_power(|act| act.mixed), "pools mixed by a power cut"),
            (of_packages(|act| act.lost), "acknowledged packages lost in the fourth act"),
            (of_packages(|act| act.different), "packages of another version in a copy"),
            (of_packages(|act| act.missing), "packages missing in a copy"),
            (of_packages(|act| act.ghosts), "packages that a copy should not have"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{what}: {}", grouped(count)))
        .collect();
        let faults = match faults.as_slice() {
            [] => "a process did no work, so nothing is proved".to_owned(),
            faults => faults.join(", "),
        };
        if let Some(plant) = self.planted {
            return format!("NOT well: {faults}. That is right: a fault ({plant}) was planted.");
        }
        format!(
            "NOT well: {faults}. Run it again with --seed {}; if it stays, it is a fault of \
             Mainstay: please report it with the output of --json.",
            self.seed
        )
    }

    /// The last line, for people and for scripts.
    pub(super) fn last_line(&self) -> String {
        let Totals { kills, lost, torn, leaked, reader_stalls } = self.totals;
        format!(
            "DEMO kills={kills} lost={lost} torn={torn} leaked={leaked} \
             reader_stalls={reader_stalls}"
        )
    }
}

/// A number with its thousands told apart.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Milliseconds, to the microsecond.
pub(super) fn ms(ns: u64) -> f64 {
    (ns / 1_000) as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(rounds: Vec<Round>) -> Outcome {
        let kills_wanted = rounds.len() as u64;
        let afterwards = Round { watched: [9, 9], ..Round::default() };
        Outcome { rounds, afterwards, kills_wanted, reads: 1, ..Outcome::default() }.conclude()
    }

    fn faultless() -> Round {
        Round { kills: 1, recovered: 9, watched: [9, 9], ..Round::default() }
    }

    #[test]
    fn rounds_without_a_fault_are_well() {
        let outcome = outcome(vec![faultless(), faultless()]);
        assert!(outcome.ok);
        assert_eq!(outcome.last_line(), "DEMO kills=2 lost=0 torn=0 leaked=0 reader_stalls=0");
        assert!(outcome.verdict().starts_with("All is well."));
    }

    #[test]
    fn one_fault_of_any_sort_in_any_round_is_not_well() {
        type Fault = fn(&mut Round);
        let faults: [(Fault, &str); 4] = [
            (|round| round.lost = 1, "DEMO kills=2 lost=1 torn=0 leaked=0 reader_stalls=0"),
            (|round| round.torn = 1, "DEMO kills=2 lost=0 torn=1 leaked=0 reader_stalls=0"),
            (|round| round.leaked = 1, "DEMO kills=2 lost=0 torn=0 leaked=1 reader_stalls=0"),
            (
                |round| round.reader_stalls = 1,
                "DEMO kills=2 lost=0 torn=0 leaked=0 reader_stalls=1",
            ),
        ];
        for (fault, last_line) in faults {
            for at in 0..2 {
                let mut rounds = vec![faultless(), faultless()];
                fault(&mut rounds[at]);
                let outcome = outcome(rounds);
                assert!(!outcome.ok);
                assert_eq!(outcome.last_line(), last_line);
                assert!(outcome.verdict().starts_with("NOT well: "), "{}", outcome.verdict());
            }
        }
    }

    #[test]
    fn a_demo_that_proved_nothing_is_not_well() {
        assert!(outcome(vec![faultless(), faultless()]).ok);
        assert!(!outcome(vec![Round { recovered: 0, ..faultless() }]).ok);
        assert!(!outcome(vec![faultless(), Round { watched: [0, 9], ..faultless() }]).ok);
        let whole = outcome(vec![faultless()]);
        assert!(!Outcome { kills_wanted: 2, ..whole.clone() }.conclude().ok);
        assert!(!Outcome { reads: 0, ..whole.clone() }.conclude().ok);
        assert!(!Outcome { damage: 1, ..whole }.conclude().ok);
    }

    #[test]
    fn thousands_are_told_apart() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(123_456), "123,456");
    }
}
