//! Benchmark client of `register-node`: writes concurrently and prints throughput and latency percentiles.
//!
//! ```text
//! register-writers ADDRESS,… OUTSTANDING SIZE SECONDS
//! ```
//!
//! Each of OUTSTANDING writers sets its own key, one write at a time; writers of one address share a connection. Prints one line of JSON.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The time before measurement starts.
const WARM_UP: Duration = Duration::from_millis(500);

type Problem = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Problem> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [addresses, outstanding, size, seconds] = arguments.as_slice() else {
        return Err("ADDRESSES OUTSTANDING SIZE SECONDS".into());
    };
    let addresses: Vec<SocketAddr> = addresses.split(',').map(str::parse).collect::<Result<_, _>>()?;
    let (outstanding, size): (usize, usize) = (outstanding.parse()?, size.parse()?);
    let time = Duration::from_secs(seconds.parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        run(&addresses, outstanding, size, WARM_UP).await?;
        let begun = Instant::now();
        let mut times = run(&addresses, outstanding, size, time).await?;
        let took = begun.elapsed().as_secs_f64();
        times.sort_unstable();
        let at = |permille: usize| times[(times.len() - 1) * permille / 1000].as_secs_f64() * 1000.0;
        let figures = serde_json::json!({
            "writes": times.len(), "per_s": times.len() as f64 / took, "p50": at(500), "p99": at(990), "p999": at(999),
        });
        println!("{figures}");
        Ok(())
    })
}

async fn run(
    addresses: &[SocketAddr],
    outstanding: usize,
    size: usize,
    time: Duration,
) -> Result<Vec<Duration>, Problem> {
    let until = Instant::now() + time;
    let connections: Vec<_> = addresses.iter().take(outstanding).copied().enumerate().collect();
    let mut tasks = tokio::task::JoinSet::new();
    for (at, address) in &connections {
        let writers: Vec<usize> = (*at..outstanding).step_by(connections.len()).collect();
        tasks.spawn(write_all(*address, writers, size, until));
    }
    let mut times = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        times.extend(ended??);
    }
    Ok(times)
}

/// Runs the writers of one connection; each sends its next write after the answer to the previous one.
async fn write_all(
    address: SocketAddr,
    writers: Vec<usize>,
    size: usize,
    until: Instant,
) -> Result<Vec<Duration>, Problem> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let value = "x".repeat(size);
    let lines: Vec<String> =
        writers.iter().enumerate().map(|(at, writer)| format!("{at} set key-{writer} {value}\n")).collect();
    let mut begun = vec![Instant::now(); writers.len()];
    let mut out: Vec<u8> = lines.concat().into_bytes();
    let (mut received, mut times, mut left) = (BytesMut::new(), Vec::new(), writers.len());
    while left > 0 {
        stream.write_all(&out).await?;
        out.clear();
        if stream.read_buf(&mut received).await? == 0 {
            return Err("the instance closed the connection".into());
        }
        let now = Instant::now();
        while let Some(end) = received.iter().position(|byte| *byte == b'\n') {
            let answer = std::str::from_utf8(&received[..end])?;
            let at = answer
                .strip_suffix(" done")
                .ok_or_else(|| format!("unexpected answer `{answer}`"))?
                .parse::<usize>()?;
            times.push(now - begun[at]);
            received.advance(end + 1);
            if now < until {
                begun[at] = now;
                out.extend_from_slice(lines[at].as_bytes());
            } else {
                left -= 1;
            }
        }
    }
    Ok(times)
}
