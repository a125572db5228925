//! Requests through RabbitMQ and Kafka, if they are reachable. They use gateways of their own, because the shipped settings do not need a broker.

use std::net::ToSocketAddrs as _;
use std::path::PathBuf;
use std::time::Duration;

use super::services::Samples;
use crate::outcome::Failure;
use crossdock_gateway::Gateway;
use crossdock_gateway::adapters;
use crossdock_http::client::{Request, send};

/// Timeout for connecting to the broker.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Timeout for a message to pass through a broker.
const BROKER_TIMEOUT: Duration = Duration::from_secs(20);

/// A kind of broker, and how a gateway uses it.
struct Broker {
    name: &'static str,
    /// The environment variable with its address.
    variable: &'static str,
    /// Its address without that.
    default: Option<&'static str>,
    port: u16,
    service: &'static str,
    settings: &'static str,
    routes: &'static str,
}

const AMQP: Broker = Broker {
    name: "RabbitMQ",
    variable: "CROSSDOCK_BROKER",
    default: Some("amqp://guest:guest@127.0.0.1:5672"),
    port: 5672,
    service: "rabbitmq",
    settings: "version: 1
listeners: { public: { http: { bind: \"127.0.0.1:0\" } }, broker: { amqp: { url: \"${env:CROSSDOCK_BROKER}\" } } }
",
    routes: "version: 1
services:
  queues:
    amqp:
      url: \"${env:CROSSDOCK_BROKER}\"
      operations: { put: { queue: crossdock-demo-orders }, price: { queue: crossdock-demo-prices, reply: true } }
  pricing: { http: { url: \"${env:CROSSDOCK_PRICING}\", operations: { price: { post: /price } } } }
routes:
  accept-order: { from: { http: { listen: public, post: /orders } }, delivery: at-least-once, steps: [ { send: queues.put } ] }
  price-order:
    from: { amqp: { listen: broker, queue: crossdock-demo-orders, declare: create, reject: discard } }
    steps: [ { call: pricing.price } ]
  request-price: { from: { http: { listen: public, post: /prices } }, steps: [ { call: queues.price } ] }
  quote-price:
    from: { amqp: { listen: broker, queue: crossdock-demo-prices, declare: create, reject: discard } }
    steps: [ { call: pricing.price } ]
",
};

const KAFKA: Broker = Broker {
    name: "Kafka",
    variable: "CROSSDOCK_KAFKA",
    default: None,
    port: 9092,
    service: "kafka",
    settings: "version: 1
listeners:
  public: { http: { bind: \"127.0.0.1:0\" } }
  topics: { kafka: { brokers: \"${env:CROSSDOCK_KAFKA}\", group: crossdock-demo, start: latest } }
",
    routes: "version: 1
services:
  topics:
    kafka:
      brokers: \"${env:CROSSDOCK_KAFKA}\"
      replies: { topic: crossdock-demo-quotes, declare: create }
      operations:
        put: { topic: crossdock-demo-orders, declare: create }
        price: { topic: crossdock-demo-prices, declare: create, reply: true }
  pricing: { http: { url: \"${env:CROSSDOCK_PRICING}\", operations: { price: { post: /price } } } }
routes:
  accept-order: { from: { http: { listen: public, post: /orders } }, delivery: at-least-once, steps: [ { send: topics.put } ] }
  price-order:
    from: { kafka: { listen: topics, topic: crossdock-demo-orders, declare: create, reject: discard } }
    steps: [ { call: pricing.price } ]
  request-price: { from: { http: { listen: public, post: /prices } }, steps: [ { call: topics.price } ] }
  quote-price:
    from: { kafka: { listen: topics, topic: crossdock-demo-prices, declare: create, reply_to: [ crossdock-demo-quotes ], reject: discard } }
    steps: [ { call: pricing.price } ]
",
};

/// A temporary folder with the settings, deleted on drop.
struct Folder(PathBuf);

impl Folder {
    fn write(broker: &Broker) -> std::io::Result<Self> {
        let name = format!("crossdock-demo-{}-{}", broker.service, std::process::id());
        let folder = Self(std::env::temp_dir().join(name));
        std::fs::create_dir_all(folder.0.join("routes"))?;
        std::fs::write(folder.0.join("crossdock.yaml"), broker.settings)?;
        std::fs::write(folder.0.join("routes/broker.yaml"), broker.routes)?;
        Ok(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Sends requests through each broker that is reachable; returns how many passed and how many failed.
pub(super) async fn make(samples: &Samples) -> Result<(usize, usize), Failure> {
    let amqp = make_with(&AMQP, samples).await?;
    let kafka = if cfg!(feature = "kafka") { make_with(&KAFKA, samples).await? } else { (0, 0) };
    Ok((amqp.0 + kafka.0, amqp.1 + kafka.1))
}

async fn make_with(broker: &Broker, samples: &Samples) -> Result<(usize, usize), Failure> {
    let Broker { name, variable, default, port, service, .. } = broker;
    let address = std::env::var(variable).ok().or_else(|| default.map(str::to_owned));
    let is_reachable = match &address {
        Some(address) => is_reachable(address, *port).await,
        None => false,
    };
    let Some(address) = address.filter(|_| is_reachable) else {
        println!("\n── requests through {name} are skipped: none is reachable");
        println!(
            "   start one with `tests/services/services up {service}` or `docker compose up`, and set {variable} to its address"
        );
        return Ok((0, 0));
    };
    let failed = |problem: String| Failure::Error(format!("failed to run the demo with {name}: {problem}"));
    let folder = Folder::write(broker).map_err(|error| failed(error.to_string()))?;
    let variables = vec![
        ((*variable).to_owned(), address),
        ("CROSSDOCK_PRICING".to_owned(), format!("http://{}", samples.pricing)),
    ];
    let source = folder.0.clone();
    let started = Gateway::new(adapters()).start_with(move || super::read(&source, &variables)).await;
    let running = started.map_err(|error| failed(error.to_string().trim_end().to_owned()))?;
    let public = running.listener("public").ok_or_else(|| failed("the listener did not start".to_owned()))?.to_owned();
    let results = [report(&request_price(&public, name).await), report(&place_order(&public, samples, name).await)];
    running.stop().await;
    let mut count = (0, 0);
    for is_passed in results {
        *(if is_passed { &mut count.0 } else { &mut count.1 }) += 1;
    }
    Ok(count)
}

/// Prints the result of a request; returns whether it passed.
fn report(result: &Result<(), String>) -> bool {
    match result {
        Ok(()) => println!("   passed"),
        Err(problem) => println!("   FAILED: {problem}"),
    }
    result.is_ok()
}

/// Whether a TCP connection can be made.
async fn is_reachable(address: &str, default_port: u16) -> bool {
    // The first of several brokers.
    let address = address.split(',').next().unwrap_or_default();
    let authority = address.split("://").nth(1).unwrap_or(address).split('/').next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let host = if host.contains(':') { host.to_owned() } else { format!("{host}:{default_port}") };
    let Some(address) = host.to_socket_addrs().ok().and_then(|mut found| found.next()) else { return false };
    matches!(tokio::time::timeout(CONNECT_TIMEOUT, tokio::net::TcpStream::connect(address)).await, Ok(Ok(_)))
}

async fn post(public: &str, target: &str, body: &str) -> Result<(u16, String), String> {
    println!("   request     POST {target} {body}");
    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    let response = send(public, &Request { method: "POST", target, headers, body }).await?;
    println!("   response    {} {}", response.status, response.body);
    Ok((response.status, response.body))
}

async fn request_price(public: &str, broker: &str) -> Result<(), String> {
    println!("\n── a REST request to a service behind {broker}");
    let started = std::time::Instant::now();
    loop {
        let (status, body) = post(public, "/prices", r#"{"basket":[{"sku":"085","quantity":2.50}]}"#).await?;
        if status == 200 {
            let expected = r#"{"quote":18446744073709551615,"basket":[{"sku":"085","quantity":2.50}]}"#;
            return if body == expected { Ok(()) } else { Err(format!("expected the response {expected}")) };
        }
        // The queues or topics may not be declared yet, or not be consumed.
        if !matches!(status, 503 | 504) || started.elapsed() > BROKER_TIMEOUT {
            return Err("expected status 200".to_owned());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn place_order(public: &str, samples: &Samples, broker: &str) -> Result<(), String> {
    println!("\n── an order is accepted with 202 once {broker} has confirmed it; a service receives it from there");
    samples.pricing_seen.take();
    let body = r#"{"basket":[{"sku":"085","quantity":1.10}]}"#;
    let (status, _) = post(public, "/orders", body).await?;
    if status != 202 {
        return Err("expected status 202".to_owned());
    }
    let started = std::time::Instant::now();
    loop {
        if let Some(got) = samples.pricing_seen.take() {
            println!("   translated  {got}");
            return if got == body { Ok(()) } else { Err(format!("expected the service to receive {body}")) };
        }
        if started.elapsed() > BROKER_TIMEOUT {
            return Err("the service did not receive the order in time".to_owned());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
