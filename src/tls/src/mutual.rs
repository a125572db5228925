//! Mutual TLS between peers: both present a certificate of the same authority, which names the peer.

use std::io;
use std::path::PathBuf;

use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::{ClientTlsSettings, ServerTlsSettings, config};

/// PEM files of a peer. They are read for each connection, so that a certificate can be renewed without a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MutualTls {
    /// The certificate chain.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
    /// The trusted certificate authorities.
    pub ca: PathBuf,
}

/// The certificate that the peer presented, issued by a trusted authority.
pub struct PeerCertificate(CertificateDer<'static>);

impl PeerCertificate {
    /// Whether the certificate is valid for `name`.
    #[must_use]
    pub fn is_for(&self, name: &str) -> bool {
        let parsed = rustls::server::ParsedCertificate::try_from(&self.0);
        let name = ServerName::try_from(name);
        matches!((parsed, name), (Ok(parsed), Ok(name)) if rustls::client::verify_server_name(&parsed, &name).is_ok())
    }
}

impl MutualTls {
    fn server(&self) -> io::Result<TlsAcceptor> {
        let settings = ServerTlsSettings {
            cert: self.cert.display().to_string(),
            key: self.key.display().to_string(),
            client_ca: Some(self.ca.display().to_string()),
        };
        Ok(TlsAcceptor::from(config::server(&settings, &[]).map_err(io::Error::other)?))
    }

    fn client(&self) -> io::Result<TlsConnector> {
        let settings = ClientTlsSettings {
            ca: Some(self.ca.display().to_string()),
            cert: Some(self.cert.display().to_string()),
            key: Some(self.key.display().to_string()),
            server_name: None,
        };
        Ok(TlsConnector::from(config::client(Some(&settings), &[]).map_err(io::Error::other)?))
    }

    /// Checks that the files are usable.
    ///
    /// # Errors
    /// Names the file and the problem.
    pub fn check(&self) -> io::Result<()> {
        self.server()?;
        self.client().map(drop)
    }

    /// Performs the handshake as the client and verifies that the certificate of the server is valid for `name`.
    ///
    /// # Errors
    /// An unusable file, an untrusted or unexpected certificate, or an I/O error.
    pub async fn connect<S>(&self, stream: S, name: &str) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        Ok(self.client()?.connect(name, stream).await?.into())
    }

    /// Performs the handshake as the server. The name of the client is not known in advance: check it with the returned certificate.
    ///
    /// # Errors
    /// An unusable file, a missing or untrusted certificate, or an I/O error.
    pub async fn accept<S>(&self, stream: S) -> io::Result<(TlsStream<S>, PeerCertificate)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = self.server()?.accept(stream).await?;
        let presented = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let certificate = presented.map(|certificate| PeerCertificate(certificate.clone().into_owned()));
        let certificate = certificate.ok_or_else(|| io::Error::other("the peer presented no certificate"))?;
        Ok((stream.into(), certificate))
    }
}
