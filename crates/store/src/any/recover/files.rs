//! Which files of a shard count.

use std::collections::BTreeSet;

use mainstay_storage::Folder;

use crate::{
    any::{
        format::{
            AnyHeader, Kind, ListEntry, ListHeader, LogHeader, parse_name, read_list, write_list,
        },
        index::Index,
    },
    error::{Error, Result},
    format::{IMPLAUSIBLE, NUMBERS_END, Plausible, chain_start, read_headers},
    recover::is_blank,
};

impl Plausible for LogHeader {
    fn is_plausible(&self) -> bool {
        (1..NUMBERS_END).contains(&self.first_sequence.get())
    }
}

/// The files that count, before their frames are read.
pub(super) struct Files<F: Folder> {
    shard: u32,
    /// Oldest first.
    pub(super) segments: Vec<(LogHeader, F::File)>,
    entries: Vec<ListEntry>,
    pub(super) list: ListHeader,
    /// Which segments have one.
    pub(super) hints: BTreeSet<u64>,
    leftovers: Vec<String>,
    pub(super) next_number: u64,
    pub(super) next_list: u64,
}

impl<F: Folder> Files<F> {
    pub(super) fn of(folder: &F, store: &AnyHeader, shard: u32) -> Result<Self> {
        let (mut lists, mut segments) = (Vec::new(), Vec::new());
        let (mut leftovers, mut blank) = (Vec::new(), Vec::new());
        let (mut next_number, mut next_list, mut hints) = (1, 1, BTreeSet::new());
        for name in folder.names().map_err(Error::io("the directory"))? {
            let Some((_, number, kind)) = parse_name(&name).filter(|name| name.0 == shard) else {
                continue;
            };
            let open = || folder.file(&name).map_err(Error::io(&*name));
            let ours = |id: [u8; 16], of: u32, named: u64| {
                let is_ours = id == store.id && of == shard && named == number;
                let what = "the file belongs to another store, shard or place";
                if is_ours { Ok(()) } else { Err(Error::damaged(&name, 0, what)) }
            };
            match kind {
                Kind::List => {
                    let file = open()?;
                    next_list = next_list.max(number + 1);
                    let head = read_headers::<ListHeader>(&file, &name)?.pop();
                    let entries = head.map(|head| read_list(&file, &head, &name)).transpose()?;
                    if let (Some(head), Some(Some(entries))) = (head, entries) {
                        ours(head.id, head.shard.get(), head.generation.get())?;
                        lists.push((head, entries));
                    } else {
                        leftovers.push(name);
                    }
                }
                Kind::Log => {
                    let file = open()?;
                    next_number = next_number.max(number + 1);
                    match read_headers::<LogHeader>(&file, &name)?.pop() {
                        Some(head) => {
                            ours(head.id, head.shard.get(), head.number.get())?;
                            segments.push((head, file));
                        }
                        None => blank.push((number, name, file)),
                    }
                }
                // Whether it can be opened and read does not matter.
                Kind::Hint => drop(hints.insert(number)),
            }
        }
        lists.sort_unstable_by_key(|(head, _)| head.generation.get());
        let Some((list, entries)) = lists.pop().filter(|(list, _)| list.is_plausible()) else {
            let what = "the list of segments is missing";
            return Err(Error::damaged(&Kind::List.name(shard, 1), 0, what));
        };
        let older = lists.iter().map(|(head, _)| Kind::List.name(shard, head.generation.get()));
        leftovers.extend(older);
        let is_listed = |number: u64| entries.iter().any(|entry| entry.number.get() == number);
        for (number, name, file) in blank {
            if is_listed(number) || (number > list.through.get() && !is_blank(&file, &name)?) {
                return Err(Error::damaged(&name, 0, "neither copy of the header is sound"));
            }
            leftovers.push(name);
        }
        segments.retain(|(head, _)| {
            let number = head.number.get();
            let counts = number > list.through.get() || is_listed(number);
            if !counts {
                leftovers.push(Kind::Log.name(shard, number));
            }
            counts
        });
        segments.sort_unstable_by_key(|(head, _)| head.number.get());
        Ok(Self { shard, segments, entries, list, hints, leftovers, next_number, next_list })
    }

    /// Every listed segment is there, and behind the list each continues the one before it.
    pub(super) fn check(&self, store: &AnyHeader) -> Result<()> {
        let name = |number| Kind::Log.name(self.shard, number);
        for entry in &self.entries {
            let number = entry.number.get();
            if !self.segments.iter().any(|(head, _)| head.number.get() == number) {
                return Err(Error::damaged(&name(number), 0, "the segment is missing"));
            }
        }
        for (head, _) in &self.segments {
            if !head.is_plausible() {
                let number = head.number.get();
                return Err(Error::damaged(&name(number), 0, IMPLAUSIBLE));
            }
        }
        // A segment is there for good before it has a hint. A hint may outlast its segment, which goes
        // only when there is a later one.
        let last = self.segments.last().map(|(head, _)| head.number.get());
        if let Some(number) = self.hints.last().copied().filter(|number| Some(*number) > last) {
            return Err(Error::damaged(&name(number), 0, "the segment is missing"));
        }
        let through = self.list.through.get();
        let Some((head, _)) = self.segments.iter().find(|one| one.0.number.get() > through) else {
            let what = "the end of the log is missing";
            return Err(Error::damaged(&name(through), 0, what));
        };
        let (sequence, chain) = (self.list.sequence.get(), self.list.chain.get());
        let follows = head.first_sequence.get() == sequence + 1 && head.chain.get() == chain;
        let starts = sequence > 0 || chain == chain_start(&store.id, self.shard);
        if !follows || !starts {
            let what = "the segment does not continue the one before";
            return Err(Error::damaged(&name(head.number.get()), 0, what));
        }
        Ok(())
    }

    /// Where a full segment has to end: as the list says, or the one behind it.
    pub(super) fn end_of(&self, at: usize) -> Option<(u64, u32)> {
        let number = self.segments[at].0.number.get();
        if let Some(entry) = self.entries.iter().find(|entry| entry.number.get() == number) {
            return Some((entry.last.get(), entry.chain.get()));
        }
        let (next, _) = self.segments.get(at + 1)?;
        Some((next.first_sequence.get() - 1, next.chain.get()))
    }
}

/// The newest sound list of a shard, if there is one.
pub(in crate::any) fn newest_list(
    folder: &impl Folder,
    store: &AnyHeader,
    shard: u32,
) -> Result<Option<(ListHeader, Vec<ListEntry>)>> {
    let mut newest: Option<(ListHeader, Vec<ListEntry>)> = None;
    for name in folder.names().map_err(Error::io("the directory"))? {
        let Some((_, number, Kind::List)) = parse_name(&name).filter(|of| of.0 == shard) else {
            continue;
        };
        if newest.as_ref().is_some_and(|(known, _)| known.generation.get() > number) {
            continue;
        }
        let file = match folder.file(&name).map_err(Error::io(&*name)) {
            Err(Error::Damaged { .. }) => continue,
            file => file?,
        };
        let Some(head) = read_headers::<ListHeader>(&file, &name)?.pop() else { continue };
        let is_it = head.id == store.id
            && head.shard.get() == shard
            && head.generation.get() == number
            && head.is_plausible();
        if let (true, Some(entries)) = (is_it, read_list(&file, &head, &name)?) {
            newest = Some((head, entries));
        }
    }
    Ok(newest)
}

impl Plausible for ListHeader {
    fn is_plausible(&self) -> bool {
        [self.sequence, self.generation, self.through, self.vouched]
            .iter()
            .all(|it| it.get() < NUMBERS_END)
    }
}

/// Removes what does not count, once what says so is durable: in a new list, since the one that
/// counts may be in the page cache only, and must stay if it cannot be written again. The number of
/// the next list.
pub(super) fn drop_leftovers<F: Folder>(
    folder: &F,
    shard: u32,
    files: Files<F>,
    index: &Index<F::File>,
) -> Result<u64> {
    let Files { mut list, entries, hints, mut leftovers, next_list, .. } = files;
    let without = hints.into_iter().filter(|number| !index.segments.contains_key(number));
    leftovers.extend(without.map(|number| Kind::Hint.name(shard, number)));
    if leftovers.is_empty() {
        return Ok(next_list);
    }
    leftovers.push(Kind::List.name(shard, list.generation.get()));
    list.generation = next_list.into();
    let name = Kind::List.name(shard, next_list);
    let again = || {
        write_list(&folder.file(&name)?, list, &entries)?;
        folder.sync_names()
    };
    again().map_err(Error::io(&*name))?;
    for name in leftovers {
        folder.remove(&name).map_err(Error::io(name))?;
    }
    Ok(next_list + 1)
}
