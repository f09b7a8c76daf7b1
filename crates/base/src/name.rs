//! Names of pools and states.

use std::fmt;

/// The longest name, in bytes.
///
/// ```
/// use mainstay_base::{NAME_LEN_MAX, Name};
/// assert!(Name::new(&"n".repeat(NAME_LEN_MAX)).is_ok());
/// assert!(Name::new(&"n".repeat(NAME_LEN_MAX + 1)).is_err());
/// ```
pub const NAME_LEN_MAX: usize = 247;

/// A checked name: 1 to 247 bytes of letters, digits, `.`, `-`, `_`, with no leading, trailing or
/// doubled dot.
///
/// ```
/// use mainstay_base::{Name, NameError};
/// assert_eq!(Name::new("calls.live-1")?.as_str(), "calls.live-1");
/// assert_eq!(Name::new(".hidden"), Err(NameError::LeadingDot));
/// # Ok::<(), NameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Name(String);

/// Which rule a name broke.
///
/// Example: see [`Name`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The name has no characters.
    #[error("the name is empty: give it 1 to {NAME_LEN_MAX} characters")]
    Empty,
    /// The name has more than 247 bytes.
    #[error("the name has {len} bytes, the limit is {NAME_LEN_MAX}: shorten it")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// The name starts with a dot.
    #[error("the name starts with a dot: names may have dots only between other characters")]
    LeadingDot,
    /// The name ends with a dot.
    #[error("the name ends with a dot: names may have dots only between other characters")]
    TrailingDot,
    /// Two dots in a row.
    #[error("the name has two dots in a row at byte {at}: use one")]
    DoubledDot {
        /// Where the second dot is, in bytes from the start.
        at: usize,
    },
    /// A character that is not a letter, digit, `.`, `-` or `_`.
    #[error("the name has {found:?} at byte {at}: use letters, digits, '.', '-' and '_' only")]
    ForeignCharacter {
        /// Where it is, in bytes from the start.
        at: usize,
        /// What it is.
        found: char,
    },
}

impl Name {
    /// Checks `name` against the rules.
    ///
    /// ```
    /// use mainstay_base::{Name, NameError};
    /// assert!(Name::new("calls.live-1").is_ok());
    /// assert_eq!(Name::new("calls..live"), Err(NameError::DoubledDot { at: 6 }));
    /// ```
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn new(name: &str) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > NAME_LEN_MAX {
            return Err(NameError::TooLong { len: name.len() });
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if let Some((at, found)) = name.char_indices().find(|(_, c)| !allowed(*c)) {
            return Err(NameError::ForeignCharacter { at, found });
        }
        if name.starts_with('.') {
            return Err(NameError::LeadingDot);
        }
        if name.ends_with('.') {
            return Err(NameError::TrailingDot);
        }
        if let Some(at) = name.find("..") {
            return Err(NameError::DoubledDot { at: at + 1 });
        }
        Ok(Self(name.to_owned()))
    }

    /// The name as text.
    ///
    /// Example: see [`Name`].
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_have_247_bytes_and_not_one_more() {
        assert!(Name::new(&"a".repeat(NAME_LEN_MAX)).is_ok());
        assert_eq!(Name::new(&"a".repeat(248)), Err(NameError::TooLong { len: 248 }));
        assert_eq!(Name::new(""), Err(NameError::Empty));
    }

    #[test]
    fn each_rule_has_its_own_error() {
        assert_eq!(Name::new(".a"), Err(NameError::LeadingDot));
        assert_eq!(Name::new("a."), Err(NameError::TrailingDot));
        assert_eq!(Name::new("a..b"), Err(NameError::DoubledDot { at: 2 }));
        assert_eq!(Name::new("a/b"), Err(NameError::ForeignCharacter { at: 1, found: '/' }));
        assert_eq!(Name::new("aé"), Err(NameError::ForeignCharacter { at: 1, found: 'é' }));
        assert!(Name::new("A-z_0.9").is_ok());
    }
}
