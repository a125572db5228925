//! All kinds of resource exhaustion at once, in little memory: other callers are still served.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossdock_tests::frames::{Http2, kind};
use crossdock_tests::{Backend, Gateway, call, until_within};
use rustix::process::{Resource, getrlimit};

/// Within this time other callers get their response, but for one in ten: what else runs on this machine takes its share of the processors.
const ANSWER_TIME: Duration = Duration::from_secs(1);
/// And within this all of them.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(4);
/// The memory of the gateway.
const MEMORY_KIB: u64 = 512 << 10;
/// The body of slow writers and slow readers.
const BODY_LEN: usize = 512 << 10;
/// Between two bytes of a slow caller.
const PACE: Duration = Duration::from_millis(200);

/// The number of idle connections; `CROSSDOCK_IDLE` for long runs. A tenth of it, up to 500, write slowly, and as many read slowly.
fn idle_callers() -> usize {
    std::env::var("CROSSDOCK_IDLE").map_or(1500, |count| count.parse().expect("CROSSDOCK_IDLE is a number"))
}

fn pause(time: Duration) {
    let (_caller, never) = std::sync::mpsc::sync_channel::<()>(1);
    let _ = never.recv_timeout(time);
}

/// Callers of the three kinds; each reconnects when its connection ends.
async fn callers(address: String, idle: usize, slow: usize, opened: Arc<AtomicUsize>) {
    let mut tasks = tokio::task::JoinSet::new();
    let kinds = [Caller::Idle].into_iter().cycle().take(idle);
    let kinds = kinds.chain([Caller::Writes, Caller::Reads].into_iter().cycle().take(2 * slow));
    for (number, caller) in kinds.enumerate() {
        let (address, opened) = (address.clone(), Arc::clone(&opened));
        tasks.spawn(async move {
            loop {
                if let Ok(stream) = tokio::net::TcpStream::connect(&address).await {
                    opened.fetch_add(1, Ordering::Relaxed);
                    let _ = caller.use_up(stream).await;
                }
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        });
        if number % 200 == 199 {
            // The accept queue of the kernel is not under test.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    while tasks.join_next().await.is_some() {}
}

#[derive(Clone, Copy)]
enum Caller {
    Idle,
    Writes,
    Reads,
}

impl Caller {
    async fn use_up(self, mut stream: tokio::net::TcpStream) -> std::io::Result<()> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let head = format!(
            "POST /up HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: {BODY_LEN}\r\n\r\n"
        );
        let mut piece = [0; 16];
        match self {
            Self::Idle => {
                stream.read_u8().await?;
            }
            Self::Writes => {
                stream.write_all(head.as_bytes()).await?;
                loop {
                    stream.write_all(b" ").await?;
                    tokio::time::sleep(PACE).await;
                }
            }
            Self::Reads => {
                rustix::net::sockopt::set_socket_recv_buffer_size(&stream, 8192)?;
                let mut body = vec![b' '; BODY_LEN];
                body[0] = b'1';
                stream.write_all(head.as_bytes()).await?;
                stream.write_all(&body).await?;
                while stream.read(&mut piece).await? > 0 {
                    tokio::time::sleep(PACE).await;
                }
            }
        }
        Ok(())
    }
}

/// Sends requests and resets them at once, until `ends`.
fn resets(address: &str, ends: &AtomicBool) -> u32 {
    let mut sent = 0;
    while !ends.load(Ordering::Relaxed) {
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

/// A call on a new connection.
fn answered(address: &str) -> Result<Duration, String> {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(address).map_err(|problem| format!("no connection: {problem}"))?;
    stream.set_read_timeout(Some(5 * ANSWER_TIME)).map_err(|problem| problem.to_string())?;
    let mut answer = [0; 12];
    stream.write_all(b"GET /r HTTP/1.1\r\nHost: h\r\n\r\n").map_err(|problem| format!("not sent: {problem}"))?;
    stream.read_exact(&mut answer).map_err(|problem| format!("no answer: {problem} after {:?}", begun.elapsed()))?;
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

fn under(hard: u64, idle: usize, time: Duration) {
    let slow = (idle / 10).min(500);
    let backend = Backend::start();
    let routes = format!(
        "version: 1
services:
  s: {{ http: {{ url: \"http://{}\", operations: {{ get: {{ get: /echo }}, up: {{ post: /echo }} }} }}, timeout: 20s }}
routes:
  r: {{ from: {{ http: {{ listen: public, get: /r }} }}, steps: [ {{ call: s.get }} ] }}
  up: {{ from: {{ http: {{ listen: public, post: /up, max: 2MiB }} }}, steps: [ {{ call: s.up }} ] }}
",
        backend.address
    );
    let listeners = format!(
        "public: {{ http: {{ bind: \"127.0.0.1:0\", connections_per_address: {} }} }}\nmemory: {{ bodies: 128MiB }}",
        4 * idle
    );
    let gateway = Gateway::start_under(&["prlimit", &format!("--nofile=1024:{hard}")], &listeners, &routes);
    let (address, admin) = (gateway.public(), gateway.admin());
    until_within(ANSWER_TIME, "a first answer", || answered(&address).is_ok());
    let (opened, ends) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    runtime.spawn(callers(address.clone(), idle, slow, Arc::clone(&opened)));
    let attacker = {
        let (address, ends) = (address.clone(), Arc::clone(&ends));
        std::thread::spawn(move || resets(&address, &ends))
    };
    let begun = Instant::now();
    let (mut calls, mut refused) = (Vec::new(), Vec::new());
    let mut alive = Vec::new();
    while begun.elapsed() < time || opened.load(Ordering::Relaxed) < idle + 2 * slow {
        assert!(begun.elapsed() < 4 * time, "{} of the callers came", opened.load(Ordering::Relaxed));
        match answered(&address) {
            Ok(time) => calls.push(time),
            Err(problem) => refused.push(problem),
        }
        let asked = Instant::now();
        assert_eq!(call(&admin, "GET", "/livez", "").status, 200);
        alive.push(asked.elapsed());
        pause(Duration::from_millis(100));
    }
    ends.store(true, Ordering::Relaxed);
    let sent = attacker.join().expect("the attacker ends");
    runtime.shutdown_timeout(ANSWER_TIME);
    let peak = peak_kib(&gateway);
    // Draining is not under test.
    gateway.signal("KILL");
    let (slowest, livez) = (calls.iter().max().copied().unwrap_or_default(), alive.iter().max().copied());
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
    // Where callers outnumber the places many times, some of those who come are refused.
    let places = usize::try_from(hard).unwrap_or(usize::MAX) / 4 * 3;
    let refused_max = if idle > 10 * places { calls.len() / 20 } else { 0 };
    assert!(refused.len() <= refused_max, "{} refused: {:?}", refused.len(), &refused[..refused.len().min(5)]);
    let late = calls.iter().filter(|time| **time >= ANSWER_TIME).count();
    assert!(late <= calls.len().div_ceil(10) && slowest < ANSWER_TIME_MAX, "{late} were late, the slowest {slowest:?}");
    assert!(livez < Some(ANSWER_TIME), "/livez took {livez:?}");
    assert!(peak < MEMORY_KIB, "{peak} KiB");
}

#[test]
fn other_callers_are_served_within_a_second_and_memory_is_bounded() {
    let idle = idle_callers();
    let time = Duration::from_secs(if idle > 2000 { 60 } else { 5 });
    // The hard limit of this process bounds that of the gateway.
    let most = getrlimit(Resource::Nofile).maximum.unwrap_or(65_536).min(65_536);
    let asked = std::env::var("CROSSDOCK_OPEN_FILES").ok().map(|limit| limit.parse().expect("a number"));
    for hard in asked.map_or_else(|| vec![most, 1024], |limit| vec![limit]) {
        under(hard, idle, time);
    }
}
