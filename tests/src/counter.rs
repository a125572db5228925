//! A counter behind HTTP, as an old service has one: it is read and written back by whoever counts.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// `GET` returns `{"value": n}`, and `PUT` of the same sets it. It runs until the test process exits.
pub struct Counter {
    /// The address it listens on.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// It rejects a lower fencing token than it has seen.
    checks_tokens: bool,
    /// How long each write takes, in milliseconds.
    write_millis: AtomicU64,
}

#[derive(Default)]
struct State {
    value: u64,
    token: u64,
    rejected: usize,
    /// The token and value of each write that took effect.
    written: Vec<(u64, u64)>,
    /// The next write waits.
    holds: bool,
    /// A write waits until `holds` ends.
    is_held: bool,
}

impl Counter {
    /// Starts it at 0.
    ///
    /// # Panics
    /// If there is no free port.
    #[must_use]
    pub fn start(checks_tokens: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared { checks_tokens, ..Shared::default() });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&serving);
                std::thread::spawn(move || serve(&stream, &shared));
            }
        });
        Self { address, shared }
    }

    /// Its value, and how many writes it has rejected.
    ///
    /// # Panics
    /// If a thread of the service panicked.
    #[must_use]
    pub fn state(&self) -> (u64, usize) {
        let state = self.shared.state.lock().expect("no panic");
        (state.value, state.rejected)
    }

    /// The fencing token and the value of each write that took effect.
    ///
    /// # Panics
    /// As [`Counter::state`].
    #[must_use]
    pub fn written(&self) -> Vec<(u64, u64)> {
        self.shared.state.lock().expect("no panic").written.clone()
    }

    /// Lets each write take so long.
    pub fn slow_down(&self, millis: u64) {
        self.shared.write_millis.store(millis, Ordering::Relaxed);
    }

    /// Lets the next write wait before it takes effect.
    ///
    /// # Panics
    /// As [`Counter::state`].
    pub fn hold_next_write(&self) {
        self.shared.state.lock().expect("no panic").holds = true;
    }

    /// Whether a write waits.
    ///
    /// # Panics
    /// As [`Counter::state`].
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.shared.state.lock().expect("no panic").is_held
    }

    /// Lets the write that waits take effect.
    ///
    /// # Panics
    /// As [`Counter::state`].
    pub fn let_go(&self) {
        self.shared.state.lock().expect("no panic").is_held = false;
        self.shared.changed.notify_all();
    }
}

fn serve(stream: &TcpStream, shared: &Shared) {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut len, mut token, mut is_write) = (0, 0, false);
        let mut line = String::new();
        loop {
            line.clear();
            if !matches!(reader.read_line(&mut line), Ok(1..)) {
                return;
            }
            is_write |= line.starts_with("PUT ");
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                len = value.trim().parse().expect("a length");
            }
            if let Some(value) = lower.strip_prefix("crossdock-fence:") {
                token = value.trim().parse().expect("a token");
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; len];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let written = is_write.then(|| {
            let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            body["value"].as_u64().expect("a value")
        });
        if is_write {
            std::thread::park_timeout(Duration::from_millis(shared.write_millis.load(Ordering::Relaxed)));
        }
        let (status, value) = execute(shared, written, token);
        let body = format!("{{\"value\":{value}}}");
        let head =
            format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        let mut out = stream;
        if out.write_all((head + &body).as_bytes()).is_err() {
            return;
        }
    }
}

fn execute(shared: &Shared, written: Option<u64>, token: u64) -> (u16, u64) {
    let mut state = shared.state.lock().expect("no panic");
    if written.is_some() && std::mem::take(&mut state.holds) {
        state.is_held = true;
        while state.is_held {
            state = shared.changed.wait(state).expect("no panic");
        }
    }
    let Some(written) = written else {
        let value = state.value;
        drop(state);
        // Long enough for another caller to read the same value.
        std::thread::park_timeout(Duration::from_millis(1));
        return (200, value);
    };
    if shared.checks_tokens && token < state.token {
        state.rejected += 1;
        return (409, state.value);
    }
    (state.value, state.token) = (written, token.max(state.token));
    state.written.push((token, written));
    (200, state.value)
}
