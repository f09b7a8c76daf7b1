//! Is there an order in which the transactions could have run one after the other?
//!
//! Each committed transaction says which version of each key it read, and which it wrote. Versions
//! of a key have an order, so that what came before what is known and nothing has to be guessed:
//! the direct serialization graph of Adya ("Weak Consistency", 1999) is built, and the transactions
//! are serializable if and only if it has no cycle.
//!
//! G1. "Serializable" comes with an order that explains every read and every version.
//! G2. An anomaly is a proof: the cycle's edges can be checked by hand.
//! G3. Strictly serializable means, beside that: who had committed before another began comes
//!     before it in the order.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
};

/// A committed transaction.
///
/// ```
/// use mainstay_sim::check::Transaction;
/// let transfer = Transaction::new("transfer")
///     .reads("a", 3)
///     .reads("b", 7)
///     .writes("a", 4)
///     .writes("b", 8)
///     .ran(100, 180);
/// assert_eq!(transfer.name, "transfer");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction<K, V> {
    /// What it is called in messages.
    pub name: String,
    /// Which version it read of which key. Reading its own writes is not read from others, and does
    /// not belong here.
    pub reads: Vec<(K, V)>,
    /// Which version it made of which key.
    pub writes: Vec<(K, V)>,
    /// When it began and when it had committed, on one clock for all, if that was seen.
    pub ran: Option<(u64, u64)>,
}

impl<K, V> Transaction<K, V> {
    /// One that does nothing yet.
    ///
    /// Example: see [`Transaction`].
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), reads: Vec::new(), writes: Vec::new(), ran: None }
    }

    /// It read this version of this key.
    ///
    /// Example: see [`Transaction`].
    #[must_use]
    pub fn reads(mut self, key: K, version: V) -> Self {
        self.reads.push((key, version));
        self
    }

    /// It wrote this version of this key.
    ///
    /// Example: see [`Transaction`].
    #[must_use]
    pub fn writes(mut self, key: K, version: V) -> Self {
        self.writes.push((key, version));
        self
    }

    /// It began not before `from`, and had committed at `to`.
    ///
    /// Example: see [`Transaction`].
    #[must_use]
    pub fn ran(mut self, from: u64, to: u64) -> Self {
        self.ran = Some((from, to));
        self
    }
}

/// All committed transactions, and what was there before them.
///
/// ```
/// use mainstay_sim::check::{Anomaly, Ledger, Transaction};
/// let mut ledger = Ledger::new();
/// ledger.initial("a", 0);
/// ledger.initial("b", 0);
/// // Each of them sees that the other's key is unchanged, and changes its own: write skew.
/// ledger.commit(Transaction::new("t1").reads("a", 0).reads("b", 0).writes("a", 1));
/// ledger.commit(Transaction::new("t2").reads("a", 0).reads("b", 0).writes("b", 1));
/// let Err(Anomaly::Cycle(cycle)) = ledger.serializable() else { panic!("it has one") };
/// assert_eq!(cycle.len(), 2);
/// ```
#[derive(Clone, Debug)]
pub struct Ledger<K, V> {
    initial: BTreeMap<K, V>,
    transactions: Vec<Transaction<K, V>>,
}

/// Why one transaction comes before another.
///
/// Example: see [`Edge`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason<K, V> {
    /// It wrote the version that the other read.
    ReadFrom(K, V),
    /// It wrote the version that the other's follows.
    Overwritten(K, V),
    /// It read the version that the other's follows, and so did not see the other.
    ReadBefore(K, V),
    /// It had committed when the other began.
    RealTime,
}

/// One transaction comes before another.
///
/// ```
/// use mainstay_sim::check::{Edge, Reason};
/// let edge = Edge { before: "t1".into(), after: "t2".into(), reason: Reason::ReadFrom("a", 4) };
/// assert_eq!(edge.to_string(), "t2 read version 4 of \"a\" from t1");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge<K, V> {
    /// The name of the one that comes first.
    pub before: String,
    /// The name of the other.
    pub after: String,
    /// Why.
    pub reason: Reason<K, V>,
}

/// Why no order explains the transactions.
///
/// Example: see [`Ledger`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Anomaly<K, V> {
    /// Two transactions made the same version of a key: one of them is lost.
    WrittenTwice {
        /// Which key.
        key: K,
        /// Which version.
        version: V,
        /// By whom.
        by: [String; 2],
    },
    /// A version was read that nobody committed.
    ReadFromNobody {
        /// Which key.
        key: K,
        /// Which version.
        version: V,
        /// By whom.
        by: String,
    },
    /// Each comes before the next, and the last before the first.
    Cycle(Vec<Edge<K, V>>),
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Display for Edge<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { before, after, reason } = self;
        match reason {
            Reason::ReadFrom(key, version) => {
                write!(f, "{after} read version {version:?} of {key:?} from {before}")
            }
            Reason::Overwritten(key, version) => {
                write!(f, "{after} replaced version {version:?} of {key:?} by {before}")
            }
            Reason::ReadBefore(key, version) => {
                write!(f, "{before} read version {version:?} of {key:?}, which {after} replaced")
            }
            Reason::RealTime => write!(f, "{before} had committed when {after} began"),
        }
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Display for Anomaly<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrittenTwice { key, version, by: [one, other] } => {
                write!(f, "{one} and {other} both made version {version:?} of {key:?}")
            }
            Self::ReadFromNobody { key, version, by } => {
                write!(f, "{by} read version {version:?} of {key:?}, which nobody committed")
            }
            Self::Cycle(edges) => {
                write!(f, "a circle: ")?;
                for (at, edge) in edges.iter().enumerate() {
                    let comma = if at > 0 { "; " } else { "" };
                    write!(f, "{comma}{edge}")?;
                }
                Ok(())
            }
        }
    }
}

impl<K, V> Default for Ledger<K, V> {
    fn default() -> Self {
        Self { initial: BTreeMap::new(), transactions: Vec::new() }
    }
}

/// A step of the graph: to which transaction, and why.
type Step<K, V> = (usize, Reason<K, V>);

/// The steps from each transaction.
type Graph<K, V> = Vec<Vec<Step<K, V>>>;

/// Who made which version of which key; nobody made the first ones.
type Writers<'a, K, V> = BTreeMap<&'a K, BTreeMap<&'a V, Option<usize>>>;

impl<K: Ord + Clone, V: Ord + Clone> Ledger<K, V> {
    /// Nothing is there and nobody came.
    ///
    /// Example: see [`Ledger`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The version that a key had before all transactions.
    ///
    /// Example: see [`Ledger`].
    pub fn initial(&mut self, key: K, version: V) {
        self.initial.insert(key, version);
    }

    /// A transaction that has committed. One of which nobody knows belongs here if and only if
    /// somebody has seen its writes.
    ///
    /// Example: see [`Ledger`].
    pub fn commit(&mut self, transaction: Transaction<K, V>) {
        self.transactions.push(transaction);
    }

    /// An order that explains everything: the names, first to last.
    ///
    /// ```
    /// use mainstay_sim::check::{Ledger, Transaction};
    /// let mut ledger = Ledger::new();
    /// ledger.commit(Transaction::new("second").reads("a", 1));
    /// ledger.commit(Transaction::new("first").writes("a", 1));
    /// assert_eq!(ledger.serializable(), Ok(vec!["first".to_owned(), "second".to_owned()]));
    /// ```
    ///
    /// # Errors
    /// What makes an order impossible.
    pub fn serializable(&self) -> Result<Vec<String>, Anomaly<K, V>> {
        self.check(&[])
    }

    /// The same, in which whoever had committed before another began comes before it.
    ///
    /// ```
    /// use mainstay_sim::check::{Ledger, Transaction};
    /// let mut ledger = Ledger::new();
    /// ledger.initial("a", 0);
    /// ledger.commit(Transaction::new("new").writes("a", 1).ran(0, 10));
    /// ledger.commit(Transaction::new("stale").reads("a", 0).ran(20, 30));
    /// assert!(ledger.serializable().is_ok());
    /// assert!(ledger.strictly_serializable().is_err());
    /// ```
    ///
    /// # Errors
    /// What makes an order impossible.
    pub fn strictly_serializable(&self) -> Result<Vec<String>, Anomaly<K, V>> {
        let times = self.transactions.iter().map(|transaction| transaction.ran);
        self.check(&times.collect::<Vec<_>>())
    }

    fn check(&self, times: &[Option<(u64, u64)>]) -> Result<Vec<String>, Anomaly<K, V>> {
        let mut graph = self.graph()?;
        add_real_time(&mut graph, times);
        match order(&graph) {
            Ok(order) => Ok(order.into_iter().filter_map(|at| self.name(at)).collect()),
            Err(in_circles) => Err(Anomaly::Cycle(self.cycle(&graph, &in_circles))),
        }
    }

    /// Beyond the transactions, the graph has nodes for moments.
    fn name(&self, at: usize) -> Option<String> {
        self.transactions.get(at).map(|transaction| transaction.name.clone())
    }

    /// Who comes before whom because of what was read and written.
    fn graph(&self) -> Result<Graph<K, V>, Anomaly<K, V>> {
        let writers = self.writers()?;
        let mut graph = vec![Vec::new(); self.transactions.len()];
        for (key, versions) in &writers {
            let mut previous: Option<(&V, Option<usize>)> = None;
            for (version, writer) in versions {
                if let (Some((old, Some(before))), Some(after)) = (previous, *writer) {
                    let (key, old) = ((*key).clone(), old.clone());
                    graph[before].push((after, Reason::Overwritten(key, old)));
                }
                previous = Some((version, *writer));
            }
        }
        for (reader, transaction) in self.transactions.iter().enumerate() {
            for (key, version) in &transaction.reads {
                let from_nobody = || Anomaly::ReadFromNobody {
                    key: key.clone(),
                    version: version.clone(),
                    by: transaction.name.clone(),
                };
                let versions = writers.get(key).ok_or_else(from_nobody)?;
                let writer = versions.get(version).ok_or_else(from_nobody)?;
                if let Some(writer) = writer.filter(|writer| *writer != reader) {
                    graph[writer].push((reader, Reason::ReadFrom(key.clone(), version.clone())));
                }
                let after = (std::ops::Bound::Excluded(version), std::ops::Bound::Unbounded);
                let next = versions.range::<V, _>(after).next().and_then(|(_, writer)| *writer);
                if let Some(next) = next.filter(|next| *next != reader) {
                    graph[reader].push((next, Reason::ReadBefore(key.clone(), version.clone())));
                }
            }
        }
        Ok(graph)
    }

    fn writers(&self) -> Result<Writers<'_, K, V>, Anomaly<K, V>> {
        let mut writers: Writers<'_, K, V> = BTreeMap::new();
        for (key, version) in &self.initial {
            writers.entry(key).or_default().insert(version, None);
        }
        for (at, transaction) in self.transactions.iter().enumerate() {
            for (key, version) in &transaction.writes {
                let other = writers.entry(key).or_default().insert(version, Some(at));
                let Some(other) = other.filter(|other| *other != Some(at)) else { continue };
                let first = other.and_then(|other| self.name(other));
                return Err(Anomaly::WrittenTwice {
                    key: key.clone(),
                    version: version.clone(),
                    by: [first.unwrap_or("what was there".into()), transaction.name.clone()],
                });
            }
        }
        Ok(writers)
    }

    /// A shortest circle among those nodes of the graph that are in one or behind one.
    fn cycle(&self, graph: &[Vec<Step<K, V>>], suspects: &[usize]) -> Vec<Edge<K, V>> {
        let circles = suspects.iter().filter_map(|start| circle_through(graph, *start));
        // Not the shortest of all: whoever looks at it has time for one, and wants it today.
        let shortest = circles.take(64).min_by_key(Vec::len).unwrap_or_default();
        let mut edges: Vec<Edge<K, V>> = Vec::new();
        let mut since: Option<usize> = None;
        // What goes by way of moments is one edge of the reader's graph.
        let from_a_transaction = shortest.iter().position(|(at, _)| *at < self.transactions.len());
        let mut steps = shortest;
        steps.rotate_left(from_a_transaction.unwrap_or(0));
        let ends = steps.iter().map(|(at, _)| *at).skip(1).chain(steps.first().map(|(at, _)| *at));
        let ends: Vec<_> = ends.collect();
        for ((at, reason), end) in steps.into_iter().zip(ends) {
            let before = if at < self.transactions.len() { at } else { since.unwrap_or(at) };
            if end < self.transactions.len() {
                let (before, after) = (self.name(before), self.name(end));
                if let (Some(before), Some(after)) = (before, after) {
                    edges.push(Edge { before, after, reason });
                }
                since = None;
            } else {
                since = Some(before);
            }
        }
        edges
    }
}

/// Adds, after the transactions, a node for each moment in which one committed: it comes after
/// those that had, and before those that began later. So there are few edges, not one for each
/// pair.
fn add_real_time<K, V>(graph: &mut Graph<K, V>, times: &[Option<(u64, u64)>]) {
    let mut ends: Vec<(u64, usize)> =
        times.iter().enumerate().filter_map(|(at, time)| Some((time.as_ref()?.1, at))).collect();
    ends.sort_unstable();
    let moments = graph.len();
    for (moment, (_, transaction)) in ends.iter().enumerate() {
        graph.push(Vec::new());
        graph[*transaction].push((moments + moment, Reason::RealTime));
        if moment > 0 {
            graph[moments + moment - 1].push((moments + moment, Reason::RealTime));
        }
    }
    for (transaction, time) in times.iter().enumerate() {
        let Some((began, _)) = time else { continue };
        let had_committed = ends.partition_point(|(end, _)| end < began);
        if had_committed > 0 {
            graph[moments + had_committed - 1].push((transaction, Reason::RealTime));
        }
    }
}

/// All nodes in an order that follows the steps, or those that have no place in one.
fn order<K, V>(graph: &[Vec<Step<K, V>>]) -> Result<Vec<usize>, Vec<usize>> {
    let mut before = vec![0_usize; graph.len()];
    graph.iter().flatten().for_each(|(to, _)| before[*to] += 1);
    let mut ready: VecDeque<usize> = (0..graph.len()).filter(|at| before[*at] == 0).collect();
    let mut order = Vec::with_capacity(graph.len());
    while let Some(at) = ready.pop_front() {
        order.push(at);
        for (to, _) in &graph[at] {
            before[*to] -= 1;
            if before[*to] == 0 {
                ready.push_back(*to);
            }
        }
    }
    if order.len() == graph.len() {
        return Ok(order);
    }
    Err((0..graph.len()).filter(|at| before[*at] > 0).collect())
}

/// A shortest way from a node to itself: each node on it, and the reason to go on from there.
fn circle_through<K: Clone, V: Clone>(
    graph: &[Vec<Step<K, V>>],
    start: usize,
) -> Option<Vec<(usize, Reason<K, V>)>> {
    let mut came_from: BTreeMap<usize, (usize, Reason<K, V>)> = BTreeMap::new();
    let mut ahead = VecDeque::from([start]);
    while let Some(at) = ahead.pop_front() {
        for (to, reason) in &graph[at] {
            if *to == start {
                let mut way = vec![(at, reason.clone())];
                let mut at = at;
                while at != start {
                    let (earlier, reason) = came_from.get(&at)?.clone();
                    way.push((earlier, reason));
                    at = earlier;
                }
                way.reverse();
                return Some(way);
            }
            if !came_from.contains_key(to) {
                came_from.insert(*to, (at, reason.clone()));
                ahead.push_back(*to);
            }
        }
    }
    None
}
