//! Instances as processes, killed and frozen while clients write and read: nothing that was acknowledged is lost, and one order explains
//! all that was seen. `CROSSDOCK_ROUNDS` makes it long.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossdock_tests::history::{Call, Seen, check};
use crossdock_tests::until;

const INSTANCES: usize = 3;
const CLIENTS: usize = 6;
const LISTS: usize = 2;
/// For an answer; what takes longer may be done or not.
const PATIENCE: Duration = Duration::from_millis(300);

struct Instance {
    command: Vec<String>,
    clients: SocketAddr,
    child: Option<Child>,
}

impl Instance {
    fn start(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_register-node"));
        let child = command.args(&self.command).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.child = Some(child.expect("it starts"));
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn signal(&self, name: &str) {
        if let Some(child) = &self.child {
            let status = Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status();
            assert!(status.is_ok_and(|status| status.success()), "kill -{name}");
        }
    }

    fn role(&self) -> String {
        let answer = Line::open(self.clients).and_then(|mut line| line.ask("0 status").ok());
        answer.unwrap_or_default().strip_prefix("0 ").unwrap_or_default().to_owned()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A connection of a client.
struct Line {
    write: TcpStream,
    read: BufReader<TcpStream>,
}

impl Line {
    fn open(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        Some(Self { write: stream.try_clone().ok()?, read: BufReader::new(stream) })
    }

    fn ask(&mut self, question: &str) -> std::io::Result<String> {
        self.write.write_all(format!("{question}\n").as_bytes())?;
        let mut answer = String::new();
        match self.read.read_line(&mut answer)? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(answer.trim_end().to_owned()),
        }
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

fn leader(instances: &[Instance]) -> usize {
    let mut found = None;
    until("a leader", || {
        found = instances.iter().position(|instance| instance.child.is_some() && instance.role() == "leading");
        found.is_some()
    });
    found.expect("a leader")
}

/// What clients do until they are told to stop.
struct Clients {
    stop: Arc<AtomicBool>,
    calls: Vec<Arc<Mutex<Vec<Call>>>>,
    /// When the last write that began after a fault was acknowledged.
    written: Arc<Mutex<Vec<(Instant, Instant)>>>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Clients {
    fn start(addresses: &[SocketAddr]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let calls: Vec<Arc<Mutex<Vec<Call>>>> = (0..LISTS).map(|_| Arc::default()).collect();
        let written: Arc<Mutex<Vec<(Instant, Instant)>>> = Arc::default();
        let items = Arc::new(AtomicU64::new(0));
        let threads = (0..CLIENTS).map(|client| {
            let (stop, items, written) = (Arc::clone(&stop), Arc::clone(&items), Arc::clone(&written));
            let calls = Arc::clone(&calls[client % LISTS]);
            let addresses = addresses.to_vec();
            std::thread::spawn(move || {
                let mut at = client;
                let mut line = None;
                while !stop.load(Ordering::SeqCst) {
                    let address = addresses[at % addresses.len()];
                    let Some(open) = line.get_or_insert_with(|| Line::open(address)) else {
                        (line, at) = (None, at + 1);
                        std::thread::yield_now();
                        continue;
                    };
                    let number = items.fetch_add(1, Ordering::SeqCst);
                    let list = client % LISTS;
                    let begun = Instant::now();
                    let (seen, good) = if number % 4 == 3 {
                        let answer = open.ask(&format!("{number} read list-{list}"));
                        (read_of(answer.as_deref().unwrap_or_default()), answer.is_ok())
                    } else {
                        let answer = open.ask(&format!("{number} append list-{list} i{number}"));
                        let item = format!("i{number}");
                        let word = answer.as_deref().ok().and_then(|answer| answer.split(' ').nth(1));
                        let seen = match word {
                            Some("done") => Seen::Appended(item),
                            Some("refused") => Seen::NotAppended(item),
                            _ => Seen::MayHaveAppended(item),
                        };
                        (Some(seen), answer.is_ok())
                    };
                    let ended = Instant::now();
                    if matches!(seen, Some(Seen::Appended(_))) {
                        written.lock().expect("writes").push((begun, ended));
                    }
                    let moves = !good || !matches!(seen, Some(Seen::Appended(_) | Seen::Read(_)));
                    if let Some(seen) = seen {
                        calls.lock().expect("calls").push(Call { begun, ended, seen });
                    }
                    if moves {
                        // Another instance may know more.
                        (line, at) = (None, at + 1);
                    }
                }
            })
        });
        let threads = threads.collect();
        Self { stop, calls, written, threads }
    }

    fn writes(&self) -> usize {
        self.written.lock().expect("writes").len()
    }

    /// How long after a moment the first write that began later was acknowledged.
    fn recovered(&self, fault: Instant) -> Option<Duration> {
        let written = self.written.lock().expect("writes");
        written.iter().filter(|(begun, _)| *begun > fault).map(|(_, ended)| *ended - fault).min()
    }
}

fn read_of(answer: &str) -> Option<Seen> {
    let (_, value) = answer.split_once(" value")?;
    Some(Seen::Read(value.trim().split(',').filter(|item| !item.is_empty()).map(str::to_owned).collect()))
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times.get((times.len().saturating_sub(1)) * percent / 100).copied().unwrap_or_default()
}

#[test]
fn nothing_acknowledged_is_lost_whatever_is_killed_or_frozen() {
    let rounds = std::env::var("CROSSDOCK_ROUNDS").map_or(6, |text| text.parse().expect("a number"));
    let folder = tempfile::tempdir().expect("a folder");
    let members: Vec<String> = (1..=INSTANCES).map(|id| format!("{id}={}", free_address())).collect();
    let mut instances: Vec<Instance> = (1..=INSTANCES)
        .map(|id| {
            let (clients, data) = (free_address(), folder.path().join(id.to_string()).display().to_string());
            let command = vec![id.to_string(), data, clients.to_string(), members.join(",")];
            Instance { command, clients, child: None }
        })
        .collect();
    instances.iter_mut().for_each(Instance::start);
    leader(&instances);
    let addresses: Vec<SocketAddr> = instances.iter().map(|instance| instance.clients).collect();
    let clients = Clients::start(&addresses);
    let (mut after_kill, mut after_freeze) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        until("some writes", || clients.writes() >= 150 * (round + 1));
        let leads = leader(&instances);
        let mut down = Vec::new();
        match round % 6 {
            0 | 3 => down.push(leads),
            1 | 4 => instances[leads].signal("STOP"),
            2 => down.push((leads + 1) % INSTANCES),
            _ => down.extend(0..INSTANCES),
        }
        for index in &down {
            instances[*index].kill();
        }
        let fault = Instant::now();
        if down.len() == INSTANCES {
            for index in &down {
                instances[*index].start();
            }
        }
        let mut took = None;
        until("writes to succeed again", || {
            took = clients.recovered(fault);
            took.is_some()
        });
        let took = took.expect("a time");
        match round % 6 {
            0 | 3 => after_kill.push(took),
            1 | 4 => {
                after_freeze.push(took);
                // Longer than every timeout: it wakes as one that thinks that it leads.
                until("another to lead", || {
                    (0..INSTANCES).any(|index| index != leads && instances[index].role() == "leading")
                });
                instances[leads].signal("CONT");
            }
            _ => {}
        }
        if down.len() < INSTANCES {
            for index in down {
                instances[index].start();
            }
        }
        until("all to follow again", || {
            instances.iter().all(|instance| matches!(&*instance.role(), "leading" | "following"))
        });
    }
    clients.stop.store(true, Ordering::SeqCst);
    for thread in clients.threads {
        thread.join().expect("a client");
    }
    let mut all = (0, 0);
    for (list, calls) in clients.calls.iter().enumerate() {
        let calls = calls.lock().expect("calls");
        let mut end = None;
        until("the list to be read", || {
            let answer = Line::open(addresses[0]).and_then(|mut line| line.ask(&format!("1 read list-{list}")).ok());
            end = answer.as_deref().and_then(read_of);
            end.is_some()
        });
        let Some(Seen::Read(items)) = end else { panic!("no list") };
        let acknowledged = calls.iter().filter(|call| matches!(call.seen, Seen::Appended(_))).count();
        all = (all.0 + acknowledged, all.1 + calls.len());
        check(&calls, &items).unwrap_or_else(|problem| panic!("list {list}: {problem}"));
    }
    println!(
        "{rounds} rounds, {} calls, {} writes acknowledged, lost 0; writes again after a killed leader p50 {:?} p99 {:?}, a frozen one p50 {:?} p99 {:?}",
        all.1,
        all.0,
        percentile(&mut after_kill, 50),
        percentile(&mut after_kill, 99),
        percentile(&mut after_freeze, 50),
        percentile(&mut after_freeze, 99),
    );
    assert!(all.0 > 100 * rounds, "hardly anything was written: {}", all.0);
}
