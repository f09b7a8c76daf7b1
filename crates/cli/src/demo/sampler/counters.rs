//! Numbers that the kernel keeps: of memory, CPUs, interrupts and protocols.
//!
//! Three shapes of file are known: a name and a number a line; a heading of columns and rows of
//! numbers under it (or rows without a heading, where a column is a number of its own); and pairs
//! of lines, names above values. A line that does not fit is left out.

use super::super::kinds::{Counter, text};
use super::Sink;

/// How the numbers stand in a file.
#[derive(Clone, Copy)]
enum Shape {
    /// `name 12` or `name: 12 kB`.
    Named,
    /// `label: 1 2 3 what it is`.
    Rows,
    /// `Group: name name` above `Group: 1 2`.
    Pairs,
}

/// The position of a file here is [`Counter::source`] of its numbers: append only.
const FILES: [(&str, Shape); 9] = [
    ("/proc/vmstat", Shape::Named),
    ("/proc/meminfo", Shape::Named),
    ("/proc/stat", Shape::Rows),
    ("/proc/interrupts", Shape::Rows),
    ("/proc/softirqs", Shape::Rows),
    ("/proc/net/snmp", Shape::Pairs),
    ("/proc/net/netstat", Shape::Pairs),
    ("/proc/net/snmp6", Shape::Named),
    ("/proc/net/sockstat", Shape::Named),
];

/// Columns of one row that are looked at: more CPUs than this are not shown one by one.
const COLUMNS_MAX: usize = 64;

pub(super) fn visit<S: Sink>(sink: &mut S) -> Result<(), S::Error> {
    for (source, (path, shape)) in (0_u8..).zip(FILES) {
        if let Ok(content) = std::fs::read_to_string(path) {
            parse(shape, &content, &mut |label, column, value| {
                sink.record(&Counter {
                    source,
                    reserved: [0; 3],
                    column: column.into(),
                    value: value.into(),
                    label: text(label),
                })
            })?;
        }
    }
    Ok(())
}

/// Calls `each` with label, column and value of every number.
fn parse<E>(
    shape: Shape,
    content: &str,
    each: &mut impl FnMut(&str, u32, u64) -> Result<(), E>,
) -> Result<(), E> {
    match shape {
        Shape::Named => content.lines().filter_map(named).try_for_each(|(l, v)| each(l, 0, v)),
        Shape::Rows => content.lines().try_for_each(|line| row(line, each)),
        Shape::Pairs => pairs(content, each),
    }
}

fn named(line: &str) -> Option<(&str, u64)> {
    let mut words = line.split_whitespace();
    let name = words.next()?.trim_end_matches(':');
    Some((name, words.next()?.parse().ok()?))
}

fn row<E>(line: &str, each: &mut impl FnMut(&str, u32, u64) -> Result<(), E>) -> Result<(), E> {
    let mut words = line.split_whitespace();
    let Some(label) = words.next() else { return Ok(()) };
    let label = label.trim_end_matches(':');
    // The words after the numbers say what they are; a heading has none at all.
    let numbers = words.map_while(|word| word.parse().ok()).take(COLUMNS_MAX);
    (0..).zip(numbers).try_for_each(|(column, value)| each(label, column, value))
}

fn pairs<E>(
    content: &str,
    each: &mut impl FnMut(&str, u32, u64) -> Result<(), E>,
) -> Result<(), E> {
    let mut lines = content.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let (Some((group, names)), Some((_, values))) =
            (names.split_once(':'), values.split_once(':'))
        else {
            continue;
        };
        for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
            if let Ok(value) = value.parse::<i64>() {
                each(&format!("{group}.{name}"), 0, value.cast_unsigned())?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use zerocopy::FromBytes;

    use super::super::Group;
    use super::super::tests::collected;
    use super::*;

    fn parsed(shape: Shape, content: &str) -> Vec<(String, u32, u64)> {
        let mut found = Vec::new();
        parse(shape, content, &mut |label: &str, column, value| {
            found.push((label.to_owned(), column, value));
            Ok::<(), Infallible>(())
        })
        .unwrap();
        found
    }

    #[test]
    fn names_with_and_without_colon_and_unit_are_read() {
        assert_eq!(
            parsed(Shape::Named, "MemFree:   12 kB\npgfault 7\nnonsense\nx y\n"),
            [("MemFree".into(), 0, 12), ("pgfault".into(), 0, 7)]
        );
    }

    #[test]
    fn rows_end_where_the_words_begin() {
        assert_eq!(
            parsed(Shape::Rows, "      CPU0  CPU1\n  8:  1  2  IO-APIC 8-edge rtc0\nERR: 3\n"),
            [("8".into(), 0, 1), ("8".into(), 1, 2), ("ERR".into(), 0, 3)]
        );
    }

    #[test]
    fn pairs_keep_negative_numbers_as_two_s_complement() {
        assert_eq!(
            parsed(Shape::Pairs, "Tcp: MaxConn ActiveOpens\nTcp: -1 5\nodd\n"),
            [("Tcp.MaxConn".into(), 0, u64::MAX), ("Tcp.ActiveOpens".into(), 0, 5)]
        );
    }

    #[test]
    fn the_kernel_s_own_numbers_are_found() {
        let found: Vec<_> = collected(Group::Counters)
            .0
            .into_values()
            .map(|bytes| Counter::read_from_bytes(&bytes).unwrap())
            .collect();
        let total = found.iter().find(|c| c.label == text("MemTotal")).unwrap();
        assert!(total.value.get() > 1024);
        assert!(found.iter().any(|c| c.label == text("cpu0")));
        assert!(found.len() > 100, "{}", found.len());
    }
}
