//! Replies that come by message: who waits for which.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use crossdock_message::{ByteString, Code, Fault, Retry};
use tokio::sync::oneshot;

/// Requests that have ended and are remembered, so that what comes for them is known for what it is.
const ENDED_MAX: usize = 4096;

/// The requests of one connection that wait for their replies. Bounded; all of it is on one thread.
pub struct PendingReplies<R> {
    waiting: RefCell<HashMap<ByteString, oneshot::Sender<R>>>,
    ended: RefCell<Ended>,
    max: usize,
    closed: Cell<bool>,
}

/// The requests that ended last, and whether each was answered.
#[derive(Default)]
struct Ended {
    answered: HashMap<ByteString, bool>,
    order: VecDeque<ByteString>,
}

/// Why nobody takes a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unwanted {
    /// Its request was given up before.
    Late,
    /// Its request was answered already.
    Duplicate,
    /// Nothing is known of its request.
    Unknown,
}

/// A reply that is waited for; dropping it gives the request up.
///
/// `None` says that no reply will come any more: the connection that it would come by has ended.
pub struct Expected<R> {
    replies: Rc<PendingReplies<R>>,
    id: ByteString,
    reply: oneshot::Receiver<R>,
}

impl<R> PendingReplies<R> {
    /// For up to `max` requests at once.
    #[must_use]
    pub fn new(max: usize) -> Rc<Self> {
        Rc::new(Self { waiting: RefCell::default(), ended: RefCell::default(), max, closed: Cell::new(false) })
    }

    /// Waits for the reply to a request, from before the request is sent.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED where as many wait as may; INTERNAL for an identity that is waited for already.
    pub fn expect(self: &Rc<Self>, id: ByteString) -> Result<Expected<R>, Fault> {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() >= self.max {
            let message = "as many requests wait for their replies as may";
            return Err(Fault::new(Code::ResourceExhausted, "REPLIES", message).with_retry(Retry::Same));
        }
        if waiting.contains_key(&id) {
            return Err(Fault::new(Code::Internal, "CORRELATION", "the identity of a request is in use"));
        }
        let (sender, reply) = oneshot::channel();
        if !self.closed.get() {
            waiting.insert(id.clone(), sender);
        }
        Ok(Expected { replies: Rc::clone(self), id, reply })
    }

    /// Hands a reply to whoever waits for it.
    ///
    /// # Errors
    /// Why nobody does, and the reply.
    pub fn answer(&self, id: &ByteString, reply: R) -> Result<(), (Unwanted, R)> {
        match self.waiting.borrow_mut().remove(id) {
            Some(waiting) => {
                self.ended.borrow_mut().note(id, true);
                waiting.send(reply).map_err(|reply| (Unwanted::Late, reply))
            }
            None => {
                let unwanted = match self.ended.borrow().answered.get(id) {
                    Some(true) => Unwanted::Duplicate,
                    Some(false) => Unwanted::Late,
                    None => Unwanted::Unknown,
                };
                Err((unwanted, reply))
            }
        }
    }

    /// No reply comes any more: those who wait are told, and those who come.
    pub fn close(&self) {
        self.closed.set(true);
        self.waiting.borrow_mut().clear();
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// Whether nobody waits.
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
    fn a_request_that_is_given_up_leaves_nothing_but_its_memory() {
        let replies = PendingReplies::new(1);
        let given_up = replies.expect(id("one")).expect("room");
        assert_eq!(replies.expect(id("two")).err().map(|fault| fault.code), Some(Code::ResourceExhausted));
        drop(given_up);
        assert!(replies.is_empty());
        assert_eq!(replies.answer(&id("one"), 1), Err((Unwanted::Late, 1)));
        for number in 0..ENDED_MAX {
            drop(replies.expect(number.to_string().into()).expect("room"));
        }
        assert_eq!(replies.answer(&id("one"), 1), Err((Unwanted::Unknown, 1)), "memory is bounded");
        assert_eq!(replies.ended.borrow().answered.len(), ENDED_MAX);
    }

    #[test]
    fn those_who_wait_hear_of_the_end() {
        let replies = PendingReplies::<u8>::new(10);
        let before = replies.expect(id("before")).expect("room");
        replies.close();
        let after = replies.expect(id("after")).expect("room");
        assert_eq!((before.now_or_never(), after.now_or_never()), (Some(None), Some(None)));
    }
}
