//! How a figure is taken: interleaved repetitions, medians, and the spread beside them.
//!
//! * M1: every side runs once in each round, and the order turns by one place a round, so that a
//!   machine that slows down or speeds up during the run favours nobody.
//! * M2: a round in which some side failed ends the measurement: no figure is made of what is left.
//! * M3: there are at least [`REPETITIONS_MIN`] rounds, after one that is thrown away.
//! * M4: the spread is the median absolute deviation, which one interrupted sample cannot blow up.
//! * M5: a ratio is the median of the ratios of the single rounds: in a round all sides meet the same
//!   machine, which between two rounds may become twice as fast.
//! * M6: a sample of [`steady`] work is behind untimed work of the same kind and length. What it finds
//!   in the caches, and in those of addresses, is then what that work leaves there, and not what the
//!   other sides do.
//! * M7: before writes to files are timed, the disk has all that was written until then: else a sample
//!   waits for what another side, or the filling of all of them, has left to be written. Where that
//!   makes memory clean that is mapped to a file, each side then does as many writes as it has records,
//!   which are not timed: a page that was written back costs a fault at its next write, as it does
//!   twice a minute in a process that goes on, and not at each write of a sample.

use std::hint::black_box;
use std::time::Duration;

use crate::Outcome;
use crate::clock::Span;

/// Fewer rounds than this make no median worth printing.
pub(crate) const REPETITIONS_MIN: usize = 7;

/// How much time a measurement may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Rounds of short, repeatable work.
    pub(crate) repetitions: usize,
    /// Rounds of work that is set up anew each time (a process dies, 10^6 blocks come back).
    pub(crate) repetitions_heavy: usize,
    /// How long one sample of repeatable work runs.
    pub(crate) sample: Duration,
    /// Rounds of steady work, and how long a sample of it runs: in less than that, the memory that is
    /// looked at changes all of what a processor's last cache has.
    pub(crate) repetitions_steady: usize,
    pub(crate) sample_steady: Duration,
    /// Windows a worker records in one run of a scaling figure.
    pub(crate) windows: usize,
}

impl Plan {
    /// Samples are shorter than a scheduler's time slice, so that on a busy machine most of them
    /// run undisturbed and the median is of those.
    pub(crate) fn quick() -> Plan {
        Plan {
            repetitions: 61,
            repetitions_heavy: REPETITIONS_MIN,
            sample: Duration::from_millis(1),
            repetitions_steady: 15,
            sample_steady: Duration::from_millis(20),
            windows: 16,
        }
    }

    /// Is there time for more than what is asked?
    pub(crate) fn is_full(&self) -> bool {
        self.repetitions_heavy > REPETITIONS_MIN
    }

    pub(crate) fn full() -> Plan {
        Plan {
            repetitions: 201,
            repetitions_heavy: 15,
            sample: Duration::from_millis(2),
            repetitions_steady: 41,
            sample_steady: Duration::from_millis(20),
            windows: 40,
        }
    }
}

/// Median, median absolute deviation and best of a set of samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) mad: f64,
    pub(crate) best: f64,
}

impl Summary {
    /// `None` when there is no sample.
    pub(crate) fn of(samples: &[f64]) -> Option<Summary> {
        let median = median(samples)?;
        let deviations: Vec<f64> = samples.iter().map(|s| (s - median).abs()).collect();
        let best = samples.iter().copied().fold(f64::INFINITY, f64::min);
        Some(Summary { median, mad: self::median(&deviations)?, best })
    }
}

/// The middle sample, or the mean of the two in the middle.
pub(crate) fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.is_empty() {
        None
    } else if sorted.len() % 2 == 1 {
        Some(sorted[middle])
    } else {
        Some((sorted[middle - 1] + sorted[middle]) / 2.0)
    }
}

/// What one side of a comparison cost, in nanoseconds an operation.
#[derive(Clone, Debug)]
pub(crate) struct Timing {
    pub(crate) name: &'static str,
    pub(crate) wall: Summary,
    pub(crate) cpu: Summary,
    /// Each round; none where there was nothing to be timed.
    pub(crate) rounds: Vec<Option<Span>>,
}

impl Timing {
    /// Sums up rounds; none when nothing was timed in any of them.
    pub(crate) fn of(name: &'static str, rounds: Vec<Option<Span>>) -> Option<Timing> {
        let of = |time: fn(&Span) -> f64| {
            Summary::of(&rounds.iter().flatten().map(time).collect::<Vec<_>>())
        };
        let (wall, cpu) = (of(|span| span.wall_ns)?, of(|span| span.cpu_ns)?);
        Some(Timing { name, wall, cpu, rounds })
    }

    /// How many times longer the peer took (M5), by one of the two clocks.
    pub(crate) fn times_faster_than(&self, peer: &Timing, time: fn(&Span) -> f64) -> f64 {
        let both = self.rounds.iter().zip(&peer.rounds).filter_map(|pair| match pair {
            (Some(ours), Some(peers)) => Some(time(peers) / time(ours)),
            _ => None,
        });
        median(&both.collect::<Vec<_>>()).unwrap_or(f64::NAN)
    }
}

/// One side of a comparison whose work sets itself up and times itself.
pub(crate) struct Round<'a> {
    pub(crate) name: &'static str,
    pub(crate) run: Box<dyn FnMut() -> Outcome<Span> + 'a>,
}

impl<'a> Round<'a> {
    pub(crate) fn new(name: &'static str, run: impl FnMut() -> Outcome<Span> + 'a) -> Round<'a> {
        Round { name, run: Box::new(run) }
    }
}

/// One side of a comparison whose work is repeated: `run(n)` does `n` operations.
pub(crate) struct Side<'a> {
    name: &'static str,
    run: Box<dyn FnMut(u64) -> Outcome<()> + 'a>,
}

impl<'a> Side<'a> {
    pub(crate) fn new(name: &'static str, run: impl FnMut(u64) -> Outcome<()> + 'a) -> Side<'a> {
        Side { name, run: Box::new(run) }
    }
}

/// Runs the sides in turns, `repetitions` times after a warm-up, and sums each one up.
pub(crate) fn rounds(repetitions: usize, sides: &mut [Round<'_>]) -> Outcome<Vec<Timing>> {
    assert!(repetitions >= REPETITIONS_MIN, "M3: {repetitions} rounds are too few for a median");
    for side in sides.iter_mut() {
        (side.run)()?;
    }
    let mut spans = vec![Vec::with_capacity(repetitions); sides.len()];
    for round in 0..repetitions {
        for turn in 0..sides.len() {
            let who = (round + turn) % sides.len();
            spans[who].push((sides[who].run)()?);
        }
    }
    let proof = "M3: there is at least one round";
    let sum_up = |(side, spans): (&Round<'_>, Vec<Span>)| {
        Timing::of(side.name, spans.into_iter().map(Some).collect()).expect(proof)
    };
    Ok(sides.iter().zip(spans).map(sum_up).collect())
}

/// Runs repeatable work in turns, in samples of the plan's length.
pub(crate) fn interleave(plan: &Plan, sides: Vec<Side<'_>>) -> Outcome<Vec<Timing>> {
    let mut timed = Vec::with_capacity(sides.len());
    for Side { name, mut run } in sides {
        let operations = operations_in(plan.sample, &mut run)?;
        timed.push(Round::new(name, move || {
            let (span, done) = Span::of(|| run(black_box(operations)));
            done?;
            Ok(span.per(operations))
        }));
    }
    rounds(plan.repetitions, &mut timed)
}

/// Runs repeatable work in turns, each sample behind as much of it that is not timed (M6).
pub(crate) fn steady(plan: &Plan, sides: Vec<Side<'_>>) -> Outcome<Vec<Timing>> {
    let mut timed = Vec::with_capacity(sides.len());
    for Side { name, mut run } in sides {
        let operations = operations_in(plan.sample_steady, &mut run)?;
        timed.push(Round::new(name, move || {
            run(black_box(operations))?;
            let (span, done) = Span::of(|| run(black_box(operations)));
            done?;
            Ok(span.per(operations))
        }));
    }
    rounds(plan.repetitions_steady, &mut timed)
}

/// How many operations fill `sample`, found by doubling; this is the warm-up too.
fn operations_in(
    sample: Duration,
    run: &mut (impl FnMut(u64) -> Outcome<()> + ?Sized),
) -> Outcome<u64> {
    const OPERATIONS_MAX: u64 = 1 << 40;
    let wanted_ns = sample.as_nanos() as f64;
    let mut operations = 16;
    loop {
        let (span, done) = Span::of(|| run(operations));
        done?;
        // CPU time: a sample that was interrupted must not look long enough.
        if span.cpu_ns >= wanted_ns / 2.0 || operations >= OPERATIONS_MAX {
            let scaled = operations as f64 * wanted_ns / span.cpu_ns.max(1.0);
            return Ok((scaled as u64).clamp(1, OPERATIONS_MAX));
        }
        operations *= 2;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn span(ns: f64) -> Span {
        Span { wall_ns: ns, cpu_ns: ns / 2.0 }
    }

    #[test]
    fn a_median_is_the_middle_and_an_outlier_does_not_move_the_spread() {
        let summary = Summary::of(&[10.0, 11.0, 9.0, 10.0, 4_000.0]).unwrap();
        assert_eq!(summary, Summary { median: 10.0, mad: 1.0, best: 9.0 });
        assert_eq!(median(&[1.0, 2.0, 3.0, 10.0]), Some(2.5));
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn every_side_runs_once_a_round_and_the_order_turns() {
        let order = RefCell::new(Vec::new());
        let side = |name: &'static str| {
            let order = &order;
            Round::new(name, move || {
                order.borrow_mut().push(name);
                Ok(span(1.0))
            })
        };
        rounds(REPETITIONS_MIN, &mut [side("a"), side("b"), side("c")]).unwrap();
        let order = order.into_inner();
        assert_eq!(order[..9], ["a", "b", "c", "a", "b", "c", "b", "c", "a"]);
        assert_eq!(order.len(), 3 * (1 + REPETITIONS_MIN));
    }

    #[test]
    fn the_warm_up_round_is_not_counted() {
        let mut calls = 0;
        let timings = rounds(
            REPETITIONS_MIN,
            &mut [Round::new("slow at first", || {
                calls += 1;
                Ok(span(if calls == 1 { 1e9 } else { 10.0 }))
            })],
        )
        .unwrap();
        assert_eq!(timings[0].wall, Summary { median: 10.0, mad: 0.0, best: 10.0 });
        assert_eq!(timings[0].cpu.median, 5.0);
    }

    #[test]
    fn a_ratio_is_of_rounds_and_a_machine_that_gets_slower_does_not_move_it() {
        let timing = |name, rounds: &[f64]| {
            let timed = |ns: &f64| (*ns > 0.0).then(|| span(*ns));
            Timing::of(name, rounds.iter().map(timed).collect())
        };
        let ours = timing("ours", &[10.0, 10.0, 30.0, 0.0, 30.0]).unwrap();
        let peers = timing("peer", &[20.0, 20.0, 60.0, 60.0, 0.0]).unwrap();
        assert_eq!(ours.times_faster_than(&peers, |span| span.wall_ns), 2.0);
        assert_eq!((ours.wall.median, peers.wall.median), (20.0, 40.0));
        assert!(timing("nobody", &[0.0, 0.0]).is_none());
        let silent = timing("silent", &[0.0, 0.0, 0.0, 0.0, 9.0]).unwrap();
        assert!(silent.times_faster_than(&peers, |span| span.cpu_ns).is_nan());
    }

    #[test]
    fn a_steady_sample_is_behind_as_much_work_of_its_own_side() {
        let calls = RefCell::new(Vec::new());
        let side = |name: &'static str| {
            let calls = &calls;
            Side::new(name, move |times| {
                calls.borrow_mut().push((name, times));
                for turn in 0..times {
                    black_box(turn);
                }
                Ok(())
            })
        };
        let sample_steady = Duration::from_micros(10);
        let plan = Plan { repetitions_steady: 8, sample_steady, ..Plan::quick() };
        steady(&plan, vec![side("a"), side("b")]).unwrap();
        let calls = calls.into_inner();
        // The first are those that find how many operations a sample has.
        let rounds = &calls[calls.len() - 2 * 2 * 8..];
        for (round, both) in rounds.chunks(4).enumerate() {
            let names = if round % 2 == 0 { ["a", "a", "b", "b"] } else { ["b", "b", "a", "a"] };
            assert_eq!(both.iter().map(|call| call.0).collect::<Vec<_>>(), names);
            assert!(both[0] == both[1] && both[2] == both[3], "{both:?}");
        }
    }

    #[test]
    fn a_failing_side_leaves_no_figure() {
        let mut calls = 0;
        let mut sides = [
            Round::new("good", || Ok(span(1.0))),
            Round::new("bad", || {
                calls += 1;
                if calls == 3 { Err("out of blocks".into()) } else { Ok(span(1.0)) }
            }),
        ];
        let error = rounds(REPETITIONS_MIN, &mut sides).unwrap_err();
        assert_eq!(error.to_string(), "out of blocks");
    }

    #[test]
    #[should_panic(expected = "M3")]
    fn six_rounds_are_refused() {
        let _ = rounds(6, &mut [Round::new("few", || Ok(span(1.0)))]);
    }

    #[test]
    fn work_that_costs_twice_as_much_is_seen_to() {
        fn spin(turns: u64) -> Outcome<()> {
            for turn in 0..turns {
                black_box(turn);
            }
            Ok(())
        }
        let plan = Plan::quick();
        let timings = interleave(
            &plan,
            vec![Side::new("one", |n| spin(n * 64)), Side::new("two", |n| spin(n * 128))],
        )
        .unwrap();
        let ratio = timings[1].cpu.median / timings[0].cpu.median;
        assert!((1.6..2.5).contains(&ratio), "ratio {ratio}");
    }
}
