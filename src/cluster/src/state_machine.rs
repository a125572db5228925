//! The interface of a replicated state.

use std::io::{self, Read, Write};

use bytes::Bytes;
use crossdock_zab::Zxid;

/// Why a state cannot be decoded.
#[derive(Debug, thiserror::Error)]
#[error("the state cannot be decoded: {0}")]
pub struct InvalidState(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// A committed command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Its position in the order of all commands.
    pub zxid: Zxid,
    /// The clock of the leader that proposed it, in milliseconds since the Unix epoch. It is the same on all instances and
    /// never goes back. Within an epoch, it goes on by the leader's monotonic clock, even if the wall clock is set.
    pub time: u64,
    /// What to do, as the proposer encoded it.
    pub payload: Bytes,
    /// Whether the answer is used on this instance. It must not influence the state: instances differ in it.
    pub is_awaited: bool,
}

/// The version of every machine at first.
pub(crate) const FIRST_VERSION: u32 = 1;

/// What a state machine produces while it applies commands.
#[derive(Debug)]
pub struct Outbox<E> {
    answers: Vec<Bytes>,
    events: Vec<E>,
    is_observed: bool,
    version: u32,
}

impl<E> Outbox<E> {
    pub(crate) fn new() -> Self {
        Self { answers: Vec::new(), events: Vec::new(), is_observed: false, version: FIRST_VERSION }
    }

    /// Prepares for a batch of this many commands.
    pub(crate) fn begin(&mut self, commands: usize, is_observed: bool, version: u32) {
        self.answers.clear();
        self.answers.resize(commands, Bytes::new());
        (self.is_observed, self.version) = (is_observed, version);
    }

    /// The version of the machine in effect, the same for the whole batch. A command of a later version must be refused.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    pub(crate) fn answers(&mut self) -> std::vec::Drain<'_, Bytes> {
        self.answers.drain(..)
    }

    pub(crate) fn take_events(&mut self) -> Vec<E> {
        std::mem::take(&mut self.events)
    }

    /// Whether this instance has subscribers. Without them, events are of no use.
    #[must_use]
    pub fn is_observed(&self) -> bool {
        self.is_observed
    }

    /// Answers the proposer of the command at this index of the batch. Without an answer, it gets an empty one.
    pub fn answer(&mut self, command: usize, answer: Bytes) {
        if let Some(place) = self.answers.get_mut(command) {
            *place = answer;
        }
    }

    /// Tells the subscribers on this instance, once the whole batch is applied and visible.
    pub fn event(&mut self, event: E) {
        if self.is_observed {
            self.events.push(event);
        }
    }
}

/// A state that all instances change in the same way. It runs on a thread of its own.
pub trait StateMachine: Send + 'static {
    /// What readers see.
    type View: View;
    /// What it tells subscribers on the same instance.
    type Event: Send + Sync + 'static;

    /// The highest version of its commands and of its state that this release understands, at least 1. It understands all
    /// lower ones, too.
    ///
    /// The cluster uses a version once all its instances understand it, and never goes back. A new command needs a new
    /// version: an instance that does not understand it would end up with another state.
    fn version(&self) -> u32 {
        FIRST_VERSION
    }

    /// Applies committed commands in order. It must be deterministic and cannot fail: a command that cannot be executed has
    /// an answer, too. How commands are divided into batches differs between instances.
    fn apply(&mut self, commands: &[Command], outbox: &mut Outbox<Self::Event>);

    /// The current state, for readers and snapshots. It is taken after each batch, so it must be cheap at any size: share the
    /// data, and copy what is changed later.
    fn view(&self) -> Self::View;

    /// Replaces the state by one that [`View::write_to`] encoded, on this instance or another; `None` is the initial state.
    /// It must read everything.
    ///
    /// # Errors
    /// The state cannot be decoded, or read.
    fn restore(&mut self, state: Option<&mut dyn Read>) -> Result<(), InvalidState>;
}

/// An immutable state.
pub trait View: Send + Sync + 'static {
    /// Encodes the state for [`StateMachine::restore`]. Runs on another thread and may take long.
    ///
    /// # Errors
    /// Those of the writer.
    fn write_to(&self, to: &mut dyn Write) -> io::Result<()>;
}
