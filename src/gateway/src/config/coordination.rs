//! The `coordination` settings of `crossdock.yaml`.

use std::ops::RangeInclusive;
use std::time::Duration as StdDuration;

use crossdock_engines::{Kind, Login, Options};
use crossdock_settings::{Duration, FromNode as _, Node, Reader, Secret, Spanned, choices, settings};
use crossdock_transport::{ClientTlsSettings, Endpoint};

const DAY: StdDuration = StdDuration::from_secs(86_400);
const PREFIX_LEN_MAX: usize = 200;

choices! {
    /// Where locks and sequences are kept.
    pub(crate) enum EngineName {
        /// In the cluster of the gateway itself.
        Embedded = "embedded",
        /// In Apache ZooKeeper.
        Zookeeper = "zookeeper",
        /// In etcd.
        Etcd = "etcd",
        /// In HashiCorp Consul.
        Consul = "consul",
        /// In Redis, which has no consensus: see what it cannot promise.
        Redis = "redis",
    }
}

settings! {
    /// the coordination
    pub(crate) struct CoordinationSettings {
        /// Where locks and sequences are kept; all instances must say the same.
        pub(crate) engine: EngineName,
        /// The servers of the engine: `host:port`, or `https://host:port` for TLS.
        pub(crate) endpoints: Vec<Spanned<String>>,
        /// What all names in the engine begin with, so that several gateways can share it.
        pub(crate) prefix: String = "crossdock".to_owned(),
        /// What this instance holds is free again about this long after it was last connected to the engine.
        pub(crate) session: Duration = Duration(StdDuration::from_secs(10)),
        /// A user, for `zookeeper` (digest), `etcd` and `redis`.
        pub(crate) user: Option<String>,
        /// The password of the user; for `redis` also without a user.
        pub(crate) password: Option<Secret>,
        /// A token, for `consul`.
        pub(crate) token: Option<Secret>,
        /// Trusted authorities and the certificate of the gateway, for endpoints with `https`.
        pub(crate) tls: Option<ClientTlsSettings>,
    }
}

/// The engine that settings choose.
pub(super) enum Chosen {
    /// That of the cluster.
    Embedded,
    External(Box<Options>),
}

impl Chosen {
    pub(super) fn into_external(self) -> Option<Options> {
        match self {
            Self::Embedded => None,
            Self::External(options) => Some(*options),
        }
    }
}

/// Reads and checks the settings.
pub(super) fn read(node: &Node, has_cluster: bool, reader: &mut Reader<'_>) -> Option<Chosen> {
    let settings = CoordinationSettings::from_node(node, reader)?;
    let span = |key: &str| node.get(key).map_or(node.span, |node| node.span);
    let kind = match settings.engine {
        EngineName::Embedded => {
            if !has_cluster {
                let help = "add `cluster: {}`, for a cluster of this instance alone";
                reader.error("no-cluster", span("engine"), "the engine `embedded` needs a cluster", help);
                return None;
            }
            if let Some((key, _)) = node.entries().iter().find(|(key, _)| key.name != "engine") {
                let message = format!("`{}` does not belong to the engine `embedded`", key.name);
                reader.error("engine", key.span, message, "remove it; the settings of the cluster are in `cluster`");
                return None;
            }
            return Some(Chosen::Embedded);
        }
        EngineName::Zookeeper => Kind::Zookeeper,
        EngineName::Etcd => Kind::Etcd,
        EngineName::Consul => Kind::Consul,
        EngineName::Redis => Kind::Redis,
    };
    let name = kind.row().name;
    if settings.endpoints.is_empty() {
        let message = format!("the engine `{name}` needs `endpoints`");
        reader.error(
            "missing-key",
            node.span,
            message,
            format!("add `endpoints: [ \"127.0.0.1:{}\" ]`", port_of(kind)),
        );
        return None;
    }
    let endpoints = settings.endpoints.iter().map(|text| endpoint(text, kind, reader)).collect::<Option<Vec<_>>>()?;
    let sessions = sessions_of(kind);
    let session = settings.session.0;
    if !sessions.contains(&session) {
        let message =
            format!("`session` must be between {}s and 24h for the engine `{name}`", sessions.start().as_secs());
        reader.error("engine-session", span("session"), message, "write `session: 10s`, or remove it");
        return None;
    }
    let prefix = settings.prefix;
    if !is_prefix(&prefix) {
        let message = "`prefix` must consist of letters, digits, `-`, `_` and `/`, and neither begin nor end with `/`";
        reader.error("engine-prefix", span("prefix"), message, "write for example `prefix: gateways/shop`");
        return None;
    }
    let login = match (kind, settings.user, settings.password, settings.token) {
        (_, None, None, None) => None,
        (Kind::Consul, None, None, Some(token)) => Some(Login::Token(token)),
        (Kind::Zookeeper | Kind::Etcd | Kind::Redis, Some(name), Some(password), None) => {
            Some(Login::User { name, password })
        }
        (Kind::Redis, None, Some(password), None) => Some(Login::User { name: String::new(), password }),
        _ => {
            let (message, help) = if kind == Kind::Consul {
                ("the engine `consul` has a `token`, and no `user`", "write `token: ${env:CONSUL_TOKEN}`")
            } else {
                ("a login needs `user` and `password`", "write `user: gateway` and `password: ${env:PASSWORD}`")
            };
            reader.error("engine-login", node.span, message, help);
            return None;
        }
    };
    let tls = settings.tls;
    let options = Options { kind, endpoints, tls, prefix, session, login, label: String::new() };
    Some(Chosen::External(Box::new(options)))
}

fn port_of(kind: Kind) -> u16 {
    match kind {
        Kind::Zookeeper => 2181,
        Kind::Etcd => 2379,
        Kind::Consul => 8500,
        Kind::Redis => 6379,
    }
}

/// What the engines permit, and what leaves them time for a failover.
fn sessions_of(kind: Kind) -> RangeInclusive<StdDuration> {
    let least = match kind {
        Kind::Consul => 10,
        Kind::Zookeeper | Kind::Etcd => 2,
        Kind::Redis => 1,
    };
    StdDuration::from_secs(least)..=DAY
}

fn is_prefix(prefix: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    prefix.len() <= PREFIX_LEN_MAX && prefix.split('/').all(is_part)
}

fn endpoint(text: &Spanned<String>, kind: Kind, reader: &mut Reader<'_>) -> Option<Endpoint> {
    let url = if text.value.contains("://") { text.value.clone() } else { format!("http://{}", text.value) };
    let found = Endpoint::parse(&url).filter(|found| found.base.is_empty() || kind == Kind::Consul);
    let Some(found) =
        found.filter(|found| found.authority.to_str().is_ok_and(|text| text.ends_with(&found.port.to_string())))
    else {
        let message = format!("`{}` is not the address of a server", text.value);
        let help = format!("write a host and a port, such as `127.0.0.1:{}`", port_of(kind));
        reader.error("address", text.span, message, help);
        return None;
    };
    if found.secure && kind == Kind::Zookeeper {
        let message = "TLS to ZooKeeper is not supported";
        reader.error("engine-tls", text.span, message, "write `host:port`, in a network that nobody else can reach");
        return None;
    }
    Some(found)
}
