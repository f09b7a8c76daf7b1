//! Every machine-made vector of both implementations in the field.

#![allow(clippy::unwrap_used, reason = "helpers of tests; a test may fail at any of them")]

mod filters;
mod hashes;
mod messages;
mod repairs;

use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("sds-vectors.json")).unwrap()
}

/// The cases at `path`, at least one.
fn cases(path: &str) -> Vec<Value> {
    let cases = vectors().pointer(path).unwrap().as_array().unwrap().clone();
    assert!(!cases.is_empty(), "{path}");
    cases
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} of {value}"))
}

fn number(value: &Value, key: &str) -> u64 {
    match &value[key] {
        Value::String(text) => text.parse().unwrap(),
        number => number.as_u64().unwrap_or_else(|| panic!("{key} of {value}")),
    }
}

fn unhex(hex: &str) -> Vec<u8> {
    assert_eq!(hex.len() % 2, 0);
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
