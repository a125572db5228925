//! The part of `crossdock.yaml` that makes an instance one of a cluster.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration as StdDuration;

use crossdock_cluster::{Member, Settings};
use crossdock_settings::{Duration, FromNode as _, Named, Node, Reader, Spanned, settings};
use crossdock_tls::MutualTls;
use crossdock_zab::ServerId;

/// The shortest and the longest tick: shorter ones are not kept, longer ones keep everybody waiting.
const TICK: std::ops::RangeInclusive<StdDuration> = StdDuration::from_millis(5)..=StdDuration::from_secs(1);

settings! {
    /// the tls of the cluster
    pub(crate) struct ClusterTlsSettings {
        /// A PEM file with the certificate of this instance, for the name `ID.NAME` such as `1.shop`, and those that it hangs on.
        pub(crate) cert: String,
        /// A PEM file with its private key.
        pub(crate) key: String,
        /// A PEM file with the authorities whose certificates the others show.
        pub(crate) ca: String,
    }

    /// the cluster
    pub(crate) struct ClusterSettings {
        /// The cluster's name; instances of another are not talked to.
        pub(crate) name: String = "crossdock".to_owned(),
        /// This instance: a number from 1 on. One that is alone needs none.
        pub(crate) id: Option<u64>,
        /// The instances whose majority decides, each `id: address:port`; this one among them, or among the observers. Without any, this
        /// instance is alone: a cluster of one.
        pub(crate) members: Named<Spanned<String>>,
        /// Instances that follow without a vote.
        pub(crate) observers: Named<Spanned<String>>,
        /// The folder of the log and of snapshots, from the folder of this file on. `crossdock cluster init` makes it.
        pub(crate) data: String = "data/cluster".to_owned(),
        /// Encrypt connections with the others; needed where they are on other machines. Files are read anew for each connection.
        pub(crate) tls: Option<ClusterTlsSettings>,
        /// Permits members on other machines without `tls`: a connection is then identified by its source address alone, so nobody else must be able
        /// to reach this network.
        pub(crate) trusted_network: bool = false,
        /// The unit of all waits; a leader that is silent for 35 of them is given up.
        pub(crate) tick: Duration = Duration(StdDuration::from_millis(20)),
    }
}

/// Reads how the instance takes part.
pub(super) fn read(node: &Node, folder: &Path, reader: &mut Reader<'_>) -> Option<Settings> {
    let settings = ClusterSettings::from_node(node, reader)?;
    let mut members = BTreeMap::new();
    let listed = settings.members.0.iter().map(|one| (one, true));
    let listed: Vec<_> = listed.chain(settings.observers.0.iter().map(|one| (one, false))).collect();
    for ((id, address), votes) in listed {
        let number = id.value.parse::<u64>().ok().filter(|number| *number > 0);
        let Some(number) = number else {
            let message = format!("`{}` is not the number of an instance", id.value);
            reader.error("cluster-id", id.span, message, "write `1: 127.0.0.1:7101`");
            return None;
        };
        let address = address_of(address, settings.tls.is_some() || settings.trusted_network, reader)?;
        if members.insert(ServerId(number), Member { address, votes }).is_some() {
            let message = format!("the instance {number} stands there twice");
            reader.error("cluster-id", id.span, message, "keep one of them");
            return None;
        }
    }
    let is_alone = members.is_empty();
    // Two that take the same for granted would both promise and acknowledge under it.
    let Some(id) = settings.id.or(is_alone.then_some(1)).filter(|id| *id > 0) else {
        let span = node.get("id").map_or(node.span, |node| node.span);
        let message = "the number of an instance is from 1 on, and one among others needs it";
        reader.error("cluster-id", span, message, "add `id: 1`, another number to each instance");
        return None;
    };
    if is_alone {
        // Nobody knows the port, and nobody needs to.
        let alone = Member { address: SocketAddr::from(([127, 0, 0, 1], 0)), votes: true };
        members.insert(ServerId(id), alone);
    } else if settings.members.0.is_empty() {
        let help = "add `members: { 1: 127.0.0.1:7101, 2: 127.0.0.1:7102, 3: 127.0.0.1:7103 }`";
        reader.error("missing-key", node.span, "a cluster has at least one member", help);
        return None;
    }
    if !members.contains_key(&ServerId(id)) {
        let span = node.get("id").map_or(node.span, |node| node.span);
        let message = format!("the instance {id} is neither among the members nor among the observers");
        reader.error("cluster-id", span, message, format!("add `{id}: address:port` to one of them"));
        return None;
    }
    if !TICK.contains(&settings.tick.0) {
        let span = node.get("tick").map_or(node.span, |node| node.span);
        reader.error("cluster-tick", span, "a tick is from 5ms to 1s", "write `tick: 20ms`, or leave it out");
        return None;
    }
    let mut checked = Settings::new(&settings.name, ServerId(id), members, folder.join(&settings.data));
    checked.tick = settings.tick.0;
    checked.is_network_trusted = settings.trusted_network;
    checked.tls = settings.tls.map(|tls| MutualTls { cert: tls.cert.into(), key: tls.key.into(), ca: tls.ca.into() });
    Some(checked)
}

/// Without TLS, a connection is identified by its source address alone, so other machines must not be able to connect.
fn address_of(text: &Spanned<String>, is_open: bool, reader: &mut Reader<'_>) -> Option<SocketAddr> {
    match text.value.parse::<SocketAddr>() {
        Ok(address) if is_open || address.ip().is_loopback() => Some(address),
        Ok(_) => {
            let message = "other machines can reach this address, and connections are not authenticated";
            let help = "add `tls: { cert: …, key: …, ca: … }`, or `trusted_network: true` if nobody else can reach this network";
            reader.error("cluster-open", text.span, message, help);
            None
        }
        Err(_) => {
            let message = format!("`{}` is not an address", text.value);
            reader.error("address", text.span, message, "write an IP address and a port, such as `127.0.0.1:7101`");
            None
        }
    }
}
