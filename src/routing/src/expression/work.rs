//! How much work expressions may do for one step: data must not be able to make a cheap step dear.
//!
//! Values that are made for CEL and comparisons inside lists are counted. The count is of the thread, because CEL's own
//! traits leave no place to hand one through; a step runs on one thread from its start to its end.

use std::cell::Cell;

/// Units of work of one step: about a million values made or compared, well below a second.
const WORK_MAX: u64 = 1_000_000;

thread_local! {
    static LEFT: Cell<u64> = const { Cell::new(WORK_MAX) };
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Ends the count when the outermost one is dropped.
pub(crate) struct Work;

impl Work {
    /// Begins a count, or goes on with the one of the step that this is a part of.
    pub(crate) fn begin() -> Self {
        if DEPTH.get() == 0 {
            LEFT.set(WORK_MAX);
        }
        DEPTH.set(DEPTH.get() + 1);
        Self
    }

    /// Counts; false where there is no work left to do.
    pub(crate) fn spend(units: usize) -> bool {
        let left = LEFT.get().saturating_sub(units as u64);
        LEFT.set(left);
        left > 0
    }

    /// Whether the work is used up.
    pub(crate) fn is_spent() -> bool {
        LEFT.get() == 0
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get().saturating_sub(1));
    }
}
