//! The owner that dies: a process that holds 10^6 blocks and is killed.

use std::io::stdin;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use mainstay_pool::{Block, Kind, Offer, Pool};

use super::options;
use crate::Outcome;
use crate::child::{self, Child};
use crate::role::Role;

/// Bytes of a block, as of a peer's record.
pub(super) const BYTES: usize = 256;
/// Allocates and fills blocks, and holds them until it is killed.
pub(super) const FILL: Role = Role { name: "pool:fill", run: play_fill };
/// Takes every block nobody holds, and holds them until it is killed.
pub(super) const TAKE: Role = Role { name: "pool:take", run: play_take };
/// The argument that stands for "the pool is my standard input".
const INHERITED: &str = "-";

/// Where a pool lies between two lives.
pub(super) enum Place {
    File(PathBuf),
    Memfd(OwnedFd),
}

impl Place {
    /// A new, empty pool that nobody is in.
    pub(super) fn create_file(path: &Path) -> Outcome<Place> {
        options(BYTES).create(path)?.close()?;
        Ok(Place::File(path.to_owned()))
    }

    /// The same in memory that has no name.
    pub(super) fn create_memfd() -> Outcome<Place> {
        let pool = options(BYTES).create_memfd()?;
        let fd = pool.as_fd().try_clone_to_owned()?;
        pool.close()?;
        Ok(Place::Memfd(fd))
    }

    /// Joins the pool.
    pub(super) fn join(&self) -> Outcome<Pool> {
        Ok(match self {
            Place::File(path) => options(BYTES).join(path)?,
            Place::Memfd(fd) => options(BYTES).join_fd(fd.try_clone()?)?,
        })
    }

    /// Lets a process hold `count` blocks of the pool (new ones, filled; or all that nobody holds)
    /// and kills it.
    pub(super) fn leave_to_the_dead(&self, role: &Role, count: u32) -> Outcome<()> {
        let count = count.to_string();
        let mut child = match self {
            Place::File(path) => {
                let path = path.to_str().ok_or("the path of the pool is not UTF-8")?;
                Child::start(role, &[path, &count])?
            }
            Place::Memfd(fd) => {
                Child::start_with(role, &[INHERITED, &count], Stdio::from(fd.try_clone()?))?
            }
        };
        child.wait_ready()?;
        child.kill()
    }
}

/// What block or record `number` holds: every word of it different, so that a mix-up would show.
pub(super) fn fill(number: u32, value: &mut [u8]) {
    for (at, word) in value.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&(u64::from(number) << 8 | at as u64).to_le_bytes());
    }
}

/// The sum of all words of a block or record: nothing of it can be left unread.
pub(super) fn sum(value: &[u8]) -> u64 {
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("chunks of eight bytes"));
    value.chunks_exact(8).map(word).fold(0, u64::wrapping_add)
}

/// What [`sum`] comes to over records 0 to `count` (not included).
pub(super) fn sum_of_all(count: u32) -> u64 {
    let mut value = [0; BYTES];
    (0..count).fold(0, |total: u64, number| {
        fill(number, &mut value);
        total.wrapping_add(sum(&value))
    })
}

/// Takes a guard of every block that nobody holds.
pub(super) fn keep_all(pool: &Pool, offer: Offer, count: u32) -> Outcome<Vec<Block>> {
    let mut kept = Vec::with_capacity(count as usize);
    for offered in pool.recover(offer)? {
        kept.push(offered.keep()?);
    }
    Ok(kept)
}

/// The process that allocates, fills and holds.
fn play_fill(arguments: &[String]) -> Outcome<()> {
    let (pool, count) = joined(arguments)?;
    let mut value = [0; BYTES];
    let mut held = Vec::with_capacity(count as usize);
    for number in 0..count {
        let block = pool.allocate(Kind::Recoverable)?;
        fill(number, &mut value);
        block.write(0, &value)?;
        held.push(block);
    }
    child::say_ready()?;
    child::wait_for_death()
}

/// The process that takes what is there and holds it.
fn play_take(arguments: &[String]) -> Outcome<()> {
    let (pool, count) = joined(arguments)?;
    let held = keep_all(&pool, Offer::Unheld, count)?;
    if held.len() != count as usize {
        return Err(format!("{} blocks to take, not {count}", held.len()).into());
    }
    child::say_ready()?;
    child::wait_for_death()
}

fn joined(arguments: &[String]) -> Outcome<(Pool, u32)> {
    let [place, count] = arguments else {
        return Err("a holder takes a place and a count".into());
    };
    let pool = if place == INHERITED {
        options(BYTES).join_fd(stdin().as_fd().try_clone_to_owned()?)?
    } else {
        options(BYTES).join(place)?
    };
    Ok((pool, count.parse()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_over_all_records_notices_one_that_is_missing_or_changed() {
        let mut values: Vec<[u8; BYTES]> = vec![[0; BYTES]; 10];
        for (number, value) in (0..).zip(&mut values) {
            fill(number, value);
        }
        let total = |values: &[[u8; BYTES]]| {
            values.iter().fold(0, |total: u64, value| total.wrapping_add(sum(value)))
        };
        assert_eq!(total(&values), sum_of_all(10));
        assert_ne!(total(&values[1..]), sum_of_all(10));
        values[3][17] ^= 1;
        assert_ne!(total(&values), sum_of_all(10));
    }
}
