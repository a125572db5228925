//! Clients that write and read all the time, and note what they see.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Line;
use crate::history::{Call, Seen, check};
use crate::linearizable::{self, Asked, Told, is_linearizable};
use crate::until_within;

const CLIENTS: usize = 6;
const LISTS: usize = 2;
/// Those who compare and set one register.
const SETTERS: usize = 3;
/// For a read of what is there in the end.
const READING: Duration = Duration::from_secs(20);

/// What clients do until they are told to stop.
pub struct Clients {
    addresses: Vec<SocketAddr>,
    stop: Arc<AtomicBool>,
    calls: Vec<Arc<Mutex<Vec<Call>>>>,
    /// Of a register that is compared and set.
    register: Arc<Mutex<Vec<linearizable::Call>>>,
    /// When each write began and was acknowledged.
    written: Arc<Mutex<Vec<(Instant, Instant)>>>,
    threads: Vec<JoinHandle<()>>,
}

/// What all of them saw.
#[derive(Debug)]
pub struct Judged {
    /// Calls of lists.
    pub calls: usize,
    /// Items whose append was acknowledged; none of them is lost.
    pub acknowledged: usize,
    /// Calls of the register.
    pub register_calls: usize,
    /// Those that set it.
    pub set: usize,
}

/// One client of an instance; it goes to the next where that one does not serve it.
struct Caller {
    addresses: Vec<SocketAddr>,
    at: usize,
    line: Option<Line>,
}

impl Caller {
    fn line(&mut self) -> Option<&mut Line> {
        if self.line.is_none() {
            self.line = Line::open(self.addresses[self.at % self.addresses.len()]);
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
    /// Clients of the instances at these addresses. They run in the network namespace of the caller.
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

    /// How many writes were acknowledged.
    ///
    /// # Panics
    /// When a client panicked.
    #[must_use]
    pub fn writes(&self) -> usize {
        self.written.lock().expect("writes").len()
    }

    /// How long after a moment the first write that began later was acknowledged.
    ///
    /// # Panics
    /// When a client panicked.
    #[must_use]
    pub fn recovered(&self, fault: Instant) -> Option<Duration> {
        let written = self.written.lock().expect("writes");
        written.iter().filter(|(begun, _)| *begun > fault).map(|(_, ended)| *ended - fault).min()
    }

    /// The longest time between two moments in which no write was acknowledged.
    ///
    /// # Panics
    /// When a client panicked.
    #[must_use]
    pub fn longest_pause(&self, from: Instant, to: Instant) -> Duration {
        let written = self.written.lock().expect("writes");
        let mut ends: Vec<Instant> = written.iter().map(|(_, ended)| *ended).collect();
        ends.retain(|ended| *ended > from && *ended < to);
        ends.extend([from, to]);
        ends.sort_unstable();
        ends.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// Stops them, and judges what they saw: nothing that was acknowledged is lost, and one order explains all of it.
    ///
    /// # Panics
    /// When that is not so.
    #[must_use]
    pub fn judge(self) -> Judged {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().expect("a client");
        }
        let mut judged = Judged { calls: 0, acknowledged: 0, register_calls: 0, set: 0 };
        for (list, calls) in self.calls.iter().enumerate() {
            let calls = calls.lock().expect("calls");
            let mut end = None;
            until_within(READING, "the list to be read", || {
                let line = Line::open(self.addresses[0]);
                let answer = line.and_then(|mut line| line.ask(&format!("1 read list-{list}")).ok());
                end = answer.as_deref().and_then(read_of);
                end.is_some()
            });
            let Some(Seen::Read(items)) = end else { panic!("no list") };
            judged.acknowledged += calls.iter().filter(|call| matches!(call.seen, Seen::Appended(_))).count();
            judged.calls += calls.len();
            check(&calls, &items).unwrap_or_else(|problem| panic!("list {list}: {problem}"));
        }
        let register = self.register.lock().expect("calls");
        judged.register_calls = register.len();
        judged.set = register.iter().filter(|call| call.told == Told::Set(true)).count();
        assert!(is_linearizable(&register), "no order explains what was seen of the register");
        judged
    }
}

/// Appends items to a list, and reads it.
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
        let (seen, good) = if number % 4 == 3 {
            let answer = line.ask(&format!("{number} read list-{list}"));
            (read_of(answer.as_deref().unwrap_or_default()), answer.is_ok())
        } else {
            let answer = line.ask(&format!("{number} append list-{list} i{number}"));
            let item = format!("i{number}");
            let word = answer.as_deref().ok().and_then(|answer| answer.split(' ').nth(1));
            let seen = match word {
                Some("done") => Seen::Appended(item),
                Some("refused" | "not-done") => Seen::NotAppended(item),
                _ => Seen::MayHaveAppended(item),
            };
            (Some(seen), answer.is_ok())
        };
        let ended = Instant::now();
        if matches!(seen, Some(Seen::Appended(_))) {
            written.lock().expect("writes").push((begun, ended));
        }
        let stays = good && matches!(seen, Some(Seen::Appended(_) | Seen::Read(_)));
        if let Some(seen) = seen {
            calls.lock().expect("calls").push(Call { begun, ended, seen });
        }
        if !stays {
            // Another instance may know more.
            caller.move_on();
        }
    }
}

/// Reads a register, and sets it to something new where it still is what was read.
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
        let (asked, told) = if number.is_multiple_of(3) {
            let answer = line.ask(&format!("{number} read register")).unwrap_or_default();
            let value = answer.split_once(" value").map(|(_, value)| value.trim().parse().ok());
            (Asked::Read, value.map_or(Told::Unknown, Told::Value))
        } else {
            let old = last.map_or("-".to_owned(), |last: u64| last.to_string());
            let answer = line.ask(&format!("{number} cas register {old} {number}")).unwrap_or_default();
            let told = match answer.split(' ').nth(1) {
                Some("done") => Told::Set(true),
                Some("not-done") => Told::Set(false),
                // It was not carried out: nothing was seen.
                Some("refused") => {
                    caller.move_on();
                    continue;
                }
                _ => Told::Unknown,
            };
            (Asked::CompareAndSet { expected: last, value: number }, told)
        };
        match told {
            Told::Value(value) => last = value,
            Told::Set(true) => last = Some(number),
            Told::Set(false) => {}
            Told::Unknown => caller.move_on(),
        }
        if asked != Asked::Read || told != Told::Unknown {
            register.lock().expect("calls").push(linearizable::Call { begun, ended: Instant::now(), asked, told });
        }
    }
}

fn read_of(answer: &str) -> Option<Seen> {
    let (_, value) = answer.split_once(" value")?;
    Some(Seen::Read(value.trim().split(',').filter(|item| !item.is_empty()).map(str::to_owned).collect()))
}
