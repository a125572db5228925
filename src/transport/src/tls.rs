//! TLS configurations for adapters, with their error type.

use std::sync::Arc;

use crossdock_ports::AdapterError;
use crossdock_tls::{ClientTlsSettings, Error, ServerTlsSettings};
use rustls::{ClientConfig, ServerConfig};

/// The configuration of a listener; see [`crossdock_tls::server`].
///
/// # Errors
/// [`AdapterError::Settings`] if a file is unusable.
pub fn server(settings: &ServerTlsSettings, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, AdapterError> {
    crossdock_tls::server(settings, alpn).map_err(|error: Error| AdapterError::Settings(error.to_string()))
}

/// The configuration of a client; see [`crossdock_tls::client`].
///
/// # Errors
/// [`AdapterError::Settings`] if a file is unusable, or there is no trusted authority.
pub fn client(settings: Option<&ClientTlsSettings>, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, AdapterError> {
    crossdock_tls::client(settings, alpn).map_err(|error: Error| AdapterError::Settings(error.to_string()))
}
