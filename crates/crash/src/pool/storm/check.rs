//! The judge: compares the pool with the ledger while the workers rest, are frozen, or are dead,
//! then writes the dead's deeds over to nobody.

use super::{
    ledger::{Deed, Ledger, Phase, Seen, Sort, life_of},
    worker::options,
};
use crate::{
    finding::{Check, Finding, ensure},
    pool::{
        audit,
        contents::{BLOCK_SIZE, Contents},
    },
    storm::{Found, WORKERS},
    verdict::{
        Harm::{Leaked, Lost, Torn},
        Verdict,
    },
};
use mainstay_pool::{BlockId, BlockInfo, Pool, PoolBox, State};
use std::{collections::HashMap, os::fd::OwnedFd, sync::atomic::Ordering::SeqCst};

pub(crate) struct Judge<'a> {
    pub(crate) ledger: &'a Ledger,
    pub(crate) verdict: &'a Verdict,
    pub(crate) found: [Found; WORKERS],
    /// Nobody has died since the last reap.
    pub(crate) none_died: bool,
}

/// A deed's holder, as the judge finds it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holder {
    Nobody,
    Dead,
    Frozen,
    /// Alive and at rest, with this bit among the owners.
    Resting(u32),
}

impl Judge<'_> {
    /// Everything there is to check. Findings are reported one by one; the error is for what keeps
    /// the judge from going on.
    pub(crate) fn judge(&self, fd: OwnedFd) -> Check {
        let pool = options().join_fd(fd)?;
        if self.none_died && !self.any_frozen() {
            // What the living do to each other must come out right without a reaper's help.
            let hidden = pool.verify()?.hidden;
            self.note(ensure(hidden == 0, Leaked, || {
                format!("{hidden} free blocks are hidden between the living")
            }));
        }
        pool.reap()?;
        self.note(self.check_words(&pool));
        self.note(self.slots_are_different());
        let blocks: Vec<BlockInfo> = pool.blocks()?.collect();
        let mut unexplained: HashMap<BlockId, &BlockInfo> = blocks
            .iter()
            .filter(|b| matches!(b.state, State::Held | State::Parked | State::Orphan))
            .map(|b| (b.id, b))
            .collect();
        let mut unborn = Vec::new();
        for deed in &self.ledger.deeds {
            let seen = deed.look();
            let holder = self.holder_of(&seen);
            if seen.is_vacant() {
                continue;
            }
            if seen.phase == Phase::Nothing {
                if holder == Holder::Dead || holder == Holder::Frozen {
                    unborn.push(seen);
                }
            } else {
                let block = unexplained.remove(&seen.id);
                self.note(self.check_deed(&pool, &seen, holder, block));
            }
            if holder == Holder::Dead {
                self.note(self.inherit(&pool, deed, &seen));
            }
        }
        self.note(self.check_visits(&pool, &mut unexplained));
        self.note(self.check_unborn(&pool, unexplained, &unborn));
        if !self.any_frozen() {
            self.note(audit::drain(&pool));
        }
        Ok(pool.close()?)
    }

    fn note(&self, check: Check) {
        if let Err(Finding { harm, what }) = check {
            self.verdict.report(harm, &what);
        }
    }

    fn any_frozen(&self) -> bool {
        self.found.iter().any(|found| matches!(found, Found::Frozen { .. }))
    }

    /// The bit of a worker among owners; 0 while it has no slot.
    fn bit(&self, row: usize) -> u32 {
        match self.ledger.workers[row].slot.load(SeqCst) {
            0 => 0,
            slot => 1 << (slot - 1),
        }
    }

    fn bits(&self, of: impl Fn(Found) -> bool) -> u32 {
        let rows = (0..WORKERS).filter(|row| of(self.found[*row]));
        rows.fold(0, |bits, row| bits | self.bit(row))
    }

    fn frozen_bits(&self) -> u32 {
        self.bits(|found| matches!(found, Found::Frozen { .. }))
    }

    fn holder_of(&self, seen: &Seen) -> Holder {
        let life = life_of(seen.holder);
        if life == 0 {
            return Holder::Nobody;
        }
        for (row, found) in self.found.iter().enumerate() {
            match *found {
                Found::Resting { life: of } if of == life => {
                    return Holder::Resting(self.bit(row));
                }
                Found::Frozen { life: of } if of == life => return Holder::Frozen,
                _ => {}
            }
        }
        Holder::Dead
    }

    fn check_words(&self, pool: &Pool) -> Check {
        if !self.any_frozen() {
            return audit::clean_after_reap(pool);
        }
        let report = pool.verify()?;
        audit::sound(&report)?;
        ensure(report.of_the_dead == 0, Leaked, || {
            format!("{} blocks still name a dead process after a reap", report.of_the_dead)
        })
    }

    fn slots_are_different(&self) -> Check {
        let mut all = 0_u32;
        for row in (0..WORKERS).filter(|row| self.found[*row] != Found::Dead) {
            let bit = self.bit(row);
            ensure(all & bit == 0, Torn, || {
                format!("two living processes have slot {}", bit.trailing_zeros())
            })?;
            all |= bit;
        }
        Ok(())
    }

    fn check_deed(
        &self,
        pool: &Pool,
        seen: &Seen,
        holder: Holder,
        block: Option<&BlockInfo>,
    ) -> Check {
        let id = seen.id;
        let may_be_gone =
            seen.phase == Phase::Freeing || (holder == Holder::Dead && !seen.outlives_its_holder());
        let Some(block) = block else {
            return ensure(may_be_gone, Lost, || {
                format!("{id}, {:?} and {:?}, is not there", seen.sort, seen.phase)
            });
        };
        let owners = block.owners;
        let living = self.bits(|found| found != Found::Dead);
        ensure(owners & !living == 0, Leaked, || {
            format!("{id} has owners {owners:#x}, and only {living:#x} live")
        })?;
        match holder {
            Holder::Resting(bit) => ensure(owners & bit != 0, Lost, || {
                format!("{id} has owners {owners:#x}, and its holder is {bit:#x}")
            })?,
            Holder::Dead if !seen.outlives_its_holder() => ensure(owners != 0, Leaked, || {
                format!("transient {id} outlives its holder as {:?}", block.state)
            })?,
            _ => {}
        }
        let contents = audit::contents(pool, id.number)?;
        let whole = if seen.phase == Phase::Writing {
            contents.is_mix_of(seen.seed, seen.next_seed)
        } else {
            contents == Contents::of(seen.seed)
        };
        ensure(whole, Torn, || {
            format!("contents of {id} ({:?}, {:?}): {}", seen.sort, seen.phase, contents.describe())
        })
    }

    /// A dead holder's deed becomes nobody's, or is about nothing any more.
    fn inherit(&self, pool: &Pool, deed: &Deed, seen: &Seen) -> Check {
        // What it may have allocated stays as long as somebody is frozen, and so does this word of it.
        if seen.phase == Phase::Nothing && self.any_frozen() {
            return Ok(());
        }
        let block = match seen.phase {
            Phase::Nothing => None,
            _ => Some(pool.block_info(seen.id.number)?),
        };
        let lives =
            block.is_some_and(|block| block.id == seen.id && block.kind.is_some() && !block.doomed);
        if !lives || !seen.outlives_its_holder() {
            deed.vacate();
            return Ok(());
        }
        if seen.phase != Phase::Writing {
            deed.settle_for_the_dead(seen.seed);
            return Ok(());
        }
        // Half of a write, perhaps: written anew, so that the next check is exact.
        let seed = self.ledger.new_seed();
        if seen.sort == Sort::Boxed {
            *PoolBox::<Contents>::attach(pool, seen.id)? = Contents::of(seed);
        } else {
            pool.attach(seen.id)?.write(0, Contents::of(seed).bytes())?;
        }
        deed.settle_for_the_dead(seed);
        Ok(())
    }

    /// Whoever rests and visits a block is among its owners; and such a visit explains why a block
    /// is still there that its holder has freed.
    fn check_visits(&self, pool: &Pool, unexplained: &mut HashMap<BlockId, &BlockInfo>) -> Check {
        for row in 0..WORKERS {
            if !matches!(self.found[row], Found::Resting { .. }) {
                continue;
            }
            for visit in self.ledger.workers[row].visits.iter().flatten() {
                let Some(number) = visit.load(SeqCst).checked_sub(1) else { continue };
                let block = pool.block_info(number)?;
                let bit = self.bit(row);
                ensure(block.owners & bit != 0 && block.state == State::Held, Lost, || {
                    format!(
                        "{} is visited by {bit:#x}, and has owners {:#x}",
                        block.id, block.owners
                    )
                })?;
                unexplained.remove(&block.id);
            }
        }
        Ok(())
    }

    /// What is left may have been allocated by the dead and the frozen, who could not say so.
    fn check_unborn(
        &self,
        pool: &Pool,
        unexplained: HashMap<BlockId, &BlockInfo>,
        unborn: &[Seen],
    ) -> Check {
        let of_frozen = |block: &BlockInfo| block.owners & self.frozen_bits() != 0;
        let mut count = 0;
        for (id, block) in unexplained.into_iter().filter(|(_, block)| !of_frozen(block)) {
            count += 1;
            ensure(count <= unborn.len() && block.state != State::Held, Leaked, || {
                format!("{id} is {:?}, and nobody knows of it", block.state)
            })?;
            let contents = audit::contents(pool, id.number)?;
            let fits = unborn.iter().any(|seen| contents.is_mix_of(0, seen.next_seed));
            ensure(fits, Torn, || {
                format!("{id} appeared before it was complete: {}", contents.describe())
            })?;
            // A frozen worker may be about to acknowledge a reserved block: that one stays.
            if !self.any_frozen() {
                remove(pool, id)?;
            }
        }
        Ok(())
    }
}

fn remove(pool: &Pool, id: BlockId) -> Check {
    if pool.block_info(id.number)?.exclusive {
        PoolBox::<Contents>::attach(pool, id)?.free()?;
    } else {
        pool.attach(id)?.free()?;
    }
    Ok(())
}

const _: () = assert!(BLOCK_SIZE == size_of::<Contents>());
