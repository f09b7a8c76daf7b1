//! What the other participant has said.

use mainstay_sds::{Channel, Config, Keep, Now, Output};

pub(crate) const ROOM: &str = "room";
pub(crate) const NOW: Now = Now { mono_ms: 1000, wall_ms: 1_760_000_000_000 };

/// Her messages, as they come: some wait for others that come later.
pub(crate) struct Talk {
    messages: Vec<Vec<u8>>,
}

/// The same filter on both sides, and small: nothing here is about filters.
fn config() -> Config {
    let mut config = Config::lip();
    (config.only_own_peers, config.filter_capacity, config.sync) = (true, 100, false);
    config
}

/// That of the one whose process dies.
pub(crate) fn durable() -> Config {
    let mut config = config();
    // Small, so that messages leave it; large enough that what a life sends does not make what the
    // next one receives too old.
    config.history = 150;
    (config.keep, config.confirm) = (Keep::Durable, true);
    config
}

impl Talk {
    /// So many messages, each with so many bytes of content.
    pub(crate) fn new(count: usize, content_len: usize) -> mainstay_sds::Result<Self> {
        let mut alice = Channel::new(ROOM, b"alice", config())?;
        let mut messages = Vec::new();
        for number in 0..count {
            alice.send(NOW.after(number as u64), id(number).as_bytes(), &vec![7; content_len])?;
            while let Some(output) = alice.poll_output() {
                if let Output::Broadcast(broadcast) = output {
                    messages.push(broadcast.bytes.to_vec());
                }
            }
        }
        for three in messages.chunks_mut(3) {
            three.reverse();
        }
        Ok(Self { messages })
    }

    pub(crate) fn messages(&self) -> &[Vec<u8>] {
        &self.messages
    }
}

fn id(number: usize) -> String {
    format!("m{number}")
}

/// The message of that id.
pub(crate) fn number_of(id: &[u8]) -> Option<usize> {
    std::str::from_utf8(id).ok()?.strip_prefix('m')?.parse().ok()
}
