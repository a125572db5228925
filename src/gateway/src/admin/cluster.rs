//! The state of the cluster as JSON and metrics, and requests of operators to it.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::time::Duration;

use actix_web::body::SizedStream;
use actix_web::web::Bytes;
use crossdock_cluster::{Activity, Client, Disk, Latency, Peer, RequestError, Status, Stopped, wall_clock_millis};
use crossdock_zab::{Epoch, LogId, MemberChange, Membership, Refusal, Role, ServerId, Zxid};
use futures_util::Stream;
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
        Stopped::Log(problem) | Stopped::State(problem) => problem.clone(),
        Stopped::Requested => "stop requested".to_owned(),
    });
    json!({
        "id": status.id.0, "role": role, "phase": status.phase, "epoch": epoch, "leader": leader,
        "history_epoch": status.history_epoch.0, "last": status.last.to_string(), "applied": status.applied.to_string(), "log": status.log.to_string(),
        "membership": status.membership.as_deref().map(membership_json),
        "peers": status.peers.iter().map(peer_json).collect::<Vec<_>>(),
        "syncs": status.syncs, "disk": disk_json(&status.disk), "activity": activity_json(&status.activity),
        "release": env!("CARGO_PKG_VERSION"), "time_ms": wall_clock_millis(),
        "alarms": alarms(status), "log_problem": status.log_problem, "stopped": stopped,
    })
}

/// The hash over the history through a transaction, as text; null if it is not known here.
pub(super) async fn hash_json(cluster: &Client, at: &str) -> Option<Value> {
    let (epoch, counter) = at.split_once(':')?;
    let zxid = Zxid::new(Epoch(epoch.parse().ok()?), counter.parse().ok()?);
    let hash = cluster.hash_at(zxid).await.ok().flatten();
    Some(json!({ "zxid": at, "hash": hash.map(|hash| format!("{hash:016x}")) }))
}

fn disk_json(disk: &Disk) -> Value {
    json!({ "free_bytes": disk.free, "low_mark_bytes": disk.low_mark })
}

fn activity_json(activity: &Activity) -> Value {
    let Activity { links, snapshots, .. } = activity;
    json!({
        "elections": activity.elections,
        "requests": activity.requests,
        "backlog_bytes": activity.backlog_bytes,
        "outstanding": { "count": activity.outstanding, "bytes": activity.outstanding_bytes },
        "links_ended": { "broken": links.broken, "queue_full": links.queue_full, "closed": links.closed },
        "snapshots": {
            "saved": snapshots.saved, "failed": snapshots.failed, "last_bytes": snapshots.last_bytes,
            "last_seconds": snapshots.last_took.as_secs_f64(), "transactions_since": snapshots.since,
        },
        "segments": activity.segments,
    })
}

/// What an operator should look at, by name: `stopped`, `no_leader`, `read_only`, `low_disk_space`, `no_vote`,
/// `replacing_log`, `peers_disconnected`.
pub(super) fn alarms(status: &Status) -> Vec<&'static str> {
    let membership = status.membership.as_deref();
    let votes = |membership: &Membership| membership.is_voter(status.id, status.log);
    let listed = |membership: &Membership| membership.voters.contains_key(&status.id);
    let checks = [
        ("stopped", status.stopped.is_some()),
        ("no_leader", status.stopped.is_none() && status.role == Role::Looking),
        ("read_only", status.log_problem.is_some()),
        ("low_disk_space", status.disk.is_low),
        // It is listed as a voter, but with another log.
        ("no_vote", membership.is_some_and(|membership| listed(membership) && !votes(membership))),
        ("replacing_log", membership.is_some_and(|membership| !membership.replacing.is_empty())),
        ("peers_disconnected", status.peers.iter().any(|peer| peer.votes && !peer.is_connected)),
    ];
    checks.into_iter().filter(|(_, holds)| *holds).map(|(name, _)| name).collect()
}

fn membership_json(membership: &Membership) -> Value {
    let voter = |(id, log): (&ServerId, &LogId)| json!({ "id": id.0, "log": log.to_string() });
    json!({
        "cluster": membership.cluster.to_string(),
        "voters": membership.voters.iter().map(voter).collect::<Vec<_>>(),
        "replacing": membership.replacing.iter().map(|id| id.0).collect::<Vec<_>>(),
    })
}

/// How long an operator waits until a backup is written.
const BACKUP_TIMEOUT: Duration = Duration::from_secs(600);
/// How long an operator waits for the cluster.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A request of an operator.
#[derive(Debug, Clone, Copy)]
pub(super) enum Request {
    /// This instance becomes a voter.
    Add(u64),
    /// This voter becomes an observer.
    Remove(u64),
    /// That instance leads, or any that is ready.
    Transfer(Option<u64>),
    /// A voter is replaced by an instance that follows already.
    Replace { old: u64, new: u64 },
}

impl Request {
    /// `{"add": 4}`, `{"remove": 4}`, `{"replace": {"old": 3, "new": 4}}`, `{"transfer": 2}` or `{"transfer": null}`.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let Ok(Value::Object(object)) = serde_json::from_slice(body) else { return None };
        let (name, value) = object.iter().next().filter(|_| object.len() == 1)?;
        match name.as_str() {
            "add" => Some(Self::Add(value.as_u64()?)),
            "remove" => Some(Self::Remove(value.as_u64()?)),
            "replace" => Some(Self::Replace { old: value["old"].as_u64()?, new: value["new"].as_u64()? }),
            "transfer" if value.is_null() => Some(Self::Transfer(None)),
            "transfer" => Some(Self::Transfer(Some(value.as_u64()?))),
            _ => None,
        }
    }
}

/// Executes a request of an operator. Returns the response, or the status code of an error and what is wrong.
pub(super) async fn execute(cluster: &Client, request: Request) -> Result<Value, (u16, String)> {
    tracing::info!(?request, "request to the cluster");
    let executed = async {
        match request {
            Request::Add(id) => change(cluster, MemberChange::Add(ServerId(id))).await,
            Request::Remove(id) => change(cluster, MemberChange::Remove(ServerId(id))).await,
            Request::Transfer(to) => transfer(cluster, to.map(ServerId)).await,
            Request::Replace { old, new } => replace(cluster, ServerId(old), ServerId(new)).await,
        }
    };
    let limit = if matches!(request, Request::Replace { .. }) { 2 * REQUEST_TIMEOUT } else { REQUEST_TIMEOUT };
    let outcome = tokio::time::timeout(limit, executed).await.unwrap_or_else(|_| Err(unanswered()));
    if let Err((_, problem)) = &outcome {
        tracing::warn!(?request, %problem, "request to the cluster failed");
    }
    outcome
}

/// The status code and the text of a request that took too long.
pub(super) fn unanswered() -> (u16, String) {
    (504, "the cluster has not answered in time; see `crossdock cluster status`".to_owned())
}

async fn change(cluster: &Client, change: MemberChange) -> Result<Value, (u16, String)> {
    match cluster.change_members(change).await {
        Ok(zxid) => Ok(json!({ "zxid": zxid.to_string() })),
        Err(RequestError::Refused(Refusal::NotFollowing)) => {
            let problem = "the instance is not up to date with the leader: list it in `observers` of the settings of all \
                           instances, start it, and wait until its status is `observing`";
            Err((409, problem.to_owned()))
        }
        Err(RequestError::Refused(refusal @ (Refusal::NoLeader | Refusal::Busy | Refusal::TransferringLeadership))) => {
            Err((503, refusal.to_string()))
        }
        Err(RequestError::Refused(refusal)) => Err((409, refusal.to_string())),
        Err(other) => Err((503, other.to_string())),
    }
}

/// Adds the new instance, then removes the old one: two changes of a single voter. If only the second one fails, both vote,
/// and the old one is removed with another request.
async fn replace(cluster: &Client, old: ServerId, new: ServerId) -> Result<Value, (u16, String)> {
    let membership = cluster.status().membership;
    let votes = |id: &ServerId| membership.as_ref().is_some_and(|membership| membership.voters.contains_key(id));
    if !votes(&old) {
        return Err((409, format!("instance {old} is not a voter")));
    }
    if votes(&new) {
        return Err((409, format!("instance {new} is a voter already")));
    }
    if role_epoch_leader(&cluster.status()).2 == Some(old.0) {
        let hint = "transfer leadership first, with `crossdock cluster transfer` on it";
        return Err((409, format!("instance {old} leads: {hint}")));
    }
    change(cluster, MemberChange::Add(new)).await?;
    let removed = change(cluster, MemberChange::Remove(old)).await;
    removed.map_err(|(status, problem)| {
        (status, format!("instance {new} is a voter now, but {old} still is, too: {problem}"))
    })
}

/// Waits until this instance has stepped down.
async fn transfer(cluster: &Client, to: Option<ServerId>) -> Result<Value, (u16, String)> {
    let status = cluster.status();
    let Role::Leading(epoch) = status.role else {
        let leader = role_epoch_leader(&status).2;
        let hint = leader.map_or("there is no leader".to_owned(), |leader| format!("instance {leader} does"));
        return Err((409, format!("this instance does not lead; {hint}")));
    };
    if let Some(to) = to.filter(|to| !status.peers.iter().any(|peer| peer.id == *to && peer.votes && peer.follows)) {
        return Err((409, format!("instance {to} is not a voter that follows this instance")));
    }
    let ended = |error: RequestError| (503, error.to_string());
    cluster.transfer_leadership(to).await.map_err(ended)?;
    cluster.until(|status| status.role != Role::Leading(epoch)).await.map_err(ended)?;
    Ok(json!({}))
}

/// Bytes of a backup that are read at once.
const PIECE_LEN: usize = 256 << 10;

/// A backup, as the body of a response.
pub(super) async fn backup(
    cluster: Client,
) -> Result<SizedStream<impl Stream<Item = io::Result<Bytes>>>, (u16, String)> {
    let taken = tokio::time::timeout(BACKUP_TIMEOUT, cluster.save_temporary()).await;
    let taken = taken.map_err(|_| (504, "the cluster has not answered in time".to_owned()))?;
    let saved = taken.map_err(|error| (503, error.to_string()))?.map_err(|problem| (500, problem))?;
    let opened = File::open(saved.path()).and_then(|file| Ok((file.metadata()?.len(), file)));
    let (len, file) = opened.map_err(|error| (500, error.to_string()))?;
    // The file is deleted once the response has ended.
    let pieces = futures_util::stream::try_unfold((file, saved), |(mut file, saved)| async move {
        let read = tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; PIECE_LEN];
            let len = file.read(&mut piece)?;
            piece.truncate(len);
            Ok::<_, io::Error>((piece, file))
        });
        let (piece, file) = read.await.map_err(io::Error::other)??;
        Ok(Some((Bytes::from(piece), (file, saved))).filter(|(piece, _)| !piece.is_empty()))
    });
    Ok(SizedStream::new(len, pieces))
}

fn peer_json(peer: &Peer) -> Value {
    json!({
        "id": peer.id.0, "votes": peer.votes, "connected": peer.is_connected, "follows": peer.follows, "lag": peer.lag,
        "round_trip_seconds": peer.round_trip.map(|round_trip| round_trip.as_secs_f64()),
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
        (
            "crossdock_cluster_voters",
            "Voters of the cluster; 0 until it is formed.",
            status.membership.as_ref().map_or(0, |membership| membership.voters.len() as u64),
        ),
        (
            "crossdock_cluster_votes",
            "1 while this instance votes with its current log.",
            u64::from(status.membership.as_ref().is_some_and(|it| it.is_voter(status.id, status.log))),
        ),
        (
            "crossdock_cluster_low_disk_space",
            "1 while little disk space is left for the log.",
            u64::from(status.disk.is_low),
        ),
        ("crossdock_cluster_segments", "Segments of the log on disk.", status.activity.segments),
        (
            "crossdock_cluster_requests",
            "Requests of local clients that are not answered yet.",
            status.activity.requests as u64,
        ),
        (
            "crossdock_cluster_outstanding",
            "Proposals that are not committed; only reported by the leader.",
            status.activity.outstanding as u64,
        ),
        ("crossdock_cluster_outstanding_bytes", "Their bytes.", status.activity.outstanding_bytes as u64),
        (
            "crossdock_cluster_backlog_bytes",
            "Bytes of committed transactions that the state machines have not applied yet.",
            status.activity.backlog_bytes as u64,
        ),
        (
            "crossdock_cluster_snapshot_bytes",
            "The size of the last saved snapshot.",
            status.activity.snapshots.last_bytes,
        ),
        (
            "crossdock_cluster_snapshot_transactions",
            "Transactions since the last snapshot.",
            status.activity.snapshots.since,
        ),
        ("crossdock_cluster_stopped", "1 once this instance has stopped permanently.", u64::from(is_stopped)),
    ];
    for (name, help, value) in gauges {
        out.gauge(name, help, [(NONE, value)])?;
    }
    if let Some(free) = status.disk.free {
        out.gauge("crossdock_cluster_free_bytes", "Free bytes on the disk of the log.", [(NONE, free)])?;
    }
    let Activity { links, snapshots, .. } = status.activity;
    let counters = [
        ("crossdock_cluster_syncs", "Syncs of the log.", status.syncs),
        ("crossdock_cluster_elections", "Elections that this instance began.", status.activity.elections),
        ("crossdock_cluster_snapshots", "Saved snapshots.", snapshots.saved),
        ("crossdock_cluster_snapshot_failures", "Snapshots that could not be saved.", snapshots.failed),
        (
            "crossdock_cluster_stale_messages",
            "Messages of earlier connections or sessions, which were ignored.",
            status.activity.stale_messages,
        ),
    ];
    for (name, help, value) in counters {
        out.counter(name, help, [(NONE, value)])?;
    }
    let reasons = [("broken", links.broken), ("queue_full", links.queue_full), ("closed", links.closed)];
    let reasons = reasons.map(|(reason, count)| (vec![("reason", reason.to_owned())], count));
    out.counter("crossdock_cluster_links_ended", "Ended connections to other instances, by the reason.", reasons)?;
    let label = |peer: &Peer| vec![("peer", peer.id.to_string())];
    let connected = status.peers.iter().map(|peer| (label(peer), u64::from(peer.is_connected)));
    out.gauge("crossdock_cluster_peer_connected", "1 while the instance is connected.", connected)?;
    let lags = status.peers.iter().filter_map(|peer| Some((label(peer), peer.lag? as u64)));
    let help = "Transactions that the instance has not acknowledged as durable; only reported by the leader.";
    out.gauge("crossdock_cluster_peer_lag", help, lags)?;
    let round_trips = status.peers.iter().filter_map(|peer| Some((label(peer), peer.round_trip?.as_secs_f64())));
    let help = "Time from the last heartbeat to its answer; only reported by the leader.";
    out.gauge("crossdock_cluster_peer_round_trip_seconds", help, round_trips)?;
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
