//! A counter behind HTTP, as an old service has one: it is read and written back by whoever counts.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::http_service::{Received, serve};

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
    /// It rejects a lower fencing token than it has seen, also with a read that has one.
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
        let shared = Arc::new(Shared { checks_tokens, ..Shared::default() });
        let serving = Arc::clone(&shared);
        let address = serve(move |received| respond(&serving, received));
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

fn respond(shared: &Shared, received: &Received) -> (u16, String) {
    let is_write = received.method == "PUT";
    let written = is_write.then(|| received.json()["value"].as_u64().expect("a value"));
    if is_write {
        std::thread::park_timeout(Duration::from_millis(shared.write_millis.load(Ordering::Relaxed)));
    }
    let (status, value) = execute(shared, written, received.token);
    (status, format!("{{\"value\":{value}}}"))
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
        // What a holder has read must not change behind it: a late write of an earlier one is rejected from now on.
        if shared.checks_tokens && token > 0 {
            if token < state.token {
                state.rejected += 1;
                return (409, state.value);
            }
            state.token = token;
        }
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
