//! What whoever runs a world brings along: how it is set up, and the story that it is told.

use super::World;
use crate::{Links, Node, NodeId};
use std::time::Duration;

/// How a world is set up.
///
/// ```
/// use mainstay_sim::Setup;
/// assert_eq!(Setup::default().window_bytes, 64 << 10);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// What links are like without faults.
    pub links: Links,
    /// What the wall clocks show at the beginning.
    pub wall_unix_ns: u64,
    /// How many bytes one direction of a stream holds between writer and reader.
    pub window_bytes: usize,
    /// How long a stream tries to be opened.
    pub connect_timeout: Duration,
    /// How long a stream that does not get its bytes through waits before it breaks.
    pub break_after: Duration,
    /// How long until a process that ended itself is started again.
    pub restart_after: Duration,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            links: Links::default(),
            wall_unix_ns: 1_700_000_000_000_000_000,
            window_bytes: 64 << 10,
            connect_timeout: Duration::from_secs(10),
            break_after: Duration::from_secs(30),
            restart_after: Duration::from_secs(1),
        }
    }
}

/// What the story is told.
///
/// Example: see [`Story`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening<R> {
    /// A node reports.
    Report {
        /// Which.
        node: NodeId,
        /// What.
        report: R,
    },
    /// The time of [`World::alarm`] has come.
    Alarm(u64),
    /// A node's process has ended, by a fault or by itself.
    Ended(NodeId),
    /// A node's process has started again.
    Restarted(NodeId),
}

/// What goes on in a world beside its nodes: clients, an operator, somebody who checks.
///
/// A closure that takes world and happening is a story.
///
/// ```
/// use mainstay_sim::{Happening, Node, Story, World};
///
/// /// Counts what the nodes report, and is not content with less than it was.
/// #[derive(Default)]
/// struct Counting {
///     reports: u64,
/// }
///
/// impl<N: Node<Report = u64>> Story<N> for Counting {
///     fn happens(&mut self, _: &mut World<N>, what: Happening<u64>) -> Result<(), String> {
///         if let Happening::Report { node, report } = what {
///             if report < self.reports {
///                 return Err(format!("{node} has counted {report} after {}", self.reports));
///             }
///             self.reports = report;
///         }
///         Ok(())
///     }
/// }
/// ```
pub trait Story<N: Node> {
    /// Something happened. An error ends the run.
    ///
    /// Example: see [`Story`].
    ///
    /// # Errors
    /// What is wrong with what happened.
    fn happens(&mut self, world: &mut World<N>, what: Happening<N::Report>) -> Result<(), String>;

    /// Called after every event: the place for what must hold at any time.
    ///
    /// Example: as [`Story::happens`].
    ///
    /// # Errors
    /// What does not hold.
    fn check(&mut self, _world: &World<N>) -> Result<(), String> {
        Ok(())
    }
}

impl<N: Node, F> Story<N> for F
where
    F: FnMut(&mut World<N>, Happening<N::Report>) -> Result<(), String>,
{
    fn happens(&mut self, world: &mut World<N>, what: Happening<N::Report>) -> Result<(), String> {
        self(world, what)
    }
}
