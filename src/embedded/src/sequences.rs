//! Numbers of sequences. Callers at the same time share one command.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crossdock_cluster::RequestError;
use crossdock_coordination::command::TakeNumbers;
use crossdock_coordination::limits::NUMBERS_MAX;
use crossdock_coordination::{Operation, Outcome, Refusal};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use crate::engine::{COMMAND_TIMEOUT, Shared};
use crate::error::CommandError;

type Number = Result<u64, CommandError>;

/// A caller: how many numbers it needs, and where the first one goes.
type Caller = (u64, oneshot::Sender<Number>);

/// Those that wait for a number of each sequence, while a command for the ones before them is on its way.
#[derive(Debug, Default)]
pub(crate) struct Sequences(Mutex<HashMap<String, Vec<Caller>>>);

/// The first of consecutive numbers.
pub(crate) async fn next(shared: &Arc<Shared>, sequence: &str, count: u64) -> Number {
    if !(1..=NUMBERS_MAX).contains(&count) {
        // Not together with others, whose sum it would exceed.
        return Err(CommandError::Refused(Refusal::Invalid));
    }
    let (sender, number) = oneshot::channel();
    {
        let mut waiting = shared.sequences.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = waiting.get_mut(sequence) {
            waiting.push((count, sender));
        } else {
            waiting.insert(sequence.to_owned(), vec![(count, sender)]);
            // It goes on for the others if this caller does not wait any longer.
            shared.runtime.spawn(take(Arc::clone(shared), sequence.to_owned()));
        }
    }
    // Its command may be sent after another one.
    match timeout(2 * COMMAND_TIMEOUT, number).await {
        Ok(Ok(number)) => number,
        Ok(Err(_)) => Err(RequestError::Ended.into()),
        Err(_) => Err(CommandError::TimedOut),
    }
}

/// Takes numbers until nobody waits for one.
async fn take(shared: Arc<Shared>, sequence: String) {
    loop {
        let waiting = {
            let mut all = shared.sequences.0.lock().unwrap_or_else(PoisonError::into_inner);
            match all.get_mut(&sequence) {
                Some(waiting) if !waiting.is_empty() => {
                    let mut sum = 0;
                    let fits = |(count, _): &&Caller| {
                        sum += count;
                        sum <= NUMBERS_MAX
                    };
                    let count = waiting.iter().take_while(fits).count().max(1);
                    waiting.drain(..count).collect::<Vec<_>>()
                }
                _ => {
                    all.remove(&sequence);
                    return;
                }
            }
        };
        let command = TakeNumbers { sequence: sequence.clone(), count: waiting.iter().map(|(count, _)| count).sum() };
        // If an attempt is executed and its answer is lost, its numbers are left out.
        let outcome = shared.execute_by(Operation::TakeNumbers(command), Instant::now() + COMMAND_TIMEOUT).await;
        let mut taken = 0;
        for (count, caller) in waiting {
            let _ = caller.send(match &outcome {
                Ok(Outcome::FirstNumber(first)) => Ok(first + taken),
                Ok(_) => Err(CommandError::Unreadable),
                Err(problem) => Err(*problem),
            });
            taken += count;
        }
    }
}
