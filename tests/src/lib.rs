//! What end-to-end tests share: the gateway as a process, a service that behaves as its path says, and plain callers.
//!
//! Tests wait for conditions, with [`until`] as the one place that polls; every process is ended by its own id.

mod backend;
mod caller;
mod certificates;
pub mod cluster;
pub mod frames;
pub mod fuzz;
mod gateway;
pub mod history;
pub mod linearizable;
mod name_server;
mod peers;
mod proxy;
mod recorder;
mod services;

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

pub use backend::Backend;
pub use caller::{Connection, Reply, call, call_with, exchange, good_calls};
pub use certificates::{write_certificates, write_member_certificates};
pub use gateway::{Ending, Gateway, crossdock, repository};
pub use name_server::{IPV6, NameServer};
pub use peers::{Peer, abuse, judged, peers};
pub use proxy::{Network, Proxy};
pub use recorder::Recorder;
pub use services::RabbitMq;

/// An address of this machine that is free now.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

/// Waits for a condition; panics with `what` when it does not come true in time.
///
/// # Panics
/// When ten seconds have passed.
pub fn until(what: &str, holds: impl FnMut() -> bool) {
    until_within(Duration::from_secs(10), what, holds);
}

/// As [`until`], for what takes longer.
///
/// # Panics
/// When the time has passed.
pub fn until_within(time: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < time, "waited in vain for: {what}");
        // The condition is another process's; it has no way to wake this one.
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
