//! Calls by way of a broker, where one can be reached: a second gateway with settings of its own, as the shipped ones need none.

use std::net::ToSocketAddrs as _;
use std::path::PathBuf;
use std::time::Duration;

use super::services::Samples;
use crate::client::{Request, send};
use crate::outcome::Failure;
use crossdock_gateway::Gateway;
use crossdock_gateway::adapters;

/// The broker where nothing is said.
const BROKER: &str = "amqp://guest:guest@127.0.0.1:5672";
/// For a broker to answer at all.
const REACH_TIME: Duration = Duration::from_millis(500);
/// For a message to get through a queue.
const QUEUE_TIME: Duration = Duration::from_secs(10);

const SETTINGS: &str = "version: 1
listeners: { public: { http: { bind: \"127.0.0.1:0\" } }, broker: { amqp: { url: \"${env:CROSSDOCK_BROKER}\" } } }
";
const ROUTES: &str = "version: 1
services:
  queues:
    amqp:
      url: \"${env:CROSSDOCK_BROKER}\"
      operations: { put: { queue: crossdock-demo-orders }, price: { queue: crossdock-demo-prices, reply: true } }
  pricing: { http: { url: \"${env:CROSSDOCK_PRICING}\", operations: { price: { post: /price } } } }
routes:
  take: { from: { http: { listen: public, post: /orders } }, delivery: at-least-once, steps: [ { send: queues.put } ] }
  work:
    from: { amqp: { listen: broker, queue: crossdock-demo-orders, declare: create, reject: discard } }
    steps: [ { call: pricing.price } ]
  ask: { from: { http: { listen: public, post: /prices } }, steps: [ { call: queues.price } ] }
  answer:
    from: { amqp: { listen: broker, queue: crossdock-demo-prices, declare: create, reject: discard } }
    steps: [ { call: pricing.price } ]
";

/// A folder with the settings; removed with it.
struct Folder(PathBuf);

impl Folder {
    fn write() -> std::io::Result<Self> {
        let folder = Self(std::env::temp_dir().join(format!("crossdock-demo-{}", std::process::id())));
        std::fs::create_dir_all(folder.0.join("routes"))?;
        std::fs::write(folder.0.join("crossdock.yaml"), SETTINGS)?;
        std::fs::write(folder.0.join("routes/queues.yaml"), ROUTES)?;
        Ok(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Makes calls by way of a broker; says how many were right and how many were not.
pub(super) async fn make(samples: &Samples) -> Result<(usize, usize), Failure> {
    let url = std::env::var("CROSSDOCK_BROKER").unwrap_or_else(|_| BROKER.to_owned());
    if !is_reachable(&url).await {
        println!("\n── calls by way of a queue are left out: no broker of AMQP can be reached");
        println!(
            "   start one with tests/services/services up rabbitmq, or docker compose up, and name it in CROSSDOCK_BROKER"
        );
        return Ok((0, 0));
    }
    let failed = |problem: String| Failure::Misuse(format!("the demo of queues: {problem}"));
    let folder = Folder::write().map_err(|error| failed(error.to_string()))?;
    let variables = vec![
        ("CROSSDOCK_BROKER".to_owned(), url),
        ("CROSSDOCK_PRICING".to_owned(), format!("http://{}", samples.pricing)),
    ];
    let source = folder.0.clone();
    let started = Gateway::new(adapters()).start_with(move || super::read(&source, &variables)).await;
    let running = started.map_err(|error| failed(error.to_string().trim_end().to_owned()))?;
    let public = running.listener("public").ok_or_else(|| failed("nothing listens".to_owned()))?.to_owned();
    let judged = [told(&asked(&public).await), told(&taken(&public, samples).await)];
    running.stop().await;
    let mut count = (0, 0);
    for right in judged {
        *(if right { &mut count.0 } else { &mut count.1 }) += 1;
    }
    Ok(count)
}

/// Says whether a call was right.
fn told(judged: &Result<(), String>) -> bool {
    match judged {
        Ok(()) => println!("   right"),
        Err(problem) => println!("   WRONG: {problem}"),
    }
    judged.is_ok()
}

/// Whether anything listens there.
async fn is_reachable(url: &str) -> bool {
    let authority = url.split("://").nth(1).unwrap_or(url).split('/').next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let host = if host.contains(':') { host.to_owned() } else { format!("{host}:5672") };
    let Some(address) = host.to_socket_addrs().ok().and_then(|mut found| found.next()) else { return false };
    matches!(tokio::time::timeout(REACH_TIME, tokio::net::TcpStream::connect(address)).await, Ok(Ok(_)))
}

async fn post(public: &str, target: &str, body: &str) -> Result<(u16, String), String> {
    println!("   request     POST {target} {body}");
    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    let answer = send(public, &Request { method: "POST", target, headers, body }).await?;
    println!("   answer      {} {}", answer.status, answer.body);
    Ok((answer.status, answer.body))
}

async fn asked(public: &str) -> Result<(), String> {
    println!("\n── a REST call, answered by a service behind a queue");
    let begun = std::time::Instant::now();
    loop {
        let (status, body) = post(public, "/prices", r#"{"basket":[{"sku":"085","quantity":2.50}]}"#).await?;
        if status == 200 {
            let expected = r#"{"quote":18446744073709551615,"basket":[{"sku":"085","quantity":2.50}]}"#;
            return if body == expected { Ok(()) } else { Err(format!("the answer should be {expected}")) };
        }
        // The queues are made while the first call is on its way.
        if status != 503 || begun.elapsed() > QUEUE_TIME {
            return Err("the status should be 200".to_owned());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn taken(public: &str, samples: &Samples) -> Result<(), String> {
    println!("\n── an order is taken in: 202 once the broker has it, and a service gets it from the queue");
    samples.pricing_seen.take();
    let body = r#"{"basket":[{"sku":"085","quantity":1.10}]}"#;
    let (status, _) = post(public, "/orders", body).await?;
    if status != 202 {
        return Err("the status should be 202".to_owned());
    }
    let begun = std::time::Instant::now();
    loop {
        if let Some(got) = samples.pricing_seen.take() {
            println!("   translated  {got}");
            return if got == body { Ok(()) } else { Err(format!("the service should have got {body}")) };
        }
        if begun.elapsed() > QUEUE_TIME {
            return Err("the service never got it".to_owned());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
