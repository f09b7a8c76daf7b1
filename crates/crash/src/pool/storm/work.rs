//! What one thread of a worker does to the pool, and what it promises about it.

use super::ledger::{Deed, Ledger, Phase, Seen, Sort, VISITS};
use crate::{
    finding::{Check, Finding, ensure},
    pool::contents::{BLOCK_SIZE, Contents},
    verdict::Harm::{Lost, Torn},
};
use mainstay_base::Rng;
use mainstay_pool::{Block, BlockId, Error, Kind, Offer, Offered, Pool, PoolBox, Uuid, handover};
use std::{
    os::unix::net::UnixStream,
    sync::atomic::{AtomicU32, Ordering::SeqCst},
};

/// Blocks a thread holds at most.
const HELD_MAX: usize = 24;
/// Ids of freed blocks that a thread remembers.
const GONE_MAX: usize = 16;

/// A guard of any sort.
enum Guard {
    Plain(Block),
    Typed(Block<Contents>),
    Boxed(PoolBox<Contents>),
}

struct Held<'a> {
    deed: &'a Deed,
    guard: Guard,
}

pub(crate) struct Work<'a> {
    pool: &'a Pool,
    ledger: &'a Ledger,
    /// The blocks visited, for the checker: number plus one.
    visits: &'a [AtomicU32; VISITS],
    visiting: [Option<Block>; VISITS],
    me: u64,
    /// Where the pool is passed on to whoever joins next.
    giver: Option<&'a UnixStream>,
    rng: Rng,
    held: Vec<Held<'a>>,
    gone: Vec<BlockId>,
}

impl crate::shift::Work for Work<'_> {
    fn one(&mut self) -> Check {
        if self.rng.below(2_000) == 0 {
            self.pass_on();
        }
        match self.rng.below(200) {
            0..50 => self.allocate(),
            50..80 => self.write(),
            80..104 => self.free(),
            104..128 => self.park(),
            128..156 => self.attach(),
            156..178 => self.visit(),
            178..186 => self.clone_one(),
            186..190 => self.reserve(),
            190..193 => self.recover(),
            193..194 => self.pool.reap().map(drop).map_err(Finding::from),
            194..196 => {
                self.pool.flush();
                Ok(())
            }
            196..199 => self.attach_stale(),
            _ => self.look_around(),
        }
    }

    fn before_rest(&mut self) {
        // Of both threads: nothing free is kept at hand.
        self.pool.flush();
    }

    fn leave(&mut self) -> Check {
        for at in 0..VISITS {
            self.leave(at);
        }
        while let Some(held) = self.held.pop() {
            park(held, self.me)?;
        }
        Ok(())
    }
}

impl<'a> Work<'a> {
    pub(crate) fn new(
        pool: &'a Pool,
        ledger: &'a Ledger,
        visits: &'a [AtomicU32; VISITS],
        me: u64,
        giver: Option<&'a UnixStream>,
        seed: u64,
    ) -> Self {
        let rng = Rng::seeded(seed);
        let visiting = [const { None }; VISITS];
        Self { pool, ledger, visits, visiting, me, giver, rng, held: Vec::new(), gone: Vec::new() }
    }

    fn pick(&mut self, len: usize) -> usize {
        self.rng.below(len as u64) as usize
    }

    fn any_deed(&mut self) -> usize {
        self.pick(self.ledger.deeds.len())
    }

    /// Sends the pool to whoever joins next; neither side waits.
    fn pass_on(&self) {
        if let Some(giver) = self.giver {
            // A full socket refuses, and that is all right: there are descriptors enough in it.
            let _ = handover::send_fds(giver, b"p", &[self.pool.as_fd()]);
        }
    }

    // ---- allocate ----

    fn allocate(&mut self) -> Check {
        if self.held.len() == HELD_MAX {
            return self.free();
        }
        let start = self.any_deed();
        let Some(deed) = self.ledger.take_vacant(start, self.me) else { return self.make_room() };
        let sort = match self.rng.below(8) {
            0..3 => Sort::Plain,
            3 => Sort::Typed,
            4 => Sort::Boxed,
            _ => Sort::Transient,
        };
        let seed = if sort == Sort::Boxed { self.ledger.new_seed() } else { 0 };
        deed.allocating(sort, seed);
        let guard = match sort {
            Sort::Plain => self.allocate_plain(),
            Sort::Transient => self.pool.allocate(Kind::Transient).map(|b| Some(Guard::Plain(b))),
            Sort::Typed => {
                let typed = self.pool.allocate_typed::<Contents>(Kind::Recoverable);
                typed.map(|b| Some(Guard::Typed(b)))
            }
            Sort::Boxed => {
                PoolBox::new(self.pool, &Contents::of(seed)).map(|b| Some(Guard::Boxed(b)))
            }
        };
        match guard {
            Ok(Some(guard)) => {
                let (id, contents) = (guard.id(), guard.read()?);
                ensure(contents == Contents::of(seed), Torn, || {
                    format!("new block {id} is not zeroed: {}", contents.describe())
                })?;
                deed.allocated(id, seed);
                self.held.push(Held { deed, guard });
                Ok(())
            }
            Ok(None) => {
                deed.vacate();
                Ok(())
            }
            Err(Error::Full { .. }) => {
                deed.vacate();
                self.make_room()
            }
            Err(e) => Err(e.into()),
        }
    }

    fn allocate_plain(&mut self) -> Result<Option<Guard>, Error> {
        if self.rng.below(4) == 0 {
            return Ok(self.pool.try_allocate(Kind::Recoverable)?.map(Guard::Plain));
        }
        self.pool.allocate(Kind::Recoverable).map(|b| Some(Guard::Plain(b)))
    }

    /// Frees some of what is parked.
    fn make_room(&mut self) -> Check {
        for _ in 0..4 {
            if self.held.len() < HELD_MAX {
                self.attach()?;
            }
            self.free()?;
        }
        Ok(())
    }

    fn reserve(&mut self) -> Check {
        let start = self.any_deed();
        let Some(deed) = self.ledger.take_vacant(start, self.me) else { return Ok(()) };
        deed.allocating(Sort::Plain, 0);
        let uuid = Uuid::from_u64_pair(self.rng.next_u64(), self.rng.next_u64());
        match self.pool.reserve(uuid) {
            Ok(id) => {
                deed.allocated(id, 0);
                deed.parked();
                Ok(())
            }
            Err(Error::Full { .. }) => {
                deed.vacate();
                self.make_room()
            }
            Err(e) => Err(e.into()),
        }
    }

    // ---- what is held ----

    fn write(&mut self) -> Check {
        if self.held.is_empty() {
            return Ok(());
        }
        let at = self.pick(self.held.len());
        let seed = self.ledger.new_seed();
        let held = &mut self.held[at];
        is_whole(held)?;
        held.deed.writing(seed);
        held.guard.write(seed)?;
        held.deed.written();
        Ok(())
    }

    fn free(&mut self) -> Check {
        if self.held.is_empty() {
            return Ok(());
        }
        let held = self.held.swap_remove(self.rng.below(self.held.len() as u64) as usize);
        is_whole(&held)?;
        let id = held.guard.id();
        held.deed.freeing();
        held.guard.free()?;
        held.deed.vacate();
        if self.gone.len() == GONE_MAX {
            self.gone.swap_remove(0);
        }
        self.gone.push(id);
        Ok(())
    }

    fn park(&mut self) -> Check {
        if self.held.is_empty() {
            return Ok(());
        }
        let held = self.held.swap_remove(self.rng.below(self.held.len() as u64) as usize);
        is_whole(&held)?;
        park(held, self.me)
    }

    fn clone_one(&mut self) -> Check {
        if self.held.is_empty() {
            return Ok(());
        }
        let at = self.pick(self.held.len());
        let Held { guard, .. } = &self.held[at];
        match guard {
            Guard::Plain(block) => {
                let (one, other) = (block.try_clone()?, self.pool.attach(block.id())?);
                drop((one, other));
            }
            Guard::Typed(block) => drop(block.try_clone()?),
            Guard::Boxed(value) => {
                let again = PoolBox::<Contents>::attach(self.pool, value.id());
                ensure(matches!(again, Err(Error::Exclusive { .. })), Torn, || {
                    format!("box {} has two holders, or none: {:?}", value.id(), again.err())
                })?;
            }
        }
        is_whole(&self.held[at])
    }

    // ---- what others have ----

    /// Takes over a parked block: it must be there, and as it was left.
    fn attach(&mut self) -> Check {
        if self.held.len() == HELD_MAX {
            return Ok(());
        }
        let start = self.any_deed();
        let Some(deed) = self.ledger.take_parked(start, self.me) else { return Ok(()) };
        let Seen { id, sort, .. } = deed.look();
        let guard = match sort {
            Sort::Boxed => PoolBox::attach(self.pool, id).map(Guard::Boxed),
            Sort::Typed => self.pool.attach_typed(id).map(Guard::Typed),
            _ => self.attach_plain(id).map(Guard::Plain),
        };
        match guard {
            Ok(guard) => {
                deed.moved_in(self.me);
                let held = Held { deed, guard };
                is_whole(&held)?;
                self.held.push(held);
                Ok(())
            }
            // Somebody recovers it at this moment, and will see that the deed is taken.
            Err(Error::Exclusive { .. }) if sort == Sort::Boxed => {
                deed.parked();
                Ok(())
            }
            Err(e) => {
                Err(Finding { harm: Lost, what: format!("parked {id} cannot be attached: {e}") })
            }
        }
    }

    fn attach_plain(&mut self, id: BlockId) -> Result<Block, Error> {
        match self.rng.below(8) {
            0 => {
                let uuid = self.pool.block_info(id.number)?.uuid;
                self.pool.attach_uuid(uuid)
            }
            1 | 2 => self.pool.attach_number(id.number),
            _ => self.pool.attach(id),
        }
    }

    /// Attaches a block that is somebody else's business, reads it, and stays for a while.
    fn visit(&mut self) -> Check {
        let at = self.pick(VISITS);
        if self.visiting[at].is_some() {
            self.leave(at);
            return Ok(());
        }
        let start = self.any_deed();
        let deeds = &self.ledger.deeds;
        let some = (0..64).map(|i| &deeds[(start + i) % deeds.len()]).find(|deed| {
            let seen = deed.look();
            !seen.is_vacant() && seen.phase != Phase::Nothing && seen.sort != Sort::Boxed
        });
        let Some(deed) = some else { return Ok(()) };
        let before = deed.look();
        if before.is_vacant() || before.id.number == u32::MAX || before.sort == Sort::Boxed {
            return Ok(());
        }
        self.visits[at].store(before.id.number + 1, SeqCst);
        let attached = self.pool.attach(before.id);
        let unchanged = |deed: &Deed| {
            let now = deed.look();
            before.is_stable() && now.version == before.version && now.id == before.id
        };
        match attached {
            Ok(block) => {
                let contents = read(&block)?;
                let whole = contents == Contents::of(before.seed) || !unchanged(deed);
                self.visiting[at] = Some(block);
                ensure(whole, Torn, || {
                    format!("{} as a visitor saw it: {}", before.id, contents.describe())
                })
            }
            Err(Error::NoSuchBlock { .. } | Error::Exclusive { .. }) => {
                self.visits[at].store(0, SeqCst);
                let excused = !before.outlives_its_holder() || !unchanged(deed);
                ensure(excused, Lost, || format!("{} is not there for a visitor", before.id))
            }
            Err(e) => Err(e.into()),
        }
    }

    fn leave(&mut self, at: usize) {
        if let Some(block) = self.visiting[at].take() {
            drop(block);
            self.visits[at].store(0, SeqCst);
        }
    }

    /// A freed block must stay gone.
    fn attach_stale(&mut self) -> Check {
        if self.gone.is_empty() {
            return Ok(());
        }
        let at = self.pick(self.gone.len());
        let id = self.gone[at];
        match self.pool.attach(id) {
            // Exclusive: its number is that of a box now.
            Err(Error::NoSuchBlock { .. } | Error::Exclusive { .. }) => Ok(()),
            Err(e) => Err(e.into()),
            Ok(_) => Err(Finding { harm: Torn, what: format!("{id} was freed, and is back") }),
        }
    }

    // ---- recover ----

    /// Takes over what the dead held, a few at a time; what nobody has acknowledged is freed.
    fn recover(&mut self) -> Check {
        let pool = self.pool;
        for offered in pool.recover(Offer::Orphans)?.take(4) {
            let id = offered.id();
            match self.ledger.find(id) {
                None => match offered.free() {
                    Ok(()) | Err(Error::NoSuchBlock { .. }) => {}
                    Err(e) => return Err(e.into()),
                },
                Some(deed) => self.inherit(deed, id, offered)?,
            }
        }
        Ok(())
    }

    fn inherit(&mut self, deed: &'a Deed, id: BlockId, offered: Offered<'_>) -> Check {
        let seen = deed.look();
        let room = self.held.len() < HELD_MAX;
        let kept = match offered.is_box() {
            _ if !room => offered.park().map(|()| None),
            true => offered.keep_box().map(|value| Some(Guard::Boxed(value))),
            false => offered.keep().map(|block| Some(Guard::Plain(block))),
        };
        let guard = match kept {
            Ok(Some(guard)) => guard,
            Ok(None) | Err(Error::NoSuchBlock { .. }) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        // The block was an orphan when the deed was looked at. So a holder of the deed that is not
        // moving is dead: alive, it would have had a guard. If somebody took the deed meanwhile,
        // so be it: dropping the guard parks the block.
        if seen.id != id || !seen.is_stable() || seen.is_moving() {
            return Ok(());
        }
        let guard = match (seen.sort, guard) {
            (Sort::Typed, Guard::Plain(block)) => Guard::Typed(block.typed()?),
            (_, guard) => guard,
        };
        if deed.hand(seen.holder, self.me) {
            if deed.look().id != id {
                // It was about another block by then.
                deed.parked();
                return Ok(());
            }
            let held = Held { deed, guard };
            is_whole(&held)?;
            self.held.push(held);
        }
        Ok(())
    }

    fn look_around(&mut self) -> Check {
        let info = self.pool.info()?;
        ensure(info.counts.corrupt == 0, Torn, || {
            format!("{} impossible words", info.counts.corrupt)
        })?;
        let report = self.pool.verify()?;
        ensure(report.is_sound(), Torn, || format!("beside others at work: {report:?}"))?;
        let me = self.pool.holders()?.into_iter().find(|holder| holder.slot == self.pool.slot());
        ensure(me.is_some_and(|me| me.alive && me.pid == std::process::id()), Torn, || {
            "the slot of a living process is not its own".into()
        })
    }
}

impl Guard {
    fn id(&self) -> BlockId {
        match self {
            Self::Plain(block) => block.id(),
            Self::Typed(block) => block.id(),
            Self::Boxed(value) => value.id(),
        }
    }

    fn read(&self) -> Check<Contents> {
        match self {
            Self::Plain(block) => read(block),
            Self::Typed(block) => Ok(block.get()),
            Self::Boxed(value) => Ok(**value),
        }
    }

    fn write(&mut self, seed: u64) -> Check {
        let contents = Contents::of(seed);
        match self {
            Self::Plain(block) => block.write(0, contents.bytes())?,
            Self::Typed(block) => block.set(&contents),
            Self::Boxed(value) => **value = contents,
        }
        Ok(())
    }

    fn free(self) -> Result<(), Error> {
        match self {
            Self::Plain(block) => block.free(),
            Self::Typed(block) => block.free(),
            Self::Boxed(value) => value.free(),
        }
    }
}

/// The holder leaves: a recoverable block stays, a transient one goes unless it has visitors.
fn park(Held { deed, guard }: Held<'_>, me: u64) -> Check {
    let transient = deed.look().sort == Sort::Transient;
    if transient {
        deed.freeing()
    } else {
        deed.moving_out(me)
    }
    match guard {
        Guard::Plain(block) => block.park()?,
        Guard::Typed(block) => block.park()?,
        Guard::Boxed(value) => drop(value),
    }
    if transient {
        deed.vacate()
    } else {
        deed.parked()
    }
    Ok(())
}

/// Nobody but the holder writes to a block.
fn is_whole(held: &Held<'_>) -> Check {
    let (seen, contents) = (held.deed.look(), held.guard.read()?);
    ensure(contents == Contents::of(seen.seed), Torn, || {
        format!("{} changed under its holder: {}", seen.id, contents.describe())
    })
}

fn read(block: &Block) -> Check<Contents> {
    let mut bytes = [0; BLOCK_SIZE];
    block.read(0, &mut bytes)?;
    Ok(Contents::from_bytes(&bytes))
}
