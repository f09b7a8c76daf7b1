//! Protocol buffers, the little of it that both profiles need: read without trust, written in one
//! canonical way.
//!
//! Hand-written because the peers' decoders differ from every general one in what they refuse
//! (groups, non-minimal varints), and what one peer refuses and another takes splits a group.

use crate::error::{Error, Result};

/// How strict the reader is about varints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Varints {
    /// Only the shortest form: the Nim peers refuse all others.
    Minimal,
    /// Any form of at most ten bytes, as the encoding's own specification says.
    Any,
}

/// One field's value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Four or eight bytes of a type that no field of ours has.
    Fixed,
}

/// Reads fields off the front of a message.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    varints: Varints,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], varints: Varints) -> Self {
        Self { bytes, at: 0, varints }
    }

    /// Goes on at byte `at`, which is the start of a field.
    pub(crate) fn starting_at(bytes: &'a [u8], at: usize, varints: Varints) -> Self {
        Self { bytes, at, varints }
    }

    /// Where the next field starts.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// The next field's number and value; `None` at the end.
    #[inline(always)]
    pub(crate) fn field(&mut self) -> Result<Option<(u64, Value<'a>)>> {
        if self.at >= self.bytes.len() {
            return Ok(None);
        }
        let start = self.at;
        let tag = self.varint()?;
        let number = tag >> 3;
        if number == 0 || number >= 1 << 29 {
            return Err(malformed("a field number that does not exist", start));
        }
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.fixed(8)?,
            2 => {
                let at = self.at;
                let len = self.varint()?;
                let rest = self.bytes.len() - self.at;
                match usize::try_from(len) {
                    Ok(len) if len <= rest => Value::Bytes(self.take(len)),
                    _ => return Err(malformed("a length past the end", at)),
                }
            }
            5 => self.fixed(4)?,
            3 | 4 => return Err(malformed("a group, which is obsolete", start)),
            _ => return Err(malformed("a wire type that does not exist", start)),
        };
        Ok(Some((number, value)))
    }

    /// Nearly all numbers in a message are tags and short lengths of one byte.
    #[inline(always)]
    fn varint(&mut self) -> Result<u64> {
        match self.bytes.get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(u64::from(byte))
            }
            _ => self.long_varint(),
        }
    }

    #[inline(never)]
    fn long_varint(&mut self) -> Result<u64> {
        let start = self.at;
        let mut value = 0_u64;
        for index in 0..10 {
            let Some(&byte) = self.bytes.get(self.at) else {
                return Err(malformed("an unfinished number", start));
            };
            self.at += 1;
            if index == 9 && byte > 1 {
                return Err(malformed("a number over 64 bits", start));
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                if byte == 0 && index > 0 && self.varints == Varints::Minimal {
                    return Err(malformed("a number that is longer than it has to be", start));
                }
                return Ok(value);
            }
        }
        Err(malformed("a number over 64 bits", start))
    }

    fn fixed(&mut self, len: usize) -> Result<Value<'a>> {
        if self.bytes.len() - self.at < len {
            return Err(malformed("an unfinished number", self.at));
        }
        self.at += len;
        Ok(Value::Fixed)
    }

    /// `len` bytes, which are there.
    fn take(&mut self, len: usize) -> &'a [u8] {
        let taken = &self.bytes[self.at..self.at + len];
        self.at += len;
        taken
    }
}

pub(crate) fn malformed(what: &'static str, at: usize) -> Error {
    Error::Malformed { what, at }
}

/// The bytes a varint takes.
pub(crate) fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// The bytes a field of `len` bytes takes, for field numbers up to 15 (one byte) or 2047 (two).
pub(crate) fn bytes_field_len(number: u64, len: usize) -> usize {
    varint_len(number << 3) + varint_len(len as u64) + len
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn put_varint_field(out: &mut Vec<u8>, number: u64, value: u64) {
    put_varint(out, number << 3);
    put_varint(out, value);
}

pub(crate) fn put_bytes_field(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    put_bytes_head(out, number, bytes.len());
    out.extend_from_slice(bytes);
}

/// Tag and length of a field whose bytes follow.
pub(crate) fn put_bytes_head(out: &mut Vec<u8>, number: u64, len: usize) {
    put_varint(out, number << 3 | 2);
    put_varint(out, len as u64);
}
