//! Dialling services.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crossdock_message::{Code, Deadline, EndpointVerdict, Fault, Retry};
use crossdock_ports::AdapterError;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::{ClientTlsSettings, Endpoint, MaybeTls, ReadToEnd, tls};

/// A connection dialled to a service.
pub type DialledStream = ReadToEnd<MaybeTls<TlsStream<TcpStream>>>;

/// Dials one endpoint.
#[derive(Clone)]
pub struct Dialer {
    host: String,
    port: u16,
    /// The address of the host to connect to; `None` tries all of them.
    address: Option<IpAddr>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    timeout: Duration,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dialer to {}:{}", self.host, self.port)
    }
}

/// The fault of a service that was not reached, so that it cannot have executed the request.
#[must_use]
pub fn unreachable(problem: &str) -> Fault {
    Fault::new(Code::Unavailable, "UNREACHABLE", format!("the service cannot be reached: {problem}"))
        .with_retry(Retry::Same)
        .with_endpoint_verdict(EndpointVerdict::Unreachable)
        .logged()
}

/// Quarters of the remaining time of a call that a connection may take; the rest is for the call, or for another endpoint.
const CONNECT_QUARTERS: u32 = 3;

/// Limits `connecting` to a part of the time until the deadline of its call, so that there is time to try another endpoint.
///
/// # Errors
/// Those of `connecting`, and UNREACHABLE if it takes too long.
pub async fn within_deadline<T>(
    deadline: Option<Deadline>,
    connecting: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    let Some(deadline) = deadline else { return connecting.await };
    let timeout = deadline.left(Instant::now()) / 4 * CONNECT_QUARTERS;
    tokio::time::timeout(timeout, connecting).await.unwrap_or_else(|_| Err(unreachable("connection timed out")))
}

impl Dialer {
    /// A dialer for an endpoint. `timeout` limits a dial including the TLS handshake. `alpn` lists the protocols to offer over TLS, in order of
    /// preference.
    ///
    /// # Errors
    /// [`AdapterError::Settings`] if a file of the settings is unusable.
    pub fn new(
        endpoint: &Endpoint,
        settings: Option<&ClientTlsSettings>,
        alpn: &[&[u8]],
        timeout: Duration,
    ) -> Result<Self, AdapterError> {
        Self::to_host(&endpoint.host, endpoint.port, endpoint.secure, settings, alpn, timeout)
    }

    /// A dialer for a host, over TLS if `secure`; otherwise like [`Dialer::new`].
    ///
    /// # Errors
    /// Those of [`Dialer::new`].
    pub fn to_host(
        host: &str,
        port: u16,
        secure: bool,
        settings: Option<&ClientTlsSettings>,
        alpn: &[&[u8]],
        timeout: Duration,
    ) -> Result<Self, AdapterError> {
        let tls = if secure {
            let name = settings.and_then(|tls| tls.server_name.clone()).unwrap_or_else(|| host.to_owned());
            let bad_name = |_| AdapterError::Settings(format!("`{name}` is not a valid TLS server name"));
            let server = ServerName::try_from(name.clone()).map_err(bad_name)?;
            Some((TlsConnector::from(tls::client(settings, alpn)?), server))
        } else {
            None
        };
        Ok(Self { host: host.to_owned(), port, address: None, tls, timeout })
    }

    /// A copy that connects to this address of the host only. TLS still verifies the certificate for the host name.
    #[must_use]
    pub fn at(&self, address: IpAddr) -> Self {
        Self { address: Some(address), ..self.clone() }
    }

    /// Connects to the first address of the host that accepts a connection.
    ///
    /// # Errors
    /// UNAVAILABLE, which may be retried, if there is no connection within the timeout.
    pub async fn dial(&self) -> Result<DialledStream, Fault> {
        match tokio::time::timeout(self.timeout, self.dial_unbounded()).await {
            Ok(dialled) => dialled,
            Err(_) => Err(unreachable("connection timed out")),
        }
    }

    async fn dial_unbounded(&self) -> Result<DialledStream, Fault> {
        let refused = |failure: &io::Error| unreachable(&failure.kind().to_string());
        let socket = self.connect().await.map_err(|failure| refused(&failure))?;
        socket.set_nodelay(true).map_err(|failure| refused(&failure))?;
        match &self.tls {
            None => Ok(ReadToEnd::new(MaybeTls::Plain(socket))),
            Some((connector, name)) => {
                let connected = connector.connect(name.clone(), socket).await;
                let stream = connected.map_err(|_| unreachable("the TLS handshake failed"))?;
                Ok(ReadToEnd::new(MaybeTls::Tls(Box::new(stream))))
            }
        }
    }

    /// Each address gets an equal share of the remaining time, so that one that does not answer leaves time for the others.
    async fn connect(&self) -> io::Result<TcpStream> {
        if let Some(address) = self.address {
            return TcpStream::connect((address, self.port)).await;
        }
        let deadline = Instant::now() + self.timeout;
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host((self.host.as_str(), self.port)).await?.collect();
        let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for (tried, address) in (0_u32..).zip(&addresses) {
            let remaining = u32::try_from(addresses.len()).unwrap_or(u32::MAX) - tried;
            let timeout = deadline.saturating_duration_since(Instant::now()) / remaining;
            match tokio::time::timeout(timeout, TcpStream::connect(address)).await {
                Ok(Ok(socket)) => return Ok(socket),
                Ok(Err(refused)) => failure = refused,
                Err(_) => failure = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(failure)
    }
}
