//! Records of a shard as they are in its log, some at a time.

use std::{collections::BTreeMap, sync::Arc};

use mainstay_storage::Folder;

use super::{
    format::{Place, RECORD_LEN, parts_of, record_bytes},
    kept::Record as OldRecord,
    shard::Shard,
};
use crate::error::Result;

/// What is still to be shown of a shard: of all records where they are.
///
/// Example: see [`crate::RawLogStore::scan`].
pub struct LogScan<F: Folder>(Option<Rest<F>>);

struct Rest<F: Folder> {
    /// With the lengths of keys; the next one last.
    places: Vec<(Place, u32)>,
    /// A segment that is removed meanwhile can still be read.
    files: BTreeMap<u64, Arc<F::File>>,
}

impl<F: Folder> Default for LogScan<F> {
    fn default() -> Self {
        Self(None)
    }
}

impl<F: Folder> Shard<F> {
    /// See [`crate::RawLogStore::scan`].
    pub(super) fn scan(
        &self,
        scan: &mut LogScan<F>,
        (records, bytes): (usize, u64),
        wanted: impl Fn(&[u8]) -> bool,
        mut show: impl FnMut(&[u8], &[u8]),
    ) -> Result<bool> {
        let rest = scan.0.get_or_insert_with(|| {
            let index = self.index();
            let wanted = index.lines.iter().filter(|(key, _)| wanted(key));
            let mut places: Vec<_> = wanted.map(|(key, place)| (place, key.len() as u32)).collect();
            places.sort_unstable_by_key(|(place, _)| std::cmp::Reverse((place.segment, place.at)));
            Rest { places, files: index.files() }
        });
        let (mut shown, mut left) = (0, bytes);
        while shown < records && left > 0 {
            let Some(&(place, key_len)) = rest.places.last() else { break };
            if shown > 0 && record_bytes(key_len as usize, place.value_len) > left {
                break;
            }
            rest.places.pop();
            let file = rest.files.get(&place.segment).ok_or_else(|| self.damaged(place))?;
            let record = self.whole(key_len as usize, (place, Arc::clone(file)))?;
            let (key, _) = parts_of(&record).ok_or_else(|| self.damaged(place))?;
            show(key, &record);
            shown += 1;
            left = left.saturating_sub(record.len() as u64);
        }
        Ok(!rest.places.is_empty())
    }

    /// A record that is there, whose key has so many bytes.
    pub(super) fn whole(
        &self,
        key_len: usize,
        (place, file): OldRecord<F::File>,
    ) -> Result<Vec<u8>> {
        let mut record = vec![0; RECORD_LEN + key_len + place.value_len as usize];
        self.read_record(&file, place, &mut record)?;
        parts_of(&record).ok_or_else(|| self.damaged(place))?;
        Ok(record)
    }
}
