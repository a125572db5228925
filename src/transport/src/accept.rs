//! Accepting connections.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::MaybeTls;

/// Limit on a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Limit on response bytes that the kernel accepts before it can send them. Without it, the kernel buffers megabytes for each client that
/// does not read, and they count as received by the client.
#[cfg(target_os = "linux")]
const UNSENT_LEN_MAX: u32 = 64 << 10;

/// A connection accepted from a client.
pub type AcceptedStream = MaybeTls<TlsStream<TcpStream>>;

/// Prepares an accepted socket: sets `TCP_NODELAY` and, if there is an `acceptor`, performs the TLS handshake.
///
/// # Errors
/// If the handshake fails or takes longer than 5 s.
pub async fn accept(socket: TcpStream, acceptor: Option<&TlsAcceptor>) -> io::Result<AcceptedStream> {
    socket.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(&socket).set_tcp_notsent_lowat(UNSENT_LEN_MAX)?;
    match acceptor {
        None => Ok(AcceptedStream::Plain(socket)),
        Some(acceptor) => {
            let accepted = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(socket)).await;
            Ok(AcceptedStream::Tls(Box::new(accepted.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??)))
        }
    }
}

impl AcceptedStream {
    /// The protocol negotiated in the TLS handshake (ALPN, RFC 7301).
    #[must_use]
    pub fn protocol(&self) -> Option<&[u8]> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol(),
        }
    }
}
