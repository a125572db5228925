//! Taking connections of callers.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::MaybeTls;

/// For a TLS handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);

/// What the kernel takes of an answer before it can send it. Without a limit, megabytes for each caller who does not read would lie there,
/// and count as taken.
#[cfg(target_os = "linux")]
const UNSENT_LEN_MAX: u32 = 64 << 10;

/// A caller's connection.
pub type Accepted = MaybeTls<TlsStream<TcpStream>>;

/// Makes a socket a caller's connection: without delay, and with TLS where the listener speaks it.
///
/// # Errors
/// Where the handshake fails or takes too long.
pub async fn accept(socket: TcpStream, acceptor: Option<&TlsAcceptor>) -> io::Result<Accepted> {
    socket.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(&socket).set_tcp_notsent_lowat(UNSENT_LEN_MAX)?;
    match acceptor {
        None => Ok(Accepted::Plain(socket)),
        Some(acceptor) => {
            let shaken = tokio::time::timeout(HANDSHAKE_TIME, acceptor.accept(socket)).await;
            Ok(Accepted::Tls(Box::new(shaken.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??)))
        }
    }
}

impl Accepted {
    /// The protocol that both sides agreed on while TLS began (ALPN, RFC 7301).
    #[must_use]
    pub fn protocol(&self) -> Option<&[u8]> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol(),
        }
    }
}
