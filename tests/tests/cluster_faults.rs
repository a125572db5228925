//! Instances as processes, killed, frozen and cut off while clients write and read: nothing that was acknowledged is lost, and one order explains
//! all that was seen. `CROSSDOCK_ROUNDS` makes it long.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossdock_tests::history::{Call, Seen, check};
use crossdock_tests::linearizable::{self, Asked, Told, is_linearizable};
use crossdock_tests::{Network, Proxy, free_address, until};

const INSTANCES: usize = 3;
const CLIENTS: usize = 6;
const LISTS: usize = 2;
/// Those who compare and set one register.
const SETTERS: usize = 3;
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

/// What is done to the instances in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    KillLeader,
    FreezeLeader,
    KillFollower,
    /// No message reaches or leaves the leader.
    CutLeader,
    /// The leader hears all, and nobody hears it.
    MuteLeader,
    /// All hear the leader, and it hears nobody.
    DeafLeader,
    /// The leader and one follower do not hear one another.
    CutPair,
    KillAll,
}

const FAULTS: [Fault; 8] = [
    Fault::KillLeader,
    Fault::FreezeLeader,
    Fault::KillFollower,
    Fault::CutLeader,
    Fault::MuteLeader,
    Fault::DeafLeader,
    Fault::CutPair,
    Fault::KillAll,
];

/// The network between each two instances: the one with the higher number dials the other.
struct Between(Vec<(usize, usize, Proxy)>);

impl Between {
    fn start(addresses: &[SocketAddr]) -> Self {
        let pairs = (0..addresses.len()).flat_map(|low| (low + 1..addresses.len()).map(move |high| (low, high)));
        Self(pairs.map(|(low, high)| (low, high, Proxy::start(addresses[low]))).collect())
    }

    /// Where an instance finds another.
    fn address(&self, of: usize, seen_by: usize, real: SocketAddr) -> SocketAddr {
        let proxy = self.0.iter().find(|(low, high, _)| (*low, *high) == (of, seen_by));
        proxy.map_or(real, |(_, _, proxy)| proxy.address)
    }

    fn set(&self, leader: usize, fault: Fault) {
        for (low, high, proxy) in &self.0 {
            if *low != leader && *high != leader {
                continue;
            }
            let is_server = *low == leader;
            proxy.set(match fault {
                Fault::CutLeader => Network::Cut,
                // What the leader says goes back where it was dialled, and forth where it dialled.
                Fault::MuteLeader if is_server => Network::CutBack,
                Fault::DeafLeader if !is_server => Network::CutBack,
                Fault::MuteLeader | Fault::DeafLeader => Network::CutForth,
                _ => Network::Cut,
            });
            if fault == Fault::CutPair {
                return;
            }
        }
    }

    fn heal(&self) {
        self.0.iter().for_each(|(_, _, proxy)| proxy.set(Network::Whole));
    }
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
    /// Of a register that is compared and set.
    register: Arc<Mutex<Vec<linearizable::Call>>>,
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
                            Some("refused" | "not-done") => Seen::NotAppended(item),
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
        let mut threads: Vec<_> = threads.collect();
        let register: Arc<Mutex<Vec<linearizable::Call>>> = Arc::default();
        for setter in 0..SETTERS {
            let (stop, items, register) = (Arc::clone(&stop), Arc::clone(&items), Arc::clone(&register));
            let addresses = addresses.to_vec();
            threads.push(std::thread::spawn(move || compare_and_set(setter, &addresses, &stop, &items, &register)));
        }
        Self { stop, calls, register, written, threads }
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

/// Reads a register, and sets it to something new where it still is what was read.
fn compare_and_set(
    setter: usize,
    addresses: &[SocketAddr],
    stop: &AtomicBool,
    items: &AtomicU64,
    register: &Mutex<Vec<linearizable::Call>>,
) {
    let (mut at, mut line, mut last) = (setter, None, None);
    while !stop.load(Ordering::SeqCst) {
        let Some(open) = line.get_or_insert_with(|| Line::open(addresses[at % addresses.len()])) else {
            (line, at) = (None, at + 1);
            std::thread::yield_now();
            continue;
        };
        let number = items.fetch_add(1, Ordering::SeqCst);
        let begun = Instant::now();
        let (asked, told) = if number.is_multiple_of(3) {
            let answer = open.ask(&format!("{number} read register")).unwrap_or_default();
            let value = answer.split_once(" value").map(|(_, value)| value.trim().parse().ok());
            (Asked::Read, value.map_or(Told::Unknown, Told::Value))
        } else {
            let old = last.map_or("-".to_owned(), |last: u64| last.to_string());
            let answer = open.ask(&format!("{number} cas register {old} {number}")).unwrap_or_default();
            let told = match answer.split(' ').nth(1) {
                Some("done") => Told::Set(true),
                Some("not-done") => Told::Set(false),
                // It was not carried out: nothing was seen.
                Some("refused") => {
                    (line, at) = (None, at + 1);
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
            Told::Unknown => (line, at) = (None, at + 1),
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

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times.get((times.len().saturating_sub(1)) * percent / 100).copied().unwrap_or_default()
}

/// Instances with their data in a folder, and the network between them.
fn instances_in(folder: &Path) -> (Vec<Instance>, Between) {
    let real: Vec<SocketAddr> = (0..INSTANCES).map(|_| free_address()).collect();
    let network = Between::start(&real);
    let instances = (0..INSTANCES).map(|index| {
        let seen = |of: usize| format!("{}={}", of + 1, network.address(of, index, real[of]));
        let members: Vec<String> = (0..INSTANCES).map(seen).collect();
        let (clients, data) = (free_address(), folder.join((index + 1).to_string()).display().to_string());
        let command = vec![(index + 1).to_string(), data, clients.to_string(), members.join(",")];
        Instance { command, clients, child: None }
    });
    (instances.collect(), network)
}

/// Appends items until so many are known to be there; gives them.
fn append_some(address: SocketAddr, list: &str, count: usize, size: usize) -> Vec<String> {
    let mut line = None;
    let mut done = Vec::new();
    until("some writes", || {
        while done.len() < count {
            let Some(open) = line.get_or_insert_with(|| Line::open(address)) else {
                line = None;
                return false;
            };
            let item = format!("{list}-{}-{}", done.len(), "x".repeat(size));
            match open.ask(&format!("0 append {list} {item}")) {
                Ok(answer) if answer == "0 done" => done.push(item),
                _ => {
                    line = None;
                    return false;
                }
            }
        }
        true
    });
    done
}

#[test]
fn an_instance_whose_log_is_damaged_stops_and_says_where() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut instances, _network) = instances_in(folder.path());
    instances.iter_mut().for_each(Instance::start);
    let leads = leader(&instances);
    append_some(instances[leads].clients, "before", 20, 200);
    let follower = (leads + 1) % INSTANCES;
    until("the follower to follow", || instances[follower].role() == "following");
    instances[follower].kill();
    let log = Path::new(&instances[follower].command[1]).join("log-0000000000000001");
    let mut bytes = std::fs::read(&log).expect("a log");
    bytes[5000] ^= 1;
    std::fs::write(&log, bytes).expect("a log");
    let output = Command::new(env!("CARGO_BIN_EXE_register-node")).args(&instances[follower].command).output();
    let output = output.expect("it runs");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && told.contains("Damaged") && told.contains("log-0000000000000001"), "{told}");
    // The others go on.
    append_some(instances[leads].clients, "after", 20, 200);
}

#[test]
fn an_instance_whose_disk_is_full_ends_its_part_and_the_others_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut instances, _network) = instances_in(folder.path());
    for instance in &mut instances {
        // What cannot be written is an error then, not the end of the process.
        let program = env!("CARGO_BIN_EXE_register-node");
        let mut command = Command::new("bash");
        command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", program]).args(&instance.command);
        instance.child = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts"));
    }
    let leads = leader(&instances);
    let full = (leads + 1) % INSTANCES;
    append_some(instances[leads].clients, "list", 10, 200);
    until("it to follow", || instances[full].role() == "following");
    // From here on it can make no segment.
    let process = instances[full].child.as_ref().expect("it runs").id().to_string();
    let limited = Command::new("prlimit").args(["--pid", &process, "--fsize=100000"]).status();
    assert!(limited.is_ok_and(|status| status.success()), "prlimit");
    append_some(instances[leads].clients, "list", 150, 20_000);
    until("it to end its part", || instances[full].role() == "looking");
    append_some(instances[leads].clients, "list", 20, 200);
    assert_eq!(
        instances[full].role(),
        "looking",
        "what is durable there is not known: it does not come back by itself"
    );
    // With room again, and started anew, it does.
    instances[full].kill();
    instances[full].start();
    until("it to follow again", || instances[full].role() == "following");
}

#[test]
fn nothing_acknowledged_is_lost_whatever_is_killed_or_frozen() {
    let rounds = std::env::var("CROSSDOCK_ROUNDS").map_or(FAULTS.len(), |text| text.parse().expect("a number"));
    let folder = tempfile::tempdir().expect("a folder");
    let (mut instances, network) = instances_in(folder.path());
    instances.iter_mut().for_each(Instance::start);
    leader(&instances);
    let addresses: Vec<SocketAddr> = instances.iter().map(|instance| instance.clients).collect();
    let clients = Clients::start(&addresses);
    let (mut after_kill, mut after_freeze, mut after_cut) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        until("some writes", || clients.writes() >= 150 * (round + 1));
        let leads = leader(&instances);
        let fault = FAULTS[round % FAULTS.len()];
        let down: Vec<usize> = match fault {
            Fault::KillLeader => vec![leads],
            Fault::KillFollower => vec![(leads + 1) % INSTANCES],
            Fault::KillAll => (0..INSTANCES).collect(),
            Fault::FreezeLeader => {
                instances[leads].signal("STOP");
                Vec::new()
            }
            Fault::CutLeader | Fault::MuteLeader | Fault::DeafLeader | Fault::CutPair => {
                network.set(leads, fault);
                Vec::new()
            }
        };
        for index in &down {
            instances[*index].kill();
        }
        let begun = Instant::now();
        if fault == Fault::KillAll {
            instances.iter_mut().for_each(Instance::start);
        }
        let mut took = None;
        until("writes to succeed again", || {
            took = clients.recovered(begun);
            took.is_some()
        });
        let took = took.expect("a time");
        match fault {
            Fault::KillLeader => after_kill.push(took),
            Fault::FreezeLeader => after_freeze.push(took),
            Fault::CutLeader | Fault::MuteLeader | Fault::DeafLeader => after_cut.push(took),
            Fault::KillFollower | Fault::CutPair | Fault::KillAll => {}
        }
        if matches!(fault, Fault::FreezeLeader | Fault::CutLeader | Fault::MuteLeader | Fault::DeafLeader) {
            // Longer than every timeout: it comes back as one that thinks that it leads.
            until("another to lead", || {
                (0..INSTANCES).any(|index| index != leads && instances[index].role() == "leading")
            });
        }
        if fault == Fault::FreezeLeader {
            instances[leads].signal("CONT");
        }
        network.heal();
        if fault != Fault::KillAll {
            for index in down {
                instances[index].start();
            }
        }
        until("all to follow again", || {
            // One that led before may take a moment to learn that it does not any more.
            let roles: Vec<String> = instances.iter().map(Instance::role).collect();
            let of = |role: &str| roles.iter().filter(|other| *other == role).count();
            of("leading") == 1 && of("following") == INSTANCES - 1
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
    let register = clients.register.lock().expect("calls");
    let set = register.iter().filter(|call| call.told == Told::Set(true)).count();
    assert!(is_linearizable(&register), "no order explains what was seen of the register");
    println!("{} calls of a register, of which {set} set it: one order explains them", register.len());
    assert!(set > 10, "{set} of {} calls set the register", register.len());
    println!("{rounds} rounds, {} calls, {} writes acknowledged, lost 0; until writes succeed again:", all.1, all.0);
    for (what, times) in
        [("killed", &mut after_kill), ("frozen", &mut after_freeze), ("cut off, mute or deaf", &mut after_cut)]
    {
        let (middle, most) = (percentile(times, 50), percentile(times, 99));
        println!("leader {what}: {} times, p50 {middle:?}, p99 {most:?}", times.len());
    }
    assert!(all.0 > 100 * rounds, "hardly anything was written: {}", all.0);
}
