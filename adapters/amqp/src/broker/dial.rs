//! Dials connections for lapin with the transport that all adapters share, with or without TLS.

use std::future::Future;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_rs::traits::{Executor, Reactor, RuntimeKit};
use async_rs::util::Task;
use async_rs::{Runtime, Tokio};
use crossdock_transport::{Dialer, DialledStream, MaybeTls};
use futures_util::io::{AsyncRead, AsyncWrite};
use futures_util::stream::Stream;
use lapin::uri::AMQPUri;
use lapin::{AsyncTcpStream, Connection, ConnectionProperties};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt as _};

use crate::frames::filtered_stream::FilteredStream;
use crate::frames::{Filter, Returns};

/// Connects to one address. Received bytes are filtered, and returned messages are recorded.
pub(super) async fn connect(
    uri: AMQPUri,
    dialer: Arc<Dialer>,
    name: &str,
) -> lapin::Result<(Connection, Arc<Returns>)> {
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let returns = Arc::new(Returns::default());
    let recorded = Arc::clone(&returns);
    let dial = async move |_: AMQPUri, _: Runtime<Kit>| {
        let dialled = dialer.dial().await.map_err(|fault| io::Error::other(fault.message.to_string()))?;
        let filter = Filter::new(Arc::clone(&recorded));
        Ok(AsyncTcpStream::Plain(FilteredStream::new(dialled.compat(), filter)))
    };
    let connection = Connection::connector(uri, Runtime::new(Kit(Tokio::current())), dial, properties).await?;
    Ok((connection, returns))
}

/// The runtime for lapin: tokio with a different stream type.
#[derive(Debug, Clone)]
struct Kit(Tokio);

impl RuntimeKit for Kit {}

impl Executor for Kit {
    type Task<T: Send + 'static> = <Tokio as Executor>::Task<T>;

    fn block_on<T, F: Future<Output = T>>(&self, future: F) -> T {
        self.0.block_on(future)
    }

    fn spawn<T: Send + 'static, F: Future<Output = T> + Send + 'static>(&self, future: F) -> Task<Self::Task<T>> {
        self.0.spawn(future)
    }

    fn spawn_blocking<T: Send + 'static, F: FnOnce() -> T + Send + 'static>(&self, work: F) -> Task<Self::Task<T>> {
        self.0.spawn_blocking(work)
    }
}

impl Reactor for Kit {
    type TcpStream = FilteredStream<Compat<DialledStream>>;
    type Sleep = <Tokio as Reactor>::Sleep;

    /// Unsupported: all sockets are dialled here, none by lapin.
    fn register<H: Read + Write + Send + 'static>(
        &self,
        _: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<Self::TcpStream, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, time: Duration) -> Self::Sleep {
        self.0.sleep(time)
    }

    fn interval(&self, time: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(time)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let connecting = self.0.tcp_connect_addr(address);
        async move {
            let dialled = DialledStream::new(MaybeTls::Plain(connecting.await?.into_inner()));
            Ok(FilteredStream::new(dialled.compat(), Filter::new(Arc::default())))
        }
    }
}
