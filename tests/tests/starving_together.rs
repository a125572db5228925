//! All kinds of resource exhaustion at once, in little memory: other callers are still served.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossdock_tests::frames::{Http2, kind};
use crossdock_tests::{Backend, Gateway, call, routes, until_within};
use rustix::process::{Resource, getrlimit};

/// The response time that nine in ten calls of other callers must meet; the machine may be busy.
const RESPONSE_TIME: Duration = Duration::from_secs(1);
/// The response time that all calls of other callers must meet.
const RESPONSE_TIME_MAX: Duration = Duration::from_secs(4);
/// The maximum resident memory of the gateway.
const MEMORY_MAX_KIB: u64 = 512 << 10;
/// The body length of slow writers and slow readers.
const BODY_LEN: usize = 512 << 10;
/// The interval between two reads or writes of a slow caller.
const SLOW_INTERVAL: Duration = Duration::from_millis(200);

/// The number of idle connections; `CROSSDOCK_IDLE` for long runs. In addition, a tenth of it, up to 500, write slowly, and as many read
/// slowly.
fn idle_callers() -> usize {
    std::env::var("CROSSDOCK_IDLE").map_or(1500, |count| count.parse().expect("CROSSDOCK_IDLE is a number"))
}

fn pause(time: Duration) {
    let (_caller, never) = std::sync::mpsc::sync_channel::<()>(1);
    let _ = never.recv_timeout(time);
}

/// Runs callers of the three kinds; each reconnects when its connection ends.
async fn run_callers(address: String, idle: usize, slow: usize, opened: Arc<AtomicUsize>) {
    let mut tasks = tokio::task::JoinSet::new();
    let kinds = [Caller::Idle].into_iter().cycle().take(idle);
    let kinds = kinds.chain([Caller::SlowWriter, Caller::SlowReader].into_iter().cycle().take(2 * slow));
    for (number, caller) in kinds.enumerate() {
        let (address, opened) = (address.clone(), Arc::clone(&opened));
        tasks.spawn(async move {
            loop {
                if let Ok(stream) = tokio::net::TcpStream::connect(&address).await {
                    opened.fetch_add(1, Ordering::Relaxed);
                    let _ = caller.run(stream).await;
                }
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        });
        if number % 200 == 199 {
            // Does not overflow the kernel's accept queue, which is not under test.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    while tasks.join_next().await.is_some() {}
}

#[derive(Clone, Copy)]
enum Caller {
    Idle,
    SlowWriter,
    SlowReader,
}

impl Caller {
    async fn run(self, mut stream: tokio::net::TcpStream) -> std::io::Result<()> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let head = format!(
            "POST /up HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: {BODY_LEN}\r\n\r\n"
        );
        let mut piece = [0; 16];
        match self {
            Self::Idle => {
                stream.read_u8().await?;
            }
            Self::SlowWriter => {
                stream.write_all(head.as_bytes()).await?;
                loop {
                    stream.write_all(b" ").await?;
                    tokio::time::sleep(SLOW_INTERVAL).await;
                }
            }
            Self::SlowReader => {
                rustix::net::sockopt::set_socket_recv_buffer_size(&stream, 8192)?;
                let mut body = vec![b' '; BODY_LEN];
                body[0] = b'1';
                stream.write_all(head.as_bytes()).await?;
                stream.write_all(&body).await?;
                while stream.read(&mut piece).await? > 0 {
                    tokio::time::sleep(SLOW_INTERVAL).await;
                }
            }
        }
        Ok(())
    }
}

/// Sends requests and resets them immediately until `stop` is set; returns their number.
fn send_resets(address: &str, stop: &AtomicBool) -> u32 {
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut attacker) = Http2::try_open(address, 65_535) else {
            pause(Duration::from_millis(50));
            continue;
        };
        for stream in (1..2000_u32).step_by(2) {
            attacker.request(stream, "GET", "/r", &[], true);
            attacker.send(kind::RST_STREAM, 0, stream, &8_u32.to_be_bytes());
            sent += 1;
            if stream % 100 == 99 {
                let frames = attacker.frames_until(Duration::from_millis(5), |frame| frame.kind == kind::GOAWAY);
                if frames.last().is_some_and(|frame| frame.kind == kind::GOAWAY) {
                    break;
                }
            }
        }
        pause(Duration::from_millis(50));
    }
    sent
}

/// Makes a call on a new connection; returns its response time.
fn timed_call(address: &str) -> Result<Duration, String> {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(address).map_err(|problem| format!("no connection: {problem}"))?;
    stream.set_read_timeout(Some(5 * RESPONSE_TIME)).map_err(|problem| problem.to_string())?;
    let mut answer = [0; 12];
    stream.write_all(b"GET /r HTTP/1.1\r\nHost: h\r\n\r\n").map_err(|problem| format!("not sent: {problem}"))?;
    stream.read_exact(&mut answer).map_err(|problem| format!("no response: {problem} after {:?}", begun.elapsed()))?;
    match &answer {
        b"HTTP/1.1 200" => Ok(begun.elapsed()),
        other => Err(String::from_utf8_lossy(other).into_owned()),
    }
}

fn peak_kib(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).expect("it lives");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("VmHWM");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

fn run_with_limit(hard: u64, idle: usize, time: Duration) {
    let slow = (idle / 10).min(500);
    let backend = Backend::start();
    let routes = routes("starving-together", &[("BACKEND", &backend.address)]);
    let listeners = format!(
        "public: {{ http: {{ bind: \"127.0.0.1:0\", connections_per_address: {} }} }}\nmemory: {{ bodies: 128MiB }}",
        4 * idle
    );
    let gateway = Gateway::start_under(&["prlimit", &format!("--nofile=1024:{hard}")], &listeners, &routes);
    let (address, admin) = (gateway.public(), gateway.admin());
    until_within(RESPONSE_TIME, "the first response", || timed_call(&address).is_ok());
    let (opened, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    runtime.spawn(run_callers(address.clone(), idle, slow, Arc::clone(&opened)));
    let attacker = {
        let (address, stop) = (address.clone(), Arc::clone(&stop));
        std::thread::spawn(move || send_resets(&address, &stop))
    };
    let begun = Instant::now();
    let (mut calls, mut refused) = (Vec::new(), Vec::new());
    let mut livez_times = Vec::new();
    while begun.elapsed() < time || opened.load(Ordering::Relaxed) < idle + 2 * slow {
        assert!(begun.elapsed() < 4 * time, "only {} callers connected", opened.load(Ordering::Relaxed));
        match timed_call(&address) {
            Ok(time) => calls.push(time),
            Err(problem) => refused.push(problem),
        }
        let called = Instant::now();
        assert_eq!(call(&admin, "GET", "/livez", "").status, 200);
        livez_times.push(called.elapsed());
        pause(Duration::from_millis(100));
    }
    stop.store(true, Ordering::Relaxed);
    let sent = attacker.join().expect("the attacker ends");
    runtime.shutdown_timeout(RESPONSE_TIME);
    let peak = peak_kib(&gateway);
    // Draining is not under test.
    gateway.signal("KILL");
    let (slowest, livez) = (calls.iter().max().copied().unwrap_or_default(), livez_times.iter().max().copied());
    println!(
        "hard limit {hard}: {} connections of {idle} idle and {} slow callers, {sent} resets in {:?}; {} calls of others, the slowest {slowest:?}, \
         {} refused; /livez at most {livez:?}; peak {} MiB",
        opened.load(Ordering::Relaxed),
        2 * slow,
        begun.elapsed(),
        calls.len(),
        refused.len(),
        peak >> 10
    );
    // If callers outnumber the connections many times over, some new connections are refused.
    let connections_max = usize::try_from(hard).unwrap_or(usize::MAX) / 4 * 3;
    let refused_max = if idle > 10 * connections_max { calls.len() / 20 } else { 0 };
    assert!(refused.len() <= refused_max, "{} refused: {:?}", refused.len(), &refused[..refused.len().min(5)]);
    let late = calls.iter().filter(|time| **time >= RESPONSE_TIME).count();
    assert!(
        late <= calls.len().div_ceil(10) && slowest < RESPONSE_TIME_MAX,
        "{late} calls were late, the slowest took {slowest:?}"
    );
    assert!(livez < Some(RESPONSE_TIME), "/livez took {livez:?}");
    assert!(peak < MEMORY_MAX_KIB, "{peak} KiB");
}

#[test]
fn other_callers_are_served_within_a_second_and_memory_is_bounded() {
    let idle = idle_callers();
    let time = Duration::from_secs(if idle > 2000 { 60 } else { 5 });
    // The gateway cannot have a higher hard limit than this process.
    let hard_max = getrlimit(Resource::Nofile).maximum.unwrap_or(65_536).min(65_536);
    let requested = std::env::var("CROSSDOCK_OPEN_FILES").ok().map(|limit| limit.parse().expect("a number"));
    for hard in requested.map_or_else(|| vec![hard_max, 1024], |limit| vec![limit]) {
        run_with_limit(hard, idle, time);
    }
}
