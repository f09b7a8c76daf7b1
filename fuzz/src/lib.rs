//! What the fuzz targets share.
//!
//! * [`folder`]: files in memory.
//! * [`damage`]: what may happen to files of a store.
//! * [`store`]: files of a store with values of one size, and what may come of them.
//! * [`any`]: the same of a store with values of any size, and of copies of it.
//! * [`seal`]: makes its checksums right again.
//! * [`kinds`]: the two kinds of stores, beside an enemy among replicas.
//! * [`stream`]: what an enemy among replicas may say.
//! * [`durable`]: files of persistent states, and what has to come of them.
//! * [`image`]: a valid pool as bytes, and changes to it that an input asks for.
//! * [`drive`]: everything one can do with a pool, done to a file that cannot be trusted.
//! * [`model`]: what a pool must do, in the simplest words, beside a real one.
//! * [`world`]: the process the targets run in: its limits, and whether something was leaked.

pub mod any;
pub mod damage;
pub mod drive;
pub mod durable;
pub mod folder;
pub mod image;
pub mod kinds;
pub mod model;
pub mod seal;
pub mod store;
pub mod stream;
pub mod world;
