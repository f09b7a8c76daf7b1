//! Two values in one commit.

use std::path::Path;

use mainstay_state::MultiTransaction;

use super::value::{SIZES, bytes, stamp};
use super::{lmdb::Records, ours};
use crate::Outcome;
use crate::method::{Plan, Side, interleave};
use crate::part::Group;
use crate::report::{Ratio, Report, Unit};

pub(super) const GROUP: Group = Group { figures: &["state.multi2_64", "state.multi2_4k"], measure };

/// What is asked.
const ASKED: f64 = 5.0;

fn measure(plan: &Plan, scratch: &Path, report: &mut Report) -> Outcome<()> {
    for size in SIZES.into_iter().filter(|size| matches!(size.name, "64" | "4k")) {
        let folder = scratch.join(format!("multi-{}", size.name));
        std::fs::create_dir(&folder)?;
        let (one, two) = (ours::writer(&folder, "one", size)?, ours::writer(&folder, "two", size)?);
        let mut records = Records::create(&folder)?;
        let mut value = vec![7; size.words];
        let mut others = value.clone();
        let (mut number, mut their_number) = (0, 0);
        let sides = vec![
            Side::new("mainstay", |count| {
                for _ in 0..count {
                    number += 1;
                    stamp(&mut value, number);
                    let mut both = MultiTransaction::new();
                    both.bytes_mut(&one)?.copy_from_slice(bytes(&value));
                    both.bytes_mut(&two)?.copy_from_slice(bytes(&value));
                    both.commit()?;
                }
                Ok(())
            }),
            Side::new("lmdb", |count| {
                for _ in 0..count {
                    their_number += 1;
                    stamp(&mut others, their_number);
                    records.commit_two(&others)?;
                }
                Ok(())
            }),
        ];
        let timings = interleave(plan, sides)?;
        if let [ours, peer] = &timings[..] {
            let name = format!("state.multi2_{}", size.name);
            report.ask(Ratio::of_wall(&name, Unit::Ns, ours, peer), ASKED);
        }
    }
    Ok(())
}
