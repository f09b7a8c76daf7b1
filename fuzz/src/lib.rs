//! What the fuzz targets share.
//!
//! * [`folder`]: files in memory.
//! * [`store`]: files of a store, and what may come of them.
//! * [`kinds`]: the two kinds of stores, beside an enemy among replicas.
//! * [`stream`]: what an enemy among replicas may say.
//! * [`durable`]: files of persistent states, and what has to come of them.
//! * [`image`]: a valid pool as bytes, and changes to it that an input asks for.
//! * [`drive`]: everything one can do with a pool, done to a file that cannot be trusted.
//! * [`model`]: what a pool must do, in the simplest words, beside a real one.
//! * [`world`]: the process the targets run in: its limits, and whether something was leaked.

pub mod drive;
pub mod durable;
pub mod folder;
pub mod image;
pub mod kinds;
pub mod model;
pub mod store;
pub mod stream;
pub mod world;
