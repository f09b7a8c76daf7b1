//! Comparing a copy with what it has to have, record by record.

use std::path::Path;

use mainstay::store::OnDisk;

use super::{
    Result,
    records::{Records, Step},
};

/// What of a copy is not as it has to be.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Differences {
    /// Records that are as they have to be.
    pub(crate) equal: u64,
    /// Records with another value.
    pub(crate) different: u64,
    /// Records that are not there.
    pub(crate) missing: u64,
    /// Records that should not be there.
    pub(crate) ghosts: u64,
}

impl Differences {
    pub(crate) fn none(self) -> bool {
        self.different + self.missing + self.ghosts == 0
    }
}

/// All records of a store that nobody has open.
pub(crate) fn records(store: &Path) -> Result<Records> {
    let (view, mut records) = (OnDisk::open(store)?, Records::new());
    let mut is_odd = false;
    view.for_each(|key, value| match (key.try_into(), value.try_into()) {
        (Ok(key), Ok(value)) => drop(records.insert(key, value)),
        _ => is_odd = true,
    })?;
    if is_odd {
        return Err(format!("{}: its records have other lengths", store.display()).into());
    }
    Ok(records)
}

/// Compares records with those that there have to be.
pub(crate) fn compare(records: &Records, wanted: &Records) -> Differences {
    let mut found = Differences::default();
    for (key, value) in wanted {
        match records.get(key) {
            Some(there) if there == value => found.equal += 1,
            Some(_) => found.different += 1,
            None => found.missing += 1,
        }
    }
    found.ghosts = records.keys().filter(|key| !wanted.contains_key(*key)).count() as u64;
    found
}

/// How many steps were not made to these records.
pub(crate) fn not_made(records: &Records, steps: &[Step]) -> u64 {
    steps.iter().filter(|step| !step.is_made(records)).count() as u64
}

#[cfg(test)]
mod tests {
    use super::super::records::{KEY_LEN, VALUE_LEN};
    use super::*;

    #[test]
    fn each_kind_of_difference_is_counted_as_what_it_is() {
        let records = |pairs: &[(u8, u8)]| -> Records {
            pairs.iter().map(|(key, value)| ([*key; KEY_LEN], [*value; VALUE_LEN])).collect()
        };
        let wanted = records(&[(1, 1), (2, 2), (3, 3)]);
        assert!(compare(&wanted, &wanted).none());
        let found = compare(&records(&[(1, 1), (2, 9), (4, 4)]), &wanted);
        assert_eq!(found, Differences { equal: 1, different: 1, missing: 1, ghosts: 1 });
        assert!(!compare(&records(&[(1, 1), (2, 2)]), &wanted).none(), "one is missing");
        let steps = [Step::Delete([1; KEY_LEN]), Step::Put([2; KEY_LEN], [2; VALUE_LEN])];
        assert_eq!(not_made(&wanted, &steps), 1);
    }
}
