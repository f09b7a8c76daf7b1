//! The figures of SDS, beside `@waku/sds` on node in the same run.
//!
//! The other implementation in the field, `nim-sds`, cannot be built from a package registry; its
//! figures, measured by hand on a machine like this one, stand in the notes. Without node and npm
//! our figures are printed alone, and the reason.

mod idle;
mod peer;
mod throughput;
mod world;

use crate::part::{Group, Part};

pub(crate) const PART: Part = Part { name: "sds", groups: GROUPS, roles: &[] };

const GROUPS: &[Group] = &[throughput::GROUP, idle::GROUP];
