//! A ledger behind HTTP: a service to which the order of entries of an account matters.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::http_service::{Received, serve};

/// What becomes of a request, by account, number, and how often it was sent before: its status, and how long it takes.
type Behaviour = dyn Fn(&str, u64, usize) -> (u16, Duration) + Send + Sync;

/// `POST /book` of `{"key": account, "n": number}` books a number. It rejects fencing tokens that are lower than the highest of the account with
/// 409. It runs until the test process exits.
pub struct Ledger {
    /// The address it listens on.
    pub address: SocketAddr,
    shared: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    accounts: HashMap<String, Account>,
    rejected: usize,
}

#[derive(Debug, Clone, Default)]
struct Account {
    token: u64,
    /// All numbers that were booked, in their order.
    booked: Vec<u64>,
    /// How often each number was sent.
    attempts: HashMap<u64, usize>,
}

impl Ledger {
    /// Starts it. A status below 300 of `behaviour` books the number.
    ///
    /// # Panics
    /// If there is no free port.
    #[must_use]
    pub fn start(behaviour: impl Fn(&str, u64, usize) -> (u16, Duration) + Send + Sync + 'static) -> Self {
        let shared = Arc::<Mutex<State>>::default();
        let serving = Arc::clone(&shared);
        let address = serve(move |received| book(received, &serving, &behaviour));
        Self { address, shared }
    }

    /// The numbers of an account in the order in which they were booked.
    ///
    /// # Panics
    /// If a thread of the service panicked.
    #[must_use]
    pub fn booked(&self, account: &str) -> Vec<u64> {
        let state = self.shared.lock().expect("no panic");
        state.accounts.get(account).map_or_else(Vec::new, |account| account.booked.clone())
    }

    /// How many requests were rejected because of their token.
    ///
    /// # Panics
    /// As [`Ledger::booked`].
    #[must_use]
    pub fn rejected(&self) -> usize {
        self.shared.lock().expect("no panic").rejected
    }
}

fn book(received: &Received, shared: &Mutex<State>, behaviour: &Behaviour) -> (u16, String) {
    let (body, token) = (received.json(), received.token);
    let key = body["key"].as_str().expect("a key").to_owned();
    let number = body["n"].as_u64().expect("a number");
    let mut state = shared.lock().expect("no panic");
    let account = state.accounts.entry(key.clone()).or_default();
    let attempts = account.attempts.entry(number).or_default();
    let (status, takes) = behaviour(&key, number, *attempts);
    *attempts += 1;
    drop(state);
    std::thread::park_timeout(takes);
    let mut state = shared.lock().expect("no panic");
    let state = &mut *state;
    let account = state.accounts.entry(key).or_default();
    if token < account.token {
        state.rejected += 1;
        return (409, "{}".to_owned());
    }
    account.token = token;
    if status < 300 {
        account.booked.push(number);
    }
    (status, format!("{{\"booked\":{number},\"token\":{token}}}"))
}
