//! Values of described types as JSON, and back.
//!
//! A state may carry a description of its type: `caller: u64, rates: [f32; 4], name: text[16]`.
//! The fields follow each other without gaps, numbers are little-endian, text is UTF-8 padded with
//! zeros. The description comes out of shared memory: whatever does not fit the size of the value,
//! or is nonsense, is no description, and the value is shown as bytes.

use serde::{
    Serialize, Serializer,
    ser::{SerializeMap, SerializeSeq},
};
use serde_json::Value;
use std::fmt;

/// Types within types, at most: a description cannot make this program recurse for ever.
const DEPTH_MAX: usize = 4;

/// What the bytes of a value mean.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Layout {
    fields: Vec<Field>,
    len: usize,
}

#[derive(Clone, PartialEq, Debug)]
struct Field {
    name: String,
    offset: usize,
    kind: Kind,
}

#[derive(Clone, PartialEq, Debug)]
enum Kind {
    Scalar(Scalar),
    /// UTF-8 in so many bytes.
    Text(usize),
    Array(Box<Kind>, usize),
}

/// Declares the numbers: each is shown and read by its own type.
macro_rules! scalars {
    ($($name:ident $type:ty, $text:literal, $write:ident, $read:ident;)*) => {
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        enum Scalar { $($name,)* }

        impl Scalar {
            fn named(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$name),)* _ => None }
            }

            fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            fn len(self) -> usize {
                match self { $(Self::$name => size_of::<$type>(),)* }
            }

            /// `bytes` begins with the number.
            fn write<S: Serializer>(self, bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
                match self { $(Self::$name => {
                    let bytes = bytes.first_chunk();
                    let bytes = bytes.expect("the value is as long as its layout");
                    $write(<$type>::from_le_bytes(*bytes), to)
                })* }
            }

            fn read(self, value: &Value) -> Option<Vec<u8>> {
                match self { $(Self::$name => {
                    let number: $type = $read(value)?;
                    Some(number.to_le_bytes().to_vec())
                })* }
            }
        }
    };
}

scalars! {
    U8 u8, "u8", write_number, read_unsigned;
    U16 u16, "u16", write_number, read_unsigned;
    U32 u32, "u32", write_number, read_unsigned;
    U64 u64, "u64", write_number, read_unsigned;
    I8 i8, "i8", write_number, read_signed;
    I16 i16, "i16", write_number, read_signed;
    I32 i32, "i32", write_number, read_signed;
    I64 i64, "i64", write_number, read_signed;
    F32 f32, "f32", write_float, read_float32;
    F64 f64, "f64", write_float, read_float64;
}

fn write_number<N: Serialize, S: Serializer>(number: N, to: S) -> Result<S::Ok, S::Error> {
    number.serialize(to)
}

/// JSON has no infinities: they are text.
fn write_float<N, S>(number: N, to: S) -> Result<S::Ok, S::Error>
where
    N: Serialize + Into<f64> + fmt::Display + Copy,
    S: Serializer,
{
    if number.into().is_finite() { number.serialize(to) } else { to.collect_str(&number) }
}

fn read_unsigned<T: TryFrom<u64>>(value: &Value) -> Option<T> {
    value.as_u64()?.try_into().ok()
}

fn read_signed<T: TryFrom<i64>>(value: &Value) -> Option<T> {
    value.as_i64()?.try_into().ok()
}

fn read_float64(value: &Value) -> Option<f64> {
    match value {
        Value::String(text) if matches!(text.as_str(), "NaN" | "inf" | "-inf") => text.parse().ok(),
        value => value.as_f64(),
    }
}

fn read_float32(value: &Value) -> Option<f32> {
    let wide = read_float64(value)?;
    let narrow = wide as f32;
    // What is too large for the type must not silently become infinite.
    (narrow.is_finite() || !wide.is_finite()).then_some(narrow)
}

/// Why a JSON text is no value of a type; the message says what to write instead.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum FieldError {
    #[error("is no JSON ({0}); the fields are {1}")]
    NoJson(String, String),
    #[error("is no JSON object; the fields are {0}")]
    NoObject(String),
    #[error("there is no field {name:?}; the fields are {fields}")]
    NoField { name: String, fields: String },
    #[error("field {at}: {given} is no {kind}")]
    WrongKind { at: String, given: String, kind: String },
    #[error("field {at}: has {given} elements, and needs {needed}")]
    WrongCount { at: String, given: usize, needed: usize },
}

impl Layout {
    /// What `description` says of values of `len` bytes; none if it does not fit them.
    pub(super) fn parse(description: &str, len: usize) -> Option<Self> {
        let mut fields = Vec::new();
        let mut offset = 0_usize;
        for text in split(description) {
            let (name, kind) = text.split_once(':')?;
            let name = name.trim();
            let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let known = fields.iter().any(|field: &Field| field.name == name);
            if name.is_empty() || !name.chars().all(legal) || known {
                return None;
            }
            let kind = Kind::parse(kind.trim(), DEPTH_MAX)?;
            let end = offset.checked_add(kind.len()?)?;
            fields.push(Field { name: name.to_owned(), offset, kind });
            offset = end;
        }
        (!fields.is_empty() && offset == len).then_some(Self { fields, len })
    }

    /// The value as fields, if `bytes` are as many as they should be.
    pub(super) fn show<'a>(&'a self, bytes: &'a [u8]) -> Option<Fields<'a>> {
        (bytes.len() == self.len).then_some(Fields { layout: self, bytes })
    }

    /// What the JSON text wants changed: the fields that it names, and no others.
    pub(super) fn read(&self, text: &str) -> Result<Change, FieldError> {
        let value: Value = serde_json::from_str(text)
            .map_err(|error| FieldError::NoJson(error.to_string(), self.to_string()))?;
        let members = value.as_object().ok_or_else(|| FieldError::NoObject(self.to_string()))?;
        let mut change = Change(Vec::new());
        for (name, value) in members {
            let field = self.fields.iter().find(|field| field.name == *name).ok_or_else(|| {
                FieldError::NoField { name: name.clone(), fields: self.to_string() }
            })?;
            change.0.push((field.offset, field.kind.read(name, value)?));
        }
        Ok(change)
    }
}

/// A value that can be written as an object with a member a field, in the order of the fields.
pub(super) struct Fields<'a> {
    layout: &'a Layout,
    bytes: &'a [u8],
}

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let fields = &self.layout.fields;
        let mut map = to.serialize_map(Some(fields.len()))?;
        for Field { name, offset, kind } in fields {
            map.serialize_entry(name, &Element { kind, bytes: &self.bytes[*offset..] })?;
        }
        map.end()
    }
}

/// One line of JSON.
impl fmt::Display for Fields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

/// `bytes` begins with a value of this kind.
struct Element<'a> {
    kind: &'a Kind,
    bytes: &'a [u8],
}

impl Serialize for Element<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.kind {
            Kind::Scalar(scalar) => scalar.write(self.bytes, to),
            Kind::Text(len) => {
                let text = String::from_utf8_lossy(&self.bytes[..*len]);
                to.serialize_str(text.trim_end_matches('\0'))
            }
            Kind::Array(kind, count) => {
                let step = kind.len().expect("that of the whole array was found while parsing");
                let mut elements = to.serialize_seq(Some(*count))?;
                for place in 0..*count {
                    let bytes = &self.bytes[place * step..];
                    elements.serialize_element(&Element { kind, bytes })?;
                }
                elements.end()
            }
        }
    }
}

/// New bytes of some fields.
#[derive(Debug)]
pub(super) struct Change(Vec<(usize, Vec<u8>)>);

impl Change {
    /// Puts them into a value of the type that they were read for.
    pub(super) fn apply(&self, bytes: &mut [u8]) {
        for (offset, new) in &self.0 {
            bytes[*offset..*offset + new.len()].copy_from_slice(new);
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, field) in self.fields.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{}: {}", field.name, field.kind)?;
        }
        Ok(())
    }
}

/// The fields of a description: commas within brackets do not count.
fn split(description: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_i32;
    description
        .split(move |c: char| {
            depth += i32::from(c == '[') - i32::from(c == ']');
            c == ',' && depth == 0
        })
        .map(str::trim)
        .filter(|text| !text.is_empty())
}

impl Kind {
    fn parse(text: &str, depth: usize) -> Option<Self> {
        if let Some(scalar) = Scalar::named(text) {
            return Some(Self::Scalar(scalar));
        }
        if let Some(len) = text.strip_prefix("text[") {
            return Some(Self::Text(count(len.strip_suffix(']')?)?));
        }
        let (of, number) = text.strip_prefix('[')?.strip_suffix(']')?.rsplit_once(';')?;
        let of = Self::parse(of.trim(), depth.checked_sub(1)?)?;
        Some(Self::Array(Box::new(of), count(number)?))
    }

    /// None if no memory has so many bytes.
    fn len(&self) -> Option<usize> {
        match self {
            Self::Scalar(scalar) => Some(scalar.len()),
            Self::Text(len) => Some(*len),
            Self::Array(of, count) => of.len()?.checked_mul(*count),
        }
    }

    fn read(&self, at: &str, value: &Value) -> Result<Vec<u8>, FieldError> {
        let wrong = || {
            let (at, given) = (at.to_owned(), value.to_string());
            FieldError::WrongKind { at, given, kind: self.to_string() }
        };
        match self {
            Self::Scalar(scalar) => scalar.read(value).ok_or_else(wrong),
            Self::Text(len) => {
                let text = value.as_str().filter(|text| text.len() <= *len).ok_or_else(wrong)?;
                let mut bytes = text.as_bytes().to_vec();
                bytes.resize(*len, 0);
                Ok(bytes)
            }
            Self::Array(of, count) => {
                let values = value.as_array().ok_or_else(wrong)?;
                if values.len() != *count {
                    let (at, given) = (at.to_owned(), values.len());
                    return Err(FieldError::WrongCount { at, given, needed: *count });
                }
                let mut bytes = Vec::new();
                for (place, value) in values.iter().enumerate() {
                    bytes.extend(of.read(&format!("{at}[{place}]"), value)?);
                }
                Ok(bytes)
            }
        }
    }
}

/// A number of elements: none would be a field without bytes.
fn count(text: &str) -> Option<usize> {
    text.trim().parse().ok().filter(|count| *count > 0)
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scalar(scalar) => f.write_str(scalar.name()),
            Self::Text(len) => write!(f, "text[{len}]"),
            Self::Array(of, count) => write!(f, "[{of}; {count}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const ALL: &str = "a: u8, b: i8, c: u16, d: i16, e: u32, f: i32, g: u64, h: i64, i: f32, \
                       j: f64, name: text[6], pairs: [[u16; 2]; 3], names: [text[2]; 2]";
    const ALL_LEN: usize = 1 + 1 + 2 + 2 + 4 + 4 + 8 + 8 + 4 + 8 + 6 + 12 + 4;

    fn shown(layout: &Layout, bytes: &[u8]) -> Value {
        serde_json::to_value(layout.show(bytes).unwrap()).unwrap()
    }

    fn all() -> Layout {
        Layout::parse(ALL, ALL_LEN).unwrap()
    }

    #[test]
    fn what_is_set_is_shown_again() {
        let value = json!({
            "a": 255, "b": -128, "c": 65_535, "d": -32_768, "e": u32::MAX, "f": i32::MIN,
            "g": u64::MAX, "h": i64::MIN, "i": 0.5, "j": -1e300, "name": "Grüße"[..6],
            "pairs": [[1, 2], [3, 4], [5, 6]], "names": ["ab", ""]
        });
        let mut bytes = vec![0; ALL_LEN];
        all().read(&value.to_string()).unwrap().apply(&mut bytes);
        assert_eq!(shown(&all(), &bytes), value);
        assert!(all().show(&bytes).unwrap().to_string().starts_with("{\"a\":255,\"b\":-128,"));
        assert_eq!(all().to_string(), ALL);
    }

    #[test]
    fn fields_that_are_not_named_keep_their_value() {
        let layout = Layout::parse("a: u16, b: u16", 4).unwrap();
        let mut bytes = [1, 0, 2, 0];
        layout.read(r#"{"b": 513}"#).unwrap().apply(&mut bytes);
        assert_eq!(bytes, [1, 0, 1, 2]);
        assert_eq!(shown(&layout, &bytes), json!({"a": 1, "b": 513}));
        assert!(layout.show(&bytes[..3]).is_none());
    }

    #[test]
    fn numbers_that_json_lacks_are_text() {
        let layout = Layout::parse("a: f32, b: f64", 12).unwrap();
        let mut bytes = [0; 12];
        layout.read(r#"{"a": "-inf", "b": "NaN"}"#).unwrap().apply(&mut bytes);
        assert_eq!(shown(&layout, &bytes), json!({"a": "-inf", "b": "NaN"}));
    }

    #[test]
    fn what_does_not_fit_the_type_is_refused_and_named() {
        let refused = |text: &str| all().read(text).unwrap_err().to_string();
        for (text, complaint) in [
            ("nonsense", "is no JSON"),
            ("5", "is no JSON object; the fields are a: u8, "),
            (r#"{"z": 1}"#, "there is no field \"z\"; the fields are a: u8, "),
            (r#"{"a": 256}"#, "field a: 256 is no u8"),
            (r#"{"b": 128}"#, "field b: 128 is no i8"),
            (r#"{"g": -1}"#, "field g: -1 is no u64"),
            (r#"{"g": 1.5}"#, "field g: 1.5 is no u64"),
            (r#"{"i": 1e39}"#, "field i: 1e+39 is no f32"),
            (r#"{"j": "much"}"#, "field j: \"much\" is no f64"),
            (r#"{"name": "seven b"}"#, "field name: \"seven b\" is no text[6]"),
            (r#"{"pairs": [[1, 2]]}"#, "field pairs: has 1 elements, and needs 3"),
            (r#"{"pairs": [[1, 2], [3, "x"], [5, 6]]}"#, "field pairs[1][1]: \"x\" is no u16"),
        ] {
            let found = refused(text);
            assert!(found.starts_with(complaint), "{text}: {found}");
        }
    }

    #[test]
    fn a_description_that_does_not_fit_the_value_is_none() {
        assert!(Layout::parse("a: u8", 1).is_some());
        for (description, len) in [
            ("", 0),
            ("a: u8", 2),
            ("a: u8, a: u8", 2),
            ("a: bool", 1),
            ("a", 1),
            (": u8", 1),
            ("a b: u8", 1),
            ("a: text[0], b: u8", 1),
            ("a: [u8; 0], b: u8", 1),
            ("a: [u8; -1]", 1),
            ("a: [u64; 18446744073709551615]", 1),
            ("a: [[[[[u8; 1]; 1]; 1]; 1]; 1]", 1),
        ] {
            assert_eq!(Layout::parse(description, len), None, "{description:?}");
        }
    }

    proptest! {
        #[test]
        fn no_description_and_no_bytes_make_this_panic(
            description in "([a-z]: (\\[u16; [0-9]{1,3}\\]|text\\[[0-9]{1,2}\\]|u64|.{0,5}),? ?){0,4}",
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
            text in "(\\{\"a\": [0-9\\[\\],]{0,8}\\}|.{0,8})",
        ) {
            for len in 0..=bytes.len() {
                if let Some(layout) = Layout::parse(&description, len) {
                    let mut bytes = bytes.clone();
                    let fields = layout.show(&bytes[..len]).map(|fields| fields.to_string());
                    let is_object = fields.is_some_and(|fields| fields.starts_with('{'));
                    prop_assert!(is_object);
                    if let Ok(change) = layout.read(&text) {
                        change.apply(&mut bytes);
                    }
                }
            }
        }
    }
}
