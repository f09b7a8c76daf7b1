//! What a leader is told, gives up and holds (N3 to N6).

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use mainstay_replica::{
    FollowSettings, Follower, LeadSettings, Level,
    follower::{self, Told},
    leader,
    wire::Way,
};
use mainstay_store::{Error, Role};

use crate::{
    both::{Kind, assert_equal, for_both, is_replaced, put, replica, set_aside, store},
    pair::{NOW, Pair},
};

for_both! {
    n6_a_follower_that_stands_still_holds_neither_the_leader_nor_its_memory,
    n5_what_a_follower_has_and_its_leader_lost_is_set_aside_and_given_up,
    n4_a_leader_restored_from_a_backup_is_told_and_nothing_is_taken_from_it,
    n4_after_a_promotion_the_old_leader_is_fenced_and_can_follow,
    n3_a_write_is_durable_on_a_follower_only_when_it_is_synced_there,
    n4_a_leader_is_fenced_while_many_write_and_none_of_them_waits_for_ever,
    a_follower_is_read_while_it_takes_the_writes_of_its_leader_and_takes_no_others,
}

fn n6_a_follower_that_stands_still_holds_neither_the_leader_nor_its_memory<S: Kind>() {
    let (_, ours) = store::<S>(1);
    put(&ours, 0..10, 1);
    let (_, still) = replica(&ours, 2);
    let (_, quick) = replica(&ours, 3);
    let window = 20_000;
    let follow = FollowSettings { window_bytes: window, ..FollowSettings::default() };
    let mut pair = Pair::with(&ours, &still, LeadSettings::default(), follow);
    pair.run();
    let mut other = Follower::new(quick.clone(), follow, 8, NOW).unwrap();
    other.handle(NOW, follower::Input::Tick);
    pair.leader.handle(NOW, leader::Input::Connected { peer: 2 });
    other.handle(NOW, follower::Input::Connected);
    let (mut flying, mut held) = (0, 0);
    for round in 0..200 {
        put(&ours, 0..10, round);
        for _ in 0..20 {
            while let Some(output) = other.poll(NOW) {
                if let follower::Output::Send(bytes) = output {
                    let input = leader::Input::Message { peer: 2, bytes: &bytes };
                    pair.leader.handle(NOW, input);
                }
            }
            while let Some(output) = pair.leader.poll(NOW) {
                held = held.max(pair.leader.held_bytes());
                match output {
                    leader::Output::Send { peer: 2, bytes, .. } => {
                        other.handle(NOW, follower::Input::Message(&bytes));
                    }
                    // It arrives, and nobody takes it.
                    leader::Output::Send { bytes, .. } => flying += bytes.len(),
                    _ => {}
                }
            }
        }
    }
    assert_equal(&ours, &quick);
    assert!(flying < window as usize + (80 << 10), "{flying} bytes to one who stands still");
    assert!(held < 200 << 10, "{held} bytes held");
    let lag = pair.leader.lag(1, 0, NOW).unwrap();
    assert!(lag.events > 100 && lag.bytes > 10_000, "{lag:?}");
}

fn n5_what_a_follower_has_and_its_leader_lost_is_set_aside_and_given_up<S: Kind>() {
    let (disk, ours) = store::<S>(1);
    put(&ours, 0..50, 1);
    ours.sync().unwrap();
    let (copy_disk, copy) = replica(&ours, 2);
    let mut pair = Pair::new(&ours, &copy);
    pair.run();
    // The leader's last writes were not durable, and its power is cut.
    put(&ours, 50..60, 2);
    put(&ours, 0..5, 3);
    pair.run();
    assert_equal(&ours, &copy);
    let lost = copy.contents();
    drop((pair, ours));
    disk.power_cut();
    let ours = S::reopen(&disk);
    put(&ours, 100..110, 4);
    let mut pair = Pair::new(&ours, &copy);
    pair.run();
    assert_equal(&ours, &copy);
    let lines = set_aside(&copy_disk);
    let now = copy.contents();
    let gone = lost.iter().filter(|(key, value)| now.get(*key) != Some(value));
    for (key, (value, end)) in gone.clone() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let end = if *end == 0 { String::new() } else { format!(",\"ends\":{end}") };
        let (key, value) = (hex(key), hex(value));
        let line = format!("{{\"key_hex\":\"{key}\",\"value_hex\":\"{value}\"{end}}}\n");
        assert!(lines.contains(&line), "{line} is not in {lines}");
    }
    let is_diverged = pair.ways().contains(&Way::Diverged);
    assert_eq!(is_diverged, gone.count() > 0, "the seed of the disk decides what was lost");
    assert!(is_diverged, "choose another seed");
}

fn n4_a_leader_restored_from_a_backup_is_told_and_nothing_is_taken_from_it<S: Kind>() {
    let (disk, ours) = store::<S>(1);
    put(&ours, 0..20, 1);
    ours.sync().unwrap();
    drop(ours);
    let backup = disk.crash_images(1).next().unwrap();
    let ours = S::reopen(&disk);
    drop(ours);
    let ours = S::reopen(&disk);
    put(&ours, 20..40, 2);
    let (_, copy) = replica(&ours, 2);
    Pair::new(&ours, &copy).run();
    let before = copy.contents();
    let restored = S::reopen(&backup);
    assert!(restored.epoch() < ours.epoch());
    put(&restored, 50..60, 3);
    let mut pair = Pair::new(&restored, &copy);
    pair.run();
    assert!(pair.closed);
    assert!(
        pair.told.iter().any(|told| matches!(told, Told::StaleLeader { .. }))
            || pair.leader.replaced_by().is_some()
    );
    assert_eq!(copy.contents(), before);
    assert!(is_replaced(&restored));
}

fn n4_after_a_promotion_the_old_leader_is_fenced_and_can_follow<S: Kind>() {
    let (disk, old) = store::<S>(1);
    put(&old, 0..30, 1);
    let (_, first) = replica(&old, 2);
    let (_, second) = replica(&old, 3);
    Pair::new(&old, &first).run();
    Pair::new(&old, &second).run();
    put(&old, 30..35, 2); // nobody got these
    let new = first.promoted(5);
    put(&new, 40..50, 3);
    let mut pair = Pair::new(&new, &second);
    pair.run();
    assert_equal(&new, &second);
    let mut stale = Pair::new(&old, &second);
    stale.run();
    assert_eq!(stale.leader.replaced_by(), Some(new.epoch()));
    assert!(is_replaced(&old));
    assert_equal(&new, &second);
    drop((stale, old));
    let old = S::reopen(&disk);
    assert_eq!(old.role(), Role::Follower);
    let mut back = Pair::new(&new, &old);
    back.run();
    assert_equal(&new, &old);
    assert!(back.ways().contains(&Way::Diverged));
    assert!(back.told.iter().any(|told| matches!(told, Told::SetAside { .. })));
}

fn n3_a_write_is_durable_on_a_follower_only_when_it_is_synced_there<S: Kind>() {
    let (_, ours) = store::<S>(1);
    let (disk, copy) = replica(&ours, 2);
    let mut pair = Pair::new(&ours, &copy);
    // When it has caught up for the first time it syncs at once, to say that it is whole.
    pair.run();
    let token = ours.put_one(1, 1).unwrap();
    pair.run();
    let have = |pair: &Pair<S>, level| pair.leader.have(token.shard, 1, level);
    assert_eq!(have(&pair, Level::Applied), 1);
    assert_eq!(have(&pair, Level::Durable), 0);
    pair.later(Duration::from_millis(50));
    assert_eq!(have(&pair, Level::Durable), 1);
    drop((pair, copy));
    disk.power_cut();
    assert_equal(&ours, &S::reopen(&disk));
}

fn a_follower_is_read_while_it_takes_the_writes_of_its_leader_and_takes_no_others<S: Kind>() {
    let (_, ours) = store::<S>(1);
    put(&ours, 0..20, 1);
    let (disk, copy) = replica(&ours, 2);
    let mut pair = Pair::new(&ours, &copy);
    for value in 2..5 {
        pair.run();
        put(&ours, 5..10, value);
        assert!(copy.get_one(7).is_some() && copy.get_one(7) != ours.get_one(7));
        pair.run();
        assert_eq!(copy.get_one(7), ours.get_one(7));
        assert!(matches!(copy.put_one(7, 9), Err(Error::Follows)));
        assert!(matches!(copy.delete_one(7), Err(Error::Follows)));
    }
    assert_equal(&ours, &copy);
    drop((pair, copy));
    let copy = S::reopen(&disk);
    assert!(matches!(copy.put_one(7, 9), Err(Error::Follows)), "and when it is opened again");
    assert_eq!(copy.role(), Role::Follower);
}

fn n4_a_leader_is_fenced_while_many_write_and_none_of_them_waits_for_ever<S: Kind>() {
    for round in 0..100 {
        let (_, ours) = store::<S>(1);
        let (epoch, is_written) = (ours.epoch() + 1, AtomicBool::new(false));
        thread::scope(|scope| {
            for writer in 0..3 {
                let (ours, is_written) = (&ours, &is_written);
                scope.spawn(move || {
                    let refused = loop {
                        match ours.put_one(writer, round) {
                            Ok(_) => is_written.store(true, Relaxed),
                            Err(error) => break error,
                        }
                    };
                    let is_told = matches!(refused, Error::Replaced { by, .. } if by == epoch);
                    assert!(is_told, "{refused}, round {round}");
                });
            }
            while !is_written.load(Relaxed) {
                thread::yield_now();
            }
            ours.fence(epoch).unwrap();
            let before = ours.contents();
            thread::yield_now();
            assert_eq!(ours.contents(), before, "nothing is written once it is fenced");
        });
    }
}
