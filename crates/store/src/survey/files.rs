//! What the checksums of one file say, each frame and each chunk for itself.

use mainstay_storage::{Folder, Storage};
use zerocopy::{FromBytes, IntoBytes};

use super::{Damage, FileKind, FileReport};
use crate::{
    any::LogDamage,
    error::{Error, Result},
    format::{
        CHUNK_LEN, CHUNK_RECORDS, ChunkHeader, DATA_AT, IMPLAUSIBLE, ImageHeader, NUMBERS_END,
        Plausible, STORE_FILE, SegmentHeader, StoreHeader, chunk_sum, parse_name,
    },
    log::Frame,
    log_end::LogEnd,
    recover::store_header,
    scrub::is_begun,
    store::check_header,
    unwritten::Unwritten,
};

pub(crate) const MISSING: &str = "a write that was durable is not as it was written";

/// What is not as it was written in one file of a store that somebody may write to. `names` are all
/// files, in their order.
pub(crate) fn scrub_fixed<F: Folder>(
    folder: &F,
    names: &[String],
    name: &str,
) -> Result<Vec<LogDamage>> {
    let report = if name == STORE_FILE {
        store_header(folder)?;
        store_report(folder)?
    } else {
        let header = store_header(folder)?;
        check_header(&header)?;
        let Some((shard, number, is_image)) = parse_name(name) else { return Ok(Vec::new()) };
        let is_later = |other: &&String| {
            parse_name(other).is_some_and(|(of, at, image)| of == shard && !image && at > number)
        };
        // What follows it is asked before it is read itself.
        let mut is_full = false;
        for later in names.iter().filter(is_later).filter(|_| !is_image) {
            is_full = is_full || is_begun::<SegmentHeader>(folder, later)?;
        }
        let mut report = file_report(folder, &header, &[], name)?;
        if report.kind == FileKind::Leftover {
            let file = folder.file(name).map_err(Error::io(name))?;
            let mut front = vec![0; report.bytes.min(DATA_AT) as usize];
            file.read_at(0, &mut front).map_err(Error::io(name))?;
            // One that is being made has zeros there.
            if front.iter().any(|byte| *byte != 0) {
                report.add(0, "neither copy of the header is sound");
            }
        }
        // Before the next segment is begun, this one is synced.
        if is_full {
            for offset in std::mem::take(&mut report.gaps) {
                report.add(offset, MISSING);
            }
        }
        report
    };
    let place = |damage: Damage| LogDamage {
        file: name.to_owned(),
        offset: damage.offset,
        what: damage.what,
        has_copy: damage.has_copy,
    };
    Ok(report.damage.into_iter().map(place).collect())
}

pub(super) fn store_report<F: Folder>(folder: &F) -> Result<FileReport> {
    let file = folder.file(STORE_FILE).map_err(Error::io(STORE_FILE))?;
    let mut report = FileReport::new(STORE_FILE, file.len().map_err(Error::io(STORE_FILE))?);
    report.check_copies::<StoreHeader>(&file)?;
    Ok(report)
}

pub(super) fn file_report<F: Folder>(
    folder: &F,
    store: &StoreHeader,
    unwritten: &[Option<Unwritten>],
    name: &str,
) -> Result<FileReport> {
    let file = folder.file(name).map_err(Error::io(name))?;
    let mut report = FileReport::new(name, file.len().map_err(Error::io(name))?);
    let Some((shard, _, is_image)) = parse_name(name) else { return Ok(report) };
    report.shard = Some(shard);
    if is_image {
        report.kind = FileKind::Image;
        match report.check_copies::<ImageHeader>(&file)? {
            Some(header) if !header.is_plausible() => report.add(0, IMPLAUSIBLE),
            Some(header) => image(&mut report, &file, store, &header)?,
            None => report.kind = FileKind::Leftover,
        }
    } else {
        report.kind = FileKind::Segment;
        match report.check_copies::<SegmentHeader>(&file)? {
            Some(header) if !header.is_plausible() => report.add(0, IMPLAUSIBLE),
            Some(header) => {
                let unwritten = unwritten.get(shard as usize).and_then(Option::as_ref);
                segment(&mut report, &file, store, &header, unwritten)?;
            }
            // Whether it was ever begun is for the opening to say.
            None => report.kind = FileKind::Leftover,
        }
    }
    Ok(report)
}

/// Checks every frame, and goes on behind what cannot be read.
fn segment(
    report: &mut FileReport,
    file: &impl Storage,
    store: &StoreHeader,
    header: &SegmentHeader,
    mut unwritten: Option<&Unwritten>,
) -> Result<()> {
    let mut bytes = vec![0; report.bytes as usize];
    file.read_at(0, &mut bytes).map_err(Error::io(&*report.name))?;
    let lengths = (store.key_len.get() as usize, store.value_len.get() as usize);
    let (shard, route) = (header.shard.get(), store.route());
    let (mut sequence, mut chain) =
        (header.first_sequence.get().saturating_sub(1), header.chain.get());
    let mut at = DATA_AT as usize;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let (mut changes, mut has_strange) = (0, false);
        let sound = Frame::read(rest).filter(|frame| {
            frame.header.sequence.get() == sequence + 1
                && frame.header.chain.get() == chain
                && frame.header.shard.get() == shard
                && frame.changes(lengths.0, lengths.1, |change| {
                    changes += 1;
                    has_strange |= route.elsewhere(shard, change.key()).is_some();
                })
        });
        if let Some(frame) = sound {
            report.strange(at as u64, has_strange);
            report.parts += 1;
            report.records += changes;
            sequence += 1;
            chain = frame.header.checksum.get();
            at += frame.header.len.get() as usize;
            continue;
        }
        let (place, after) = ((header.number.get(), at), (sequence, chain, shard));
        if unwritten.is_some_and(|unwritten| unwritten.complete(place, &mut bytes, after)) {
            unwritten = None;
            continue;
        }
        let end = LogEnd::of_fixed(shard, (sequence, chain), at as u64);
        let is_damaged = end.is_damaged(&bytes[at..]);
        // The next frame that is sound by itself.
        let later = (at..bytes.len()).step_by(8).find_map(|at| {
            let frame = Frame::read(&bytes[at..])?;
            let is_ours = frame.header.shard.get() == shard;
            // One that is not made of changes would be found here again and again.
            let is_whole = frame.changes(lengths.0, lengths.1, |_| {});
            let is_later = (sequence + 1..NUMBERS_END).contains(&frame.header.sequence.get());
            (is_ours && is_whole && is_later).then_some((at, frame.header))
        });
        match later {
            Some((next, head)) => {
                // One that was never durable is the end of the log with something behind it.
                if is_damaged || head.durable.get().max(header.vouched.get()) > sequence {
                    report.add(at as u64, MISSING);
                } else {
                    report.gaps.push(at as u64);
                }
                (at, sequence, chain) = (next, head.sequence.get() - 1, head.chain.get());
            }
            None => {
                if is_damaged || header.vouched.get() > sequence {
                    report.add(at as u64, MISSING);
                } else if bytes[at..].iter().any(|byte| *byte != 0) {
                    report.gaps.push(at as u64);
                }
                break;
            }
        }
    }
    report.sequence = sequence;
    Ok(())
}

/// Checks every chunk, and goes on behind one that is not sound if its length can be believed.
fn image(
    report: &mut FileReport,
    file: &impl Storage,
    store: &StoreHeader,
    header: &ImageHeader,
) -> Result<()> {
    let (key_len, value_len) = (store.key_len.get() as usize, store.value_len.get() as usize);
    let (stride, shard, route) = (8 + key_len + value_len, header.shard.get(), store.route());
    let end = header.bytes.get().min(report.bytes);
    report.sequence = header.from.get();
    let mut at = DATA_AT;
    let mut bytes = Vec::new();
    for index in 0..header.chunks.get() {
        let mut head = [0; CHUNK_LEN];
        let Some(from) = at.checked_add(CHUNK_LEN as u64).filter(|from| *from <= end) else {
            report.add(at, "the image ends too early");
            return Ok(());
        };
        file.read_at(at, &mut head).map_err(Error::io(&*report.name))?;
        let Ok(chunk) = ChunkHeader::read_from_bytes(head.as_bytes()) else { return Ok(()) };
        let count = chunk.count.get() as usize;
        let len = count.min(CHUNK_RECORDS + 1) * stride;
        if count > CHUNK_RECORDS || from + len as u64 > end {
            report.add(at, "a chunk of the image has an impossible length; the rest is not read");
            return Ok(());
        }
        bytes.resize(len, 0);
        file.read_at(from, &mut bytes).map_err(Error::io(&*report.name))?;
        let is_it = chunk.index.get() == index && chunk.image.get() == header.number.get() as u32;
        if is_it && chunk_sum(&chunk, &bytes) == chunk.checksum.get() {
            report.parts += 1;
            report.records += count as u64;
            let is_strange = |record: &[u8]| route.elsewhere(shard, &record[8..8 + key_len]);
            let strange =
                bytes.chunks_exact(stride).position(|record| is_strange(record).is_some());
            let place = strange.map_or(from, |number| from + (number * stride) as u64);
            report.strange(place, strange.is_some());
        } else {
            report.add(at, "a chunk of the image is not as it was written");
        }
        at = from + len as u64;
    }
    Ok(())
}
