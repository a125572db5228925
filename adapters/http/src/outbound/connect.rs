//! Making connections.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::{Duration, Instant};

use crossdock_adapter_api::AdapterError;
use crossdock_message::Fault;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::pool::Link;
use crate::config::Endpoint;
use crate::error;
use crate::stream::MaybeTls;

/// Bytes that a connection buffers, and that a reply's head may weigh.
const BUFFER_LEN_MAX: usize = 64 * 1024;

/// Makes connections to one endpoint.
pub(super) struct Connector {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    timeout: Duration,
}

impl Connector {
    pub(super) fn plain(endpoint: &Endpoint, timeout: Duration) -> Self {
        Self { host: endpoint.host.clone(), port: endpoint.port, tls: None, timeout }
    }

    pub(super) fn secure(
        endpoint: &Endpoint,
        connector: TlsConnector,
        name: Option<String>,
        timeout: Duration,
    ) -> Result<Self, AdapterError> {
        let name = name.unwrap_or_else(|| endpoint.host.clone());
        let bad_name = |_| AdapterError::Settings(format!("`{name}` is not a name that a certificate can have"));
        let name = ServerName::try_from(name.clone()).map_err(bad_name)?;
        Ok(Self { tls: Some((connector, name)), ..Self::plain(endpoint, timeout) })
    }

    /// A new connection, ready for a request.
    pub(super) async fn connect(&self) -> Result<Box<Link>, Fault> {
        match tokio::time::timeout(self.timeout, self.connect_unbounded()).await {
            Ok(connected) => connected,
            Err(_) => Err(error::unreachable("no connection in time")),
        }
    }

    async fn connect_unbounded(&self) -> Result<Box<Link>, Fault> {
        let refused = |failure: &io::Error| error::unreachable(&failure.kind().to_string());
        let socket = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|failure| refused(&failure))?;
        socket.set_nodelay(true).map_err(|failure| refused(&failure))?;
        let stream = match &self.tls {
            None => Stream::Plain(socket),
            Some((connector, name)) => {
                let shaken = connector.connect(name.clone(), socket).await;
                Stream::Tls(Box::new(shaken.map_err(|_| error::unreachable("the TLS handshake failed"))?))
            }
        };
        let mut builder = http1::Builder::new();
        builder.max_buf_size(BUFFER_LEN_MAX).writev(false);
        let (mut sender, mut connection) = builder
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|_| error::unreachable("the connection was closed"))?;
        std::future::poll_fn(|cx| {
            let _ = Pin::new(&mut connection).poll(cx);
            sender.poll_ready(cx)
        })
        .await
        .map_err(|_| error::unreachable("the connection was closed"))?;
        Ok(Box::new(Link { sender, connection: Some(connection), since: Instant::now() }))
    }
}

/// A service's connection.
pub(super) type Stream = MaybeTls<TlsStream<TcpStream>>;
