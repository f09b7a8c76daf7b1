//! The parts that child processes play.

use clap::ValueEnum;

use crate::pool::{holder, scaling};
use crate::{Outcome, child};

/// What a child was started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Runs one side of a scaling figure and prints its windows.
    Scale,
    /// Allocates and fills blocks, and holds them until it is killed.
    Fill,
    /// Takes every block nobody holds, and holds them until it is killed.
    Take,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Role::Scale => "scale",
            Role::Fill => "fill",
            Role::Take => "take",
        }
    }

    /// Runs in the child.
    pub(crate) fn play(self, arguments: &[String]) -> Outcome<()> {
        child::die_with_parent()?;
        match self {
            Role::Scale => scaling::play(arguments),
            Role::Fill => holder::play_fill(arguments),
            Role::Take => holder::play_take(arguments),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_started_by_the_name_it_is_parsed_from() {
        for role in Role::value_variants() {
            assert_eq!(Role::from_str(role.name(), false), Ok(*role));
        }
    }
}
