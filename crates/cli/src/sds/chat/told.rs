//! What a conversation tells: as JSON, field by field.

use mainstay::sds::driver::Statistics;
use serde::Serialize;

/// A message in its place.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) lamport: u64,
    pub(super) content: String,
}

/// One thing that happened.
#[derive(Serialize, Debug)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(super) enum Told<'a> {
    Opened {
        id: &'a str,
        over: &'a str,
        group: &'a str,
        channel: &'a str,
        loss_percent: u8,
        /// Where others can reach this member; none over multicast.
        addresses: &'a [String],
    },
    /// One's own message was sent for the first time.
    Said(&'a Row),
    Delivered {
        #[serde(flatten)]
        row: &'a Row,
        sender: &'a str,
        number: u64,
        /// How many messages come after it in the order that all share.
        later: usize,
    },
    Acknowledged {
        id: &'a str,
    },
    Possibly {
        id: &'a str,
    },
    Failed {
        id: &'a str,
    },
    Missing {
        id: &'a str,
        sender: &'a str,
    },
    Lost {
        id: &'a str,
    },
    Evicted {
        id: &'a str,
    },
    /// A message was sent again because nobody acknowledged it.
    Resent {
        id: &'a str,
        bytes: usize,
    },
    /// A message was sent again for somebody who asked.
    Repaired {
        id: &'a str,
        bytes: usize,
    },
    /// A sync message was sent.
    Synced {
        bytes: usize,
    },
    Trouble {
        what: String,
    },
    Log {
        messages: Vec<&'a Row>,
    },
    Count {
        logged: usize,
        outgoing: usize,
        buffered: usize,
        missing: usize,
        #[serde(flatten)]
        traffic: Traffic,
    },
    Closed(Traffic),
}

/// What went over the network.
#[derive(Serialize, Debug)]
pub(super) struct Traffic {
    sent: u64,
    sent_bytes: u64,
    received: u64,
    received_bytes: u64,
    refused: u64,
}

impl From<&Statistics> for Traffic {
    fn from(statistics: &Statistics) -> Self {
        Self {
            sent: statistics.sent,
            sent_bytes: statistics.sent_bytes,
            received: statistics.received,
            received_bytes: statistics.received_bytes,
            refused: statistics.refused,
        }
    }
}
