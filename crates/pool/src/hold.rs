//! Taking a reference to a block, and giving it up. Each is one step on the owner word (see
//! `steps.rs`), so a death leaves the block as before it or as after it.

use crate::{
    BlockId, Error, Result,
    error::Corruption,
    inner::{Acquired, Ending, Inner},
    limits::MAGAZINE_BATCH,
    magazine::{self, Contents, Magazine, OPEN},
    monitor::EventKind,
    steps::{self, Entered, Gone},
    word::{Ask, Left, Word, tag_of},
};
use mainstay_shm::{Atomic64, hook};
use std::sync::atomic::Ordering::Relaxed;

/// What an attacher wants to find.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) generation: Option<u64>,
    /// An exclusive block, held by nobody else.
    pub(crate) exclusive: bool,
}

/// This is a child made by fork: nothing was done.
pub(crate) struct InChild;

impl Inner {
    // ---- attach ----

    /// Takes a reference to a live block.
    #[inline(always)]
    pub(crate) fn attach(&self, number: u32, wanted: Wanted) -> Result<Acquired> {
        self.check_monitor()?;
        // Counted first: that also refuses a child made by fork before it touches the mapping.
        self.guard_taken()?;
        match self.take_reference(number, wanted) {
            Ok(word) => {
                self.emit(EventKind::BlockAttach, number);
                Ok(Acquired { number, word })
            }
            Err(error) => {
                self.guard_dropped(None);
                Err(error)
            }
        }
    }

    #[inline(always)]
    fn take_reference(&self, number: u32, wanted: Wanted) -> Result<Word> {
        if !self.extents.contains(number)? {
            return Err(self.no_such(number, wanted, "there are not that many blocks"));
        }
        let spot = self.extents.spot(number);
        let cold = spot.cold();
        let allowed = |seen| self.attachable(number, seen, wanted);
        let held = match steps::attach(spot.word(), self.slot, allowed)? {
            Entered::First(held) => held,
            Entered::Already => self.attach_again(number, wanted)?,
        };
        // A tag comes back after 2^27 frees. While we hold the block nobody reuses it, so now the
        // whole generation decides.
        let stale = wanted.generation.is_some_and(|g| g != cold.generation.load(Relaxed))
            && !hook::planted("generation-unchecked");
        if stale {
            return Err(self.let_go(number, held, wanted));
        }
        Ok(held)
    }

    /// The wrong block was attached: leaves it as it was.
    #[cold]
    fn let_go(&self, number: u32, held: Word, wanted: Wanted) -> Error {
        // One guard more, which the release counts as dropped.
        match self.guard_taken() {
            Ok(()) => {
                let _ = self.release(number, held, Ask::Park);
            }
            Err(error) => return error,
        }
        self.no_such(number, wanted, "it was freed and allocated anew")
    }

    /// Whether a block in the state `seen` may be attached.
    #[inline(always)]
    fn attachable(&self, number: u32, seen: Word, wanted: Wanted) -> Result<()> {
        if !seen.is_live() {
            return Err(self.no_such(number, wanted, "it is free"));
        }
        if wanted.generation.is_some_and(|g| tag_of(g) != seen.tag())
            && !hook::planted("tag-unchecked")
        {
            return Err(self.no_such(number, wanted, "it was freed and allocated anew"));
        }
        if seen.is_doomed() {
            return Err(self.no_such(number, wanted, "a holder has asked to free it"));
        }
        if seen.is_exclusive() || wanted.exclusive {
            return self.attachable_alone(number, seen, wanted);
        }
        Ok(())
    }

    #[cold]
    fn attachable_alone(&self, number: u32, seen: Word, wanted: Wanted) -> Result<()> {
        let why = match (wanted.exclusive, seen.is_exclusive()) {
            (false, true) => "is exclusive: attach it as a PoolBox of its type",
            (true, false) => "is shared: attach it as a Block",
            _ if seen.owners() != 0 => "is exclusive and has a holder already",
            _ => return Ok(()),
        };
        Err(Error::Exclusive { pool: self.display(), number, why })
    }

    #[cold]
    fn no_such(&self, number: u32, wanted: Wanted, why: &'static str) -> Error {
        let id = match wanted.generation {
            Some(generation) => BlockId { number, generation }.to_string(),
            None => number.to_string(),
        };
        Error::NoSuchBlock { pool: self.display(), id, why }
    }

    /// Attach when this process has a guard already: counted in private.
    #[cold]
    fn attach_again(&self, number: u32, wanted: Wanted) -> Result<Word> {
        let spot = self.extents.spot(number);
        let mut extra = self.extras.lock(number);
        let (held, again) = steps::attach_again(spot.word(), self.slot, |seen| {
            self.attachable(number, seen, wanted)
        })?;
        if again {
            extra.add();
        }
        Ok(held)
    }

    /// One more guard of a block that the caller holds.
    pub(crate) fn clone_guard(&self, number: u32) -> Result<Word> {
        self.check()?;
        let word = self.extents.word(number);
        let mut extra = self.extras.lock(number);
        let seen = steps::note_multi(word, self.slot).map_err(|found| {
            let what = Corruption::OwnerWord { number, word: found.0 };
            Error::corrupt(&self.display(), what)
        })?;
        extra.add();
        drop(extra);
        self.guard_taken()?;
        Ok(seen)
    }

    /// Counts a guard that is being made.
    #[inline(always)]
    pub(crate) fn guard_taken(&self) -> Result<()> {
        let counted = magazine::fast(self)
            .is_some_and(|magazine| magazine.own_open(|contents| contents.taken += 1).is_some());
        if counted { Ok(()) } else { self.guard_taken_slowly() }
    }

    /// No magazine at hand, the pool closing (a guard may still be cloned), or a child.
    #[cold]
    fn guard_taken_slowly(&self) -> Result<()> {
        self.check_fork()?;
        magazine::with(self, |magazine| magazine.own(|contents| contents.taken += 1));
        Ok(())
    }

    // ---- release ----

    /// Gives up one guard. `guess` is the word as the guard remembers it: usually right. None when
    /// somebody wrote garbage there. The guard may have been what kept the pool: unless the caller
    /// has a handle, `self` may be gone afterwards, except in a child, which keeps it.
    #[inline(always)]
    pub(crate) fn release(
        &self,
        number: u32,
        guess: Word,
        ask: Ask,
    ) -> Result<Option<Left>, InChild> {
        match magazine::fast(self) {
            Some(magazine) if magazine.mode() == OPEN && !self.monitors.any() => {
                let left = self.drop_reference(number, guess, ask);
                let freed = (left == Some(Left::Freed)).then_some(number);
                if !self.dropped_through(magazine, freed) {
                    self.guard_dropped_slowly(freed);
                }
                Ok(left)
            }
            _ => self.release_slowly(number, guess, ask),
        }
    }

    /// With monitors, without a magazine at hand, in a closing pool, or in a child made by fork,
    /// which must not touch the mapping.
    #[cold]
    fn release_slowly(&self, number: u32, guess: Word, ask: Ask) -> Result<Option<Left>, InChild> {
        if self.is_forked() {
            return Err(InChild);
        }
        let left = self.drop_reference(number, guess, ask);
        if self.monitors.any() {
            self.emit_left(number, left);
        }
        self.guard_dropped((left == Some(Left::Freed)).then_some(number));
        Ok(left)
    }

    #[inline(always)]
    fn drop_reference(&self, number: u32, guess: Word, ask: Ask) -> Option<Left> {
        let word = self.extents.word(number);
        match steps::leave(word, guess, self.slot, ask) {
            Gone::Left(left) => Some(left),
            Gone::Multi => self.release_multi(number, ask),
            Gone::Garbage => None,
        }
    }

    #[cold]
    fn release_multi(&self, number: u32, ask: Ask) -> Option<Left> {
        let mut extra = self.extras.lock(number);
        let more = extra.take();
        steps::leave_multi(self.extents.word(number), self.slot, ask, more)
    }

    /// Counts a guard as dropped and puts the block it freed, if any, into the magazine.
    #[inline(always)]
    pub(crate) fn guard_dropped(&self, freed: Option<u32>) {
        let done = magazine::fast(self).is_some_and(|m| self.dropped_through(m, freed));
        if !done {
            self.guard_dropped_slowly(freed);
        }
    }

    /// False when the pool is not open any more: then nothing was done.
    #[inline(always)]
    fn dropped_through(&self, magazine: &Magazine, freed: Option<u32>) -> bool {
        magazine.own_open(|contents| self.dropped_in(contents, freed)).is_some()
    }

    #[inline(always)]
    fn dropped_in(&self, contents: &mut Contents, freed: Option<u32>) {
        contents.dropped += 1;
        if let Some(number) = freed
            && !contents.push(number)
        {
            self.make_room_for(contents, number);
        }
    }

    #[cold]
    fn make_room_for(&self, contents: &mut Contents, number: u32) {
        self.give_back(contents, MAGAZINE_BATCH);
        let fits = contents.push(number);
        debug_assert!(fits, "there is room after giving back");
    }

    /// No magazine at hand, or the pool has no handle any more: then whoever drops the last guard
    /// ends it.
    #[cold]
    fn guard_dropped_slowly(&self, freed: Option<u32>) {
        if magazine::with(self, |magazine| self.dropped_through(magazine, freed)) {
            return;
        }
        let ending = Ending::begin();
        // The guard is counted until here, so the pool is there until here.
        magazine::with(self, |magazine| {
            magazine.own(|contents| self.dropped_in(contents, freed));
        });
        let last = self.take_if_unused();
        drop(ending);
        if let Some(last) = last {
            last.end();
        }
    }

    #[cold]
    fn emit_left(&self, number: u32, left: Option<Left>) {
        match left {
            Some(Left::Held) => self.emit(EventKind::BlockRelease, number),
            Some(Left::Parked) => self.emit(EventKind::BlockPark, number),
            Some(Left::Freed) => self.emit(EventKind::BlockFree, number),
            None => {}
        }
    }
}
