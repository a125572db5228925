//! The other end of an accepted connection.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crossdock_message::{ByteString, RequestContext, TlsIdentity};

use crate::{AcceptedStream, MaybeTls};

/// The other end of an accepted connection, the same for all of its requests.
#[derive(Debug, Clone)]
pub struct Peer {
    address: SocketAddr,
    tls: Option<Arc<TlsIdentity>>,
}

impl Peer {
    /// The peer of a stream, after its TLS handshake.
    #[must_use]
    pub fn new(address: SocketAddr, stream: &AcceptedStream) -> Self {
        let tls = match stream {
            MaybeTls::Plain(_) => None,
            MaybeTls::Tls(stream) => {
                let session = stream.get_ref().1;
                let certificate = session.peer_certificates().and_then(|chain| chain.first());
                Some(Arc::new(TlsIdentity {
                    server_name: session.server_name().map(ByteString::from),
                    certificate_sha256: certificate.map(|certificate| sha256(certificate)),
                }))
            }
        };
        Self { address, tls }
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The context of one of its requests.
    #[must_use]
    pub fn context(&self, id: ByteString, received_at: Instant) -> RequestContext {
        let mut context = RequestContext::new(id, received_at);
        context.peer = Some(self.address);
        context.tls.clone_from(&self.tls);
        context
    }
}

fn sha256(bytes: &[u8]) -> ByteString {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    let mut text = String::with_capacity(64);
    for byte in digest.as_ref() {
        let _ = write!(text, "{byte:02x}");
    }
    text.into()
}
