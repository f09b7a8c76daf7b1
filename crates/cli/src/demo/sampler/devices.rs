//! Disks, network interfaces and mounts.

use procfs::DiskStat;
use procfs::net::DeviceStatus;
use procfs::process::{MountInfo, Process as Proc};

use super::super::kinds::{Disk, Interface, Mount, text, text_end};
use super::Sink;

pub(super) fn visit<S: Sink>(sink: &mut S) -> Result<(), S::Error> {
    procfs::diskstats().iter().flatten().try_for_each(|disk| sink.record(&of_disk(disk)))?;
    if let Ok(interfaces) = procfs::net::dev_status() {
        interfaces.values().try_for_each(|status| sink.record(&of_interface(status)))?;
    }
    if let Ok(mounts) = Proc::myself().and_then(|me| me.mountinfo()) {
        mounts.into_iter().try_for_each(|mount| sink.record(&of_mount(&mount)))?;
    }
    Ok(())
}

fn of_disk(disk: &DiskStat) -> Disk {
    Disk {
        major: disk.major.cast_unsigned().into(),
        minor: disk.minor.cast_unsigned().into(),
        reads: disk.reads.into(),
        writes: disk.writes.into(),
        sectors_read: disk.sectors_read.into(),
        sectors_written: disk.sectors_written.into(),
        in_progress: disk.in_progress.into(),
        busy_ms: disk.time_in_progress.into(),
        name: text(&disk.name),
    }
}

fn of_interface(status: &DeviceStatus) -> Interface {
    Interface {
        name: text(&status.name),
        received_bytes: status.recv_bytes.into(),
        received_packets: status.recv_packets.into(),
        received_errors: status.recv_errs.into(),
        received_drops: status.recv_drop.into(),
        sent_bytes: status.sent_bytes.into(),
        sent_packets: status.sent_packets.into(),
        sent_errors: status.sent_errs.into(),
        sent_drops: status.sent_drop.into(),
    }
}

fn of_mount(mount: &MountInfo) -> Mount {
    let (major, minor) = mount.majmin.split_once(':').unwrap_or(("0", "0"));
    Mount {
        id: mount.mnt_id.cast_unsigned().into(),
        // The crate names the number of the parent mount `pid`.
        parent: mount.pid.cast_unsigned().into(),
        major: major.parse().unwrap_or(0).into(),
        minor: minor.parse().unwrap_or(0).into(),
        file_system: text(&mount.fs_type),
        point: text_end(&mount.mount_point.to_string_lossy()),
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromBytes;

    use super::super::super::kinds::Kind;
    use super::super::Group;
    use super::super::tests::collected;
    use super::*;

    #[test]
    fn as_many_disks_interfaces_and_mounts_are_found_as_the_files_have_lines() {
        let lines = |path: &str| std::fs::read_to_string(path).unwrap().lines().count();
        let found = collected(Group::Devices).0;
        let of = |kind| found.keys().filter(|key| key.kind == kind).count();
        assert_eq!(of(Kind::Disk), lines("/proc/diskstats"));
        // Two lines of headings.
        assert_eq!(of(Kind::Interface), lines("/proc/net/dev") - 2);
        assert_eq!(of(Kind::Mount), lines("/proc/self/mountinfo"));
    }

    #[test]
    fn the_root_is_mounted() {
        let root = text_end::<48>("/");
        assert!(
            collected(Group::Devices)
                .0
                .iter()
                .filter(|(key, _)| key.kind == Kind::Mount)
                .map(|(_, bytes)| Mount::read_from_bytes(bytes).unwrap())
                .any(|mount| mount.point == root)
        );
    }
}
