//! The core on tokio, with real tasks, real time-outs and real sockets.
//!
//! Time is tokio's and paused wherever no socket takes part, so that minutes of the protocol pass
//! at once; every wait has a limit.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod bus;
mod group;
mod mesh;
mod multicast;
mod node;
mod store;
