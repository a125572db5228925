//! `crossdock cluster bench --state-mib`: writes to a cluster with a large state, with and without snapshots, and while an
//! instance that lost its log catches up.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossdock_cluster::register::{self, Change, Command, Register};
use crossdock_cluster::{Node, Proposal, Replica, Settings};
use crossdock_zab::Role;

/// Writes per second, by how many writers.
const RATE: u32 = 5_000;
const WRITERS: u32 = 25;
/// Rounds, each without and with snapshots.
const ROUNDS: usize = 3;
/// Bytes of a value of the state.
const VALUE_LEN: usize = 1_000;
/// Commands that are proposed at once while the state is filled.
const BATCH: u64 = 1_000;
/// Time limit for an instance to catch up.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(600);

type Instance = (Node, Replica<Register>);

pub(super) async fn measure(
    nodes: &mut Vec<Instance>,
    settings: &[Settings],
    leader: &Replica<Register>,
    (state_mib, seconds): (u64, u64),
) -> Result<(), String> {
    let failed = |problem: crossdock_cluster::RequestError| problem.to_string();
    fill(leader, state_mib << 20).await?;
    println!("the state has {} keys; this process takes {}", leader.view().len(), memory());
    println!(
        "{:>10} {:>10} {:>10} {:>10} {:>10} {:>10}",
        "SNAPSHOTS", "WRITES/S", "P50 MS", "P99 MS", "P99.9 MS", "MAX MS"
    );
    for round in 0..ROUNDS {
        for has_snapshots in [round % 2 == 1, round % 2 == 0] {
            let stop = Arc::new(AtomicBool::new(false));
            let mut saving = tokio::task::JoinSet::new();
            if has_snapshots {
                for ((_, client), one) in nodes.iter().zip(settings) {
                    let (client, stop, path) = (client.clone(), Arc::clone(&stop), one.data.join("bench-snapshot"));
                    saving.spawn_local(async move {
                        let mut count = 0;
                        while !stop.load(Ordering::Relaxed) {
                            count += u32::from(client.save(path.clone()).await.is_ok_and(|saved| saved.is_ok()));
                        }
                        let _ = std::fs::remove_file(&path);
                        count
                    });
                }
            }
            let latencies = write_for(leader, Duration::from_secs(seconds)).await?;
            stop.store(true, Ordering::Relaxed);
            let saved: u32 = saving.join_all().await.into_iter().sum();
            let name = if has_snapshots { format!("{saved}") } else { "none".to_owned() };
            report(&name, latencies, seconds);
        }
    }
    // One instance loses its log.
    let follows = |(_, client): &Instance| matches!(client.status().role, Role::Following(..));
    let lost = nodes.iter().position(follows).ok_or("no instance follows")?;
    nodes.remove(lost).0.stop();
    std::fs::remove_dir_all(&settings[lost].data).map_err(|problem| problem.to_string())?;
    let mut again = settings[lost].clone();
    again.create = false;
    crossdock_cluster::init(&again, false).map_err(|problem| problem.to_string())?;
    let (node, client) = register::start(&again).map_err(|problem| problem.to_string())?;
    let (begun, before) = (Instant::now(), leader.status().applied);
    let writing = tokio::task::spawn_local({
        let leader = leader.clone();
        async move { write_for(&leader, CATCH_UP_TIMEOUT).await.map(drop) }
    });
    let follows = client.until(|status| status.role != Role::Looking);
    let follows = tokio::time::timeout(CATCH_UP_TIMEOUT, follows).await;
    let took = begun.elapsed().as_secs_f64();
    writing.abort();
    follows.map_err(|_| "the instance does not catch up")?.map_err(failed)?;
    let written = leader.status().applied.counter - before.counter;
    println!(
        "an instance without a log follows after {took:.1} s, {:.1} MiB/s, in which {:.0} writes/s were acknowledged; this process takes {}",
        state_mib as f64 / took,
        f64::from(written) / took,
        memory()
    );
    nodes.push((node, client));
    Ok(())
}

async fn fill(leader: &Replica<Register>, bytes: u64) -> Result<(), String> {
    let count = bytes / (VALUE_LEN as u64 + 20);
    for first in (0..count).step_by(usize::try_from(BATCH).unwrap_or(1)) {
        let proposals = (first..(first + BATCH).min(count)).map(|number| {
            let value = Bytes::from(vec![b'x'; VALUE_LEN]);
            Proposal::new(Command::payload(&format!("state-{number}"), Change::Set(value)))
        });
        for outcome in leader.propose_many(proposals.collect()).await {
            outcome.map_err(|problem| problem.to_string())?;
        }
    }
    Ok(())
}

/// Writes at the rate, and returns the latencies.
async fn write_for(leader: &Replica<Register>, time: Duration) -> Result<Vec<Duration>, String> {
    let until = Instant::now() + time;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let client = leader.clone();
        writers.spawn_local(async move {
            let mut turns = tokio::time::interval(Duration::from_secs(1) * WRITERS / RATE);
            let mut latencies = Vec::new();
            while Instant::now() < until {
                turns.tick().await;
                let begun = Instant::now();
                let payload = Command::payload(&format!("key-{writer}"), Change::Set(Bytes::from(vec![b'x'; 100])));
                client.propose(payload).await.map_err(|problem| problem.to_string())?;
                latencies.push(begun.elapsed());
            }
            Ok::<_, String>(latencies)
        });
    }
    let mut all = Vec::new();
    for latencies in writers.join_all().await {
        all.extend(latencies?);
    }
    Ok(all)
}

fn report(name: &str, mut latencies: Vec<Duration>, seconds: u64) {
    latencies.sort_unstable();
    let at = |permille: usize| latencies[(latencies.len() - 1) * permille / 1000].as_secs_f64() * 1000.0;
    let rate = latencies.len() as f64 / seconds as f64;
    println!("{name:>10} {rate:>10.0} {:>10.2} {:>10.2} {:>10.2} {:>10.2}", at(500), at(990), at(999), at(1000));
}

/// The memory of this process, as the system counts it.
fn memory() -> String {
    let status = std::fs::read_to_string(Path::new("/proc/self/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.map_or_else(|| "an unknown amount of memory".to_owned(), |kib| kib.trim().to_owned())
}
