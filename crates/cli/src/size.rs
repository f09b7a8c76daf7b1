//! Sizes and durations as people write them.

use std::time::Duration;

const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

/// Why a text is no size or duration; clap shows the text itself.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum ParseError {
    #[error("write a whole number and a unit: 4096, 256B, 64KiB, 1GiB (1024 each) or 1MB (1000)")]
    Size,
    #[error("more than a 64-bit number of bytes")]
    TooLarge,
    #[error("write a whole number and a unit: 500ms, 1s, 2m or 1h")]
    Duration,
}

/// Bytes: `4096`, `256B`, `64KiB`, `64K`, `1GiB` in steps of 1024, `1kB`, `1MB` in steps of 1000.
pub(crate) fn parse(text: &str) -> Result<u64, ParseError> {
    let (number, unit) = split(text).ok_or(ParseError::Size)?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(ParseError::Size),
    };
    let number: u64 = number.parse().map_err(|_| ParseError::TooLarge)?;
    number.checked_mul(factor).ok_or(ParseError::TooLarge)
}

/// `500ms`, `1s`, `2m`, `1h`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, ParseError> {
    let (number, unit) = split(text).ok_or(ParseError::Duration)?;
    let factor: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(ParseError::Duration),
    };
    let number: u64 = number.parse().map_err(|_| ParseError::Duration)?;
    number.checked_mul(factor).map(Duration::from_millis).ok_or(ParseError::Duration)
}

/// How long something lasts, for people: `1 d 4 h`, `89 s`, `0.25 s`.
pub(crate) fn lasting(time: Duration) -> String {
    let seconds = time.as_secs();
    let units = [(86_400, "d"), (3_600, "h"), (60, "min")];
    let Some(at) = units.iter().position(|(unit, _)| seconds >= *unit) else {
        if seconds < 10 {
            return format!("{:.2} s", time.as_secs_f64());
        }
        return format!("{seconds} s");
    };
    let (unit, name) = units[at];
    let (lower, below) = units.get(at + 1).copied().unwrap_or((1, "s"));
    match seconds % unit / lower {
        0 => format!("{} {name}", seconds / unit),
        rest => format!("{} {name} {rest} {below}", seconds / unit),
    }
}

/// Digits, and what stands behind them.
fn split(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (!number.is_empty()).then_some((number, unit.trim_start_matches(' ')))
}

/// As a person wants to read it: `256 B`, `1.3 MiB`.
pub(crate) fn human(bytes: u64) -> String {
    let step = (bytes.max(1).ilog2() / 10).min(UNITS.len() as u32 - 1);
    if step == 0 {
        return format!("{bytes} B");
    }
    let value = bytes as f64 / (1_u64 << (10 * step)) as f64;
    format!("{value:.1} {}", UNITS[step as usize])
}

/// A number with its thousands apart: `1,000,000`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// So many of something: `1 process`, `2 processes`.
pub(crate) fn counted(number: u64, one: &str, many: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{} {many}", grouped(number)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_read_in_steps_of_1024_and_of_1000() {
        assert_eq!(parse("256"), Ok(256));
        assert_eq!(parse("256 B"), Ok(256));
        assert_eq!((parse("64GiB"), parse("64g")), (Ok(64 << 30), Ok(64 << 30)));
        assert_eq!((parse("1k"), parse("1kB")), (Ok(1_024), Ok(1_000)));
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "GiB", "-1", "1.5GiB", "1XiB", " 1", "0x10"] {
            assert_eq!(parse(text), Err(ParseError::Size), "{text:?}");
        }
        assert_eq!(parse("18446744073709551615"), Ok(u64::MAX));
        assert_eq!(parse("18446744073709551616"), Err(ParseError::TooLarge));
        assert_eq!(parse("16777216TiB"), Err(ParseError::TooLarge));
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("2"), Err(ParseError::Duration));
        assert_eq!(parse_duration("99999999999999999999h"), Err(ParseError::Duration));
    }

    #[test]
    fn what_lasts_is_shown_in_its_two_largest_units() {
        let shown = |ms| lasting(Duration::from_millis(ms));
        assert_eq!((shown(250), shown(89_900)), ("0.25 s".into(), "1 min 29 s".into()));
        assert_eq!((shown(59_999), shown(3_600_000)), ("59 s".into(), "1 h".into()));
        assert_eq!(shown(100_000_000), "1 d 3 h");
    }

    #[test]
    fn numbers_are_shown_as_people_read_them() {
        assert_eq!(
            (human(0), human(1_023), human(1_024)),
            ("0 B".into(), "1023 B".into(), "1.0 KiB".into())
        );
        assert_eq!(human(64 << 30), "64.0 GiB");
        assert_eq!(human(u64::MAX), "16777216.0 TiB");
        assert_eq!(
            (grouped(0), grouped(999), grouped(1_000_000)),
            ("0".into(), "999".into(), "1,000,000".into())
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parsers_panic(text in ".{0,12}") {
            let _ = parse(&text);
            let _ = parse_duration(&text);
        }
    }
}
