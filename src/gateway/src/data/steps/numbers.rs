//! Numbers of sequences for expressions. An evaluation that lacks one ends; the number is requested, and the evaluation begins again.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossdock_message::{Code, Fault, Retry, Time};
use crossdock_ports::{LockEngine, SequenceError};
use crossdock_routing::expression::Host;

use crate::host::SystemHost;

/// Maximum count of numbers of one sequence in an evaluation, as doubling reaches it.
const NUMBERS_MAX: usize = 1 << 14;
/// Maximum count of sequences in an evaluation. Each costs a command, and is kept by the cluster for ever.
const SEQUENCES_MAX: usize = 16;

/// Numbers that were requested for an evaluation.
#[derive(Debug, Default)]
struct OfSequence {
    numbers: Vec<i64>,
    /// How many of them the evaluation has used.
    used: usize,
}

/// The host of the expressions of a step. Each of its evaluations uses the same numbers.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    sequences: Mutex<BTreeMap<String, OfSequence>>,
    /// The sequence of which the evaluation lacks a number.
    missing: Mutex<Option<String>>,
}

impl Numbers {
    fn sequences(&self) -> MutexGuard<'_, BTreeMap<String, OfSequence>> {
        self.sequences.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests what the last evaluation lacked: as many numbers as there were already, so that a few requests are enough for a list.
    ///
    /// # Errors
    /// UNAVAILABLE without a majority; INTERNAL without a cluster; RESOURCE_EXHAUSTED for too many numbers or sequences.
    pub(super) async fn request(&self, engine: Option<&dyn LockEngine>) -> Result<(), Fault> {
        let missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(engine) = engine else {
            return Err(Fault::new(Code::Internal, "NO_CLUSTER", "the instance has no engine for sequences"));
        };
        let Some(name) = missing else {
            return Err(Fault::new(Code::Internal, "NO_NUMBER", "an expression cannot be evaluated"));
        };
        let (count, is_further) = {
            let known = self.sequences();
            let count = known.get(&name).map(|of| of.numbers.len());
            (count.unwrap_or(1), count.is_none() && known.len() >= SEQUENCES_MAX)
        };
        if count >= NUMBERS_MAX {
            let message = format!("an expression uses more than {NUMBERS_MAX} numbers of a sequence");
            return Err(Fault::new(Code::ResourceExhausted, "NUMBERS", message));
        }
        if is_further {
            let message = format!("an expression uses more than {SEQUENCES_MAX} sequences");
            return Err(Fault::new(Code::ResourceExhausted, "SEQUENCES", message));
        }
        let first = engine.next_numbers(&name, count as u64).await.map_err(|problem| refused(&problem))?;
        let first = i64::try_from(first).map_err(|_| refused(&SequenceError::Exhausted))?;
        let mut sequences = self.sequences();
        sequences.entry(name).or_default().numbers.extend((first..).take(count));
        sequences.values_mut().for_each(|of| of.used = 0);
        Ok(())
    }

    /// Begins an evaluation again, with the numbers that it has.
    pub(super) fn rewind(&self) {
        self.sequences().values_mut().for_each(|of| of.used = 0);
    }
}

fn refused(problem: &SequenceError) -> Fault {
    let fault = match problem {
        SequenceError::TooMany => {
            Fault::new(Code::ResourceExhausted, "SEQUENCES", "the cluster cannot keep more sequences")
        }
        SequenceError::Exhausted => Fault::new(Code::ResourceExhausted, "SEQUENCE", "the sequence has no more numbers"),
        SequenceError::Unavailable(_) => {
            let message = "numbers of sequences cannot be given at the moment";
            Fault::new(Code::Unavailable, "NO_QUORUM", message).with_retry(Retry::Same)
        }
    };
    fault.with_cause(problem.to_string())
}

impl Host for Numbers {
    fn now(&self) -> Time {
        SystemHost.now()
    }

    fn random(&self) -> u128 {
        SystemHost.random()
    }

    fn number(&self, sequence: &str) -> Option<i64> {
        let mut sequences = self.sequences();
        let next = sequences.get_mut(sequence).and_then(|of| {
            let number = of.numbers.get(of.used).copied()?;
            of.used += 1;
            Some(number)
        });
        if next.is_none() {
            *self.missing.lock().unwrap_or_else(PoisonError::into_inner) = Some(sequence.to_owned());
        }
        next
    }
}
