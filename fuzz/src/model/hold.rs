//! Attaching, using and leaving blocks.

use super::{Ask, BLOCK_SIZE, Guard, Held, Life, Twin, index_of, nth};
use crate::image::Sample;
use mainstay_pool::{Error, Kind, PoolBox};

impl Twin {
    pub(super) fn attach(&mut self, side: usize, pick: u8, how: u8) {
        let Some(life) = nth(self.lives.values(), pick).cloned() else { return };
        let pool = self.pool(side);
        let number = life.id.number;
        let result = match how % 5 {
            0 => pool.attach(life.id).map(Guard::Bytes),
            1 => pool.attach_number(number).map(Guard::Bytes),
            2 => pool.attach_uuid(life.uuid).map(Guard::Bytes),
            3 => pool.attach_typed::<Sample>(life.id).map(|block| Guard::Bytes(block.into_bytes())),
            _ => PoolBox::attach(pool, life.id).map(Guard::Boxed),
        };
        let (wants_type, wants_box) = (how % 5 == 3, how % 5 == 4);
        match result {
            Ok(guard) => {
                let fits = !life.doomed && life.exclusive == wants_box;
                assert!(fits && (!wants_type || life.typed), "{life:?} by {how}");
                assert!(!wants_box || !life.is_held(), "a box has one holder");
                self.held.push(Held { side, number, guard });
                let life = self.life(number);
                life.guards[side] += 1;
                life.orphan = false;
            }
            Err(Error::NoSuchBlock { .. }) => assert!(life.doomed, "{life:?} by {how}"),
            Err(Error::Exclusive { .. }) => {
                assert!(life.exclusive != wants_box || wants_box && life.is_held(), "{life:?}");
            }
            // It was attached for a moment, which ends being an orphan.
            Err(Error::WrongType { .. }) => {
                assert!(wants_type && !life.typed, "{life:?}");
                self.life(number).orphan = false;
            }
            Err(error) => panic!("{life:?} by {how}: {error}"),
        }
    }

    pub(super) fn attach_dead(&mut self, side: usize, pick: u8) {
        let Some(id) = nth(self.dead.iter(), pick).copied() else { return };
        let result = self.pool(side).attach(id);
        assert!(matches!(result, Err(Error::NoSuchBlock { .. })), "O2: {id}: {result:?}");
    }

    pub(super) fn clone_guard(&mut self, pick: u8) {
        let Some(at) = index_of(self.held.len(), pick) else { return };
        let Guard::Bytes(block) = &self.held[at].guard else { return };
        let guard = Guard::Bytes(block.try_clone().expect("a held block"));
        let (side, number) = (self.held[at].side, self.held[at].number);
        self.held.push(Held { side, number, guard });
        self.life(number).guards[side] += 1;
    }

    // ---- use ----

    pub(super) fn write(&mut self, pick: u8, offset: u8, len: u8, seed: u8) {
        let Some(at) = index_of(self.held.len(), pick) else { return };
        let Held { number, guard, .. } = &mut self.held[at];
        let life = self.lives.get_mut(number).expect("a held block is live");
        match guard {
            Guard::Bytes(block) => {
                let (offset, len) = (usize::from(offset) % 48, usize::from(len) % 48);
                let source: Vec<u8> = (0..len).map(|i| seed.wrapping_add(i as u8)).collect();
                let inside = offset + len <= BLOCK_SIZE;
                assert_eq!(block.write(offset, &source).is_ok(), inside);
                if inside {
                    life.data[offset..offset + len].copy_from_slice(&source);
                }
            }
            Guard::Boxed(boxed) => {
                boxed.first = seed.into();
                life.data[..8].copy_from_slice(&u64::from(seed).to_le_bytes());
            }
        }
    }

    pub(super) fn set_used(&mut self, pick: u8, len: usize) {
        let Some(at) = index_of(self.held.len(), pick) else { return };
        let Guard::Bytes(block) = &self.held[at].guard else { return };
        let done = block.set_used_len(len).is_ok();
        assert_eq!(done, len <= BLOCK_SIZE);
        let number = block.number();
        if done {
            self.life(number).used = len;
        }
    }

    // ---- leave ----

    pub(super) fn leave(&mut self, pick: u8, how: u8) {
        let Some(at) = index_of(self.held.len(), pick) else { return };
        let Held { side, number, guard } = self.held.swap_remove(at);
        let ask = match (how % 3, guard) {
            (0, guard) => {
                drop(guard);
                Ask::Park
            }
            (1, Guard::Bytes(block)) => {
                block.park().expect("it can always be parked");
                Ask::Park
            }
            (_, Guard::Bytes(block)) => {
                block.free().expect("it can always be freed");
                Ask::Free
            }
            (_, Guard::Boxed(boxed)) => {
                let first = self.lives[&number].data[..8].to_vec();
                let sample = boxed.into_inner().expect("it can always be freed");
                assert_eq!(sample.first.to_le_bytes(), first[..]);
                Ask::Free
            }
        };
        self.left(number, side, ask);
    }

    /// A guard was given up.
    pub(super) fn left(&mut self, number: u32, side: usize, ask: Ask) {
        let life = self.life(number);
        life.guards[side] -= 1;
        life.doomed |= ask == Ask::Free;
        if !life.is_held() && (life.doomed || life.kind == Kind::Transient) {
            self.died(number);
        }
    }

    pub(super) fn died(&mut self, number: u32) {
        let life = self.lives.remove(&number).expect("it was live");
        self.dead.push(life.id);
    }

    pub(super) fn life(&mut self, number: u32) -> &mut Life {
        self.lives.get_mut(&number).expect("a block of the model is live")
    }
}
