//! The seeded world: everything that can go wrong with a protocol, decided by one number.
//!
//! A protocol whose core takes time, messages, disk and random numbers as inputs can be run here:
//! hours in a second, with messages lost, doubled, late and out of order, links cut one way or both,
//! clocks that drift and jump, processes that die between any two operations on their disk, and
//! disks that keep what was synced and of the rest whatever they like. All of it is decided by a
//! seed: a run that fails fails again, with a trace that says why.
//!
//! | part | what it is |
//! |---|---|
//! | [`World`] | nodes, links, clocks, disks; driven by [`World::run`] |
//! | [`Node`] | what a protocol core has to be: three functions, and the drain contract |
//! | [`Story`] | what is there besides: clients, an operator, whoever checks |
//! | [`Faults`], [`FaultSet`] | which faults a seed has, and how strong each of them is |
//! | [`Disk`], [`Storage`] | files that lose, tear and refuse; also without a world, with every state a power cut could leave |
//! | [`check`] | is a history linearizable, are transactions serializable? |
//! | [`example`] | a small protocol with its clients, right, and wrong in eleven ways |
//!
//! # The three phases of a run
//!
//! 1. *Safety*: [`World::unleash`], then [`World::run`]. Little may work, nothing may go wrong.
//! 2. *Healing*: [`World::heal`]. Links, disks and processes are as good as new.
//! 3. *Liveness*: [`World::run_until`] with a limit. What was promised to happen in the end happens.
//!
//! Then the histories are judged.
//!
//! # Groups
//!
//! [`Output::Broadcast`] reaches all other nodes, and what becomes of it is decided for each of
//! them. Thousands of nodes are cheap: a delivery costs a fraction of a microsecond and whatever
//! the node does with it. Let the message be an `Rc<[u8]>`, which is shared and not copied.
//!
//! ```
//! use mainstay_sim::{Boot, Happening, Input, Node, Now, Output, Setup, Time, World};
//! use std::{rc::Rc, time::Duration};
//!
//! /// Says hello once, and counts who else does.
//! struct Member {
//!     greets: bool,
//!     heard: usize,
//! }
//!
//! impl Node for Member {
//!     type Message = Rc<[u8]>;
//!     type Command = ();
//!     type Report = ();
//!
//!     fn handle(&mut self, _: Now, input: Input<Rc<[u8]>, ()>) {
//!         match input {
//!             Input::Command(()) => self.greets = true,
//!             Input::Message { .. } => self.heard += 1,
//!             _ => {}
//!         }
//!     }
//!
//!     fn poll(&mut self, _: Now) -> Option<Output<Rc<[u8]>, ()>> {
//!         std::mem::take(&mut self.greets).then(|| Output::Broadcast(b"hello"[..].into()))
//!     }
//!
//!     fn deadline(&self) -> Option<Time> {
//!         None
//!     }
//! }
//!
//! let make = |_: Boot| Member { greets: false, heard: 0 };
//! let mut world = World::new(7, Setup::default(), make);
//! world.add_nodes(100);
//! for node in world.nodes() {
//!     world.command(node, ());
//! }
//! world.run(Duration::from_secs(1), &mut |_: &mut World<_>, _: Happening<_>| Ok(()))?;
//! assert!(world.nodes().all(|node| world.node(node).is_some_and(|member| member.heard == 99)));
//! # Ok::<(), mainstay_sim::Error>(())
//! ```
//!
//! # What is not simulated
//!
//! Memory that is shared between processes, and the order in which a processor makes stores visible
//! (loom, shuttle and the crash suite do that); directories that lose names; hosts with several
//! networks. A stream behaves as a program sees TCP, not as TCP does on the wire.

#![forbid(unsafe_code)]

pub mod check;
mod clock;
mod disk;
mod error;
pub mod example;
mod faults;
pub mod limits;
mod net;
mod node;
mod queue;
mod random;
mod time;
mod trace;
mod world;

pub use clock::Now;
pub use disk::{CrashImages, Disk, DiskFaults, DiskFile, SECTOR_BYTES};
pub use error::{Error, Result};
pub use faults::{Fault, FaultSet, Faults, Links};
pub use mainstay_storage::{Folder, Storage};
pub use net::{PartitionId, Ways};
pub use node::{
    Boot, Broken, Input, Node, NodeId, Output, Payload, StreamAction, StreamEvent, StreamId,
};
pub use random::{Chance, stream};
pub use time::Time;
pub use trace::digest;
pub use world::{Happening, Setup, Story, World};
