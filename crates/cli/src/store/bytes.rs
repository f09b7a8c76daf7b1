//! Keys and values as people and programs write and read them.

use crate::{
    error::{CliError, Result},
    hex,
    output::escape,
};
use clap::ValueEnum;
use mainstay::store::limits::{ANY_KEY_BYTES_MAX, ANY_VALUE_BYTES_MAX};
use serde::Serialize;
use std::{
    borrow::Cow,
    fs::File,
    io::{self, Read},
};

/// Characters of a key or value in a table.
const CELL_CHARS: usize = 60;
/// What is shown before digits.
const SHOWN_HEX: &str = "0x";

/// How an argument stands for bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Form {
    /// The text itself; zeros follow up to the size
    Text,
    /// Two hexadecimal digits a byte, with or without 0x before them
    Hex,
    /// A whole number, little-endian, as programs store it
    Number,
    /// A file with the bytes (- is standard input); zeros follow up to the size
    File,
}

/// Whose bytes they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    Key,
    Value,
}

impl Part {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Value => "value",
        }
    }
}

#[derive(clap::Args)]
pub(super) struct KeyArgs {
    /// The key
    #[arg(allow_negative_numbers = true)]
    pub(super) key: String,
    /// What KEY is
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub(super) key_as: Form,
}

impl KeyArgs {
    pub(super) fn bytes(&self, len: impl Into<Option<usize>>) -> Result<Vec<u8>> {
        self.key_as.bytes(&self.key, len, Part::Key)
    }
}

impl Form {
    /// The bytes that an argument stands for, as many as the store's keys or values have; where
    /// these have any size, exactly those, and eight of a number.
    pub(super) fn bytes(
        self,
        given: &str,
        len: impl Into<Option<usize>>,
        part: Part,
    ) -> Result<Vec<u8>> {
        let Some(len) = len.into() else { return self.free(given, part) };
        let bytes = match self {
            Self::Text => given.as_bytes().to_vec(),
            Self::Hex => digits(given)?,
            Self::Number => return number(given, len, part),
            Self::File => read(given, len)?,
        };
        let is_exact = self == Self::Hex;
        if bytes.len() > len || (is_exact && bytes.len() < len) {
            return Err(CliError::Size { part: part.name(), bytes: bytes.len(), must: len });
        }
        Ok(padded(bytes, len))
    }
}

impl Form {
    /// What keys begin with: text, or digits.
    pub(super) fn prefix(self, given: &str) -> Result<Vec<u8>> {
        match self {
            Self::Text => Ok(given.as_bytes().to_vec()),
            Self::Hex => digits(given),
            Self::Number | Self::File => Err(CliError::NoPrefix),
        }
    }

    fn free(self, given: &str, part: Part) -> Result<Vec<u8>> {
        let most = match part {
            Part::Key => ANY_KEY_BYTES_MAX,
            Part::Value => ANY_VALUE_BYTES_MAX,
        };
        let bytes = match self {
            Self::Text => given.as_bytes().to_vec(),
            Self::Hex => digits(given)?,
            Self::Number => number(given, size_of::<u64>(), part)?,
            Self::File => read(given, most)?,
        };
        if bytes.len() > most {
            return Err(CliError::TooLong { part: part.name(), most });
        }
        Ok(bytes)
    }
}

/// As people write them, and are shown them.
fn digits(given: &str) -> Result<Vec<u8>> {
    let digits = given.strip_prefix(SHOWN_HEX).unwrap_or(given);
    hex::decode(digits).ok_or_else(|| CliError::NotHex(given.to_owned()))
}

fn padded(mut bytes: Vec<u8>, len: usize) -> Vec<u8> {
    bytes.resize(len, 0);
    bytes
}

fn number(given: &str, len: usize, part: Part) -> Result<Vec<u8>> {
    let refused = || CliError::NotANumber { part: part.name(), given: given.to_owned(), len };
    let bytes = given.parse::<u128>().map_err(|_| refused())?.to_le_bytes();
    let (low, high) = bytes.split_at(len.min(bytes.len()));
    if high.iter().any(|byte| *byte != 0) {
        return Err(refused());
    }
    Ok(padded(low.to_vec(), len))
}

/// One byte more than fits is enough to tell that it does not.
fn read(name: &str, len: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = len as u64 + 1;
    let done = if name == "-" {
        io::stdin().lock().take(most).read_to_end(&mut bytes)
    } else {
        File::open(name).and_then(|file| file.take(most).read_to_end(&mut bytes))
    };
    let hint = "check the name; - is standard input";
    done.map_err(CliError::file(name.as_ref(), "read it", hint))?;
    Ok(bytes)
}

/// The text that bytes are, apart from zeros at their end; none if they are something else.
pub(super) fn as_text(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let text = str::from_utf8(&bytes[..end]).ok()?;
    (!text.contains('\0')).then_some(text)
}

/// The text that bytes are, where every byte counts.
pub(super) fn exact_text(bytes: &[u8]) -> Option<&str> {
    str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

/// In a line for people: text if it is one that is shown as it is, else digits. No two keys of a store
/// are shown alike, and what is shown can be given again: as text, or, from 0x on, with `--key-as hex`.
pub(super) fn shown(bytes: &[u8], text: Text) -> String {
    let plain = |text: &&str| {
        let is_shown_so = matches!(escape(text), Cow::Borrowed(_));
        is_shown_so && !text.is_empty() && !text.starts_with(SHOWN_HEX)
    };
    match text(bytes).filter(plain) {
        Some(text) => text.to_owned(),
        None => format!("{SHOWN_HEX}{}", hex::encode(bytes)),
    }
}

/// The same for a cell of a table, cut if it is long.
pub(super) fn cell(bytes: &[u8], text: Text) -> String {
    let text = shown(bytes, text);
    match text.char_indices().nth(CELL_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// Which text bytes are: [`as_text`] or [`exact_text`].
pub(super) type Text = fn(&[u8]) -> Option<&str>;

/// That of a store whose keys and values have these lengths: where sizes are free, they are exactly
/// what was put, with no zeros behind it.
pub(super) fn text_of(lengths: Option<(usize, usize)>) -> Text {
    if lengths.is_none() { exact_text } else { as_text }
}

/// A record for programs, and as exports have it: text where it is one, else digits.
#[derive(Serialize)]
pub(super) struct Row<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_hex: Option<String>,
    /// When it ends: milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    ends: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    left_ms: Option<u64>,
}

impl<'a> Row<'a> {
    /// The same of one that ends at that time.
    pub(super) fn ending(self, ends: Option<u64>) -> Self {
        Self { ends, ..self }
    }

    /// And how long that is from now.
    pub(super) fn left_at(self, now: u64) -> Self {
        let left_ms = self.ends.map(|end| end.saturating_sub(now));
        Self { left_ms, ..self }
    }

    pub(super) fn with(key: &'a [u8], value: Option<&'a [u8]>, text: Text) -> Self {
        let digits = |bytes: &[u8]| text(bytes).is_none().then(|| hex::encode(bytes));
        Self {
            key: text(key),
            key_hex: digits(key),
            value: value.and_then(text),
            value_hex: value.and_then(digits),
            ends: None,
            left_ms: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(form: Form, given: &str, len: usize) -> Option<Vec<u8>> {
        form.bytes(given, len, Part::Key).ok()
    }

    #[test]
    fn each_form_gives_exactly_as_many_bytes_or_is_refused() {
        assert_eq!(bytes(Form::Text, "ab", 4), Some(b"ab\0\0".to_vec()));
        assert_eq!(
            (bytes(Form::Text, "abcd", 4).is_some(), bytes(Form::Text, "abcde", 4)),
            (true, None)
        );
        assert_eq!(bytes(Form::Hex, "00ff", 2), Some(vec![0, 255]));
        assert_eq!((bytes(Form::Hex, "00", 2), bytes(Form::Hex, "0g00", 2)), (None, None));
        assert_eq!(bytes(Form::Number, "258", 4), Some(vec![2, 1, 0, 0]));
        assert_eq!(
            (bytes(Form::Number, "255", 1), bytes(Form::Number, "256", 1)),
            (Some(vec![255]), None)
        );
        assert_eq!(bytes(Form::Number, "1", 20).map(|bytes| bytes.len()), Some(20));
        assert_eq!((bytes(Form::Number, "-1", 4), bytes(Form::Number, "", 4)), (None, None));
    }

    #[test]
    fn where_sizes_are_free_an_argument_is_exactly_its_bytes() {
        let free = |form: Form, given: &str| form.bytes(given, None, Part::Key).ok();
        assert_eq!(free(Form::Text, "ab"), Some(b"ab".to_vec()));
        assert_eq!(free(Form::Hex, "00ff00"), Some(vec![0, 255, 0]));
        assert_eq!(free(Form::Number, "258"), Some(vec![2, 1, 0, 0, 0, 0, 0, 0]));
        assert_eq!(
            free(Form::Text, &"x".repeat(ANY_KEY_BYTES_MAX)).map(|key| key.len()),
            Some(4096)
        );
        assert_eq!(free(Form::Text, &"x".repeat(ANY_KEY_BYTES_MAX + 1)), None);
        assert_eq!((exact_text(b"a\0"), exact_text(b"ab")), (None, Some("ab")));
    }

    #[test]
    fn people_see_text_where_there_is_one() {
        let shown = |bytes: &[u8]| shown(bytes, as_text);
        assert_eq!((shown(b"alice\0\0"), shown(b"a\0b")), ("alice".into(), "0x610062".into()));
        assert_eq!((shown(&[0, 0]), shown(b"a\n")), ("0x0000".into(), "0x610a".into()));
        assert_eq!(cell(&[b'x'; 200], as_text).len(), CELL_CHARS + 3);
    }

    proptest! {
        #[test]
        fn what_is_shown_can_be_given_again(
            bytes in prop::collection::vec(
                prop_oneof![Just(0), Just(b'0'), Just(b'x'), Just(b'\\'), any::<u8>()], 1..9),
            marks in "[a\u{202e}\u{e9}\\\\]{1,3}",
            is_free: bool,
        ) {
            for bytes in [bytes, marks.into_bytes()] {
                let len = (!is_free).then_some(bytes.len());
                let shown = shown(&bytes, text_of(len.map(|len| (len, 0))));
                let form = if shown.starts_with(SHOWN_HEX) { Form::Hex } else { Form::Text };
                prop_assert_eq!(form.bytes(&shown, len, Part::Key).ok(), Some(bytes));
            }
        }

        #[test]
        fn what_is_told_as_text_means_the_same_bytes(bytes in prop::collection::vec(any::<u8>(), 1..12)) {
            if let Some(text) = as_text(&bytes) {
                prop_assert_eq!(Form::Text.bytes(text, bytes.len(), Part::Key).ok(), Some(bytes));
            }
        }
    }
}
