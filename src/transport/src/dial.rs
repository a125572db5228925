//! Making connections to a service.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crossdock_adapter_api::AdapterError;
use crossdock_message::{Code, Deadline, Fault, Retry};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::{ClientTlsSettings, Endpoint, MaybeTls, ReadToEnd, tls};

/// A connection to a service.
pub type Dialled = ReadToEnd<MaybeTls<TlsStream<TcpStream>>>;

/// Makes connections to one endpoint.
#[derive(Clone)]
pub struct Dialer {
    host: String,
    port: u16,
    /// The only one of the host's addresses that it connects to; all of them where there is none.
    address: Option<IpAddr>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    timeout: Duration,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dialer to {}:{}", self.host, self.port)
    }
}

/// The service was not reached: the request cannot have been carried out.
#[must_use]
pub fn unreachable(problem: &str) -> Fault {
    Fault::new(Code::Unavailable, "UNREACHABLE", format!("the service cannot be reached: {problem}"))
        .with_retry(Retry::Same)
}

/// What is left of a call's time that a connection may take, in quarters: the rest is for the call, or for another endpoint.
const CONNECT_QUARTERS: u32 = 3;

/// Bounds the making of a connection by the deadline of the call that it is for, so that an endpoint that does not answer at all is known as
/// unreachable while there is time for another.
///
/// # Errors
/// Those of `connecting`, and UNREACHABLE where its time is over.
pub async fn within_deadline<T>(
    deadline: Option<Deadline>,
    connecting: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    let Some(deadline) = deadline else { return connecting.await };
    let time = deadline.left(Instant::now()) / 4 * CONNECT_QUARTERS;
    tokio::time::timeout(time, connecting).await.unwrap_or_else(|_| Err(unreachable("no connection in time")))
}

impl Dialer {
    /// To that endpoint; a whole connection may take `timeout`. `alpn` names the protocols that are spoken over TLS.
    ///
    /// # Errors
    /// [`AdapterError::Settings`] where a file of the settings cannot be used.
    pub fn new(
        endpoint: &Endpoint,
        settings: Option<&ClientTlsSettings>,
        alpn: &[&[u8]],
        timeout: Duration,
    ) -> Result<Self, AdapterError> {
        Self::to_host(&endpoint.host, endpoint.port, endpoint.secure, settings, alpn, timeout)
    }

    /// To that host; `secure` is over TLS. All else is as for [`Dialer::new`].
    ///
    /// # Errors
    /// As [`Dialer::new`].
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
            let bad_name = |_| AdapterError::Settings(format!("`{name}` is not a name that a certificate can have"));
            let server = ServerName::try_from(name.clone()).map_err(bad_name)?;
            Some((TlsConnector::from(tls::client(settings, alpn)?), server))
        } else {
            None
        };
        Ok(Self { host: host.to_owned(), port, address: None, tls, timeout })
    }

    /// The same, connecting to one address of the host only; TLS still asks for the host's certificate.
    #[must_use]
    pub fn at(&self, address: IpAddr) -> Self {
        Self { address: Some(address), ..self.clone() }
    }

    /// A new connection: to the first of the host's addresses that accepts one.
    ///
    /// # Errors
    /// UNAVAILABLE, to be tried again as it is, where there is none in time.
    pub async fn dial(&self) -> Result<Dialled, Fault> {
        match tokio::time::timeout(self.timeout, self.dial_unbounded()).await {
            Ok(dialled) => dialled,
            Err(_) => Err(unreachable("no connection in time")),
        }
    }

    async fn dial_unbounded(&self) -> Result<Dialled, Fault> {
        let refused = |failure: &io::Error| unreachable(&failure.kind().to_string());
        let socket = self.connect().await.map_err(|failure| refused(&failure))?;
        socket.set_nodelay(true).map_err(|failure| refused(&failure))?;
        match &self.tls {
            None => Ok(ReadToEnd::new(MaybeTls::Plain(socket))),
            Some((connector, name)) => {
                let shaken = connector.connect(name.clone(), socket).await;
                let stream = shaken.map_err(|_| unreachable("the TLS handshake failed"))?;
                Ok(ReadToEnd::new(MaybeTls::Tls(Box::new(stream))))
            }
        }
    }

    /// Each address gets an equal part of the time that is left, so that one that does not answer leaves some for the others.
    async fn connect(&self) -> io::Result<TcpStream> {
        if let Some(address) = self.address {
            return TcpStream::connect((address, self.port)).await;
        }
        let until = Instant::now() + self.timeout;
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host((self.host.as_str(), self.port)).await?.collect();
        let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for (tried, address) in (0_u32..).zip(&addresses) {
            let left = u32::try_from(addresses.len()).unwrap_or(u32::MAX) - tried;
            let time = until.saturating_duration_since(Instant::now()) / left;
            match tokio::time::timeout(time, TcpStream::connect(address)).await {
                Ok(Ok(socket)) => return Ok(socket),
                Ok(Err(refused)) => failure = refused,
                Err(_) => failure = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(failure)
    }
}
