//! TLS settings shared by all TCP adapters.

use crossdock_settings::settings;

settings! {
    /// listener TLS
    pub struct ServerTlsSettings {
        /// A PEM file with the certificate chain.
        pub cert: String,
        /// A PEM file with the private key.
        pub key: String,
        /// A PEM file with the authorities of client certificates, which are then required.
        pub client_ca: Option<String>,
    }

    /// service TLS
    pub struct ClientTlsSettings {
        /// A PEM file with the trusted certificate authorities; by default those of the system.
        pub ca: Option<String>,
        /// A PEM file with the client certificate of the gateway.
        pub cert: Option<String>,
        /// A PEM file with the private key of `cert`.
        pub key: Option<String>,
        /// The name that the certificate of the service must have; by default the host.
        pub server_name: Option<String>,
    }
}
