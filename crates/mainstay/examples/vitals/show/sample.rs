//! Reads this machine, as `/proc` and `/sys` show it: nothing here is made up.
//!
//! What cannot be read (absent from this kernel, hidden in this container) stays zero.

use std::{fs, path::Path};

use procfs::{
    CpuPressure, Current, CurrentSI, DiskStats, IoPressure, KernelStats, Meminfo, MemoryPressure,
    net::InterfaceDeviceStatus,
};

use super::values::{Cpu, DEVICES_MAX, Disks, Interfaces, Memory, Name, Pressure, Vitals};

/// A sector of `/proc/diskstats` and `/sys/block/*/size`, whatever the device calls one.
const SECTOR_BYTES: u64 = 512;

/// Looks at the machine once.
pub(crate) fn take() -> Vitals {
    Vitals {
        cpu: cpu().unwrap_or_default(),
        memory: memory().unwrap_or_default(),
        pressure: pressure().unwrap_or_default(),
        disks: disks().unwrap_or_default(),
        interfaces: interfaces().unwrap_or_default(),
    }
}

fn cpu() -> Option<Cpu> {
    let stats = KernelStats::current().ok()?;
    let total = &stats.total;
    let more = |ticks: Option<u64>| ticks.unwrap_or(0);
    Some(Cpu {
        processors: stats.cpu_time.len() as u64,
        user_ticks: total.user + total.nice,
        system_ticks: total.system + more(total.irq) + more(total.softirq),
        idle_ticks: total.idle,
        waiting_ticks: more(total.iowait),
        stolen_ticks: more(total.steal),
        context_switches: stats.ctxt,
        forks: stats.processes,
        running: stats.procs_running.unwrap_or(0).into(),
        blocked: stats.procs_blocked.unwrap_or(0).into(),
        ..Cpu::default()
    })
}

fn memory() -> Option<Memory> {
    let now = Meminfo::current().ok()?;
    let kib = |bytes: u64| bytes / 1_024;
    Some(Memory {
        total_kib: kib(now.mem_total),
        free_kib: kib(now.mem_free),
        available_kib: kib(now.mem_available.unwrap_or(now.mem_free)),
        cached_kib: kib(now.cached),
        dirty_kib: kib(now.dirty),
        swap_total_kib: kib(now.swap_total),
        swap_free_kib: kib(now.swap_free),
        ..Memory::default()
    })
}

fn pressure() -> Option<Pressure> {
    let cpu = CpuPressure::current().ok()?;
    let memory = MemoryPressure::current().ok()?;
    let io = IoPressure::current().ok()?;
    Some(Pressure {
        known: 1,
        cpu_some: cpu.some.avg10.into(),
        memory_some: memory.some.avg10.into(),
        memory_full: memory.full.avg10.into(),
        io_some: io.some.avg10.into(),
        io_full: io.full.avg10.into(),
        ..Pressure::default()
    })
}

fn disks() -> Option<Disks> {
    let mut disks = Disks::default();
    let mut place = 0;
    for disk in DiskStats::current().ok()?.0 {
        // Partitions have no folder there, and loop devices without a file no size.
        let sectors = number(&Path::new("/sys/block").join(&disk.name).join("size")).unwrap_or(0);
        if sectors == 0 || place == DEVICES_MAX {
            continue;
        }
        disks.names[place] = name(&disk.name);
        disks.size_bytes[place] = sectors.saturating_mul(SECTOR_BYTES);
        disks.read_bytes[place] = disk.sectors_read.saturating_mul(SECTOR_BYTES);
        disks.written_bytes[place] = disk.sectors_written.saturating_mul(SECTOR_BYTES);
        disks.in_progress[place] = disk.in_progress;
        place += 1;
    }
    disks.count = place as u64;
    Some(disks)
}

fn interfaces() -> Option<Interfaces> {
    let mut found: Vec<_> = InterfaceDeviceStatus::current().ok()?.0.into_values().collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found.truncate(DEVICES_MAX);
    let mut interfaces = Interfaces { count: found.len() as u64, ..Interfaces::default() };
    for (place, status) in found.iter().enumerate() {
        let mtu = Path::new("/sys/class/net").join(&status.name).join("mtu");
        interfaces.names[place] = name(&status.name);
        interfaces.mtu_bytes[place] = number(&mtu).unwrap_or(0);
        interfaces.received_bytes[place] = status.recv_bytes;
        interfaces.sent_bytes[place] = status.sent_bytes;
        interfaces.dropped_packets[place] = status.recv_drop + status.sent_drop;
    }
    Some(interfaces)
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim_end().parse().ok()
}

fn name(text: &str) -> Name {
    let mut name = Name::default();
    let len = text.len().min(name.len());
    name[..len].copy_from_slice(&text.as_bytes()[..len]);
    name
}
