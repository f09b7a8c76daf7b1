//! A follower with a fault, for the comparison to find: it keeps what its leader deletes.

use std::sync::Arc;

use mainstay::{
    replica::{Chunk, Mended, Show, Sink},
    store::{Change, Directory, History, Identity, Position, RawStore, Result, read_changes},
};

/// Takes a leader's writes as it should, and then puts back what they have deleted.
#[derive(Clone)]
pub(super) struct Forgetful(pub(super) Arc<RawStore<Directory>>);

impl Sink for Forgetful {
    type Scan = <Arc<RawStore<Directory>> as Sink>::Scan;

    fn identity(&self) -> Identity {
        Sink::identity(&self.0)
    }

    fn write_bytes_max(&self) -> u64 {
        Sink::write_bytes_max(&self.0)
    }

    fn follows(&self) -> bool {
        Sink::follows(&self.0)
    }

    fn known_epoch(&self) -> u64 {
        Sink::known_epoch(&self.0)
    }

    fn know(&self, epoch: u64) -> Result<()> {
        Sink::know(&self.0, epoch)
    }

    fn is_whole(&self) -> bool {
        Sink::is_whole(&self.0)
    }

    fn set_whole(&self, is_whole: bool) -> Result<()> {
        Sink::set_whole(&self.0, is_whole)
    }

    fn history(&self, shard: u32) -> Result<History> {
        Sink::history(&self.0, shard)
    }

    fn records(&self, shard: u32) -> Result<u64> {
        Sink::records(&self.0, shard)
    }

    fn record(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Sink::record(&self.0, key)
    }

    fn scan(
        &self,
        shard: u32,
        scan: &mut Self::Scan,
        chunk: Chunk,
        wanted: &dyn Fn(&[u8]) -> bool,
        show: &mut Show<'_>,
    ) -> Result<bool> {
        Sink::scan(&self.0, shard, scan, chunk, wanted, show)
    }

    fn apply(&self, shard: u32, epoch: u64, count: u32, changes: &[u8]) -> Result<Position> {
        let mut deleted = Vec::new();
        read_changes(changes, count, self.0.lengths(), |change| {
            if let Change::Delete(key) = change {
                deleted.push(key);
            }
        });
        let mut kept = Vec::new();
        for key in deleted {
            kept.extend(self.0.get(key)?.map(|value| (key, value)));
        }
        let position = Sink::apply(&self.0, shard, epoch, count, changes)?;
        let back: Vec<_> = kept.iter().map(|(key, value)| (Change::Put(key, value), 0)).collect();
        if !back.is_empty() {
            Sink::mend(&self.0, shard, &back, History::At(position))?;
        }
        Ok(position)
    }

    fn mend(&self, shard: u32, changes: &[Mended<'_>], then: History) -> Result<()> {
        let puts = |change: &&Mended<'_>| matches!(change.0, Change::Put(..));
        let puts: Vec<_> = changes.iter().filter(puts).copied().collect();
        Sink::mend(&self.0, shard, &puts, then)
    }

    fn set_aside(&self, shard: u32, from: Position, records: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        Sink::set_aside(&self.0, shard, from, records)
    }

    fn sync(&self) -> Result<()> {
        Sink::sync(&self.0)
    }
}
