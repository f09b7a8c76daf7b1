//! Texts that name things: what is accepted is printed as it was read, what is not breaks a rule.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mainstay_base::{NAME_LEN_MAX, Name};
use mainstay_fuzz::world;
use mainstay_pool::BlockId;

fuzz_target!(|text: &str| {
    world::prepare();
    block_id(text);
    name(text);
});

fn block_id(text: &str) {
    match text.parse::<BlockId>() {
        Ok(id) => {
            let again = id.to_string();
            assert_eq!(again.parse(), Ok(id), "{text:?}");
            // Leading zeros and a sign are the only freedom there is.
            let plain = |part: &str| {
                let digits = part.strip_prefix('+').unwrap_or(part);
                let digits = digits.trim_start_matches('0');
                if digits.is_empty() { "0".to_owned() } else { digits.to_owned() }
            };
            let (number, generation) = text.split_once('@').expect("an id has an @");
            assert_eq!(again, format!("{}@{}", plain(number), plain(generation)));
        }
        Err(error) => assert!(error.to_string().contains("12@7"), "{error}"),
    }
}

fn name(text: &str) {
    let mut inside_dots = text.split('.').map(str::len);
    let lawful = (1..=NAME_LEN_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && inside_dots.all(|len| len > 0);
    match Name::new(text) {
        Ok(name) => {
            assert!(lawful, "{text:?}");
            assert_eq!(name.as_str(), text);
        }
        Err(error) => {
            assert!(!lawful, "{text:?}: {error}");
            assert!(error.to_string().contains(": "), "says what to do: {error}");
        }
    }
}
