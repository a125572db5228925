//! One connection of a caller, from its first byte to its last, with limits against what HTTP/2 can be made to do.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crossdock_transport::Accepted;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use super::{Worker, handle};
use crate::executor::LocalExecutor;

/// Streams that a caller opened and reset before they were looked at; more end the connection (CVE-2023-44487).
const PENDING_RESETS_MAX: usize = 20;
/// Streams that we reset because of what a caller did; more end the connection (CVE-2025-8671).
const LOCAL_RESETS_MAX: usize = 20;
/// What waits to be sent on one stream.
const SEND_BUFFER_LEN_MAX: usize = 64 * 1024;
/// Until the first call of a connection; a caller who never says a word goes sooner than one who pauses.
const FIRST_CALL_TIME: Duration = Duration::from_secs(30);
/// How often a connection is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Whether a connection has calls, and since when it has none.
pub(super) struct Activity {
    calls: Cell<usize>,
    since: Cell<Instant>,
    any: Cell<bool>,
}

/// A call under way; it ends when this is dropped.
pub(super) struct Busy(Rc<Activity>);

impl Activity {
    fn new() -> Rc<Self> {
        Rc::new(Self { calls: Cell::new(0), since: Cell::new(Instant::now()), any: Cell::new(false) })
    }

    pub(super) fn begin(self: &Rc<Self>) -> Busy {
        self.calls.set(self.calls.get() + 1);
        self.any.set(true);
        Busy(Rc::clone(self))
    }

    fn is_idle(&self, limit: Duration) -> bool {
        let limit = if self.any.get() { limit } else { limit.min(FIRST_CALL_TIME) };
        self.calls.get() == 0 && self.since.get().elapsed() > limit
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.calls.set(self.0.calls.get() - 1);
        self.0.since.set(Instant::now());
    }
}

pub(super) async fn serve(worker: Rc<Worker>, stream: Accepted) {
    let settings = &worker.settings;
    let small = |size: u64| u32::try_from(size).unwrap_or(u32::MAX);
    let mut builder = hyper::server::conn::http2::Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.streams)
        .initial_stream_window_size(small(settings.stream_window.0))
        .initial_connection_window_size(small(settings.connection_window.0))
        .max_header_list_size(small(settings.head.0))
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(LOCAL_RESETS_MAX)
        .max_send_buf_size(SEND_BUFFER_LEN_MAX)
        .keep_alive_interval(settings.keep_alive.0)
        .keep_alive_timeout(settings.keep_alive_timeout.0)
        .auto_date_header(false);
    let activity = Activity::new();
    let (serving, watched) = (Rc::clone(&worker), Rc::clone(&activity));
    let service = service_fn(move |request| handle(Rc::clone(&serving), Rc::clone(&activity), request));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    let mut leaving: Option<Instant> = None;
    loop {
        tokio::select! {
            biased;
            // A connection that fails is its caller's loss.
            _ = connection.as_mut() => return,
            () = worker.stop.cancelled(), if leaving.is_none() => {
                connection.as_mut().graceful_shutdown();
                leaving = Some(Instant::now());
            }
            _ = looks.tick() => {
                let idle = watched.is_idle(settings.idle_timeout.0);
                match leaving {
                    None if idle => {
                        connection.as_mut().graceful_shutdown();
                        leaving = Some(Instant::now());
                    }
                    // It was told to go and has nothing left to wait for.
                    Some(since) if watched.calls.get() == 0 && since.elapsed() > 2 * LOOK_INTERVAL => return,
                    _ => {}
                }
            }
        }
    }
}
