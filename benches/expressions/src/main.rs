//! The Rust engines of the expression benchmark; `run.py` starts one at a time.
//!
//! `expressions ENGINE` reads workloads as JSON from standard input and prints a line for each: its name, nanoseconds per evaluation,
//! and the result. Engines are `ours`, `before` (the `cel` crate as the gateway used it) and `bare` (the crate with native values,
//! converted once).

mod bare;
mod before;
mod ours;

use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossdock_message::{Limits, Record, Value, json};
use rustix::time::{ClockId, clock_gettime};

/// The allocator of the gateway, used for all engines.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One expression over one message.
struct Workload {
    source: String,
    message: Value,
    /// How long to measure.
    time: Duration,
}

/// Nanoseconds per evaluation, and the value; `None` if the engine does not support the workload.
type Measured = Option<(f64, Value)>;

/// The CPU time of this process.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

impl Workload {
    /// Nanoseconds of one evaluation: first a tenth of the time to warm up and to learn how many evaluations that takes.
    fn measure<T>(&self, mut evaluate: impl FnMut() -> T) -> f64 {
        let mut batch = 1_u32;
        let once = loop {
            let begun = cpu_time();
            for _ in 0..batch {
                black_box(evaluate());
            }
            let taken = cpu_time() - begun;
            if taken >= self.time / 10 {
                break taken / batch;
            }
            batch *= 2;
        };
        let count = (self.time.as_nanos() / once.as_nanos().max(1)).max(1);
        let begun = cpu_time();
        for _ in 0..count {
            black_box(evaluate());
        }
        let taken = cpu_time() - begun;
        taken.as_nanos() as f64 / count as f64
    }
}

/// A deadline that no evaluation reaches.
fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

fn text(value: Option<&Value>) -> String {
    value.and_then(Value::scalar_text).expect("a text").to_string()
}

fn main() {
    let engine = std::env::args().nth(1).unwrap_or_default();
    let run: fn(&Workload) -> Measured = match engine.as_str() {
        "ours" => ours::run,
        "before" => before::run,
        "bare" => bare::run,
        _ => panic!("usage: expressions ours|before|bare"),
    };
    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input).expect("workloads");
    let limits = Limits::default();
    let document = json::read(&Bytes::from(input), &limits).expect("workloads as JSON");
    let Some(Value::List(workloads)) = document.get("workloads") else { panic!("no workloads") };
    let milliseconds: u64 = text(document.get("milliseconds")).parse().expect("milliseconds");
    for workload in workloads {
        // Each message is decoded from its own document, as on receipt.
        let message = json::write(workload.get("message").expect("a message")).expect("JSON");
        let measured = run(&Workload {
            source: text(workload.get("source")),
            message: json::read(&Bytes::from(message), &limits).expect("JSON"),
            time: Duration::from_millis(milliseconds),
        });
        let Some((nanoseconds, result)) = measured else { continue };
        let mut line = Record::new();
        line.set("name", workload.get("name").expect("a name").clone());
        line.set("nanoseconds", Value::F64(nanoseconds));
        line.set("result", result);
        let mut line = json::write(&Value::Record(line)).expect("JSON");
        line.push(b'\n');
        std::io::stdout().write_all(&line).expect("standard output");
    }
}
