//! Sequential processing by key: a lock per key, with a FIFO queue of tickets.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use crossdock_message::{ByteString, Code, Fault, Retry};
use tokio::sync::oneshot;

/// Maximum number of waiting messages of callers, over all keys of a route. Sources that redeliver messages bound their own.
const WAITING_MAX: usize = 10_000;

/// The queues of a route. A key has an entry for as long as it is locked.
#[derive(Debug, Default)]
pub(crate) struct KeyQueues(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    queues: HashMap<ByteString, VecDeque<Waiter>>,
    waiting: usize,
}

/// A message in a queue, and the source that would redeliver it.
#[derive(Debug)]
struct Waiter {
    signal: oneshot::Sender<Signal>,
    source: Option<u64>,
}

/// How the wait of a ticket ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signal {
    /// The lock is granted.
    Granted,
    /// A predecessor from the same source will be redelivered.
    PredecessorRedelivered,
}

/// A predecessor will be redelivered, so this message must be too, or it would overtake it.
#[derive(Debug)]
pub(crate) struct PredecessorRedelivered;

/// A position in the queue of a key; resolves to its lock. Dropping it leaves the queue. Cancel safe.
pub(crate) struct Ticket {
    queues: Arc<KeyQueues>,
    key: ByteString,
    source: Option<u64>,
    /// `None` if the lock was free.
    signal: Option<oneshot::Receiver<Signal>>,
    is_resolved: bool,
}

/// The lock of a key. Dropping it without [`KeyLock::settled`] means that its message will be redelivered.
#[derive(Debug)]
pub(crate) struct KeyLock {
    queues: Arc<KeyQueues>,
    key: ByteString,
    source: Option<u64>,
    is_settled: bool,
}

/// The fault of a message whose predecessor will be redelivered.
pub(crate) fn predecessor_redelivered() -> Fault {
    let message = "the predecessor of this message will be redelivered, so this message must be too";
    Fault::new(Code::Unavailable, "TURN", message).with_retry(Retry::Same)
}

impl KeyQueues {
    /// Joins the queue of a key; the order of these calls is the order of processing.
    ///
    /// `source` identifies what redelivers the message, such as a channel: messages of one source are redelivered together. A message
    /// without a source is never redelivered; only such messages are bounded here.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED if too many messages wait.
    pub(crate) fn join(self: &Arc<Self>, key: &ByteString, source: Option<u64>) -> Result<Ticket, Fault> {
        let mut state = self.locked();
        let waiting = state.waiting;
        let signal = match state.queues.get_mut(key) {
            None => {
                state.queues.insert(key.clone(), VecDeque::new());
                None
            }
            Some(_) if waiting >= WAITING_MAX && source.is_none() => {
                let message = "too many messages wait for their predecessors";
                let fault = Fault::new(Code::ResourceExhausted, "TURNS", message);
                return Err(fault.with_retry(Retry::After(Duration::from_secs(1))));
            }
            Some(queue) => {
                let (sender, signal) = oneshot::channel();
                if queue.len() >= WAITING_MAX {
                    // Removes cancelled tickets, which would accumulate behind a slow message.
                    queue.retain(|waiter| !waiter.signal.is_closed());
                }
                queue.push_back(Waiter { signal: sender, source });
                state.waiting += 1;
                Some(signal)
            }
        };
        Ok(Ticket { queues: Arc::clone(self), key: key.clone(), source, signal, is_resolved: false })
    }

    #[cfg(test)]
    fn waiting(&self) -> usize {
        self.locked().waiting
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes the lock of a key to the next ticket. If the message that held it will be redelivered by a source, so will all
    /// messages of that source behind it.
    fn release(&self, key: &ByteString, redelivering: Option<u64>) {
        let mut state = self.locked();
        let Some(mut queue) = state.queues.remove(key) else { return };
        if redelivering.is_some() {
            let mut kept = VecDeque::with_capacity(queue.len());
            for waiter in queue {
                if waiter.source != redelivering {
                    kept.push_back(waiter);
                } else if waiter.signal.send(Signal::PredecessorRedelivered).is_ok() {
                    state.waiting -= 1;
                }
            }
            queue = kept;
        }
        while let Some(next) = queue.pop_front() {
            // A cancelled ticket is no longer counted.
            if next.signal.send(Signal::Granted).is_ok() {
                state.waiting -= 1;
                state.queues.insert(key.clone(), queue);
                return;
            }
        }
    }
}

impl KeyLock {
    /// The message was settled: releases the lock for the next one.
    pub(crate) fn settled(mut self) {
        self.is_settled = true;
    }
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        // A message without a source is not redelivered.
        self.queues.release(&self.key, self.source.filter(|_| !self.is_settled));
    }
}

impl Future for Ticket {
    type Output = Result<KeyLock, PredecessorRedelivered>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let signal = match &mut self.signal {
            None => Signal::Granted,
            Some(signal) => match Pin::new(signal).poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(signal) => signal.unwrap_or(Signal::PredecessorRedelivered),
            },
        };
        self.is_resolved = true;
        Poll::Ready(match signal {
            Signal::Granted => {
                let (queues, key) = (Arc::clone(&self.queues), self.key.clone());
                Ok(KeyLock { queues, key, source: self.source, is_settled: false })
            }
            Signal::PredecessorRedelivered => Err(PredecessorRedelivered),
        })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.is_resolved {
            return;
        }
        let is_granted = match &mut self.signal {
            None => true,
            Some(signal) => {
                // Locks are granted while the state is locked, so none can be granted between these steps.
                let mut state = self.queues.locked();
                signal.close();
                match signal.try_recv() {
                    Ok(signal) => signal == Signal::Granted,
                    Err(_) => {
                        state.waiting -= 1;
                        false
                    }
                }
            }
        };
        if is_granted {
            self.queues.release(&self.key, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn key(text: &'static str) -> ByteString {
        ByteString::from_static(text)
    }

    fn poll(ticket: &mut Ticket) -> Option<Result<KeyLock, PredecessorRedelivered>> {
        ticket.now_or_never()
    }

    fn lock(ticket: &mut Ticket) -> KeyLock {
        poll(ticket).expect("granted").expect("no redelivery")
    }

    #[test]
    fn locks_are_granted_in_fifo_order_by_key() {
        let queues = Arc::new(KeyQueues::default());
        let [mut first, mut second, mut third, mut other] =
            ["a", "a", "a", "b"].map(|name| queues.join(&key(name), Some(1)).expect("room"));
        let held = lock(&mut first);
        drop(first);
        assert!(poll(&mut second).is_none() && poll(&mut third).is_none());
        lock(&mut other).settled();
        held.settled();
        assert!(poll(&mut third).is_none(), "not before the second");
        lock(&mut second).settled();
        lock(&mut third).settled();
        assert!(queues.locked().queues.is_empty() && queues.waiting() == 0);
    }

    #[test]
    fn a_cancelled_ticket_is_skipped_even_after_its_grant() {
        let queues = Arc::new(KeyQueues::default());
        let [mut first, second, third, mut fourth] = [(); 4].map(|()| queues.join(&key("a"), None).expect("room"));
        let held = lock(&mut first);
        drop(second);
        held.settled();
        // The third has been granted the lock and never polls.
        drop(third);
        lock(&mut fourth).settled();
        let never_polled = queues.join(&key("a"), None).expect("room");
        let mut behind = queues.join(&key("a"), None).expect("room");
        drop(never_polled);
        lock(&mut behind).settled();
        assert!(queues.locked().queues.is_empty() && queues.waiting() == 0);
    }

    #[test]
    fn a_redelivered_message_takes_those_of_its_source_behind_it_along() {
        let queues = Arc::new(KeyQueues::default());
        let sources = [Some(1), Some(1), Some(2), None, Some(1), Some(2)];
        let [mut first, mut second, mut other, mut none, mut third, mut last] =
            sources.map(|source| queues.join(&key("a"), source).expect("room"));
        drop(lock(&mut first));
        assert!(poll(&mut second).expect("signalled").is_err() && poll(&mut third).expect("signalled").is_err());
        assert!(poll(&mut none).is_none(), "not before the one of another source");
        lock(&mut other).settled();
        drop(lock(&mut none));
        // A message without a source is not redelivered, so no other message is affected.
        lock(&mut last).settled();
        assert!(queues.locked().queues.is_empty() && queues.waiting() == 0);
    }

    #[test]
    fn waiting_is_bounded() {
        let queues = Arc::new(KeyQueues::default());
        let mut tickets: Vec<Ticket> = (0..=WAITING_MAX).map(|_| queues.join(&key("a"), None).expect("room")).collect();
        assert_eq!(queues.join(&key("a"), None).err().map(|fault| fault.code), Some(Code::ResourceExhausted));
        assert!(queues.join(&key("b"), None).is_ok(), "no wait, no bound");
        let of_a_source = queues.join(&key("a"), Some(1));
        assert!(of_a_source.is_ok(), "a source bounds its own messages");
        drop(of_a_source);
        for _ in 0..3 * WAITING_MAX {
            drop(tickets.pop());
            tickets.push(queues.join(&key("a"), None).expect("the slot of a cancelled ticket"));
        }
        assert!(queues.locked().queues[&key("a")].len() <= 2 * WAITING_MAX, "cancelled tickets do not accumulate");
        drop(tickets);
        assert!(queues.locked().queues.is_empty() && queues.waiting() == 0);
    }
}
