//! The brokers of a cluster, and how they are reached.

use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crossdock_settings::{Named, Node, OneOrMany, Reader, Secret, Spanned, nearest};
use crossdock_tls::ClientTlsSettings;
use rdkafka::ClientConfig;

use super::{Mechanism, SaslSettings, TokenSource};

/// The settings of librdkafka that can be set: those of connections. All others belong to the adapter.
const PROPERTIES: [&str; 17] = [
    "batch.num.messages",
    "batch.size",
    "broker.address.family",
    "broker.address.ttl",
    "client.dns.lookup",
    "connections.max.idle.ms",
    "fetch.min.bytes",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "socket.connection.setup.timeout.ms",
    "socket.keepalive.enable",
    "socket.nagle.disable",
    "socket.receive.buffer.bytes",
    "socket.send.buffer.bytes",
    "socket.timeout.ms",
    "ssl.cipher.suites",
    "ssl.curves.list",
];
/// The maximum length of an address in bytes.
const ADDRESS_LEN_MAX: usize = 255;

/// A login, as checked.
#[derive(Clone)]
enum Login {
    Password { mechanism: Mechanism, username: String, password: Secret },
    Token(TokenSource),
}

/// How to reach a cluster. Contains a password, which must never be shown.
#[derive(Clone)]
pub(crate) struct Cluster {
    /// The addresses, separated by commas.
    pub(crate) brokers: String,
    tls: Option<ClientTlsSettings>,
    sasl: Option<Login>,
    /// Settings of librdkafka.
    properties: Vec<(String, String)>,
    /// Equal for equal clusters, passwords included.
    pub(crate) fingerprint: u64,
    /// The same as text.
    pub(crate) transactions: String,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.brokers)
    }
}

impl Cluster {
    pub(super) fn read(
        brokers: &OneOrMany<Spanned<String>>,
        tls: Option<ClientTlsSettings>,
        sasl: Option<SaslSettings>,
        properties: Option<&Named<String>>,
        node: &Node,
        reader: &mut Reader<'_>,
    ) -> Option<Self> {
        if brokers.0.is_empty() {
            reader.error(
                "missing-value",
                node.span,
                "a cluster needs at least one broker",
                "write `brokers: host:9092`",
            );
            return None;
        }
        let invalid = brokers.0.iter().filter(|broker| !is_address(&broker.value));
        let mut is_valid = true;
        for broker in invalid {
            is_valid = false;
            reader.error("address", broker.span, "a broker must be `host:port`", "write `host:9092`, without a scheme");
        }
        if let Some(name) = tls.as_ref().and_then(|tls| tls.server_name.as_ref()) {
            let message = format!("`server_name: {name}` is not supported: each broker must present its own host name");
            reader.error("tls", node.get("tls").map_or(node.span, |node| node.span), message, "remove `server_name`");
            is_valid = false;
        }
        let sasl = match sasl {
            None => None,
            Some(sasl) => {
                let login = Login::read(sasl, tls.is_some(), node.get("sasl").unwrap_or(node), reader);
                is_valid &= login.is_some();
                login
            }
        };
        let properties = match properties {
            None => Vec::new(),
            Some(properties) => {
                let checked: Vec<_> = properties.0.iter().map(|(name, value)| property(name, value, reader)).collect();
                is_valid &= checked.iter().all(Option::is_some);
                checked.into_iter().flatten().collect()
            }
        };
        let brokers: Vec<&str> = brokers.0.iter().map(|broker| broker.value.as_str()).collect();
        is_valid.then(|| {
            let brokers = brokers.join(",");
            let fingerprint = fingerprint(&brokers, tls.as_ref(), sasl.as_ref(), &properties);
            Self { brokers, tls, sasl, properties, fingerprint, transactions: format!("kafka {fingerprint:x}") }
        })
    }

    /// The settings of librdkafka to reach the cluster.
    pub(crate) fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("client.id", "crossdock");
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        let protocol = match (&self.tls, &self.sasl) {
            (None, None) => "plaintext",
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        config.set("security.protocol", protocol);
        if let Some(tls) = &self.tls {
            let files =
                [("ssl.ca.location", &tls.ca), ("ssl.certificate.location", &tls.cert), ("ssl.key.location", &tls.key)];
            for (name, file) in files {
                if let Some(file) = file {
                    config.set(name, file);
                }
            }
        }
        match &self.sasl {
            None => {}
            Some(Login::Password { mechanism, username, password }) => {
                config.set("sasl.mechanisms", mechanism.word());
                config.set("sasl.username", username).set("sasl.password", password.reveal());
            }
            Some(Login::Token(_)) => {
                config.set("sasl.mechanisms", Mechanism::OauthBearer.word());
            }
        }
        config
    }

    /// Where bearer tokens come from, if they are used.
    pub(crate) fn token_source(&self) -> Option<&TokenSource> {
        match &self.sasl {
            Some(Login::Token(source)) => Some(source),
            _ => None,
        }
    }
}

impl Login {
    fn read(settings: SaslSettings, has_tls: bool, node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let mechanism = settings.mechanism;
        if matches!(mechanism, Mechanism::Plain | Mechanism::OauthBearer) && !has_tls {
            let sent = if mechanism == Mechanism::Plain { "the password" } else { "the token" };
            let text = format!("`{}` sends {sent} in plain text: it needs `tls`", mechanism.word());
            reader.error("sasl", node.span, text, "add `tls: {}`, or use `mechanism: SCRAM-SHA-512`");
            return None;
        }
        match (mechanism, settings.username, settings.password, settings.token) {
            (Mechanism::OauthBearer, None, None, Some(token)) => {
                TokenSource::read(token, node.get("token").unwrap_or(node), reader).map(Self::Token)
            }
            (Mechanism::OauthBearer, ..) => {
                let help = "write `token: { file: PATH }` or `token: { command: [PROGRAM] }`";
                reader.error("sasl", node.span, "`OAUTHBEARER` needs `token`, and nothing else", help);
                None
            }
            (_, Some(username), Some(password), None) => {
                if password.value.literal {
                    let help = "write the password as `${env:NAME}` or `${file:PATH}`".to_owned();
                    let text = "the file contains a password in plain text";
                    reader.diagnostics.warning("literal-secret", password.span, text, Some(help));
                }
                Some(Self::Password { mechanism, username, password: password.value })
            }
            _ => {
                let text = format!("`{}` needs `username` and `password`, and nothing else", mechanism.word());
                reader.error("sasl", node.span, text, "write `username: NAME` and `password: \"${env:NAME}\"`");
                None
            }
        }
    }
}

/// A property that is known and has a valid value; `None` if an error was reported.
fn property(name: &Spanned<String>, value: &str, reader: &mut Reader<'_>) -> Option<(String, String)> {
    if !PROPERTIES.contains(&&*name.value) {
        let help = match nearest(&name.value, PROPERTIES) {
            Some(meant) => format!("write `{meant}`"),
            None => format!("write one of {}", PROPERTIES.join(", ")),
        };
        reader.error("property", name.span, format!("the property `{}` cannot be set", name.value), help);
        return None;
    }
    let mut config = ClientConfig::new();
    if config.set(&name.value, value).create_native_config().is_err() {
        let message = format!("`{value}` is no value of the property `{}`", name.value);
        reader.error("property", name.span, message, "see the documentation of librdkafka, CONFIGURATION.md");
        return None;
    }
    Some((name.value.clone(), value.to_owned()))
}

fn fingerprint(
    brokers: &str,
    tls: Option<&ClientTlsSettings>,
    sasl: Option<&Login>,
    properties: &[(String, String)],
) -> u64 {
    let mut hasher = DefaultHasher::new();
    (brokers, format!("{tls:?}"), properties).hash(&mut hasher);
    match sasl {
        None => {}
        Some(Login::Password { mechanism, username, password }) => {
            (mechanism.word(), username, password.reveal()).hash(&mut hasher);
        }
        Some(Login::Token(source)) => source.hash(&mut hasher),
    }
    hasher.finish()
}

/// Whether a text is `host:port`; an IPv6 address is in brackets.
fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_host =
        !host.is_empty() && !host.contains(['/', ',', '@', ' ']) && (host.starts_with('[') || !host.contains(':'));
    is_host && text.len() <= ADDRESS_LEN_MAX && port.parse::<u16>().is_ok_and(|port| port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for valid in ["localhost:9092", "10.0.0.1:1", "[::1]:9092"] {
            assert!(is_address(valid), "{valid}");
        }
        for invalid in ["localhost", ":9092", "a:0", "a:65536", "kafka://a:9092", "a:1,b:2", "::1:9092", "a b:1", ""] {
            assert!(!is_address(invalid), "{invalid}");
        }
    }
}
