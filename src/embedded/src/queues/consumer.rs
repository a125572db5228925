//! Handles of a consumer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crossdock_coordination::command::{Dead, Fate, Retry};
use crossdock_coordination::limits::{MESSAGE_BYTES_MAX, MESSAGE_DELAY_MS_MAX, NAME_BYTES_MAX};
use crossdock_coordination::{Message, Place, Token};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::consuming::{Consuming, Ripe};
use crate::engine::Shared;
use crate::session::Life;

/// After this time, a message is delivered again whose delivery was dropped.
const DROPPED_DELAY: Duration = Duration::from_secs(1);

/// A message was settled without effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SettleError {
    /// The slot of the message was lost meanwhile: its next holder, usually another instance, delivers the message again.
    #[error("the slot of the message was lost; its next holder delivers it again")]
    Lost,
}

/// Consumes a queue. All handles of this instance share its messages.
pub struct Consumer {
    shared: Arc<Shared>,
    consuming: Arc<Consuming>,
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.consuming.remove_handle();
    }
}

impl Consumer {
    pub(super) fn new(shared: &Arc<Shared>, consuming: &Arc<Consuming>) -> Self {
        consuming.add_handle();
        Self { shared: Arc::clone(shared), consuming: Arc::clone(consuming) }
    }

    /// The next message. `None` if the instance has ended. Cancel safe.
    pub async fn next(&self) -> Option<Delivery> {
        loop {
            let ripened = self.consuming.ripened.notified();
            tokio::pin!(ripened);
            // From here on, no notice is missed.
            ripened.as_mut().enable();
            match self.consuming.take() {
                Err(()) => return None,
                Ok(Some(ripe)) => {
                    return Some(Delivery {
                        life: self.shared.sessions.life(),
                        shared: Arc::clone(&self.shared),
                        consuming: Arc::clone(&self.consuming),
                        ripe: Some(ripe),
                    });
                }
                Ok(None) => ripened.await,
            }
        }
    }
}

/// A message that is being delivered. If it is dropped, it is delivered again.
pub struct Delivery {
    shared: Arc<Shared>,
    consuming: Arc<Consuming>,
    /// `None` once it is settled.
    ripe: Option<Ripe>,
    life: Option<Arc<Life>>,
}

/// Whether the slot of a message is still held, as far as this instance knows.
#[derive(Debug, Clone)]
pub struct SlotValidity {
    consuming: Arc<Consuming>,
    slot: u32,
    token: Token,
    life: Option<Arc<Life>>,
}

impl SlotValidity {
    /// Whether it is held. It is not if the session was not kept alive for so long that it may have expired, even if nothing has
    /// told this instance yet, because it was paused.
    #[must_use]
    pub fn holds(&self) -> bool {
        let lives = self.life.as_ref().is_some_and(|life| Instant::now() < life.until());
        lives && self.consuming.holds(self.slot, self.token)
    }

    /// The fencing token of the slot.
    #[must_use]
    pub fn token(&self) -> Token {
        self.token
    }
}

impl Delivery {
    fn ripe(&self) -> &Ripe {
        self.ripe.as_ref().unwrap_or_else(|| unreachable!("a delivery that was settled is gone"))
    }

    /// Where the message is.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.ripe().place
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> &Arc<Message> {
        &self.ripe().message
    }

    /// Tells whether the slot of the message is still held.
    #[must_use]
    pub fn validity(&self) -> SlotValidity {
        let Ripe { place, token, .. } = self.ripe();
        let (consuming, life) = (Arc::clone(&self.consuming), self.life.clone());
        SlotValidity { consuming, slot: place.slot, token: *token, life }
    }

    /// The message was processed, with this result for its producer, up to 1 MiB: a longer one is left out. Returns once that is durable: only then the next one of
    /// its key is delivered. If the future is dropped, it is settled all the same.
    ///
    /// # Errors
    /// See [`SettleError`].
    pub async fn done(self, result: Bytes) -> Result<(), SettleError> {
        self.settle(Fate::Done(result)).await
    }

    /// The message is delivered again after a time, up to 30 days, before those behind it; otherwise like [`Delivery::done`].
    /// `is_failure` counts the attempt as a failure of the message.
    ///
    /// # Errors
    /// See [`SettleError`].
    pub async fn retry(self, delay: Duration, is_failure: bool) -> Result<(), SettleError> {
        self.settle(retry(delay, is_failure)).await
    }

    /// The message becomes a dead letter for this reason, with a result for its producer; otherwise like [`Delivery::done`].
    ///
    /// # Errors
    /// See [`SettleError`].
    pub async fn reject(self, reason: &str, result: Bytes) -> Result<(), SettleError> {
        let reason = reason[..reason.floor_char_boundary(NAME_BYTES_MAX)].to_owned();
        self.settle(Fate::Dead(Dead { reason, result })).await
    }

    async fn settle(mut self, mut fate: Fate) -> Result<(), SettleError> {
        if let Fate::Done(result) | Fate::Dead(Dead { result, .. }) = &mut fate
            && result.len() > MESSAGE_BYTES_MAX
        {
            *result = Bytes::new();
        }
        let Some(ripe) = self.ripe.take() else { return Ok(()) };
        let (done, settled) = oneshot::channel();
        self.consuming.settle(&self.shared, &ripe, fate, done);
        settled.await.unwrap_or(Err(SettleError::Lost))
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(ripe) = self.ripe.take() {
            let (done, _) = oneshot::channel();
            self.consuming.settle(&self.shared, &ripe, retry(DROPPED_DELAY, true), done);
        }
    }
}

fn retry(delay: Duration, is_failure: bool) -> Fate {
    let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX).min(MESSAGE_DELAY_MS_MAX);
    Fate::Retry(Retry { delay_ms, is_failure })
}
