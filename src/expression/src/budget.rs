//! How much one message may make of itself: work, memory and time over all steps of its route, counted before they are spent.
//!
//! Data must not be able to make a cheap step dear. Values that are made or compared count as work; what a copy or a new value takes counts
//! in bytes, where text that is shared takes none.

use std::cell::Cell;
use std::time::Instant;

use crossdock_message::Value;

/// Units of work of one message: about a million values made or compared, well below a second.
pub const WORK_MAX: u64 = 1_000_000;
/// Bytes that the values of one message may take, those that were dropped included. With what a body may weigh when it is written, no
/// evaluation takes more than 64 MiB.
pub const BYTES_MAX: u64 = 40 << 20;
/// Units of work from one look at the clock to the next.
const LOOK_UNITS: u32 = 1024;
/// Bytes that are looked through, or copied, for one unit of work.
pub const BYTES_PER_UNIT: usize = 128;

/// The budget of one slice: some ten microseconds.
const SLICE_WORK: u64 = 400;
const SLICE_BYTES: u64 = 64 << 10;
/// Bytes of a body that are read or looked through within a slice.
pub const SLICE_READ: usize = 16 << 10;

/// What is left for one message.
#[derive(Debug)]
pub struct Budget {
    work: Cell<u64>,
    bytes: Cell<u64>,
    /// What has to be left; above zero within a slice only.
    work_min: Cell<u64>,
    bytes_min: Cell<u64>,
    slice: Cell<Slice>,
    deadline: Instant,
    until_look: Cell<u32>,
}

/// Whether the budget is limited to a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slice {
    /// No: it takes what is left.
    None,
    /// Yes.
    Within,
    /// It did not fit.
    Exceeded,
}

/// Why there is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spent {
    /// All work was done.
    Work,
    /// All memory was taken.
    Bytes,
    /// The deadline has passed.
    Time,
    /// It does not fit into its slice.
    Slice,
}

impl Budget {
    /// For a message whose exchange has to end at `deadline`.
    #[must_use]
    pub fn new(deadline: Instant) -> Self {
        Self {
            work: Cell::new(WORK_MAX),
            bytes: Cell::new(BYTES_MAX),
            work_min: Cell::new(0),
            bytes_min: Cell::new(0),
            slice: Cell::new(Slice::None),
            deadline,
            until_look: Cell::new(LOOK_UNITS),
        }
    }

    /// An exhausted budget: a placeholder while the real one is on another thread.
    #[must_use]
    pub fn spent(deadline: Instant) -> Self {
        let budget = Self::new(deadline);
        budget.work.set(0);
        budget.bytes.set(0);
        budget
    }

    /// Units of work and bytes that were used so far.
    #[must_use]
    pub fn used(&self) -> (u64, u64) {
        (WORK_MAX - self.work.get(), BYTES_MAX - self.bytes.get())
    }

    /// Runs `work` within one slice. `None` if it exceeds the slice: nothing was charged then, and the caller restarts it elsewhere.
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

    /// Exceeds the slice if a body of that length has to be read.
    ///
    /// # Errors
    /// [`Spent::Slice`].
    pub fn reads(&self, unread_len: usize) -> Result<(), Spent> {
        if self.slice.get() != Slice::None && unread_len > SLICE_READ { Err(self.exceeded()) } else { Ok(()) }
    }

    /// Exceeds the slice if traversing the value takes longer than one.
    ///
    /// # Errors
    /// [`Spent::Slice`].
    pub fn looks_at(&self, value: &Value) -> Result<(), Spent> {
        let is_long = || value.written_len(SLICE_READ) > SLICE_READ;
        if self.slice.get() != Slice::None && is_long() { Err(self.exceeded()) } else { Ok(()) }
    }

    fn exceeded(&self) -> Spent {
        self.slice.set(Slice::Exceeded);
        Spent::Slice
    }

    /// Counts work; looks at the clock now and then.
    ///
    /// # Errors
    /// [`Spent`], and nothing is left then.
    pub fn work(&self, units: u64) -> Result<(), Spent> {
        let left = self.work.get().checked_sub(units);
        if left.is_none_or(|left| left < self.work_min.get()) && self.slice.get() != Slice::None {
            return Err(self.exceeded());
        }
        self.work.set(left.unwrap_or(0));
        left.ok_or(Spent::Work)?;
        let looks = u32::try_from(units).unwrap_or(u32::MAX);
        match self.until_look.get().checked_sub(looks) {
            Some(left) => self.until_look.set(left),
            None => {
                self.until_look.set(LOOK_UNITS);
                if Instant::now() >= self.deadline {
                    return Err(Spent::Time);
                }
            }
        }
        Ok(())
    }

    /// Counts the work of looking through so many bytes.
    ///
    /// # Errors
    /// As [`Budget::work`].
    pub fn scan(&self, len: usize) -> Result<(), Spent> {
        self.work(1 + (len / BYTES_PER_UNIT) as u64)
    }

    /// Counts memory, before it is taken.
    ///
    /// # Errors
    /// [`Spent`], and nothing is left then.
    pub fn bytes(&self, len: usize) -> Result<(), Spent> {
        let left = self.bytes.get().checked_sub(len as u64);
        if left.is_none_or(|left| left < self.bytes_min.get()) && self.slice.get() != Slice::None {
            return Err(self.exceeded());
        }
        self.bytes.set(left.unwrap_or(0));
        left.ok_or(Spent::Bytes).map(drop)
    }

    /// Counts a copy of a value: lists are copied, all else is shared.
    ///
    /// # Errors
    /// As [`Budget::work`] and [`Budget::bytes`].
    pub fn copy(&self, value: &Value) -> Result<(), Spent> {
        let len = value.copied_len();
        if len > 0 { self.work((len / size_of::<Value>()) as u64).and_then(|()| self.bytes(len)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn all_that_is_left_may_be_spent_and_no_more() {
        let budget = Budget::new(Instant::now() + Duration::from_secs(60));
        assert_eq!(budget.work(WORK_MAX - 1), Ok(()));
        assert_eq!((budget.work(1), budget.work(1)), (Ok(()), Err(Spent::Work)));
        let len = usize::try_from(BYTES_MAX).expect("a length");
        assert_eq!((budget.bytes(len), budget.bytes(1)), (Ok(()), Err(Spent::Bytes)));
    }

    #[test]
    fn the_deadline_is_seen_while_there_is_work() {
        let budget = Budget::new(Instant::now());
        let spent = (0..=LOOK_UNITS).find_map(|_| budget.work(1).err());
        assert_eq!(spent, Some(Spent::Time));
    }

    #[test]
    fn what_does_not_fit_into_a_slice_takes_nothing() {
        let budget = Budget::new(Instant::now() + Duration::from_secs(60));
        assert_eq!(budget.in_slice(|| budget.work(SLICE_WORK)), Some(Ok(())));
        assert_eq!(budget.in_slice(|| budget.work(SLICE_WORK + 1)), None);
        let len = usize::try_from(SLICE_BYTES).expect("a length");
        assert_eq!(budget.in_slice(|| budget.bytes(len)), Some(Ok(())));
        assert_eq!(budget.in_slice(|| budget.bytes(len + 1)), None);
        assert_eq!(budget.in_slice(|| budget.reads(SLICE_READ)), Some(Ok(())));
        assert_eq!(budget.in_slice(|| budget.reads(SLICE_READ + 1)), None);
        let text = |len: usize| Value::Text("x".repeat(len).into());
        assert_eq!(budget.in_slice(|| budget.looks_at(&text(100))), Some(Ok(())));
        assert_eq!(budget.in_slice(|| budget.looks_at(&text(SLICE_READ + 1))), None);
        assert_eq!((budget.work.get(), budget.bytes.get()), (WORK_MAX - SLICE_WORK, BYTES_MAX - SLICE_BYTES));
        // Outside of slices, all of it may be taken at once.
        assert_eq!((budget.work(WORK_MAX - SLICE_WORK), budget.reads(usize::MAX)), (Ok(()), Ok(())));
    }

    #[test]
    fn the_rest_of_the_budget_may_be_spent_in_a_slice_and_is_over_then() {
        let budget = Budget::new(Instant::now() + Duration::from_secs(60));
        assert_eq!(budget.work(WORK_MAX - 10), Ok(()));
        assert_eq!(budget.in_slice(|| budget.work(10)), Some(Ok(())));
        // Only the evaluation outside of a slice reports the exhausted budget.
        assert_eq!((budget.in_slice(|| budget.work(1)), budget.work(1)), (None, Err(Spent::Work)));
    }

    #[test]
    fn text_is_shared_and_lists_are_not() {
        let budget = Budget::new(Instant::now() + Duration::from_secs(60));
        let text = Value::Text("x".repeat(1 << 20).into());
        (0..1000).for_each(|_| assert_eq!(budget.copy(&text), Ok(())));
        let list = Value::List(vec![text; 100_000]);
        assert!((0..100).any(|_| budget.copy(&list).is_err()));
    }
}
