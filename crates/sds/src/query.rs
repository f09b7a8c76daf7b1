//! Questions to a store node and their answers, as bytes: whatever carries them.
//!
//! A question is one frame and an answer another, all numbers little-endian:
//!
//! | frame | parts |
//! |---|---|
//! | question | length of the rest (u32), kind (u8), length of the channel's name (u16), name, key |
//! | key of kind 1, by id | the id |
//! | key of kind 2, by hint | the hint |
//! | key of kind 3, what comes after | Lamport time (u64), most messages (u16), id |
//! | answer | count (u32; 0xffff_ffff: refused), then for each message its length (u32) and its bytes |
//!
//! Neither side believes the other: lengths are checked before anything is allocated, a question
//! out of form is none, and what a store node answers is a message like any other, of which the
//! core believes nothing that it would not believe from the network.

use crate::{
    archive::Archive,
    error::Result,
    limits::{ANSWER_BYTES_MAX, ANSWER_MESSAGES_MAX, MESSAGE_LEN_MAX},
    planted,
    store_node::StoreNode,
};

const REFUSED: u32 = u32::MAX;
const BY_ID: u8 = 1;
const BY_HINT: u8 = 2;
const AFTER: u8 = 3;

/// What is asked for.
///
/// ```
/// use mainstay_sds::query::Query;
/// let query = Query::Id(b"m1".to_vec());
/// let frame = query.frame("room");
/// // Behind the length, which says what to read.
/// assert_eq!(Query::read(&frame[4..]), Some(("room", query)));
/// assert_eq!(Query::read(b"noise"), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Query {
    /// The message of this id.
    Id(Vec<u8>),
    /// The message that this hint means.
    Hint(Vec<u8>),
    /// What comes after that Lamport time and id, in the order of the log.
    After {
        /// The Lamport time.
        lamport: u64,
        /// The id.
        id: Vec<u8>,
        /// The most messages that are wanted.
        max: u16,
    },
}

impl Query {
    /// The question, with its length before it.
    ///
    /// Example: see [`Query`].
    #[must_use]
    pub fn frame(&self, channel: &str) -> Vec<u8> {
        let (kind, key) = match self {
            Self::Id(id) => (BY_ID, id.clone()),
            Self::Hint(hint) => (BY_HINT, hint.clone()),
            Self::After { lamport, id, max } => {
                (AFTER, [&lamport.to_le_bytes()[..], &max.to_le_bytes(), id].concat())
            }
        };
        let len = 3 + channel.len() + key.len();
        let mut frame = Vec::with_capacity(4 + len);
        frame.extend((len as u32).to_le_bytes());
        frame.push(kind);
        frame.extend((channel.len() as u16).to_le_bytes());
        frame.extend(channel.as_bytes());
        frame.extend(key);
        frame
    }

    /// Reads a question without its length: the channel, and what is asked for. `None` if it is out
    /// of form.
    ///
    /// Example: see [`Query`].
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<(&str, Self)> {
        let (&kind, rest) = bytes.split_first()?;
        let (len, rest) = rest.split_first_chunk()?;
        let len = usize::from(u16::from_le_bytes(*len));
        let (channel, rest) = if planted("query-name-unchecked") {
            rest.split_at(len)
        } else {
            rest.split_at_checked(len)?
        };
        let query = match kind {
            BY_ID => Self::Id(rest.to_vec()),
            BY_HINT => Self::Hint(rest.to_vec()),
            AFTER => {
                let (lamport, rest) = rest.split_first_chunk()?;
                let (max, id) = rest.split_first_chunk()?;
                Self::After {
                    lamport: u64::from_le_bytes(*lamport),
                    max: u16::from_le_bytes(*max),
                    id: id.to_vec(),
                }
            }
            _ => return None,
        };
        Some((std::str::from_utf8(channel).ok()?, query))
    }
}

impl<A: Archive> StoreNode<A> {
    /// The messages that answer a question: as many as were asked for, and as fit into an answer.
    ///
    /// # Errors
    /// [`Error::UnknownChannel`](crate::Error::UnknownChannel), and those of the archive.
    ///
    /// ```
    /// use mainstay_sds::{MemoryArchive, StoreNode, query::Query, wire::Profile};
    /// let mut node = StoreNode::new(MemoryArchive::new())?;
    /// node.serve("room", Profile::Lip, 10)?;
    /// assert!(node.answer("room", &Query::Id(b"m1".to_vec()))?.is_empty());
    /// # Ok::<(), mainstay_sds::Error>(())
    /// ```
    pub fn answer(&self, channel: &str, query: &Query) -> Result<Vec<Vec<u8>>> {
        match query {
            Query::Id(id) => Ok(self.by_id(channel, id)?.into_iter().collect()),
            Query::Hint(hint) => Ok(self.by_hint(channel, hint)?.into_iter().collect()),
            Query::After { lamport, id, max } => {
                let most = ANSWER_MESSAGES_MAX.min(usize::from(*max));
                let mut messages = self.after(channel, (*lamport, id), most)?;
                let mut bytes = 0;
                let fits = |message: &Vec<u8>| {
                    bytes += message.len();
                    bytes <= ANSWER_BYTES_MAX
                };
                let count = messages.iter().map(fits).take_while(|fits| *fits).count();
                messages.truncate(count);
                Ok(messages)
            }
        }
    }
}

/// The frame of an answer; `None` refuses the question.
///
/// Example: see [`AnswerReader`].
#[must_use]
pub fn answer_frame(messages: Option<&[Vec<u8>]>) -> Vec<u8> {
    let Some(messages) = messages else { return REFUSED.to_le_bytes().to_vec() };
    let mut frame = Vec::new();
    frame.extend((messages.len() as u32).to_le_bytes());
    for message in messages {
        frame.extend((message.len() as u32).to_le_bytes());
        frame.extend(message);
    }
    frame
}

/// An answer as it arrives: it says how many bytes it wants, is given these, and so on.
///
/// ```
/// use mainstay_sds::query::{Answered, AnswerReader, answer_frame};
/// let frame = answer_frame(Some(&[b"a message".to_vec()]));
/// let (mut reader, mut rest) = (AnswerReader::new(), &frame[..]);
/// let messages = loop {
///     let (bytes, behind) = rest.split_at(reader.wants());
///     rest = behind;
///     match reader.take(bytes) {
///         Answered::NotYet => {}
///         Answered::Messages(messages) => break messages,
///         other => panic!("{other:?}"),
///     }
/// };
/// assert_eq!(messages, [b"a message"]);
/// ```
#[derive(Debug, Default)]
pub struct AnswerReader {
    wants: Wants,
    /// Messages that have not begun.
    left: u32,
    messages: Vec<Vec<u8>>,
}

#[derive(Debug, Default)]
enum Wants {
    #[default]
    Count,
    Length,
    Message(usize),
}

/// What has become of an answer.
///
/// Example: see [`AnswerReader`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answered {
    /// There is more to come.
    NotYet,
    /// All of it.
    Messages(Vec<Vec<u8>>),
    /// The store node does not serve the channel.
    Refused,
    /// It is longer than an answer can be: nothing of it, and nothing behind it, can be read.
    TooLong,
}

impl AnswerReader {
    /// One that has seen nothing.
    ///
    /// Example: see [`AnswerReader`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes it is to be given next.
    ///
    /// Example: see [`AnswerReader`].
    #[must_use]
    pub fn wants(&self) -> usize {
        match self.wants {
            Wants::Count | Wants::Length => size_of::<u32>(),
            Wants::Message(len) => len,
        }
    }

    /// Takes the bytes it wants.
    ///
    /// Example: see [`AnswerReader`].
    pub fn take(&mut self, bytes: &[u8]) -> Answered {
        let number = || bytes.first_chunk().copied().map_or(REFUSED, u32::from_le_bytes);
        match self.wants {
            Wants::Count => match number() {
                REFUSED => return Answered::Refused,
                count if count as usize > ANSWER_MESSAGES_MAX => return Answered::TooLong,
                count => self.left = count,
            },
            Wants::Length => {
                let len = number() as usize;
                if len > MESSAGE_LEN_MAX && !planted("answer-length-unchecked") {
                    return Answered::TooLong;
                }
                self.left -= 1;
                self.wants = Wants::Message(len);
                return Answered::NotYet;
            }
            Wants::Message(_) => self.messages.push(bytes.to_vec()),
        }
        if self.left == 0 {
            return Answered::Messages(std::mem::take(&mut self.messages));
        }
        self.wants = Wants::Length;
        Answered::NotYet
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        archive::MemoryArchive,
        limits::{HINT_LEN_MAX, ID_LEN_MAX, QUESTION_LEN_MAX},
        wire::{Message, Profile},
    };

    fn read(frame: &[u8]) -> Answered {
        let (mut reader, mut rest) = (AnswerReader::new(), frame);
        loop {
            let Some((bytes, behind)) = rest.split_at_checked(reader.wants()) else {
                return Answered::NotYet;
            };
            rest = behind;
            match reader.take(bytes) {
                Answered::NotYet => {}
                end => return end,
            }
        }
    }

    #[test]
    fn questions_are_read_as_they_were_written() {
        for key in [
            Query::Id(b"m1".to_vec()),
            Query::Hint(vec![0; HINT_LEN_MAX]),
            Query::After { lamport: u64::MAX, id: vec![1; ID_LEN_MAX], max: 7 },
        ] {
            let channel = "r".repeat(ID_LEN_MAX);
            let frame = key.frame(&channel);
            assert!(frame.len() - 4 <= QUESTION_LEN_MAX);
            assert_eq!(Query::read(&frame[4..]), Some((&*channel, key)));
        }
    }

    #[test]
    fn no_question_that_is_cut_short_or_noise_is_read_past_its_end() {
        let key = Query::After { lamport: 5, id: Vec::new(), max: 7 };
        let frame = key.frame("room");
        for len in 0..frame.len() - 4 {
            assert_eq!(Query::read(&frame[4..4 + len]), None, "{len}");
        }
        assert_eq!(Query::read(&[9, 0, 0]), None);
        assert_eq!(Query::read(&[1, 2, 0, 0xff, 0xff]), None);
    }

    #[test]
    fn answers_are_read_as_they_were_written_and_not_before_they_are_whole() {
        for messages in [vec![], vec![b"one".to_vec(), Vec::new(), vec![7; 1000]]] {
            let frame = answer_frame(Some(&messages));
            assert_eq!(read(&frame), Answered::Messages(messages));
            for len in 0..frame.len() {
                assert_eq!(read(&frame[..len]), Answered::NotYet, "{len}");
            }
        }
        assert_eq!(read(&answer_frame(None)), Answered::Refused);
    }

    fn node_with(count: usize, content_len: usize) -> StoreNode<MemoryArchive> {
        let mut node = StoreNode::new(MemoryArchive::new()).unwrap();
        node.serve("room", Profile::Lip, count).unwrap();
        for number in 0..count {
            let message = Message {
                id: format!("m{number}").into_bytes(),
                sender: b"alice".to_vec(),
                channel: b"room".to_vec(),
                lamport: Some(number as u64 + 1),
                content: Some(vec![7; content_len]),
                ..Message::default()
            };
            assert!(node.observe(&message.encode(Profile::Lip)).unwrap());
        }
        node
    }

    #[test]
    fn an_answer_has_as_many_messages_and_bytes_as_it_can_have() {
        let all = Query::After { lamport: 0, id: Vec::new(), max: u16::MAX };
        let count = |node: StoreNode<_>| node.answer("room", &all).unwrap().len();
        assert_eq!(count(node_with(ANSWER_MESSAGES_MAX, 1)), ANSWER_MESSAGES_MAX);
        assert_eq!(count(node_with(ANSWER_MESSAGES_MAX + 1, 1)), ANSWER_MESSAGES_MAX);
        // Eight of them would fit if they had nothing around their content.
        let whole = ANSWER_BYTES_MAX / 8;
        assert_eq!(count(node_with(9, whole - 100)), 8);
        assert_eq!(count(node_with(9, whole)), 7);
    }

    #[test]
    fn an_answer_past_the_limits_is_too_long() {
        let count = |count: usize| (count as u32).to_le_bytes();
        assert_eq!(read(&count(ANSWER_MESSAGES_MAX)), Answered::NotYet);
        assert_eq!(read(&count(ANSWER_MESSAGES_MAX + 1)), Answered::TooLong);
        let message = |len: usize| [count(1), count(len)].concat();
        assert_eq!(read(&message(MESSAGE_LEN_MAX)), Answered::NotYet);
        assert_eq!(read(&message(MESSAGE_LEN_MAX + 1)), Answered::TooLong);
    }
}
