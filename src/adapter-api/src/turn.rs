//! The place of a message among those that are carried out one after another.

use std::cell::RefCell;

/// Something that is held for a message until it is settled. Dropping it says that the message will come again.
pub trait Hold {
    /// The message was settled, whatever came of it.
    fn done(self: Box<Self>);
}

/// What is held for a message from its first try to its settlement, so that none overtakes it between two tries.
///
/// An adapter whose messages may be tried again makes one for each message and gives it to every try
/// ([`Exchange::dispatch_in`](crate::Exchange::dispatch_in)). Dropping it without [`Turn::done`] says that the message will come
/// again: those of its source behind it come again as well.
pub struct Turn {
    source: u64,
    held: RefCell<Option<Box<dyn Hold>>>,
}

impl Turn {
    /// For a message of a source: messages of one source, such as a channel, come again together.
    #[must_use]
    pub fn new(source: u64) -> Self {
        Self { source, held: RefCell::default() }
    }

    /// Where the message came from.
    #[must_use]
    pub fn source(&self) -> u64 {
        self.source
    }

    /// Whether something is held: a first try was made.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.held.borrow().is_some()
    }

    /// Holds something until the message is settled.
    pub fn hold(&self, held: Box<dyn Hold>) {
        *self.held.borrow_mut() = Some(held);
    }

    /// The message was settled.
    pub fn done(&self) {
        if let Some(held) = self.held.borrow_mut().take() {
            held.done();
        }
    }
}

impl std::fmt::Debug for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Turn {{ is_held: {} }}", self.is_held())
    }
}
