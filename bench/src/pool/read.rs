//! Reading 4,096 bytes of a block into a buffer, beside copying them from plain memory.

use std::hint::black_box;
use std::path::Path;

use mainstay_pool::Kind;

use super::options;
use crate::Outcome;
use crate::method::{Plan, Side, interleave};
use crate::part::Group;
use crate::report::{Ratio, Report, Unit};

const READ: &str = "pool.read_4k";

pub(super) const GROUP: Group = Group { figures: &[READ], measure };

const BYTES: usize = 4_096;

fn measure(plan: &Plan, _scratch: &Path, report: &mut Report) -> Outcome<()> {
    let content: Vec<u8> = (0..BYTES).map(|at| (at % 251) as u8).collect();
    let pool = options(BYTES).create_memfd()?;
    let block = pool.allocate(Kind::Recoverable)?;
    block.write(0, &content)?;

    let mut ours = vec![0; BYTES];
    let mut plain = vec![0; BYTES];
    let timings = interleave(
        plan,
        vec![
            Side::new("mainstay", |n| {
                for _ in 0..n {
                    block.read(0, black_box(&mut ours))?;
                    black_box(&ours);
                }
                Ok(())
            }),
            Side::new("plain_memory", |n| {
                for _ in 0..n {
                    plain.copy_from_slice(black_box(&content));
                    black_box(&plain);
                }
                Ok(())
            }),
        ],
    )?;
    if ours != content {
        return Err("the block does not read back what was written to it".into());
    }
    report.ratios.push(Ratio::of_wall(READ, Unit::Ns, &timings[0], &timings[1]));
    Ok(())
}
