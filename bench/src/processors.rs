//! Where threads and processes run, for figures on which the scheduler's choice would have more influence
//! than what is measured.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::Outcome;

/// Keeps this thread on one processor until it is dropped.
pub(crate) struct Tied {
    allowed: CpuSet,
    pub(crate) here: usize,
    /// Another one, for somebody else; none where there is only one.
    pub(crate) there: Option<usize>,
}

impl Tied {
    pub(crate) fn new() -> Outcome<Tied> {
        let allowed = sched_getaffinity(None)?;
        let mut processors = (0..CpuSet::MAX_CPU).filter(|processor| allowed.is_set(*processor));
        let here = processors.next().ok_or("this process may run nowhere")?;
        let there = processors.next();
        tie_to(here)?;
        Ok(Tied { allowed, here, there })
    }
}

impl Drop for Tied {
    fn drop(&mut self) {
        // It was allowed before; where it is not any more, the thread stays where it is.
        let _ = sched_setaffinity(None, &self.allowed);
    }
}

/// Ties this thread, and what it starts, to one processor.
pub(crate) fn tie_to(processor: usize) -> Outcome<()> {
    let mut only = CpuSet::new();
    only.set(processor);
    Ok(sched_setaffinity(None, &only)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tied_thread_may_run_in_one_place_and_then_where_it_might_before() {
        let before = sched_getaffinity(None).unwrap();
        {
            let tied = Tied::new().unwrap();
            let now = sched_getaffinity(None).unwrap();
            assert!(now.is_set(tied.here) && now.count() == 1);
            assert!(tied.there.is_none_or(|there| there != tied.here && before.is_set(there)));
        }
        assert_eq!(sched_getaffinity(None).unwrap(), before);
    }
}
