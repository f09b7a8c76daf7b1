//! What clients asked, what they were answered, and in which order.

use std::{collections::BTreeMap, fmt};

/// The operations of all clients, in the order in which they were called and returned.
///
/// A client that got no answer does not know whether its operation happened, or still will: such
/// an operation stays open. That is a fact, not a failure; [`History::did_not_happen`] is for those
/// of which the client *knows*.
///
/// ```
/// use mainstay_sim::check::{Cell, CellCall, CellReply, History, Verdict};
/// let mut history = History::new();
/// let write = history.call(CellCall::Write(5));
/// let read = history.call(CellCall::Read);
/// history.returns(read, CellReply::Value(5));
/// // The write was never answered, but the read shows that it happened.
/// assert!(matches!(history.linearizable(&Cell::of(0)), Verdict::Linearizable(_)));
/// ```
#[derive(Clone, Debug)]
pub struct History<C, R> {
    operations: Vec<Entry<C, R>>,
    moments: u64,
}

/// An operation of a history, in the order of the calls.
///
/// Example: see [`History`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OpId(pub(crate) usize);

/// One operation.
///
/// ```
/// use mainstay_sim::check::History;
/// let mut history = History::new();
/// let write = history.call("write 5");
/// history.returns(write, "ok");
/// assert_eq!(history.entries().next().unwrap().reply, Some("ok"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<C, R> {
    /// What was asked.
    pub call: C,
    /// What was answered, if anything was.
    pub reply: Option<R>,
    /// When it was called, as a number of a moment in the history.
    pub called: u64,
    /// When it returned; never, if nobody knows.
    pub returned: Option<u64>,
    happened: bool,
}

impl<C, R> Default for History<C, R> {
    fn default() -> Self {
        Self { operations: Vec::new(), moments: 0 }
    }
}

impl<C, R> History<C, R> {
    /// Nothing happened yet.
    ///
    /// Example: see [`History`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A client asks for something.
    ///
    /// Example: see [`History`].
    pub fn call(&mut self, call: C) -> OpId {
        let called = self.moment();
        let entry = Entry { call, reply: None, called, returned: None, happened: true };
        self.operations.push(entry);
        OpId(self.operations.len() - 1)
    }

    /// The client is answered. A second answer to one call is not counted.
    ///
    /// Example: see [`History`].
    pub fn returns(&mut self, operation: OpId, reply: R) {
        let now = self.moment();
        if let Some(entry) = self.operations.get_mut(operation.0)
            && entry.returned.is_none()
        {
            (entry.reply, entry.returned) = (Some(reply), Some(now));
        }
    }

    /// The client is told, and can rely on it, that the operation neither has happened nor will.
    ///
    /// ```
    /// use mainstay_sim::check::History;
    /// let mut history: History<_, ()> = History::new();
    /// let refused = history.call("write 5");
    /// history.did_not_happen(refused);
    /// assert_eq!(history.entries().count(), 0);
    /// ```
    pub fn did_not_happen(&mut self, operation: OpId) {
        if let Some(entry) = self.operations.get_mut(operation.0) {
            entry.happened = false;
        }
    }

    /// All that happened or may have.
    ///
    /// Example: see [`Entry`].
    pub fn entries(&self) -> impl Iterator<Item = &Entry<C, R>> {
        self.operations.iter().filter(|entry| entry.happened)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (OpId, &Entry<C, R>)> {
        let all = self.operations.iter().enumerate().map(|(at, entry)| (OpId(at), entry));
        all.filter(|(_, entry)| entry.happened)
    }

    /// How many operations were answered.
    ///
    /// ```
    /// use mainstay_sim::check::History;
    /// let mut history: History<_, ()> = History::new();
    /// history.call("write 5");
    /// assert_eq!(history.answered(), 0);
    /// ```
    #[must_use]
    pub fn answered(&self) -> usize {
        self.entries().filter(|entry| entry.returned.is_some()).count()
    }

    /// One history for each key: a system of many independent objects is linearizable if and only
    /// if each of them is (Herlihy and Wing, "Linearizability", 1990, section 3.3).
    ///
    /// ```
    /// use mainstay_sim::check::History;
    /// let mut history: History<_, ()> = History::new();
    /// history.call(("a", 1));
    /// history.call(("b", 2));
    /// history.call(("a", 3));
    /// let parts = history.by_key(|(key, _)| *key);
    /// assert_eq!(parts["a"].entries().count(), 2);
    /// ```
    pub fn by_key<K: Ord>(&self, key: impl Fn(&C) -> K) -> BTreeMap<K, Self>
    where
        C: Clone,
        R: Clone,
    {
        let mut parts: BTreeMap<K, Self> = BTreeMap::new();
        for entry in self.entries() {
            let part = parts.entry(key(&entry.call)).or_default();
            part.operations.push(entry.clone());
            part.moments = self.moments;
        }
        parts
    }

    fn moment(&mut self) -> u64 {
        self.moments += 1;
        self.moments
    }
}

impl<C: fmt::Debug, R: fmt::Debug> fmt::Display for Entry<C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ", self.call)?;
        match (&self.reply, self.returned) {
            (Some(reply), Some(returned)) => {
                write!(f, "-> {reply:?} [{}..{returned}]", self.called)
            }
            _ => write!(f, "-> ? [{}..]", self.called),
        }
    }
}
