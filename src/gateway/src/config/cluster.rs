//! The `cluster` settings of `crossdock.yaml`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration as StdDuration;

use crossdock_cluster::{Address, Member, Settings};
use crossdock_settings::{Duration, FromNode as _, Named, Node, Reader, Spanned, settings};
use crossdock_tls::{MutualTls, ServerTlsSettings};
use crossdock_zab::ServerId;

/// The permitted ticks: timers cannot keep shorter ones, and longer ones delay every operation.
const TICK: std::ops::RangeInclusive<StdDuration> = StdDuration::from_millis(5)..=StdDuration::from_secs(1);

/// The permitted sessions: shorter ones end if the leader is replaced, or the machine is busy.
const SESSION: std::ops::RangeInclusive<StdDuration> = StdDuration::from_secs(1)..=StdDuration::from_secs(86_400);

settings! {
    /// the tls of the cluster
    pub(crate) struct ClusterTlsSettings {
        /// A PEM file with the certificate of this instance, for the name `ID.NAME` such as `1.shop`, followed by its intermediate certificates.
        pub(crate) cert: String,
        /// A PEM file with its private key.
        pub(crate) key: String,
        /// A PEM file with the authorities that issue the certificates of the other instances.
        pub(crate) ca: String,
    }

    /// the api of the cluster
    pub(crate) struct ApiSettings {
        /// The address and port, such as `127.0.0.1:7200`.
        pub(crate) bind: Spanned<String>,
        /// Encrypts connections, and identifies clients by certificates with `client_ca`; required between machines.
        pub(crate) tls: Option<ServerTlsSettings>,
        /// The file of the clients and what they may do, relative to the folder of this file. It is read again when it changes.
        pub(crate) access: String,
    }

    /// the cluster
    pub(crate) struct ClusterSettings {
        /// The name of the cluster; connections from instances of another cluster are rejected.
        pub(crate) name: String = "crossdock".to_owned(),
        /// The number of this instance, at least 1. Optional for a cluster of one instance.
        pub(crate) id: Option<u64>,
        /// The voting instances, each `id: address:port`, with an IP address or a host name; they or the observers include this instance. They form a new cluster; later,
        /// `crossdock cluster add` and `remove` decide who votes. Without members, this instance is a cluster of one.
        pub(crate) members: Named<Spanned<String>>,
        /// Other instances, which follow the leader without voting until they are added as voters.
        pub(crate) observers: Named<Spanned<String>>,
        /// The folder of the log and snapshots, relative to the folder of this file. `crossdock cluster init` creates it.
        pub(crate) data: String = "data/cluster".to_owned(),
        /// Encrypts and authenticates connections between instances; required between machines. The files are read for each connection.
        pub(crate) tls: Option<ClusterTlsSettings>,
        /// Permits instances on other machines without `tls`: a connection is then identified by its source address alone, so nobody else may
        /// have access to this network.
        pub(crate) trusted_network: bool = false,
        /// The unit of all timeouts; a leader is considered lost after 15 ticks without a heartbeat, or up to 35 where heartbeats were late before.
        pub(crate) tick: Duration = Duration(StdDuration::from_millis(20)),
        /// What this instance holds, such as locks, is free again this long after it was last connected to the cluster.
        pub(crate) session: Duration = Duration(StdDuration::from_secs(10)),
        /// Offers sessions, locks, sequences and queues to other programs, over gRPC and HTTP.
        pub(crate) api: Option<ApiSettings>,
    }
}

/// This instance as a member of a cluster.
pub struct ClusterConfig {
    /// The settings of the cluster.
    pub settings: Settings,
    /// The time to live of its session.
    pub session: StdDuration,
    /// The API that it offers.
    pub api: Option<crossdock_api_server::Options>,
}

/// Reads and checks the settings.
pub(super) fn read(node: &Node, folder: &Path, reader: &mut Reader<'_>) -> Option<ClusterConfig> {
    let settings = ClusterSettings::from_node(node, reader)?;
    let mut members = BTreeMap::new();
    let listed = settings.members.0.iter().map(|member| (member, true));
    let listed: Vec<_> = listed.chain(settings.observers.0.iter().map(|observer| (observer, false))).collect();
    for ((id, address), votes) in listed {
        let number = id.value.parse::<u64>().ok().filter(|number| *number > 0);
        let Some(number) = number else {
            let message = format!("an instance number must be an integer of at least 1, not `{}`", id.value);
            reader.error("cluster-id", id.span, message, "write `1: 127.0.0.1:7101`");
            return None;
        };
        let address = address_of(address, &settings, reader)?;
        if members.insert(ServerId(number), Member { address, votes }).is_some() {
            let message = format!("instance {number} is listed twice");
            reader.error("cluster-id", id.span, message, "remove one of them");
            return None;
        }
    }
    let is_alone = members.is_empty();
    // No default among several instances: two with the same id would both vote and acknowledge under it.
    let Some(id) = settings.id.or(is_alone.then_some(1)).filter(|id| *id > 0) else {
        let span = node.get("id").map_or(node.span, |node| node.span);
        let message = "`id` must be a number of at least 1, and is required with `members`";
        reader.error("cluster-id", span, message, "add `id: 1`, with a different number for each instance");
        return None;
    };
    if is_alone {
        // No other instance connects: any free port will do.
        let alone = Member { address: SocketAddr::from(([127, 0, 0, 1], 0)).into(), votes: true };
        members.insert(ServerId(id), alone);
    } else if settings.members.0.is_empty() {
        let help = "add `members: { 1: 127.0.0.1:7101, 2: 127.0.0.1:7102, 3: 127.0.0.1:7103 }`";
        reader.error("missing-key", node.span, "a cluster needs at least one member", help);
        return None;
    }
    if !members.contains_key(&ServerId(id)) {
        let span = node.get("id").map_or(node.span, |node| node.span);
        let message = format!("instance {id} is listed neither in `members` nor in `observers`");
        reader.error("cluster-id", span, message, format!("add `{id}: address:port` to one of them"));
        return None;
    }
    if !TICK.contains(&settings.tick.0) {
        let span = node.get("tick").map_or(node.span, |node| node.span);
        reader.error("cluster-tick", span, "`tick` must be between 5ms and 1s", "write `tick: 20ms`, or remove it");
        return None;
    }
    let session = settings.session.0;
    if !SESSION.contains(&session) {
        let span = node.get("session").map_or(node.span, |node| node.span);
        let message = "`session` must be between 1s and 24h";
        reader.error("cluster-session", span, message, "write `session: 10s`, or remove it");
        return None;
    }
    let mut checked = Settings::new(&settings.name, ServerId(id), members, folder.join(&settings.data));
    checked.tick = settings.tick.0;
    checked.is_network_trusted = settings.trusted_network;
    checked.tls = settings.tls.map(|tls| MutualTls { cert: tls.cert.into(), key: tls.key.into(), ca: tls.ca.into() });
    let api = match settings.api {
        None => None,
        Some(api) => Some(read_api(api, folder, reader)?),
    };
    Some(ClusterConfig { settings: checked, session, api })
}

fn read_api(settings: ApiSettings, folder: &Path, reader: &mut Reader<'_>) -> Option<crossdock_api_server::Options> {
    let ApiSettings { bind, tls, access } = settings;
    let Ok(address) = bind.value.parse::<SocketAddr>() else {
        let message = format!("`bind` must be an IP address and a port, not `{}`", bind.value);
        let help = "write an IP address and a port, such as `127.0.0.1:7200`";
        reader.error("address", bind.span, message, help);
        return None;
    };
    if !address.ip().is_loopback() && tls.is_none() {
        let message = "other machines can reach this address, and tokens would be sent in plain text";
        reader.error(
            "api-open",
            bind.span,
            message,
            "add `tls: { cert: …, key: … }`, or write an address of 127.0.0.1",
        );
        return None;
    }
    Some(crossdock_api_server::Options { address, tls, access: folder.join(access) })
}

/// Without TLS, a connection is identified by its source address alone, so other machines must not be able to connect.
fn address_of(text: &Spanned<String>, settings: &ClusterSettings, reader: &mut Reader<'_>) -> Option<Address> {
    let is_open = settings.tls.is_some() || settings.trusted_network;
    match text.value.parse::<Address>() {
        Ok(Address::Name { .. }) if settings.tls.is_none() => {
            let message = "a host name needs `tls`: without it, connections are identified by IP addresses";
            reader.error(
                "cluster-open",
                text.span,
                message,
                "add `tls: { cert: …, key: …, ca: … }`, or write an IP address",
            );
            None
        }
        Ok(address) if is_open || address.ip().is_some_and(|ip| ip.is_loopback()) => Some(address),
        Ok(_) => {
            let message = "other machines can reach this address, and connections are not authenticated";
            let help = "add `tls: { cert: …, key: …, ca: … }`, or `trusted_network: true` if nobody else can reach this network";
            reader.error("cluster-open", text.span, message, help);
            None
        }
        Err(_) => {
            let message = format!("an instance needs an IP address or a host name, and a port, not `{}`", text.value);
            let help =
                "write an address and a port, such as `127.0.0.1:7101`, or with `tls` also `gateway-0.example:7101`";
            reader.error("address", text.span, message, help);
            None
        }
    }
}
