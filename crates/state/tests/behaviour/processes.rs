use crate::{
    Scratch,
    worker::{self, LARGE, accounts, large, number},
};
use mainstay_base::Rng;
use mainstay_state::{Error, StateOptions, together};
use rustix::time::ClockId;
use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

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

/// How much processor time this thread has used: what others do with the machine does not count.
fn own_time() -> Duration {
    rustix::time::clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap()
}

/// A reader is starved when it works and gets nothing: so what counts is how much it works for a new
/// version, and not how long it takes, which is up to how busy the machine is.
#[test]
fn a_flat_out_writer_cannot_starve_a_reader() {
    const NEW: usize = 100;
    // A read of 64 KiB takes some ten microseconds, and longer where it is traced or emulated; a reader
    // that has to wait for a pause of the writer works for tens of milliseconds.
    const WORK_MAX: Duration = Duration::from_millis(4);
    let scratch = Scratch::new();
    let state = large(&scratch.domain);
    let mut writer = worker::start("write_flat_out", &scratch);
    writer.ready();
    let (mut work, mut last, mut looks) = ([Vec::new(), Vec::new()], 0, 0_u32);
    let mut copy = vec![0; LARGE];
    while work[1].len() < NEW {
        let copies = work[0].len() == work[1].len();
        let before = own_time();
        let version = if copies {
            state.copy_to(&mut copy).unwrap().0
        } else {
            let snapshot = state.read().unwrap();
            copy.copy_from_slice(&snapshot);
            snapshot.version()
        };
        let took = own_time() - before;
        assert!(copy.iter().all(|byte| *byte == copy[0]), "torn");
        if version != last {
            work[usize::from(!copies)].push(took);
            last = version;
        } else {
            // Its writer had no processor since the last look: this one is given to whoever wants it.
            std::thread::sleep(Duration::from_millis(1));
        }
        looks += 1;
        assert!(looks < 300_000, "the writer did not write: {last} is the newest version");
    }
    for mut work in work {
        work.sort_unstable();
        // What the machine does to some of them does not count.
        let half = work[NEW / 2];
        assert!(half < WORK_MAX, "a new version took {half:?} of work");
    }
    writer.kill();
}

/// Two writers as fast as they can, one of which conflicts all the time and claims slots too late.
#[test]
fn c2_a_copy_of_a_small_value_is_whole_beside_flat_out_writers() {
    let scratch = Scratch::new();
    let options = StateOptions::new().size(256).slots(4).slots_max(6);
    let state = options.writer::<[u8]>(&scratch.domain, "speed").unwrap();
    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let write = |publishes: bool| {
            let state = state.try_clone().unwrap();
            let enough = &enough;
            move || {
                let mut publisher = state.publisher().unwrap();
                let mut turn = 0_u64;
                while !enough.load(Relaxed) {
                    turn += 1;
                    if publishes {
                        publisher.publish(&turn.to_le_bytes().repeat(32)).unwrap();
                        continue;
                    }
                    let mut late = state.begin().unwrap();
                    late.resize(256).unwrap();
                    let word = (turn | 1 << 63).to_le_bytes();
                    late.bytes_mut().unwrap().copy_from_slice(&word.repeat(32));
                    match late.commit() {
                        Ok(_) | Err(Error::Conflict { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        };
        scope.spawn(write(true));
        scope.spawn(write(false));
        let (mut new, mut looks, mut last) = (0, 0_u64, 0);
        let mut copy = [0; 256];
        while new < 20_000 && looks < 50_000_000 {
            let (version, len) = state.copy_to(&mut copy).unwrap();
            looks += 1;
            if version == last {
                continue;
            }
            assert!(version > last, "{version} after {last}");
            (new, last) = (new + 1, version);
            let first = number(&copy);
            assert_eq!(len, 256);
            assert!(copy.chunks_exact(8).all(|word| number(word) == first), "torn: {version}");
        }
        enough.store(true, Relaxed);
        assert!(new >= 100, "{new} versions in {looks} looks");
    });
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
