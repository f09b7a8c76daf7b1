//! What a node has seen of the others.

use crate::{Error, Result, limits::NODES_MAX};
use mainstay_base::hlc::{NodeId, Stamp, Version};
use std::collections::BTreeMap;

/// For each node the latest version that is known: "all up to here".
///
/// ```
/// use mainstay_base::hlc::{NodeId, Stamp, Version};
/// use mainstay_track::ClockVector;
/// let of = |bits, node| Version { stamp: Stamp::from_bits(bits), node: NodeId::new(node) };
/// let mut seen = ClockVector::default();
/// seen.include(of(5, 1))?;
/// assert!(seen.covers(of(5, 1)) && !seen.covers(of(6, 1)) && !seen.covers(of(1, 2)));
/// let mut other = ClockVector::default();
/// other.include(of(1, 2))?;
/// other.merge(&seen)?;
/// assert!(other.covers(of(4, 1)) && other.covers(of(1, 2)));
/// assert_eq!(other.iter().count(), 2);
/// # Ok::<(), mainstay_track::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ClockVector {
    latest: BTreeMap<NodeId, Stamp>,
}

impl ClockVector {
    /// Takes note of a version.
    ///
    /// Example: see [`ClockVector`].
    ///
    /// # Errors
    /// `Limit` when it would name more nodes than [`NODES_MAX`].
    pub fn include(&mut self, version: Version) -> Result<()> {
        let known = self.latest.len() as u64;
        if known >= NODES_MAX as u64 && !self.latest.contains_key(&version.node) {
            let (value, max) = (known + 1, NODES_MAX as u64);
            return Err(Error::Limit { what: "number of nodes in a vector", value, min: 0, max });
        }
        let latest = self.latest.entry(version.node).or_default();
        *latest = (*latest).max(version.stamp);
        Ok(())
    }

    /// Takes note of all that `other` has seen.
    ///
    /// Example: see [`ClockVector`].
    ///
    /// # Errors
    /// As [`ClockVector::include`].
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        other.iter().try_for_each(|version| self.include(version))
    }

    /// Whether this version has been seen.
    ///
    /// Example: see [`ClockVector`].
    #[must_use]
    pub fn covers(&self, version: Version) -> bool {
        self.latest.get(&version.node).is_some_and(|latest| *latest >= version.stamp)
    }

    /// The latest version of each node.
    ///
    /// Example: see [`ClockVector`].
    pub fn iter(&self) -> impl Iterator<Item = Version> {
        self.latest.iter().map(|(node, stamp)| Version { stamp: *stamp, node: *node })
    }
}
