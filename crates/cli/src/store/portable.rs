//! Records in files that any program reads and writes: a JSON object a line, or CSV.
//!
//! A key or value is text where it is one (zeros at its end left out), else hexadecimal digits: as
//! `key` or `key_hex`, `value` or `value_hex`. In CSV the first line names the columns; where a
//! record has one of a pair, the other cell is empty.

use super::bytes::{Part, Row, Text};
use crate::hex;
use clap::ValueEnum;
use serde::Deserialize;
use std::io::{self, BufRead, Write};

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Format {
    /// A JSON object a line
    Jsonl,
    /// Comma-separated values, the first line naming the columns
    Csv,
}

impl Format {
    /// As said, or as the name of the file says.
    pub(super) fn of(said: Option<Self>, file: &std::path::Path) -> Self {
        let is_csv = file.extension().is_some_and(|end| end.eq_ignore_ascii_case("csv"));
        said.unwrap_or(if is_csv { Self::Csv } else { Self::Jsonl })
    }
}

const COLUMNS: [&str; 5] = ["key", "key_hex", "value", "value_hex", "ends"];

/// Why a line is no record. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError {
    #[error("{0}; write {{\"key\": \"...\", \"value\": \"...\"}}, or key_hex and value_hex")]
    Json(serde_json::Error),
    #[error("{0}; mend the line")]
    Csv(csv::Error),
    #[error(
        "the first line names the column {0:?}; the columns are key or key_hex, value or value_hex, and \
         ends"
    )]
    Column(String),
    #[error("the first line names the column {0:?} twice; leave out one of them")]
    Twice(&'static str),
    #[error(
        "it is no text in UTF-8; give bytes that are none as hexadecimal digits, in key_hex or value_hex"
    )]
    NoText,
    #[error("no {0}, or two of them: give either {0} or {0}_hex")]
    OneOf(&'static str),
    #[error("ends is {0:?}: give milliseconds since 1970, or nothing if the record does not end")]
    NoTime(String),
    #[error(
        "the record ends, and records of this store do not; make one with `create --expiring`, or leave \
         `ends` out"
    )]
    Ends,
    #[error(
        "the record was set aside by an earlier version, whose `key` and `value` are digits for other \
         bytes; `mainstay store aside STORE FILE` writes such records as they can be imported"
    )]
    OldAside,
    #[error("the {0} is not hexadecimal: write two digits a byte")]
    Hex(&'static str),
    #[error(
        "the {part} has {bytes} bytes, and those of the store {must}; shorten it, or make a store with more"
    )]
    TooLong { part: &'static str, bytes: usize, must: usize },
    #[error("cannot be read: {0}; check where it comes from")]
    Read(io::Error),
}

/// A key and a value, as long as the store has them, and when it ends: milliseconds since 1970.
pub(super) type Record = (Vec<u8>, Vec<u8>, Option<u64>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    key: Option<String>,
    key_hex: Option<String>,
    value: Option<String>,
    value_hex: Option<String>,
    ends: Option<u64>,
}

impl Line {
    fn record(self, lengths: Option<(usize, usize)>) -> Result<Record, LineError> {
        let (key_len, value_len) = lengths.unzip();
        let key = part(self.key, self.key_hex, key_len, Part::Key)?;
        Ok((key, part(self.value, self.value_hex, value_len, Part::Value)?, self.ends))
    }
}

fn part(
    text: Option<String>,
    digits: Option<String>,
    len: Option<usize>,
    part: Part,
) -> Result<Vec<u8>, LineError> {
    let name = part.name();
    let mut bytes = match (text, digits) {
        (Some(text), None) => text.into_bytes(),
        (None, Some(digits)) => hex::decode(&digits).ok_or(LineError::Hex(name))?,
        _ => return Err(LineError::OneOf(name)),
    };
    let Some(len) = len else { return Ok(bytes) };
    if bytes.len() > len {
        return Err(LineError::TooLong { part: name, bytes: bytes.len(), must: len });
    }
    bytes.resize(len, 0);
    Ok(bytes)
}

/// Reads records one by one.
pub(super) enum Reader {
    Jsonl {
        input: Box<dyn BufRead>,
        line: Vec<u8>,
        number: u64,
        bytes: u64,
        /// It is a file of what a store has set aside, where nothing is text.
        is_aside: bool,
    },
    Csv {
        reader: Box<csv::Reader<Box<dyn BufRead>>>,
        columns: Vec<usize>,
        record: csv::StringRecord,
    },
}

impl Reader {
    pub(super) fn new(format: Format, input: Box<dyn BufRead>) -> Result<Self, LineError> {
        if format == Format::Jsonl {
            return Ok(Self::Jsonl {
                input,
                line: Vec::new(),
                number: 0,
                bytes: 0,
                is_aside: false,
            });
        }
        let mut reader = Box::new(csv::Reader::from_reader(input));
        let place = |name: &str| {
            let place = COLUMNS.iter().position(|column| *column == name);
            place.ok_or_else(|| LineError::Column(name.to_owned()))
        };
        let columns: Vec<usize> = reader
            .headers()
            .map_err(LineError::Csv)?
            .iter()
            .map(place)
            .collect::<Result<_, _>>()?;
        let is_twice = |place: usize| columns.iter().filter(|column| **column == place).count() > 1;
        if let Some(place) = (0..COLUMNS.len()).find(|place| is_twice(*place)) {
            return Err(LineError::Twice(COLUMNS[place]));
        }
        Ok(Self::Csv { reader, columns, record: csv::StringRecord::new() })
    }

    /// The same of a file with this name.
    pub(super) fn named(mut self, file: &std::path::Path) -> Self {
        if let Self::Jsonl { is_aside, .. } = &mut self {
            let name = file.file_name().unwrap_or_default();
            *is_aside = name.to_string_lossy().starts_with("aside-");
        }
        self
    }

    /// The line of the record that was read last, and how many bytes were read.
    pub(super) fn position(&self) -> (u64, u64) {
        match self {
            Self::Jsonl { number, bytes, .. } => (*number, *bytes),
            Self::Csv { reader, record, .. } => {
                let line =
                    record.position().map_or_else(|| reader.position().line(), csv::Position::line);
                (line, reader.position().byte())
            }
        }
    }

    /// The next record; empty lines are none.
    pub(super) fn next(
        &mut self,
        lengths: impl Into<Option<(usize, usize)>>,
    ) -> Result<Option<Record>, LineError> {
        let lengths = lengths.into();
        match self {
            Self::Jsonl { input, line, number, bytes, is_aside } => loop {
                line.clear();
                // Before it is read: it is the line of whatever is wrong with it.
                *number += 1;
                let len = input.read_until(b'\n', line).map_err(LineError::Read)?;
                if len == 0 {
                    return Ok(None);
                }
                *bytes += len as u64;
                let line = str::from_utf8(line).map_err(|_| LineError::NoText)?;
                if !line.trim().is_empty() {
                    if *is_aside && line.starts_with("{\"key\":") {
                        return Err(LineError::OldAside);
                    }
                    let line: Line = serde_json::from_str(line).map_err(LineError::Json)?;
                    return line.record(lengths).map(Some);
                }
            },
            Self::Csv { reader, columns, record } => {
                if !reader.read_record(record).map_err(LineError::Csv)? {
                    return Ok(None);
                }
                let mut cells = [const { None }; COLUMNS.len()];
                for (column, cell) in columns.iter().zip(record.iter()) {
                    cells[*column] = Some(cell.to_owned());
                }
                let [key, key_hex, value, value_hex, ends] = cells;
                let ends = ends.filter(|cell| !cell.is_empty());
                let time = |cell: String| cell.parse().map_err(|_| LineError::NoTime(cell));
                let ends = ends.map(time).transpose()?;
                let (key, key_hex) = one_cell(key, key_hex);
                let (value, value_hex) = one_cell(value, value_hex);
                Line { key, key_hex, value, value_hex, ends }.record(lengths).map(Some)
            }
        }
    }
}

/// Where there are both columns, digits count if there are some.
fn one_cell(text: Option<String>, digits: Option<String>) -> (Option<String>, Option<String>) {
    match (text, digits) {
        (Some(text), Some(digits)) if digits.is_empty() => (Some(text), None),
        (Some(text), Some(digits)) if text.is_empty() => (None, Some(digits)),
        other => other,
    }
}

/// Writes records one by one.
pub(super) enum Writer<W: Write> {
    Jsonl(W),
    Csv { writer: Box<csv::Writer<W>>, has_ends: bool },
}

impl<W: Write> Writer<W> {
    /// In CSV there is a column for ends only where records have some.
    pub(super) fn new(format: Format, has_ends: bool, writer: W) -> io::Result<Self> {
        if format == Format::Jsonl {
            return Ok(Self::Jsonl(writer));
        }
        let mut writer = csv::Writer::from_writer(writer);
        writer.write_record(&COLUMNS[..if has_ends { COLUMNS.len() } else { 4 }])?;
        Ok(Self::Csv { writer: Box::new(writer), has_ends })
    }

    /// `text` says which bytes are text.
    pub(super) fn record(
        &mut self,
        (key, value, ends): (&[u8], &[u8], Option<u64>),
        text: Text,
    ) -> io::Result<()> {
        match self {
            Self::Jsonl(writer) => {
                serde_json::to_writer(
                    &mut *writer,
                    &Row::with(key, Some(value), text).ending(ends),
                )?;
                writer.write_all(b"\n")
            }
            Self::Csv { writer, has_ends } => {
                for bytes in [key, value] {
                    match text(bytes) {
                        Some(text) => {
                            writer.write_field(text)?;
                            writer.write_field("")?;
                        }
                        None => {
                            writer.write_field("")?;
                            writer.write_field(hex::encode(bytes))?;
                        }
                    }
                }
                if *has_ends {
                    writer.write_field(ends.map_or_else(String::new, |end| end.to_string()))?;
                }
                Ok(writer.write_record(None::<&[u8]>)?)
            }
        }
    }

    pub(super) fn finish(self) -> io::Result<()> {
        match self {
            Self::Jsonl(mut writer) => writer.flush(),
            Self::Csv { mut writer, .. } => writer.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::bytes::{as_text, exact_text},
        *,
    };
    use proptest::prelude::*;

    fn read(
        format: Format,
        text: &[u8],
        lengths: (usize, usize),
    ) -> Result<Vec<Record>, LineError> {
        let mut reader = Reader::new(format, Box::new(io::Cursor::new(text.to_vec())))?;
        let mut records = Vec::new();
        while let Some(record) = reader.next(lengths)? {
            records.push(record);
        }
        Ok(records)
    }

    proptest! {
        #[test]
        fn records_come_back_as_they_were_whatever_they_are(
            records in prop::collection::vec(
                (prop::collection::vec(any::<u8>(), 3), prop::collection::vec(any::<u8>(), 5),
                 any::<Option<u64>>()), 0..20),
            texts in prop::collection::vec(("[a-z\",\n\r é]{0,1}", "[a-z\",\n\r]{0,5}"), 0..20),
        ) {
            let mut records = records;
            for (key, value) in texts {
                let fill = |text: String, len| {
                    let mut bytes = text.into_bytes();
                    bytes.resize(len, 0);
                    bytes
                };
                records.push((fill(key, 3), fill(value, 5), None));
            }
            for format in [Format::Jsonl, Format::Csv] {
                let mut text = Vec::new();
                let mut writer = Writer::new(format, true, &mut text).unwrap();
                for (key, value, ends) in &records {
                    writer.record((key, value, *ends), as_text).unwrap();
                }
                writer.finish().unwrap();
                prop_assert_eq!(&read(format, &text, (3, 5)).unwrap(), &records);
            }
        }

        #[test]
        fn records_of_any_size_come_back_with_every_byte(
            records in prop::collection::vec((
                prop::collection::vec(any::<u8>(), 1..6),
                prop::collection::vec(prop_oneof![Just(0), Just(b'a'), any::<u8>()], 0..9),
                any::<Option<u64>>(),
            ), 0..20),
        ) {
            for format in [Format::Jsonl, Format::Csv] {
                let mut text = Vec::new();
                let mut writer = Writer::new(format, true, &mut text).unwrap();
                for (key, value, ends) in &records {
                    writer.record((key, value, *ends), exact_text).unwrap();
                }
                writer.finish().unwrap();
                let mut reader = Reader::new(format, Box::new(io::Cursor::new(text))).unwrap();
                let mut found = Vec::new();
                while let Some(record) = reader.next(None).unwrap() {
                    found.push(record);
                }
                prop_assert_eq!(&found, &records);
            }
        }

        #[test]
        fn no_text_makes_the_readers_panic(text in ".{0,60}") {
            let _ = read(Format::Jsonl, text.as_bytes(), (3, 5));
            let _ = read(Format::Csv, text.as_bytes(), (3, 5));
        }
    }

    #[test]
    fn only_the_columns_that_are_needed_have_to_be_there() {
        let one = || vec![(b"a\0\0".to_vec(), vec![1, 0, 0, 0, 0], None)];
        assert_eq!(read(Format::Csv, b"value_hex,key\n01,a\n", (3, 5)).unwrap(), one());
        assert_eq!(read(Format::Csv, b"value,value_hex,key\n,01,a\n", (3, 5)).unwrap(), one());
        let json = b"\n{\"key\": \"a\", \"value_hex\": \"01\"}\n\n";
        assert_eq!(read(Format::Jsonl, json, (3, 5)).unwrap(), one());
    }

    #[test]
    fn what_is_no_record_is_refused_with_what_to_write_instead() {
        let why =
            |format, text: &str| read(format, text.as_bytes(), (3, 5)).unwrap_err().to_string();
        assert!(why(Format::Csv, "key,size\na,1\n").contains("\"size\""));
        assert!(why(Format::Csv, "key\na\n").contains("no value"));
        assert!(why(Format::Csv, "key,value,value_hex\na,b,01\n").contains("two of them"));
        assert!(why(Format::Jsonl, "{\"key\": \"abcd\", \"value\": \"\"}").contains("4 bytes"));
        assert!(
            why(Format::Jsonl, "{\"key_hex\": \"0g\", \"value\": \"\"}").contains("hexadecimal")
        );
        assert!(why(Format::Jsonl, "{\"key\": \"a\"}").contains("no value"));
        assert!(why(Format::Csv, "key,value,ends\na,b,soon\n").contains("\"soon\""));
        assert!(why(Format::Jsonl, "[1]").contains("key_hex"));
    }
}
