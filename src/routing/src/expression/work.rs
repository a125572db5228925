//! How much one message may make of itself: work, memory and time over all steps of its route, counted before they are spent.
//!
//! Data must not be able to make a cheap step dear. Values that are made or compared count as work; what a copy or a new value takes counts
//! in bytes, where text that is shared takes none. Inside CEL, the count is of the thread, because CEL's own traits leave no place to hand one
//! through; an evaluation runs on one thread from its start to its end.

use std::cell::Cell;
use std::time::Instant;

use crossdock_adapter_api::offload::INLINE_LEN;
use crossdock_message::{Code, Fault, Value};

/// Units of work of one message: about a million values made or compared, well below a second.
const WORK_MAX: u64 = 1_000_000;
/// Bytes that the values of one message may take, those that were dropped included. With what a body may weigh when it is written, no
/// evaluation takes more than 64 MiB.
const BYTES_MAX: u64 = 40 << 20;
/// Units of work from one look at the clock to the next.
const LOOK_UNITS: u32 = 1024;

/// The budget of one slice: some ten microseconds.
const SLICE_WORK: u64 = 400;
const SLICE_BYTES: u64 = 64 << 10;

/// What is left for one message.
#[derive(Debug)]
pub struct Meter {
    work: Cell<u64>,
    bytes: Cell<u64>,
    /// What has to be left; above zero within a slice only.
    work_min: Cell<u64>,
    bytes_min: Cell<u64>,
    slice: Cell<Slice>,
    deadline: Instant,
    until_look: Cell<u32>,
}

/// Whether the meter is limited to a slice.
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
pub(crate) enum Spent {
    Work,
    Bytes,
    Time,
    /// It does not fit into its slice.
    Slice,
}

impl Meter {
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

    /// An exhausted meter: a placeholder while the real one is on another thread.
    #[must_use]
    pub fn spent(deadline: Instant) -> Self {
        let meter = Self::new(deadline);
        meter.work.set(0);
        meter.bytes.set(0);
        meter
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
    pub(crate) fn reads(&self, unread_len: usize) -> Result<(), Spent> {
        if self.slice.get() != Slice::None && unread_len > INLINE_LEN { Err(self.exceeded()) } else { Ok(()) }
    }

    /// Exceeds the slice if traversing the value takes longer than one.
    pub(crate) fn looks_at(&self, value: &Value) -> Result<(), Spent> {
        let is_long = || value.written_len(INLINE_LEN) > INLINE_LEN;
        if self.slice.get() != Slice::None && is_long() { Err(self.exceeded()) } else { Ok(()) }
    }

    fn exceeded(&self) -> Spent {
        self.slice.set(Slice::Exceeded);
        Spent::Slice
    }

    /// Counts work; looks at the clock now and then.
    pub(crate) fn work(&self, units: u64) -> Result<(), Spent> {
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

    /// Counts memory, before it is taken.
    pub(crate) fn bytes(&self, len: usize) -> Result<(), Spent> {
        let left = self.bytes.get().checked_sub(len as u64);
        if left.is_none_or(|left| left < self.bytes_min.get()) && self.slice.get() != Slice::None {
            return Err(self.exceeded());
        }
        self.bytes.set(left.unwrap_or(0));
        left.ok_or(Spent::Bytes).map(drop)
    }

    /// Counts a copy of a value: lists are copied, all else is shared.
    pub(crate) fn copy(&self, value: &Value) -> Result<(), Spent> {
        let len = value.copied_len();
        if len > 0 { self.work((len / size_of::<Value>()) as u64).and_then(|()| self.bytes(len)) } else { Ok(()) }
    }
}

impl Spent {
    /// The fault for the sender of the message, or an internal one if a service's reply exhausted the budget.
    pub(crate) fn fault(self, of_caller: bool, source: &str) -> Fault {
        let (code, reason, message) = match self {
            Self::Work => (
                Code::InvalidArgument,
                "TOO_MUCH_WORK",
                format!("`{source}` takes too much work on a message of this size"),
            ),
            Self::Bytes => {
                let message = format!("`{source}` makes more than {} MiB of this message", BYTES_MAX >> 20);
                (Code::InvalidArgument, "TOO_MUCH_MEMORY", message)
            }
            // Never reported: the evaluation is restarted outside of a slice.
            Self::Slice => return Fault::new(Code::Internal, "SLICE", "the work does not fit into its slice"),
            Self::Time => {
                let message = format!("the time was spent while `{source}` was evaluated");
                return Fault::new(Code::DeadlineExceeded, "DEADLINE", message);
            }
        };
        if of_caller { Fault::caller(code, reason, message) } else { Fault::new(Code::Internal, reason, message) }
    }
}

thread_local! {
    static LEFT: Cell<u64> = const { Cell::new(0) };
}

/// The budget of one CEL evaluation, taken from the rest of its message's; charges what was used on drop.
pub(crate) struct Work<'m> {
    meter: &'m Meter,
    began_with: u64,
}

impl<'m> Work<'m> {
    pub(crate) fn begin(meter: &'m Meter) -> Self {
        let began_with = meter.work.get().saturating_sub(meter.work_min.get());
        LEFT.set(began_with);
        Self { meter, began_with }
    }
}

impl Work<'_> {
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

impl Drop for Work<'_> {
    fn drop(&mut self) {
        // Reading a body for a variable charges the meter directly.
        let used = self.began_with.saturating_sub(LEFT.get());
        if LEFT.get() == 0 && self.meter.slice.get() != Slice::None {
            self.meter.slice.set(Slice::Exceeded);
        }
        self.meter.work.set(self.meter.work.get().saturating_sub(used));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn all_that_is_left_may_be_spent_and_no_more() {
        let meter = Meter::new(Instant::now() + Duration::from_secs(60));
        assert_eq!(meter.work(WORK_MAX - 1), Ok(()));
        assert_eq!((meter.work(1), meter.work(1)), (Ok(()), Err(Spent::Work)));
        let len = usize::try_from(BYTES_MAX).expect("a length");
        assert_eq!((meter.bytes(len), meter.bytes(1)), (Ok(()), Err(Spent::Bytes)));
    }

    #[test]
    fn the_deadline_is_seen_while_there_is_work() {
        let meter = Meter::new(Instant::now());
        let spent = (0..=LOOK_UNITS).find_map(|_| meter.work(1).err());
        assert_eq!(spent, Some(Spent::Time));
    }

    #[test]
    fn what_does_not_fit_into_a_slice_takes_nothing() {
        let meter = Meter::new(Instant::now() + Duration::from_secs(60));
        assert_eq!(meter.in_slice(|| meter.work(SLICE_WORK)), Some(Ok(())));
        assert_eq!(meter.in_slice(|| meter.work(SLICE_WORK + 1)), None);
        let len = usize::try_from(SLICE_BYTES).expect("a length");
        assert_eq!(meter.in_slice(|| meter.bytes(len)), Some(Ok(())));
        assert_eq!(meter.in_slice(|| meter.bytes(len + 1)), None);
        assert_eq!(meter.in_slice(|| meter.reads(INLINE_LEN)), Some(Ok(())));
        assert_eq!(meter.in_slice(|| meter.reads(INLINE_LEN + 1)), None);
        let text = |len: usize| Value::Text("x".repeat(len).into());
        assert_eq!(meter.in_slice(|| meter.looks_at(&text(100))), Some(Ok(())));
        assert_eq!(meter.in_slice(|| meter.looks_at(&text(INLINE_LEN + 1))), None);
        assert_eq!((meter.work.get(), meter.bytes.get()), (WORK_MAX - SLICE_WORK, BYTES_MAX - SLICE_BYTES));
        // Outside of slices, all of it may be taken at once.
        assert_eq!((meter.work(WORK_MAX - SLICE_WORK), meter.reads(usize::MAX)), (Ok(()), Ok(())));
    }

    #[test]
    fn the_rest_of_the_budget_may_be_spent_in_a_slice_and_is_over_then() {
        let meter = Meter::new(Instant::now() + Duration::from_secs(60));
        assert_eq!(meter.work(WORK_MAX - 10), Ok(()));
        assert_eq!(meter.in_slice(|| meter.work(10)), Some(Ok(())));
        // Only the evaluation outside of a slice reports the exhausted budget.
        assert_eq!((meter.in_slice(|| meter.work(1)), meter.work(1)), (None, Err(Spent::Work)));
    }

    #[test]
    fn text_is_shared_and_lists_are_not() {
        let meter = Meter::new(Instant::now() + Duration::from_secs(60));
        let text = Value::Text("x".repeat(1 << 20).into());
        (0..1000).for_each(|_| assert_eq!(meter.copy(&text), Ok(())));
        let list = Value::List(vec![text; 100_000]);
        assert!((0..100).any(|_| meter.copy(&list).is_err()));
    }
}
