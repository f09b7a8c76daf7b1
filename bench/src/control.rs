//! The control: a free list as one would write it first, known not to scale.
//!
//! One stack with one head, every block popped from it and pushed back to it by compare-and-swap.
//! Two workers fight for one cache line, and together they do less than one alone. A scaling figure
//! is worth something only if the same method, in the same run, says so of this stack.

use std::sync::atomic::{AtomicU64, Ordering};

/// Blocks on the stack.
pub(crate) const BLOCKS: usize = 1_024;
/// Words the stack needs: the head on a line of its own, then one link a block.
pub(crate) const WORDS: usize = LINKS + BLOCKS;
const LINKS: usize = 8;
const HEAD: usize = 0;
/// The low half of the head is a block's number plus one (0: empty), the high half counts changes,
/// so that a head read long ago never looks current.
const NUMBER_BITS: u32 = 32;

/// A stack of block numbers in shared words.
pub(crate) struct Stack<'a> {
    words: &'a [AtomicU64],
}

impl<'a> Stack<'a> {
    /// Puts every block on the stack. Nobody else may use the words yet.
    pub(crate) fn fill(words: &'a [AtomicU64]) -> Stack<'a> {
        let stack = Stack::join(words);
        words[HEAD].store(0, Ordering::Relaxed);
        for number in 0..BLOCKS as u64 {
            stack.push(number);
        }
        stack
    }

    /// Uses a stack that somebody filled.
    pub(crate) fn join(words: &'a [AtomicU64]) -> Stack<'a> {
        assert!(words.len() >= WORDS, "the control needs {WORDS} words, not {}", words.len());
        Stack { words }
    }

    /// Takes the block on top.
    #[inline]
    pub(crate) fn pop(&self) -> Option<u64> {
        let mut head = self.words[HEAD].load(Ordering::Acquire);
        loop {
            let number = (head & u64::from(u32::MAX)).checked_sub(1)?;
            let next = self.link(number).load(Ordering::Relaxed);
            match self.swap(head, next) {
                Ok(_) => return Some(number),
                Err(seen) => head = seen,
            }
        }
    }

    /// Puts a block on top.
    #[inline]
    pub(crate) fn push(&self, number: u64) {
        let mut head = self.words[HEAD].load(Ordering::Relaxed);
        loop {
            self.link(number).store(head & u64::from(u32::MAX), Ordering::Relaxed);
            match self.swap(head, number + 1) {
                Ok(_) => return,
                Err(seen) => head = seen,
            }
        }
    }

    fn link(&self, number: u64) -> &AtomicU64 {
        &self.words[LINKS + number as usize % BLOCKS]
    }

    fn swap(&self, head: u64, top: u64) -> Result<u64, u64> {
        let changes = (head >> NUMBER_BITS).wrapping_add(1);
        let new = changes << NUMBER_BITS | top;
        self.words[HEAD].compare_exchange_weak(head, new, Ordering::AcqRel, Ordering::Acquire)
    }
}

/// Words for a stack used by threads of one process.
pub(crate) fn private_words() -> Vec<AtomicU64> {
    std::iter::repeat_with(AtomicU64::default).take(WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_comes_off_once_and_an_empty_stack_says_so() {
        let words = private_words();
        let stack = Stack::fill(&words);
        let mut taken: Vec<u64> = std::iter::from_fn(|| stack.pop()).collect();
        taken.sort_unstable();
        assert_eq!(taken, (0..BLOCKS as u64).collect::<Vec<_>>());
        assert_eq!(stack.pop(), None);
    }

    #[test]
    fn two_threads_lose_no_block() {
        let words = private_words();
        let stack = Stack::fill(&words);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        let block = stack.pop().unwrap();
                        stack.push(block);
                    }
                });
            }
        });
        assert_eq!(std::iter::from_fn(|| stack.pop()).count(), BLOCKS);
    }
}
