//! Questions to a store node and answers of one: whatever the bytes are, they are a question that is
//! the same when it is written and read again, or none; and an answer within its limits, or none.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mainstay_fuzz::world;
use mainstay_sds::{
    limits,
    query::{AnswerReader, Answered, Query, answer_frame},
};

fuzz_target!(|bytes: &[u8]| {
    world::plant();
    if let Some((channel, query)) = Query::read(bytes) {
        let frame = query.frame(channel);
        assert_eq!(&frame[4..], bytes, "one form of each question");
        assert_eq!(frame[..4], (bytes.len() as u32).to_le_bytes());
    }
    answer(bytes);
});

/// An answer as it comes over a stream that may say anything, and end anywhere.
fn answer(mut rest: &[u8]) {
    let (mut reader, whole) = (AnswerReader::new(), rest);
    loop {
        assert!(reader.wants() <= limits::MESSAGE_LEN_MAX, "{} bytes of a message", reader.wants());
        let Some((bytes, behind)) = rest.split_at_checked(reader.wants()) else { return };
        rest = behind;
        match reader.take(bytes) {
            Answered::NotYet => {}
            Answered::Messages(messages) => {
                assert!(messages.len() <= limits::ANSWER_MESSAGES_MAX);
                let read = whole.len() - rest.len();
                return assert_eq!(answer_frame(Some(&messages)), whole[..read]);
            }
            Answered::Refused => return assert_eq!(answer_frame(None), whole[..4]),
            Answered::TooLong => return,
            other => panic!("a new kind of answer: {other:?}"),
        }
    }
}
