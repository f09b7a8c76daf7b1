//! How the value of a state is shown: fields, text or bytes.

use super::fields::{Fields, Layout};
use crate::{
    error::{CliError, Result},
    hex,
    output::{Output, escape},
};
use serde::Serialize;
use std::io::Write;

/// Characters of a value in one line for people.
const LINE_CHARS: usize = 100;

/// In which form people want a value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Fields if the state says what they are, else text if it is one, else a dump.
    Fitting,
    /// Text without the zeros at its end, whatever it is.
    Text,
    /// Hexadecimal digits, as `set --hex` takes them.
    Hex,
    /// The bytes as they are.
    Raw,
}

/// A value for programs: fields if the state says what they are; else the bytes, and the text if
/// they are one.
#[derive(Serialize)]
pub(super) struct ValueRow<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Fields<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
}

impl<'a> ValueRow<'a> {
    pub(super) fn of(bytes: &'a [u8], layout: Option<&'a Layout>) -> Self {
        match layout.and_then(|layout| layout.show(bytes)) {
            Some(value) => Self { value: Some(value), text: None, hex: None },
            None => {
                let text = as_text(bytes).map(str::to_owned);
                Self { value: None, text, hex: Some(hex::encode(bytes)) }
            }
        }
    }
}

impl Form {
    /// The whole value, over as many lines as it needs.
    pub(super) fn show(
        self,
        bytes: &[u8],
        layout: Option<&Layout>,
        out: &mut Output,
    ) -> Result<()> {
        let written = |result: std::io::Result<()>| result.map_err(CliError::Output);
        match self {
            Self::Raw => return written(out.writer().write_all(bytes)),
            Self::Hex => return out.line(&hex::encode(bytes)),
            Self::Text => return lines(&String::from_utf8_lossy(without_zeros(bytes)), out),
            Self::Fitting => {}
        }
        if let Some(value) = layout.and_then(|layout| layout.show(bytes)) {
            return out.document(&value);
        }
        match as_text(bytes) {
            Some(text) => lines(text, out),
            None => written(hex::dump(out.writer(), bytes, |_| {})),
        }
    }

    /// The value in one line, cut if it is long.
    pub(super) fn line(self, bytes: &[u8], layout: Option<&Layout>) -> String {
        let digits = || cut(&hex::encode(&bytes[..bytes.len().min(LINE_CHARS)]), bytes.len());
        match self {
            Self::Hex | Self::Raw => return digits(),
            Self::Text => {
                let text = String::from_utf8_lossy(without_zeros(bytes));
                return cut(text.trim_end_matches('\n'), bytes.len());
            }
            Self::Fitting => {}
        }
        if let Some(value) = layout.and_then(|layout| layout.show(bytes)) {
            // All of the fields: half an object is no help to anybody.
            return value.to_string();
        }
        match as_text(bytes) {
            Some(text) => cut(text.trim_end_matches('\n'), bytes.len()),
            None => digits(),
        }
    }
}

/// Text line by line, each made harmless: a newline is none of its dangers.
fn lines(text: &str, out: &mut Output) -> Result<()> {
    text.lines().try_for_each(|line| out.line(&line.replace('\t', "    ")))
}

fn cut(text: &str, bytes: usize) -> String {
    let text = escape(text);
    match text.char_indices().nth(LINE_CHARS) {
        Some((end, _)) => format!("{}... ({bytes} B)", &text[..end]),
        None => text.into_owned(),
    }
}

/// What stands before the zeros at the end.
fn without_zeros(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    &bytes[..end]
}

/// The text that the bytes are, apart from zeros at their end; none if they are something else.
fn as_text(bytes: &[u8]) -> Option<&str> {
    let text = str::from_utf8(without_zeros(bytes)).ok()?;
    let plain = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
    (!text.is_empty() && text.chars().all(plain)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUTO: Form = Form::Fitting;

    #[test]
    fn text_is_told_from_bytes_and_zeros_at_the_end_do_not_count() {
        assert_eq!(as_text(b"21.5\n\0\0"), Some("21.5\n"));
        assert_eq!(as_text("Größe".as_bytes()), Some("Größe"));
        assert_eq!((as_text(b""), as_text(b"\0\0"), as_text(b"a\0b")), (None, None, None));
        assert_eq!((as_text(b"\x1b[2J"), as_text(&[0xff])), (None, None));
    }

    #[test]
    fn a_line_is_one_line_and_not_longer_than_it_may_be() {
        assert_eq!(AUTO.line(b"a\nb\n\0", None), "a\\nb");
        assert_eq!(AUTO.line(&[0, 1], None), "0001");
        let long = AUTO.line(&[b'x'; 300], None);
        assert_eq!(long, format!("{}... (300 B)", "x".repeat(100)));
        let layout = Layout::parse("a: u8, b: u8", 2);
        assert_eq!(AUTO.line(&[1, 2], layout.as_ref()), r#"{"a":1,"b":2}"#);
    }

    #[test]
    fn programs_get_fields_or_bytes_and_perhaps_text() {
        let json = |bytes: &[u8], layout: Option<&Layout>| {
            serde_json::to_value(ValueRow::of(bytes, layout)).unwrap()
        };
        assert_eq!(json(b"hi\0", None), serde_json::json!({"text": "hi", "hex": "686900"}));
        assert_eq!(json(&[255], None), serde_json::json!({"hex": "ff"}));
        let layout = Layout::parse("a: u8", 1);
        assert_eq!(json(&[7], layout.as_ref()), serde_json::json!({"value": {"a": 7}}));
    }
}
