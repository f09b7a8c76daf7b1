//! Finding a block by UUID among 10^6, beside hash maps from 16 bytes to 4; and what it costs to
//! keep a pool indexed. The index looks into the block's header before it answers, the maps do not.

use std::collections::HashMap;
use std::hint::black_box;
use std::path::Path;

use mainstay_pool::{Block, BlockId, Index, Kind, PoolIndex};
use uuid::Uuid;

use super::{MILLION, Walk, options, shuffled};
use crate::Outcome;
use crate::machine::Usage;
use crate::method::{Plan, Side, interleave};
use crate::part::Group;
use crate::report::{Aim, Ratio, Report, Unit};

const FIND: &str = "pool.index_find_1e6";
const FIND_AIM: &str = "pool.index_find_1e6_aim";
const ALLOCATE_AIM: &str = "pool.alloc_release_index_1e6_aim";
const MEMORY: &str = "pool.bytes_a_block_in_the_index";

pub(super) const GROUP: Group = Group { figures: &[FIND, FIND_AIM, ALLOCATE_AIM, MEMORY], measure };

const BYTES: usize = 64;

fn measure(plan: &Plan, _scratch: &Path, report: &mut Report) -> Outcome<()> {
    let pool = options(BYTES).create_memfd()?;
    let held: Vec<Block> =
        (0..MILLION).map(|_| Ok(pool.allocate(Kind::Recoverable)?)).collect::<Outcome<_>>()?;
    let ids: Vec<(Uuid, BlockId)> = held.iter().map(|b| (b.uuid(), b.id())).collect();

    let before = Usage::now()?;
    let all = Index::default();
    let index = all.attach(&pool)?;
    let after = Usage::now()?;
    let bytes = after.anonymous_bytes.saturating_sub(before.anonymous_bytes);
    let each = bytes as f64 / f64::from(MILLION);
    report.aims.push(Aim::new(MEMORY, each, 32.0, Unit::Bytes).with_note("resident, 10^6 blocks"));

    check(&index, &ids)?;
    find(plan, &index, &ids, report)?;

    let allocate = interleave(
        plan,
        vec![Side::new("mainstay", |n| {
            for _ in 0..n {
                drop(black_box(pool.allocate(Kind::Transient)?));
            }
            Ok(())
        })],
    )?;
    report.aims.push(Aim::of_ns(ALLOCATE_AIM, &allocate[0].cpu, 150.0, Unit::NsCpu));
    Ok(())
}

fn check(index: &PoolIndex, ids: &[(Uuid, BlockId)]) -> Outcome<()> {
    let right = |(uuid, id): &(Uuid, BlockId)| index.find(*uuid) == Some(*id);
    if ids.iter().all(right) { Ok(()) } else { Err("the index finds a wrong block".into()) }
}

fn find(
    plan: &Plan,
    index: &PoolIndex,
    ids: &[(Uuid, BlockId)],
    report: &mut Report,
) -> Outcome<()> {
    let bytes = || ids.iter().map(|(uuid, id)| (*uuid.as_bytes(), id.number));
    let standard: HashMap<[u8; 16], u32> = bytes().collect();
    let other: hashbrown::HashMap<[u8; 16], u32> = bytes().collect();
    let order: Vec<Uuid> = shuffled(ids.iter().map(|(uuid, _)| *uuid).collect());
    let walk = || Walk::new(order.clone());
    let (mut ours, mut standards, mut others) = (walk(), walk(), walk());
    let timings = interleave(
        plan,
        vec![
            Side::new("mainstay", move |n| {
                for _ in 0..n {
                    black_box(index.find(black_box(ours.step())));
                }
                Ok(())
            }),
            Side::new("std_hashmap", move |n| {
                for _ in 0..n {
                    black_box(standard.get(black_box(standards.step()).as_bytes()));
                }
                Ok(())
            }),
            Side::new("hashbrown", move |n| {
                for _ in 0..n {
                    black_box(other.get(black_box(others.step()).as_bytes()));
                }
                Ok(())
            }),
        ],
    )?;
    report.ratios.push(Ratio::of_wall(FIND, Unit::Ns, &timings[0], &timings[1]));
    report.ratios.push(Ratio::of_wall(FIND, Unit::Ns, &timings[0], &timings[2]));
    report.aims.push(Aim::of_ns(FIND_AIM, &timings[0].cpu, 200.0, Unit::NsCpu));
    Ok(())
}
