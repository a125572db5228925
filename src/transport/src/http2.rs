//! One HTTP/2 connection of a caller, from its first byte to its last, with limits against what HTTP/2 can be made to do.

mod activity;
mod answer;
mod executor;
mod gathered;
mod written;

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
use answer::Watched;
use executor::CallExecutor;
use written::Written;

pub use activity::Work;
pub use answer::Answer;
pub use executor::LocalExecutor;
pub use gathered::Gathered;

/// Streams that a caller opened and reset before they were looked at; more end the connection (CVE-2023-44487).
const PENDING_RESETS_MAX: usize = 20;
/// Streams that we reset because of what a caller did, in the whole life of a connection; more end it (CVE-2025-8671).
const LOCAL_RESETS_MAX: usize = 1000;
/// Work at once that the requests of a connection have begun, for each stream that it may have: a request that is reset frees its
/// stream at once, and its work only when that ends.
const WORK_PER_STREAM: usize = 2;
/// A connection that has been idle for this long may be closed to make room for others.
const SHED_IDLE_TIME: Duration = Duration::from_secs(2);
/// What waits to be sent on one stream.
const SEND_BUFFER_LEN_MAX: usize = 64 * 1024;
/// How often a connection is looked at, and so how exact its limits of time are: they are never shorter.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A connection that was told to go, has no request and takes nothing for this long is not waited for any more.
const STILL_TIME: Duration = Duration::from_secs(3);

/// Limits of one connection.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Requests at once.
    pub streams: u32,
    /// Bytes of one head, as HTTP/2 counts them (RFC 9113 §6.5.2).
    pub head_len_max: u32,
    /// Bytes that may be on their way to one request without having been taken.
    pub stream_window: u32,
    /// The same of all requests of the connection.
    pub connection_window: u32,
    /// How often a quiet connection is asked whether it is alive.
    pub keep_alive: Duration,
    /// How long it may take to say so.
    pub keep_alive_timeout: Duration,
    /// How long a connection is kept without a request.
    pub idle_timeout: Duration,
    /// How long a caller may take nothing of an answer that is there; its stream is reset then.
    pub write_timeout: Duration,
    /// Whether answers say when they were given.
    pub date: bool,
}

/// Stands in a request's extensions in the place of [`Work`] where the connection has begun too much already: it is to be refused.
#[derive(Debug, Clone, Copy)]
struct TooMuchWork;

/// Whether a request may begin its work, which its extensions then hold as `Arc<Work>`.
///
/// # Errors
/// RESOURCE_EXHAUSTED where its connection has begun too much, or reset too much of it.
pub fn check_work(extensions: &http::Extensions) -> Result<(), Fault> {
    if extensions.get::<TooMuchWork>().is_none() {
        return Ok(());
    }
    let message = "the connection has begun more calls than it may, or reset too many of them";
    let fault = Fault::new(Code::ResourceExhausted, "CONNECTION_BUSY", message);
    Err(fault.with_retry(Retry::After(Duration::from_secs(1))).with_http_status(503))
}

/// What a window may be (RFC 9113 §6.9.1), and what a head may weigh.
const WINDOW_MAX: u64 = (1 << 31) - 1;
const HEAD_LEN_MAX: u64 = 16 << 20;
const SIZE_MIN: u64 = 1 << 10;

/// Checks a listener's `head`, `stream_window` and `connection_window`; nothing where an error was reported.
pub fn check_sizes(sizes: [(&str, Size); 3], node: &Node, reader: &mut Reader<'_>) -> Option<()> {
    for (name, size) in sizes {
        let max = if name == "head" { HEAD_LEN_MAX } else { WINDOW_MAX };
        if !(SIZE_MIN..=max).contains(&size.0) {
            let span = node.get(name).map_or(node.span, |node| node.span);
            let message = format!("`{name}` of {} bytes cannot be", size.0);
            reader.error("size", span, message, "write 1KiB to 2GiB; `head` up to 16MiB");
            return None;
        }
    }
    Some(())
}

/// Serves a connection until its caller ends it, it has been idle, a limit is broken, or `stop`.
///
/// A request that is reset drops its future or its answer.
pub async fn serve<IO, B, H, F>(stream: IO, limits: &Limits, stop: &CancellationToken, handle: H)
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
    B: Answer + 'static,
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
        let work = served.begin_work(work_max);
        let call = served.begin(work.is_some());
        match work {
            Some(work) => drop(request.extensions_mut().insert(work)),
            None => drop(request.extensions_mut().insert(TooMuchWork)),
        }
        let handling = handle(request);
        async move { Ok::<_, Infallible>(handling.await.map(|body| Watched::new(body, call))) }
    });
    let stream = Gathered::new(Written::new(stream, Rc::clone(&activity)));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    let leaving: Cell<Option<Instant>> = Cell::new(None);
    loop {
        let leave = |connection: std::pin::Pin<&mut _>| {
            hyper::server::conn::http2::Connection::graceful_shutdown(connection);
            leaving.set(Some(Instant::now()));
        };
        tokio::select! {
            biased;
            // A connection that fails is its caller's loss.
            _ = connection.as_mut() => return,
            () = stop.cancelled(), if leaving.get().is_none() => leave(connection.as_mut()),
            _ = looks.tick() => {
                let now = Instant::now();
                // Before the budget refills.
                let resets_too_much = activity.resets_too_much();
                activity.look(now);
                activity.end_untaken(limits.write_timeout);
                match leaving.get() {
                    // One of those that a look at all connections would choose: this one cannot see the others.
                    None if activity.has_none() && activity.is_idle(SHED_IDLE_TIME) && descriptors::claim_to_shed(1) > 0 => {
                        descriptors::count_shed();
                        leave(connection.as_mut());
                    }
                    None if activity.is_idle(limits.idle_timeout) || resets_too_much => {
                        leave(connection.as_mut());
                    }
                    // hyper ends it once all is sent and the caller has answered; one who does not is not waited for.
                    Some(since) if activity.has_none() && now - since > STILL_TIME && activity.is_still(STILL_TIME) => {
                        return;
                    }
                    _ => {}
                }
            }
        }
    }
}
