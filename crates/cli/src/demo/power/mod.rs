//! The third act: a recorder whose pool is a file, checkpoints while it writes, and a power cut.
//!
//! The *keeper* ([`keeper`]) records what the kernel counts, all changes of a sweep in one batch, and
//! makes a checkpoint whenever its parent says so. The parent draws each checkpoint as a heat map,
//! kills the keeper in the middle of the last one, and then looks twice: at the pool as the crash
//! left it, and at what many power cuts at that moment would have left ([`cut`]).
//!
//! * **P1** After the crash every record is whole, and none is older than the last checkpoint.
//! * **P2** After a power cut the pool is as of the last completed checkpoint, or of the one that was
//!   under way: never older, never a mix. The keeper's first block says what all others sum up to.

mod cut;
mod keeper;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use mainstay::pool::PoolOptions;
use mainstay_base::Rng;
use serde::{Deserialize, Serialize};

use super::Plant;
use super::error::{DemoError, Trying};
use super::report::grouped;
use super::role;
use super::twin::TWIN_LEN;
use super::view::View;

/// The hidden command that is the keeper.
pub(super) const COMMAND: &str = "demo-power";
/// Checkpoints that are drawn.
const CHECKPOINTS: u64 = 8;
/// How long the keeper writes before each of them.
const PAUSE: Duration = Duration::from_millis(150);
/// Power cuts that are tried.
const IMAGES: u64 = 40;
/// Cells of a heat map.
const CELLS: usize = 60;
/// Blocks of the pool at most.
const BLOCKS_MAX: u64 = 4_096;

/// Arguments of the keeper: not for people.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct PowerArgs {
    folder: PathBuf,
}

/// A checkpoint that the keeper has completed.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Cut {
    number: u64,
    /// The last sweep that was complete when the checkpoint began.
    sweep: u64,
    blocks: u64,
    bytes: u64,
    held_us: u64,
    wrote_us: u64,
    /// The numbers of the blocks that changed.
    changed: Vec<u32>,
}

/// What the third act came to.
#[derive(Clone, Default, Debug, Serialize)]
pub(super) struct Power {
    /// Checkpoints completed before the kill.
    pub(super) checkpoints: u64,
    /// Records when the keeper was killed.
    pub(super) records: u64,
    /// Sweeps of the keeper that the crash left, beyond the last checkpoint.
    pub(super) sweeps_beyond: u64,
    /// Power cuts that were tried.
    pub(super) images: u64,
    /// Of these, pools that came back as of the checkpoint that was under way.
    pub(super) of_the_next: u64,
    /// Records that were not whole after the crash.
    pub(super) torn: u64,
    /// Pools that did not come back after a power cut, or older than was acknowledged.
    pub(super) lost: u64,
    /// Pools that came back as a mix of two moments.
    pub(super) mixed: u64,
    pub(super) ok: bool,
}

/// The pool of this act: every process of it opens it with the same words.
fn options() -> PoolOptions {
    PoolOptions::new("demo-power", TWIN_LEN).max_blocks(BLOCKS_MAX).growth_step(512)
}

fn pool_in(folder: &Path) -> PathBuf {
    folder.join("demo.pool")
}

fn checkpoint_in(folder: &Path) -> PathBuf {
    folder.join("demo.pool.checkpoint")
}

/// Plays the third act.
pub(super) fn play(view: View, seed: u64, plant: Option<Plant>) -> Result<Power, DemoError> {
    let write = "write to standard output";
    view.third_act().trying(write)?;
    let folder = tempfile::Builder::new().prefix("mainstay-demo-").tempdir();
    let folder = folder.trying("make a folder in the temporary folder")?;
    let mut rng = Rng::seeded(seed);
    let mut keeper = Keeper::spawn(folder.path())?;
    let mut disk = cut::Disk::default();
    let mut last = None;
    for _ in 0..CHECKPOINTS {
        std::thread::sleep(PAUSE);
        keeper.order()?;
        let cut = keeper.hear()?;
        view.line(&row(&cut)).trying(write)?;
        // What a disk that keeps its word has now. One that lies is a checkpoint behind.
        if plant != Some(Plant::Lied) || last.is_none() {
            disk = cut::Disk::read(folder.path())?;
        }
        last = Some(cut);
    }
    let last = last.expect("there is more than one checkpoint");
    std::thread::sleep(PAUSE);
    keeper.order()?;
    let within_us = last.held_us + last.wrote_us;
    std::thread::sleep(Duration::from_micros(rng.below(2 * within_us.max(1))));
    keeper.kill()?;

    let left = cut::crashed(folder.path())?;
    let mut power = Power {
        checkpoints: CHECKPOINTS,
        records: left.records,
        sweeps_beyond: left.sweep.saturating_sub(last.sweep),
        torn: left.torn + u64::from(left.sweep < last.sweep),
        ..Power::default()
    };
    view.line(&format!(
        "\nKilled in the middle of the next one. After the crash: {} records, {} torn, {} \
         sweeps newer than\nthe last checkpoint.",
        grouped(power.records),
        power.torn,
        power.sweeps_beyond
    ))
    .trying(write)?;

    disk.cut_off_with(folder.path())?;
    let begun = Instant::now();
    for image in 0..IMAGES {
        power.images += 1;
        match disk.power_cut(folder.path(), image, &mut rng)? {
            cut::Found::Whole { sweep } if sweep < last.sweep => power.lost += 1,
            cut::Found::Whole { sweep } => power.of_the_next += u64::from(sweep > last.sweep + 1),
            cut::Found::Mixed => power.mixed += 1,
            cut::Found::Refused => power.lost += 1,
        }
        view.progress(image + 1, &format!("of {IMAGES} power cuts")).trying(write)?;
    }
    power.ok = power.torn == 0 && power.lost == 0 && power.mixed == 0 && power.records > 0;
    view.line(&format!(
        "{IMAGES} power cuts at that moment (writes that were not synced lost, torn, out of order), \
         opened in {:.1} s:\n{} pools lost, {} mixed.\n",
        begun.elapsed().as_secs_f64(),
        power.lost,
        power.mixed
    ))
    .trying(write)?;
    Ok(power)
}

/// A checkpoint as a line with a heat map: which parts of the pool changed since the one before.
fn row(cut: &Cut) -> String {
    let mut cells: HashMap<usize, u64> = HashMap::new();
    let blocks = cut.changed.iter().copied().max().map_or(1, |most| most as usize + 1);
    let per_cell = blocks.next_multiple_of(512).div_ceil(CELLS);
    for number in &cut.changed {
        *cells.entry(*number as usize / per_cell).or_default() += 1;
    }
    let shade = |cell| match cells.get(&cell).copied().unwrap_or_default() * 4 / per_cell as u64 {
        0 if !cells.contains_key(&cell) => '·',
        0 => '░',
        1 => '▒',
        2 => '▓',
        _ => '█',
    };
    format!(
        "{:>5} {} {:>6} changed {:>9} B {:>7.2} ms",
        cut.number,
        (0..CELLS).map(shade).collect::<String>(),
        grouped(cut.changed.len() as u64),
        grouped(cut.bytes),
        cut.wrote_us as f64 / 1_000.0
    )
}

/// The parent's side of the keeper; dropped, it is killed and waited for.
struct Keeper {
    process: std::process::Child,
    orders: std::process::ChildStdin,
    words: BufReader<std::process::ChildStdout>,
}

impl Keeper {
    fn spawn(folder: &Path) -> Result<Self, DemoError> {
        let program = std::env::current_exe().trying("find this program")?;
        let mut process = Command::new(program)
            .arg(COMMAND)
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .trying("start the keeper")?;
        let orders = process.stdin.take().expect("standard input was asked to be a pipe");
        let words = process.stdout.take().expect("standard output was asked to be a pipe");
        Ok(Self { process, orders, words: BufReader::new(words) })
    }

    /// Asks for a checkpoint.
    fn order(&mut self) -> Result<(), DemoError> {
        self.orders.write_all(&[keeper::CHECKPOINT]).trying("ask for a checkpoint")
    }

    fn hear(&mut self) -> Result<Cut, DemoError> {
        let mut line = String::new();
        if self.words.read_line(&mut line).trying("hear the keeper")? == 0 {
            return Err(DemoError::Ended { role: keeper::NAME });
        }
        serde_json::from_str(&line).trying("understand the keeper")
    }

    fn kill(&mut self) -> Result<(), DemoError> {
        self.process.kill().trying("kill the keeper")?;
        self.process.wait().trying("wait for the killed keeper").map(drop)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Both fail only when it has already been waited for.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Is the keeper.
#[must_use]
pub(crate) fn keep(args: &PowerArgs) -> ExitCode {
    role::exit(keeper::NAME, keeper::run(&args.folder))
}
