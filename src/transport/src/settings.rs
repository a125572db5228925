//! Settings that all adapters over TCP share.

use crossdock_settings::settings;

settings! {
    /// the tls of a listener
    pub struct ServerTlsSettings {
        /// A PEM file with the certificate and those that it hangs on.
        pub cert: String,
        /// A PEM file with the private key.
        pub key: String,
        /// A PEM file with the authorities whose client certificates are required.
        pub client_ca: Option<String>,
    }

    /// the tls of a service
    pub struct ClientTlsSettings {
        /// A PEM file with the authorities that are trusted; those of the system where nothing is said.
        pub ca: Option<String>,
        /// A PEM file with the certificate that the gateway shows.
        pub cert: Option<String>,
        /// A PEM file with its private key.
        pub key: Option<String>,
        /// The name that the service's certificate must have, where it is not the host's.
        pub server_name: Option<String>,
    }
}
