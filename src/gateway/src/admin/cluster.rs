//! What is shown of the cluster.

use crossdock_cluster::{Client, Latency, Peer, Status, Stopped};
use crossdock_zab::Role;
use serde_json::{Value, json};

/// The role's name, the epoch, and who leads.
fn told(status: &Status) -> (&'static str, Option<u32>, Option<u64>) {
    match status.role {
        Role::Looking => ("looking", None, None),
        Role::Leading(epoch) => ("leading", Some(epoch.0), Some(status.id.0)),
        Role::Following(leader, epoch) => ("following", Some(epoch.0), Some(leader.0)),
        Role::Observing(leader, epoch) => ("observing", Some(epoch.0), Some(leader.0)),
    }
}

pub(crate) fn cluster_json(status: &Status) -> Value {
    let (role, epoch, leader) = told(status);
    let stopped = status.stopped.as_ref().map(|stopped| match stopped {
        Stopped::Protocol(fatal) => fatal.to_string(),
        Stopped::Log(problem) => problem.clone(),
        Stopped::Requested => "it was asked to".to_owned(),
    });
    json!({
        "id": status.id.0, "role": role, "phase": status.phase, "epoch": epoch, "leader": leader,
        "last": status.last.to_string(), "applied": status.applied.to_string(),
        "peers": status.peers.iter().map(peer_json).collect::<Vec<_>>(),
        "syncs": status.syncs, "stopped": stopped,
    })
}

fn peer_json(peer: &Peer) -> Value {
    json!({
        "id": peer.id.0, "votes": peer.votes, "connected": peer.is_connected, "follows": peer.follows, "lag": peer.lag,
    })
}

pub(crate) fn cluster_prometheus(cluster: &Client) -> String {
    let status = cluster.status();
    let (role, epoch, _) = told(&status);
    let mut out = String::new();
    let mut one = |name: &str, kind: &str, help: &str, value: u64| {
        out.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"));
    };
    one(
        "crossdock_cluster_ready",
        "gauge",
        "1 while a leader is followed, or this instance leads.",
        u64::from(role != "looking"),
    );
    one("crossdock_cluster_leading", "gauge", "1 while this instance leads.", u64::from(role == "leading"));
    one("crossdock_cluster_epoch", "gauge", "The epoch; 0 without a leader.", u64::from(epoch.unwrap_or(0)));
    one("crossdock_cluster_last_zxid", "gauge", "The end of the log.", status.last.to_u64());
    one("crossdock_cluster_applied_zxid", "gauge", "The last transaction that was applied.", status.applied.to_u64());
    let connected = status.peers.iter().filter(|peer| peer.is_connected).count();
    one("crossdock_cluster_connected", "gauge", "Instances with a connection.", connected as u64);
    one("crossdock_cluster_syncs_total", "counter", "Syncs of the log.", status.syncs);
    one("crossdock_cluster_stopped", "gauge", "1 once it has stopped for good.", u64::from(status.stopped.is_some()));
    let connected = |peer: &Peer| Some(usize::from(peer.is_connected));
    of_peers(&mut out, "crossdock_cluster_peer_connected", "1 while there is a connection.", &status, connected);
    let help = "Transactions not known to be durable there; only a leader knows.";
    of_peers(&mut out, "crossdock_cluster_peer_lag", help, &status, |peer| peer.lag);
    let times = cluster.latencies();
    histogram(&mut out, "crossdock_cluster_log_seconds", "Writing to the log and syncing it.", &times.log);
    histogram(
        &mut out,
        "crossdock_cluster_commit_seconds",
        "From a proposal here until it is applied here.",
        &times.commit,
    );
    out
}

fn of_peers(out: &mut String, name: &str, help: &str, status: &Status, value: impl Fn(&Peer) -> Option<usize>) {
    out.push_str(&format!("# HELP {name} {help}\n# TYPE {name} gauge\n"));
    for (id, value) in status.peers.iter().filter_map(|peer| Some((peer.id, value(peer)?))) {
        out.push_str(&format!("{name}{{peer=\"{id}\"}} {value}\n"));
    }
}

fn histogram(out: &mut String, name: &str, help: &str, latency: &Latency) {
    out.push_str(&format!("# HELP {name} {help}\n# TYPE {name} histogram\n"));
    let (below, all) = latency.counts();
    for (limit, count) in below {
        out.push_str(&format!("{name}_bucket{{le=\"{}\"}} {count}\n", limit.as_secs_f64()));
    }
    out.push_str(&format!(
        "{name}_bucket{{le=\"+Inf\"}} {all}\n{name}_sum {}\n{name}_count {all}\n",
        latency.sum().as_secs_f64()
    ));
}
