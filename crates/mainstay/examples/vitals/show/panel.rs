//! The states as the conductor sees them: a reader like any other, and lines for people.

use std::time::{Duration, Instant};

use mainstay::state::{Domain, Error, State};

use super::{
    Result,
    values::{Cpu, DEVICES_MAX, Disks, Interfaces, Memory, Pressure, Vital, Vitals},
};

/// How long anything may take to appear.
const PATIENCE: Duration = Duration::from_secs(10);

/// All five states, to be read.
pub(crate) struct Panel {
    cpu: State<Cpu>,
    memory: State<Memory>,
    pressure: State<Pressure>,
    disks: State<Disks>,
    interfaces: State<Interfaces>,
}

impl Panel {
    /// Waits until the writer has made the states.
    pub(crate) fn subscribe(domain: &Domain) -> Result<Self> {
        Ok(Self {
            cpu: reader(domain)?,
            memory: reader(domain)?,
            pressure: reader(domain)?,
            disks: reader(domain)?,
            interfaces: reader(domain)?,
        })
    }

    /// What a screen would show: each value is whole, and for this they need not be of one instant.
    pub(crate) fn read(&self) -> Result<Vitals> {
        Ok(Vitals {
            cpu: self.cpu.read()?.clone(),
            memory: self.memory.read()?.clone(),
            pressure: self.pressure.read()?.clone(),
            disks: self.disks.read()?.clone(),
            interfaces: self.interfaces.read()?.clone(),
        })
    }

    /// The number of the newest sample.
    pub(crate) fn sample(&self) -> Result<u64> {
        Ok(self.cpu.read()?.sample)
    }

    /// Waits for a sample with a higher number.
    pub(crate) fn wait_beyond(&self, sample: u64) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut watch = self.cpu.watch()?;
        while self.sample()? <= sample {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err("the writer writes nothing".into());
            }
            watch.wait(left)?;
        }
        Ok(())
    }
}

/// The state of this type, as soon as somebody has made it.
pub(crate) fn reader<T: Vital>(domain: &Domain) -> Result<State<T>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match domain.reader(T::STATE) {
            Err(Error::NotFound { .. }) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            state => return Ok(state?),
        }
    }
}

/// What happened between two looks, in a line for people.
pub(crate) fn describe(before: &Vitals, now: &Vitals) -> String {
    let seconds = now.cpu.at_ns.saturating_sub(before.cpu.at_ns) as f64 / 1e9;
    let ticks = |cpu: &Cpu| [cpu.user_ticks + cpu.system_ticks, cpu.idle_ticks + cpu.waiting_ticks];
    let [busy, idle] = [0, 1].map(|i| ticks(&now.cpu)[i].saturating_sub(ticks(&before.cpu)[i]));
    let per_s = |now: [&[u64; DEVICES_MAX]; 2], before: [&[u64; DEVICES_MAX]; 2]| {
        let sum = |of: [&[u64; DEVICES_MAX]; 2]| of.into_iter().flatten().sum::<u64>();
        sum(now).saturating_sub(sum(before)) as f64 / seconds.max(1e-3) / 1_024.0
    };
    let (disks, disks_before) = (&now.disks, &before.disks);
    let (nets, nets_before) = (&now.interfaces, &before.interfaces);
    format!(
        "{:7}  cpu {:3.0} %  free {:.1}/{:.1} GiB  pressure cpu {:.1} memory {:.1} io {:.1} %  disks \
         {:.0} net {:.0} KiB/s",
        now.cpu.sample,
        100.0 * busy as f64 / (busy + idle).max(1) as f64,
        now.memory.available_kib as f64 / 1_048_576.0,
        now.memory.total_kib as f64 / 1_048_576.0,
        now.pressure.cpu_some,
        now.pressure.memory_some,
        now.pressure.io_some,
        per_s(
            [&disks.read_bytes, &disks.written_bytes],
            [&disks_before.read_bytes, &disks_before.written_bytes]
        ),
        per_s(
            [&nets.received_bytes, &nets.sent_bytes],
            [&nets_before.received_bytes, &nets_before.sent_bytes]
        ),
    )
}
