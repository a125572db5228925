//! The work budget of an evaluation. It is thread-local during the evaluation, because CEL's traits cannot pass it through.

use std::cell::Cell;
use std::time::Instant;

/// Units of work of one message: about a million values made or compared, well below a second.
const WORK_MAX: u64 = 1_000_000;

/// The remaining budget of one message.
#[derive(Debug)]
pub(super) struct Meter {
    work: Cell<u64>,
    _deadline: Instant,
}

impl Meter {
    /// The budget of a message with this deadline.
    pub(super) fn new(deadline: Instant) -> Self {
        Self { work: Cell::new(WORK_MAX), _deadline: deadline }
    }
}

thread_local! {
    static LEFT: Cell<u64> = const { Cell::new(0) };
}

/// The budget of one CEL evaluation, taken from that of its message. The used part is charged on drop.
pub(super) struct Work<'m> {
    meter: &'m Meter,
    began_with: u64,
}

impl<'m> Work<'m> {
    pub(super) fn begin(meter: &'m Meter) -> Self {
        let began_with = meter.work.get();
        LEFT.set(began_with);
        Self { meter, began_with }
    }
}

impl Work<'_> {
    /// Charges units of work; false if the budget is exhausted.
    pub(super) fn spend(units: usize) -> bool {
        let left = LEFT.get().saturating_sub(units as u64);
        LEFT.set(left);
        left > 0
    }

    /// Whether the budget is exhausted.
    pub(super) fn is_spent() -> bool {
        LEFT.get() == 0
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        let used = self.began_with.saturating_sub(LEFT.get());
        self.meter.work.set(self.meter.work.get().saturating_sub(used));
    }
}
