//! P4: headers and data live on different pages, so attaching, releasing, parking and looking at a
//! block leave its data's pages alone.

use crate::{OnDisk, format::Layout, options};
use mainstay_pool::{Block, Kind, Offer, Pool, PoolView};
use std::os::unix::fs::FileExt;

/// Every page of all data regions, by its number in the file.
fn data_pages(shared: &OnDisk) -> Vec<(u64, Vec<u8>)> {
    let file = std::fs::read(&shared.path).unwrap();
    let layout = Layout::of(&file);
    let mut pages = Vec::new();
    for extent in 0..layout.extents {
        let start = layout.extents_offset + extent * layout.extent_size;
        let data = (start + layout.data_offset)..(start + layout.extent_size);
        for page in (data.start..data.end).step_by(4_096) {
            pages.push((page / 4_096, file[page as usize..page as usize + 4_096].to_vec()));
        }
    }
    pages
}

/// Every number in turn: all that may be done to blocks without touching their data.
fn busy_with_headers(pool: &Pool, other: &Pool, numbers: &[u32]) {
    for number in numbers {
        let block = pool.attach_number(*number).unwrap();
        let theirs = other.attach(block.id()).unwrap();
        let clone = block.try_clone().unwrap();
        let mut all = vec![0; block.len()];
        clone.read(0, &mut all).unwrap();
        drop(clone);
        block.park().unwrap();
        drop(theirs);
    }
    pool.recover(Offer::Unheld).unwrap().for_each(|offered| offered.park().unwrap());
    assert!(pool.verify().unwrap().is_sound());
    pool.info().unwrap();
    pool.holders().unwrap();
    assert!(pool.blocks().unwrap().count() > 0);
}

fn filled(shared: &OnDisk) -> Vec<u32> {
    let blocks: Vec<Block> =
        (0..300).map(|_| shared.pool.allocate(Kind::Recoverable).unwrap()).collect();
    for (value, block) in blocks.iter().enumerate() {
        block.write(0, &vec![value as u8 | 1; block.len()]).unwrap();
    }
    blocks.iter().map(Block::number).collect()
}

#[test]
fn p4_attach_release_and_park_change_header_pages_only() {
    for block_size in [64, 200, 5_000] {
        let shared = OnDisk::new(options(block_size).growth_step(64));
        let other = shared.join();
        let numbers = filled(&shared);
        let before = data_pages(&shared);
        let file_before = std::fs::read(&shared.path).unwrap();
        busy_with_headers(&shared.pool, &other, &numbers);
        assert!(before == data_pages(&shared), "P4: a data page has changed");
        // The comparison could fail: what a holder writes is seen there.
        shared.pool.attach_number(numbers[0]).unwrap().write(0, &[0xEE]).unwrap();
        assert!(before != data_pages(&shared));
        let held = shared.pool.attach_number(numbers[1]).unwrap();
        assert!(file_before != std::fs::read(&shared.path).unwrap(), "the words are elsewhere");
        drop(held);
    }
}

#[test]
fn p4_freeing_leaves_the_data_page_alone_until_the_block_is_allocated_again() {
    let shared = OnDisk::new(options(64));
    let numbers = filled(&shared);
    let before = data_pages(&shared);
    for number in &numbers {
        shared.pool.attach_number(*number).unwrap().free().unwrap();
    }
    shared.pool.flush();
    assert!(before == data_pages(&shared));
}

/// Bit 55 of an entry of `/proc/self/pagemap`: written to since `clear_refs`.
const SOFT_DIRTY: u64 = 1 << 55;

fn dirty(address: usize) -> bool {
    let pagemap = std::fs::File::open("/proc/self/pagemap").unwrap();
    let mut entry = [0; 8];
    pagemap.read_exact_at(&mut entry, address as u64 / 4_096 * 8).unwrap();
    u64::from_le_bytes(entry) & SOFT_DIRTY != 0
}

fn clear_refs() -> bool {
    std::fs::write("/proc/self/clear_refs", "4").is_ok()
}

#[test]
fn p4_reading_and_releasing_a_block_does_not_make_its_data_page_dirty() {
    let shared = OnDisk::new(options(4_096));
    let block = shared.pool.allocate(Kind::Recoverable).unwrap();
    let address = block.as_ptr().addr();
    let number = block.number();
    drop(block);
    let supported = clear_refs() && !dirty(address) && {
        let block = shared.pool.attach_number(number).unwrap();
        block.write(0, b"dirty").unwrap();
        dirty(address)
    };
    if !supported || !clear_refs() {
        println!("skipped: this kernel does not track soft-dirty pages");
        return;
    }
    let block = shared.pool.attach_number(number).unwrap();
    block.read(0, &mut [0; 100]).unwrap();
    drop(block);
    assert!(!dirty(address), "P4: the kernel saw a store to the data page");
}

#[test]
fn p4_a_view_maps_nothing_writable() {
    let shared = OnDisk::new(options(64));
    let numbers = filled(&shared);
    let view = PoolView::open(&shared.path).unwrap();
    let before = std::fs::read(&shared.path).unwrap();
    assert_eq!(view.info().unwrap().counts.parked, 300);
    assert_eq!(view.blocks().unwrap().filter(|block| block.kind.is_some()).count(), 300);
    assert!(view.copy_block(numbers[0]).unwrap().is_some());
    assert!(view.verify().unwrap().is_sound());
    assert!(before == std::fs::read(&shared.path).unwrap(), "looking changes no byte");
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let path = shared.path.display().to_string();
    assert!(maps.lines().any(|line| line.ends_with(&path) && line.contains(" r--s ")));
}
