//! The reader: a process with a lease of its own that reads live blocks as fast as it can, while
//! their recorder is killed again and again.
//!
//! It attaches a block, copies it, lets go, and checks: one side whole, and the record not older
//! than when it was read before. What it cannot attach is not live (any more) and is no read.

use std::collections::HashSet;
use std::time::Duration;

use mainstay::pool::{Block, BlockId, Pool};

use super::Plant;
use super::error::{DemoError, Trying};
use super::pace::{Pace, STALL_NS_MIN, Waiting};
use super::recorder::pool_options;
use super::role::{Line, Order, Orders, monotonic_ns, receive_with_fd};
use super::twin::{Reading, TWIN_LEN, read};
use super::wire::{Message, Outbox};

/// How often the list of live blocks is made anew.
const LIST_LIFETIME_NS: u64 = 5_000_000;
/// How often a block without a whole side is read again. One is enough unless the reader is
/// overtaken twice within one copy.
const RETRIES_MAX: u32 = 1_000;

/// Runs until told to stop.
pub(super) fn run(plant: Option<Plant>) -> Result<(), DemoError> {
    let line = Line::inherited()?;
    let (_, fd) = receive_with_fd(&line.commands)?;
    let to_pass_on = fd.try_clone().trying("duplicate the pool's descriptor")?;
    let pool = pool_options().join_fd(fd).trying("join the pool")?;
    let orders = Orders::listen(line.commands, to_pass_on);
    let pace = Pace::new(Waiting::of_this_thread(), monotonic_ns());
    let mut reader = Reader {
        pool,
        pace,
        seen: Vec::new(),
        torn: HashSet::new(),
        has_read: false,
        stall: plant == Some(Plant::Stalled),
    };
    reader.work(&orders, line.outbox)?;
    reader.pool.close().trying("close the pool")
}

struct Reader {
    pool: Pool,
    pace: Pace,
    /// Newest update seen, by block number, with the generation it belongs to.
    seen: Vec<(u64, u64)>,
    torn: HashSet<BlockId>,
    has_read: bool,
    stall: bool,
}

impl Reader {
    fn work(&mut self, orders: &Orders, mut outbox: Outbox) -> Result<(), DemoError> {
        loop {
            let listed_ns = monotonic_ns();
            let live: Vec<u32> = self
                .pool
                .blocks()
                .trying("list the blocks")?
                .filter(|info| info.kind.is_some())
                .map(|info| info.id.number)
                .collect();
            while monotonic_ns() < listed_ns + LIST_LIFETIME_NS {
                for &number in &live {
                    self.visit(number)?;
                    match orders.next() {
                        None => {}
                        Some(Order::Report) => self.report(&mut outbox)?,
                        Some(Order::Stop | Order::HandOver(_)) => return Ok(()),
                    }
                }
                if live.is_empty() {
                    // Nothing recorded yet.
                    if let Some(order) = orders.wait(Duration::from_millis(1)) {
                        match order {
                            Order::Report => self.report(&mut outbox)?,
                            Order::Stop | Order::HandOver(_) => return Ok(()),
                        }
                    }
                }
            }
        }
    }

    fn report(&mut self, outbox: &mut Outbox) -> Result<(), DemoError> {
        let report = Message::Reader(self.pace.report(monotonic_ns()));
        outbox.say(report).and_then(|()| outbox.flush()).trying("report")?;
        if self.stall && self.has_read {
            self.stall = false;
            std::thread::sleep(Duration::from_nanos(3 * STALL_NS_MIN));
        }
        Ok(())
    }

    fn visit(&mut self, number: u32) -> Result<(), DemoError> {
        let Ok(block) = self.pool.attach_number(number) else { return Ok(()) };
        let (generation, newest) = self.seen_of(&block);
        match read_again(&block, newest)? {
            Reading::Whole(side) => {
                self.pace.read_at(monotonic_ns());
                self.has_read = true;
                if side.sequence() < newest {
                    self.pace.rolled_back();
                }
                self.seen[number as usize] = (generation, side.sequence());
            }
            // Allocated, and nothing published in it yet.
            Reading::Unwritten => {}
            // Once for each life of a block, not for each look at it.
            Reading::Torn if self.torn.insert(block.id()) => self.pace.torn(),
            Reading::Torn => {}
        }
        Ok(())
    }

    /// The generation of the block, and the newest update seen in it.
    fn seen_of(&mut self, block: &Block) -> (u64, u64) {
        let at = block.number() as usize;
        if self.seen.len() <= at {
            self.seen.resize(at + 1, (0, 0));
        }
        let generation = block.id().generation;
        match self.seen[at] {
            (of, newest) if of == generation => (generation, newest),
            _ => (generation, 0),
        }
    }
}

/// Reads until a side is whole and no older than `newest`, or patience ends. A reader that loses
/// its CPU in the middle of a copy may come back to one old side and one being written.
fn read_again(block: &Block, newest: u64) -> Result<Reading, DemoError> {
    let mut bytes = [0; TWIN_LEN];
    let mut reading = Reading::Unwritten;
    for _ in 0..RETRIES_MAX {
        block.read(0, &mut bytes).trying("read a block")?;
        reading = read(&bytes);
        match reading {
            Reading::Whole(side) if side.sequence() >= newest => break,
            Reading::Unwritten => break,
            Reading::Whole(_) | Reading::Torn => std::hint::spin_loop(),
        }
    }
    Ok(reading)
}
