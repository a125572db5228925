//! `crossdock cluster bench --queue`: messages that are added to a queue on all instances, and delivered in order by all of them.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossdock_cluster::{Machines, Node};
use crossdock_embedded::{Engine, NewMessage, Options, Running, add};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::cluster_bench::{Bench, free_settings};

const WARM_UP: Duration = Duration::from_secs(1);
const QUEUE: &str = "bench";
/// Deliveries of an instance that are settled at the same time.
const CONCURRENCY: usize = 4_096;
const READY_TIMEOUT: Duration = Duration::from_secs(20);
/// How long what is left of a measurement may take.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(120);

struct Instance {
    node: Node,
    engine: Engine,
    running: Running,
}

/// What is counted while messages are delivered.
#[derive(Debug)]
struct Measured {
    begun: Instant,
    delivered: AtomicU64,
    /// From the call that adds a message to its delivery, in microseconds.
    latencies: Mutex<Vec<u32>>,
}

pub(super) async fn measure(bench: &Bench, folder: &Path) -> Result<(), String> {
    let mut instances = Vec::new();
    for settings in free_settings(bench, folder)? {
        let mut machines = Machines::new();
        let published = add(&mut machines);
        let node = Node::start(&settings, machines).map_err(|problem| problem.to_string())?;
        let options = Options { ttl: Duration::from_secs(10), label: format!("instance {}", settings.id) };
        let (engine, running) = Engine::start(node.replica(&published), options).map_err(|error| error.to_string())?;
        instances.push(Instance { node, engine, running });
    }
    println!("{} instances, messages of {} bytes", bench.instances, bench.size);
    println!("{:>12} {:>12} {:>10} {:>10} {:>10}", "KEYS", "MESSAGES/S", "P50 MS", "P99 MS", "P99.9 MS");
    for keys in &bench.outstanding {
        let delivering = Duration::from_secs(bench.seconds);
        let (count, elapsed_s, mut latencies) = run(&instances, *keys, bench.size, delivering).await?;
        latencies.sort_unstable();
        let at = |permille: usize| f64::from(latencies[(latencies.len() - 1) * permille / 1000]) / 1000.0;
        let rate = count as f64 / elapsed_s;
        println!("{keys:>12} {rate:>12.0} {:>10.2} {:>10.2} {:>10.2}", at(500), at(990), at(999));
    }
    for Instance { node, engine, running } in instances {
        engine.close().await;
        drop(running);
        node.stop();
    }
    Ok(())
}

/// Messages that were delivered, in how many seconds, and their latencies.
async fn run(
    instances: &[Instance],
    keys: usize,
    size: usize,
    delivering: Duration,
) -> Result<(u64, f64, Vec<u32>), String> {
    let measured =
        Arc::new(Measured { begun: Instant::now(), delivered: AtomicU64::new(0), latencies: Mutex::default() });
    let mut consumers = JoinSet::new();
    for instance in instances {
        consumers.spawn(consume(instance.engine.clone(), Arc::clone(&measured)));
    }
    let mut producers = JoinSet::new();
    for key in 0..keys {
        let engine = instances[key % instances.len()].engine.clone();
        producers.spawn(produce(engine, format!("key {key}"), size, measured.begun));
    }
    let first = async {
        while measured.delivered.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(READY_TIMEOUT, first).await.map_err(|_| "no message was delivered in time".to_owned())?;
    tokio::time::sleep(WARM_UP).await;
    measured.latencies.lock().map_err(|_| "a consumer panicked")?.clear();
    let (began, before) = (Instant::now(), measured.delivered.load(Ordering::Relaxed));
    tokio::time::sleep(delivering).await;
    let (elapsed_s, after) = (began.elapsed().as_secs_f64(), measured.delivered.load(Ordering::Relaxed));
    let latencies = std::mem::take(&mut *measured.latencies.lock().map_err(|_| "a consumer panicked")?);
    producers.shutdown().await;
    // What is left is delivered before the next measurement.
    let engine = &instances[0].engine;
    let drained = async {
        loop {
            let view = engine.read().await.map_err(|error| error.to_string())?;
            let is_left = view.queues.get(QUEUE).is_some_and(|of| !of.is_empty());
            if !is_left {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let in_time = timeout(DRAIN_TIMEOUT, drained).await;
    in_time.unwrap_or_else(|_| Err("messages are left that are not delivered in time".to_owned()))?;
    consumers.shutdown().await;
    if latencies.is_empty() {
        Err("no message was delivered".to_owned())
    } else {
        Ok((after - before, elapsed_s, latencies))
    }
}

/// Adds messages of a key, one after another.
async fn produce(engine: Engine, key: String, size: usize, begun: Instant) {
    loop {
        let mut payload = vec![b'x'; size.max(8)];
        payload[..8].copy_from_slice(&micros(begun).to_be_bytes());
        let message = NewMessage { key: key.clone(), payload: payload.into(), ..NewMessage::default() };
        if engine.enqueue(QUEUE, message).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn micros(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX)
}

async fn consume(engine: Engine, measured: Arc<Measured>) {
    let consumer = engine.consume(QUEUE);
    let mut settling = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = settling.join_next(), if !settling.is_empty() => {}
            delivery = consumer.next(), if settling.len() < CONCURRENCY => {
                let Some(delivery) = delivery else { return };
                let added = delivery.message().payload.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
                let latency = u32::try_from(micros(measured.begun).saturating_sub(added)).unwrap_or(u32::MAX);
                if let Ok(mut latencies) = measured.latencies.lock() {
                    latencies.push(latency);
                }
                measured.delivered.fetch_add(1, Ordering::Relaxed);
                settling.spawn(async move {
                    let _ = delivery.done(Bytes::new()).await;
                });
            }
        }
    }
}
