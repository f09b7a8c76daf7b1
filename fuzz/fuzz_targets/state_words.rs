//! A state whose files nobody can trust: its header, its words, the table of pins, the leases and the
//! records of its folder are changed while it is used, and before it is subscribed to anew. Errors and
//! wrong values are fine; a crash, a hang or a panic is not, and its neighbour stays what it was.

#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use mainstay_base::crc32c;
use mainstay_fuzz::world;
use mainstay_state::{
    Domain, Grade, MultiTransaction, Result, RetryPolicy, State, StateOptions, together,
};
use std::{
    fs::{self, File},
    hint::black_box,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

#[derive(Arbitrary, Debug)]
enum Step {
    /// Changes eight bytes of a file.
    Scribble(Place, u16, Number),
    /// Changes the header, and makes its checksum fit.
    Header(u16, Number),
    Use(Use),
    /// Leaves, and subscribes again: then all is mapped anew.
    Anew,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Place {
    Words,
    Slots,
    Pins,
    Leases,
    Records,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Number {
    Any(u64),
    Small(u8),
    Bit(u8),
    Plain(u8, u8),
    Reference(u8, u8, u8, u8),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Use {
    Read,
    Copy,
    Replace(u8),
    Publish(u8),
    Transact,
    Resize(u16),
    Several,
    Together,
    Watch,
    View,
    Scavenge,
    Info,
    List,
    Sync,
}

const STEPS_MAX: usize = 24;
/// As `docs/format/state.md` has them.
const WORDS: u64 = 4_096;
const SLOT_LINES: u64 = 8_448;
const CHECKSUM: usize = 4_088;

impl Number {
    fn value(self) -> u64 {
        match self {
            Self::Any(value) => value,
            Self::Small(value) => value.into(),
            Self::Bit(bit) => 1 << (bit % 64),
            Self::Plain(version, slot) => u64::from(version) << 8 | u64::from(slot % 70),
            Self::Reference(base, new, record, sequence) => {
                let slots = u64::from(base % 64) << 57 | u64::from(new % 64) << 51;
                1 << 63 | slots | u64::from(record) << 40 | u64::from(sequence)
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    world::prepare();
    let Ok(steps) = Vec::<Step>::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let folder = world::folder();
    let mut world = World::new(folder.path());
    for step in steps.iter().take(STEPS_MAX) {
        world.take(step);
    }
});

struct World {
    folder: PathBuf,
    domain: Domain,
    hostile: Option<State<[u8]>>,
    neighbour: State<[u8]>,
}

fn options() -> StateOptions {
    StateOptions::new().size(64).size_limit(8_192).slots(3).slots_max(5)
}

impl World {
    fn new(folder: &Path) -> Self {
        let domain = Domain::open(folder.join("states")).expect("the folder is new");
        let kept = options().persistent(folder.join("kept"), Grade::Process);
        let hostile = kept.writer::<[u8]>(&domain, "hostile").expect("as above");
        hostile.replace(&[1; 64]).expect("as above");
        let neighbour = options().writer::<[u8]>(&domain, "neighbour").expect("as above");
        neighbour.replace(&[2; 64]).expect("as above");
        Self { folder: folder.into(), domain, hostile: Some(hostile), neighbour }
    }

    fn file(&self, place: Place) -> Option<(File, u64, u64)> {
        let states = self.folder.join("states");
        let pins = || {
            let id = self.hostile.as_ref()?.info().ok()?.id;
            Some(format!(".pins-{id:016x}"))
        };
        let (name, from, len) = match place {
            Place::Words => ("hostile.state".into(), WORDS, 512),
            Place::Slots => ("hostile.state".into(), SLOT_LINES, 5 * 64),
            Place::Pins => (pins()?, 0, 192 + 8 * 64),
            Place::Leases => (".leases".into(), 64, 3 * 64),
            Place::Records => (".records".into(), 64, 10 * 320),
        };
        let file = File::options().read(true).write(true).open(states.join(name)).ok()?;
        Some((file, from, len))
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Scribble(place, at, number) => {
                if let Some((file, from, len)) = self.file(*place) {
                    let at = from + u64::from(*at) * 8 % len;
                    file.write_all_at(&number.value().to_le_bytes(), at).expect("it is there");
                }
            }
            Step::Header(at, number) => {
                let Some((file, ..)) = self.file(Place::Words) else { return };
                let mut header = vec![0; WORDS as usize];
                file.read_exact_at(&mut header, 0).expect("it has a header");
                // Mostly in front, where the numbers are.
                let at = usize::from(*at);
                let at = if at % 8 == 7 { at % (CHECKSUM - 8) } else { at % 10 * 8 };
                header[at..at + 8].copy_from_slice(&number.value().to_le_bytes());
                let checksum = crc32c(&header[..CHECKSUM]).to_le_bytes();
                header[CHECKSUM..CHECKSUM + 4].copy_from_slice(&checksum);
                file.write_all_at(&header, 0).expect("as above");
            }
            Step::Anew => {
                drop(self.hostile.take());
                self.hostile = told(StateOptions::new().writer(&self.domain, "hostile"));
            }
            Step::Use(how) => {
                if let Some(state) = &self.hostile {
                    told(use_it(&self.domain, state, &self.neighbour, *how));
                }
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // Its own words were not touched; those of the folder can only get in the way.
            let value = fs::read(self.folder.join("states/neighbour.state")).expect("it is there");
            assert!(value.len() > WORDS as usize);
            told(self.neighbour.read().map(|value| assert!(value.iter().all(|byte| *byte >= 2))));
        }
    }
}

/// An error has words.
fn told<T>(result: Result<T>) -> Option<T> {
    result.map_err(|error| assert!(error.to_string().len() > 20, "{error}")).ok()
}

/// Reads every byte.
fn look(bytes: &[u8]) {
    black_box(bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>());
}

fn use_it(domain: &Domain, state: &State<[u8]>, neighbour: &State<[u8]>, how: Use) -> Result<()> {
    match how {
        Use::Read => state.read().map(|value| look(&value)),
        Use::Copy => state.copy_to(&mut [0; 100]).map(drop),
        Use::Replace(value) => state.replace(&[value; 64]).map(drop),
        Use::Publish(times) => {
            let mut publisher = state.publisher()?;
            (0..times % 5).try_for_each(|turn| publisher.publish(&[turn; 64]).map(drop))
        }
        Use::Transact => state.transact(RetryPolicy::new().tries(3), |transaction| {
            transaction.bytes_mut()?.fill(3);
            Ok(())
        }),
        Use::Resize(size) => state.set_size(size.into()),
        Use::Several => MultiTransaction::transact(RetryPolicy::new().tries(3), |both| {
            both.bytes_mut(state)?.fill(4);
            both.bytes_mut(neighbour)?.fill(4);
            Ok(())
        }),
        Use::Together => together((state, neighbour)).map(|(one, other)| {
            look(&one);
            look(&other);
        }),
        Use::Watch => state.watch()?.wait(Duration::ZERO).map(drop),
        Use::View => state.view(Duration::ZERO)?.get().map(|value| look(value)),
        Use::Scavenge => state.scavenge().map(drop),
        Use::Info => domain.info("hostile").map(drop),
        Use::List => domain.list().map(drop),
        Use::Sync => state.sync(),
    }
}
