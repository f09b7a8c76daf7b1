//! Checkpoints on a real ext4, whose device is cut off.
//!
//! | part | what it does |
//! |---|---|
//! | [`rig`] | an ext4 on a block device of which every write and flush is logged; images of it |
//! | [`log`] | the log, replayed up to a power cut |
//! | [`work`] | who makes checkpoints on it, and who looks at what is left |
//!
//! The workload is run once; of its log many power cuts are drawn: everything up to the last flush
//! before the cut is there, of what came after it some is lost, torn, or out of order. From each the
//! file system is mounted, which runs its own recovery, and the pool is opened as in another boot.
//! The same with the sync left out that completes a cut has to be found bad.

mod log;
mod rig;
mod work;

use crate::{
    child::{self, Child, News},
    finding::Finding,
    modes::{Ended, Suite},
    progress::Progress,
    stepper,
    verdict::{Harm, Verdict},
};
use clap::Args;
use log::{Fate, Log};
use mainstay_base::Rng;
use rig::{Outcome, Rig};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);
/// Of the control, so many images are enough.
const CONTROL_IMAGES: u64 = 40;

/// Power cuts under checkpoints on a real ext4; needs root and Debian's qemu-system-common
///
/// Kills are images of the device after a power cut. lost: an acknowledged checkpoint is not there.
/// torn: what comes back is no state that was ever checkpointed. Where something is missing, prints
/// `POWER skipped: <reason>` and ends with status 0.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    mainstay-crash power\n  \
    mainstay-crash power --images 500 --rounds 200")]
pub(crate) struct Arguments {
    /// How many power cuts are tried
    #[arg(long, value_name = "N", default_value_t = 60)]
    images: u64,
    /// How many checkpoints are made
    #[arg(long, value_name = "N", default_value_t = 60)]
    rounds: u64,
    /// Decides what is written and how the power is cut
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
}

impl Suite for Arguments {
    fn needs_stop_points(&self) -> bool {
        true
    }

    fn run(&self, verdict: &'static Verdict) -> Ended {
        if let Some(reason) = rig::obstacle() {
            println!("POWER skipped: {reason}");
            return Ended { kills: 0, missed: 0 };
        }
        let Arguments { images, rounds, seed } = *self;
        let tried = match cut_off(images, rounds, seed, false, verdict) {
            Ok(tried) => tried,
            Err(error) => {
                verdict.report(Harm::Stuck, &format!("the rig: {error}"));
                return Ended { kills: 0, missed: 0 };
            }
        };
        // The control: its findings are what it is for.
        let control = Verdict::new();
        control.silence();
        let controlled = cut_off(CONTROL_IMAGES, rounds, seed, true, control);
        let bad = control.total();
        println!("{tried} images; control, without the sync: {bad} of {CONTROL_IMAGES} bad");
        let blind = controlled.is_err() || bad == 0;
        Ended { kills: tried, missed: usize::from(blind) }
    }
}

/// Runs the workload and cuts its power many times; how many images were tried.
fn cut_off(
    images: u64,
    rounds: u64,
    seed: u64,
    planted: bool,
    verdict: &'static Verdict,
) -> Outcome<u64> {
    let rig = Rig::start()?;
    let (folder, device) = (rig.folder(), rig.device());
    let mut writer = Child::fork(|| {
        if planted {
            stepper::plant("cut-not-synced");
        }
        work::write(&folder, &device, rounds, seed)
    });
    let ended = writer.end_within(PATIENCE);
    if ended != Some(News::Exited(0)) {
        return Err(format!("the workload ended with {ended:?}").into());
    }
    let log = Log::read(&rig.power_off()?)?;
    let mut rng = Rng::seeded(seed);
    let mut progress = Progress::new();
    for image in 0..images {
        let cut = log.draw(&mut rng, rig::FS_BYTES);
        let fate = [Fate::Lost, Fate::Prefix, Fate::Subset, Fate::Torn][(image % 4) as usize];
        let mounted = rig.mount_image(|file| log.replay(file, cut.at, fate, &mut rng))?;
        let at = format!("image {image}, {fate:?} before write {}", cut.at);
        let looked = child::within(PATIENCE, || {
            let found = work::look(mounted.folder(), cut.acknowledged, rounds, seed);
            if let Err(Finding { harm, what }) = found {
                verdict.report(harm, &format!("{at}: {what}"));
            }
            0
        });
        if let Err(what) = looked {
            verdict.report(Harm::Stuck, &format!("{at}: {what}"));
        }
        mounted.unmount()?;
        progress.show(&format!("{} of {images} images", image + 1));
    }
    progress.end();
    Ok(images)
}
