//! Live state that outlives its process.
//!
//! One crate to depend on; each part is a module:
//!
//! * [`pool`]: blocks of memory at stable addresses, shared by processes, recovered after a crash.
//!
//! ```
//! use mainstay::pool::{Kind, PoolOptions};
//! let pool = PoolOptions::new("calls", 256).create_memfd()?;
//! let block = pool.allocate(Kind::Recoverable)?;
//! block.write(0, b"ringing")?;
//! # Ok::<(), mainstay::pool::Error>(())
//! ```

#![forbid(unsafe_code)]

#[doc(inline)]
pub use mainstay_pool as pool;
