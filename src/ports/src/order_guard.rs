//! The position of a message in an order, over all attempts to process it.

use std::cell::RefCell;

/// What an [`OrderGuard`] holds, such as the lock of a key. Dropping it says that the message will be redelivered.
pub trait Held {
    /// The message is settled, with any outcome.
    fn release(self: Box<Self>);
}

/// Keeps the position of a message in an order from its first attempt until it is settled, so that no other message overtakes it between
/// two attempts.
///
/// An adapter that redelivers messages creates one per message and passes it to each attempt
/// ([`Exchange::dispatch_ordered`](crate::Exchange::dispatch_ordered)). Dropping it without [`OrderGuard::settled`] says that the message will
/// be redelivered, and with it the messages behind it of the same source.
pub struct OrderGuard {
    source: u64,
    held: RefCell<Option<Box<dyn Held>>>,
}

impl OrderGuard {
    /// For a message of a source. Messages of one source, such as a channel, are redelivered together.
    #[must_use]
    pub fn new(source: u64) -> Self {
        Self { source, held: RefCell::default() }
    }

    /// The source of the message.
    #[must_use]
    pub fn source(&self) -> u64 {
        self.source
    }

    /// Whether a first attempt was made that holds a position.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.held.borrow().is_some()
    }

    /// Holds a position until the message is settled.
    pub fn hold(&self, held: Box<dyn Held>) {
        *self.held.borrow_mut() = Some(held);
    }

    /// Releases the position: the message is settled.
    pub fn settled(&self) {
        if let Some(held) = self.held.borrow_mut().take() {
            held.release();
        }
    }
}

impl std::fmt::Debug for OrderGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OrderGuard {{ is_held: {} }}", self.is_held())
    }
}
