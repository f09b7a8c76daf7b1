//! Who waits for something, and is to be woken.

use crate::limits::WAITERS_MAX;
use std::task::Waker;

/// A list of wakers, each at most once. Nearly always there is none or one.
#[derive(Default)]
pub(crate) struct Waiters {
    first: Option<Waker>,
    more: Vec<Waker>,
}

impl Waiters {
    /// Remembers one more. When there are too many (tasks that gave up leave theirs behind), all
    /// are woken to look again; those who still wait come back.
    pub(crate) fn add(&mut self, waker: &Waker) {
        let known = self.first.iter().chain(&self.more).any(|known| known.will_wake(waker));
        if known {
            return;
        }
        if self.first.is_none() {
            self.first = Some(waker.clone());
            return;
        }
        if self.more.len() >= WAITERS_MAX {
            std::mem::take(self).wake();
        }
        self.more.push(waker.clone());
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none() && self.more.is_empty()
    }

    /// Takes the only one out, to be woken once the lock is released; none if there are more.
    #[inline]
    pub(crate) fn take_only(&mut self) -> Option<Waker> {
        if self.more.is_empty() { self.first.take() } else { None }
    }

    /// Takes all out, to be woken once the lock is released.
    pub(crate) fn take(&mut self) -> Option<Self> {
        if self.first.is_none() && self.more.is_empty() {
            return None;
        }
        Some(std::mem::take(self))
    }

    pub(crate) fn wake(self) {
        self.first.into_iter().chain(self.more).for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_waiter_is_remembered_once_and_their_number_is_bounded() {
        let count = Arc::new(Count::default());
        let mut waiters = Waiters::default();
        let waker = Waker::from(Arc::clone(&count));
        waiters.add(&waker);
        waiters.add(&waker);
        waiters.take().unwrap().wake();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);

        let many: Vec<_> = (0..WAITERS_MAX + 2).map(|_| Arc::new(Count::default())).collect();
        many.iter().for_each(|one| waiters.add(&Waker::from(Arc::clone(one))));
        let woken = |range: &[Arc<Count>]| -> usize {
            range.iter().map(|one| one.0.load(Ordering::Relaxed)).sum()
        };
        assert_eq!(woken(&many), WAITERS_MAX + 1, "the last one found the list full");
        waiters.take().unwrap().wake();
        assert_eq!(woken(&many), WAITERS_MAX + 2);
        assert!(waiters.take().is_none());
    }
}
