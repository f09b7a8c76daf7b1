//! A disk that loses, tears, reorders and misdirects what was not synced, under the real code.
//!
//! A history is a random sequence of cuts, foldings, restarts and power cuts. All writes and syncs
//! are recorded; for every point between two of them the disk's possible contents are drawn, each
//! is loaded, and has to be the last completed cut or the one that was being completed. A
//! misdirected write destroys what was durable: then an error that names the damage is allowed as
//! well, but never a mix, and never a cut before the last but one.
//!
//! The negative control leaves syncs out, and has to be found bad.

use super::{
    format::{LIVE, Record},
    image::{Body, Fault, Image},
    storage::Storage,
};
use crate::{geometry::Geometry, ground::Sums, layout::Header};
use mainstay_base::{Name, Rng};
use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    io,
    rc::Rc,
};

const SECTOR: u64 = 512;
type Sector = [u8; SECTOR as usize];

#[derive(Clone)]
enum Step {
    Write(u64, Vec<u8>),
    Sync,
}

/// What was done to a disk since its first moment, which `start` is.
#[derive(Default)]
struct Tape {
    start: HashMap<u64, Sector>,
    steps: Vec<Step>,
}

/// A disk as its user sees it.
#[derive(Clone)]
struct Disk {
    now: HashMap<u64, Sector>,
    tape: Rc<RefCell<Tape>>,
    /// Every so many syncs one is not done; 0 never.
    skip_sync: u64,
    syncs: u64,
}

impl Disk {
    fn new(start: HashMap<u64, Sector>, skip_sync: u64) -> Self {
        let tape = Tape { start: start.clone(), steps: Vec::new() };
        Self { now: start, tape: Rc::new(RefCell::new(tape)), skip_sync, syncs: 0 }
    }
}

/// The sectors that a write touches, each as it is afterwards.
fn sectors(
    before: &HashMap<u64, Sector>,
    offset: u64,
    bytes: &[u8],
) -> impl Iterator<Item = (u64, Sector)> {
    let end = offset + bytes.len() as u64;
    (offset / SECTOR..end.div_ceil(SECTOR)).map(move |number| {
        let mut sector = before.get(&number).copied().unwrap_or([0; SECTOR as usize]);
        let from = offset.max(number * SECTOR);
        let to = end.min((number + 1) * SECTOR);
        sector[(from - number * SECTOR) as usize..(to - number * SECTOR) as usize]
            .copy_from_slice(&bytes[(from - offset) as usize..(to - offset) as usize]);
        (number, sector)
    })
}

impl Storage for Disk {
    fn read_at(&self, offset: u64, target: &mut [u8]) -> io::Result<()> {
        for (at, byte) in target.iter_mut().enumerate() {
            let at = offset + at as u64;
            let sector = self.now.get(&(at / SECTOR));
            *byte = sector.map_or(0, |sector| sector[(at % SECTOR) as usize]);
        }
        Ok(())
    }

    fn write_at(&mut self, offset: u64, source: &[u8]) -> io::Result<()> {
        self.tape.borrow_mut().steps.push(Step::Write(offset, source.to_vec()));
        let changed: Vec<_> = sectors(&self.now, offset, source).collect();
        self.now.extend(changed);
        Ok(())
    }

    fn allocate(&mut self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.syncs += 1;
        if self.skip_sync == 0 || !self.syncs.is_multiple_of(self.skip_sync) {
            self.tape.borrow_mut().steps.push(Step::Sync);
        }
        Ok(())
    }
}

/// What power cuts do to what was not synced.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// All of it is lost.
    Lost,
    /// It arrived up to some write, of which it arrived up to some sector.
    Prefix,
    /// Each sector of each write arrived or not: lost, torn and reordered.
    Scattered,
    /// As `Scattered`, and one of the sectors arrived somewhere else.
    Misdirected,
}

/// The disk after a power cut before step `at`.
fn after_power_cut(tape: &Tape, at: usize, fate: Fate, rng: &mut Rng) -> HashMap<u64, Sector> {
    let steps = &tape.steps[..at];
    let synced = steps.iter().rposition(|step| matches!(step, Step::Sync)).unwrap_or(0);
    let mut disk = tape.start.clone();
    for step in &steps[..synced] {
        if let Step::Write(offset, bytes) = step {
            let changed: Vec<_> = sectors(&disk, *offset, bytes).collect();
            disk.extend(changed);
        }
    }
    // The versions that the unsynced sectors had, in order.
    let mut volatile = disk.clone();
    let mut unsynced = Vec::new();
    for step in &steps[synced..] {
        if let Step::Write(offset, bytes) = step {
            let changed: Vec<_> = sectors(&volatile, *offset, bytes).collect();
            volatile.extend(changed.iter().copied());
            unsynced.extend(changed);
        }
    }
    match fate {
        Fate::Lost => {}
        Fate::Prefix => {
            let arrived = rng.below(unsynced.len() as u64 + 1) as usize;
            disk.extend(unsynced[..arrived].iter().copied());
        }
        Fate::Scattered | Fate::Misdirected => {
            let often = 1 + rng.below(9);
            unsynced.retain(|_| rng.below(10) < often);
            disk.extend(unsynced.iter().copied());
        }
    }
    if fate == Fate::Misdirected && !unsynced.is_empty() {
        let (_, wrong) = unsynced[rng.below(unsynced.len() as u64) as usize];
        // Where something is: elsewhere nobody would notice.
        let mut places: Vec<u64> = disk.keys().copied().collect();
        places.sort_unstable();
        disk.insert(places[rng.below(places.len() as u64) as usize], wrong);
    }
    disk
}

type Contents = BTreeMap<u32, (u64, Vec<u8>)>;

struct History {
    rng: Rng,
    geometry: Geometry,
    header: Header,
    /// What each cut must give back, by its number.
    cuts: Vec<Contents>,
    now: Contents,
    images: u64,
    bad: Vec<String>,
}

impl History {
    fn new(seed: u64) -> Self {
        let mut geometry = Geometry::plan(100, Some(8), 1 << 20, Some(32), 4_096).unwrap();
        geometry.extents_max = 4;
        let name = Name::new("model").unwrap();
        let header = Header::new(&name, [7; 16], &geometry, 0);
        Self {
            rng: Rng::seeded(seed),
            geometry,
            header,
            cuts: vec![Contents::new()],
            now: Contents::new(),
            images: 0,
            bad: Vec::new(),
        }
    }

    /// Changes some blocks; returns the body of the cut, and how many extents there are.
    fn change(&mut self) -> (Body, u64) {
        let mut body = Body::new();
        let mut numbers: Vec<u32> =
            (0..1 + self.rng.below(8)).map(|_| self.rng.below(32) as u32).collect();
        numbers.sort_unstable();
        numbers.dedup();
        for number in numbers {
            let (generation, mut data) =
                self.now.get(&number).cloned().unwrap_or((0, vec![0; 100]));
            let mut record = Record { number, generation, ..Record::default() };
            let freed = self.rng.below(5) == 0;
            if freed {
                record.generation += 1;
                self.now.remove(&number);
            } else {
                let byte = self.rng.next_u64() as u8;
                data.fill(byte);
                let sums = Sums::of(&data);
                record.flags = LIVE;
                (record.data_crc, record.data_sum) = (sums.crc32c, sums.crc64);
                self.now.insert(number, (generation, data.clone()));
            }
            let add = |bytes: &mut Vec<u8>| -> Result<_, Infallible> {
                if !freed {
                    bytes.extend_from_slice(&data);
                }
                Ok(Some((record, !freed)))
            };
            let Ok(()) = body.add(add);
        }
        let extents = self.now.keys().next_back().map_or(1, |number| u64::from(number / 8) + 1);
        // A freed block may lie in an extent that has no live one.
        (body, extents.max(4))
    }

    fn contents(image: &Image<Disk>) -> Option<Contents> {
        let mut contents = Contents::new();
        for number in 0..32 {
            let record = image.record(number);
            if record.is_live() {
                let mut data = vec![0; 100];
                if !image.read(number, &mut data).unwrap() {
                    return None;
                }
                contents.insert(number, (record.generation, data));
            }
        }
        Some(contents)
    }

    /// Tries every point between two steps of `tape` since step `from`, each with every fate.
    /// `begun` and `completed`: which cuts were begun, and completed, before which step.
    fn try_all(&mut self, tape: &Tape, begun: &[(usize, usize)], completed: &[(usize, usize)]) {
        let last = |list: &[(usize, usize)], at| {
            list.iter().take_while(|(step, _)| *step <= at).last().map_or(0, |(_, cut)| *cut)
        };
        for at in 0..=tape.steps.len() {
            let (first, last) = (last(completed, at), last(begun, at));
            for (fate, times) in
                [(Fate::Lost, 1), (Fate::Prefix, 1), (Fate::Scattered, 2), (Fate::Misdirected, 1)]
            {
                for _ in 0..times {
                    let disk = after_power_cut(tape, at, fate, &mut self.rng);
                    self.images += 1;
                    if let Some(wrong) = self.judge(disk, first, last, fate) {
                        self.bad.push(format!("power cut before step {at}, {fate:?}: {wrong}"));
                    }
                }
            }
        }
    }

    fn judge(
        &self,
        disk: HashMap<u64, Sector>,
        completed: usize,
        begun: usize,
        fate: Fate,
    ) -> Option<String> {
        let misdirected = fate == Fate::Misdirected;
        let image = match Image::load(Disk::new(disk, 0)) {
            Ok(image) => image,
            Err(Fault::NoCut | Fault::NotOne(_)) if completed == 0 => return None,
            // The one before was none at all.
            Err(Fault::NoCut) if misdirected && completed == 1 => return None,
            Err(
                fault @ (Fault::NotOne(_)
                | Fault::Damaged { .. }
                | Fault::Stale
                | Fault::Broken { .. }),
            ) => return (!misdirected).then(|| format!("{fault:?}")),
            Err(fault) => return Some(format!("{fault:?}")),
        };
        let cut = image.cut as usize;
        let earliest = if misdirected { completed.saturating_sub(1) } else { completed };
        if !(earliest..=begun).contains(&cut) {
            return Some(format!("cut {cut} instead of {completed} to {begun}"));
        }
        match Self::contents(&image) {
            Some(contents) if contents == self.cuts[cut] => None,
            Some(_) => Some(format!("a mix instead of cut {cut}")),
            None if misdirected => None,
            None => Some(format!("damaged data in cut {cut}")),
        }
    }

    /// One life of a disk, from `start` on; returns it as a power cut at the end leaves it.
    fn live(
        &mut self,
        start: Option<HashMap<u64, Sector>>,
        skip_sync: u64,
    ) -> Option<HashMap<u64, Sector>> {
        let continued = start.is_some();
        let disk = Disk::new(start.unwrap_or_default(), skip_sync);
        let tape = disk.tape.clone();
        let steps = || tape.borrow().steps.len();
        let (mut begun, mut completed) = (Vec::new(), Vec::new());
        let mut image = if continued {
            let mut image = Image::load(disk).unwrap();
            // What came back is what goes on: a cut that was being completed may be lost.
            self.cuts.truncate(image.cut as usize + 1);
            self.now = self.cuts[image.cut as usize].clone();
            begun.push((0, image.cut as usize));
            completed.push((0, image.cut as usize));
            image.settle().unwrap();
            image
        } else {
            Image::create(disk, [9; 16], self.header.clone(), self.geometry.clone()).unwrap()
        };
        image.fold_min(4_096 * (1 + self.rng.below(4)));
        for _ in 0..2 + self.rng.below(8) {
            if self.rng.below(8) == 0 && image.cut > 0 {
                // The process dies and another goes on: the disk keeps what it was given.
                let folds = 4_096 * (1 + self.rng.below(4));
                image = Image::load(image.into_storage()).unwrap();
                image.settle().unwrap();
                image.fold_min(folds);
            }
            let (body, extents) = self.change();
            self.cuts.push(self.now.clone());
            let cut = self.cuts.len() - 1;
            begun.push((steps() + 1, cut));
            image.append(body, extents, 0).unwrap();
            // The cut is complete with its sync; folding comes after it.
            let tape = tape.borrow();
            let sync = tape.steps.iter().rposition(|step| matches!(step, Step::Sync));
            completed.push((sync.map_or(tape.steps.len(), |sync| sync + 1), cut));
        }
        let tape = tape.borrow();
        self.try_all(&tape, &begun, &completed);
        let at = tape.steps.len();
        Some(after_power_cut(&tape, at, Fate::Scattered, &mut self.rng))
    }
}

#[test]
fn c1_c3_every_power_cut_of_many_histories_gives_back_a_cut_and_never_a_mix() {
    const HISTORIES: u64 = 220;
    let mut images = 0;
    for seed in 0..HISTORIES {
        let mut history = History::new(seed);
        let mut disk = None;
        for _ in 0..1 + history.rng.below(2) {
            disk = history.live(disk, 0);
        }
        assert!(history.bad.is_empty(), "seed {seed}: {:#?}", history.bad);
        images += history.images;
    }
    println!("{HISTORIES} histories, {images} images opened, none a mix");
    assert!(images > 20_000);
}

#[test]
fn with_a_sync_left_out_power_cuts_are_found_that_lose_or_mix() {
    let (mut found, mut images) = (0, 0);
    for seed in 0..40 {
        let mut history = History::new(seed);
        history.live(None, 2);
        found += u32::from(!history.bad.is_empty());
        images += history.images;
    }
    println!("control: {found} of 40 histories without each second sync are bad ({images} images)");
    assert!(found > 30, "the model is blind: {found}");
}

#[test]
fn c3_no_changed_byte_of_a_checkpoint_file_makes_another_pool() {
    let mut history = History::new(7);
    let disk = history.live(None, 0).unwrap();
    let image = Image::load(Disk::new(disk.clone(), 0)).unwrap();
    let sound = (image.cut, History::contents(&image).unwrap());
    let mut errors = 0;
    for _ in 0..3_000 {
        let mut damaged = disk.clone();
        let mut sectors: Vec<u64> = damaged.keys().copied().collect();
        sectors.sort_unstable();
        let sector = sectors[history.rng.below(sectors.len() as u64) as usize];
        let byte = history.rng.below(SECTOR) as usize;
        let bit = 1 << history.rng.below(8);
        damaged.entry(sector).and_modify(|sector| sector[byte] ^= bit);
        match Image::load(Disk::new(damaged, 0)) {
            Ok(image) => {
                // A damaged last cut looks as if it was never completed.
                let cut = image.cut as usize;
                assert!(cut + 1 >= sound.0 as usize, "cut {cut} of {}", sound.0);
                if let Some(contents) = History::contents(&image) {
                    assert_eq!(contents, history.cuts[cut]);
                } else {
                    errors += 1;
                }
            }
            Err(Fault::Io(error)) => panic!("{error}"),
            Err(_) => errors += 1,
        }
    }
    assert!(errors > 100, "damage is seen: {errors}");
}

/// A disk of which a sync fails.
struct Failing(Disk, u64);

impl Storage for Failing {
    fn read_at(&self, offset: u64, target: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, target)
    }

    fn write_at(&mut self, offset: u64, source: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, source)
    }

    fn allocate(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.0.allocate(offset, len)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.1 -= 1;
        if self.1 == 0 { Err(io::Error::from_raw_os_error(5)) } else { self.0.sync() }
    }
}

#[test]
fn c4_after_a_failed_sync_the_file_is_written_no_more() {
    let mut history = History::new(1);
    let disk = Failing(Disk::new(HashMap::new(), 0), 3);
    let (header, geometry) = (history.header.clone(), history.geometry.clone());
    let mut image = Image::create(disk, [9; 16], header, geometry).unwrap();
    for cut in 1..=4 {
        let (body, extents) = history.change();
        let appended = image.append(body, extents, 0);
        match cut {
            1 | 2 => appended.unwrap(),
            3 => assert!(matches!(appended, Err(Fault::Io(_)))),
            _ => assert!(matches!(appended, Err(Fault::Failed))),
        }
    }
    assert!(image.has_failed() && image.cut == 2);
}

#[test]
fn a_log_is_folded_before_it_is_full_however_small_the_pool() {
    let mut history = History::new(3);
    let disk = Disk::new(HashMap::new(), 0);
    let (header, geometry) = (history.header.clone(), history.geometry.clone());
    let mut image = Image::create(disk, [9; 16], header, geometry).unwrap();
    for _ in 0..100 {
        let (body, extents) = history.change();
        image.append(body, extents, 0).unwrap();
    }
    let image = Image::load(image.into_storage()).unwrap();
    assert_eq!((image.cut, History::contents(&image)), (100, Some(history.now)));
}
