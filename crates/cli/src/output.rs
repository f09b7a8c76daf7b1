//! What goes to standard output: tables for people, JSON for programs.

use crate::error::{CliError, Result};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;
use std::{
    borrow::Cow,
    io::{self, BufWriter, IsTerminal, StdoutLock, Write},
};

/// Standard output, and in which form things go there.
pub(crate) struct Output {
    pub(crate) json: bool,
    terminal: bool,
    writer: BufWriter<StdoutLock<'static>>,
}

/// Which side the cells of a column stand at.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    Left,
    Right,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        Self { json, terminal, writer: BufWriter::with_capacity(1 << 18, stdout.lock()) }
    }

    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    pub(crate) fn writer(&mut self) -> &mut impl Write {
        &mut self.writer
    }

    /// A JSON document of its own: over several lines for people, in one for programs.
    pub(crate) fn document(&mut self, value: &impl Serialize) -> Result<()> {
        if !self.terminal {
            return self.json_line(value);
        }
        serde_json::to_writer_pretty(&mut self.writer, value).map_err(|e| failed(e.into()))?;
        self.line("")
    }

    /// One of many JSON values, in a line of its own.
    pub(crate) fn json_line(&mut self, value: &impl Serialize) -> Result<()> {
        serde_json::to_writer(&mut self.writer, value).map_err(|e| failed(e.into()))?;
        self.line("")
    }

    /// A line of text, made harmless.
    pub(crate) fn line(&mut self, text: &str) -> Result<()> {
        writeln!(self.writer, "{}", escape(text)).map_err(failed)
    }

    /// Names and values, one pair a line.
    pub(crate) fn fields(&mut self, fields: &[(&str, String)]) -> Result<()> {
        let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in fields {
            self.line(&format!("{name:width$}  {value}"))?;
        }
        Ok(())
    }

    /// A table: with lines on a terminal, bare columns elsewhere.
    pub(crate) fn table(&mut self, columns: &[(&str, Side)], rows: &[Vec<String>]) -> Result<()> {
        let mut table = Table::new();
        if self.terminal {
            table.load_style(presets::UTF8_FULL_CONDENSED);
            table.set_content_arrangement(ContentArrangement::Dynamic);
        } else {
            table.load_style(presets::NOTHING);
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
        table.set_header(columns.iter().map(|(name, _)| *name));
        for row in rows {
            table.add_row(row.iter().map(|cell| escape(cell)));
        }
        for (column, (_, side)) in table.column_iter_mut().zip(columns) {
            if let Side::Right = side {
                column.set_cell_alignment(CellAlignment::Right);
            }
            if !self.terminal {
                column.set_padding((0, 2));
            }
        }
        writeln!(self.writer, "{}", table.trim_fmt()).map_err(failed)
    }

    /// Everything so far is to be seen now.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.writer.flush().map_err(failed)
    }
}

fn failed(source: io::Error) -> CliError {
    CliError::Output(source)
}

/// Text from elsewhere, safe to show: what could steer a terminal or turn the reading direction is
/// written as an escape.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    let harmless = |c: char| matches!(c, '\'' | '"' | '\\') || c.escape_debug().len() == 1;
    if text.chars().all(harmless) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if harmless(c) {
            safe.push(c);
        } else {
            safe.extend(c.escape_debug());
        }
    }
    Cow::Owned(safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_could_steer_a_terminal_is_escaped_and_the_rest_is_not() {
        assert_eq!(escape("calls.pool it's \"é\" C:\\"), "calls.pool it's \"é\" C:\\");
        assert_eq!(escape("a\x1b[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(escape("a\r\nb"), "a\\r\\nb");
        assert_eq!(escape("\u{202e}loop"), "\\u{202e}loop");
    }
}
