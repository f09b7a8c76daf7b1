//! What an object does when its operations come one after the other.

use std::{collections::VecDeque, fmt::Debug, hash::Hash};

/// A sequential object: the judge of a history.
///
/// ```
/// use mainstay_sim::check::Model;
///
/// /// Counts, and says what it has counted.
/// struct Counter;
///
/// impl Model for Counter {
///     type State = u64;
///     type Call = ();
///     type Reply = u64;
///
///     fn initial(&self) -> u64 {
///         0
///     }
///
///     fn step(&self, count: &u64, _: &(), reply: Option<&u64>) -> Option<u64> {
///         let new = count + 1;
///         reply.is_none_or(|reply| *reply == new).then_some(new)
///     }
/// }
/// assert_eq!(Counter.step(&4, &(), Some(&5)), Some(5));
/// assert_eq!(Counter.step(&4, &(), Some(&9)), None);
/// ```
pub trait Model {
    /// What the object remembers.
    type State: Clone + Eq + Hash;
    /// What it can be asked.
    type Call: Clone + Debug;
    /// What it answers.
    type Reply: Clone + Debug;

    /// The object before the first operation.
    ///
    /// Example: see [`Model`].
    fn initial(&self) -> Self::State;

    /// The object after `call`, or `None` if it could not have answered so. Nobody saw the answer
    /// if there is none: then whatever it does is possible.
    ///
    /// Example: see [`Model`].
    fn step(
        &self,
        state: &Self::State,
        call: &Self::Call,
        reply: Option<&Self::Reply>,
    ) -> Option<Self::State>;

    /// Would every answer of `others` be possible without this call, in any order in which it is
    /// possible with it? Then the call can be left out if it was not answered, which saves much
    /// work. "No" is never wrong.
    ///
    /// ```
    /// use mainstay_sim::check::{Cell, CellCall, CellReply, Model};
    /// let others = [(&CellCall::Read, Some(&CellReply::Value(1)))];
    /// assert!(!Cell::of(0).is_unseen(&CellCall::Write(1), &mut others.into_iter()));
    /// assert!(Cell::of(0).is_unseen(&CellCall::Write(2), &mut others.into_iter()));
    /// ```
    fn is_unseen(
        &self,
        _call: &Self::Call,
        _others: &mut dyn Iterator<Item = (&Self::Call, Option<&Self::Reply>)>,
    ) -> bool {
        false
    }
}

/// A value that is read, written, and compared and swapped.
///
/// ```
/// use mainstay_sim::check::{Cell, CellCall, CellReply, Model};
/// let cell = Cell::of(0);
/// let swap = CellCall::Swap { from: 0, to: 7 };
/// assert_eq!(cell.step(&0, &swap, Some(&CellReply::Swapped(true))), Some(7));
/// ```
#[derive(Clone, Debug)]
pub struct Cell<V> {
    initial: V,
}

impl<V> Cell<V> {
    /// A cell that holds `initial` at first.
    ///
    /// Example: see [`Cell`].
    pub fn of(initial: V) -> Self {
        Self { initial }
    }
}

/// What a cell can be asked.
///
/// Example: see [`Cell`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CellCall<V> {
    /// What is there?
    Read,
    /// Put this there.
    Write(V),
    /// Put `to` there if `from` is there.
    Swap {
        /// What has to be there.
        from: V,
        /// What is there then.
        to: V,
    },
}

/// What a cell answers.
///
/// Example: see [`Cell`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CellReply<V> {
    /// This is there.
    Value(V),
    /// It is written.
    Written,
    /// Whether it was swapped.
    Swapped(bool),
}

impl<V: Clone + Eq + Hash + Debug> Model for Cell<V> {
    type State = V;
    type Call = CellCall<V>;
    type Reply = CellReply<V>;

    fn initial(&self) -> V {
        self.initial.clone()
    }

    fn step(&self, state: &V, call: &CellCall<V>, reply: Option<&CellReply<V>>) -> Option<V> {
        let (new, right) = match call {
            CellCall::Read => (state, CellReply::Value(state.clone())),
            CellCall::Write(value) => (value, CellReply::Written),
            CellCall::Swap { from, to } if from == state => (to, CellReply::Swapped(true)),
            CellCall::Swap { .. } => (state, CellReply::Swapped(false)),
        };
        reply.is_none_or(|reply| *reply == right).then(|| new.clone())
    }

    /// A written value that nobody read stood, if ever, between two values nobody read between.
    fn is_unseen(
        &self,
        call: &CellCall<V>,
        others: &mut dyn Iterator<Item = (&CellCall<V>, Option<&CellReply<V>>)>,
    ) -> bool {
        match call {
            CellCall::Read => true,
            CellCall::Swap { .. } => false,
            CellCall::Write(value) => {
                let seen = CellReply::Value(value.clone());
                let mut sees = others.filter(|(call, reply)| match call {
                    CellCall::Read => *reply == Some(&seen),
                    CellCall::Write(_) => false,
                    CellCall::Swap { .. } => true,
                });
                sees.next().is_none()
            }
        }
    }
}

/// A queue: first in, first out.
///
/// ```
/// use mainstay_sim::check::{Fifo, FifoCall, FifoReply, Model};
/// use std::collections::VecDeque;
/// let after = Fifo.step(&VecDeque::from([1, 2]), &FifoCall::Take, Some(&FifoReply::Taken(Some(1))));
/// assert_eq!(after, Some(VecDeque::from([2])));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Fifo;

/// What a queue can be asked.
///
/// Example: see [`Fifo`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FifoCall {
    /// Put this at the end.
    Put(u64),
    /// Take the first one.
    Take,
}

/// What a queue answers.
///
/// Example: see [`Fifo`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FifoReply {
    /// It is in the queue.
    Put,
    /// This was the first one, if there was any.
    Taken(Option<u64>),
}

impl Model for Fifo {
    type State = VecDeque<u64>;
    type Call = FifoCall;
    type Reply = FifoReply;

    fn initial(&self) -> VecDeque<u64> {
        VecDeque::new()
    }

    fn step(
        &self,
        queue: &VecDeque<u64>,
        call: &FifoCall,
        reply: Option<&FifoReply>,
    ) -> Option<VecDeque<u64>> {
        let mut queue = queue.clone();
        let right = match call {
            FifoCall::Put(item) => {
                queue.push_back(*item);
                FifoReply::Put
            }
            FifoCall::Take => FifoReply::Taken(queue.pop_front()),
        };
        reply.is_none_or(|reply| *reply == right).then_some(queue)
    }
}
