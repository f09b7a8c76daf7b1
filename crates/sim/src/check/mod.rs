//! Checkers of histories: what clients saw, against what they were promised.

mod history;
mod linear;
mod models;
mod serial;

pub use history::{Entry, History, OpId};
pub use linear::{Linearizable, Verdict, Violation};
pub use models::{Cell, CellCall, CellReply, Fifo, FifoCall, FifoReply, Model};
pub use serial::{Anomaly, Edge, Ledger, Reason, Transaction};
