//! Requests that wait for replies, which arrive as messages of their own.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use crossdock_message::{ByteString, Code, Fault, Retry};
use tokio::sync::oneshot;

/// The number of ended requests that are remembered, to classify unexpected replies.
const ENDED_MAX: usize = 4096;

/// The requests of one connection that wait for their replies. Bounded, and used on one thread.
pub struct PendingReplies<R> {
    waiting: RefCell<HashMap<ByteString, oneshot::Sender<R>>>,
    ended: RefCell<Ended>,
    max: usize,
    closed: Cell<bool>,
}

/// The requests that ended last, and whether each was replied to.
#[derive(Default)]
struct Ended {
    answered: HashMap<ByteString, bool>,
    order: VecDeque<ByteString>,
}

/// Why a reply was not expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unwanted {
    /// Its request was cancelled.
    Late,
    /// Its request has its reply.
    Duplicate,
    /// Its request is unknown.
    Unknown,
}

/// A reply that is waited for. Dropping it cancels the request.
///
/// The result is `None` if the connection for the reply has ended.
pub struct Expected<R> {
    replies: Rc<PendingReplies<R>>,
    id: ByteString,
    reply: oneshot::Receiver<R>,
}

impl<R> PendingReplies<R> {
    /// For up to `max` concurrent requests.
    #[must_use]
    pub fn new(max: usize) -> Rc<Self> {
        Rc::new(Self { waiting: RefCell::default(), ended: RefCell::default(), max, closed: Cell::new(false) })
    }

    /// Registers a request, before it is sent.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED if `max` requests are waiting; INTERNAL if the id is in use.
    pub fn expect(self: &Rc<Self>, id: ByteString) -> Result<Expected<R>, Fault> {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() >= self.max {
            let message = "too many requests are waiting for their replies";
            return Err(Fault::new(Code::ResourceExhausted, "REPLIES", message).with_retry(Retry::Same));
        }
        if waiting.contains_key(&id) {
            return Err(Fault::new(Code::Internal, "CORRELATION", "the id of the request is in use"));
        }
        let (sender, reply) = oneshot::channel();
        if !self.closed.get() {
            waiting.insert(id.clone(), sender);
        }
        Ok(Expected { replies: Rc::clone(self), id, reply })
    }

    /// Passes a reply to its request.
    ///
    /// # Errors
    /// Why no request waits for it, and the reply.
    pub fn answer(&self, id: &ByteString, reply: R) -> Result<(), (Unwanted, R)> {
        match self.waiting.borrow_mut().remove(id) {
            Some(waiting) => {
                self.ended.borrow_mut().note(id, true);
                waiting.send(reply).map_err(|reply| (Unwanted::Late, reply))
            }
            None => {
                let unwanted = match self.ended.borrow_mut().answered.get_mut(id) {
                    Some(true) => Unwanted::Duplicate,
                    Some(answered) => {
                        *answered = true;
                        Unwanted::Late
                    }
                    None => Unwanted::Unknown,
                };
                Err((unwanted, reply))
            }
        }
    }

    /// Ends all waiting requests, and all that are registered later: no reply will arrive.
    pub fn close(&self) {
        self.closed.set(true);
        self.waiting.borrow_mut().clear();
    }

    /// The number of waiting requests.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// Whether no request is waiting.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.borrow().is_empty()
    }
}

impl Ended {
    fn note(&mut self, id: &ByteString, answered: bool) {
        if self.order.len() >= ENDED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.answered.remove(&oldest);
        }
        self.answered.insert(id.clone(), answered);
        self.order.push_back(id.clone());
    }
}

impl<R> Future for Expected<R> {
    type Output = Option<R>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<R>> {
        Pin::new(&mut self.reply).poll(cx).map(Result::ok)
    }
}

impl<R> Drop for Expected<R> {
    fn drop(&mut self) {
        if self.replies.waiting.borrow_mut().remove(&self.id).is_some() {
            self.replies.ended.borrow_mut().note(&self.id, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn id(text: &'static str) -> ByteString {
        ByteString::from_static(text)
    }

    #[test]
    fn each_reply_goes_to_its_own_request_once() {
        let replies = PendingReplies::new(10);
        let (one, two) = (replies.expect(id("one")).expect("room"), replies.expect(id("two")).expect("room"));
        assert_eq!(replies.answer(&id("two"), 2), Ok(()));
        assert_eq!(replies.answer(&id("one"), 1), Ok(()));
        assert_eq!((one.now_or_never(), two.now_or_never()), (Some(Some(1)), Some(Some(2))));
        assert_eq!(replies.answer(&id("one"), 3), Err((Unwanted::Duplicate, 3)));
        assert_eq!(replies.answer(&id("three"), 3), Err((Unwanted::Unknown, 3)));
        assert!(replies.is_empty());
    }

    #[test]
    fn cancelled_requests_are_forgotten_eventually() {
        let replies = PendingReplies::new(1);
        let cancelled = replies.expect(id("one")).expect("room");
        assert_eq!(replies.expect(id("two")).err().map(|fault| fault.code), Some(Code::ResourceExhausted));
        drop(cancelled);
        assert!(replies.is_empty());
        assert_eq!(replies.answer(&id("one"), 1), Err((Unwanted::Late, 1)));
        assert_eq!(replies.answer(&id("one"), 1), Err((Unwanted::Duplicate, 1)), "late only once");
        for number in 0..ENDED_MAX {
            drop(replies.expect(number.to_string().into()).expect("room"));
        }
        assert_eq!(replies.answer(&id("one"), 1), Err((Unwanted::Unknown, 1)), "memory is bounded");
        assert_eq!(replies.ended.borrow().answered.len(), ENDED_MAX);
    }

    #[test]
    fn waiting_requests_end_with_the_connection() {
        let replies = PendingReplies::<u8>::new(10);
        let before = replies.expect(id("before")).expect("room");
        replies.close();
        let after = replies.expect(id("after")).expect("room");
        assert_eq!((before.now_or_never(), after.now_or_never()), (Some(None), Some(None)));
    }
}
