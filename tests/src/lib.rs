//! Harness of the end-to-end tests: the gateway as a process, test services, minimal clients, and third-party peers.
//!
//! Tests wait for conditions with [`until`], the only place that polls. Every process is stopped by its own id.

mod backend;
mod caller;
mod certificates;
pub mod cluster;
mod counter;
mod engines;
pub mod frames;
pub mod fuzz;
mod gateway;
pub mod history;
mod http_service;
mod kafka;
mod ledger;
pub mod linearizable;
pub mod mutex_history;
mod name_server;
mod peers;
mod proxy;
mod recorder;
mod registry;
mod routes;
mod services;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub use backend::Backend;
pub use caller::{Connection, Reply, call, call_with, exchange, successful_calls};
pub use certificates::{write_certificates, write_member_certificates};
pub use counter::Counter;
pub use engines::EngineServers;
pub use gateway::{Ending, Gateway, LinkedAddresses, crossdock, repository};
pub use kafka::Kafka;
pub use ledger::Ledger;
pub use name_server::{IPV6, NameServer};
pub use peers::{Peer, abuse, peers, run_peer};
pub use proxy::{Network, Proxy};
pub use recorder::Recorder;
pub use registry::Registry;
pub use routes::routes;
pub use services::RabbitMq;

/// Ports of servers: below those that systems give to outgoing connections, which would take a port before its server starts,
/// or while it restarts.
const PORTS: Range<u16> = 16_000..32_000;

/// A loopback address with a port that is free at the time of the call, and that no other call returns soon.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Processes begin at different ports.
    let first = std::process::id().wrapping_mul(389);
    let count = u32::from(PORTS.end - PORTS.start);
    for _ in PORTS {
        let at = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % count;
        let port = PORTS.start + u16::try_from(at).expect("within the range");
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return listener.local_addr().expect("an address");
        }
    }
    panic!("no port is free");
}

/// Waits for a condition, which `what` describes.
///
/// # Panics
/// If it is not met within ten seconds.
pub fn until(what: &str, holds: impl FnMut() -> bool) {
    until_within(Duration::from_secs(10), what, holds);
}

/// Like [`until`], with a time limit.
///
/// # Panics
/// If the condition is not met in time.
pub fn until_within(time: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < time, "timed out waiting for: {what}");
        // The condition depends on another process, which cannot wake this one.
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
