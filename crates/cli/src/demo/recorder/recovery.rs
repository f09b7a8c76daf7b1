//! Taking over: every live block into the new recorder's hands, and every byte of it checked.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use mainstay::pool::{Block, Decision, Kind as Lifetime, Offer};

use super::super::Plant;
use super::super::error::{DemoError, Trying};
use super::super::twin::{Key, Reading, TWIN_LEN, read};
use super::super::wire::{Message, Recovered};
use super::{Held, Recorder};

/// How long something may look leaked that is only on its way from one process to another.
const LEAVING_TIME: Duration = Duration::from_millis(500);

impl Recorder {
    /// C2. Says of every block what was found in it, then that the work goes on.
    pub(super) fn recover(
        &mut self,
        began: Instant,
        plant: Option<Plant>,
    ) -> Result<(), DemoError> {
        let mut blocks = self.every_block()?;
        if let Some(plant) = plant {
            self.plant(plant, &mut blocks)?;
        }
        let mut leaked = 0;
        for block in blocks {
            leaked += u64::from(!self.adopt(block)?);
        }
        let recover_ns = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        leaked += self.leaks()?;
        self.say(Message::Recovered(Recovered { leaked, recover_ns }))?;
        self.flush()
    }

    fn every_block(&self) -> Result<Vec<Block>, DemoError> {
        let mut blocks = self
            .pool
            .recover_with(Offer::Unheld, |_| Decision::Keep)
            .trying("recover what nobody holds")?
            .kept;
        let offered: HashSet<_> = blocks.iter().map(Block::id).collect();
        // What the reader holds at this instant is nobody's to offer: attach it beside the reader.
        for info in self.pool.blocks().trying("list the blocks")? {
            if info.kind.is_some() && !offered.contains(&info.id) {
                // Refused when it has been freed since, or is about to be: not ours to keep.
                blocks.extend(self.pool.attach(info.id).ok());
            }
        }
        Ok(blocks)
    }

    /// Takes a block into the table, or frees one without a record of its type; false for a second
    /// block of one entity, which nobody could reach.
    fn adopt(&mut self, block: Block) -> Result<bool, DemoError> {
        let id = block.id();
        let unfit = match self.reading(&block)? {
            Reading::Whole(side) => match side.key() {
                Some(key) => return self.keep(block, key, side.sequence()),
                // Whole, and about two entities at once.
                None => Message::FoundTorn(id),
            },
            Reading::Unwritten => Message::FoundUnwritten(id),
            Reading::Torn => Message::FoundTorn(id),
        };
        self.give_up(block, unfit)?;
        Ok(true)
    }

    fn keep(&mut self, block: Block, key: Key, sequence: u64) -> Result<bool, DemoError> {
        let id = block.id();
        let Ok(block) = key.kind.typed(block) else {
            let mistyped = self.pool.attach(id).trying("attach a block of a wrong type")?;
            self.give_up(mistyped, Message::FoundTorn(id))?;
            return Ok(true);
        };
        self.say(Message::Found { id, key, sequence })?;
        match self.table.insert(key, Held { block, sequence, sweep: 0 }) {
            None => {
                *self.of_kind.entry(key.kind).or_default() += 1;
                Ok(true)
            }
            Some(second) => {
                second.block.free().trying("free a second block of one entity")?;
                Ok(false)
            }
        }
    }

    fn give_up(&mut self, block: Block, why: Message) -> Result<(), DemoError> {
        self.say(why)?;
        block.free().trying("free a block without a record")
    }

    fn reading(&self, block: &Block) -> Result<Reading, DemoError> {
        let mut bytes = [0; TWIN_LEN];
        block.read(0, &mut bytes).trying("read a block")?;
        Ok(read(&bytes))
    }

    /// Counts the blocks that nobody can use: live ones that are not in the table (and frees them),
    /// free ones that a dead process still keeps or that no process would find. A freed block that
    /// the reader is about to let go of is *doomed*: no leak, however long the reader waits for a CPU.
    fn leaks(&self) -> Result<u64, DemoError> {
        let reachable: HashSet<_> = self.table.values().map(|held| held.block.id()).collect();
        let deadline = Instant::now() + LEAVING_TIME;
        loop {
            let stray: Vec<_> = self
                .pool
                .blocks()
                .trying("list the blocks")?
                .filter(|info| info.kind.is_some() && !info.doomed)
                .filter(|info| !reachable.contains(&info.id))
                .collect();
            let check = self.pool.verify().trying("check the pool")?;
            let leaks = stray.len() as u64 + check.hidden + check.strangers + check.of_the_dead;
            if leaks == 0 {
                return Ok(0);
            }
            if Instant::now() > deadline {
                for block in stray.iter().filter_map(|info| self.pool.attach(info.id).ok()) {
                    block.free().trying("free a leaked block")?;
                }
                return Ok(leaks);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Does the damage the demo must find, to a record that was acknowledged long ago.
    fn plant(&self, plant: Plant, blocks: &mut Vec<Block>) -> Result<(), DemoError> {
        let mut victim = None;
        for (at, block) in blocks.iter().enumerate() {
            // Its first update was acknowledged before its second one began, a sweep later.
            if matches!(self.reading(block)?, Reading::Whole(side) if side.sequence() >= 2) {
                victim = Some(at);
                break;
            }
        }
        let victim = blocks.swap_remove(victim.ok_or(DemoError::NothingToPlant)?);
        match plant {
            Plant::Lost => victim.free().trying("lose a block"),
            Plant::Torn => {
                victim.write(0, &[0xA5; TWIN_LEN]).trying("scribble over a block")?;
                blocks.push(victim);
                Ok(())
            }
            Plant::Leaked => {
                blocks.push(victim);
                let stray = self.pool.allocate(Lifetime::Recoverable).trying("leak a block")?;
                stray.park().trying("leak a block")
            }
            // The reader's part, and those of the later acts.
            Plant::Stalled | Plant::Mixed | Plant::Lied | Plant::Ghosts => {
                blocks.push(victim);
                Ok(())
            }
        }
    }
}
