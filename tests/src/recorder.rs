//! An HTTP service that records the requests it processed and fails as the test specifies.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::http_service::{Received, serve};

/// Maps a request's number and body to a status and a delay.
type Behaviour = dyn Fn(usize, &str) -> (u16, Duration) + Send + Sync;

/// A service on a free port; it runs until the test process exits.
pub struct Recorder {
    /// The address it listens on.
    pub address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    requests: AtomicUsize,
    in_flight: AtomicUsize,
    in_flight_max: AtomicUsize,
    processed: Mutex<Vec<String>>,
}

impl Recorder {
    /// Starts the service. A status below 300 from `behaviour` counts as processed; the response repeats the request body.
    ///
    /// # Panics
    /// If there is no free port.
    #[must_use]
    pub fn start(behaviour: impl Fn(usize, &str) -> (u16, Duration) + Send + Sync + 'static) -> Self {
        let state = Arc::new(State::default());
        let serving = Arc::clone(&state);
        let address = serve(move |received| respond(received, &serving, &behaviour));
        Self { address, state }
    }

    /// The bodies of processed requests in order of completion.
    ///
    /// # Panics
    /// If a thread of the service panicked.
    #[must_use]
    pub fn processed(&self) -> Vec<String> {
        self.state.processed.lock().expect("no panic").clone()
    }

    /// The number of requests received.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// The maximum number of concurrent requests.
    #[must_use]
    pub fn in_flight_max(&self) -> usize {
        self.state.in_flight_max.load(Ordering::SeqCst)
    }
}

fn respond(received: &Received, state: &State, behaviour: &Behaviour) -> (u16, String) {
    let body = String::from_utf8(received.body.clone()).expect("text");
    let number = state.requests.fetch_add(1, Ordering::SeqCst);
    let now = state.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
    state.in_flight_max.fetch_max(now, Ordering::SeqCst);
    let (status, after) = behaviour(number, &body);
    std::thread::park_timeout(after);
    if status < 300 {
        state.processed.lock().expect("no panic").push(body.clone());
    }
    state.in_flight.fetch_sub(1, Ordering::SeqCst);
    (status, body)
}
