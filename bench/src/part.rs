//! The parts of Mainstay that have figures, and how a figure is asked for by its name.
//!
//! Each part is a folder and a cargo feature of its own, so that measuring one builds no other
//! part's peers. It registers its groups of figures and the roles of its child processes here.

use std::path::Path;

use crate::Outcome;
use crate::method::Plan;
use crate::report::Report;
use crate::role::Role;

/// Figures that are measured together because they share their set-up.
pub(crate) struct Group {
    pub(crate) figures: &'static [&'static str],
    pub(crate) measure: fn(&Plan, &Path, &mut Report) -> Outcome<()>,
}

/// One part: what begins the names of its figures, and what it brings.
pub(crate) struct Part {
    pub(crate) name: &'static str,
    pub(crate) groups: &'static [Group],
    pub(crate) roles: &'static [Role],
}

/// The parts this program was built with.
const PARTS: &[Part] = &[
    #[cfg(feature = "channel")]
    crate::channel::PART,
    #[cfg(feature = "pool")]
    crate::pool::PART,
    #[cfg(feature = "state")]
    crate::state::PART,
    #[cfg(feature = "sds")]
    crate::sds::PART,
    #[cfg(feature = "store")]
    crate::store::PART,
    #[cfg(feature = "track")]
    crate::track::PART,
];

/// The groups with a figure that `names` ask for; an error when a name asks for nothing there is.
pub(crate) fn groups_named(names: &[String]) -> Outcome<Vec<&'static Group>> {
    for name in names {
        if !figures().any(|figure| figure.starts_with(name.as_str())) {
            let parts: Vec<&str> = PARTS.iter().map(|part| part.name).collect();
            let known: Vec<&str> = figures().collect();
            return Err(format!(
                "no figure is called {name}; this program measures {} and has the figures {}",
                parts.join(", "),
                known.join(", ")
            )
            .into());
        }
    }
    let wanted = |group: &&Group| group.figures.iter().any(|figure| is_named(names, figure));
    Ok(groups().filter(wanted).collect())
}

/// Whether one of `names` is the beginning of `figure`. No names ask for everything.
pub(crate) fn is_named(names: &[String], figure: &str) -> bool {
    names.is_empty() || names.iter().any(|name| figure.starts_with(name.as_str()))
}

/// The role of this name, written `part:role`.
pub(crate) fn role(name: &str) -> Option<&'static Role> {
    PARTS.iter().flat_map(|part| part.roles).find(|role| role.name == name)
}

fn groups() -> impl Iterator<Item = &'static Group> {
    PARTS.iter().flat_map(|part| part.groups)
}

fn figures() -> impl Iterator<Item = &'static str> {
    groups().flat_map(|group| group.figures.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_selects_by_its_beginning_and_an_unknown_one_is_refused() {
        assert_eq!(groups_named(&[]).unwrap().len(), groups().count());
        for part in PARTS {
            let all = groups_named(&[part.name.to_owned()]).unwrap();
            assert_eq!(all.len(), part.groups.len(), "{}", part.name);
            let one = part.groups[0].figures[0].to_owned();
            assert_eq!(groups_named(&[one]).unwrap()[0].figures[0], part.groups[0].figures[0]);
        }
        let error = groups_named(&["no.such".to_owned()]).err().unwrap().to_string();
        assert!(error.contains("no.such") && error.contains(PARTS[0].groups[0].figures[0]));
    }

    #[test]
    fn no_two_figures_or_roles_have_one_name_and_each_begins_with_its_part() {
        let mut all: Vec<&str> = figures().collect();
        all.extend(PARTS.iter().flat_map(|part| part.roles).map(|role| role.name));
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        for part in PARTS {
            let of_part = |name: &str| name.starts_with(part.name);
            let figures = part.groups.iter().flat_map(|group| group.figures);
            assert!(figures.copied().all(of_part), "{}", part.name);
            assert!(part.roles.iter().all(|role| of_part(role.name)), "{}", part.name);
        }
    }

    #[test]
    fn a_role_is_found_by_the_name_it_is_started_with() {
        for role in PARTS.iter().flat_map(|part| part.roles) {
            assert_eq!(super::role(role.name).unwrap().name, role.name);
        }
        assert!(super::role("no:such").is_none());
    }
}
