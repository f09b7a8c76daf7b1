//! Bringing a copy up to date while the original is long at what it does.

use std::{cell::Cell, rc::Rc, sync::Arc};

use mainstay_replica::{Chunk, Found, Show, Source, update};
use mainstay_sim::Disk;
use mainstay_store::{
    Durability::Memory, Identity, Options, Position, RawStore, Reached, Result, Seek, Tail, Token,
    Written, limits::SEGMENT_BYTES_MIN,
};

const RECORDS: u16 = 300;
const VALUE: usize = 100;

/// A store that shows a record at a time: whoever looks through it takes as many steps as it has
/// records, and has nothing to say at most of them.
#[derive(Clone)]
struct Slow {
    store: Arc<RawStore<Disk>>,
    /// How often somebody looked.
    looks: Rc<Cell<u32>>,
}

impl Source for Slow {
    type Tail = Tail<Disk>;
    type Seek = Seek<Disk>;
    type Scan = <Arc<RawStore<Disk>> as Source>::Scan;

    fn identity(&self) -> Identity {
        Source::identity(&self.store)
    }

    fn write_bytes_max(&self) -> u64 {
        Source::write_bytes_max(&self.store)
    }

    fn epoch(&self) -> u64 {
        Source::epoch(&self.store)
    }

    fn fence(&self, epoch: u64) -> Result<()> {
        Source::fence(&self.store, epoch)
    }

    fn is_whole(&self) -> bool {
        Source::is_whole(&self.store)
    }

    fn tip(&self, shard: u32) -> Result<Option<Position>> {
        Source::tip(&self.store, shard)
    }

    fn records(&self, shard: u32) -> Result<u64> {
        Source::records(&self.store, shard)
    }

    fn tail_end(&self, shard: u32) -> Result<Tail<Disk>> {
        Source::tail_end(&self.store, shard)
    }

    fn seek(&self, shard: u32, position: Position) -> Result<Seek<Disk>> {
        Source::seek(&self.store, shard, position)
    }

    fn seek_on(&self, seek: &mut Seek<Disk>, bytes: u64) -> Result<Option<Found<Tail<Disk>>>> {
        Source::seek_on(&self.store, seek, bytes)
    }

    fn place(&self, tail: &Tail<Disk>) -> (Position, u64) {
        Source::place(&self.store, tail)
    }

    fn read(
        &self,
        tail: &mut Tail<Disk>,
        bytes_max: u64,
        each: &mut dyn FnMut(Written<'_>),
    ) -> Result<Reached> {
        Source::read(&self.store, tail, bytes_max, each)
    }

    fn behind_bytes(&self, tail: &Tail<Disk>) -> Result<u64> {
        Source::behind_bytes(&self.store, tail)
    }

    fn scan(
        &self,
        shard: u32,
        scan: &mut Self::Scan,
        chunk: Chunk,
        wanted: &dyn Fn(&[u8]) -> bool,
        show: &mut Show<'_>,
    ) -> Result<bool> {
        self.looks.set(self.looks.get() + 1);
        let chunk = Chunk { records: chunk.records.min(1), ..chunk };
        Source::scan(&self.store, shard, scan, chunk, wanted, show)
    }

    fn retain(&self, shard: u32, behind: Option<u64>) -> Result<()> {
        Source::retain(&self.store, shard, behind)
    }

    fn sequence_of(&self, token: Token) -> Result<u64> {
        Source::sequence_of(&self.store, token)
    }
}

fn options() -> Options {
    Options { shards: 1, segment_bytes: SEGMENT_BYTES_MIN, ..Options::default() }
}

#[test]
fn an_original_that_is_long_at_comparing_equal_records_is_waited_for() {
    let store = Arc::new(RawStore::create(Disk::new(1), 2, VALUE, &options()).unwrap());
    let copy = RawStore::create_replica(Disk::new(2), &store.identity(), &options()).unwrap();
    let copy = Arc::new(copy);
    for number in 0..RECORDS {
        store.put(&number.to_le_bytes(), &[1; VALUE], Memory).unwrap();
    }
    update(&store, &copy, |_, _| {}).unwrap();
    // So often that the log no longer has what the copy lacks.
    for round in 0..RECORDS {
        store.put(&[0; 2], &[round as u8; VALUE], Memory).unwrap();
    }
    store.compact().unwrap();
    let slow = Slow { store: Arc::clone(&store), looks: Rc::default() };
    let updated = update(&slow, &copy, |_, _| {}).unwrap();
    // Behind the end of the log nobody knows whether the one that differs was the original's once.
    assert_eq!((updated.compared, updated.set_aside), (1, 1));
    // All but one were equal; they are summed one by one without a word.
    assert!(slow.looks.get() >= 2 * u32::from(RECORDS), "{} looks", slow.looks.get());
    assert_eq!(copy.history(0).unwrap(), store.history(0).unwrap());
    let records = |store: &RawStore<Disk>| {
        let mut found = Vec::new();
        store.for_each(|key, value| found.push((key.to_vec(), value.to_vec()))).unwrap();
        found.sort_unstable();
        found
    };
    assert_eq!(records(&copy), records(&store));
}
