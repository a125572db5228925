//! The state of the cluster as JSON and metrics.

use std::fmt;

use crossdock_cluster::{Client, Latency, Peer, Status, Stopped};
use crossdock_zab::Role;
use serde_json::{Value, json};

use super::families::{Buckets, Families, NONE};

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
        "syncs": status.syncs, "log_problem": status.log_problem, "stopped": stopped,
    })
}

fn peer_json(peer: &Peer) -> Value {
    json!({
        "id": peer.id.0, "votes": peer.votes, "connected": peer.is_connected, "follows": peer.follows, "lag": peer.lag,
    })
}

pub(super) fn cluster_metrics(out: &mut Families<'_>, cluster: &Client) -> fmt::Result {
    let status = cluster.status();
    let (role, epoch, _) = role_epoch_leader(&status);
    let connected = status.peers.iter().filter(|peer| peer.is_connected).count() as u64;
    let is_stopped = status.stopped.is_some();
    let gauges = [
        ("crossdock_cluster_ready", "1 while this instance leads or follows a leader.", u64::from(role != "looking")),
        ("crossdock_cluster_leading", "1 while this instance leads.", u64::from(role == "leading")),
        ("crossdock_cluster_epoch", "The epoch; 0 without a leader.", u64::from(epoch.unwrap_or(0))),
        ("crossdock_cluster_last_zxid", "The zxid of the last transaction in the log.", status.last.to_u64()),
        ("crossdock_cluster_applied_zxid", "The zxid of the last applied transaction.", status.applied.to_u64()),
        ("crossdock_cluster_connected", "Connected instances.", connected),
        (
            "crossdock_cluster_read_only",
            "1 while the log lacks disk space or file descriptors, so that this instance accepts no commands.",
            u64::from(status.log_problem.is_some()),
        ),
        ("crossdock_cluster_stopped", "1 once this instance has stopped permanently.", u64::from(is_stopped)),
    ];
    for (name, help, value) in gauges {
        out.gauge(name, help, [(NONE, value)])?;
    }
    out.counter("crossdock_cluster_syncs", "Syncs of the log.", [(NONE, status.syncs)])?;
    let label = |peer: &Peer| vec![("peer", peer.id.to_string())];
    let connected = status.peers.iter().map(|peer| (label(peer), u64::from(peer.is_connected)));
    out.gauge("crossdock_cluster_peer_connected", "1 while the instance is connected.", connected)?;
    let lags = status.peers.iter().filter_map(|peer| Some((label(peer), peer.lag? as u64)));
    let help = "Transactions that the instance has not acknowledged as durable; only reported by the leader.";
    out.gauge("crossdock_cluster_peer_lag", help, lags)?;
    let times = cluster.latencies();
    let help = "Time to write and sync the log.";
    out.histogram("crossdock_cluster_log_seconds", help, [(NONE, buckets(&times.log))])?;
    let help = "Time from a proposal by this instance until it is applied here.";
    out.histogram("crossdock_cluster_commit_seconds", help, [(NONE, buckets(&times.commit))])
}

fn buckets(latency: &Latency) -> Buckets {
    let counts =
        latency.counts().map(|(bound, count)| (bound.map_or(f64::INFINITY, |bound| bound.as_secs_f64()), count));
    Buckets { sum: latency.sum().as_secs_f64(), counts: counts.collect() }
}
