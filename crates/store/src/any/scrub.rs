//! What is not as it was written in one file of a store that somebody may write to.

use mainstay_storage::{Folder, Storage};

use super::{
    format::{
        ANY_FILE, AnyHeader, Frame, HintHeader, Kind, ListHeader, LogHeader, Record, log_end,
        next_sound, parse_name, read_list,
    },
    frames::NOT_AS_WRITTEN,
    raw::check_header,
    recover::{
        Hinted, LEN_MAX, TOO_LONG, UNREAD_HINT, any_header, hint_of, is_unfinished, is_unread,
        newest_list, wrong_with,
    },
    survey::{LogDamage, bad_copies_of},
};
use crate::{
    error::{Error, MISPLACED, Result},
    format::{BAD_COPY, DATA_AT, Header, IMPLAUSIBLE, Plausible, chain_start, read_headers},
    planted::{self, Fault},
    scrub::is_begun,
};

/// `names` are all files, in their order.
pub(crate) fn scrub_any<F: Folder>(
    folder: &F,
    names: &[String],
    name: &str,
) -> Result<Vec<LogDamage>> {
    let store = any_header(folder)?;
    check_header(&store)?;
    let mut looking = Looking { folder, store, name, damage: Vec::new() };
    match parse_name(name) {
        None if name == ANY_FILE => looking.copies::<AnyHeader>()?,
        None => {}
        Some((shard, number, Kind::Log)) => {
            let is_later = |other: &&String| {
                parse_name(other)
                    .is_some_and(|(of, at, kind)| of == shard && kind == Kind::Log && at > number)
            };
            // What follows it is asked before it is read itself.
            let mut is_full = false;
            for later in names.iter().filter(is_later) {
                is_full = is_full || is_begun::<LogHeader>(folder, later)?;
            }
            looking.log(shard, number, is_full)?;
        }
        Some((shard, number, Kind::Hint)) => looking.hint(shard, number)?,
        Some((shard, _, Kind::List)) => looking.list(shard)?,
    }
    Ok(looking.damage)
}

struct Looking<'a, F> {
    folder: &'a F,
    store: AnyHeader,
    name: &'a str,
    damage: Vec<LogDamage>,
}

impl<F: Folder> Looking<'_, F> {
    fn add(&mut self, offset: u64, what: &'static str, has_copy: bool) {
        let file = self.name.to_owned();
        self.damage.push(LogDamage { file, offset, what, has_copy });
    }

    fn copies<H: Header>(&mut self) -> Result<()> {
        for offset in bad_copies_of::<H>(self.folder, self.name)? {
            self.add(offset, BAD_COPY, true);
        }
        Ok(())
    }

    /// The header of a file, if it has one; one that is being made has none yet.
    fn header<H: Header>(&mut self, file: &F::File) -> Result<Option<H>> {
        let header = read_headers::<H>(file, self.name)?.pop();
        if header.is_none() && !is_unfinished(self.folder, self.name)? {
            self.add(0, "neither copy of the header is sound", false);
        }
        Ok(header)
    }

    fn log(&mut self, shard: u32, number: u64, is_full: bool) -> Result<()> {
        let name = self.name;
        let file = self.folder.file(name).map_err(Error::io(name))?;
        self.copies::<LogHeader>()?;
        let Some(head) = self.header::<LogHeader>(&file)? else { return Ok(()) };
        if !head.is_plausible() {
            self.add(0, IMPLAUSIBLE, false);
            return Ok(());
        }
        // What something says was durable of it is asked first: then it has to be in the file.
        let hint = hint_of(self.folder, &self.store, shard, number)?.and_then(Hinted::sound);
        let listed = newest_list(self.folder, &self.store, shard)?;
        let entry = listed.iter().flat_map(|(_, entries)| entries);
        let entry = entry.clone().find(|entry| entry.number.get() == number);
        let mut known = hint.map_or(0, |(_, head)| head.last.get());
        known = known.max(entry.map_or(0, |entry| entry.last.get()));
        // What the list says was durable then is in this file, or in one that was there already.
        let names = self.folder.names().map_err(Error::io("the directory"))?;
        let is_later = |name: &String| {
            parse_name(name)
                .is_some_and(|(of, at, kind)| (of, kind) == (shard, Kind::Log) && at > number)
        };
        if let (Some((list, _)), false) = (&listed, names.iter().any(is_later)) {
            known = known.max(list.vouched.get());
        }
        let len = file.len().map_err(Error::io(name))?;
        if len > LEN_MAX {
            self.add(LEN_MAX, TOO_LONG, false);
            return Ok(());
        }
        let mut bytes = vec![0; len.saturating_sub(DATA_AT) as usize];
        if !bytes.is_empty() {
            file.read_at(DATA_AT, &mut bytes).map_err(Error::io(name))?;
        }
        let (seed, route) = (chain_start(&self.store.id, shard), self.store.route());
        let mut is_told = false;
        let (mut at, mut sequence) = (0, head.first_sequence.get() - 1);
        let mut chain = Some(head.chain.get());
        loop {
            let frame = Frame::read(seed, bytes.get(at..).unwrap_or(&[])).filter(|frame| {
                frame.header.shard.get() == shard
                    && frame.header.sequence.get() == sequence + 1
                    && chain.is_none_or(|chain| chain == frame.header.chain.get())
            });
            let contents = frame.as_ref().and_then(Frame::contents);
            if let (Some(frame), Some(contents)) = (frame, contents) {
                let is_strange =
                    |of: &&Record<'_>| route.elsewhere(shard, of.change.key()).is_some();
                // The first one of a file: there may be as many as there are keys.
                if let Some(strange) = contents.records.iter().find(is_strange).filter(|_| !is_told)
                {
                    self.add(DATA_AT + (at + strange.at) as u64, MISPLACED, false);
                    is_told = true;
                }
                sequence += 1;
                chain = Some(frame.header.checksum.get());
                at += frame.header.len.get() as usize;
                continue;
            }
            let next = next_sound(seed, &bytes, at, (shard, sequence));
            let rest = bytes.get(at..).unwrap_or(&[]);
            let durable = next.map_or(0, |(_, head)| head.durable.get()).max(known);
            let is_damaged = chain.is_some_and(|chain| {
                let end = log_end(shard, (sequence, chain), DATA_AT + at as u64);
                end.is_damaged(rest)
            });
            // Before the next one was begun this one was synced.
            let is_missing =
                durable > sequence || is_damaged || (is_full && rest.iter().any(|byte| *byte != 0));
            if is_missing && !planted::is(Fault::ScrubFramesOnly) {
                self.add(DATA_AT + at as u64, NOT_AS_WRITTEN, false);
            }
            let Some((next, head)) = next else { return Ok(()) };
            (at, sequence, chain) = (next, head.sequence.get() - 1, None);
        }
    }

    fn hint(&mut self, shard: u32, number: u64) -> Result<()> {
        match wrong_with(self.folder, &self.store, shard, number)? {
            Some(what) => self.add(0, what, true),
            None => match self.copies::<HintHeader>() {
                Err(error) if is_unread(&error) => self.add(0, UNREAD_HINT, true),
                copies => copies?,
            },
        }
        Ok(())
    }

    fn list(&mut self, shard: u32) -> Result<()> {
        let name = self.name;
        let file = self.folder.file(name).map_err(Error::io(name))?;
        self.copies::<ListHeader>()?;
        let Some(head) = self.header::<ListHeader>(&file)? else { return Ok(()) };
        let Some(entries) = read_list(&file, &head, name)? else {
            self.add(DATA_AT, "the list is not as it was written", false);
            return Ok(());
        };
        // A segment goes when another list is there, which does not have it.
        let is_newest = || -> Result<bool> {
            let newest = newest_list(self.folder, &self.store, shard)?;
            Ok(newest.is_some_and(|(newest, _)| newest.generation == head.generation))
        };
        let names = self.folder.names().map_err(Error::io("the directory"))?;
        if is_newest()? {
            for entry in entries {
                let segment = Kind::Log.name(shard, entry.number.get());
                if !names.contains(&segment) {
                    let what = "the segment is missing";
                    self.damage.push(LogDamage { file: segment, offset: 0, what, has_copy: false });
                }
            }
        }
        Ok(())
    }
}
