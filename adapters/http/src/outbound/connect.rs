//! Establishes connections.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::{Duration, Instant};

use crossdock_message::Fault;
use crossdock_ports::AdapterError;
use crossdock_transport::{ClientTlsSettings, Dialer, Endpoint, unreachable};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::pool::PooledConnection;

/// Size of a connection's read buffer in bytes, which limits the head of a response.
const BUFFER_LEN_MAX: usize = 64 * 1024;

/// Establishes connections to one endpoint.
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

    /// A connector to one address of the endpoint's host.
    pub(super) fn at(&self, address: IpAddr) -> Self {
        Self { dialer: self.dialer.at(address) }
    }

    /// Establishes a connection that is ready for a request.
    pub(super) async fn connect(&self) -> Result<Box<PooledConnection>, Fault> {
        let stream = self.dialer.dial().await?;
        let write_failed = stream.closed_by_peer();
        let mut builder = http1::Builder::new();
        builder.max_buf_size(BUFFER_LEN_MAX).writev(false);
        let closed = |_| unreachable("the service closed the connection");
        let (mut sender, mut driver) = builder.handshake(TokioIo::new(stream)).await.map_err(closed)?;
        std::future::poll_fn(|cx| {
            let _ = Pin::new(&mut driver).poll(cx);
            sender.poll_ready(cx)
        })
        .await
        .map_err(closed)?;
        Ok(Box::new(PooledConnection { sender, driver: Some(driver), write_failed, idle_since: Instant::now() }))
    }
}
