//! `crossdock cluster bench`: the write performance of a cluster on the disk of this machine, with all instances in this process.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use crossdock_cluster::register::{self, Change, Command, Register};
use crossdock_cluster::{Member, Node, Replica, RequestError, Settings};
use crossdock_zab::{Role, ServerId};

use super::{cluster_bench_queue, cluster_large_state};
use crate::outcome::{Failure, Outcome, on_local_runtime};

/// Timeout for the election of a leader.
const ELECTION_TIMEOUT: Duration = Duration::from_secs(20);
/// Time before each measurement.
const WARM_UP: Duration = Duration::from_millis(300);

#[derive(Args)]
pub(super) struct Bench {
    /// The number of instances.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=9))]
    pub(super) instances: u64,
    /// The size of a written value in bytes.
    #[arg(long, default_value_t = 100, value_name = "BYTES")]
    pub(super) size: usize,
    /// The numbers of outstanding writes to measure, one after another.
    #[arg(long, value_delimiter = ',', default_value = "1,16,128,1024", value_name = "COUNT,…")]
    pub(super) outstanding: Vec<usize>,
    /// The duration of each measurement in seconds.
    #[arg(long, default_value_t = 3, value_name = "SECONDS")]
    pub(super) seconds: u64,
    /// Fill the state with this many MiB first, and measure 5 000 writes per second without and with snapshots, and while an
    /// instance catches up that has lost its log.
    #[arg(long, value_name = "MIB", conflicts_with = "outstanding", value_parser = clap::value_parser!(u64).range(1..=1000))]
    state_mib: Option<u64>,
    /// Measure messages that are added to a queue by all instances, and delivered in order by all of them, instead of writes. `--outstanding` is the
    /// number of keys, each with one message at a time.
    #[arg(long, conflicts_with = "state_mib")]
    queue: bool,
    /// The folder for the logs; they are written to a temporary subfolder.
    #[arg(long, default_value = "data", value_name = "FOLDER")]
    data: PathBuf,
}

pub(super) fn bench(bench: &Bench) -> Outcome {
    let folder = bench.data.join(format!("bench-{}", std::process::id()));
    let result = on_local_runtime(measure(bench, &folder))?;
    // A leftover folder does no harm.
    let _ = std::fs::remove_dir_all(&folder);
    result.map_err(|problem| {
        eprintln!("{problem}");
        Failure::Failed
    })
}

fn free_address() -> Result<SocketAddr, String> {
    let bound = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    bound.map_err(|problem| format!("no free port: {problem}"))
}

/// The settings of the instances, on free ports.
pub(super) fn free_settings(bench: &Bench, folder: &Path) -> Result<Vec<Settings>, String> {
    let mut members = BTreeMap::new();
    for id in 1..=bench.instances {
        members.insert(ServerId(id), Member { address: free_address()?.into(), votes: true });
    }
    let settings = |id: &ServerId| {
        let settings = Settings::new("bench", *id, members.clone(), folder.join(id.to_string()));
        Settings { create: true, ..settings }
    };
    Ok(members.keys().map(settings).collect())
}

async fn measure(bench: &Bench, folder: &Path) -> Result<(), String> {
    if bench.queue {
        return cluster_bench_queue::measure(bench, folder).await;
    }
    let all_settings = free_settings(bench, folder)?;
    let started = all_settings.iter().map(|settings| register::start(settings).map_err(|problem| problem.to_string()));
    let mut nodes = started.collect::<Result<Vec<_>, _>>()?;
    let leader = leader(&nodes).await?;
    println!("{} instances, {} bytes, leader {}", bench.instances, bench.size, leader.status().id);
    if let Some(state_mib) = bench.state_mib {
        cluster_large_state::measure(&mut nodes, &all_settings, &leader, (state_mib, bench.seconds)).await?;
        stop(nodes);
        return Ok(());
    }
    println!(
        "{:>12} {:>12} {:>10} {:>10} {:>10} {:>12}",
        "OUTSTANDING", "WRITES/S", "P50 MS", "P99 MS", "P99.9 MS", "SYNCS/WRITE"
    );
    for outstanding in &bench.outstanding {
        let until = Instant::now() + WARM_UP;
        run(&leader, *outstanding, bench.size, until).await?;
        let (started, syncs) = (Instant::now(), leader.status().syncs);
        let mut latencies =
            run(&leader, *outstanding, bench.size, started + Duration::from_secs(bench.seconds)).await?;
        let elapsed_s = started.elapsed().as_secs_f64();
        let syncs = leader.status().syncs - syncs;
        latencies.sort_unstable();
        let at = |permille: usize| latencies[(latencies.len() - 1) * permille / 1000].as_secs_f64() * 1000.0;
        println!(
            "{outstanding:>12} {:>12.0} {:>10.3} {:>10.3} {:>10.3} {:>12.3}",
            latencies.len() as f64 / elapsed_s,
            at(500),
            at(990),
            at(999),
            syncs as f64 / latencies.len() as f64
        );
    }
    stop(nodes);
    Ok(())
}

fn stop(nodes: Vec<(Node, Replica<Register>)>) {
    for (node, _) in nodes {
        node.stop();
    }
}

async fn leader(nodes: &[(Node, Replica<Register>)]) -> Result<Replica<Register>, String> {
    let leading = nodes.iter().map(|(_, client)| {
        let client = client.clone();
        Box::pin(async move {
            client.until(|status| matches!(status.role, Role::Leading(_))).await?;
            Ok::<_, RequestError>(client)
        })
    });
    match tokio::time::timeout(ELECTION_TIMEOUT, futures_util::future::select_ok(leading)).await {
        Ok(Ok((leader, _))) => Ok(leader),
        Ok(Err(problem)) => Err(problem.to_string()),
        Err(_) => Err("no leader was elected in time".to_owned()),
    }
}

/// Writes until an instant; returns the latency of each write.
async fn run(
    client: &Replica<Register>,
    outstanding: usize,
    size: usize,
    until: Instant,
) -> Result<Vec<Duration>, String> {
    let workers: Vec<_> = (0..outstanding)
        .map(|worker| {
            let (client, key) = (client.clone(), format!("key-{worker}"));
            tokio::task::spawn_local(async move {
                let value = Bytes::from(vec![b'x'; size]);
                let mut latencies = Vec::new();
                while Instant::now() < until {
                    let started = Instant::now();
                    let payload = Command::payload(&key, Change::Set(value.clone()));
                    client.propose(payload).await.map_err(|problem| problem.to_string())?;
                    latencies.push(started.elapsed());
                }
                Ok::<_, String>(latencies)
            })
        })
        .collect();
    let mut all = Vec::new();
    for worker in workers {
        all.extend(worker.await.map_err(|problem| problem.to_string())??);
    }
    Ok(all)
}
