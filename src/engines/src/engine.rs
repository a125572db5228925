//! The part that all engines have in common: a session that is kept alive, requests, and releases that are repeated until they are done.
//!
//! | module | contents |
//! | --- | --- |
//! | `session` | opens the session of the instance, keeps it alive, and checks what it holds |
//! | `request` | acquires locks, takes numbers, and releases what was dropped |
//! | `grant` | what is requested and held |

mod grant;
mod request;
mod session;

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crossdock_ports::{LockEngine, LockError, LockGrant, LockLoss, LockRequest, SendFuture, SequenceError};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use self::grant::{Due, Granted, lose};
use self::request::release;
use self::session::{Current, Own, keep};
use crate::backend::Backend;

/// The most requests of an instance that hold or wait.
const REQUESTS_MAX: usize = 10_000;
/// The longest wait for one answer of the engine.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Time between two attempts, at first and at most.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);
const RETRY_INTERVAL_MAX: Duration = Duration::from_secs(2);
/// Releases and checks under way at the same time.
const CONCURRENCY: usize = 64;
/// How long a session may take to be closed when the instance stops.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

struct Shared<B: Backend> {
    backend: B,
    current: watch::Sender<Current<B::Session>>,
    lost: AtomicU64,
    /// What is held, by the ids of the tickets.
    granted: Mutex<HashMap<String, Granted<B::Session>>>,
    /// Requests that are not yet released.
    requests: AtomicU64,
    releases: mpsc::Sender<Due<B::Session>>,
    runtime: Handle,
}

impl<B: Backend> Shared<B> {
    fn granted(&self) -> MutexGuard<'_, HashMap<String, Granted<B::Session>>> {
        self.granted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The current session, which is waited for until this time.
    async fn session(&self, deadline: Instant) -> Result<Arc<Own<B::Session>>, LockError> {
        let mut current = self.current.subscribe();
        let is_known = |current: &Current<B::Session>| !matches!(current, Current::None);
        let unavailable = |problem: &str| LockError::Unavailable(problem.to_owned());
        match timeout_at(deadline, current.wait_for(is_known)).await {
            Ok(Ok(current)) => match &*current {
                Current::Open(own) => Ok(Arc::clone(own)),
                Current::None | Current::Over => Err(unavailable("the instance stops")),
            },
            Ok(Err(_)) => Err(unavailable("the instance stops")),
            Err(_) => Err(unavailable("the instance has no session with the engine")),
        }
    }

    /// Ends what a session held.
    fn end(&self, own: &Arc<Own<B::Session>>) {
        own.life.end();
        own.ended.send_replace(true);
        for granted in self.granted().values().filter(|granted| Arc::ptr_eq(&granted.own, own)) {
            lose(&granted.losing, LockLoss::SessionLost);
        }
    }
}

struct Handles<B: Backend>(Arc<Shared<B>>);

impl<B: Backend> LockEngine for Handles<B> {
    fn has_session(&self) -> bool {
        matches!(*self.0.current.borrow(), Current::Open(_))
    }

    fn sessions_lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }

    fn acquire(&self, request: LockRequest) -> SendFuture<'_, Result<Arc<dyn LockGrant>, LockError>> {
        // On the engine's runtime, since that of the caller may end sooner.
        let acquiring = AbortOnDropHandle::new(self.0.runtime.spawn(Arc::clone(&self.0).acquire(request)));
        let stopped = |_| Err(LockError::Unavailable("the instance stops".to_owned()));
        Box::pin(async move { acquiring.await.unwrap_or_else(stopped) })
    }

    fn next_numbers<'a>(&'a self, sequence: &'a str, count: u64) -> SendFuture<'a, Result<u64, SequenceError>> {
        let taking = Arc::clone(&self.0).take(sequence.to_owned(), count);
        let taking = AbortOnDropHandle::new(self.0.runtime.spawn(taking));
        let stopped = |_| Err(SequenceError::Unavailable("the instance stops".to_owned()));
        Box::pin(async move { taking.await.unwrap_or_else(stopped) })
    }

    fn close(&self) -> SendFuture<'_, ()> {
        let shared = Arc::clone(&self.0);
        let closing = self.0.runtime.spawn(async move {
            let Current::Open(own) = shared.current.send_replace(Current::Over) else { return };
            shared.end(&own);
            if timeout(CLOSE_TIMEOUT, shared.backend.close(&own.session)).await.is_err() {
                tracing::warn!(engine = B::ROW.name, "session for locks not closed; it expires");
            }
        });
        Box::pin(async move {
            let _ = closing.await;
        })
    }
}

/// The thread of an engine. When this is dropped, it ends, and what the instance holds counts as lost; its session expires.
pub struct Running {
    /// Dropping it ends the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Starts an engine, with a thread of its own, so that nothing else delays what keeps its session alive.
pub(crate) fn start<B: Backend>(
    backend: impl FnOnce() -> io::Result<B> + Send + 'static,
) -> io::Result<(Arc<dyn LockEngine>, Running)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let backend = {
        let _entered = runtime.enter();
        backend()?
    };
    let (releases, due) = mpsc::channel(REQUESTS_MAX);
    let shared = Arc::new(Shared {
        backend,
        current: watch::Sender::new(Current::None),
        lost: AtomicU64::new(0),
        granted: Mutex::default(),
        requests: AtomicU64::new(0),
        releases,
        runtime: runtime.handle().clone(),
    });
    let (stop, stopped) = oneshot::channel::<()>();
    let (keeping, ending) = (Arc::clone(&shared), Arc::clone(&shared));
    let thread = thread::Builder::new().name("locks".to_owned()).spawn(move || {
        runtime.block_on(async move {
            let working = async { tokio::join!(keep(Arc::clone(&keeping)), release(Arc::clone(&keeping), due)) };
            tokio::select! {
                _ = working => {}
                _ = stopped => {}
            }
            if let Current::Open(own) = ending.current.send_replace(Current::Over) {
                ending.end(&own);
            }
        });
        // A lookup of a host name cannot be interrupted.
        runtime.shutdown_timeout(CLOSE_TIMEOUT);
    })?;
    Ok((Arc::new(Handles(shared)), Running { stop: Some(stop), thread: Some(thread) }))
}
