//! Messages between nodes.
//!
//! One trait, [`Channel`], over several transports; whatever is written against it works over any
//! of them:
//!
//! * [`memory`]: nodes in one process, a pair or a full mesh.
//! * [`shm`]: processes of one host, through shared memory.
//! * [`net`]: TCP, TLS and QUIC, with a handshake that proves who is there.
//! * [`Faulty`]: any of these, with faults on purpose.
//!
//! The protocol's parts do no I/O and know no clock: [`frame`], [`handshake`], [`dial`]. What the
//! bytes are stands in `docs/format/wire.md`; what holds, and which test would see it break, in
//! `docs/invariants.md`.
//!
//! ```
//! use mainstay_channel::{Channel, memory};
//! use std::time::Duration;
//! let (a, b) = memory::pair();
//! a.send("ringing".into())?;
//! assert_eq!(b.receive(Duration::from_secs(1))?.unwrap(), "ringing");
//! # Ok::<(), mainstay_channel::Error>(())
//! ```

pub mod dial;
pub mod frame;
pub mod handshake;
pub mod limits;
pub mod memory;
#[cfg(feature = "tcp")]
pub mod net;
#[cfg(feature = "shm")]
pub mod shm;

mod channel;
mod endpoint;
mod error;
mod faulty;
mod identity;
mod park;
mod queue;
mod spin;
mod statistics;
mod waiters;

pub use bytes::Bytes;
pub use channel::{Bounds, Channel, ChannelExt, Payload, Receiving, Sending};
pub use error::{Error, Result, Why};
pub use faulty::{Cut, Faults, Faulty};
pub use identity::{ClusterId, NodeId, Peer, Proof, Secret, Transport};
pub use statistics::Statistics;

/// Whether the fault of this name is planted: a constant `false` in a normal build.
#[inline(always)]
fn planted(fault: &str) -> bool {
    #[cfg(feature = "hook")]
    return mainstay_shm::hook::planted(fault);
    #[cfg(not(feature = "hook"))]
    {
        let _ = fault;
        false
    }
}
