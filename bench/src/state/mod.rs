//! The states' figures, one file a group.
//!
//! * V1: the writer and the reader of a value are processes of their own, as they are in use; the
//!   side that is not measured is a child of this program.
//! * V2: a value is words, of which a commit changes the first and the last to a stamp; a reader
//!   that sees two different stamps has seen a torn value. One of ours ends the measurement; those
//!   of peers are counted and told.
//! * V3: a read ends with the value usable at leisure: by a pin or a read transaction where the
//!   peer has one, else by a copy.

mod commit;
mod flat_out;
mod iceoryx;
mod lmdb;
mod mmap_sync;
mod multi;
mod ours;
mod read;
mod redis;
mod value;
mod wake;
mod writer;

use crate::part::Part;

pub(crate) const PART: Part = Part {
    name: "state",
    groups: &[read::GROUP, flat_out::GROUP, commit::GROUP, wake::GROUP, multi::GROUP],
    roles: &[writer::WRITE, commit::ATTEND, wake::ECHO],
};
