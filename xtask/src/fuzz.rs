//! `cargo xtask fuzz`: every decoder and every format against mutated input.
//!
//! Works on the stable toolchain: the compiler's own coverage pass is switched on by flags, and
//! libFuzzer comes as C++ source with a crate.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use crate::{
    error::{Error, Result},
    metadata::Metadata,
    project::{self, Project, Stream},
};

/// What libFuzzer needs to see which code an input reaches.
const COVERAGE: &str = "-Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    --cfg fuzzing";

/// Feed mutated input to every decoder and format
///
/// Builds the targets in fuzz/ and shares the time between those whose name begins with NAME.
/// Inputs that reached new code are kept in fuzz/corpus, those that crashed in fuzz/artifacts.
/// The last line is `FUZZ <name> runs=<n> crashes=<n>`. With --planted, faults are built into the
/// library one at a time, and each must be found: `FUZZ <name> planted=<n> found=<n>`. Needs a C++
/// compiler.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask fuzz                       every target, a minute in all\n  \
    cargo xtask fuzz pool --seconds 600    ten minutes on the pool\n  \
    cargo xtask fuzz pool --planted        does the fuzzer find what is wrong on purpose?")]
pub(crate) struct Args {
    /// Which targets: those whose name begins with this [default: all]
    name: Option<String>,
    /// How long, over all targets together
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Plant faults instead, and see that each is found
    #[arg(long)]
    planted: bool,
}

/// A fault that the library can be built with, and the target that must find it.
const PLANTED: &[(&str, &str)] = &[
    ("channel_frame", "frame-header-unchecked"),
    ("channel_frame", "frame-unchecked"),
    ("channel_handshake", "proof-unchecked"),
    ("pool_open", "extents-unchecked"),
    ("pool_model", "reap-frees-orphans"),
    ("pool_model", "reap-skips-cached"),
    ("sds_channel", "output-before-kept"),
    ("sds_filter", "filter-saturated"),
    ("sds_message", "message-id-unchecked"),
    ("sds_node", "archive-channel-unchecked"),
    ("sds_node", "node-full-unchecked"),
    ("sds_query", "answer-length-unchecked"),
    ("sds_query", "query-name-unchecked"),
    ("sds_saved", "saved-numbers-unchecked"),
    ("state_durable", "durable-body-unchecked"),
    ("state_durable", "durable-group-ignored"),
    ("state_durable", "durable-length-unchecked"),
    ("state_words", "slot-length-unchecked"),
    ("storage_encrypted", "sector-tag-unchecked"),
    ("store_any_files", "any-hint-unchecked"),
    ("store_any_files", "any-record-unchecked"),
    ("store_files", "store-chunk-unchecked"),
    ("store_files", "store-frame-unchecked"),
    ("stream_follower", "stream-place-unchecked"),
    ("stream_wire", "wire-count-unchecked"),
];

pub(crate) fn run(project: &Project, args: &Args) -> Result<()> {
    require_cxx()?;
    let fuzz = project.root().join("fuzz");
    let name = args.name.as_deref().unwrap_or_default();
    let targets = targets(&fuzz, name)?;
    let shown = if name.is_empty() { "all" } else { name };
    if args.planted {
        return find_planted(project, &fuzz, &targets, shown, args.seconds);
    }
    let folder = build(project, Build::Plain)?;

    let seconds_each = (args.seconds / targets.len() as u64).max(1);
    let mut runs = 0;
    let mut crashed = Vec::new();
    for target in &targets {
        eprintln!("\n==> fuzz {target}, {seconds_each} s");
        let attack = Attack::on(&fuzz, &folder, target)?;
        let (done, result) = attack.run(seconds_each, None);
        runs += done;
        if let Err(error) = result {
            eprintln!("error: {error}");
            attack.show_replay();
            crashed.push(error);
        }
    }
    println!("FUZZ {shown} runs={runs} crashes={}", crashed.len());
    crashed.into_iter().next().map_or(Ok(()), Err)
}

/// Each planted fault must be found, by the target named beside it, within `seconds`.
fn find_planted(
    project: &Project,
    fuzz: &Path,
    targets: &[String],
    shown: &str,
    seconds: u64,
) -> Result<()> {
    let folder = build(project, Build::Planted)?;
    let faults: Vec<_> =
        PLANTED.iter().filter(|(target, _)| targets.iter().any(|t| t == target)).collect();
    let mut found = 0;
    for (target, fault) in &faults {
        eprintln!("\n==> fuzz {target} with {fault} planted, at most {seconds} s");
        // A fault is to be found from nothing, and leaves nothing among the real findings.
        let scratch = fuzz.join("target/planted").join(fault);
        if scratch.exists() {
            fs::remove_dir_all(&scratch).map_err(|source| Error::File {
                action: "remove",
                path: scratch.clone(),
                source,
            })?;
        }
        let started = Instant::now();
        let attack = Attack::on(&scratch, &folder, target)?;
        let (runs, result) = attack.run(seconds, Some(fault));
        let seconds = started.elapsed().as_secs();
        if result.is_err() && attack.newest_finding().is_some() {
            found += 1;
            println!("found {fault} by {target} in {seconds} s, {runs} runs");
        } else {
            println!("MISSED {fault} by {target} in {seconds} s, {runs} runs");
        }
    }
    println!("FUZZ {shown} planted={} found={found}", faults.len());
    if found == faults.len() {
        return Ok(());
    }
    let what = format!("{} planted fault(s) in what the fuzzer found", faults.len() - found);
    let remedy =
        "give it more --seconds; if that does not help, a target has gone blind".to_owned();
    Err(Error::Missing { what, remedy })
}

/// The targets that `name` means, at least one.
fn targets(fuzz: &Path, name: &str) -> Result<Vec<String>> {
    let metadata = Metadata::of_manifest(&fuzz.join("Cargo.toml"))?;
    let all: Vec<_> = metadata
        .members()
        .flat_map(|package| &package.targets)
        .filter(|target| target.kind.iter().any(|kind| kind == "bin"))
        .map(|target| target.name.clone())
        .collect();
    let chosen: Vec<_> = all.iter().filter(|target| target.starts_with(name)).cloned().collect();
    if chosen.is_empty() {
        let remedy = format!("choose a beginning of one of: {}", all.join(", "));
        return Err(Error::Missing { what: format!("a fuzz target called `{name}`"), remedy });
    }
    Ok(chosen)
}

/// With what the targets are built.
#[derive(Clone, Copy)]
enum Build {
    Plain,
    Planted,
}

/// Builds every target and returns the folder they are in.
fn build(project: &Project, how: Build) -> Result<PathBuf> {
    let host = host()?;
    // Folders of their own, so that a build with faults never replaces one without.
    let (folder, features) = match how {
        Build::Plain => ("fuzz/target", ""),
        Build::Planted => ("fuzz/target/with-faults", "planted"),
    };
    let folder = project.root().join(folder);
    // With `--target` the flags do not reach build scripts, which could not be linked with them.
    let mut command = project.cargo(&["build", "--release", "--bins", "--target", &host]);
    command.args(["--features", features]);
    command.args(["--manifest-path", "fuzz/Cargo.toml", "--target-dir"]).arg(&folder);
    command.env("RUSTFLAGS", COVERAGE);
    project::run(&mut command)?;
    Ok(folder.join(host).join("release"))
}

/// One target, what it has learned, and what it has found.
struct Attack {
    program: PathBuf,
    corpus: PathBuf,
    artifacts: PathBuf,
}

impl Attack {
    /// `home` is where corpus and artifacts are kept.
    fn on(home: &Path, programs: &Path, target: &str) -> Result<Self> {
        let attack = Self {
            program: programs.join(target),
            corpus: home.join("corpus").join(target),
            artifacts: home.join("artifacts").join(target),
        };
        for folder in [&attack.corpus, &attack.artifacts] {
            fs::create_dir_all(folder).map_err(|source| Error::File {
                action: "create",
                path: folder.clone(),
                source,
            })?;
        }
        Ok(attack)
    }

    /// How many inputs it tried, and whether it survived them.
    fn run(&self, seconds: u64, fault: Option<&str>) -> (u64, Result<()>) {
        let mut command = Command::new(&self.program);
        command
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-artifact_prefix={}/", self.artifacts.display()))
            .args(["-print_final_stats=1", "-timeout=5", "-max_len=1024"])
            .arg(&self.corpus);
        if let Some(fault) = fault {
            command.env("MAINSTAY_PLANT", fault);
        }
        let mut runs = 0;
        let result = project::run_and_watch(&mut command, Stream::Err, |line| {
            if let Some(count) = line.strip_prefix("stat::number_of_executed_units:") {
                runs = count.trim().parse().unwrap_or(runs);
            }
        });
        (runs, result)
    }

    fn newest_finding(&self) -> Option<PathBuf> {
        let found = fs::read_dir(&self.artifacts).into_iter().flatten().flatten();
        let modified = |file: &fs::DirEntry| file.metadata().and_then(|data| data.modified()).ok();
        found.max_by_key(modified).map(|file| file.path())
    }

    /// Prints the command that repeats the newest finding.
    fn show_replay(&self) {
        if let Some(input) = self.newest_finding() {
            let program = self.program.display();
            eprintln!("replay: RUST_BACKTRACE=1 {program} -timeout=5 {}", input.display());
        }
    }
}

/// The platform this compiler builds for unless told otherwise.
fn host() -> Result<String> {
    let mut command = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let shown = "rustc -vV".to_owned();
    let output = command
        .arg("-vV")
        .output()
        .map_err(|source| Error::Start { command: shown.clone(), source })?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .ok_or(Error::Output { command: shown, complaint: "names no host".to_owned() })
}

fn require_cxx() -> Result<()> {
    let known = env::var("CXX").into_iter().chain(["c++", "g++", "clang++"].map(str::to_owned));
    let found = known.into_iter().any(|name| {
        let quiet = std::process::Stdio::null;
        let status = Command::new(name).arg("--version").stdout(quiet()).stderr(quiet()).status();
        status.is_ok_and(|status| status.success())
    });
    if found {
        return Ok(());
    }
    Err(Error::Missing {
        what: "a C++ compiler (libFuzzer is C++)".to_owned(),
        remedy: "install one (Debian: apt-get install g++), or name it in CXX".to_owned(),
    })
}
