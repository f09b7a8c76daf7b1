//! The recorder: keeps one block an entity, updated in place at each sweep, and is killed for it.
//!
//! * **C1** A record is acknowledged after its update is stored, and announced as being freed before
//!   it is freed: the parent's ledger never promises what a kill can take away.
//! * **C2** A recorder that says it has taken over holds every live block.
//! * **C3** An orderly end parks every block: forgetting does not delete.

mod recovery;

use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use mainstay::pool::{Block, BlockId, Kind as Lifetime, Pool, PoolOptions};
use zerocopy::IntoBytes;

use super::Plant;
use super::error::{DemoError, Trying};
use super::kinds::{Kind, Payload};
use super::role::{
    Line, Order, Orders, command, monotonic_ns, receive_with_fd, receive_word, say_word,
};
use super::sampler::{Group, Sink};
use super::twin::{Key, Side, TWIN_LEN, Twin};
use super::wire::{Message, Outbox};

/// Entities of one kind that are recorded at most; the others are counted and said.
const ENTITIES_OF_A_KIND_MAX: u64 = 8_000;
/// Blocks of the pool at most: all kinds full, and what threads keep at hand.
const BLOCKS_MAX: u64 = 65_536;
/// Blocks a growth step adds: small, so that kills hit growth too.
const BLOCKS_PER_GROWTH: u32 = 256;
/// Address space for the pool: twice what it can need, so that a limit on it does not matter.
const RESERVE_BYTES: u64 = 64 << 20;

/// The demo's pool: every process of it opens it with the same words.
pub(super) fn pool_options() -> PoolOptions {
    PoolOptions::new("demo", TWIN_LEN)
        .reserve(RESERVE_BYTES)
        .max_blocks(BLOCKS_MAX)
        .growth_step(BLOCKS_PER_GROWTH)
}

/// Runs until told to stop, or killed.
pub(super) fn run(plant: Option<Plant>) -> Result<(), DemoError> {
    let line = Line::inherited()?;
    let (word, fd) = receive_with_fd(&line.commands)?;
    let (fd, predecessor) = match word {
        command::POOL => (fd, None),
        command::TAKE_OVER => {
            let predecessor = UnixStream::from(fd);
            (receive_with_fd(&predecessor)?.1, Some(predecessor))
        }
        unknown => return Err(DemoError::Command { command: Some(unknown.into()) }),
    };
    let to_pass_on = fd.try_clone().trying("duplicate the pool's descriptor")?;
    let mut began = Instant::now();
    let pool = pool_options().join_fd(fd).trying("join the pool")?;
    if let Some(predecessor) = predecessor {
        say_word(&predecessor, command::READY)?;
        receive_word(&predecessor, command::YOURS)?;
        // The time the predecessor took to finish is not time to recover.
        began = Instant::now();
    }
    let mut recorder = Recorder::new(pool, line.outbox);
    recorder.recover(began, plant)?;
    recorder.work(&Orders::listen(line.commands, to_pass_on))
}

/// A record in the recorder's hands.
struct Held {
    block: Block,
    sequence: u64,
    sweep: u64,
}

struct Recorder {
    pool: Pool,
    outbox: Outbox,
    table: HashMap<Key, Held>,
    of_kind: HashMap<Kind, u64>,
    sweep: u64,
    skipped: u64,
    last_sample_ns: u64,
}

/// Why a sweep ends early.
enum Halt {
    Ordered(Order),
    Failed(DemoError),
}

impl From<DemoError> for Halt {
    fn from(error: DemoError) -> Self {
        Self::Failed(error)
    }
}

impl Recorder {
    fn new(pool: Pool, outbox: Outbox) -> Self {
        Self {
            pool,
            outbox,
            table: HashMap::new(),
            of_kind: HashMap::new(),
            sweep: 0,
            skipped: 0,
            last_sample_ns: 0,
        }
    }

    fn work(mut self, orders: &Orders) -> Result<(), DemoError> {
        loop {
            match self.sweep_once(orders) {
                Ok(()) => {}
                Err(Halt::Ordered(Order::Stop)) => return self.part(None),
                Err(Halt::Ordered(Order::HandOver(successor))) => {
                    return self.part(Some(successor));
                }
                Err(Halt::Ordered(Order::Report)) => {}
                Err(Halt::Failed(error)) => return Err(error),
            }
        }
    }

    fn sweep_once(&mut self, orders: &Orders) -> Result<(), Halt> {
        self.sweep += 1;
        self.skipped = 0;
        let sweep = self.sweep;
        for group in Group::ALL.into_iter().filter(|group| group.is_due(sweep)) {
            group.visit(&mut Sweep { recorder: self, orders })?;
            self.flush()?;
            self.forget_gone(group)?;
        }
        self.say(Message::Swept { skipped: self.skipped })?;
        Ok(self.flush()?)
    }

    fn record<T: Payload>(&mut self, payload: &T) -> Result<(), DemoError> {
        let key = Key { kind: T::KIND, words: payload.identity() };
        if !self.table.contains_key(&key) && !self.admit::<T>(key)? {
            self.skipped += 1;
            return Ok(());
        }
        let Some(held) = self.table.get_mut(&key) else { return Ok(()) };
        let now_ns = monotonic_ns();
        let side = Side::seal(payload, held.sequence + 1, self.sweep, now_ns);
        held.block.write(side.offset(), side.as_bytes()).trying("write a record")?;
        (held.sequence, held.sweep) = (side.sequence(), self.sweep);
        let acknowledged = Message::Kept { id: held.block.id(), key, sequence: side.sequence() };
        if self.last_sample_ns == 0 {
            self.say(Message::FirstSample { at_ns: now_ns })?;
            self.flush()?;
        }
        self.last_sample_ns = now_ns;
        // C1
        self.say(acknowledged)
    }

    /// Gives a new entity a block, unless there are too many of its kind.
    fn admit<T: Payload>(&mut self, key: Key) -> Result<bool, DemoError> {
        let of_kind = self.of_kind.entry(key.kind).or_default();
        if *of_kind >= ENTITIES_OF_A_KIND_MAX {
            return Ok(false);
        }
        let block = self
            .pool
            .allocate_typed::<Twin<T>>(Lifetime::Recoverable)
            .trying("allocate a block")?
            .into_bytes();
        *of_kind += 1;
        self.table.insert(key, Held { block, sequence: 0, sweep: 0 });
        Ok(true)
    }

    /// Frees the records of a group that its listing did not have any more.
    fn forget_gone(&mut self, group: Group) -> Result<(), DemoError> {
        let sweep = self.sweep;
        let gone: Vec<(BlockId, Held)> = self
            .table
            .extract_if(|key, held| group.kinds().contains(&key.kind) && held.sweep != sweep)
            .map(|(key, held)| {
                *self.of_kind.entry(key.kind).or_default() -= 1;
                (held.block.id(), held)
            })
            .collect();
        // C1
        gone.iter().try_for_each(|(id, _)| self.outbox.say(Message::Freeing(*id))).trying(SPEAK)?;
        self.flush()?;
        for (id, held) in gone {
            held.block.free().trying("free a block")?;
            self.say(Message::Freed(id))?;
        }
        self.flush()
    }

    /// C3
    fn part(mut self, successor: Option<UnixStream>) -> Result<(), DemoError> {
        self.flush()?;
        for (_, held) in self.table.drain() {
            held.block.park().trying("park a block")?;
        }
        self.pool.close().trying("close the pool")?;
        let closed_ns = monotonic_ns();
        if let Some(successor) = successor {
            say_word(&successor, command::YOURS)?;
        }
        let parted = Message::Parted { last_sample_ns: self.last_sample_ns, closed_ns };
        self.outbox.say(parted).and_then(|()| self.outbox.flush()).trying(SPEAK)
    }

    fn say(&mut self, message: Message) -> Result<(), DemoError> {
        self.outbox.say(message).trying(SPEAK)
    }

    fn flush(&mut self) -> Result<(), DemoError> {
        self.outbox.flush().trying(SPEAK)
    }
}

const SPEAK: &str = "speak to the parent";

/// A sweep under way: takes what is found, and an order between any two records.
struct Sweep<'a> {
    recorder: &'a mut Recorder,
    orders: &'a Orders,
}

impl Sink for Sweep<'_> {
    type Error = Halt;

    fn record<T: Payload>(&mut self, payload: &T) -> Result<(), Halt> {
        if let Some(order) = self.orders.next() {
            return Err(Halt::Ordered(order));
        }
        Ok(self.recorder.record(payload)?)
    }
}
