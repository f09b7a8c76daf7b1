//! Naming a block.

use std::{fmt, str::FromStr};

/// Names one life of one block, for ever: a number that is reused, and a generation that is not.
///
/// May be stored, sent to another process, or written down; [`crate::Pool::attach`] tells exactly
/// whether it still means the same block. Written as `NUMBER@GENERATION`.
///
/// ```
/// use mainstay_pool::BlockId;
/// let id = BlockId { number: 12, generation: 7 };
/// assert_eq!(id.to_string(), "12@7");
/// assert_eq!("12@7".parse(), Ok(id));
/// assert!("12".parse::<BlockId>().is_err());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct BlockId {
    /// Which block: 0 up to the number of blocks.
    pub number: u32,
    /// Which of its lives; the low 27 bits are the tag in the owner word.
    pub generation: u64,
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.number, self.generation)
    }
}

/// A text that is no block id.
///
/// Example: see [`BlockId`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text:?} is not a block id: write NUMBER@GENERATION, as in 12@7")]
pub struct ParseBlockIdError {
    text: String,
}

impl FromStr for BlockId {
    type Err = ParseBlockIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (number, generation) = text.split_once('@')?;
            Some(Self { number: number.parse().ok()?, generation: generation.parse().ok()? })
        };
        parse().ok_or_else(|| ParseBlockIdError { text: text.to_owned() })
    }
}
