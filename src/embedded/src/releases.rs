//! Releases what was dropped.

use std::sync::{Arc, Mutex, PoisonError};

use crossdock_cluster::RequestError;
use crossdock_coordination::command::Release;
use crossdock_coordination::{Operation, RequestId};
use tokio::sync::{Notify, oneshot};
use tokio::time::sleep;

use crate::engine::{RETRY_INTERVAL, Shared, proposal};

/// Commands that are proposed together.
const BATCH_LEN_MAX: usize = 1_000;

/// A request to release, and the caller that waits for it, if any.
type Due = (RequestId, Option<oneshot::Sender<()>>);

/// Requests to release. There are at most as many as requests of the session.
#[derive(Debug, Default)]
pub(crate) struct Releases {
    due: Mutex<Vec<Due>>,
    added: Notify,
}

impl Releases {
    pub(crate) fn add(&self, id: RequestId, done: Option<oneshot::Sender<()>>) {
        self.due.lock().unwrap_or_else(PoisonError::into_inner).push((id, done));
        self.added.notify_one();
    }

    fn take(&self) -> Vec<Due> {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let count = due.len().min(BATCH_LEN_MAX);
        let rest = due.split_off(count);
        std::mem::replace(&mut due, rest)
    }

    fn put_back(&self, failed: Vec<Due>) {
        self.due.lock().unwrap_or_else(PoisonError::into_inner).extend(failed);
    }
}

pub(crate) async fn release(shared: Arc<Shared>) {
    loop {
        let mut due = shared.releases.take();
        if due.is_empty() {
            shared.releases.added.notified().await;
            continue;
        }
        // What the session held was released with it.
        due.retain(|(id, _)| shared.sessions.is_current(id.session));
        let release = |id: &RequestId| Release { session: id.session.0, number: id.number, attempt: 0 };
        let proposals = due.iter().map(|(id, _)| proposal(Operation::Release(release(id))).reserved()).collect();
        let outcomes = shared.replica.propose_many(proposals).await;
        let mut failed = Vec::new();
        for (due, outcome) in due.into_iter().zip(outcomes) {
            match outcome {
                // The instance has ended: its session expires.
                Ok(_) | Err(RequestError::Ended) => {
                    if let Some(done) = due.1 {
                        let _ = done.send(());
                    }
                }
                Err(_) => failed.push(due),
            }
        }
        if !failed.is_empty() {
            shared.releases.put_back(failed);
            sleep(RETRY_INTERVAL).await;
        }
    }
}
