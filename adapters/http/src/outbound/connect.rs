//! Making connections.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::{Duration, Instant};

use crossdock_adapter_api::AdapterError;
use crossdock_message::Fault;
use crossdock_transport::{ClientTlsSettings, Dialer, Endpoint, unreachable};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::pool::Link;

/// Bytes that a connection buffers, and that a reply's head may weigh.
const BUFFER_LEN_MAX: usize = 64 * 1024;

/// Makes connections to one endpoint.
pub(super) struct Connector {
    dialer: Dialer,
}

impl Connector {
    pub(super) fn new(
        endpoint: &Endpoint,
        tls: Option<&ClientTlsSettings>,
        timeout: Duration,
    ) -> Result<Self, AdapterError> {
        Ok(Self { dialer: Dialer::new(endpoint, tls, &[b"http/1.1"], timeout)? })
    }

    /// The same, to one address of the endpoint's host.
    pub(super) fn at(&self, address: IpAddr) -> Self {
        Self { dialer: self.dialer.at(address) }
    }

    /// A new connection, ready for a request.
    pub(super) async fn connect(&self) -> Result<Box<Link>, Fault> {
        let stream = self.dialer.dial().await?;
        let gone = stream.closed_by_peer();
        let mut builder = http1::Builder::new();
        builder.max_buf_size(BUFFER_LEN_MAX).writev(false);
        let closed = |_| unreachable("the connection was closed");
        let (mut sender, mut connection) = builder.handshake(TokioIo::new(stream)).await.map_err(closed)?;
        std::future::poll_fn(|cx| {
            let _ = Pin::new(&mut connection).poll(cx);
            sender.poll_ready(cx)
        })
        .await
        .map_err(closed)?;
        Ok(Box::new(Link { sender, connection: Some(connection), gone, since: Instant::now() }))
    }
}
