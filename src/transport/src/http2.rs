//! Inbound HTTP/2 connections, with limits against abuse of the protocol.

mod activity;
mod coalesce;
mod executor;
mod response;
mod write_observer;

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crossdock_message::{Code, Fault, Retry};
use crossdock_settings::{Node, Reader, Size};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::descriptors;
use activity::Activity;
use executor::CallExecutor;
use response::WatchedBody;
use write_observer::WriteObserver;

pub use activity::Work;
pub use coalesce::WriteCoalescer;
pub use executor::LocalExecutor;
pub use response::ResponseBody;

/// Streams that the client has opened and reset before they were accepted; more end the connection (CVE-2023-44487).
const PENDING_RESETS_MAX: usize = 20;
/// Streams that the server resets because of client errors during the life of a connection; more end it (CVE-2025-8671).
const LOCAL_RESETS_MAX: usize = 1000;
/// Concurrent work of a connection per allowed stream: a reset request frees its stream immediately, but its [`Work`] only when that ends.
const WORK_PER_STREAM: usize = 2;
/// A connection that has been idle for this long may be closed to make room for others.
const SHED_IDLE_TIME: Duration = Duration::from_secs(2);
/// Response bytes buffered per stream.
const SEND_BUFFER_LEN_MAX: usize = 64 * 1024;
/// Interval between checks of a connection, and so the precision of its timeouts, which never fire early.
const TICK_INTERVAL: Duration = Duration::from_secs(1);
/// A connection in shutdown without requests is dropped after this long without a write.
const STALLED_TIMEOUT: Duration = Duration::from_secs(3);

/// Limits of one connection.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Concurrent requests.
    pub streams: u32,
    /// Size of a field section in bytes, as HTTP/2 counts it (RFC 9113 §6.5.2).
    pub head_len_max: u32,
    /// Flow-control window of a stream in bytes.
    pub stream_window: u32,
    /// Flow-control window of the connection in bytes.
    pub connection_window: u32,
    /// Interval between PING frames on a quiet connection.
    pub keep_alive: Duration,
    /// Time to acknowledge a PING frame.
    pub keep_alive_timeout: Duration,
    /// Time after which a connection without requests is closed.
    pub idle_timeout: Duration,
    /// How long a client may leave response data unread before its stream is reset.
    pub write_timeout: Duration,
    /// Whether responses carry a `Date` field.
    pub date: bool,
}

/// Replaces [`Work`] in the extensions of a request that must be rejected because its connection has too much work.
#[derive(Debug, Clone, Copy)]
struct TooMuchWork;

/// Checks that a request may start its work. Its extensions then contain `Arc<Work>`.
///
/// # Errors
/// RESOURCE_EXHAUSTED if the connection has too much concurrent work or has reset too many requests.
pub fn check_work(extensions: &http::Extensions) -> Result<(), Fault> {
    if extensions.get::<TooMuchWork>().is_none() {
        return Ok(());
    }
    let message = "the connection has too many concurrent calls or has reset too many";
    let fault = Fault::new(Code::ResourceExhausted, "CONNECTION_BUSY", message);
    Err(fault.with_retry(Retry::After(Duration::from_secs(1))).with_http_status(503))
}

/// Limits on windows (RFC 9113 §6.9.1) and field sections.
const WINDOW_MAX: u64 = (1 << 31) - 1;
const HEAD_LEN_MAX: u64 = 16 << 20;
const SIZE_MIN: u64 = 1 << 10;

/// Checks `head`, `stream_window` and `connection_window` of a listener. Reports an error and returns `None` if one is out of range.
pub fn check_sizes(sizes: [(&str, Size); 3], node: &Node, reader: &mut Reader<'_>) -> Option<()> {
    for (name, size) in sizes {
        let (max, rule) = match name {
            "head" => (HEAD_LEN_MAX, "at most 16MiB"),
            _ => (WINDOW_MAX, "less than 2GiB"),
        };
        if !(SIZE_MIN..=max).contains(&size.0) {
            let span = node.get(name).map_or(node.span, |node| node.span);
            let message = format!("`{name}` must be at least 1KiB and {rule}");
            reader.error("size", span, message, "write a size such as `64KiB`");
            return None;
        }
    }
    Some(())
}

/// Serves a connection until the client closes it, it is idle for too long, it exceeds a limit, or `stop` is cancelled.
///
/// Resetting a request drops its future or its response body.
pub async fn serve<IO, B, H, F>(stream: IO, limits: &Limits, stop: &CancellationToken, handle: H)
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
    B: ResponseBody + 'static,
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<B>> + 'static,
{
    let activity = Rc::new(Activity::new(Instant::now()));
    let mut builder = hyper::server::conn::http2::Builder::new(CallExecutor(Rc::clone(&activity)));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .initial_stream_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window)
        .max_header_list_size(limits.head_len_max)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(LOCAL_RESETS_MAX)
        .max_send_buf_size(SEND_BUFFER_LEN_MAX)
        .keep_alive_interval(limits.keep_alive)
        .keep_alive_timeout(limits.keep_alive_timeout)
        .auto_date_header(limits.date);
    let served = Rc::clone(&activity);
    let work_max = WORK_PER_STREAM * limits.streams as usize;
    let service = service_fn(move |mut request: Request<Incoming>| {
        let work = served.start_work(work_max);
        let call = served.start_request(work.is_some());
        match work {
            Some(work) => drop(request.extensions_mut().insert(work)),
            None => drop(request.extensions_mut().insert(TooMuchWork)),
        }
        // hyper moves the future of a request several times; boxed, it is copied once.
        let handling = Box::pin(handle(request));
        async move { Ok::<_, Infallible>(handling.await.map(|body| WatchedBody::new(body, call))) }
    });
    let stream = WriteCoalescer::new(WriteObserver::new(stream, Rc::clone(&activity)));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut ticks = tokio::time::interval(TICK_INTERVAL);
    let leaving: Cell<Option<Instant>> = Cell::new(None);
    loop {
        let leave = |connection: std::pin::Pin<&mut _>| {
            hyper::server::conn::http2::Connection::graceful_shutdown(connection);
            leaving.set(Some(Instant::now()));
        };
        tokio::select! {
            biased;
            // Connection errors are the concern of the client.
            _ = connection.as_mut() => return,
            () = stop.cancelled(), if leaving.get().is_none() => leave(connection.as_mut()),
            _ = ticks.tick() => {
                let now = Instant::now();
                // Before the tick refills the budget.
                let has_reset_too_much = activity.has_reset_too_much();
                activity.tick(now);
                activity.abort_stalled(limits.write_timeout);
                let has_no_requests = activity.has_no_requests();
                match leaving.get() {
                    // Any idle connection may be closed: this one does not know whether others are idle for longer.
                    None if has_no_requests && activity.is_idle(SHED_IDLE_TIME) && descriptors::claim_to_shed(1) > 0 => {
                        descriptors::count_shed();
                        leave(connection.as_mut());
                    }
                    None if activity.is_idle(limits.idle_timeout) || has_reset_too_much => {
                        leave(connection.as_mut());
                    }
                    // hyper ends the connection once all data is sent and the client has acknowledged the shutdown, which it may never do.
                    Some(since) if has_no_requests && now - since > STALLED_TIMEOUT && activity.is_stalled(STALLED_TIMEOUT) => {
                        return;
                    }
                    _ => {}
                }
            }
        }
    }
}
