//! Sequences: numbers that rise over all instances.

use std::sync::Arc;

use rpds::RedBlackTreeMapSync;

use crate::answer::{Outcome, Refusal};
use crate::command::TakeNumbers;
use crate::context::Context;
use crate::injected_bug::InjectedBug;
use crate::limits::{NAME_BYTES_MAX, NUMBERS_MAX, SEQUENCES_MAX};

/// The last number of a sequence: expressions have signed integers.
const LAST: u64 = i64::MAX as u64;

/// All sequences, with the last number taken of each.
#[derive(Debug, Clone, Default)]
pub struct Sequences {
    sequences: RedBlackTreeMapSync<Arc<str>, u64>,
}

impl Sequences {
    /// The last number that was taken from a sequence; 0 if none was.
    #[must_use]
    pub fn last(&self, name: &str) -> u64 {
        self.sequences.get(name).copied().unwrap_or(0)
    }

    /// All sequences by name, with the last number taken.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.sequences.iter().map(|(name, last)| (&**name, *last))
    }

    pub(crate) fn take(&mut self, command: &TakeNumbers, context: &Context<'_>) -> Outcome {
        let TakeNumbers { sequence, count } = command;
        if sequence.is_empty() || sequence.len() > NAME_BYTES_MAX || !(1..=NUMBERS_MAX).contains(count) {
            return Refusal::Invalid.into();
        }
        let taken = if context.has_bug(InjectedBug::RepeatNumbers) { count - 1 } else { *count };
        if let Some(last) = self.sequences.get_mut(sequence.as_str()) {
            if LAST - *last < *count {
                return Refusal::Exhausted.into();
            }
            let first = *last + 1;
            *last += taken;
            return Outcome::FirstNumber(first);
        }
        if self.sequences.size() >= SEQUENCES_MAX {
            return Refusal::TooMany.into();
        }
        self.put(sequence.as_str().into(), taken);
        Outcome::FirstNumber(1)
    }

    pub(crate) fn put(&mut self, name: Arc<str>, last: u64) {
        self.sequences.insert_mut(name, last);
    }
}
