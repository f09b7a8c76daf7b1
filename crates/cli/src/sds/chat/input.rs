//! Lines of standard input, read by a thread of their own: a terminal cannot be waited for in any
//! other way that works for files, pipes and terminals alike.

use crate::error::{CliError, Result};
use std::{
    io::{self, BufRead},
    thread,
};
use tokio::sync::mpsc;

/// Lines that may wait: more of them wait in the pipe.
const WAITING_MAX: usize = 16;

/// The longest line that is read as one; what is longer is sent in pieces.
const LINE_LEN_MAX: usize = 16 << 10;

/// The lines, until the input ends.
pub(super) fn lines() -> mpsc::Receiver<Result<String>> {
    let (to, lines) = mpsc::channel(WAITING_MAX);
    // When nobody wants lines any more the process is about to end, and this thread with it.
    thread::spawn(move || read(&mut io::stdin().lock(), |line| to.blocking_send(line).is_ok()));
    lines
}

fn read(input: &mut impl BufRead, mut take: impl FnMut(Result<String>) -> bool) {
    let mut line = Vec::new();
    loop {
        line.clear();
        match piece(input, &mut line) {
            Ok(0) => return,
            Ok(_) => {
                // A message is text: what is none is shown as replacement characters.
                let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
                if !take(Ok(text)) {
                    return;
                }
            }
            Err(source) => {
                take(Err(CliError::Input(source)));
                return;
            }
        }
    }
}

/// A line with its end, or as much of one as may be.
fn piece(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<usize> {
    loop {
        let there = match input.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            there => there?,
        };
        let room = &there[..there.len().min(LINE_LEN_MAX - line.len())];
        let end = room.iter().position(|&byte| byte == b'\n').map(|at| at + 1);
        let taken = end.unwrap_or(room.len());
        line.extend_from_slice(&room[..taken]);
        input.consume(taken);
        if end.is_some() || taken == 0 || line.len() == LINE_LEN_MAX {
            return Ok(line.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut input: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        read(&mut input, |line| {
            lines.push(line.unwrap());
            true
        });
        lines
    }

    #[test]
    fn lines_are_read_with_and_without_an_end() {
        assert_eq!(all(b"one\ntwo"), ["one", "two"]);
        assert_eq!(all(b"one\n\n"), ["one", ""]);
        assert!(all(b"").is_empty());
    }

    #[test]
    fn a_line_without_end_is_read_in_pieces() {
        let long = "x".repeat(2 * LINE_LEN_MAX + 1);
        let lens: Vec<usize> = all(long.as_bytes()).iter().map(String::len).collect();
        assert_eq!(lens, [LINE_LEN_MAX, LINE_LEN_MAX, 1]);
    }
}
