//! Serving a listener on all data arbiters.

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;

use actix_service::{fn_factory, fn_service};
use crossdock_ports::AdapterError;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// Seconds that open connections have to end after a stop.
const SHUTDOWN_TIMEOUT_S: u64 = 30;

/// Accepts connections until `stop` is cancelled, then waits up to 30 s for open connections to end.
///
/// `start` runs once on each of `arbiters` threads and returns the handler for the connections of that thread. Errors of single connections
/// are ignored.
///
/// # Errors
/// [`AdapterError::Stopped`] if no thread can be started or the listener fails.
pub async fn serve<S, C>(
    name: &str,
    socket: TcpListener,
    arbiters: usize,
    stop: CancellationToken,
    start: impl Fn() -> S + Send + Clone + 'static,
) -> Result<(), AdapterError>
where
    S: Future<Output = Result<C, ()>> + 'static,
    C: AsyncFn(TcpStream) -> io::Result<()> + 'static,
{
    let stopped = |error: io::Error| AdapterError::Stopped(error.to_string());
    let server = actix_server::Server::build()
        .workers(arbiters)
        .disable_signals()
        .shutdown_timeout(SHUTDOWN_TIMEOUT_S)
        .listen(name, socket, move || {
            let start = start.clone();
            fn_factory(move || {
                let starting = start();
                async move {
                    let handler = Rc::new(starting.await?);
                    Ok::<_, ()>(fn_service(move |socket: TcpStream| {
                        let handler = Rc::clone(&handler);
                        async move { handler(socket).await }
                    }))
                }
            })
        })
        .map_err(stopped)?
        .run();
    let handle = server.handle();
    let stopping = async move {
        stop.cancelled().await;
        handle.stop(true).await;
    };
    let (served, ()) = tokio::join!(server, stopping);
    served.map_err(stopped)
}
