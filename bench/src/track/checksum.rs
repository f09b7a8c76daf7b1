//! The checksum of a block, beside another crate's, and beside only reading the memory.

use std::hint::black_box;
use std::path::Path;

use super::PAGE;
use crate::Outcome;
use crate::method::{Plan, Side, interleave};
use crate::part::Group;
use crate::report::{Ratio, Report, Unit};

const CHECKSUM: &str = "track.checksum_4k";
const BANDWIDTH: &str = "track.checksum_64m";

pub(super) const GROUP: Group = Group { figures: &[CHECKSUM, BANDWIDTH], measure };

/// More than any cache has.
const LARGE: usize = 64 << 20;

fn measure(plan: &Plan, _scratch: &Path, report: &mut Report) -> Outcome<()> {
    let bytes: Vec<u8> = (0..LARGE + PAGE).map(|at| (at * 131 % 251) as u8).collect();
    // Blocks begin where pages do.
    let bytes = &bytes[bytes.as_ptr().align_offset(PAGE)..][..LARGE];
    let page = &bytes[..PAGE];
    if mainstay_base::crc32c(page) != crc32c::crc32c(page) {
        return Err("the two checksums differ".into());
    }
    // A page is summed so soon that all rounds would be over within one disturbance.
    let plan_small = &Plan { repetitions: 10 * plan.repetitions, ..*plan };
    let timings = interleave(
        plan_small,
        vec![
            Side::new("mainstay", |n| {
                (0..n).for_each(|_| {
                    black_box(mainstay_base::crc32c(black_box(page)));
                });
                Ok(())
            }),
            Side::new("crc32c", |n| {
                (0..n).for_each(|_| {
                    black_box(crc32c::crc32c(black_box(page)));
                });
                Ok(())
            }),
        ],
    )?;
    report.ratios.push(Ratio::of_wall(CHECKSUM, Unit::Ns, &timings[0], &timings[1]));

    // How much of the memory's bandwidth is left: 1 would be all of it.
    let (words, _) = bytes.as_chunks::<8>();
    let timings = interleave(
        plan,
        vec![
            Side::new("mainstay", |n| {
                (0..n).for_each(|_| {
                    black_box(mainstay_base::crc32c(black_box(bytes)));
                });
                Ok(())
            }),
            Side::new("reading_it", |n| {
                for _ in 0..n {
                    let words = black_box(words).iter();
                    black_box(
                        words.fold(0_u64, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word))),
                    );
                }
                Ok(())
            }),
        ],
    )?;
    report.ratios.push(Ratio::of_wall(BANDWIDTH, Unit::Ms, &timings[0], &timings[1]));
    Ok(())
}
