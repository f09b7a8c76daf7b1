//! What one thread of a worker does with its states, and what it says about it in its log.

use super::SLOTS;
use super::ledger::{Entry, Ledger, Log, PUBLISHED, Phase, Tallies, Touch, now_ns};
use crate::{
    finding::{Check, Finding, ensure},
    state::{
        actor::{Act, Actor, Plan, Refusal},
        contents::{Contents, SIZE, garbage},
        site::options,
    },
    verdict::Harm::{Leaked, Torn},
};
use mainstay_base::Rng;
use mainstay_shm::Access;
use mainstay_state::{Error, RetryPolicy};
use std::{
    cell::Cell,
    sync::atomic::{AtomicU32, Ordering::SeqCst},
    thread,
    time::Duration,
};

/// How often a transaction is tried. Each try needs an entry.
const TRIES: u32 = 8;

/// States that come and go while others work.
const PASSING: [&str; 2] = ["passing.0", "passing.1"];

pub(super) struct Work<'a> {
    actor: Actor,
    maps: &'a [usize],
    accounts: Vec<usize>,
    access: Access,
    ledger: &'a Ledger,
    log: &'a Log,
    joining: &'a AtomicU32,
    rng: Rng,
}

impl<'a> Work<'a> {
    pub(super) fn new(
        actor: Actor,
        (maps, access): (&'a [usize], Access),
        ledger: &'a Ledger,
        (log, joining): (&'a Log, &'a AtomicU32),
        seed: u64,
    ) -> Self {
        let is_account = |at: &usize| *at < super::ledger::Storm::ACCOUNTS;
        let accounts = maps.iter().copied().filter(is_account).collect();
        Self { actor, maps, accounts, access, ledger, log, joining, rng: Rng::seeded(seed) }
    }

    fn pick(&mut self) -> usize {
        self.maps[self.rng.below(self.maps.len() as u64) as usize]
    }

    /// This many different ones of `all`, in a random order.
    fn draw(&mut self, mut all: Vec<usize>, count: usize) -> Vec<usize> {
        let count = count.min(all.len());
        for place in 0..count {
            let left = (all.len() - place) as u64;
            all.swap(place, place + self.rng.below(left) as usize);
        }
        all.truncate(count);
        all
    }

    /// Those whose contents say which version they are.
    fn counted(&self) -> Vec<usize> {
        self.maps.iter().copied().filter(|at| *at != PUBLISHED).collect()
    }

    fn some(&mut self, least: usize, most: usize) -> Vec<usize> {
        let count = least + self.rng.below((most - least + 1) as u64) as usize;
        self.draw(self.maps.to_vec(), count)
    }

    // ---- commits ----

    /// Runs a transaction that says in its entry what it is about to write, and settles that.
    fn record(&self, run: impl FnOnce(&dyn Fn(&[Touch]), u64) -> Act) -> Act {
        let (author, began) = (self.ledger.new_author(), now_ns());
        let entry: Cell<Option<&Entry>> = Cell::new(None);
        let about_to = |touches: &[Touch]| entry.set(self.log.open(author, began, touches));
        let done = run(&about_to, author);
        if let Some(entry) = entry.get() {
            entry.settle(if done.is_ok() { Phase::Committed } else { Phase::Refused });
        }
        done
    }

    fn single(&mut self) -> Act {
        let at = self.pick();
        self.record(|about_to, author| {
            self.actor.single(at, author, |version| {
                about_to(&[Touch::write(at, version)]);
            })
        })?;
        Tallies::add(&self.ledger.tallies.singles, 1);
        Ok(())
    }

    fn transfer(&mut self) -> Act {
        let count = 2 + self.rng.below(3) as usize;
        let states = self.draw(self.accounts.clone(), count);
        let others: Vec<usize> =
            self.counted().into_iter().filter(|at| !states.contains(at)).collect();
        let checks = if self.rng.below(3) == 0 { self.draw(others, 1) } else { Vec::new() };
        let amount = self.rng.below(1_000) as i64 - 500;
        self.record(|about_to, author| {
            self.actor.transfer(&states, &checks, (amount, author), |read| {
                let touch = |(state, version): &(usize, u64)| {
                    let writes = states.contains(state);
                    Touch { writes, ..Touch::read(*state, *version) }
                };
                about_to(&read.iter().map(touch).collect::<Vec<_>>());
            })
        })?;
        Tallies::add(&self.ledger.tallies.transfers, 1);
        Ok(())
    }

    /// A count goes up by the library's own loop.
    fn transact(&mut self) -> Act {
        let at = self.pick();
        let entry: Cell<Option<&Entry>> = Cell::new(None);
        let author = self.ledger.new_author();
        let found: Cell<Option<Finding>> = Cell::new(None);
        let policy = RetryPolicy::new().tries(TRIES);
        let done = self.actor.state(at).transact(policy, |transaction| {
            // The try before was refused.
            if let Some(entry) = entry.take() {
                entry.settle(Phase::Refused);
            }
            let began = now_ns();
            match Contents::of(transaction.get()?, transaction.base_version()) {
                Ok(old) => {
                    let len = transaction.get()?.len();
                    transaction.bytes_mut()?.copy_from_slice(&old.next(0, author).bytes(len));
                    let touch = Touch::write(at, old.version);
                    entry.set(self.log.open(author, began, &[touch]));
                }
                Err(finding) => found.set(Some(finding)),
            }
            Ok(())
        });
        if let Some(entry) = entry.take() {
            entry.settle(if done.is_ok() { Phase::Committed } else { Phase::Refused });
        }
        match found.take() {
            Some(finding) => Err(finding.into()),
            None => Ok(done?),
        }
    }

    /// Publishes a few versions in a row, which needs two slots of its own.
    fn publish(&mut self) -> Act {
        let state = self.actor.state(PUBLISHED);
        let mut publisher = state.publisher()?;
        let mut old = {
            let snapshot = state.read()?;
            Contents::of(&snapshot, snapshot.version())?
        };
        for _ in 0..2 + self.rng.below(6) {
            let (author, began) = (self.ledger.new_author(), now_ns());
            let touch = Touch::publish(PUBLISHED, old.version);
            let Some(entry) = self.log.open(author, began, &[touch]) else { break };
            match Actor::publish(&mut publisher, old, author) {
                Ok(made) => {
                    entry.came_after(Touch::publish(PUBLISHED, made - 1));
                    entry.settle(Phase::Committed);
                    old = Contents { version: made, ..old };
                }
                Err(refusal) => {
                    entry.settle(Phase::Refused);
                    return Err(refusal);
                }
            }
            Tallies::add(&self.ledger.tallies.published, 1);
        }
        Ok(())
    }

    fn abort(&mut self) -> Act {
        let at = self.pick();
        let mut transaction = self.actor.state(at).begin()?;
        garbage(transaction.bytes_mut()?);
        transaction.abort();
        Ok(())
    }

    fn scavenge(&mut self) -> Act {
        let at = self.pick();
        Ok(self.actor.state(at).scavenge().map(drop)?)
    }

    // ---- reads ----

    /// A commit without changes, which always succeeds: all that it read was current at one instant.
    fn check_only(&mut self) -> Act {
        let count = 2 + self.rng.below(3) as usize;
        let states = self.draw(self.counted(), count);
        self.record(|about_to, author| {
            self.actor.transfer(&[], &states, (0, author), |read| {
                let touch = |(state, version): &(usize, u64)| Touch::read(*state, *version);
                about_to(&read.iter().map(touch).collect::<Vec<_>>());
            })
        })
    }

    fn look(&mut self) -> Act {
        let states = if self.rng.below(2) == 0 { self.maps.to_vec() } else { self.some(2, 4) };
        let began = now_ns();
        let contents = self.actor.look(&states)?;
        self.has_read(began, states.iter().copied().zip(&contents));
        Tallies::add(&self.ledger.tallies.views, 1);
        Ok(())
    }

    /// A read is a transaction too, which nobody can refuse.
    fn has_read<'c>(&self, began: u64, read: impl Iterator<Item = (usize, &'c Contents)>) {
        let touch = |(state, contents): (usize, &Contents)| Touch::read(state, contents.version);
        let touches: Vec<Touch> = read.map(touch).collect();
        if let Some(entry) = self.log.open(self.ledger.new_author(), began, &touches) {
            entry.settle(Phase::Committed);
        }
    }

    /// Holds what it reads for a while.
    fn hold(&mut self) -> Act {
        let states = self.some(1, 4);
        let pause = Duration::from_micros(self.rng.below(300));
        let handles: Vec<_> = states.iter().map(|at| self.actor.state(*at)).collect();
        let snapshots = mainstay_state::together(&handles[..])?;
        let before = self.actor.weigh(&states, &snapshots)?;
        thread::sleep(pause);
        let after = self.actor.weigh(&states, &snapshots)?;
        Ok(ensure(before == after, Torn, || "snapshots have changed while they were held".into())?)
    }

    fn copy(&mut self) -> Act {
        let at = self.pick();
        let mut bytes = [0; SIZE];
        let began = now_ns();
        let (version, len) = self.actor.state(at).copy_to(&mut bytes)?;
        let contents = Contents::of(&bytes[..len.min(SIZE)], version)?;
        self.has_read(began, [(at, &contents)].into_iter());
        Ok(())
    }

    fn view(&mut self) -> Act {
        let at = self.pick();
        let mut view = self.actor.state(at).view(Duration::from_secs(3_600))?;
        let first = Contents::whole(view.get()?)?;
        let second = Contents::whole(view.get()?)?;
        Ok(ensure(first == second, Torn, || "a view has changed before its next tick".into())?)
    }

    fn wait(&mut self) -> Act {
        let at = self.pick();
        let limit = Duration::from_micros(self.rng.below(500));
        let mut watch = self.actor.state(at).watch()?;
        let before = watch.state().version()?;
        if let Some(version) = watch.wait(limit)? {
            let snapshot = watch.read()?;
            ensure(version <= snapshot.version() && version >= before, Torn, || {
                format!("told of version {version}, and {} is there", snapshot.version())
            })?;
        }
        Ok(())
    }

    // ---- states that come and go ----

    fn pass_by(&mut self) -> Act {
        let name = PASSING[self.rng.below(PASSING.len() as u64) as usize];
        self.joining.fetch_add(1, SeqCst);
        let done = self.join_and_leave(name);
        self.joining.fetch_sub(1, SeqCst);
        done
    }

    fn join_and_leave(&self, name: &str) -> Act {
        if self.access == Access::ReadOnly {
            let state = match options(SLOTS).reader::<[u8]>(&self.actor.domain, name) {
                Err(Error::NotFound { .. }) => return Ok(()),
                state => state?,
            };
            let snapshot = state.read()?;
            Contents::of(&snapshot, snapshot.version())?;
            return Ok(());
        }
        let state = options(SLOTS).writer::<[u8]>(&self.actor.domain, name)?;
        let author = self.ledger.new_author();
        let mut transaction = state.begin()?;
        let old = Contents::of(transaction.get()?, transaction.base_version())?;
        ensure(old.version == transaction.base_version(), Leaked, || {
            format!("a new state begins with version {}", transaction.base_version())
        })?;
        transaction.bytes_mut()?.copy_from_slice(&old.next(0, author).bytes(SIZE));
        transaction.commit()?;
        Ok(())
    }

    fn write_or_read(&mut self) -> Act {
        // Nobody would know of what a thread writes whose log is full.
        if self.access == Access::ReadOnly || !self.log.has_room(TRIES as usize) {
            return self.read();
        }
        match self.rng.below(100) {
            0..30 => self.single(),
            30..60 => self.transfer(),
            60..65 => self.transact(),
            65..70 => self.check_only(),
            70..74 => self.abort(),
            74..75 => self.scavenge(),
            75..80 if self.maps.contains(&PUBLISHED) => self.publish(),
            _ => self.read(),
        }
    }

    fn read(&mut self) -> Act {
        match self.rng.below(100) {
            0..60 => self.look(),
            60..80 => self.copy(),
            80..88 => self.hold(),
            88..92 => self.view(),
            92..96 => self.wait(),
            _ => self.pass_by(),
        }
    }
}

impl crate::shift::Work for Work<'_> {
    fn one(&mut self) -> Check {
        match self.write_or_read() {
            Ok(()) => Ok(()),
            // What others do is no fault of ours: there are few slots and many rivals.
            Err(refusal) if refusal.is_conflict() => Ok(()),
            Err(refusal) if refusal.is(|e| matches!(e, Error::RetriesExhausted { .. })) => Ok(()),
            Err(Refusal::Library(Error::NoFreeSlot { .. })) => {
                Tallies::add(&self.ledger.tallies.full, 1);
                Ok(())
            }
            Err(refusal) => Err(refusal.into()),
        }
    }

    fn before_rest(&mut self) {}

    fn leave(&mut self) -> Check {
        // Until the session is over: the handles are dropped behind this.
        self.joining.fetch_add(1, SeqCst);
        Ok(())
    }
}
