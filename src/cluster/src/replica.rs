//! A state machine as its users on this instance see it: commands, reads and notices.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use crossdock_zab::{Role, Zxid};
use tokio::sync::broadcast;

use crate::error::RequestError;
use crate::machines::MachineId;
use crate::node::{Client, Proposal};
use crate::state_machine::{FIRST_VERSION, StateMachine};

/// Notices that a subscriber may lag behind before it misses some.
const NOTICES_LEN_MAX: usize = 1024;

/// A message to a subscriber. The view includes a batch of commands before the events of the batch arrive.
#[derive(Debug)]
pub enum Notice<E> {
    /// The events of a batch of commands; the zxid of the last one.
    Events(Zxid, Arc<[E]>),
    /// The state was replaced by that of a snapshot; events before it may be missing. Compare with the view.
    Restored(Zxid),
    /// The subscriber was too slow, and missed notices. Compare with the view.
    Missed,
    /// The role of this instance has changed.
    Role(Role),
    /// The instance has ended; nothing follows.
    Ended,
}

impl<E> Clone for Notice<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Events(zxid, events) => Self::Events(*zxid, Arc::clone(events)),
            Self::Restored(zxid) => Self::Restored(*zxid),
            Self::Missed => Self::Missed,
            Self::Role(role) => Self::Role(*role),
            Self::Ended => Self::Ended,
        }
    }
}

/// What a machine publishes on this instance.
pub struct Published<M: StateMachine> {
    id: MachineId,
    view: Arc<ArcSwap<M::View>>,
    version: Arc<AtomicU32>,
    notices: broadcast::Sender<Notice<M::Event>>,
}

impl<M: StateMachine> Clone for Published<M> {
    fn clone(&self) -> Self {
        let (view, version) = (Arc::clone(&self.view), Arc::clone(&self.version));
        Self { id: self.id, view, version, notices: self.notices.clone() }
    }
}

impl<M: StateMachine> Published<M> {
    pub(crate) fn new(id: MachineId, view: M::View) -> Self {
        let (view, version) = (ArcSwap::from_pointee(view), AtomicU32::new(FIRST_VERSION));
        Self { id, view: Arc::new(view), version: Arc::new(version), notices: broadcast::Sender::new(NOTICES_LEN_MAX) }
    }

    pub(crate) fn id(&self) -> MachineId {
        self.id
    }

    pub(crate) fn version(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.version)
    }

    pub(crate) fn set(&self, view: M::View) {
        self.view.store(Arc::new(view));
    }

    /// Whether it has subscribers.
    pub(crate) fn is_observed(&self) -> bool {
        self.notices.receiver_count() > 0
    }

    pub(crate) fn notify(&self, notice: impl FnOnce() -> Notice<M::Event>) {
        if self.is_observed() {
            // The last subscriber may just have gone.
            let _ = self.notices.send(notice());
        }
    }

    /// The state of this instance, however old that is.
    #[must_use]
    pub fn view(&self) -> Arc<M::View> {
        self.view.load_full()
    }
}

/// The notices of a machine, from the subscription on.
pub struct Subscription<E>(broadcast::Receiver<Notice<E>>);

impl<E> Subscription<E> {
    /// The next notice. Cancel safe.
    pub async fn next(&mut self) -> Notice<E> {
        match self.0.recv().await {
            Ok(notice) => notice,
            Err(broadcast::error::RecvError::Lagged(_)) => Notice::Missed,
            Err(broadcast::error::RecvError::Closed) => Notice::Ended,
        }
    }
}

/// A handle for one machine on this instance. It is also a [`Client`] of the instance.
pub struct Replica<M: StateMachine> {
    client: Client,
    published: Published<M>,
}

impl<M: StateMachine> Clone for Replica<M> {
    fn clone(&self) -> Self {
        Self { client: self.client.clone(), published: self.published.clone() }
    }
}

impl<M: StateMachine> Deref for Replica<M> {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl<M: StateMachine> Replica<M> {
    pub(crate) fn new(client: Client, published: Published<M>) -> Self {
        Self { client, published }
    }

    /// Proposes a command. Returns its zxid and the answer once it is durable on a quorum and applied here.
    ///
    /// If the future is dropped, the outcome is unknown.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn propose(&self, payload: Bytes) -> Result<(Zxid, Bytes), RequestError> {
        self.propose_as(Proposal::new(payload)).await
    }

    /// Proposes a command with options. Otherwise like [`Replica::propose`].
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn propose_as(&self, proposal: Proposal) -> Result<(Zxid, Bytes), RequestError> {
        let mut outcomes = self.client.propose_to(self.published.id, vec![proposal]).await;
        outcomes.pop().unwrap_or(Err(RequestError::Ended))
    }

    /// Proposes commands in this order, and returns their outcomes in the same order. One that is refused does not stop
    /// those after it, unless they are [numbered](Proposal::numbered). Otherwise like [`Replica::propose`].
    pub async fn propose_many(&self, proposals: Vec<Proposal>) -> Vec<Result<(Zxid, Bytes), RequestError>> {
        self.client.propose_to(self.published.id, proposals).await
    }

    /// The state of this instance, however old that is.
    #[must_use]
    pub fn view(&self) -> Arc<M::View> {
        self.published.view()
    }

    /// The [version](StateMachine::version) that all instances understand: commands of it may be proposed.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.published.version.load(Ordering::Acquire)
    }

    /// A state that includes everything that was acknowledged before this call, by any instance.
    ///
    /// # Errors
    /// See [`RequestError`]; it can always be called again.
    pub async fn read(&self) -> Result<Arc<M::View>, RequestError> {
        self.client.barrier().await?;
        Ok(self.published.view())
    }

    /// A state that includes this transaction, such as one whose zxid another instance returned.
    ///
    /// # Errors
    /// See [`RequestError`]; it can always be called again.
    pub async fn read_at(&self, zxid: Zxid) -> Result<Arc<M::View>, RequestError> {
        self.client.applied(zxid).await?;
        Ok(self.published.view())
    }

    /// Subscribes to what happens from now on: take the [view](Replica::view) after subscribing.
    #[must_use]
    pub fn subscribe(&self) -> Subscription<M::Event> {
        Subscription(self.published.notices.subscribe())
    }
}
