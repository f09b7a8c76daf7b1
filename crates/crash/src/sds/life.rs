//! The application: it processes each delivery, says that it has, and goes on behind what it has
//! processed when it comes back. This is what an application has to do; the rest is the library's.

use super::{
    board::Board,
    talk::{self, NOW, ROOM},
};
use crate::{
    finding::{Check, Finding, ensure},
    verdict::Harm::{Leaked, Lost, Stuck, Torn},
};
use mainstay_sds::{
    Channel, Error, Output, Reason,
    persist::{Change, Durability, Persistence, PoolPersistence, StorePersistence},
};
use mainstay_shm::hook;
use std::path::Path;

/// Where changes are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Pool,
    Store,
}

/// The name of the pools.
pub(crate) const POOLS: &str = "sds";

impl Kind {
    pub(crate) fn open(self, folder: &Path) -> mainstay_sds::Result<Box<dyn Persistence>> {
        Ok(match self {
            Self::Pool => Box::new(PoolPersistence::open(folder, POOLS)?),
            // Processes die here and no system: what the system has is there.
            Self::Store => Box::new(StorePersistence::open(folder, Durability::Memory)?),
        })
    }
}

impl From<Error> for Finding {
    fn from(error: Error) -> Self {
        let harm = if matches!(error, Error::Saved { .. }) { Torn } else { Stuck };
        Self { harm, what: error.to_string() }
    }
}

pub(crate) struct Life<'a> {
    pub(crate) channel: Channel,
    pub(crate) place: Box<dyn Persistence>,
    board: &'a Board,
}

impl<'a> Life<'a> {
    /// Loads what is kept, and goes on behind what was processed.
    pub(crate) fn begin(mut place: Box<dyn Persistence>, board: &'a Board) -> Check<Self> {
        let saved = place.load(ROOM)?;
        for later in saved.iter().skip(1) {
            let is_base = Change::parse(ROOM, later)?.base;
            ensure(!is_base, Leaked, || "what a base has replaced is still there".into())?;
        }
        let channel = Channel::load(ROOM, b"bob", talk::durable(), NOW, &saved)?;
        let mut life = Self { channel, place, board };
        life.confirm(board.processed())?;
        life.drain()?;
        Ok(life)
    }

    pub(crate) fn hear(&mut self, bytes: &[u8]) -> Check {
        self.channel.receive(NOW, bytes)?;
        self.drain()
    }

    pub(crate) fn send(&mut self) -> Check {
        let Some(number) = self.board.begin_to_send() else { return Ok(()) };
        self.channel.send(NOW, own_id(number).as_bytes(), b"mine")?;
        self.drain()
    }

    fn confirm(&mut self, number: u64) -> Check {
        self.channel.confirm(number).map_err(|error| Finding {
            harm: Lost,
            what: format!("{number} deliveries were processed, of which the channel says: {error}"),
        })
    }

    /// A death may come between any two of these.
    fn drain(&mut self) -> Check {
        loop {
            hook::step();
            match self.channel.poll_output() {
                None => return Ok(()),
                Some(Output::Persist(change)) => {
                    self.place.save(ROOM, &change)?;
                    let number = change.number;
                    hook::step();
                    self.channel.persisted(number);
                }
                Some(Output::Deliver(delivery)) => {
                    let number = delivery.number;
                    let message = talk::number_of(delivery.id).ok_or_else(|| Finding {
                        harm: Torn,
                        what: format!("delivery {number} is a message that nobody sent"),
                    })?;
                    self.board.process(number, message)?;
                    hook::step();
                    self.confirm(number)?;
                }
                Some(Output::Broadcast(broadcast)) if broadcast.reason == Reason::Content => {
                    if let Some(number) = own_number(broadcast.id) {
                        self.board.went_out(number);
                    }
                }
                Some(_) => {}
            }
        }
    }
}

pub(crate) fn own_id(number: usize) -> String {
    format!("b{number}")
}

fn own_number(id: &[u8]) -> Option<usize> {
    std::str::from_utf8(id).ok()?.strip_prefix('b')?.parse().ok()
}
