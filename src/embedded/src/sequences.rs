//! Numbers of sequences. Callers at the same time share one command.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crossdock_cluster::RequestError;
use crossdock_coordination::command::TakeNumbers;
use crossdock_coordination::limits::NUMBERS_MAX;
use crossdock_coordination::{Operation, Outcome};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use crate::engine::{COMMAND_TIMEOUT, Shared};
use crate::error::CommandError;

type Number = Result<u64, CommandError>;

/// Those that wait for a number of each sequence, while a command for the ones before them is on its way.
#[derive(Debug, Default)]
pub(crate) struct Sequences(Mutex<HashMap<String, Vec<oneshot::Sender<Number>>>>);

pub(crate) async fn next(shared: &Arc<Shared>, sequence: &str) -> Number {
    let (sender, number) = oneshot::channel();
    {
        let mut waiting = shared.sequences.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = waiting.get_mut(sequence) {
            waiting.push(sender);
        } else {
            waiting.insert(sequence.to_owned(), vec![sender]);
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
                    let count = waiting.len().min(usize::try_from(NUMBERS_MAX).unwrap_or(usize::MAX));
                    waiting.drain(..count).collect::<Vec<_>>()
                }
                _ => {
                    all.remove(&sequence);
                    return;
                }
            }
        };
        let command = TakeNumbers { sequence: sequence.clone(), count: waiting.len() as u64 };
        // If an attempt is executed and its answer is lost, its numbers are left out.
        let outcome = shared.execute_by(Operation::TakeNumbers(command), Instant::now() + COMMAND_TIMEOUT).await;
        for (at, caller) in (0..).zip(waiting) {
            let _ = caller.send(match &outcome {
                Ok(Outcome::FirstNumber(first)) => Ok(first + at),
                Ok(_) => Err(CommandError::Unreadable),
                Err(problem) => Err(*problem),
            });
        }
    }
}
