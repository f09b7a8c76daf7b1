//! Is there an order in which everybody could have been served?
//!
//! The search of Wing and Gong ("Testing and Verifying Concurrent Objects", 1993) with the memory
//! of Lowe ("Testing for Linearizability", 2017): operations are put in order one by one, each time
//! one that was called before any of the others left had returned; a set of operations that led to
//! the same state before is not looked at again.
//!
//! K1. "Linearizable" comes with an order, and that order is right: it can be checked by hand.
//! K2. "Violation" means that there is no order at all, with any of the unanswered operations
//!     happening at any time after their call, or never.
//! K3. The search ends: after a number of states it says that it does not know.

use super::{
    history::{Entry, History, OpId},
    models::Model,
};
use crate::limits::STATES_LOOKED_AT_DEFAULT;
use std::{collections::HashSet, fmt};

/// What a checker has found.
///
/// Example: see [`Linearizable`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This order explains everything. What is not in it was never answered, and need not have
    /// happened.
    Linearizable(Vec<OpId>),
    /// No order does.
    Violation(Violation),
    /// Nobody knows after so many states; the history has too many operations at once.
    GaveUp {
        /// How many.
        states: usize,
    },
}

/// A history that no order explains.
///
/// Example: see [`Linearizable`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The longest order that was found to explain a beginning of it.
    pub explained: Vec<OpId>,
    /// An answer that could not come next, in text.
    pub stuck_at: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "not linearizable: at most {} operations have an order, and then no place is left for \
             {}",
            self.explained.len(),
            self.stuck_at
        )
    }
}

/// Checks whether a history is linearizable.
///
/// ```
/// use mainstay_sim::check::{Cell, CellCall, CellReply, History, Linearizable, Verdict};
/// let mut history = History::new();
/// let write = history.call(CellCall::Write(5));
/// history.returns(write, CellReply::Written);
/// let read = history.call(CellCall::Read);
/// history.returns(read, CellReply::Value(0));
/// let verdict = Linearizable::new(&Cell::of(0)).states_max(1_000).check(&history);
/// let Verdict::Violation(violation) = verdict else { panic!("it reads what was overwritten") };
/// assert!(violation.to_string().contains("Read -> Value(0)"));
/// ```
pub struct Linearizable<'a, M> {
    model: &'a M,
    states_max: usize,
}

impl<'a, M: Model> Linearizable<'a, M> {
    /// A checker for this kind of object.
    ///
    /// Example: see [`Linearizable`].
    pub fn new(model: &'a M) -> Self {
        Self { model, states_max: STATES_LOOKED_AT_DEFAULT }
    }

    /// Gives up after so many states.
    ///
    /// Example: see [`Linearizable`].
    #[must_use]
    pub fn states_max(mut self, states: usize) -> Self {
        self.states_max = states;
        self
    }

    /// Looks for an order.
    ///
    /// Example: see [`Linearizable`].
    #[must_use]
    pub fn check(&self, history: &History<M::Call, M::Reply>) -> Verdict {
        Search::new(self.model, history).run(self.states_max)
    }
}

impl<C, R> History<C, R> {
    /// Is this history of one object linearizable?
    ///
    /// Example: see [`History`].
    #[must_use]
    pub fn linearizable<M: Model<Call = C, Reply = R>>(&self, model: &M) -> Verdict {
        Linearizable::new(model).check(self)
    }
}

/// Calls and returns in the order of the history, as a list from which operations are taken out
/// and put back; and the calls without an answer as a list of their own. Those are tried last:
/// most of the time nobody needs them, and each one put in order too early is found out late.
struct Search<'a, M: Model> {
    model: &'a M,
    operations: Vec<Operation<'a, M>>,
    /// The heads of both lists come first.
    entries: Vec<Link>,
    ordered: Ordered,
    /// The calls put in order, and the state before each.
    path: Vec<(usize, M::State)>,
    returns_left: usize,
}

type Operation<'a, M> = (OpId, &'a Entry<<M as Model>::Call, <M as Model>::Reply>);

#[derive(Clone, Copy)]
struct Link {
    next: usize,
    previous: usize,
    moment: u64,
    operation: usize,
    /// The entry of a call's return; a return has none, and a call without an answer neither.
    returns: Option<usize>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Head,
    Call,
    Return,
    OpenCall,
}

/// Of what was answered, and of what was not.
const HEAD: usize = 0;
const OPEN_HEAD: usize = 1;

impl<'a, M: Model> Search<'a, M> {
    fn new(model: &'a M, history: &'a History<M::Call, M::Reply>) -> Self {
        let matters = |(id, entry): &Operation<'_, M>| {
            let others = history.all().filter(|(other, _)| other != id);
            let mut others = others.map(|(_, other)| (&other.call, other.reply.as_ref()));
            entry.returned.is_some() || !model.is_unseen(&entry.call, &mut others)
        };
        let operations: Vec<_> = history.all().filter(matters).collect();
        let mut moments: Vec<(u64, usize, Kind)> = Vec::new();
        for (operation, (_, entry)) in operations.iter().enumerate() {
            let kind = if entry.returned.is_some() { Kind::Call } else { Kind::OpenCall };
            moments.push((entry.called, operation, kind));
            moments.extend(entry.returned.map(|returned| (returned, operation, Kind::Return)));
        }
        moments.sort_unstable_by_key(|(moment, ..)| *moment);

        let returns_left = moments.iter().filter(|(.., kind)| *kind == Kind::Return).count();
        let mut entries = vec![Link::head(HEAD), Link::head(OPEN_HEAD)];
        let mut call_of = vec![HEAD; operations.len()];
        for (moment, operation, kind) in moments {
            let entry = entries.len();
            let head = if kind == Kind::OpenCall { OPEN_HEAD } else { HEAD };
            // Each list is a ring: the last one is before the head.
            let previous = entries[head].previous;
            entries.push(Link { next: head, previous, moment, operation, returns: None, kind });
            (entries[previous].next, entries[head].previous) = (entry, entry);
            if kind == Kind::Return {
                entries[call_of[operation]].returns = Some(entry);
            } else {
                call_of[operation] = entry;
            }
        }
        let ordered = Ordered::none_of(operations.len());
        Self { model, operations, entries, ordered, path: Vec::new(), returns_left }
    }

    fn run(mut self, states_max: usize) -> Verdict {
        let mut seen = HashSet::new();
        let mut state = self.model.initial();
        let mut longest: Vec<OpId> = Vec::new();
        let mut stuck_at = String::new();
        let mut at = self.first();
        while self.returns_left > 0 {
            if let Some(call) = at {
                let operation = self.entries[call].operation;
                at = self.after(call);
                let Some(next) = self.try_next(operation, &state) else { continue };
                self.ordered.insert(operation);
                if seen.insert((self.ordered.key(), next.clone())) {
                    if seen.len() > states_max {
                        return Verdict::GaveUp { states: states_max };
                    }
                    self.take_out(call);
                    self.path.push((call, std::mem::replace(&mut state, next)));
                    at = self.first();
                } else {
                    self.ordered.remove(operation);
                }
                continue;
            }
            if self.path.len() >= longest.len() {
                longest = self.order();
                let stuck = self.entries[self.first_return()].operation;
                stuck_at = self.operations[stuck].1.to_string();
            }
            let Some((call, before)) = self.path.pop() else {
                return Verdict::Violation(Violation { explained: longest, stuck_at });
            };
            state = before;
            self.ordered.remove(self.entries[call].operation);
            self.put_back(call);
            at = self.after(call);
        }
        Verdict::Linearizable(self.order())
    }

    /// The first call that may come next.
    fn first(&self) -> Option<usize> {
        self.after(HEAD)
    }

    /// The call that may come next, after `call` was tried: those before the first return, then
    /// those without an answer that were called before it.
    fn after(&self, call: usize) -> Option<usize> {
        let mut next = self.entries[call].next;
        if self.entries[next].kind == Kind::Call {
            return Some(next);
        }
        if self.entries[next].kind == Kind::Return {
            next = self.entries[OPEN_HEAD].next;
        }
        let open = self.entries[next];
        let in_time = open.moment < self.entries[self.first_return()].moment;
        (open.kind == Kind::OpenCall && in_time).then_some(next)
    }

    /// Somebody has an answer that is not explained yet.
    fn first_return(&self) -> usize {
        let mut at = self.entries[HEAD].next;
        while self.entries[at].kind == Kind::Call {
            at = self.entries[at].next;
        }
        at
    }

    /// The state after `operation`, if it may come next.
    fn try_next(&self, operation: usize, state: &M::State) -> Option<M::State> {
        let (_, entry) = self.operations[operation];
        let step = |state| self.model.step(state, &entry.call, entry.reply.as_ref());
        let next = step(state)?;
        // What was not answered need not have happened. If it makes no difference to the very next
        // operation, leave it out: there is a way without it, and on that way it can still come.
        let needless = self.path.last().is_some_and(|(last, before)| {
            self.entries[*last].kind == Kind::OpenCall && step(before).as_ref() == Some(&next)
        });
        (!needless).then_some(next)
    }

    fn order(&self) -> Vec<OpId> {
        let operation = |call: &usize| self.operations[self.entries[*call].operation].0;
        self.path.iter().map(|(call, _)| operation(call)).collect()
    }

    fn take_out(&mut self, call: usize) {
        self.unlink(call);
        if let Some(returns) = self.entries[call].returns {
            self.unlink(returns);
            self.returns_left -= 1;
        }
    }

    /// In the reverse order of taking out, so that each finds its neighbours.
    fn put_back(&mut self, call: usize) {
        if let Some(returns) = self.entries[call].returns {
            self.relink(returns);
            self.returns_left += 1;
        }
        self.relink(call);
    }

    fn unlink(&mut self, entry: usize) {
        let Link { next, previous, .. } = self.entries[entry];
        (self.entries[previous].next, self.entries[next].previous) = (next, previous);
    }

    fn relink(&mut self, entry: usize) {
        let Link { next, previous, .. } = self.entries[entry];
        (self.entries[previous].next, self.entries[next].previous) = (entry, entry);
    }
}

impl Link {
    fn head(at: usize) -> Self {
        Self { next: at, previous: at, moment: 0, operation: 0, returns: None, kind: Kind::Head }
    }
}

/// A set of operations. Most of those put in order are the first ones, so that only what comes
/// after them has to be remembered.
struct Ordered {
    words: Vec<u64>,
}

impl Ordered {
    fn none_of(operations: usize) -> Self {
        Self { words: vec![0; operations.div_ceil(64)] }
    }

    fn insert(&mut self, operation: usize) {
        self.words[operation / 64] |= 1 << (operation % 64);
    }

    fn remove(&mut self, operation: usize) {
        self.words[operation / 64] &= !(1 << (operation % 64));
    }

    /// The same for the same set, different for different ones: how many full words there are at
    /// the beginning, and the others up to the last one that is not empty.
    fn key(&self) -> (u32, Box<[u64]>) {
        let full = self.words.iter().take_while(|word| **word == u64::MAX).count();
        let used = self.words.iter().rposition(|word| *word != 0).map_or(0, |last| last + 1);
        (full as u32, self.words.get(full..used).unwrap_or_default().into())
    }
}
