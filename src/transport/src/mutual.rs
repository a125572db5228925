//! TLS between equals: both show a certificate of one authority, and each is who its certificate names.

use std::io;
use std::path::PathBuf;

use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::settings::{ClientTlsSettings, ServerTlsSettings};
use crate::tls;

/// Files of PEM. They are read anew for each connection, so that a certificate can be renewed while all goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MutualTls {
    /// The certificate, and those that it hangs on.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities whose certificates are trusted.
    pub ca: PathBuf,
}

/// The certificate that the other side has shown, and whose authority is trusted.
pub struct PeerCertificate(CertificateDer<'static>);

impl PeerCertificate {
    /// Whether it is for that name.
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
        Ok(TlsAcceptor::from(tls::server(&settings, &[]).map_err(io::Error::other)?))
    }

    fn client(&self) -> io::Result<TlsConnector> {
        let settings = ClientTlsSettings {
            ca: Some(self.ca.display().to_string()),
            cert: Some(self.cert.display().to_string()),
            key: Some(self.key.display().to_string()),
            server_name: None,
        };
        Ok(TlsConnector::from(tls::client(Some(&settings), &[]).map_err(io::Error::other)?))
    }

    /// Whether the files can be used.
    ///
    /// # Errors
    /// What is wrong with which.
    pub fn check(&self) -> io::Result<()> {
        self.server()?;
        self.client().map(drop)
    }

    /// Begins TLS as the one that dialled: the other is who that name names, or it fails.
    ///
    /// # Errors
    /// A file that cannot be used; another certificate than is expected; what the network says.
    pub async fn connect(&self, stream: TcpStream, name: &str) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        Ok(self.client()?.connect(name, stream).await?.into())
    }

    /// Begins TLS as the one that was dialled; who the other is has to be asked of its certificate.
    ///
    /// # Errors
    /// A file that cannot be used; no certificate of a trusted authority; what the network says.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, PeerCertificate)> {
        let stream = self.server()?.accept(stream).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let shown = shown.map(|certificate| PeerCertificate(certificate.clone().into_owned()));
        let shown = shown.ok_or_else(|| io::Error::other("it has shown no certificate"))?;
        Ok((stream.into(), shown))
    }
}
