//! Sending back whatever comes, until the other end has had enough.

use super::patience::LOOK;
use mainstay::channel::Channel;

/// Returns how many messages it sent back.
pub(super) fn echo(channel: &dyn Channel, go_on: impl Fn() -> bool) -> u64 {
    let mut count = 0;
    while go_on() {
        match channel.receive(LOOK) {
            Ok(Some(message)) => match channel.send(message) {
                Ok(()) => count += 1,
                Err(_) => break,
            },
            Ok(None) => {}
            // The other end is through, or gone: no concern of the one who echoes.
            Err(_) => break,
        }
    }
    count
}

/// Latencies, summed up.
pub(super) struct Latencies {
    sorted_ns: Vec<u64>,
}

impl Latencies {
    pub(super) fn of(mut samples_ns: Vec<u64>) -> Self {
        samples_ns.sort_unstable();
        Self { sorted_ns: samples_ns }
    }

    /// The smallest that at least this many of a thousand are not above; 0 of none.
    pub(super) fn per_mille(&self, per_mille: usize) -> u64 {
        let rank = (self.sorted_ns.len() * per_mille).div_ceil(1_000);
        self.sorted_ns.get(rank.saturating_sub(1)).copied().unwrap_or(0)
    }
}

/// A time that people read.
pub(super) fn time(ns: u64) -> String {
    match ns {
        0..10_000 => format!("{ns} ns"),
        10_000..10_000_000 => format!("{:.1} us", ns as f64 / 1e3),
        _ => format!("{:.1} ms", ns as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let latencies = Latencies::of((1..=1_000).rev().collect());
        assert_eq!(latencies.per_mille(500), 500);
        assert_eq!((latencies.per_mille(990), latencies.per_mille(999)), (990, 999));
        assert_eq!((latencies.per_mille(1_000), latencies.per_mille(0)), (1_000, 1));
        assert_eq!(Latencies::of(Vec::new()).per_mille(500), 0);
    }
}
