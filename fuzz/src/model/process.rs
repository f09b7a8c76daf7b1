//! Processes that come, go and die, and what becomes of what they held.

use super::{Ask, Guard, Held, Life, Twin, child::LastWill, join, nth};
use mainstay_pool::{Error, Index, Kind, Offer, ReapReport, Uuid};
use std::time::Duration;

impl Twin {
    pub(super) fn recover(&mut self, side: usize, orphans: bool, decisions: u32) {
        let offer = if orphans { Offer::Orphans } else { Offer::Unheld };
        let expected: Vec<u32> = self
            .lives
            .iter()
            .filter(|(_, life)| !life.is_held() && (life.orphan || !orphans))
            .map(|(number, _)| *number)
            .collect();
        let pool = self.pools[side].take().expect("both are open between operations");
        let offered: Vec<_> = pool.recover(offer).expect("it can be recovered").collect();
        let numbers: Vec<u32> = offered.iter().map(|offered| offered.number()).collect();
        assert_eq!(numbers, expected, "O3: exactly what nobody holds is offered");
        for offered in offered {
            let number = offered.number();
            let life = &self.lives[&number];
            assert_eq!((offered.id(), offered.uuid()), (life.id, life.uuid));
            assert_eq!((offered.is_orphan(), offered.is_box()), (life.orphan, life.exclusive));
            assert_eq!(offered.to_vec(), life.data, "O1: {life:?}");
            match decisions.rotate_right(number) % 4 {
                0 => {
                    let guard = if life.exclusive {
                        Guard::Boxed(offered.keep_box().expect("nobody else takes it"))
                    } else {
                        Guard::Bytes(offered.keep().expect("nobody else takes it"))
                    };
                    self.held.push(Held { side, number, guard });
                    let life = self.life(number);
                    (life.guards[side], life.orphan) = (1, false);
                }
                1 => {
                    offered.free().expect("nobody else takes it");
                    self.died(number);
                }
                2 => {
                    offered.park().expect("nobody else takes it");
                    self.life(number).orphan = false;
                }
                _ => {}
            }
        }
        self.pools[side] = Some(pool);
    }

    pub(super) fn index(&mut self, side: usize, remove: bool) {
        let index = Index::default();
        let pool = self.pool(side).clone();
        let calls = index.attach(&pool).expect("an empty index takes it");
        for life in self.lives.values() {
            assert_eq!(calls.find(life.uuid), Some(life.id), "{life:?}");
        }
        assert_eq!(calls.find(Uuid::from_u128(u128::MAX)), None);
        let removed = if remove {
            calls.remove_unused(Duration::ZERO).expect("nobody else takes them")
        } else {
            0
        };
        index.detach(pool.name()).expect("not inside of a monitor");
        if remove {
            let unheld = |life: &&Life| !life.is_held();
            let numbers: Vec<u32> =
                self.lives.values().filter(unheld).map(|life| life.id.number).collect();
            assert_eq!(removed, numbers.len() as u64, "all that nobody holds");
            numbers.into_iter().for_each(|number| self.died(number));
        }
    }

    // ---- processes ----

    /// Lets go of everything, and leaves in an orderly way.
    pub(super) fn close(&mut self, side: usize) {
        let (gone, stay) = std::mem::take(&mut self.held).into_iter().partition(|h| h.side == side);
        self.held = stay;
        let gone: Vec<Held> = gone;
        for Held { number, guard, .. } in gone {
            drop(guard);
            self.left(number, side, Ask::Park);
        }
        self.pools[side].take().expect("it was open").close().expect("nothing is held");
    }

    pub(super) fn open(&mut self, side: usize) {
        self.pools[side] = Some(join(&self.file, side as u64 + 1));
    }

    pub(super) fn repair(&mut self, side: usize, alone: bool) {
        if !alone {
            let result = self.pool_mut(side).repair();
            assert!(matches!(result, Err(Error::NotAlone { .. })), "{result:?}");
            return;
        }
        self.close(1 - side);
        let guards = self.held.len();
        match self.pool_mut(side).repair() {
            Ok(report) => {
                let done = (report.orphaned, report.freed, report.shortened, report.hints);
                assert_eq!((guards, done), (0, (0, 0, 0, 0)), "O4: {report:?}");
                assert_eq!(report.reaped, ReapReport::default(), "O4");
            }
            Err(error) => {
                let right = matches!(error, Error::StillHeld { guards: told, .. }
                    if told == guards as u64);
                assert!(right && guards > 0, "{guards} are held: {error}");
            }
        }
        self.open(1 - side);
    }

    pub(super) fn die(&mut self, side: usize, transient: u8, count: u8, pick: u8, how: u8) {
        let attached = nth(self.lives.values(), pick).map(|life| life.id);
        let last = LastWill { transient, count, attach: attached, doom: how & 1 != 0 };
        let testament = last.carried_out_in_a_child(&self.file);
        let mut expected = ReapReport::default();
        expected.slots = 1;
        for (id, uuid, kind) in testament.allocated {
            let life = self.born(id, uuid, kind, [0, 0]);
            life.data.fill(id.number as u8 | 1);
            match kind {
                Kind::Recoverable => {
                    life.orphan = true;
                    expected.orphaned += 1;
                }
                Kind::Transient => {
                    self.died(id.number);
                    expected.freed += 1;
                }
            }
        }
        if let (Some(id), true) = (attached, testament.attached) {
            let life = self.life(id.number);
            assert!(!life.doomed && !life.exclusive, "{life:?}");
            life.doomed |= last.doom;
            if life.is_held() {
                expected.shared += 1;
            } else if life.doomed {
                self.died(id.number);
                expected.freed += 1;
            } else {
                life.orphan = true;
                expected.orphaned += 1;
            }
        }
        let pool = self.pool(side);
        let reaped = if how & 2 == 0 {
            pool.reap().expect("it can be reaped")
        } else {
            pool.recover(Offer::Orphans).expect("it can be recovered").reaped()
        };
        // How many it kept at hand is its own affair.
        expected.uncached = reaped.uncached;
        expected.hints_repaired = reaped.hints_repaired;
        assert_eq!(reaped, expected, "O3");
        assert!(pool.reap().expect("it can be reaped") == ReapReport::default(), "O3: once");
    }
}
