//! Messages over a stream of the world: their length, a checksum, their bytes.

use mainstay_base::crc32c;
use mainstay_replica::limits::MESSAGE_BYTES_MAX;
use mainstay_sim::StreamAction;
use std::collections::VecDeque;

const HEAD: usize = 8;

#[derive(Default)]
pub(super) struct Line {
    room: usize,
    unwritten: VecDeque<u8>,
    unread: Vec<u8>,
    closes: bool,
}

impl Line {
    pub(super) fn with_room(room: usize) -> Self {
        Self { room, ..Self::default() }
    }

    pub(super) fn unwritten(&self) -> usize {
        self.unwritten.len()
    }

    pub(super) fn add_room(&mut self, bytes: usize) {
        self.room += bytes;
    }

    pub(super) fn say(&mut self, message: &[u8]) {
        self.unwritten.extend((message.len() as u32).to_le_bytes());
        self.unwritten.extend(crc32c(message).to_le_bytes());
        self.unwritten.extend(message);
    }

    /// Nothing follows what was said.
    pub(super) fn close(&mut self) {
        self.closes = true;
    }

    /// What can be written now.
    pub(super) fn write(&mut self) -> Option<StreamAction> {
        let now = self.room.min(self.unwritten.len());
        if now > 0 {
            self.room -= now;
            return Some(StreamAction::Write(self.unwritten.drain(..now).collect()));
        }
        let is_over = self.unwritten.is_empty() && std::mem::take(&mut self.closes);
        is_over.then_some(StreamAction::Finish)
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
    }

    /// The next message; an error if the bytes are damaged.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, ()> {
        let Some(head) = self.unread.get(..HEAD) else { return Ok(None) };
        let word = |at: usize| {
            let mut four = [0; 4];
            four.copy_from_slice(&head[at..at + 4]);
            u32::from_le_bytes(four)
        };
        let (len, sum) = (word(0) as usize, word(4));
        if len > MESSAGE_BYTES_MAX {
            return Err(());
        }
        if self.unread.len() < HEAD + len {
            return Ok(None);
        }
        let message = self.unread[HEAD..HEAD + len].to_vec();
        self.unread.drain(..HEAD + len);
        if crc32c(&message) == sum { Ok(Some(message)) } else { Err(()) }
    }
}
