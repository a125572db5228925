//! Options of engines.

use std::time::Duration;

use crossdock_settings::Secret;
use crossdock_transport::{ClientTlsSettings, Endpoint};

/// Where an engine is, and how to use it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which engine.
    pub kind: Kind,
    /// Its servers: at least one.
    pub endpoints: Vec<Endpoint>,
    /// TLS, for endpoints with `https`.
    pub tls: Option<ClientTlsSettings>,
    /// What all names begin with, so that several gateways can share an engine.
    pub prefix: String,
    /// The time to live of the session of this instance.
    pub session: Duration,
    /// A user and its password, or a token.
    pub login: Option<Login>,
    /// What operators see.
    pub label: String,
}

impl Options {
    /// Tells apart settings that are not the same engine, or not used in the same way. Contains no secret.
    #[must_use]
    pub fn identity(&self) -> String {
        let endpoints: Vec<_> =
            self.endpoints.iter().map(|endpoint| (endpoint.secure, &endpoint.authority, &endpoint.base)).collect();
        format!("{:?} {endpoints:?} {} {:?}", self.kind, self.prefix, self.session)
    }
}

/// Proves to an engine who the gateway is.
#[derive(Debug, Clone)]
pub enum Login {
    /// A user.
    User {
        /// Its name; empty for the default user of Redis.
        name: String,
        /// Its password.
        password: Secret,
    },
    /// A token of Consul.
    Token(Secret),
}

/// An engine outside of the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Apache ZooKeeper.
    Zookeeper,
    /// etcd, version 3.
    Etcd,
    /// HashiCorp Consul.
    Consul,
    /// Redis.
    Redis,
}
