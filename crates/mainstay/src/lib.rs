//! Live state that outlives its process.
//!
//! One crate to depend on; each part is a module:
//!
//! * [`pool`]: blocks of memory at stable addresses, shared by processes, recovered after a crash.
//! * [`state`]: named values on top of that: transactions, consistent reads, notification.
//! * [`sds`]: causal, end-to-end reliable messages to a group over a lossy broadcast.
//! * [`track`]: which blocks changed, found by the kernel; checkpoints that survive a power cut.
//! * [`store`]: key-value storage at the speed of memory, durable by a log.
//! * [`replica`]: followers of such a store, which take over when they are promoted.
//! * [`channel`]: messages between nodes, over memory, shared memory, TCP, TLS and QUIC.
//!
//! ```
//! use mainstay::pool::{Kind, PoolOptions};
//! let pool = PoolOptions::new("calls", 256).create_memfd()?;
//! let block = pool.allocate(Kind::Recoverable)?;
//! block.write(0, b"ringing")?;
//! # Ok::<(), mainstay::pool::Error>(())
//! ```

#![forbid(unsafe_code)]

#[cfg(feature = "channel")]
#[doc(inline)]
pub use mainstay_channel as channel;
#[doc(inline)]
pub use mainstay_pool as pool;
#[cfg(feature = "replica")]
#[doc(inline)]
pub use mainstay_replica as replica;
pub use mainstay_sds as sds;
#[doc(inline)]
pub use mainstay_state as state;
#[cfg(feature = "store")]
#[doc(inline)]
pub use mainstay_store as store;
pub use mainstay_track as track;

/// Compiles and runs what README.md shows.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

#[cfg(test)]
mod tests {
    #[test]
    fn the_example_in_the_readme_is_the_one_in_the_examples_folder() {
        let readme = include_str!("../../../README.md");
        let example = include_str!("../examples/quickstart.rs");
        let shown = readme.split_once("```rust\n").and_then(|(_, rest)| rest.split_once("```"));
        let (_head, code) = example.split_once("\n\n").unwrap();
        assert_eq!(shown.map(|(shown, _)| shown), Some(code));
    }
}
