//! What a pool of 10^6 blocks costs in steps, addresses and bytes. No peer: pool.md's aims.

use std::path::Path;

use mainstay_pool::{Block, Kind, Pool};

use super::{MILLION, options};
use crate::Outcome;
use crate::clock::Span;
use crate::machine::Usage;
use crate::method::{Plan, Round, rounds};
use crate::part::Group;
use crate::report::{Aim, Report, Unit};

const STEP_MEAN: &str = "pool.growth_step_mean";
const STEP_MAX: &str = "pool.growth_step_max";
const JOIN: &str = "pool.open_without_recovery_1e6";
const ADDRESSES: &str = "pool.address_space_beyond_reservation_1e6";
const MAPPINGS: &str = "pool.mappings_1e6";
const OVERHEAD: &str = "pool.bytes_beyond_data_a_block";
const HANDLE: &str = "pool.bytes_a_handle";

pub(super) const GROUP: Group =
    Group { figures: &[STEP_MEAN, STEP_MAX, JOIN, ADDRESSES, MAPPINGS, OVERHEAD, HANDLE], measure };

const BYTES: usize = 256;
const RESERVATION: u64 = 64 << 30;

fn measure(plan: &Plan, scratch: &Path, report: &mut Report) -> Outcome<()> {
    let path = scratch.join("growth.pool");
    let before = Usage::now()?;
    let pool = options(BYTES).reserve(RESERVATION).create(&path)?;
    let (held, steps) = grow(&pool)?;
    push_sizes(report, &path, &before, &Usage::now()?)?;
    push_steps(report, &steps)?;
    // Parked, and the pool closed: what the figure below opens.
    drop(held);
    pool.close()?;

    let join = rounds(
        plan.repetitions,
        &mut [Round::new("mainstay", || {
            let (span, pool) = Span::of(|| options(BYTES).join(&path));
            pool?.close()?;
            Ok(span)
        })],
    )?;
    report.aims.push(Aim::of_timing(JOIN, &join[0], 100.0, Unit::Us));
    std::fs::remove_file(&path)?;
    Ok(())
}

/// Allocates a million blocks; what each allocation took that had to grow the pool first.
fn grow(pool: &Pool) -> Outcome<(Vec<Block>, Vec<Span>)> {
    let mut held = Vec::with_capacity(MILLION as usize);
    let mut steps = Vec::new();
    while held.len() < MILLION as usize {
        if let Some(block) = pool.try_allocate(Kind::Recoverable)? {
            held.push(block);
            continue;
        }
        let (span, block) = Span::of(|| pool.allocate(Kind::Recoverable));
        held.push(block?);
        steps.push(span);
    }
    Ok((held, steps))
}

/// Mean and largest step, and whether steps at the end cost more than at the start.
fn push_steps(report: &mut Report, steps: &[Span]) -> Outcome<()> {
    if steps.len() < 16 {
        return Err(format!("{} growth steps say nothing", steps.len()).into());
    }
    let ms = |ns: f64| ns / 1e6;
    let mean = |steps: &[Span]| steps.iter().map(|s| s.wall_ns).sum::<f64>() / steps.len() as f64;
    let largest = |of: fn(&Span) -> f64| steps.iter().map(of).fold(0.0, f64::max);
    let (early, late) = (&steps[..steps.len() / 8], &steps[steps.len() - steps.len() / 8..]);
    let note = format!(
        "{} steps to 10^6 blocks of {BYTES} bytes; first eighth {:.3}, last eighth {:.3}",
        steps.len(),
        ms(mean(early)),
        ms(mean(late)),
    );
    report.aims.push(Aim::new(STEP_MEAN, ms(mean(steps)), 0.5, Unit::Ms).with_note(note));
    let note = format!("of which CPU at most {:.3}", ms(largest(|step| step.cpu_ns)));
    let max = ms(largest(|step| step.wall_ns));
    report.aims.push(Aim::new(STEP_MAX, max, 0.5, Unit::Ms).with_note(note));
    Ok(())
}

fn push_sizes(report: &mut Report, path: &Path, before: &Usage, after: &Usage) -> Outcome<()> {
    let data = f64::from(MILLION) * BYTES as f64;
    let handles = f64::from(MILLION) * size_of::<Block>() as f64;
    // The guards' own vector is not the pool's.
    let grown = after.address_bytes.saturating_sub(before.address_bytes) as f64;
    let beyond = (grown - RESERVATION as f64 - handles).max(0.0);
    report.aims.push(Aim::new(ADDRESSES, beyond, 2.0 * data, Unit::Bytes));
    let mappings = after.mappings.saturating_sub(before.mappings);
    report.aims.push(Aim::new(MAPPINGS, mappings as f64, 300.0, Unit::Count));
    let overhead = (std::fs::metadata(path)?.len() as f64 - data) / f64::from(MILLION);
    let note = "file length less data, so unused blocks of the last extent count";
    report.aims.push(Aim::new(OVERHEAD, overhead, 64.0, Unit::Bytes).with_note(note));
    report.aims.push(Aim::new(HANDLE, size_of::<Block>() as f64, 8.0, Unit::Bytes));
    Ok(())
}
