//! A range of seeds, as it is typed: `1..2000` is 1 to 2000, both included.

use std::str::FromStr;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Seeds {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Seeds {
    pub(crate) fn count(self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }
}

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once("..").unwrap_or((text, text));
        let number = |text: &str| {
            text.parse::<u64>().map_err(|error| {
                format!("`{text}` is no seed ({error}); say A..B, as in 1..2000, or one seed")
            })
        };
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(format!("{first} is after {last}; say the first seed first"));
        }
        Ok(Self { first, last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_of_a_range_are_included_and_one_seed_is_a_range() {
        let seeds = |text: &str| text.parse::<Seeds>();
        assert_eq!(seeds("1..2000").map(Seeds::count), Ok(2_000));
        assert_eq!(seeds("7").map(Seeds::count), Ok(1));
        assert_eq!(seeds("7..7"), seeds("7"));
    }

    #[test]
    fn what_is_no_range_is_refused_with_what_to_type() {
        for wrong in ["", "..", "1..", "..5", "a..b", "5..1", "-1", "1...3"] {
            let error = wrong.parse::<Seeds>().unwrap_err();
            assert!(error.contains("say"), "{error}");
        }
    }
}
