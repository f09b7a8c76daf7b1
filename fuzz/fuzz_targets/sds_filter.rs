//! Filters from the wire, in both profiles and with any parameters: looked up and counted without
//! harm, and one that says too much says nothing.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use mainstay_fuzz::world;
use mainstay_sds::{
    bloom::{Params, PeerFilter, RollingFilter},
    hash::FilterHashes,
    wire::Profile,
};

#[derive(Arbitrary, Debug)]
struct Input {
    nim: bool,
    capacity: u8,
    error_thousandths: u16,
    adds: u16,
    a: u64,
    b: u64,
    bytes: Vec<u8>,
}

fuzz_target!(|input: Input| {
    world::plant();
    let profile = if input.nim { Profile::Nim } else { Profile::Lip };
    let rate = f64::from(input.error_thousandths % 500 + 1) / 1000.0;
    let Ok(params) = Params::new(u32::from(input.capacity), rate) else {
        assert_eq!(input.capacity, 0);
        return;
    };
    // Any bytes at all.
    if let Some(filter) = PeerFilter::parse(profile, &input.bytes, params) {
        let _found = filter.contains(FilterHashes { a: input.a, b: input.b });
        if let Some(rate) = filter.error_rate() {
            assert!((0.0..=0.02).contains(&rate), "{rate}");
        }
    }
    // One of our own, rolled over many times, is what a peer reads, and has the newest ids.
    let mut own = RollingFilter::new(profile, params);
    let count = u64::from(input.adds % 1024);
    let hashes = |number: u64| FilterHashes::of(profile, &number.to_le_bytes());
    for number in 0..count {
        own.add(hashes(number));
    }
    let bytes = own.to_bytes();
    let theirs = PeerFilter::parse(profile, &bytes, own.params()).expect("our own can be read");
    let kept = own.len() as u64;
    assert!(kept <= count && kept <= u64::from(params.capacity) * 6 / 5 + 1);
    for number in count - kept..count {
        assert!(own.contains(hashes(number)) && theirs.contains(hashes(number)), "{number}");
    }
});
