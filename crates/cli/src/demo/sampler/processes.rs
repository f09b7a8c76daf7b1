//! Processes, threads and open descriptors.

use procfs::process::{FDInfo, FDTarget, Process as Proc, Stat, Task, all_processes};

use super::super::kinds::{Descriptor, Process, Thread, text, text_end};
use super::Sink;

pub(super) fn visit<S: Sink>(sink: &mut S) -> Result<(), S::Error> {
    let Ok(processes) = all_processes() else { return Ok(()) };
    // A process that ends between its listing and its reading is simply not there any more.
    for process in processes.flatten() {
        let Ok(stat) = process.stat() else { continue };
        sink.record(&of_process(&stat))?;
        threads(&process, sink)?;
        descriptors(&process, stat.starttime, sink)?;
    }
    Ok(())
}

fn threads<S: Sink>(process: &Proc, sink: &mut S) -> Result<(), S::Error> {
    let Ok(tasks) = process.tasks() else { return Ok(()) };
    for task in tasks.flatten() {
        if let Ok(stat) = task.stat() {
            sink.record(&of_thread(&task, &stat))?;
        }
    }
    Ok(())
}

fn descriptors<S: Sink>(process: &Proc, start_ticks: u64, sink: &mut S) -> Result<(), S::Error> {
    // Refused for processes of other users unless this one is root.
    let Ok(open) = process.fd() else { return Ok(()) };
    for descriptor in open.flatten() {
        sink.record(&of_descriptor(process.pid(), start_ticks, &descriptor))?;
    }
    Ok(())
}

fn of_process(stat: &Stat) -> Process {
    Process {
        pid: stat.pid.cast_unsigned().into(),
        parent: stat.ppid.cast_unsigned().into(),
        state: state(stat),
        reserved: [0; 3],
        threads: u32::try_from(stat.num_threads).unwrap_or(0).into(),
        user_ticks: stat.utime.into(),
        system_ticks: stat.stime.into(),
        start_ticks: stat.starttime.into(),
        resident_pages: stat.rss.into(),
        virtual_bytes: stat.vsize.into(),
        faults: stat.minflt.wrapping_add(stat.majflt).into(),
        comm: text(&stat.comm),
    }
}

fn of_thread(task: &Task, stat: &Stat) -> Thread {
    // Absent where the kernel was built without scheduler statistics.
    let (run_ns, wait_ns, slices) =
        task.schedstat().map_or((0, 0, 0), |s| (s.sum_exec_runtime, s.run_delay, s.pcount));
    Thread {
        pid: task.pid.cast_unsigned().into(),
        tid: task.tid.cast_unsigned().into(),
        state: state(stat),
        reserved: [0; 3],
        processor: stat.processor.unwrap_or(-1).into(),
        user_ticks: stat.utime.into(),
        system_ticks: stat.stime.into(),
        start_ticks: stat.starttime.into(),
        run_ns: run_ns.into(),
        wait_ns: wait_ns.into(),
        slices: slices.into(),
        comm: text(&stat.comm),
    }
}

fn of_descriptor(pid: i32, start_ticks: u64, descriptor: &FDInfo) -> Descriptor {
    let target = match &descriptor.target {
        FDTarget::Path(path) => path.to_string_lossy().into_owned(),
        FDTarget::Socket(inode) => format!("socket:{inode}"),
        FDTarget::Net(inode) => format!("net:{inode}"),
        FDTarget::Pipe(inode) => format!("pipe:{inode}"),
        FDTarget::AnonInode(name) => format!("anon:{name}"),
        FDTarget::MemFD(name) => format!("memfd:{name}"),
        FDTarget::Other(kind, inode) => format!("{kind}:{inode}"),
        FDTarget::Unknown(kind, name) => format!("{kind}:{name}"),
    };
    Descriptor {
        pid: pid.cast_unsigned().into(),
        number: descriptor.fd.cast_unsigned().into(),
        start_ticks: start_ticks.into(),
        target: text_end(&target),
    }
}

fn state(stat: &Stat) -> u8 {
    u8::try_from(stat.state).unwrap_or(b'?')
}

#[cfg(test)]
mod tests {
    use zerocopy::FromBytes;

    use super::super::super::kinds::Kind;
    use super::super::Group;
    use super::super::tests::collected;
    use super::*;

    #[test]
    fn this_very_process_its_thread_and_its_open_file_are_found() {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let _open = std::fs::File::open(manifest).unwrap();
        let found = collected(Group::Processes).0;
        let me = std::process::id();

        let mine = found
            .iter()
            .filter(|(key, _)| key.kind == Kind::Process)
            .map(|(_, bytes)| Process::read_from_bytes(bytes).unwrap())
            .find(|process| process.pid.get() == me)
            .unwrap();
        assert!(mine.resident_pages.get() > 0);
        assert!(mine.start_ticks.get() > 0);

        let threads = found
            .iter()
            .filter(|(key, _)| key.kind == Kind::Thread)
            .map(|(_, bytes)| Thread::read_from_bytes(bytes).unwrap())
            .filter(|thread| thread.pid.get() == me)
            .count();
        assert!(threads >= 1);

        let tail = text_end::<64>(manifest);
        assert!(
            found
                .iter()
                .filter(|(key, _)| key.kind == Kind::Descriptor)
                .map(|(_, bytes)| Descriptor::read_from_bytes(bytes).unwrap())
                .any(|open| open.pid.get() == me && open.target == tail)
        );
    }
}
