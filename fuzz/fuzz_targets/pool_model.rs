//! Operations in any order, by two processes and by some that die, compared with a model.

#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use mainstay_fuzz::{
    model::{self, Operation},
    world,
};

fuzz_target!(|data: &[u8]| {
    world::prepare();
    let operations = Vec::<Operation>::arbitrary_take_rest(Unstructured::new(data));
    if let Ok(operations) = operations {
        model::run(&operations);
    }
});
