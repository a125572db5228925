//! The state of the cluster as JSON and metrics.

use crossdock_cluster::{Client, Latency, Peer, Status, Stopped};
use crossdock_zab::Role;
use serde_json::{Value, json};

/// The name of the role, the epoch, and the leader.
fn role_epoch_leader(status: &Status) -> (&'static str, Option<u32>, Option<u64>) {
    match status.role {
        Role::Looking => ("looking", None, None),
        Role::Leading(epoch) => ("leading", Some(epoch.0), Some(status.id.0)),
        Role::Following(leader, epoch) => ("following", Some(epoch.0), Some(leader.0)),
        Role::Observing(leader, epoch) => ("observing", Some(epoch.0), Some(leader.0)),
    }
}

pub(crate) fn cluster_json(status: &Status) -> Value {
    let (role, epoch, leader) = role_epoch_leader(status);
    let stopped = status.stopped.as_ref().map(|stopped| match stopped {
        Stopped::Protocol(fatal) => fatal.to_string(),
        Stopped::Log(problem) => problem.clone(),
        Stopped::Requested => "stop requested".to_owned(),
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
    let (role, epoch, _) = role_epoch_leader(&status);
    let mut out = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, value: u64| {
        out.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"));
    };
    metric(
        "crossdock_cluster_ready",
        "gauge",
        "1 while this instance leads or follows a leader.",
        u64::from(role != "looking"),
    );
    metric("crossdock_cluster_leading", "gauge", "1 while this instance leads.", u64::from(role == "leading"));
    metric("crossdock_cluster_epoch", "gauge", "The epoch; 0 without a leader.", u64::from(epoch.unwrap_or(0)));
    metric(
        "crossdock_cluster_last_zxid",
        "gauge",
        "The zxid of the last transaction in the log.",
        status.last.to_u64(),
    );
    metric(
        "crossdock_cluster_applied_zxid",
        "gauge",
        "The zxid of the last applied transaction.",
        status.applied.to_u64(),
    );
    let connected = status.peers.iter().filter(|peer| peer.is_connected).count();
    metric("crossdock_cluster_connected", "gauge", "Connected instances.", connected as u64);
    metric("crossdock_cluster_syncs_total", "counter", "Syncs of the log.", status.syncs);
    metric(
        "crossdock_cluster_stopped",
        "gauge",
        "1 once this instance has stopped permanently.",
        u64::from(status.stopped.is_some()),
    );
    let connected = |peer: &Peer| Some(usize::from(peer.is_connected));
    peer_metric(&mut out, "crossdock_cluster_peer_connected", "1 while the instance is connected.", &status, connected);
    let help = "Transactions that the instance has not acknowledged as durable; only reported by the leader.";
    peer_metric(&mut out, "crossdock_cluster_peer_lag", help, &status, |peer| peer.lag);
    let times = cluster.latencies();
    histogram(&mut out, "crossdock_cluster_log_seconds", "Time to write and sync the log.", &times.log);
    histogram(
        &mut out,
        "crossdock_cluster_commit_seconds",
        "Time from a proposal by this instance until it is applied here.",
        &times.commit,
    );
    out
}

fn peer_metric(out: &mut String, name: &str, help: &str, status: &Status, value: impl Fn(&Peer) -> Option<usize>) {
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
