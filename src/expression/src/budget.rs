//! The evaluation budget of one message: work, memory and time across all steps of its route, charged before they are spent.
//!
//! No message may make a cheap step expensive. Creating or comparing a value counts as work. A copy or a new value counts in bytes; shared
//! text is free.

use std::cell::Cell;
use std::time::Instant;

use crossdock_message::Value;

/// Units of work per message: about a million values created or compared, well below a second.
pub const WORK_MAX: u64 = 1_000_000;
/// Bytes allocated for the values of one message, including values already dropped. Together with the largest serialized body, an
/// evaluation stays below 64 MiB.
pub const BYTES_MAX: u64 = 40 << 20;
/// Units of work between two checks of the clock.
const CLOCK_CHECK_UNITS: u32 = 1024;
/// Bytes scanned or copied per unit of work.
pub const BYTES_PER_UNIT: usize = 128;

/// The limits of one slice: about ten microseconds of work.
const SLICE_WORK: u64 = 400;
const SLICE_BYTES: u64 = 64 << 10;
/// Bytes of a body that may be parsed or traversed within a slice.
pub const SLICE_READ: usize = 16 << 10;

/// The remaining budget of one message.
#[derive(Debug)]
pub struct Budget {
    work: Cell<u64>,
    bytes: Cell<u64>,
    /// Lower bounds of the remaining budget; above zero only within a slice.
    work_min: Cell<u64>,
    bytes_min: Cell<u64>,
    slice: Cell<Slice>,
    deadline: Instant,
    until_clock_check: Cell<u32>,
}

/// Whether the budget is limited to one slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slice {
    /// Not limited.
    None,
    /// Limited.
    Within,
    /// Limited, and the limit was exceeded.
    Exceeded,
}

/// Which part of a budget is exhausted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exhausted {
    /// No work is left.
    Work,
    /// No memory is left.
    Bytes,
    /// The deadline has passed.
    Time,
    /// The slice is too short.
    Slice,
}

impl Budget {
    /// The full budget of a message whose exchange must end by `deadline`.
    #[must_use]
    pub fn new(deadline: Instant) -> Self {
        Self {
            work: Cell::new(WORK_MAX),
            bytes: Cell::new(BYTES_MAX),
            work_min: Cell::new(0),
            bytes_min: Cell::new(0),
            slice: Cell::new(Slice::None),
            deadline,
            until_clock_check: Cell::new(CLOCK_CHECK_UNITS),
        }
    }

    /// An exhausted budget: a placeholder while the real one is on another thread.
    #[must_use]
    pub fn exhausted(deadline: Instant) -> Self {
        let budget = Self::new(deadline);
        budget.work.set(0);
        budget.bytes.set(0);
        budget
    }

    /// Units of work and bytes used so far.
    #[must_use]
    pub fn used(&self) -> (u64, u64) {
        (WORK_MAX - self.work.get(), BYTES_MAX - self.bytes.get())
    }

    /// Runs `work` within one slice. Returns `None` if it exceeds the slice: nothing is charged, and the caller reruns it elsewhere.
    pub fn in_slice<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        let before = (self.work.get(), self.bytes.get());
        self.work_min.set(before.0.saturating_sub(SLICE_WORK));
        self.bytes_min.set(before.1.saturating_sub(SLICE_BYTES));
        self.slice.set(Slice::Within);
        let result = work();
        self.work_min.set(0);
        self.bytes_min.set(0);
        if self.slice.replace(Slice::None) == Slice::Exceeded {
            self.work.set(before.0);
            self.bytes.set(before.1);
            return None;
        }
        Some(result)
    }

    /// Fails within a slice if `unread_len` bytes of a body are too many to parse.
    ///
    /// # Errors
    /// [`Exhausted::Slice`].
    pub fn check_read(&self, unread_len: usize) -> Result<(), Exhausted> {
        if self.slice.get() != Slice::None && unread_len > SLICE_READ { Err(self.exceeded()) } else { Ok(()) }
    }

    /// Fails within a slice if the value is too large to traverse.
    ///
    /// # Errors
    /// [`Exhausted::Slice`].
    pub fn check_traversal(&self, value: &Value) -> Result<(), Exhausted> {
        let is_too_large = || value.written_len(SLICE_READ) > SLICE_READ;
        if self.slice.get() != Slice::None && is_too_large() { Err(self.exceeded()) } else { Ok(()) }
    }

    fn exceeded(&self) -> Exhausted {
        self.slice.set(Slice::Exceeded);
        Exhausted::Slice
    }

    /// Charges work; checks the deadline every 1024 units.
    ///
    /// # Errors
    /// [`Exhausted`]; outside a slice, no work is left afterwards.
    pub fn charge_work(&self, units: u64) -> Result<(), Exhausted> {
        let left = self.work.get().checked_sub(units);
        if left.is_none_or(|left| left < self.work_min.get()) && self.slice.get() != Slice::None {
            return Err(self.exceeded());
        }
        self.work.set(left.unwrap_or(0));
        left.ok_or(Exhausted::Work)?;
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        match self.until_clock_check.get().checked_sub(units) {
            Some(left) => self.until_clock_check.set(left),
            None => {
                self.until_clock_check.set(CLOCK_CHECK_UNITS);
                if Instant::now() >= self.deadline {
                    return Err(Exhausted::Time);
                }
            }
        }
        Ok(())
    }

    /// Charges the work of scanning `len` bytes.
    ///
    /// # Errors
    /// As [`Budget::charge_work`].
    pub fn charge_scan(&self, len: usize) -> Result<(), Exhausted> {
        self.charge_work(1 + (len / BYTES_PER_UNIT) as u64)
    }

    /// Charges memory; call it before the allocation.
    ///
    /// # Errors
    /// [`Exhausted`]; outside a slice, no memory is left afterwards.
    pub fn charge_bytes(&self, len: usize) -> Result<(), Exhausted> {
        let left = self.bytes.get().checked_sub(len as u64);
        if left.is_none_or(|left| left < self.bytes_min.get()) && self.slice.get() != Slice::None {
            return Err(self.exceeded());
        }
        self.bytes.set(left.unwrap_or(0));
        left.ok_or(Exhausted::Bytes).map(drop)
    }

    /// Charges a copy of a value: lists are copied, everything else is shared.
    ///
    /// # Errors
    /// As [`Budget::charge_work`] and [`Budget::charge_bytes`].
    pub fn charge_copy(&self, value: &Value) -> Result<(), Exhausted> {
        let len = value.copied_len();
        if len > 0 {
            self.charge_work((len / size_of::<Value>()) as u64).and_then(|()| self.charge_bytes(len))
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_whole_budget_can_be_spent_but_no_more() {
        let budget = Budget::new(Instant::now() + Duration::from_secs(60));
        assert_eq!(budget.charge_work(WORK_MAX - 1), Ok(()));
        assert_eq!((budget.charge_work(1), budget.charge_work(1)), (Ok(()), Err(Exhausted::Work)));
        let len = usize::try_from(BYTES_MAX).expect("a length");
        assert_eq!((budget.charge_bytes(len), budget.charge_bytes(1)), (Ok(()), Err(Exhausted::Bytes)));
    }

    #[test]
    fn charging_work_reports_a_passed_deadline() {
        let budget = Budget::new(Instant::now());
        let exhausted = (0..=CLOCK_CHECK_UNITS).find_map(|_| budget.charge_work(1).err());
        assert_eq!(exhausted, Some(Exhausted::Time));
    }

    #[test]
    fn work_that_exceeds_a_slice_is_not_charged() {
        let budget = Budget::new(Instant::now() + Duration::from_secs(60));
        assert_eq!(budget.in_slice(|| budget.charge_work(SLICE_WORK)), Some(Ok(())));
        assert_eq!(budget.in_slice(|| budget.charge_work(SLICE_WORK + 1)), None);
        let len = usize::try_from(SLICE_BYTES).expect("a length");
        assert_eq!(budget.in_slice(|| budget.charge_bytes(len)), Some(Ok(())));
        assert_eq!(budget.in_slice(|| budget.charge_bytes(len + 1)), None);
        assert_eq!(budget.in_slice(|| budget.check_read(SLICE_READ)), Some(Ok(())));
        assert_eq!(budget.in_slice(|| budget.check_read(SLICE_READ + 1)), None);
        let text = |len: usize| Value::Text("x".repeat(len).into());
        assert_eq!(budget.in_slice(|| budget.check_traversal(&text(100))), Some(Ok(())));
        assert_eq!(budget.in_slice(|| budget.check_traversal(&text(SLICE_READ + 1))), None);
        assert_eq!((budget.work.get(), budget.bytes.get()), (WORK_MAX - SLICE_WORK, BYTES_MAX - SLICE_BYTES));
        // Outside a slice, the whole budget can be spent at once.
        assert_eq!((budget.charge_work(WORK_MAX - SLICE_WORK), budget.check_read(usize::MAX)), (Ok(()), Ok(())));
    }

    #[test]
    fn a_slice_can_spend_the_rest_of_the_budget() {
        let budget = Budget::new(Instant::now() + Duration::from_secs(60));
        assert_eq!(budget.charge_work(WORK_MAX - 10), Ok(()));
        assert_eq!(budget.in_slice(|| budget.charge_work(10)), Some(Ok(())));
        // Only an evaluation outside a slice reports the exhausted budget.
        assert_eq!((budget.in_slice(|| budget.charge_work(1)), budget.charge_work(1)), (None, Err(Exhausted::Work)));
    }

    #[test]
    fn copies_of_text_are_free_and_copies_of_lists_are_not() {
        let budget = Budget::new(Instant::now() + Duration::from_secs(60));
        let text = Value::Text("x".repeat(1 << 20).into());
        (0..1000).for_each(|_| assert_eq!(budget.charge_copy(&text), Ok(())));
        let list = Value::List(vec![text; 100_000]);
        assert!((0..100).any(|_| budget.charge_copy(&list).is_err()));
    }
}
