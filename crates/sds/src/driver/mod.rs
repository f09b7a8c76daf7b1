//! The core on tokio: one task that owns a [`Participant`](crate::Participant), a [`Transport`], a
//! clock and, if wanted, a place that keeps changes.
//!
//! | transport | for |
//! |---|---|
//! | [`Bus`] | participants of one process: tests, demonstrations |
//! | [`Multicast`] | UDP on one host or one local network, without any server |
//! | `gossip::Gossip` | libp2p gossipsub, over any network; feature `gossipsub` |
//! | [`Mesh`] | connections from each member to each other one |
//! | `channels::Channels` | a mesh of Mainstay channels, over TCP, TLS or QUIC; feature `channel` |
//! | [`Lossy`] | any of these, with loss, duplicates and delay on purpose |
//!
//! A [`Store`] hears everything, keeps it, and answers those who miss something.
//!
//! A transport may lose, repeat, delay and reorder: that is what SDS is for. It must not alter.
//!
//! Guarantees:
//!
//! * V1. An event is handed out once, in the order in which things happened. When the application
//!   does not take its events the node stops receiving instead of dropping them.
//! * V2. A change is kept before what waits for it is sent or handed out, as
//!   [`Keep`](crate::Keep) says; one that could not be kept is told and tried again.
//! * V3. Nothing that arrives ends the node: what is refused is counted and told.
//! * V4. A node with nothing to do sleeps: no polling, no tick.
//!
//! ```
//! use mainstay_sds::{Config, driver::{Bus, Event, Node}};
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let bus = Bus::new();
//! let (alice, _) = Node::new(b"alice", bus.join())?.spawn();
//! let (bob, mut events) = Node::new(b"bob", bus.join())?.spawn();
//! alice.join("room", Config::lip()).await?;
//! bob.join("room", Config::lip()).await?;
//!
//! alice.send("room", b"hello").await?;
//! loop {
//!     let Some(Event::Delivered(delivered)) = events.next().await else { continue };
//!     assert_eq!((&delivered.sender[..], &delivered.content[..]), (&b"alice"[..], &b"hello"[..]));
//!     break;
//! }
//! # Ok::<(), mainstay_sds::driver::Error>(())
//! # }).unwrap();
//! ```

mod bus;
#[cfg(feature = "channel")]
pub mod channels;
mod clock;
mod error;
mod event;
#[cfg(feature = "gossipsub")]
pub mod gossip;
mod handle;
mod lossy;
mod mesh;
mod multicast;
mod node;
mod store;
mod transport;

pub use bus::{Bus, BusEnd};
pub use clock::Clock;
pub use error::{Error, Result};
pub use event::{Delivered, Event, Events, Lacking, Placed};
pub use handle::{Handle, MessageId, Posted};
pub use lossy::{Faults, Lossy};
pub use mesh::{Door, Link, Mesh};
pub use multicast::{Multicast, MulticastOptions};
pub use node::{Node, Statistics};
pub use store::{Store, StoreClient, StoreStatistics};
pub use transport::{Heard, Transport};
