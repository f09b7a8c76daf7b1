//! A line of a pin table, and what is pinned by it.

use crate::{
    Error, Result,
    limits::PIN_LINES,
    memory::Memory,
    protocol::{Fault, Words as _, pin, take_line},
    word::{Id, NOTHING, Plain},
};
use mainstay_shm::Atomic64;
use std::{
    cell::Cell,
    ops::Deref,
    sync::{
        Arc,
        atomic::Ordering::{AcqRel, Relaxed, Release, SeqCst},
    },
};

/// A reference to a state's memory that either borrows a handle or keeps the memory itself.
#[derive(Clone, Debug)]
pub(crate) enum Held<'a> {
    Borrowed(&'a Arc<Memory>),
    Kept(Arc<Memory>),
}

impl Deref for Held<'_> {
    type Target = Memory;

    #[inline(always)]
    fn deref(&self) -> &Memory {
        match self {
            Self::Borrowed(memory) => memory,
            Self::Kept(memory) => memory,
        }
    }
}

/// A line that is kept until this is dropped.
#[derive(Debug)]
pub(crate) struct Line {
    memory: Arc<Memory>,
    pub(crate) number: u32,
    /// Whether something is pinned by it now.
    pub(crate) busy: Cell<bool>,
}

impl Line {
    pub(crate) fn take(memory: &Arc<Memory>) -> Result<Self> {
        let raise = |used: u32| {
            let word = &memory.pin_words().used;
            loop {
                let seen = word.load(SeqCst);
                // SeqCst: before the first announcement in the new line (S1).
                if seen >= used || word.compare_exchange(seen, used, SeqCst, Relaxed).is_ok() {
                    return;
                }
            }
        };
        let tenant = &memory.tenant;
        let number = take_line(&**tenant, &**memory, tenant.me, PIN_LINES, raise);
        let none = || Error::NoFreeLine { state: memory.name.clone(), lines: PIN_LINES };
        let number = number.ok_or_else(none)?;
        Ok(Self { memory: Arc::clone(memory), number, busy: Cell::new(false) })
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.memory.tenant.epoch.is_current() {
            return;
        }
        self.memory.announced(self.number).store(NOTHING, Release);
        let me = self.memory.tenant.me;
        // Fails only when the table was scribbled over.
        let keeper = self.memory.keeper(self.number);
        let _ = keeper.compare_exchange(me.0, Id::NOBODY.0, AcqRel, Relaxed);
    }
}

/// Something pinned: its slot is not written until this is dropped.
#[derive(Debug)]
pub(crate) struct Pin<'a> {
    memory: Held<'a>,
    pub(crate) plain: Plain,
    number: u32,
    line: Of<'a>,
}

/// Whose line it is that pins.
#[derive(Debug)]
enum Of<'a> {
    /// The handle's, which says so here.
    Handle(&'a Cell<bool>),
    /// The pin's own.
    Pin(#[expect(dead_code, reason = "kept to be dropped")] Box<Line>),
}

impl<'a> Pin<'a> {
    /// Pins the current version by the handle's line, or by another when that one is in use.
    #[inline(always)]
    pub(crate) fn new(memory: &'a Arc<Memory>, line: &'a Line) -> Result<Self> {
        memory.tenant.check_process(&memory.name)?;
        let (of, number) = if line.busy.get() {
            let own = own_line(memory)?;
            let number = own.number;
            (Of::Pin(own), number)
        } else {
            (Of::Handle(&line.busy), line.number)
        };
        let plain = pinned(memory, number)?;
        line.busy.set(true);
        Ok(Self { memory: Held::Borrowed(memory), plain, number, line: of })
    }

    /// Pins the current version by a line of its own.
    pub(crate) fn with_own_line(memory: Held<'a>, arc: &Arc<Memory>) -> Result<Self> {
        arc.tenant.check_process(&arc.name)?;
        let line = own_line(arc)?;
        let plain = pinned(arc, line.number)?;
        Ok(Self { memory, plain, number: line.number, line: Of::Pin(line) })
    }

    /// Pins what is current now instead.
    pub(crate) fn renew(&mut self) -> Result<()> {
        self.plain = pinned(&self.memory, self.number)?;
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The pinned bytes.
    #[inline(always)]
    pub(crate) fn bytes(&self) -> Result<&[u8]> {
        let len = len_of(&self.memory, self.plain)?;
        let at = self.memory.data(self.plain.slot(), len)?;
        // SAFETY: `data` has checked the range. S1: while the slot is pinned nobody who keeps the
        // protocol writes there, and the pin lives as long as the slice. (Who does not keep it can
        // do worse: it has the state mapped for writing.)
        Ok(unsafe { std::slice::from_raw_parts(at.as_ptr(), len) })
    }
}

/// A line for one pin, when the handle's is in use.
#[cold]
fn own_line(memory: &Arc<Memory>) -> Result<Box<Line>> {
    Line::take(memory).map(Box::new)
}

/// How many bytes a version has.
#[inline(always)]
pub(crate) fn len_of(memory: &Memory, plain: Plain) -> Result<usize> {
    if plain.version() == crate::word::VERSION_NEVER {
        return len_of_never_written(memory);
    }
    memory.len_of(plain.slot())
}

#[cold]
fn len_of_never_written(memory: &Memory) -> Result<usize> {
    let size = memory.words().size.load(Relaxed);
    match usize::try_from(size) {
        Ok(len) if size <= memory.header.stride => Ok(len),
        _ => Err(memory.corrupt("size", size.to_string())),
    }
}

#[inline(always)]
fn pinned(memory: &Memory, line: u32) -> Result<Plain> {
    pin(&*memory.tenant, memory, memory.announced(line)).map_err(|fault| failed(memory, fault))
}

#[cold]
pub(crate) fn failed(memory: &Memory, fault: Fault) -> Error {
    match fault {
        Fault::Deleted => Error::Deleted { state: memory.name.clone() },
        Fault::Garbage(word) => memory.corrupt("word", format!("{word:#018x}")),
        Fault::Restless => memory.corrupt("word", "changing without end"),
    }
}

impl Drop for Pin<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if !self.memory.tenant.epoch.is_current() {
            return;
        }
        self.memory.announced(self.number).store(NOTHING, Release);
        if let Of::Handle(busy) = self.line {
            busy.set(false);
        }
    }
}
