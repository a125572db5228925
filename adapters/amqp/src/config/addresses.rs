//! The addresses of a broker.

use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use crossdock_ports::AdapterError;
use crossdock_settings::{Node, OneOrMany, Reader, Secret, Spanned};
use crossdock_transport::{ClientTlsSettings, Dialer};
use lapin::uri::{AMQPScheme, AMQPUri};

/// The addresses of a broker, in the order in which they are tried. They contain passwords and must never be shown.
#[derive(Clone)]
pub(crate) struct Addresses {
    uris: Vec<AMQPUri>,
    /// Without user names and passwords, for logs.
    pub(crate) redacted: String,
    pub(crate) connect_timeout: Duration,
    tls: Option<ClientTlsSettings>,
}

impl fmt::Debug for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted)
    }
}

impl Addresses {
    pub(super) fn read(
        urls: &OneOrMany<Spanned<Secret>>,
        connect_timeout: Duration,
        heartbeat: Duration,
        tls: Option<ClientTlsSettings>,
        node: &Node,
        reader: &mut Reader<'_>,
    ) -> Option<Self> {
        let uris: Vec<Option<AMQPUri>> = urls.0.iter().map(|url| uri(url, heartbeat, reader)).collect();
        let uris: Vec<AMQPUri> = uris.into_iter().collect::<Option<_>>()?;
        if uris.is_empty() {
            let help = "write `url: amqp://host`";
            reader.error("missing-value", node.span, "a broker needs at least one address", help);
            return None;
        }
        if tls.is_some() && uris.iter().all(|uri| uri.scheme == AMQPScheme::AMQP) {
            let span = node.get("tls").map_or(node.span, |node| node.span);
            reader.error("tls", span, "`tls` needs an `amqps://` address", "write `amqps://` in `url`");
            return None;
        }
        let redacted = |uri: &AMQPUri| format!("{}:{}/{}", uri.authority.host, uri.authority.port, uri.vhost);
        Some(Self { redacted: uris.iter().map(redacted).collect::<Vec<_>>().join(", "), uris, connect_timeout, tls })
    }

    /// A dialer for each address, in order.
    pub(crate) fn dialers(&self) -> Result<Vec<(AMQPUri, Arc<Dialer>)>, AdapterError> {
        let dialer = |uri: &AMQPUri| {
            let (host, port, secure) = (&uri.authority.host, uri.authority.port, uri.scheme == AMQPScheme::AMQPS);
            let dialer = Dialer::to_host(host, port, secure, self.tls.as_ref(), &[], self.connect_timeout)?;
            Ok((uri.clone(), Arc::new(dialer)))
        };
        self.uris.iter().map(dialer).collect()
    }

    /// Equal for equal addresses, passwords included.
    pub(crate) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for uri in &self.uris {
            let user = &uri.authority.userinfo;
            (
                uri.scheme == AMQPScheme::AMQPS,
                &uri.authority.host,
                uri.authority.port,
                &uri.vhost,
                &user.username,
                &user.password,
            )
                .hash(&mut hasher);
            format!("{:?}", uri.query).hash(&mut hasher);
        }
        self.connect_timeout.hash(&mut hasher);
        format!("{:?}", self.tls).hash(&mut hasher);
        hasher.finish()
    }
}

fn uri(url: &Spanned<Secret>, heartbeat: Duration, reader: &mut Reader<'_>) -> Option<AMQPUri> {
    let text = url.value.reveal();
    let help = "write `amqp://user:password@host:port/vhost`, or `amqps://` for TLS; write the vhost `/` as `%2f`, or leave it out";
    // Discard the parser's error: it may contain the password.
    let Ok(mut uri) = text.parse::<AMQPUri>() else {
        reader.error("address", url.span, "`url` must be an AMQP URI", help);
        return None;
    };
    let password = &uri.authority.userinfo.password;
    if url.value.literal && !password.is_empty() && password != "guest" {
        let help = "write the address as `${env:NAME}` or `${file:PATH}`".to_owned();
        reader.diagnostics.warning(
            "literal-secret",
            url.span,
            "the file contains a password in plain text",
            Some(help),
        );
    }
    uri.query.heartbeat = Some(u16::try_from(heartbeat.as_secs()).unwrap_or(u16::MAX).max(1));
    Some(uri)
}
