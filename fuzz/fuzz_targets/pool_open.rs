//! A pool file that nobody can trust: opened, read, recovered, used until it is full, repaired.
//! Never a crash, a hang, a leak; a refusal changes nothing.

#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use mainstay_fuzz::{
    drive::{self, Step},
    image::{Change, Image},
    world,
};

#[derive(Arbitrary, Debug)]
struct Input {
    large: bool,
    fix_checksum: bool,
    changes: Vec<Change>,
    steps: Vec<Step>,
}

const CHANGES_MAX: usize = 24;

fuzz_target!(|data: &[u8]| {
    world::prepare();
    let Some((first, rest)) = data.split_first() else { return };
    // One input in sixteen is the file itself, byte by byte.
    if *first >= 0xF0 {
        drive::everything(rest, &[]);
        return;
    }
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(rest)) else { return };
    let mut image = Image::valid(input.large);
    for change in input.changes.iter().take(CHANGES_MAX) {
        image.change(change);
    }
    if input.fix_checksum {
        image.fix_checksum();
    }
    drive::everything(&image.bytes, &input.steps);
});
