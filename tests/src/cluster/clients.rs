//! Clients that write and read continuously and record what they observe.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::LineClient;
use crate::history::{Call, Outcome, check};
use crate::linearizable::{self, Operation, is_linearizable};
use crate::until_within;

const CLIENTS: usize = 6;
const LISTS: usize = 2;
/// Clients that compare and set one register.
const SETTERS: usize = 3;
/// Time limit for the final read.
const FINAL_READ_TIME: Duration = Duration::from_secs(20);

/// Clients that run until [`Clients::stop_and_verify`].
pub struct Clients {
    addresses: Vec<SocketAddr>,
    stop: Arc<AtomicBool>,
    calls: Vec<Arc<Mutex<Vec<Call>>>>,
    /// Calls of the compare-and-set register.
    register: Arc<Mutex<Vec<linearizable::Call>>>,
    /// Start and acknowledgement of each write.
    written: Arc<Mutex<Vec<(Instant, Instant)>>>,
    threads: Vec<JoinHandle<()>>,
}

/// What all clients observed.
#[derive(Debug)]
pub struct Summary {
    /// Calls on the lists.
    pub calls: usize,
    /// Acknowledged appends; none of them is lost.
    pub acknowledged: usize,
    /// Calls on the register.
    pub register_calls: usize,
    /// Calls that set the register.
    pub set: usize,
}

/// A client of one instance; it moves on to the next instance if that one does not serve it.
struct Caller {
    addresses: Vec<SocketAddr>,
    at: usize,
    line: Option<LineClient>,
}

impl Caller {
    fn line(&mut self) -> Option<&mut LineClient> {
        if self.line.is_none() {
            self.line = LineClient::open(self.addresses[self.at % self.addresses.len()]);
            if self.line.is_none() {
                self.at += 1;
                std::thread::yield_now();
            }
        }
        self.line.as_mut()
    }

    fn move_on(&mut self) {
        (self.line, self.at) = (None, self.at + 1);
    }
}

impl Clients {
    /// Starts clients of the instances at these addresses, in the network namespace of the calling thread.
    #[must_use]
    pub fn start(addresses: &[SocketAddr]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let calls: Vec<Arc<Mutex<Vec<Call>>>> = (0..LISTS).map(|_| Arc::default()).collect();
        let written: Arc<Mutex<Vec<(Instant, Instant)>>> = Arc::default();
        let register: Arc<Mutex<Vec<linearizable::Call>>> = Arc::default();
        let items = Arc::new(AtomicU64::new(0));
        let caller = |at| Caller { addresses: addresses.to_vec(), at, line: None };
        let mut threads = Vec::new();
        for client in 0..CLIENTS {
            let (stop, items, written) = (Arc::clone(&stop), Arc::clone(&items), Arc::clone(&written));
            let (calls, list, caller) = (Arc::clone(&calls[client % LISTS]), client % LISTS, caller(client));
            threads.push(std::thread::spawn(move || append_and_read(caller, list, &stop, &items, &calls, &written)));
        }
        for setter in 0..SETTERS {
            let (stop, items, register) = (Arc::clone(&stop), Arc::clone(&items), Arc::clone(&register));
            let caller = caller(setter);
            threads.push(std::thread::spawn(move || compare_and_set(caller, &stop, &items, &register)));
        }
        Self { addresses: addresses.to_vec(), stop, calls, register, written, threads }
    }

    /// The number of acknowledged writes.
    ///
    /// # Panics
    /// If a client panicked.
    #[must_use]
    pub fn writes(&self) -> usize {
        self.written.lock().expect("writes").len()
    }

    /// The time from `fault` to the first acknowledgement of a write that began after it; `None` if there is none yet.
    ///
    /// # Panics
    /// If a client panicked.
    #[must_use]
    pub fn recovery_time(&self, fault: Instant) -> Option<Duration> {
        let written = self.written.lock().expect("writes");
        written.iter().filter(|(begun, _)| *begun > fault).map(|(_, ended)| *ended - fault).min()
    }

    /// The longest interval without an acknowledged write between two instants.
    ///
    /// # Panics
    /// If a client panicked.
    #[must_use]
    pub fn longest_pause(&self, from: Instant, to: Instant) -> Duration {
        let written = self.written.lock().expect("writes");
        let mut ends: Vec<Instant> = written.iter().map(|(_, ended)| *ended).collect();
        ends.retain(|ended| *ended > from && *ended < to);
        ends.extend([from, to]);
        ends.sort_unstable();
        ends.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// Stops the clients and verifies their histories: no acknowledged write is lost, and each history is linearizable.
    ///
    /// # Panics
    /// If one of these does not hold.
    #[must_use]
    pub fn stop_and_verify(self) -> Summary {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().expect("a client");
        }
        let mut summary = Summary { calls: 0, acknowledged: 0, register_calls: 0, set: 0 };
        for (list, calls) in self.calls.iter().enumerate() {
            let calls = calls.lock().expect("calls");
            let mut end = None;
            until_within(FINAL_READ_TIME, "the list to be read", || {
                let line = LineClient::open(self.addresses[0]);
                let answer = line.and_then(|mut line| line.request(&format!("1 read list-{list}")).ok());
                end = answer.as_deref().and_then(parse_read);
                end.is_some()
            });
            let Some(Outcome::Read(items)) = end else { panic!("no list") };
            summary.acknowledged += calls.iter().filter(|call| matches!(call.outcome, Outcome::Appended(_))).count();
            summary.calls += calls.len();
            check(&calls, &items).unwrap_or_else(|problem| panic!("list {list}: {problem}"));
        }
        let register = self.register.lock().expect("calls");
        summary.register_calls = register.len();
        summary.set = register.iter().filter(|call| call.outcome == linearizable::Outcome::Set(true)).count();
        assert!(is_linearizable(&register), "the history of the register is not linearizable");
        summary
    }
}

/// Appends items to a list and reads it.
fn append_and_read(
    mut caller: Caller,
    list: usize,
    stop: &AtomicBool,
    items: &AtomicU64,
    calls: &Mutex<Vec<Call>>,
    written: &Mutex<Vec<(Instant, Instant)>>,
) {
    while !stop.load(Ordering::SeqCst) {
        let Some(line) = caller.line() else { continue };
        let number = items.fetch_add(1, Ordering::SeqCst);
        let begun = Instant::now();
        let (outcome, is_connected) = if number % 4 == 3 {
            let answer = line.request(&format!("{number} read list-{list}"));
            (parse_read(answer.as_deref().unwrap_or_default()), answer.is_ok())
        } else {
            let answer = line.request(&format!("{number} append list-{list} i{number}"));
            let item = format!("i{number}");
            let word = answer.as_deref().ok().and_then(|answer| answer.split(' ').nth(1));
            let outcome = match word {
                Some("done") => Outcome::Appended(item),
                Some("refused" | "not-done") => Outcome::NotAppended(item),
                _ => Outcome::MayHaveAppended(item),
            };
            (Some(outcome), answer.is_ok())
        };
        let ended = Instant::now();
        if matches!(outcome, Some(Outcome::Appended(_))) {
            written.lock().expect("writes").push((begun, ended));
        }
        let is_served = is_connected && matches!(outcome, Some(Outcome::Appended(_) | Outcome::Read(_)));
        if let Some(outcome) = outcome {
            calls.lock().expect("calls").push(Call { begun, ended, outcome });
        }
        if !is_served {
            // Another instance may have a leader.
            caller.move_on();
        }
    }
}

/// Reads a register and sets it to a new value if it still has the value last read.
fn compare_and_set(
    mut caller: Caller,
    stop: &AtomicBool,
    items: &AtomicU64,
    register: &Mutex<Vec<linearizable::Call>>,
) {
    let mut last = None;
    while !stop.load(Ordering::SeqCst) {
        let Some(line) = caller.line() else { continue };
        let number = items.fetch_add(1, Ordering::SeqCst);
        let begun = Instant::now();
        let (operation, outcome) = if number.is_multiple_of(3) {
            let answer = line.request(&format!("{number} read register")).unwrap_or_default();
            let value = answer.split_once(" value").map(|(_, value)| value.trim().parse().ok());
            (Operation::Read, value.map_or(linearizable::Outcome::Unknown, linearizable::Outcome::Value))
        } else {
            let old = last.map_or("-".to_owned(), |last: u64| last.to_string());
            let answer = line.request(&format!("{number} cas register {old} {number}")).unwrap_or_default();
            let outcome = match answer.split(' ').nth(1) {
                Some("done") => linearizable::Outcome::Set(true),
                Some("not-done") => linearizable::Outcome::Set(false),
                // Not executed: nothing was observed.
                Some("refused") => {
                    caller.move_on();
                    continue;
                }
                _ => linearizable::Outcome::Unknown,
            };
            (Operation::CompareAndSet { expected: last, value: number }, outcome)
        };
        match outcome {
            linearizable::Outcome::Value(value) => last = value,
            linearizable::Outcome::Set(true) => last = Some(number),
            linearizable::Outcome::Set(false) => {}
            linearizable::Outcome::Unknown => caller.move_on(),
        }
        if operation != Operation::Read || outcome != linearizable::Outcome::Unknown {
            let call = linearizable::Call { begun, ended: Instant::now(), operation, outcome };
            register.lock().expect("calls").push(call);
        }
    }
}

fn parse_read(answer: &str) -> Option<Outcome> {
    let (_, value) = answer.split_once(" value")?;
    Some(Outcome::Read(value.trim().split(',').filter(|item| !item.is_empty()).map(str::to_owned).collect()))
}
