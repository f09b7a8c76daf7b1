//! Blocks, processes and counts in the form in which they are shown and printed as JSON.

use crate::{output::Side, size::grouped};
use mainstay::pool::{BlockInfo, Counts, Holder, Info, Kind, State};
use serde::Serialize;
use std::time::{Duration, SystemTime};

#[derive(Serialize, Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct CountsRow {
    pub(super) held: u64,
    pub(super) parked: u64,
    pub(super) orphaned: u64,
    pub(super) free: u64,
    pub(super) cached: u64,
    pub(super) corrupt: u64,
}

impl From<Counts> for CountsRow {
    fn from(counts: Counts) -> Self {
        Self {
            held: counts.held,
            parked: counts.parked,
            orphaned: counts.orphaned,
            free: counts.free,
            cached: counts.cached,
            corrupt: counts.corrupt,
        }
    }
}

impl CountsRow {
    /// `held 3, parked 2, ...`; corrupt ones only if there are any.
    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "held {}, parked {}, orphaned {}, free {}, cached {}",
            grouped(self.held),
            grouped(self.parked),
            grouped(self.orphaned),
            grouped(self.free),
            grouped(self.cached),
        );
        if self.corrupt > 0 {
            text.push_str(&format!(", corrupt {}", grouped(self.corrupt)));
        }
        text
    }
}

#[derive(Serialize)]
pub(super) struct BlockRow {
    id: String,
    number: u32,
    generation: u64,
    state: &'static str,
    /// What a free block had in its last life is nobody's business: none.
    #[serde(flatten)]
    live: Option<LiveRow>,
    /// Slots of the processes that hold it, or keep it at hand.
    holders: Vec<u32>,
}

#[derive(Serialize)]
struct LiveRow {
    kind: &'static str,
    uuid: String,
    used_bytes: usize,
    fingerprint: Option<String>,
    exclusive: bool,
    doomed: bool,
    /// None until a monitor (an index, say) has looked at the block.
    changed_unix_ns: Option<u64>,
}

pub(super) const BLOCK_COLUMNS: [(&str, Side); 8] = [
    ("BLOCK", Side::Right),
    ("STATE", Side::Left),
    ("KIND", Side::Left),
    ("HOLDERS", Side::Left),
    ("USED", Side::Right),
    ("TYPE", Side::Left),
    ("AGE", Side::Right),
    ("UUID", Side::Left),
];

impl BlockRow {
    pub(super) fn of(block: &BlockInfo) -> Self {
        let live = block.kind.map(|kind| LiveRow {
            kind: match kind {
                Kind::Recoverable => "recoverable",
                Kind::Transient => "transient",
            },
            uuid: block.uuid.to_string(),
            used_bytes: block.used_len,
            fingerprint: (block.fingerprint != 0).then(|| fingerprint(block.fingerprint)),
            exclusive: block.exclusive,
            doomed: block.doomed,
            changed_unix_ns: block.version.map(unix_ns),
        });
        Self {
            id: block.id.to_string(),
            number: block.id.number,
            generation: block.id.generation,
            state: state_name(block.state),
            live,
            holders: (0..u32::BITS).filter(|slot| block.owners & 1 << slot != 0).collect(),
        }
    }

    pub(super) fn cells(&self, now: SystemTime) -> Vec<String> {
        let none = || "-".to_owned();
        let holders: Vec<String> = self.holders.iter().map(u32::to_string).collect();
        let holders = if holders.is_empty() { none() } else { holders.join(",") };
        let Some(live) = &self.live else {
            let (id, state) = (self.id.clone(), self.state.to_owned());
            return vec![id, state, none(), holders, none(), none(), none(), none()];
        };
        let mut state = self.state.to_owned();
        if live.doomed {
            state.push_str(", to be freed");
        }
        let mut of_type = live.fingerprint.clone().unwrap_or_else(none);
        if live.exclusive {
            of_type.push_str(" box");
        }
        let changed =
            live.changed_unix_ns.map(|ns| SystemTime::UNIX_EPOCH + Duration::from_nanos(ns));
        vec![
            self.id.clone(),
            state,
            live.kind.to_owned(),
            holders,
            live.used_bytes.to_string(),
            of_type,
            changed.map_or_else(none, |then| age(now.duration_since(then).unwrap_or_default())),
            live.uuid.clone(),
        ]
    }
}

pub(super) fn state_name(state: State) -> &'static str {
    match state {
        State::Free => "free",
        State::Cached => "cached",
        State::Held => "held",
        State::Parked => "parked",
        State::Orphan => "orphan",
        // `State` may get more members; what this build does not know is not to be trusted.
        _ => "corrupt",
    }
}

pub(super) fn fingerprint(bits: u64) -> String {
    format!("{bits:#018x}")
}

pub(super) fn unix_ns(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Roughly how long: the two largest units are enough.
fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[derive(Serialize, Clone, PartialEq, Eq)]
pub(super) struct HolderRow {
    pub(super) slot: u32,
    pub(super) pid: u32,
    pub(super) name: String,
    pub(super) alive: bool,
    pub(super) held: u64,
    pub(super) cached: u64,
    pub(super) start_time_ticks: u64,
}

impl From<Holder> for HolderRow {
    fn from(holder: Holder) -> Self {
        Self {
            slot: holder.slot,
            pid: holder.pid,
            name: holder.name,
            alive: holder.alive,
            held: holder.held,
            cached: holder.cached,
            start_time_ticks: holder.start_time,
        }
    }
}

/// A pool's measures, as JSON.
#[derive(Serialize)]
pub(super) struct InfoRow {
    pub(super) name: String,
    pub(super) path: String,
    pub(super) uuid: String,
    pub(super) created_unix_ns: Option<u64>,
    pub(super) block_size_bytes: u64,
    pub(super) stride_bytes: u64,
    pub(super) blocks: u64,
    pub(super) blocks_max: u64,
    pub(super) growth_step_blocks: u64,
    pub(super) extents: u64,
    pub(super) extents_max: u64,
    pub(super) file_bytes: u64,
    pub(super) reserved_bytes: u64,
    pub(super) address_space_beyond_bytes: u64,
    pub(super) mappings: u64,
    pub(super) processes_alive: usize,
    pub(super) counts: CountsRow,
}

impl InfoRow {
    pub(super) fn of(info: &Info, path: &std::path::Path, holders: &[Holder]) -> Self {
        Self {
            name: info.name.clone(),
            path: path.display().to_string(),
            uuid: info.uuid.to_string(),
            created_unix_ns: None,
            block_size_bytes: info.block_size,
            stride_bytes: info.stride,
            blocks: info.blocks(),
            blocks_max: info.blocks_max(),
            growth_step_blocks: info.blocks_per_extent,
            extents: info.extents,
            extents_max: info.extents_max,
            file_bytes: info.file_len,
            reserved_bytes: info.reserved,
            address_space_beyond_bytes: info.address_space_beyond,
            mappings: info.mappings,
            processes_alive: holders.iter().filter(|holder| holder.alive).count(),
            counts: info.counts.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_told_in_its_two_largest_units() {
        let told = |seconds| age(Duration::from_secs(seconds));
        assert_eq!((told(0), told(59)), ("0s".into(), "59s".into()));
        assert_eq!((told(60), told(3_599)), ("1m0s".into(), "59m59s".into()));
        assert_eq!((told(3_600), told(86_400)), ("1h0m".into(), "1d0h".into()));
    }

    #[test]
    fn corrupt_blocks_are_counted_only_where_there_are_any() {
        let mut counts = CountsRow::from(Counts::default());
        assert!(!counts.text().contains("corrupt"));
        counts.corrupt = 2;
        assert!(counts.text().ends_with(", corrupt 2"));
    }
}
