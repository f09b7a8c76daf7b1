//! The five states: what this machine's vital signs look like in shared memory.
//!
//! All five are written by one transaction, so the number of the sample in them tells whether two
//! values are from one instant. And each carries a checksum of itself, so that a reader could tell
//! a value that is half old and half new; there never is one, which is what the readers count.

use mainstay::state::Record;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Disks, and interfaces, that have a place in a state; the rest of a larger machine is left out.
pub(crate) const DEVICES_MAX: usize = 8;

/// A name, filled up with zeros.
pub(crate) type Name = [u8; 16];

/// What all five have in common.
pub(crate) trait Vital: Record + Clone {
    /// The state's name.
    const STATE: &'static str;

    /// Which sample it is from; they are numbered from 1.
    fn sample(&self) -> u64;

    /// The field with the checksum, which is the last one.
    fn check(&mut self) -> &mut u64;

    /// With its checksum.
    fn sealed(mut self) -> Self {
        *self.check() = checksum(self.as_bytes());
        self
    }

    /// Whether all of it is of one value. A state that was never written reads as zeros.
    fn is_whole(&self) -> bool {
        let mut copy = self.clone();
        let zeros = self.as_bytes().iter().all(|byte| *byte == 0);
        zeros || *copy.check() == checksum(self.as_bytes())
    }
}

/// FNV-1a over all words but the last: enough to see a half-written value.
fn checksum(bytes: &[u8]) -> u64 {
    let (words, _) = bytes.as_chunks::<8>();
    let words = &words[..words.len() - 1];
    words.iter().fold(0xcbf2_9ce4_8422_2325, |sum, word| {
        (sum ^ u64::from_le_bytes(*word)).wrapping_mul(0x100_0000_01b3)
    })
}

/// What the processors did since the machine was started.
#[derive(Clone, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Cpu {
    pub(crate) sample: u64,
    /// Monotonic clock, right before the commit.
    pub(crate) at_ns: u64,
    pub(crate) processors: u64,
    pub(crate) user_ticks: u64,
    pub(crate) system_ticks: u64,
    pub(crate) idle_ticks: u64,
    pub(crate) waiting_ticks: u64,
    pub(crate) stolen_ticks: u64,
    pub(crate) context_switches: u64,
    pub(crate) forks: u64,
    pub(crate) running: u64,
    pub(crate) blocked: u64,
    pub(crate) check: u64,
}

impl Record for Cpu {
    const NAME: &'static str = "mainstay.example.vitals.cpu/1";
    const FIELDS: &'static str = "sample: u64, at_ns: u64, processors: u64, user_ticks: u64, \
        system_ticks: u64, idle_ticks: u64, waiting_ticks: u64, stolen_ticks: u64, \
        context_switches: u64, forks: u64, running: u64, blocked: u64, check: u64";
}

/// Memory, in KiB.
#[derive(Clone, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Memory {
    pub(crate) sample: u64,
    pub(crate) at_ns: u64,
    pub(crate) total_kib: u64,
    pub(crate) free_kib: u64,
    pub(crate) available_kib: u64,
    pub(crate) cached_kib: u64,
    pub(crate) dirty_kib: u64,
    pub(crate) swap_total_kib: u64,
    pub(crate) swap_free_kib: u64,
    pub(crate) check: u64,
}

impl Record for Memory {
    const NAME: &'static str = "mainstay.example.vitals.memory/1";
    const FIELDS: &'static str = "sample: u64, at_ns: u64, total_kib: u64, free_kib: u64, \
        available_kib: u64, cached_kib: u64, dirty_kib: u64, swap_total_kib: u64, \
        swap_free_kib: u64, check: u64";
}

/// How much of the last ten seconds somebody (or everybody) had to wait for something, in percent.
#[derive(Clone, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Pressure {
    pub(crate) sample: u64,
    pub(crate) at_ns: u64,
    /// 0 where the kernel keeps no such numbers.
    pub(crate) known: u64,
    pub(crate) cpu_some: f64,
    pub(crate) memory_some: f64,
    pub(crate) memory_full: f64,
    pub(crate) io_some: f64,
    pub(crate) io_full: f64,
    pub(crate) check: u64,
}

impl Record for Pressure {
    const NAME: &'static str = "mainstay.example.vitals.pressure/1";
    const FIELDS: &'static str = "sample: u64, at_ns: u64, known: u64, cpu_some: f64, \
        memory_some: f64, memory_full: f64, io_some: f64, io_full: f64, check: u64";
}

/// Block devices that have a size.
#[derive(Clone, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Disks {
    pub(crate) sample: u64,
    pub(crate) at_ns: u64,
    pub(crate) count: u64,
    pub(crate) names: [Name; DEVICES_MAX],
    pub(crate) size_bytes: [u64; DEVICES_MAX],
    pub(crate) read_bytes: [u64; DEVICES_MAX],
    pub(crate) written_bytes: [u64; DEVICES_MAX],
    pub(crate) in_progress: [u64; DEVICES_MAX],
    pub(crate) check: u64,
}

impl Record for Disks {
    const NAME: &'static str = "mainstay.example.vitals.disks/1";
    const FIELDS: &'static str = "sample: u64, at_ns: u64, count: u64, names: [text[16]; 8], \
        size_bytes: [u64; 8], read_bytes: [u64; 8], written_bytes: [u64; 8], \
        in_progress: [u64; 8], check: u64";
}

/// Network interfaces.
#[derive(Clone, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Interfaces {
    pub(crate) sample: u64,
    pub(crate) at_ns: u64,
    pub(crate) count: u64,
    pub(crate) names: [Name; DEVICES_MAX],
    pub(crate) mtu_bytes: [u64; DEVICES_MAX],
    pub(crate) received_bytes: [u64; DEVICES_MAX],
    pub(crate) sent_bytes: [u64; DEVICES_MAX],
    pub(crate) dropped_packets: [u64; DEVICES_MAX],
    pub(crate) check: u64,
}

impl Record for Interfaces {
    const NAME: &'static str = "mainstay.example.vitals.interfaces/1";
    const FIELDS: &'static str = "sample: u64, at_ns: u64, count: u64, names: [text[16]; 8], \
        mtu_bytes: [u64; 8], received_bytes: [u64; 8], sent_bytes: [u64; 8], \
        dropped_packets: [u64; 8], check: u64";
}

/// One look at the machine.
#[derive(Clone, Default, Debug)]
pub(crate) struct Vitals {
    pub(crate) cpu: Cpu,
    pub(crate) memory: Memory,
    pub(crate) pressure: Pressure,
    pub(crate) disks: Disks,
    pub(crate) interfaces: Interfaces,
}

impl Vitals {
    /// As sample `number`, taken at this time, with checksums.
    pub(crate) fn sealed(self, number: u64, at_ns: u64) -> Self {
        Self {
            cpu: Cpu { sample: number, at_ns, ..self.cpu }.sealed(),
            memory: Memory { sample: number, at_ns, ..self.memory }.sealed(),
            pressure: Pressure { sample: number, at_ns, ..self.pressure }.sealed(),
            disks: Disks { sample: number, at_ns, ..self.disks }.sealed(),
            interfaces: Interfaces { sample: number, at_ns, ..self.interfaces }.sealed(),
        }
    }
}

macro_rules! vital {
    ($($of:ident $state:literal;)*) => {$(
        impl Vital for $of {
            const STATE: &'static str = $state;

            fn sample(&self) -> u64 {
                self.sample
            }

            fn check(&mut self) -> &mut u64 {
                &mut self.check
            }
        }
    )*};
}

vital! {
    Cpu "vitals.cpu";
    Memory "vitals.memory";
    Pressure "vitals.pressure";
    Disks "vitals.disks";
    Interfaces "vitals.interfaces";
}
