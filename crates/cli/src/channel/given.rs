//! What is given on the command line, checked before anything is begun.

use crate::size::{self, ParseError, parse_duration};
use mainstay::channel::limits::MESSAGE_LEN_MAX;
use std::time::Duration;

/// Why a text is not taken; clap shows the text itself.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum GivenError {
    #[error(transparent)]
    Parse(#[from] ParseError),
    #[error("a message has at most 64 MiB; send several")]
    TooLong,
    #[error("in no time nothing is measured; give 1ms or more")]
    NoTime,
}

const _: () = assert!(MESSAGE_LEN_MAX == 64 << 20, "the words above say so");

/// The length of a message.
pub(super) fn message_len(text: &str) -> Result<usize, GivenError> {
    let len = usize::try_from(size::parse(text)?).map_err(|_| GivenError::TooLong)?;
    if len > MESSAGE_LEN_MAX { Err(GivenError::TooLong) } else { Ok(len) }
}

/// A time that is not zero.
pub(super) fn some_time(text: &str) -> Result<Duration, GivenError> {
    let time = parse_duration(text)?;
    if time.is_zero() { Err(GivenError::NoTime) } else { Ok(time) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_message_has_units_and_ends_at_the_limit() {
        assert_eq!((message_len("0"), message_len("64KiB")), (Ok(0), Ok(64 << 10)));
        assert_eq!(message_len("64MiB"), Ok(MESSAGE_LEN_MAX));
        assert_eq!(message_len("67108865"), Err(GivenError::TooLong));
        assert_eq!(message_len("x"), Err(GivenError::Parse(ParseError::Size)));
    }

    #[test]
    fn no_time_is_refused() {
        assert_eq!(some_time("1ms"), Ok(Duration::from_millis(1)));
        assert_eq!(some_time("0s"), Err(GivenError::NoTime));
    }
}
