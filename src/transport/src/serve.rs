//! Serving a listener on every data arbiter.

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;

use actix_service::{fn_factory, fn_service};
use crossdock_adapter_api::AdapterError;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// Seconds that connections have to end after the listener was told to stop.
const SHUTDOWN_TIME: u64 = 30;

/// Takes connections until `stop`, and then lets those that are open come to their end.
///
/// `start` runs once on each of `arbiters` threads; what it gives takes each connection of that thread. A connection
/// that fails is its caller's loss.
///
/// # Errors
/// [`AdapterError::Stopped`] where no thread can be started or the listener fails.
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
        .shutdown_timeout(SHUTDOWN_TIME)
        .listen(name, socket, move || {
            let start = start.clone();
            fn_factory(move || {
                let starting = start();
                async move {
                    let connected = Rc::new(starting.await?);
                    Ok::<_, ()>(fn_service(move |socket: TcpStream| {
                        let connected = Rc::clone(&connected);
                        async move { connected(socket).await }
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
