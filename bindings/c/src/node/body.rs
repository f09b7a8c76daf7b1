//! A node: a participant, its backend, and the output that was handed out last.

use std::{
    ffi::CString,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use mainstay_sds::{
    Config, Error, NimSnapshot, Now, Output, Participant, Place, Reason, persist::Persistence,
};

use super::{
    failure::{Failure, Outcome},
    layout::RawOutput,
};

/// A node behind its lock.
pub(super) struct Node {
    body: Mutex<Body>,
    /// The thread that is inside, so that a backend which calls its node is refused and not stuck.
    inside: AtomicU64,
}

/// A number for each thread that ever asked.
fn this_thread() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local!(static OWN: u64 = NEXT.fetch_add(1, Relaxed));
    // A thread that is ending has lost its number; it is inside of nothing.
    OWN.try_with(|own| *own).unwrap_or(u64::MAX)
}

impl Node {
    pub(super) fn new(id: &[u8], keeper: Option<Box<dyn Persistence + Send>>) -> Outcome<Self> {
        let body = Body {
            participant: Participant::new(id)?,
            keeper,
            channel: CString::default(),
            id: Vec::new(),
            sender: Vec::new(),
            bytes: Vec::new(),
            before: Vec::new(),
        };
        Ok(Self { body: Mutex::new(body), inside: AtomicU64::new(0) })
    }

    /// Does something inside of the node, one thread at a time.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Body) -> Outcome<T>) -> Outcome<T> {
        // Only this thread can have set it to its own number, so no ordering is needed.
        if self.inside.load(Relaxed) == this_thread() {
            return Err(Failure::busy());
        }
        // After a panic the participant is whole: it was caught between two calls of its own, or
        // inside of one, whose fault it then is.
        let mut body = self.body.lock().unwrap_or_else(PoisonError::into_inner);
        let inside = Inside::new(&self.inside);
        let done = work(&mut body);
        drop(inside);
        drop::<MutexGuard<'_, Body>>(body);
        done
    }
}

/// Says who is inside, also when a panic ends it.
struct Inside<'a>(&'a AtomicU64);

impl<'a> Inside<'a> {
    fn new(inside: &'a AtomicU64) -> Self {
        inside.store(this_thread(), Relaxed);
        Self(inside)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.store(0, Relaxed);
    }
}

/// What is behind the lock.
pub(super) struct Body {
    pub(super) participant: Participant,
    keeper: Option<Box<dyn Persistence + Send>>,
    /// What the last output points to.
    channel: CString,
    id: Vec<u8>,
    sender: Vec<u8>,
    bytes: Vec<u8>,
    before: Vec<u8>,
}

/// Kinds of output, as in the header.
mod kind {
    pub(super) const BROADCAST: u32 = 1;
    pub(super) const DELIVER: u32 = 2;
    pub(super) const ACKNOWLEDGED: u32 = 3;
    pub(super) const POSSIBLY_ACKNOWLEDGED: u32 = 4;
    pub(super) const FAILED: u32 = 5;
    pub(super) const MISSING: u32 = 6;
    pub(super) const FETCH: u32 = 7;
    pub(super) const LOST: u32 = 8;
    pub(super) const EVICTED: u32 = 9;
    pub(super) const PERSIST: u32 = 10;
    pub(super) const NOT_KEPT: u32 = 11;
}

impl Body {
    pub(super) fn join(&mut self, now: Now, name: &str, config: Config) -> Outcome<()> {
        let saved = match &mut self.keeper {
            Some(keeper) => keeper.load(name)?,
            None => Vec::new(),
        };
        if saved.is_empty() {
            self.participant.join(name, config)?;
        } else {
            self.participant.load(name, config, now, &saved)?;
        }
        Ok(())
    }

    /// Goes on with a channel that the ancestor kept; not over one that is kept here.
    pub(super) fn import_nim(
        &mut self,
        now: Now,
        name: &str,
        config: Config,
        snapshot: &NimSnapshot,
    ) -> Outcome<()> {
        if let Some(keeper) = &mut self.keeper
            && !keeper.load(name)?.is_empty()
        {
            return Err(Error::ChannelExists { name: name.to_owned() }.into());
        }
        Ok(self.participant.import_nim(name, config, now, snapshot)?)
    }

    pub(super) fn forget(&mut self, name: &str) -> Outcome<()> {
        // That it was not joined is no obstacle.
        let _was_joined = self.participant.leave(name);
        if let Some(keeper) = &mut self.keeper {
            keeper.forget(name)?;
        }
        Ok(())
    }

    /// Notes what became of a change.
    pub(super) fn kept(&mut self, now: Now, name: &str, number: u64, ok: bool) -> Outcome<()> {
        let channel = self.participant.channel(now, name)?;
        if ok {
            channel.persisted(number);
        } else {
            channel.persist_failed(now, number);
        }
        self.participant.touched(name);
        Ok(())
    }

    /// The next output, pointing into this node.
    pub(super) fn poll(&mut self, now: Now) -> Outcome<Option<RawOutput>> {
        loop {
            let Some(found) = self.copy_next()? else { return Ok(None) };
            if found.kind != kind::PERSIST {
                return Ok(Some(self.point(found)));
            }
            let Some(keeper) = &mut self.keeper else { return Ok(Some(self.point(found))) };
            let name = self.channel.to_string_lossy().into_owned();
            let change = mainstay_sds::persist::Change::parse(&name, &self.bytes)?;
            let saved = keeper.save(&name, &change);
            self.kept(now, &name, found.number, saved.is_ok())?;
            if let Err(error) = saved {
                self.bytes = error.to_string().into_bytes();
                return Ok(Some(self.point(Found { kind: kind::NOT_KEPT, ..found })));
            }
        }
    }

    /// Copies the parts of the next output.
    fn copy_next(&mut self) -> Outcome<Option<Found>> {
        let Self { participant, channel, id, sender, bytes, before, .. } = self;
        before.clear();
        let Some((name, output)) = participant.poll_output() else { return Ok(None) };
        let zero = |_| Failure::argument("the channel's name has a zero in it");
        *channel = CString::new(name).map_err(zero)?;
        let mut found = Found::default();
        let mut copy = |new_id: &[u8], new_sender: &[u8], new_bytes: &[u8]| {
            for (to, from) in
                [(&mut *id, new_id), (&mut *sender, new_sender), (&mut *bytes, new_bytes)]
            {
                to.clear();
                to.extend_from_slice(from);
            }
        };
        match output {
            Output::Broadcast(broadcast) => {
                copy(broadcast.id, &[], broadcast.bytes);
                found.kind = kind::BROADCAST;
                found.reason = match broadcast.reason {
                    Reason::Content => 1,
                    Reason::Ephemeral => 2,
                    Reason::Resend => 3,
                    Reason::Sync => 4,
                    Reason::Repair => 5,
                    _ => 0,
                };
            }
            Output::Deliver(delivery) => {
                copy(delivery.id, delivery.sender, delivery.content);
                found.kind = kind::DELIVER;
                found.lamport = delivery.lamport.unwrap_or(0);
                found.number = delivery.number;
                found.again = u32::from(delivery.again);
                if let Place::Before { id, later } = delivery.place {
                    found.later = later as u64;
                    before.extend_from_slice(id);
                }
            }
            Output::Acknowledged { id } => {
                copy(id, &[], &[]);
                found.kind = kind::ACKNOWLEDGED;
            }
            Output::PossiblyAcknowledged { id } => {
                copy(id, &[], &[]);
                found.kind = kind::POSSIBLY_ACKNOWLEDGED;
            }
            Output::Failed { id } => {
                copy(id, &[], &[]);
                found.kind = kind::FAILED;
            }
            Output::Missing(missing) => {
                copy(missing.id, missing.sender, missing.hint);
                found.kind = kind::MISSING;
            }
            Output::Fetch(missing) => {
                copy(missing.id, missing.sender, missing.hint);
                found.kind = kind::FETCH;
            }
            Output::Lost { id } => {
                copy(id, &[], &[]);
                found.kind = kind::LOST;
            }
            Output::Evicted { id, sender } => {
                copy(id, sender, &[]);
                found.kind = kind::EVICTED;
            }
            Output::Persist(change) => {
                copy(&[], &[], change.bytes);
                found.kind = kind::PERSIST;
                found.number = change.number;
                found.base = u32::from(change.base);
            }
            // The core has learnt something that this header has no word for.
            _ => return Err(Failure::argument("an output of an unknown kind was left out")),
        }
        Ok(Some(found))
    }

    fn point(&self, found: Found) -> RawOutput {
        RawOutput {
            kind: found.kind,
            reason: found.reason,
            channel: self.channel.as_ptr(),
            id: self.id.as_ptr(),
            id_len: self.id.len(),
            sender: self.sender.as_ptr(),
            sender_len: self.sender.len(),
            bytes: self.bytes.as_ptr(),
            bytes_len: self.bytes.len(),
            lamport: found.lamport,
            number: found.number,
            later: found.later,
            again: found.again,
            base: found.base,
            before: self.before.as_ptr(),
            before_len: self.before.len(),
        }
    }
}

/// The numbers of an output.
#[derive(Clone, Copy, Default)]
struct Found {
    kind: u32,
    reason: u32,
    lamport: u64,
    number: u64,
    later: u64,
    again: u32,
    base: u32,
}
