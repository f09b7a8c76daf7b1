//! Two workers on one pool: threads, then processes. Method and controls: [`crate::windows`].

use std::fs::File;
use std::path::Path;

use mainstay_pool::{Kind, Pool};

use super::options;
use crate::Outcome;
use crate::child::{self, Child};
use crate::clock::wall_ns;
use crate::control::{self, Stack};
use crate::method::{Plan, REPETITIONS_MIN};
use crate::part::Group;
use crate::raw::SharedWords;
use crate::report::{Ratio, Report};
use crate::role::Role;
use crate::windows::{Load, Run, START_DELAY_NS, Scaled, Scaling, Window, record, run_threads};

const TWO_THREADS: [&str; 3] =
    ["pool.two_threads", "pool.two_threads_control", "pool.two_threads_apart"];
const TWO_PROCESSES: [&str; 3] = [
    "pool.alloc_release_64_two_processes",
    "pool.alloc_release_64_two_processes_control",
    "pool.alloc_release_64_two_processes_apart",
];

pub(super) const THREADS: Group = Group { figures: &TWO_THREADS, measure: measure_threads };
pub(super) const PROCESSES: Group = Group { figures: &TWO_PROCESSES, measure: measure_processes };

/// Runs one side of a scaling figure and prints its windows.
pub(super) const SCALE: Role = Role { name: "pool:scale", run: play };

const BYTES: usize = 64;
/// Operations between two looks at the clock: a few microseconds of them.
const BATCH: u64 = 200;
/// Undisturbed windows to stop at, and how often to try again for them on a busy machine.
const WINDOWS_WANTED: usize = 40;
const TRIES: usize = 4;

fn measure_threads(plan: &Plan, _scratch: &Path, report: &mut Report) -> Outcome<()> {
    let shared = Pools(vec![options(BYTES).create_memfd()?]);
    let apart = Pools(vec![options(BYTES).create_memfd()?, options(BYTES).create_memfd()?]);
    let words = control::private_words();
    let stack = Stack::fill(&words);
    let scaled = contest(
        plan,
        [
            &|workers| run_threads(&shared, workers, plan.windows),
            &|workers| run_threads(&stack, workers, plan.windows),
            &|workers| run_threads(&apart, workers, plan.windows),
        ],
    )?;
    let peers = ["one_thread", "one_thread_of_a_stack", "one_thread_of_two_pools"];
    push(report, TWO_THREADS, peers, scaled);
    Ok(())
}

fn measure_processes(plan: &Plan, scratch: &Path, report: &mut Report) -> Outcome<()> {
    let (pool_path, words_path) = (scratch.join("scaling.pool"), scratch.join("scaling.words"));
    let _pool = options(BYTES).create(&pool_path)?;
    let file = File::options().read(true).write(true).create_new(true).open(&words_path)?;
    let words = SharedWords::map(&file, control::WORDS)?;
    Stack::fill(&words);
    let scaled = contest(
        plan,
        [
            &|workers| run_processes(What::Shared, &pool_path, workers, plan.windows),
            &|workers| run_processes(What::Stack, &words_path, workers, plan.windows),
            &|workers| run_processes(What::Apart, scratch, workers, plan.windows),
        ],
    )?;
    let peers = ["one_process", "one_process_of_a_stack", "one_process_of_two_pools"];
    push(report, TWO_PROCESSES, peers, scaled);
    Ok(())
}

/// The pool, the control that does not scale, and the one that does: in turns, until each has
/// enough undisturbed windows.
fn contest(plan: &Plan, sides: [&dyn Fn(usize) -> Outcome<Run>; 3]) -> Outcome<[Scaled; 3]> {
    let mut scalings = [Scaling::default(), Scaling::default(), Scaling::default()];
    let rounds = plan.repetitions_heavy.max(REPETITIONS_MIN);
    for round in 0..rounds * TRIES {
        let enough = scalings.iter().all(|scaling| scaling.windows() >= WINDOWS_WANTED);
        if round >= rounds && enough {
            break;
        }
        for turn in 0..sides.len() {
            let who = (round + turn) % sides.len();
            scalings[who].push(sides[who](1)?, sides[who](2)?);
        }
    }
    let [shared, stack, apart] = scalings.map(|scaling| scaling.sum_up());
    match (shared, stack, apart) {
        (Some(shared), Some(stack), Some(apart)) => Ok([shared, stack, apart]),
        _ => Err("a scaling figure without a single run".into()),
    }
}

fn push(report: &mut Report, names: [&str; 3], peers: [&'static str; 3], scaled: [Scaled; 3]) {
    let [_, stack, apart] = scaled;
    if stack.ratio >= 1.0 {
        report.warnings.push(format!(
            "{}: the control seems to scale ({:.2}), so the figures beside it prove nothing",
            names[1], stack.ratio
        ));
    }
    if apart.ratio < 1.7 {
        report.warnings.push(format!(
            "{}: two workers that share nothing reach {:.2} times one, so this machine has not two \
             free processors",
            names[2], apart.ratio
        ));
    }
    for ((name, peer), scaled) in names.into_iter().zip(peers).zip(scaled) {
        report.ratios.push(Ratio::of_scaling(name, &scaled, peer));
    }
}

/// Workers on one pool, or each on its own.
struct Pools(Vec<Pool>);

impl Load for Pools {
    fn batch(&self, worker: usize) -> Outcome<Box<dyn FnMut() -> Outcome<u64> + '_>> {
        let pool = &self.0[worker % self.0.len()];
        Ok(Box::new(move || {
            for value in 0..BATCH {
                let block = pool.allocate(Kind::Transient)?;
                block.write(0, &value.to_le_bytes())?;
            }
            Ok(BATCH)
        }))
    }
}

impl Load for Stack<'_> {
    fn batch(&self, _worker: usize) -> Outcome<Box<dyn FnMut() -> Outcome<u64> + '_>> {
        Ok(Box::new(move || {
            for _ in 0..BATCH {
                let block = self.pop().ok_or("the control ran out of blocks")?;
                self.push(block);
            }
            Ok(BATCH)
        }))
    }
}

/// What a worker process works on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Shared,
    Stack,
    Apart,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            What::Shared => "shared",
            What::Stack => "stack",
            What::Apart => "apart",
        }
    }

    fn named(name: &str) -> Option<What> {
        [What::Shared, What::Stack, What::Apart].into_iter().find(|what| what.name() == name)
    }
}

fn run_processes(what: What, path: &Path, workers: usize, count: usize) -> Outcome<Run> {
    let path = path.to_str().ok_or("the path of the scratch directory is not UTF-8")?;
    let count = count.to_string();
    let mut children = Vec::with_capacity(workers);
    for _ in 0..workers {
        children.push(Child::start(&SCALE, &[what.name(), path, &count])?);
    }
    for child in &mut children {
        child.wait_ready()?;
    }
    let start = (wall_ns() + START_DELAY_NS).to_string();
    for child in &mut children {
        child.tell(&start)?;
    }
    children.into_iter().map(|child| parse(&child.finish()?)).collect()
}

/// The worker process: prepares, says so, is told when to start, prints what it did.
fn play(arguments: &[String]) -> Outcome<()> {
    let [what, path, count] = arguments else {
        return Err("the scale role takes what, path and windows".into());
    };
    let count: usize = count.parse()?;
    match What::named(what).ok_or("an unknown kind of work")? {
        What::Shared => work(&Pools(vec![options(BYTES).join(path)?]), count),
        What::Apart => work(&Pools(vec![options(BYTES).create_memfd()?]), count),
        What::Stack => {
            let file = File::options().read(true).write(true).open(path)?;
            let words = SharedWords::map(&file, control::WORDS)?;
            work(&Stack::join(&words), count)
        }
    }
}

fn work(load: &dyn Load, count: usize) -> Outcome<()> {
    let mut batch = load.batch(0)?;
    batch()?;
    child::say_ready()?;
    let start = child::read_order()?.parse()?;
    for window in record(start, count, batch)? {
        println!("{}", print(&window));
    }
    Ok(())
}

fn print(window: &Window) -> String {
    let Window { index, wall_ns, cpu_ns, operations } = window;
    format!("{index} {wall_ns} {cpu_ns} {operations}")
}

fn parse(lines: &str) -> Outcome<Vec<Window>> {
    let window = |line: &str| -> Outcome<Window> {
        let numbers: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let [index, wall_ns, cpu_ns, operations] = numbers[..] else {
            return Err(format!("a window has four numbers, not \"{line}\"").into());
        };
        Ok(Window { index, wall_ns, cpu_ns, operations })
    };
    lines.lines().map(window).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_survive_the_way_from_a_child_to_its_parent() {
        let windows: Vec<Window> = (0..3)
            .map(|k| Window { index: k, wall_ns: 2_000_123, cpu_ns: 1_999_000, operations: 77 + k })
            .collect();
        let said: String = windows.iter().map(|w| print(w) + "\n").collect();
        assert_eq!(parse(&said).unwrap(), windows);
        assert!(parse("1 2 3\n").is_err());
        assert!(parse("1 2 3 x\n").is_err());
    }

    #[test]
    fn a_load_that_two_workers_contend_for_is_reported_not_to_scale() {
        if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
            return;
        }
        let words = control::private_words();
        let stack = Stack::fill(&words);
        let mut scaling = Scaling::default();
        for _ in 0..20 {
            let one = run_threads(&stack, 1, 8).unwrap();
            scaling.push(one, run_threads(&stack, 2, 8).unwrap());
            if scaling.windows() >= 20 {
                break;
            }
        }
        let scaled = scaling.sum_up().unwrap();
        assert!(scaled.ratio < 1.2, "{scaled:?}");
    }
}
