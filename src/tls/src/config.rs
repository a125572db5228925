//! TLS configurations. The whole process uses one crypto provider: ring.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::{ClientTlsSettings, Error, ServerTlsSettings};

fn problem(what: &str, path: &str, error: impl std::fmt::Display) -> Error {
    Error(format!("the {what} in `{path}` cannot be used: {error}"))
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| problem("certificates", path, error))?;
    if certificates.is_empty() {
        return Err(problem("certificates", path, "the file contains none"));
    }
    Ok(certificates)
}

fn key(path: &str) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| problem("private key", path, error))
}

fn authorities(path: &str) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate).map_err(|error| problem("authority", path, error))?;
    }
    Ok(store)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The configuration of a listener: TLS 1.2 and 1.3. `alpn` lists the supported protocols in order of preference.
///
/// # Errors
/// [`Error`] if a file is unusable.
pub fn server(settings: &ServerTlsSettings, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, Error> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| Error(error.to_string()))?;
    let builder = match &settings.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = Arc::new(authorities(path)?);
            let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| problem("authorities", path, error))?)
        }
    };
    let mut config = builder
        .with_single_cert(certificates(&settings.cert)?, key(&settings.key)?)
        .map_err(|error| problem("certificate", &settings.cert, error))?;
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

/// The configuration of a client: TLS 1.2 and 1.3; the server is always verified. `alpn` lists the offered protocols in order of preference.
///
/// # Errors
/// [`Error`] if a file is unusable, or there is no trusted authority.
pub fn client(settings: Option<&ClientTlsSettings>, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, Error> {
    let roots = match settings.and_then(|settings| settings.ca.as_ref()) {
        Some(path) => authorities(path)?,
        None => {
            let mut store = RootCertStore::empty();
            let (added, _) = store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if added == 0 {
                let problem = "the system has no trusted certificate authorities: name a file in `tls: { ca: … }`";
                return Err(Error(problem.into()));
            }
            store
        }
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| Error(error.to_string()))?
        .with_root_certificates(roots);
    let identity = settings.map(|settings| (settings.cert.as_ref(), settings.key.as_ref()));
    let mut config = match identity {
        None | Some((None, None)) => builder.with_no_client_auth(),
        Some((Some(cert), Some(path))) => builder
            .with_client_auth_cert(certificates(cert)?, key(path)?)
            .map_err(|error| problem("certificate", cert, error))?,
        // A certificate that is silently not presented would be an authentication failure at the service.
        Some(_) => return Err(Error("`cert` and `key` of `tls` must be given together".to_owned())),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}
