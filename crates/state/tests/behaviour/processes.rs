use crate::{
    Scratch,
    worker::{self, accounts, number},
};
use mainstay_base::Rng;
use mainstay_state::{StateOptions, together};
use std::time::{Duration, Instant};

#[test]
fn two_writers_and_a_reader_at_full_speed_lose_no_update_and_see_no_torn_version() {
    let scratch = Scratch::new();
    let options = StateOptions::new().size(64).slots(6).slots_max(8);
    let state = options.writer::<[u8]>(&scratch.domain, "speed").unwrap();
    let mut workers = [0, 1].map(|_| worker::start("count", &scratch));
    workers.iter_mut().for_each(worker::Worker::ready);
    let (start, mut last, mut reads) = (Instant::now(), 0, 0_u64);
    while start.elapsed() < Duration::from_millis(400) {
        let snapshot = state.read().unwrap();
        let value = number(&snapshot);
        assert!(snapshot.chunks_exact(8).all(|word| number(word) == value), "torn");
        assert_eq!(value, snapshot.version(), "a version holds another's value");
        assert!(value >= last, "went back");
        last = value;
        reads += 1;
    }
    let counted: u64 = workers.into_iter().map(|w| w.finish().output.parse::<u64>().unwrap()).sum();
    assert_eq!(number(&state.read().unwrap()), counted);
    assert_eq!(state.version().unwrap(), counted);
    assert!(reads > 100 && counted > 100, "{reads} reads, {counted} commits");
}

#[test]
fn a_flat_out_writer_cannot_starve_a_reader() {
    let scratch = Scratch::new();
    let options = StateOptions::new().size(64).slots(6).slots_max(8);
    let state = options.writer::<[u8]>(&scratch.domain, "speed").unwrap();
    let mut writer = worker::start("count", &scratch);
    writer.ready();
    let start = Instant::now();
    let mut versions = std::collections::HashSet::new();
    // The writer works for 0.4 s; on a busy machine the two may take turns.
    while versions.len() < 10 && start.elapsed() < Duration::from_secs(20) {
        versions.insert(state.read().unwrap().version());
    }
    assert!(versions.len() >= 10, "only {} new versions were read", versions.len());
}

#[test]
fn a_process_stopped_while_it_holds_a_pin_keeps_its_snapshot_intact() {
    let scratch = Scratch::new();
    let options = StateOptions::new().slots(3).slots_max(4);
    let state = options.writer::<[u8]>(&scratch.domain, "speed").unwrap();
    state.replace(&[1; 4_096]).unwrap();
    let mut reader = worker::start("pin_and_check", &scratch);
    reader.ready();
    reader.signal(libc::SIGSTOP);
    for turn in 0..1_000_u32 {
        state.replace(&[turn as u8; 4_096]).unwrap();
    }
    reader.signal(libc::SIGCONT);
    assert_eq!(reader.finish().output, "unchanged");
}

#[test]
fn transfers_between_two_states_keep_the_sum_under_kills() {
    let scratch = Scratch::new();
    let states = accounts(&scratch.domain);
    let [one, two] = &states;
    one.replace(&1_000_u64.to_le_bytes()).unwrap();
    two.replace(&0_u64.to_le_bytes()).unwrap();
    let mut rng = Rng::seeded(7);
    let start = || {
        let mut worker = worker::start("transfer", &scratch);
        worker.ready();
        worker
    };
    let mut workers = vec![start(), start()];
    let mut checks = 0_u64;
    for _ in 0..25 {
        let until = Instant::now() + Duration::from_micros(rng.below(6_000));
        while Instant::now() < until {
            let (one, two) = together((one, two)).unwrap();
            assert_eq!(number(&one) + number(&two), 1_000);
            checks += 1;
        }
        let victim = workers.swap_remove(rng.below(2) as usize);
        victim.kill();
        workers.push(start());
    }
    drop(workers);
    let (left, right) = together((one, two)).unwrap();
    assert_eq!(number(&left) + number(&right), 1_000);
    assert!(checks > 100, "{checks}");
    drop((left, right));
    // Nobody is in the way of the survivor.
    for turn in 0..100_u64 {
        one.replace(&turn.to_le_bytes()).unwrap();
        two.replace(&(1_000 - turn).to_le_bytes()).unwrap();
    }
}
