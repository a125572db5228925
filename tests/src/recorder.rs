//! A service that notes what it carried out, and fails as a test wants it to.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the service does with a request: its status, after this time.
type Behaviour = dyn Fn(usize, &str) -> (u16, Duration) + Send + Sync;

/// A service on a free port; it ends with the test's process.
pub struct Recorder {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    requests: AtomicUsize,
    in_flight: AtomicUsize,
    in_flight_max: AtomicUsize,
    carried_out: Mutex<Vec<String>>,
}

impl Recorder {
    /// Starts one. `behaviour` gets the number of the request and its body; a status below 300 says that it is carried out, and the
    /// body is the answer.
    ///
    /// # Panics
    /// When there is no free port.
    #[must_use]
    pub fn start(behaviour: impl Fn(usize, &str) -> (u16, Duration) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Seen::default());
        let (shared, behaviour) = (Arc::clone(&seen), Arc::new(behaviour) as Arc<Behaviour>);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, behaviour) = (Arc::clone(&shared), Arc::clone(&behaviour));
                std::thread::spawn(move || serve(&stream, &seen, &*behaviour));
            }
        });
        Self { address, seen }
    }

    /// The bodies of what it carried out, in the order in which that ended.
    ///
    /// # Panics
    /// When a thread of it panicked.
    #[must_use]
    pub fn carried_out(&self) -> Vec<String> {
        self.seen.carried_out.lock().expect("no panic").clone()
    }

    /// Requests that it got.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.seen.requests.load(Ordering::SeqCst)
    }

    /// The most requests that it had at once.
    #[must_use]
    pub fn at_once(&self) -> usize {
        self.seen.in_flight_max.load(Ordering::SeqCst)
    }
}

fn serve(stream: &TcpStream, seen: &Seen, behaviour: &Behaviour) {
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
        let number = seen.requests.fetch_add(1, Ordering::SeqCst);
        let now = seen.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        seen.in_flight_max.fetch_max(now, Ordering::SeqCst);
        let (status, after) = behaviour(number, &body);
        std::thread::park_timeout(after);
        if status < 300 {
            seen.carried_out.lock().expect("no panic").push(body.clone());
        }
        seen.in_flight.fetch_sub(1, Ordering::SeqCst);
        let head =
            format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        let mut out = stream;
        // In one piece, so that nothing waits for an acknowledgement.
        if out.write_all((head + &body).as_bytes()).is_err() {
            return;
        }
    }
}
