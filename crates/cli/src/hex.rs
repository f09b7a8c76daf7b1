//! Bytes as text.

use std::io::{self, Write};

const DIGITS: &[u8; 16] = b"0123456789abcdef";
const ROW: usize = 16;

/// Two digits a byte.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// The bytes that two digits each stand for; none if the text is something else.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

/// Writes rows of 16 bytes, in hexadecimal and as text. Rows that repeat the one above are told by
/// one `*`. `done` is called now and then with the number of bytes since the last time.
pub(crate) fn dump(
    writer: &mut impl Write,
    bytes: &[u8],
    mut done: impl FnMut(usize),
) -> io::Result<()> {
    let mut last: Option<&[u8]> = None;
    let mut starred = false;
    for (index, row) in bytes.chunks(ROW).enumerate() {
        if index % 4_096 == 4_095 {
            done(4_096 * ROW);
        }
        if last == Some(row) {
            if !starred {
                writeln!(writer, "*")?;
            }
            starred = true;
            continue;
        }
        (last, starred) = (Some(row), false);
        write_row(writer, index * ROW, row)?;
    }
    writeln!(writer, "{:08x}", bytes.len())
}

fn write_row(writer: &mut impl Write, offset: usize, row: &[u8]) -> io::Result<()> {
    write!(writer, "{offset:08x} ")?;
    for place in 0..ROW {
        if place % 8 == 0 {
            write!(writer, " ")?;
        }
        match row.get(place) {
            Some(byte) => write!(writer, "{byte:02x} ")?,
            None => write!(writer, "   ")?,
        }
    }
    let printable = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
    let text: String =
        row.iter().map(|byte| if printable(byte) { char::from(*byte) } else { '.' }).collect();
    writeln!(writer, " |{text}|")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dumped(bytes: &[u8]) -> String {
        let mut text = Vec::new();
        dump(&mut text, bytes, |_| {}).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn what_was_encoded_is_decoded_and_nothing_else_is() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&all)), Some(all));
        assert_eq!(encode(&[0x0f, 0xa0]), "0fa0");
        assert_eq!(decode("0FA0"), Some(vec![0x0f, 0xa0]));
        assert_eq!((decode("0"), decode("0g"), decode("é")), (None, None, None));
        assert_eq!(decode(""), Some(vec![]));
    }

    #[test]
    fn a_dump_has_offset_bytes_and_text_and_ends_with_the_length() {
        assert_eq!(
            dumped(b"ringing\n\0 caller 7"),
            "00000000  72 69 6e 67 69 6e 67 0a  00 20 63 61 6c 6c 65 72  |ringing.. caller|\n\
             00000010  20 37                                             | 7|\n\
             00000012\n"
        );
        assert_eq!(dumped(b""), "00000000\n");
    }

    #[test]
    fn rows_that_repeat_are_told_once() {
        let text = dumped(&[0; 64]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines.len(), lines[1], lines[2]), (3, "*", "00000040"));
    }
}
