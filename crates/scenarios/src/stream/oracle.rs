//! What is known of the history of each shard: which records belong to which place, and where each
//! place comes from.

use super::{
    kept::{KEY, bytes_of},
    order::{KEYS, Wanted, change_of},
    shelf::VALUE,
};
use mainstay_sim::{Disk, Storage};
use mainstay_store::Position;
use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

pub(super) type Records = BTreeMap<Vec<u8>, Vec<u8>>;

struct State {
    before: Option<Position>,
    records: Rc<Records>,
}

struct Open {
    shard: u32,
    changes: Wanted,
}

#[derive(Default)]
pub(super) struct Oracle {
    states: BTreeMap<(u32, Position), State>,
    /// Writes that were asked for, and of which it is not known what became.
    open: BTreeMap<u64, Open>,
    /// Where each write led.
    placed: BTreeMap<u64, (u32, Position)>,
    /// Keys and values have any sizes, for the stores.
    is_any: bool,
}

impl Oracle {
    pub(super) fn new(shards: u32, is_any: bool) -> Self {
        let mut oracle = Self { is_any, ..Self::default() };
        for shard in 0..shards {
            let records = Rc::default();
            oracle.states.insert((shard, Position::START), State { before: None, records });
        }
        oracle
    }

    fn bytes_of(&self, changes: &Wanted) -> Vec<u8> {
        bytes_of(&changes.iter().map(change_of).collect::<Vec<_>>(), self.is_any)
    }

    pub(super) fn asked(&mut self, ticket: u64, shard: u32, changes: Wanted) {
        self.open.insert(ticket, Open { shard, changes });
    }

    /// A write has led from one place to another.
    pub(super) fn wrote(
        &mut self,
        ticket: u64,
        before: Position,
        after: Position,
    ) -> Result<(), String> {
        let Some(Open { shard, changes }) = self.open.remove(&ticket) else {
            // It was found in a store before its writer told.
            return Ok(());
        };
        let bytes = self.bytes_of(&changes);
        if before.after(after.epoch, &bytes) != after {
            return Err(format!("Y1: write {ticket} led from {before:?} to {after:?}"));
        }
        let Some(state) = self.states.get(&(shard, before)) else {
            return Err(format!("Y1: write {ticket} came after {before:?}, which never was"));
        };
        let mut records = Records::clone(&state.records);
        for (key, value) in changes {
            let key = vec![KEYS[key as usize]];
            match value {
                Some(value) => drop(records.insert(key, value)),
                None => drop(records.remove(&key)),
            }
        }
        let state = State { before: Some(before), records: Rc::new(records) };
        self.states.insert((shard, after), state);
        self.placed.insert(ticket, (shard, after));
        Ok(())
    }

    /// The records of a place. One that nobody told of may be where an open write led: its writer
    /// died in the middle of it.
    pub(super) fn records(&mut self, shard: u32, at: Position) -> Result<Rc<Records>, String> {
        if !self.states.contains_key(&(shard, at)) {
            let before: Vec<Position> = self
                .states
                .keys()
                .filter(|(of, place)| *of == shard && place.sequence + 1 == at.sequence)
                .map(|(_, place)| *place)
                .collect();
            let leads = |(ticket, open): (&u64, &Open)| {
                let bytes = (open.shard == shard).then(|| self.bytes_of(&open.changes))?;
                let from = before.iter().find(|from| from.after(at.epoch, &bytes) == at)?;
                Some((*ticket, *from))
            };
            let Some((ticket, from)) = self.open.iter().find_map(leads) else {
                return Err(format!("Y1: nobody ever wrote what leads to {at:?} of shard {shard}"));
            };
            self.wrote(ticket, from, at)?;
        }
        let state = self.states.get(&(shard, at));
        state.map(|state| Rc::clone(&state.records)).ok_or_else(|| "Y1: no such place".to_owned())
    }

    /// Where an acknowledged write led.
    pub(super) fn place_of(&self, ticket: u64) -> Option<(u32, Position)> {
        self.placed.get(&ticket).copied()
    }

    /// All places that lead to this one, the last first.
    pub(super) fn lineage(
        &self,
        shard: u32,
        at: Position,
    ) -> impl Iterator<Item = (Position, &Records)> {
        let mut next = Some(at);
        std::iter::from_fn(move || {
            let at = next?;
            let state = self.states.get(&(shard, at))?;
            next = state.before;
            Some((at, &*state.records))
        })
    }

    /// Y5. A follower that was at one place is at another now: all that it had is in the history
    /// of the new place, or was set aside.
    pub(super) fn check_given_up(
        &self,
        disk: &Disk,
        shard: u32,
        was: Position,
        now: Position,
    ) -> Result<(), String> {
        let lineage: Vec<_> = self.lineage(shard, now).collect();
        if lineage.iter().any(|(place, _)| *place == was) {
            return Ok(());
        }
        let Some(old) = self.states.get(&(shard, was)) else { return Ok(()) };
        if disk.is_dead() {
            return Ok(());
        }
        // A disk that dies while it is looked at says nothing.
        let Ok(aside) = aside(disk) else { return Ok(()) };
        for (key, value) in &*old.records {
            let was_there = |(_, records): &(Position, &Records)| records.get(key) == Some(value);
            let is_aside = aside.contains(&(key.clone(), value.clone()));
            if !is_aside && !lineage.iter().any(was_there) {
                return Err(format!(
                    "Y5: {key:?} of shard {shard} at {was:?} is not in the history of {now:?}, and was not set aside"
                ));
            }
        }
        Ok(())
    }
}

/// What was set aside on a disk.
fn aside(disk: &Disk) -> std::io::Result<BTreeSet<(Vec<u8>, Vec<u8>)>> {
    // What the node could not read is still there.
    let faults = disk.faults();
    disk.set_faults(mainstay_sim::DiskFaults::NONE);
    let mut found = BTreeSet::new();
    for name in disk.names().into_iter().filter(|name| name.starts_with("aside-")) {
        let file = disk.file(&name);
        let mut bytes = vec![0; file.len()? as usize];
        file.read_at(0, &mut bytes)?;
        for line in String::from_utf8_lossy(&bytes).lines() {
            let mut words = line.split('"').filter_map(unhex);
            let record = words.by_ref().filter(|word| [KEY, VALUE].contains(&word.len()));
            let record: Vec<_> = record.collect();
            if let [key, value] = &record[..] {
                found.insert((key.clone(), value.clone()));
            }
        }
    }
    disk.set_faults(faults);
    Ok(found)
}

fn unhex(word: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        word.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect();
    let digits = digits.filter(|digits| !digits.is_empty() && digits.len() % 2 == 0)?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}
