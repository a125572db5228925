//! Locks of routes, on the instances of a cluster.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crossdock_tests::{Counter, Gateway, Reply, call, crossdock, routes, until};
use serde_json::Value;

fn cluster(counter: &Counter) -> Vec<Gateway> {
    let instances = Gateway::start_cluster(3, &routes("locks", &[("COUNTER", &counter.address)]));
    // A leader may not be elected yet.
    until("a lock to be granted", || count(&instances[0], "/busy").status == 204);
    instances
}

fn count(gateway: &Gateway, target: &str) -> Reply {
    call(&gateway.public(), "POST", target, "")
}

fn json(reply: &Reply) -> Value {
    serde_json::from_str(&reply.body).unwrap_or_else(|_| panic!("{}: {}", reply.status, reply.body))
}

/// Lets callers of all instances count at the same time; returns the answers.
fn count_everywhere(instances: &[Gateway], target: &str, each: usize) -> Vec<Value> {
    let answers = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for gateway in instances.iter().chain(instances) {
            scope.spawn(|| {
                for _ in 0..each {
                    let reply = count(gateway, target);
                    assert_eq!(reply.status, 200, "{}", reply.body);
                    answers.lock().expect("no panic").push(json(&reply));
                }
            });
        }
    });
    answers.into_inner().expect("no panic")
}

#[test]
fn what_is_done_under_a_lock_is_not_interleaved() {
    const EACH: usize = 20;
    let counter = Counter::start(false);
    let instances = cluster(&counter);
    let mut answers = count_everywhere(&instances, "/locked", EACH);
    assert_eq!(counter.state(), (6 * EACH as u64, 0), "value, and rejected writes");
    answers.sort_by_key(|answer| answer["value"].as_u64());
    let of = |key: &str| answers.iter().map(|answer| answer[key].as_u64().expect(key)).collect::<Vec<_>>();
    assert_eq!(of("value"), (1..=6 * EACH as u64).collect::<Vec<_>>());
    assert!(of("token").windows(2).all(|pair| pair[0] < pair[1]), "tokens rise with the value: {:?}", of("token"));
    // The same without a lock loses updates, or this test would show nothing.
    let before = counter.state().0;
    count_everywhere(&instances, "/unlocked", EACH);
    assert!(counter.state().0 < before + 6 * EACH as u64, "no update was lost without a lock");
}

/// One instance is paused while its write is on its way, until its session has ended; another one counts meanwhile.
fn pause_a_holder(counter: &Counter) -> (u64, usize) {
    let instances = cluster(counter);
    let [paused, other, _] = &instances[..] else { panic!("three instances") };
    assert_eq!(json(&count(paused, "/locked"))["value"], 1);
    counter.hold_next_write();
    std::thread::scope(|scope| {
        let answer = scope.spawn(|| count(paused, "/locked"));
        until("the write to be on its way", || counter.is_held());
        let busy = count(other, "/busy");
        assert_eq!((busy.status, json(&busy)["reason"].as_str()), (503, Some("LOCK_TIMEOUT")), "{}", busy.body);
        paused.signal("STOP");
        let begun = Instant::now();
        assert_eq!(json(&count(other, "/locked"))["value"], 2, "the lock is free after the session");
        let took = begun.elapsed();
        assert!(took > Duration::from_millis(500), "the session ended after {took:?}");
        assert_eq!(json(&count(other, "/locked"))["value"], 3);
        counter.let_go();
        paused.signal("CONT");
        let answer = answer.join().expect("no panic");
        // Whichever of them it notices first.
        let reasons = ["LOCK_LOST", "SERVICE_STATUS"];
        let is_known = json(&answer)["reason"].as_str().is_some_and(|reason| reasons.contains(&reason));
        assert!(answer.status == 409 && is_known, "{} {}", answer.status, answer.body);
    });
    until("the paused instance to have another session", || count(paused, "/busy").status == 204);
    assert_eq!(count(paused, "/locked").status, 200);
    counter.state()
}

#[test]
fn a_service_that_checks_the_token_rejects_a_holder_that_was_paused() {
    let (value, rejected) = pause_a_holder(&Counter::start(true));
    assert_eq!((value, rejected), (4, 1));
}

#[test]
fn a_service_that_does_not_check_the_token_loses_an_update() {
    let (value, rejected) = pause_a_holder(&Counter::start(false));
    // The late write has set it back to 2.
    assert_eq!((value, rejected), (3, 0));
}

#[test]
fn a_caller_that_leaves_does_not_free_the_lock_before_the_call_ends() {
    let counter = Counter::start(true);
    let instances = cluster(&counter);
    counter.hold_next_write();
    let mut caller = TcpStream::connect(instances[0].public()).expect("a connection");
    caller.write_all(b"POST /locked HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").expect("a request");
    until("the write to be on its way", || counter.is_held());
    drop(caller);
    for _ in 0..5 {
        assert_eq!(count(&instances[1], "/busy").status, 503, "the service may still carry it out");
    }
    counter.let_go();
    until("the lock to be free", || count(&instances[1], "/busy").status == 204);
    assert_eq!(counter.state(), (1, 0));
}

#[test]
fn locks_survive_the_loss_of_any_instance() {
    let counter = Counter::start(true);
    let mut instances = cluster(&counter);
    let mut expected = 0;
    for lost in 0..3 {
        let gateway = instances.remove(lost);
        let answered = std::thread::scope(|scope| {
            let counting: Vec<_> = instances
                .iter()
                .map(|gateway| {
                    scope.spawn(|| (0..30).filter(|_| count(gateway, "/locked").status == 200).count() as u64)
                })
                .collect();
            let gateway = gateway.restart();
            let answered: u64 = counting.into_iter().map(|counting| counting.join().expect("no panic")).sum();
            (answered, gateway)
        });
        instances.insert(lost, answered.1);
        expected += answered.0;
    }
    // A call that failed may have counted: its write was sent, and its answer lost.
    let (value, _) = counter.state();
    assert!(value >= expected && expected > 100, "{value} counted, {expected} answered");
}

#[test]
fn names_of_locks_come_from_messages() {
    let instances = Gateway::start_cluster(1, &routes("locks", &[("COUNTER", &"127.0.0.1:9")]));
    let gateway = &instances[0];
    let named = |name: &str| call(&gateway.public(), "POST", "/named", &format!("{{\"name\":\"{name}\"}}"));
    until("a lock to be granted", || named("stock/7").status == 204);
    let long = "x".repeat(256);
    for name in ["", &long] {
        let refused = named(name);
        assert_eq!((refused.status, json(&refused)["reason"].as_str()), (400, Some("LOCK_NAME")), "{}", refused.body);
    }
}

/// Runs a command of `crossdock` on the admin listener of a gateway. Returns its exit code, and what it prints.
fn run(admin: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let output = command(admin, arguments).output().expect("it runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

/// `arguments` up to `--` are those of `crossdock`.
fn command(admin: &str, arguments: &[&str]) -> Command {
    let at = arguments.iter().position(|argument| *argument == "--").unwrap_or(arguments.len());
    let mut command = Command::new(crossdock());
    command.args(&arguments[..at]).args(["--admin", admin]).args(&arguments[at..]);
    command
}

#[test]
fn commands_run_under_locks_and_operators_see_them() {
    let instances = Gateway::start_cluster(1, &routes("locks", &[("COUNTER", &"127.0.0.1:9")]));
    let gateway = &instances[0];
    until("a lock to be granted", || count(gateway, "/busy").status == 204);
    let admin = gateway.admin();
    let (code, output) = run(&admin, &["lock", "nightly", "--", "sh", "-c", "echo $CROSSDOCK_LOCK_TOKEN; exit 7"]);
    assert!(code == Some(7) && output.trim().parse::<u64>().is_ok(), "{code:?} {output}");

    let mut holder =
        command(&admin, &["lock", "counter", "--", "sleep", "60"]).stderr(Stdio::piped()).spawn().expect("it runs");
    let mut listed = String::new();
    until("the lock to be listed", || {
        listed = run(&admin, &["locks", "list", "count"]).1;
        listed.contains("of sleep")
    });
    assert!(listed.contains("counter") && listed.contains("instance 1") && listed.contains("exclusive"), "{listed}");
    assert!(!run(&admin, &["locks", "list", "other"]).1.contains("counter"));
    assert!(run(&admin, &["locks", "sessions"]).1.contains("instance 1"));
    assert_eq!(count(gateway, "/busy").status, 503, "routes and commands share locks");
    assert_eq!(run(&admin, &["lock", "counter", "--", "true"]).0, Some(1), "it does not wait");

    assert!(run(&admin, &["locks", "revoke", "counter", "--reason", "please"]).1.contains("1 holders asked"));
    assert!(run(&admin, &["locks", "break", "counter", "--reason", "by hand"]).1.contains("1 holders lost it"));
    let ended = holder.wait().expect("it ends");
    let mut output = String::new();
    holder.stderr.take().expect("its output").read_to_string(&mut output).expect("text");
    assert!(ended.code() == Some(1) && output.contains("by hand"), "{ended} {output}");
    assert!(run(&admin, &["locks", "list"]).1.contains("by hand"), "it stays known");
    assert_eq!(run(&admin, &["lock", "counter", "--wait", "5", "--", "true"]).0, Some(0));

    let metrics = call(&admin, "GET", "/metrics", "").body;
    assert!(metrics.contains("crossdock_cluster_session_open 1"), "{metrics}");
    let refused = call(&admin, "POST", "/api/v1/locks", "{\"break\":\"counter\"}");
    assert_eq!(refused.status, 400, "{}", refused.body);
}

#[test]
fn routes_with_locks_are_tested_and_checked() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("a file");
    let settings = "version: 1\nlisteners: { public: { http: { bind: \"127.0.0.1:0\" } } }\n";
    std::fs::create_dir(folder.path().join("routes")).expect("a folder");
    write("routes/r.yaml", include_str!("../routes/locks-tested.yaml"));
    let run = |command: &str| {
        let output = Command::new(crossdock()).arg(command).arg(folder.path()).output().expect("it runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    };
    write("crossdock.yaml", settings);
    let (is_valid, output) = run("check");
    assert!(!is_valid && output.contains("`lock` needs a cluster") && output.contains("add `cluster: {}`"), "{output}");
    write("crossdock.yaml", &format!("{settings}cluster: {{}}\n"));
    let (is_success, output) = run("test");
    assert!(is_success && output.contains("2 passed, 0 failed"), "{output}");
    assert!(!folder.path().join("data").exists(), "the log of the instance is not touched");
    // Neither is an engine: nothing listens at this address.
    write("crossdock.yaml", &format!("{settings}coordination: {{ engine: etcd, endpoints: [ \"127.0.0.1:1\" ] }}\n"));
    let (is_success, output) = run("test");
    assert!(is_success && output.contains("2 passed, 0 failed"), "{output}");
}

#[test]
fn numbers_of_a_sequence_are_given_once_over_all_instances() {
    const EACH: usize = 30;
    let counter = Counter::start(false);
    let instances = cluster(&counter);
    let answers = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for gateway in instances.iter().chain(&instances) {
            scope.spawn(|| {
                for _ in 0..EACH {
                    let reply = call(&gateway.public(), "POST", "/numbers", "{\"shop\":\"a\"}");
                    assert_eq!(reply.status, 200, "{}", reply.body);
                    answers.lock().expect("no panic").push(json(&reply));
                }
            });
        }
    });
    let answers = answers.into_inner().expect("no panic");
    let mut orders: Vec<_> = answers.iter().map(|answer| answer["order"].as_u64().expect("a number")).collect();
    let mut lines = Vec::new();
    for answer in &answers {
        let numbers = answer["lines"].as_array().expect("a list").iter();
        let numbers: Vec<_> = numbers.map(|number| number.as_u64().expect("a number")).collect();
        assert!(numbers.len() == 3 && numbers.is_sorted(), "{answer}");
        lines.extend(numbers);
    }
    for numbers in [&mut orders, &mut lines] {
        let count = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), count, "a number was given twice");
    }
    assert_eq!((orders[0], lines[0]), (1, 1), "a sequence begins with 1");
}

#[test]
fn the_sequences_of_an_evaluation_are_limited() {
    let counter = Counter::start(false);
    let instances = cluster(&counter);
    let request = |count: usize| {
        let names: Vec<_> = (0..count).map(|name| name.to_string()).collect();
        call(&instances[0].public(), "POST", "/sequences", &serde_json::json!({ "names": names }).to_string())
    };
    let reply = request(16);
    assert_eq!((reply.status, json(&reply)["numbers"].as_array().map(Vec::len)), (200, Some(16)), "{}", reply.body);
    let reply = request(17);
    assert!(reply.status == 429 && reply.body.contains("more than 16 sequences"), "{} {}", reply.status, reply.body);
}
