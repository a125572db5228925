//! An HTTP service that records the requests it processed and fails as the test specifies.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

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
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State::default());
        let (shared, behaviour) = (Arc::clone(&state), Arc::new(behaviour) as Arc<Behaviour>);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, behaviour) = (Arc::clone(&shared), Arc::clone(&behaviour));
                std::thread::spawn(move || serve(&stream, &state, &*behaviour));
            }
        });
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

fn serve(stream: &TcpStream, state: &State, behaviour: &Behaviour) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut len = 0;
        let mut line = String::new();
        loop {
            line.clear();
            if !matches!(reader.read_line(&mut line), Ok(1..)) {
                return;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                len = value.trim().parse().expect("a length");
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; len];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let body = String::from_utf8(body).expect("text");
        let number = state.requests.fetch_add(1, Ordering::SeqCst);
        let now = state.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        state.in_flight_max.fetch_max(now, Ordering::SeqCst);
        let (status, after) = behaviour(number, &body);
        std::thread::park_timeout(after);
        if status < 300 {
            state.processed.lock().expect("no panic").push(body.clone());
        }
        state.in_flight.fetch_sub(1, Ordering::SeqCst);
        let head =
            format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        let mut out = stream;
        // In one write, so that delayed acknowledgements add no latency.
        if out.write_all((head + &body).as_bytes()).is_err() {
            return;
        }
    }
}
