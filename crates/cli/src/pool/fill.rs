//! `mainstay pool fill`.

use crate::{
    error::{CliError, Outcome, Result},
    interrupt::Interrupt,
    output::Output,
    place::Target,
    progress::Progress,
    size::{grouped, parse_duration},
};
use mainstay::pool::{self, Block, Kind, Pool};
use mainstay_base::Rng;
use serde::Serialize;
use std::{
    thread,
    time::{Duration, Instant},
};

/// Allocate blocks and write something into them: to try things out
///
/// The blocks are recoverable, and parked in the end. With --hold they are held for a while first,
/// as a service would: time enough to kill this process, and to see what becomes of them.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  mainstay pool fill calls --blocks 1000000
  mainstay pool fill calls --blocks 1000 --data random --seed 7
  mainstay pool fill calls --blocks 1000 --hold 60s &")]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// How many blocks
    #[arg(long, value_name = "N")]
    blocks: u64,
    /// What to write into them
    #[arg(long, value_enum, value_name = "WHAT", default_value = "text")]
    data: Data,
    /// Decides the random bytes
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// How long to hold them before they are parked
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    hold: Option<Duration>,
}

#[derive(clap::ValueEnum, Clone, Copy)]
enum Data {
    /// Lines that name the block
    Text,
    Random,
    /// Zeros, as they are when allocated
    Zero,
}

#[derive(Serialize)]
struct Report {
    filled: u64,
    pid: u32,
    slot: u32,
    hold_ms: u64,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<Outcome> {
    let pool = Pool::join_any(args.target.existing()?)?;
    let interrupt = Interrupt::watch();
    let started = Instant::now();
    let held = fill(args, &pool, &interrupt)?;
    tell(args, &pool, started.elapsed(), out)?;
    if let Some(duration) = args.hold {
        // An interrupt is an orderly end: the blocks are parked.
        let end = Instant::now() + duration;
        while Instant::now() < end && !interrupt.is_asked() {
            thread::sleep(Duration::from_millis(50).min(end - Instant::now()));
        }
    }
    drop(held);
    pool.close()?;
    Ok(Outcome::Fine)
}

/// Returns the guards if they are to be held on.
fn fill(args: &Args, pool: &Pool, interrupt: &Interrupt) -> Result<Vec<Block>> {
    let mut maker = Maker { data: args.data, rng: Rng::seeded(args.seed), bytes: Vec::new() };
    let progress = Progress::bar("filling", args.blocks);
    let mut held = Vec::new();
    for done in 0..args.blocks {
        interrupt.check("the blocks filled so far stay")?;
        let block = one(pool, &mut maker).map_err(|source| CliError::FilledInPart {
            done,
            wanted: args.blocks,
            source,
        })?;
        if args.hold.is_some() {
            held.push(block);
        }
        progress.advance(1);
    }
    Ok(held)
}

fn one(pool: &Pool, maker: &mut Maker) -> Result<Block, pool::Error> {
    let block = pool.allocate(Kind::Recoverable)?;
    let bytes = maker.bytes_for(pool, block.number());
    block.write(0, bytes)?;
    Ok(block)
}

fn tell(args: &Args, pool: &Pool, elapsed: Duration, out: &mut Output) -> Result<()> {
    let hold_ms = args.hold.map_or(0, |hold| u64::try_from(hold.as_millis()).unwrap_or(u64::MAX));
    if out.json {
        let (pid, slot) = (std::process::id(), pool.slot());
        out.document(&Report { filled: args.blocks, pid, slot, hold_ms })?;
    } else {
        let then = match args.hold {
            Some(hold) => format!("held for {hold:?} by process {}", std::process::id()),
            None => "parked".to_owned(),
        };
        let seconds = elapsed.as_secs_f64();
        let filled = grouped(args.blocks);
        out.line(&format!("filled {filled} blocks of {} in {seconds:.2} s; {then}", pool.name()))?;
    }
    // Whoever waits for the blocks to be there need not wait until they are parked.
    out.flush()
}

/// Makes the bytes for one block after the other.
struct Maker {
    data: Data,
    rng: Rng,
    bytes: Vec<u8>,
}

impl Maker {
    fn bytes_for(&mut self, pool: &Pool, number: u32) -> &[u8] {
        let len = pool.block_size();
        self.bytes.clear();
        match self.data {
            Data::Zero => {}
            Data::Text => {
                let line = format!("block {number} of {}\n", pool.name());
                self.bytes.extend(line.bytes().cycle().take(len));
            }
            Data::Random => {
                while self.bytes.len() < len {
                    self.bytes.extend(self.rng.next_u64().to_le_bytes());
                }
                self.bytes.truncate(len);
            }
        }
        &self.bytes
    }
}
