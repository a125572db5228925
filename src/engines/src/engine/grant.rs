//! Locks that are requested, and those that are held.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossdock_ports::{LockGrant, LockLoss, SendFuture};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::Shared;
use super::session::Own;
use crate::backend::{Backend, Ticket};

/// A request whose locks are to be released.
pub(super) struct Due<S> {
    pub(super) own: Arc<Own<S>>,
    pub(super) ticket: Arc<Ticket>,
}

pub(super) type Losing = watch::Sender<Option<LockLoss>>;

pub(super) struct Granted<S> {
    pub(super) own: Arc<Own<S>>,
    pub(super) ticket: Arc<Ticket>,
    pub(super) losing: Losing,
}

/// Notes why locks were lost, unless that is known.
pub(super) fn lose(losing: &Losing, loss: LockLoss) {
    losing.send_if_modified(|known| {
        let is_news = known.is_none();
        if is_news {
            *known = Some(loss);
        }
        is_news
    });
}

pub(super) fn deleted() -> LockLoss {
    LockLoss::Broken("it was deleted in the engine".into())
}

/// A request that is open. Dropping it releases or cancels it.
pub(super) struct Open<B: Backend> {
    pub(super) shared: Arc<Shared<B>>,
    pub(super) own: Arc<Own<B::Session>>,
    pub(super) ticket: Arc<Ticket>,
    pub(super) is_over: AtomicBool,
}

impl<B: Backend> Open<B> {
    pub(super) fn release(&self) {
        if !self.is_over.swap(true, Ordering::AcqRel) {
            self.shared.granted().remove(&self.ticket.id);
            let due = Due { own: Arc::clone(&self.own), ticket: Arc::clone(&self.ticket) };
            // There is room for all requests. Without its task, the instance stops, and the session ends with it.
            let _ = self.shared.releases.try_send(due);
        }
    }
}

impl<B: Backend> Drop for Open<B> {
    fn drop(&mut self) {
        self.release();
    }
}

pub(super) struct Grant<B: Backend> {
    pub(super) open: Arc<Open<B>>,
    pub(super) token: u64,
    pub(super) lost: watch::Receiver<Option<LockLoss>>,
    /// Until when the locks may be held.
    pub(super) until: Option<Instant>,
    pub(super) _expiring: Option<AbortOnDropHandle<()>>,
}

impl<B: Backend> LockGrant for Grant<B> {
    fn token(&self) -> u64 {
        self.token
    }

    fn holds(&self) -> bool {
        let now = Instant::now();
        self.lost.borrow().is_none() && now < self.open.own.life.until() && self.until.is_none_or(|until| now < until)
    }

    fn lost(&self) -> SendFuture<'_, LockLoss> {
        let mut lost = self.lost.clone();
        Box::pin(async move {
            let lost = lost.wait_for(Option::is_some).await;
            lost.ok().and_then(|loss| loss.clone()).unwrap_or(LockLoss::Unknown)
        })
    }

    fn revoked(&self) -> SendFuture<'_, Option<Arc<str>>> {
        Box::pin(async move {
            self.lost().await;
            None
        })
    }

    fn give_up(&self) {
        self.open.release();
    }
}
