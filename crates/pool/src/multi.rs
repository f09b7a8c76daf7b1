//! How many more guards than one this process has of a block: a private table.
//!
//! Only blocks whose owner word says `multi` are looked up here, so the common case pays nothing.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

const STRIPES: usize = 16;

/// Block number -> guards beyond the first.
#[derive(Default)]
pub(crate) struct Extras {
    stripes: [Mutex<HashMap<u32, u64>>; STRIPES],
}

/// The entry of one block, locked.
pub(crate) struct Extra<'a> {
    stripe: MutexGuard<'a, HashMap<u32, u64>>,
    number: u32,
}

impl Extras {
    /// Forgets everything: for a repair, which has made sure that there are no guards. What stands
    /// here then is of guards whose owner words were overwritten meanwhile.
    pub(crate) fn clear(&self) {
        for stripe in &self.stripes {
            stripe.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    pub(crate) fn lock(&self, number: u32) -> Extra<'_> {
        let stripe = &self.stripes[number as usize % STRIPES];
        Extra { stripe: stripe.lock().unwrap_or_else(PoisonError::into_inner), number }
    }
}

impl Extra<'_> {
    /// One guard more.
    pub(crate) fn add(&mut self) {
        *self.stripe.entry(self.number).or_insert(0) += 1;
    }

    /// One guard less; false when there was none beyond the first.
    pub(crate) fn take(&mut self) -> bool {
        match self.stripe.get_mut(&self.number) {
            None => false,
            Some(1) => {
                self.stripe.remove(&self.number);
                true
            }
            Some(count) => {
                *count -= 1;
                true
            }
        }
    }
}
