//! The machine a run was made on: figures mean little without it.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::Outcome;

/// What decides whether a figure can be trusted and compared.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) processors: usize,
    pub(crate) model: String,
    pub(crate) kernel: String,
    /// Load average over one minute, before the run.
    pub(crate) load: f64,
    /// Where the files of the run lie.
    pub(crate) scratch: PathBuf,
}

impl Machine {
    pub(crate) fn look(scratch: &Path) -> Machine {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Machine {
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            model: model_in(&read("/proc/cpuinfo")),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load: load_in(&read("/proc/loadavg")),
            scratch: scratch.to_owned(),
        }
    }

    pub(crate) fn header(&self) -> String {
        format!(
            "mainstay-bench: {} processors ({}), Linux {}, load average {:.2}, files in {}",
            self.processors,
            self.model,
            self.kernel,
            self.load,
            self.scratch.display()
        )
    }

    /// What a reader must know before believing the figures.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        // One busy process besides this run is enough to disturb two workers on two processors.
        if self.load > 0.5 {
            warnings.push(format!(
                "load average {:.2} before the run: other work disturbs wall times (ns_cpu figures \
                 and undisturbed windows less so); repeat on a quiet machine",
                self.load
            ));
        }
        if self.processors < 2 {
            warnings.push("one processor: scaling figures say nothing here".to_owned());
        }
        warnings
    }
}

fn model_in(cpuinfo: &str) -> String {
    cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| matches!(key.trim(), "model name" | "CPU part"))
        .map_or_else(|| "unknown".to_owned(), |(_, value)| value.trim().to_owned())
}

fn load_in(loadavg: &str) -> f64 {
    loadavg.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(0.0)
}

/// A directory in memory for the files of the run, removed at its end.
pub(crate) fn scratch() -> Outcome<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let in_memory = tempfile::Builder::new().prefix("mainstay-bench-").tempdir_in(base);
    Ok(in_memory.or_else(|_| tempfile::Builder::new().prefix("mainstay-bench-").tempdir())?)
}

/// What this process uses at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Private resident bytes.
    pub(crate) anonymous_bytes: u64,
    /// Address space.
    pub(crate) address_bytes: u64,
    /// Mappings, as the kernel counts them.
    pub(crate) mappings: usize,
}

impl Usage {
    pub(crate) fn now() -> Outcome<Usage> {
        let status = fs::read_to_string("/proc/self/status")?;
        let bytes = |key: &str| {
            let kilobytes = kilobytes_in(&status, key);
            kilobytes.map(|k| k * 1_024).ok_or(format!("/proc/self/status has no line {key}"))
        };
        Ok(Usage {
            anonymous_bytes: bytes("RssAnon:")?,
            address_bytes: bytes("VmSize:")?,
            mappings: fs::read_to_string("/proc/self/maps")?.lines().count(),
        })
    }
}

fn kilobytes_in(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(load: f64, processors: usize) -> Machine {
        let (model, kernel) = ("a processor".to_owned(), "6.12".to_owned());
        Machine { processors, model, kernel, load, scratch: PathBuf::from("/dev/shm/x") }
    }

    #[test]
    fn a_loaded_machine_and_a_lone_processor_are_warned_about() {
        assert!(machine(0.2, 2).warnings().is_empty());
        assert!(machine(3.0, 2).warnings()[0].contains("3.00"));
        assert!(machine(0.0, 1).warnings()[0].contains("one processor"));
    }

    #[test]
    fn what_the_kernel_prints_is_understood() {
        assert_eq!(
            model_in("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n"),
            "Some CPU @ 2 GHz"
        );
        assert_eq!(model_in("nothing"), "unknown");
        assert_eq!(load_in("1.25 0.9 0.5 1/200 4711\n"), 1.25);
        assert_eq!(kilobytes_in("VmRSS:\t 10 kB\nRssAnon:\t  128 kB\n", "RssAnon:"), Some(128));
        let usage = Usage::now().unwrap();
        assert!(usage.anonymous_bytes > 0 && usage.address_bytes > usage.anonymous_bytes);
        assert!(usage.mappings > 5);
    }
}
