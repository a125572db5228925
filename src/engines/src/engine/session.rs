//! The session of this instance.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::grant::{deleted, lose};
use super::{ANSWER_TIMEOUT, CONCURRENCY, RETRY_INTERVAL, RETRY_INTERVAL_MAX, Shared};
use crate::backend::{Backend, Opened, Problem};
use crate::life::Life;

/// The longest wait for a new session.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// A session of this instance.
pub(super) struct Own<S> {
    pub(super) session: S,
    pub(super) life: Arc<Life>,
    /// Until it is kept alive next.
    pub(super) ended: watch::Sender<bool>,
}

impl<S> Own<S> {
    /// Waits until it has ended. Cancel safe.
    pub(super) async fn has_ended(&self) {
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }
}

pub(super) enum Current<S> {
    None,
    Open(Arc<Own<S>>),
    /// The instance stops.
    Over,
}

/// Opens a session, and returns it with a time at which it was surely alive.
async fn open<B: Backend>(backend: &B) -> Result<(Opened<B::Session>, Instant), Problem> {
    let late = |_| Problem::unreachable("it does not answer in time");
    let opened = timeout(OPEN_TIMEOUT, backend.open()).await.map_err(late)??;
    // Connecting may have taken a large part of its time.
    let sent = Instant::now();
    timeout(ANSWER_TIMEOUT, backend.keep_alive(&opened.session)).await.map_err(late)??;
    Ok((opened, sent))
}

/// Opens a session, keeps it alive, and opens another one when it is lost.
pub(super) async fn keep<B: Backend>(shared: Arc<Shared<B>>) {
    let mut is_reported = false;
    loop {
        let (Opened { session, ttl }, began) = match open(&shared.backend).await {
            Ok(opened) => opened,
            Err(problem) => {
                if !is_reported {
                    tracing::error!(engine = B::ROW.name, ?problem, "cannot open a session for locks; trying again");
                    is_reported = true;
                }
                sleep(RETRY_INTERVAL_MAX / 4).await;
                continue;
            }
        };
        is_reported = false;
        let life = Arc::new(Life::new(began, began + ttl.mul_f64(B::KNOWN)));
        let own = Arc::new(Own { session, life, ended: watch::Sender::new(false) });
        let is_open = shared.current.send_if_modified(|current| {
            let is_open = matches!(current, Current::None);
            if is_open {
                *current = Current::Open(Arc::clone(&own));
            }
            is_open
        });
        if !is_open {
            return;
        }
        tracing::info!(engine = B::ROW.name, session = ?own.session, "session for locks opened");
        keep_alive(&shared, &own, ttl).await;
        shared.current.send_if_modified(|current| {
            let is_own = matches!(current, Current::Open(other) if Arc::ptr_eq(other, &own));
            if is_own {
                *current = Current::None;
            }
            is_own
        });
        shared.end(&own);
        if matches!(*shared.current.borrow(), Current::Over) {
            return;
        }
        shared.lost.fetch_add(1, Ordering::Relaxed);
        tracing::error!(engine = B::ROW.name, session = ?own.session, "session for locks lost, with everything that this instance held");
        // The engine may still keep it, with locks that have no owner any more.
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let closing = async {
                while let Err(Problem::Unreachable(_)) = shared.backend.close(&own.session).await {
                    sleep(RETRY_INTERVAL_MAX).await;
                }
            };
            // After that, it has expired.
            let _ = timeout(ttl * 3, closing).await;
            shared.backend.forget(&own.session);
        });
    }
}

/// Keeps a session alive, and checks what it holds, until it is lost. Its time counts from when the engine was asked, which is before the
/// engine counts.
async fn keep_alive<B: Backend>(shared: &Arc<Shared<B>>, own: &Arc<Own<B::Session>>, ttl: Duration) {
    let interval = ttl.mul_f64(B::KNOWN / 3.0);
    // Leaves time to ask another server.
    let limit = interval / 2;
    let mut next = Instant::now() + interval;
    loop {
        tokio::select! {
            () = own.has_ended() => return,
            () = tokio::time::sleep_until(next) => {}
        }
        let sent = Instant::now();
        let until = own.life.until();
        if sent >= until {
            return;
        }
        match timeout_at(until.min(sent + limit), shared.backend.keep_alive(&own.session)).await {
            Ok(Ok(())) => {
                own.life.extend(sent + ttl.mul_f64(B::KNOWN));
                next = sent + interval;
                check(shared, own, next).await;
            }
            Ok(Err(Problem::SessionEnded)) => return,
            Ok(Err(problem)) => {
                tracing::debug!(engine = B::ROW.name, ?problem, "session for locks not kept alive; trying again");
                next = Instant::now() + RETRY_INTERVAL.min(interval);
            }
            Err(_) => next = Instant::now(),
        }
    }
}

/// Finds locks that others have taken away, until this time.
async fn check<B: Backend>(shared: &Arc<Shared<B>>, own: &Arc<Own<B::Session>>, until: Instant) {
    let granted: Vec<_> = {
        let granted = shared.granted();
        let of_session = granted.values().filter(|granted| Arc::ptr_eq(&granted.own, own));
        of_session.map(|granted| (Arc::clone(&granted.ticket), granted.losing.clone())).collect()
    };
    let checking = stream::iter(granted).for_each_concurrent(CONCURRENCY, async |(ticket, losing)| {
        if let Ok(false) = shared.backend.holds(&own.session, &ticket).await {
            lose(&losing, deleted());
        }
    });
    let _ = timeout_at(until, checking).await;
}
