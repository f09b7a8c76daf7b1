//! A line of a pin table, and what is pinned by it.

use crate::{
    Error, Result,
    limits::PIN_LINES,
    memory::Memory,
    near::Near,
    protocol::{Fault, Words as _, pin, pin_at_once, take_line},
    word::{Id, NOTHING, Plain, VERSION_NEVER},
};
use mainstay_shm::Atomic64;
use std::{
    cell::Cell,
    ops::Deref,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::Ordering::{AcqRel, Relaxed, Release, SeqCst},
    },
};

/// A line that is kept until this is dropped.
#[derive(Debug)]
pub(crate) struct Line {
    near: Near,
    number: u32,
    /// Whether something is pinned by it now.
    busy: Cell<bool>,
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
        Ok(Self { near: Near::new(Arc::clone(memory)), number, busy: Cell::new(false) })
    }

    #[inline(always)]
    pub(crate) fn near(&self) -> &Near {
        &self.near
    }

    /// Pins the current version, if the line is free and nothing is out of the ordinary.
    #[inline(always)]
    fn pin_at_once(&self) -> Option<Plain> {
        // First: a child made by fork does not have the mappings.
        if !self.near.is_ours() || self.busy.get() {
            return None;
        }
        pin_at_once(self.near.current(), self.near.announced(self.number))
    }

    /// Pins the current version.
    fn pin(&self) -> Result<Plain> {
        let memory = self.near.memory();
        let announced = memory.announced(self.number);
        pin(&*memory.tenant, &**memory, announced).map_err(|fault| failed(memory, fault))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.near.is_ours() {
            return;
        }
        self.near.announced(self.number).store(NOTHING, Release);
        let me = self.near.memory().tenant.me;
        // Fails only when the table was scribbled over.
        let keeper = self.near.keeper(self.number);
        let _ = keeper.compare_exchange(me.0, Id::NOBODY.0, AcqRel, Relaxed);
    }
}

/// Something pinned: its slot is not written until this is dropped.
#[derive(Debug)]
pub(crate) struct Pin<'a> {
    line: Of<'a>,
    pub(crate) plain: Plain,
}

/// Whose line it is that pins.
#[derive(Debug)]
enum Of<'a> {
    /// The handle's, which is busy meanwhile.
    Handle(&'a Line),
    /// The pin's own.
    Pin(Box<Line>),
}

impl Deref for Of<'_> {
    type Target = Line;

    #[inline(always)]
    fn deref(&self) -> &Line {
        match self {
            Self::Handle(line) => line,
            Self::Pin(line) => line,
        }
    }
}

impl<'a> Pin<'a> {
    /// Pins the current version by the handle's line, or by another when that one is in use.
    #[inline(always)]
    pub(crate) fn new(line: &'a Line) -> Result<Self> {
        let pin = match line.pin_at_once() {
            Some(plain) => Self::by_handle(line, plain),
            None => Self::with_care(line)?,
        };
        Ok(pin)
    }

    #[inline(always)]
    fn by_handle(line: &'a Line, plain: Plain) -> Self {
        line.busy.set(true);
        Self { line: Of::Handle(line), plain }
    }

    /// Tells what is wrong, takes another line, or looks at the word until it stays.
    #[cold]
    fn with_care(line: &'a Line) -> Result<Self> {
        let memory = line.near.memory();
        memory.tenant.check_process(&memory.name)?;
        if line.busy.get() {
            return Self::with_own_line(memory);
        }
        line.pin().map(|plain| Self::by_handle(line, plain))
    }

    /// Pins the current version by a line of its own.
    pub(crate) fn with_own_line(memory: &Arc<Memory>) -> Result<Self> {
        memory.tenant.check_process(&memory.name)?;
        let line = Box::new(Line::take(memory)?);
        let plain = line.pin()?;
        Ok(Self { line: Of::Pin(line), plain })
    }

    /// Pins what is current now instead.
    pub(crate) fn renew(&mut self) -> Result<()> {
        self.plain = self.line.pin()?;
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn memory(&self) -> &Memory {
        self.line.near.memory()
    }

    /// The pinned bytes.
    #[inline(always)]
    pub(crate) fn bytes(&self) -> Result<&[u8]> {
        let (at, len) = match bytes_at_once(self.memory(), self.plain) {
            Some(bytes) => bytes,
            None => bytes_with_care(self.memory(), self.plain)?,
        };
        // SAFETY: the range was checked. S1: while the slot is pinned nobody who keeps the
        // protocol writes there, and the pin lives as long as the slice. (Who does not keep it can
        // do worse: it has the state mapped for writing.)
        Ok(unsafe { std::slice::from_raw_parts(at.as_ptr(), len) })
    }
}

/// Where a version is and how many bytes it has, if it was ever written and lies in what the file
/// was seen to cover.
#[inline(always)]
fn bytes_at_once(memory: &Memory, plain: Plain) -> Option<(NonNull<u8>, usize)> {
    if plain.version() == VERSION_NEVER {
        return None;
    }
    let len = usize::try_from(memory.slot(plain.slot()).len.load(Relaxed)).ok()?;
    Some((memory.covered(plain.slot(), len)?, len))
}

#[cold]
fn bytes_with_care(memory: &Memory, plain: Plain) -> Result<(NonNull<u8>, usize)> {
    let len = len_of(memory, plain)?;
    Ok((memory.data(plain.slot(), len)?, len))
}

/// How many bytes a version has.
#[inline(always)]
pub(crate) fn len_of(memory: &Memory, plain: Plain) -> Result<usize> {
    if plain.version() == VERSION_NEVER {
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
        let line = &*self.line;
        if !line.near.is_ours() {
            return;
        }
        line.near.announced(line.number).store(NOTHING, Release);
        line.busy.set(false);
    }
}
