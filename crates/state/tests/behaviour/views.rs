use crate::Scratch;
use std::time::{Duration, Instant};

#[test]
fn a_rate_limited_view_seen_by_a_poll_loop_keeps_its_interval() {
    let scratch = Scratch::new();
    let state = scratch.domain.writer::<[u8]>("speed").unwrap();
    let interval = Duration::from_millis(100);
    let mut view = state.view(interval).unwrap();
    let start = Instant::now();
    let mut changes = Vec::new();
    // A simulated clock that polls every millisecond, with a commit before each look.
    for turn in 1..=1_000_u32 {
        state.replace(&turn.to_le_bytes()).unwrap();
        let now = start + Duration::from_millis(turn.into());
        let shown = view.get_at(now).unwrap().to_vec();
        assert_eq!(view.version(), u64::from(u32::from_le_bytes(shown[..4].try_into().unwrap())));
        if changes.last().is_none_or(|(_, last)| *last != shown) {
            changes.push((now, shown));
        }
    }
    assert_eq!(changes.len(), 10);
    assert!(changes.windows(2).all(|pair| pair[1].0 - pair[0].0 >= interval));
}

#[test]
fn a_view_shows_the_newest_version_at_each_tick() {
    let scratch = Scratch::new();
    let state = scratch.domain.writer::<[u8]>("speed").unwrap();
    let (start, second) = (Instant::now(), Duration::from_secs(1));
    let mut view = state.view(second).unwrap();
    for tick in 0..5_u8 {
        state.replace(&[tick, 0]).unwrap();
        state.replace(&[tick, 1]).unwrap();
        let at = start + second * u32::from(tick);
        assert_eq!(view.get_at(at).unwrap(), [tick, 1]);
        state.replace(&[99, 99]).unwrap();
        assert_eq!(view.get_at(at + second / 2).unwrap(), [tick, 1]);
    }
}

#[test]
fn a_view_holds_no_version_slot() {
    let scratch = Scratch::new();
    let state = scratch.domain.writer::<[u8]>("speed").unwrap();
    let mut views: Vec<_> = (0..20).map(|_| state.view(Duration::from_secs(60)).unwrap()).collect();
    for view in &mut views {
        view.get().unwrap();
        state.replace(b"next").unwrap();
    }
    assert_eq!(state.info().unwrap().slots, 8);
}
