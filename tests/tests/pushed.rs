//! Routes that are pushed to all instances of a cluster.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossdock_tests::{Gateway, call, crossdock, until};
use serde_json::Value;
use tempfile::TempDir;

const SETTINGS: &str = "version: 1\nlisteners: { public: { http: { bind: \"127.0.0.1:0\" } } }\n";
const PROTO: &str = "syntax = \"proto3\"; package shop; message Order { string id = 1; }\n\
                     service Orders { rpc Get(Order) returns (Order); }\n";

fn version(number: u64) -> String {
    format!(
        "version: 1\nroutes:\n  version:\n    from: {{ http: {{ listen: public, get: /version }} }}\n    steps: [ {{ respond: {{ body: {{ version: \"'{number}'\" }} }} }} ]\n"
    )
}

/// A folder with routes of this version, and a contract.
fn folder(number: u64) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    write(&folder, "crossdock.yaml", SETTINGS);
    write(&folder, "routes/version.yaml", &version(number));
    write(&folder, "routes/typed.yaml", "version: 1\ncontracts: { shop: { proto: contracts/shop.proto } }\n");
    write(&folder, "contracts/shop.proto", PROTO);
    // Neither is pushed.
    write(&folder, "secret.key", "secret");
    write(&folder, "contracts/unused.proto", "nonsense");
    folder
}

fn write(folder: &TempDir, path: &str, content: &str) {
    let path = folder.path().join(path);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    std::fs::write(path, content).expect("a file");
}

fn run(gateway: &Gateway, words: &[&str]) -> Output {
    let mut command = Command::new(crossdock());
    command.arg("routes").args(words).args(["--admin", &gateway.admin()]);
    command.output().expect("it runs")
}

fn push(gateway: &Gateway, folder: &TempDir, more: &[&str]) -> Output {
    let path = folder.path().to_str().expect("a path");
    run(gateway, &[&["push", path], more].concat())
}

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

#[track_caller]
fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// The version that an instance serves.
fn served(gateway: &Gateway) -> Option<u64> {
    let reply = call(&gateway.public(), "GET", "/version", "");
    let body: Value = serde_json::from_str(&reply.body).unwrap_or_default();
    body["version"].as_str().filter(|_| reply.status == 200).and_then(|text| text.parse().ok())
}

fn all_serve(instances: &[Gateway], number: u64) {
    until("all instances to serve the version", || instances.iter().all(|gateway| served(gateway) == Some(number)));
}

#[test]
fn all_instances_serve_what_one_of_them_is_given() {
    let mut instances = Gateway::start_cluster(3, &version(0));
    all_serve(&instances, 0);
    let first = folder(1);
    let shown = succeeded(&push(&instances[0], &first, &["--dry-run"]));
    assert!(
        shown.contains("+++ b/contracts/shop.proto") && !shown.contains("unused") && !shown.contains("secret"),
        "{shown}"
    );
    assert!(shown.contains("--- /dev/null"), "{shown}");
    let pushed = succeeded(&push(&instances[0], &first, &["--comment", "the first one"]));
    assert!(pushed.ends_with("generation 1 is in force\n"), "{pushed}");
    all_serve(&instances, 1);
    let second = folder(2);
    let pushed = succeeded(&push(&instances[1], &second, &[]));
    assert!(pushed.contains("-    steps: [ { respond: { body: { version: \"'1'\" } } } ]"), "{pushed}");
    all_serve(&instances, 2);
    assert!(succeeded(&push(&instances[2], &second, &[])).contains("generation 2, which is in force"));

    // An instance that was away serves them as well, whatever is in its folder.
    let gateway = instances.remove(0);
    gateway.write_routes(&version(99));
    let mut others = instances.iter();
    succeeded(&push(others.next().expect("an instance"), &folder(3), &[]));
    let gateway = gateway.restart();
    assert_eq!(served(&gateway), Some(3), "at once, when it is ready");
    instances.insert(0, gateway);
    all_serve(&instances, 3);

    let rolled_back = succeeded(&run(&instances[2], &["rollback"]));
    assert!(rolled_back.ends_with("generation 4 is in force\n"), "{rolled_back}");
    all_serve(&instances, 2);
    succeeded(&run(&instances[0], &["rollback", "1", "--comment", "back to the first"]));
    all_serve(&instances, 1);
    let history = succeeded(&run(&instances[0], &["history"]));
    assert!(history.contains("5 (in force)") && history.contains("back to the first"), "{history}");
    assert!(history.contains("rollback to generation 2") && history.contains("the first one"), "{history}");
}

#[test]
fn a_generation_that_one_instance_cannot_prepare_changes_nothing() {
    let instances = Gateway::start_cluster(3, &version(0));
    succeeded(&push(&instances[0], &folder(1), &[]));
    all_serve(&instances, 1);
    // This instance has no listener that the routes name.
    let other = folder(2);
    write(
        &other,
        "crossdock.yaml",
        "version: 1\nlisteners: { public: { http: { bind: \"127.0.0.1:0\" } }, inner: { http: { bind: \"127.0.0.1:0\" } } }\n",
    );
    let inner =
        version(2).replace("routes:\n  version:", "routes:\n  inner:").replace("listen: public", "listen: inner");
    write(&other, "routes/inner.yaml", &inner);
    let refused = push(&instances[1], &other, &[]);
    let problem = text(&refused.stderr);
    assert!(!refused.status.success() && problem.contains("generation 2 was rejected"), "{problem}");
    for instance in ["instance 1", "instance 2", "instance 3"] {
        assert!(problem.contains(&format!("{instance}: ")), "{problem}");
    }
    assert!(problem.contains("there is no listener `inner`") && problem.contains("routes/inner.yaml"), "{problem}");
    all_serve(&instances, 1);
    // What does not load is refused before it is sent.
    let broken = folder(3);
    write(&broken, "routes/version.yaml", "version: 1\nroutes: { a: { from: {} } }\n");
    assert!(!push(&instances[0], &broken, &[]).status.success());
    all_serve(&instances, 1);
    let rejected = &instances[0].admin_json("/api/v1/routes/generations")["rejected"];
    assert_eq!(rejected["problems"].as_array().map(Vec::len), Some(3), "{rejected}");
}

/// Routes whose version is in a file of each instance.
fn version_of_file() -> TempDir {
    let folder = folder(0);
    write(&folder, "routes/version.yaml", &version(0).replace("'0'", "'${file:version.txt}'"));
    write(&folder, "version.txt", "7");
    folder
}

#[test]
fn an_instance_that_is_alone_after_a_restart_serves_the_last_routes() {
    let mut instances = Gateway::start_cluster(3, &version(0));
    succeeded(&push(&instances[0], &folder(1), &[]));
    all_serve(&instances, 1);
    let gateway = instances.remove(0);
    drop(instances);
    // Nobody looks after the routes in the folder any more.
    gateway.write_routes("version: 1\nroutes: { version: { from: { nonsense: {} } } }\n");
    let gateway = gateway.restart();
    assert_eq!(served(&gateway), Some(1), "{:#?}", gateway.log());
    let log = gateway.log().join("\n");
    assert!(log.contains("cluster not reachable") && log.contains("they are not used"), "{log}");
}

#[test]
fn a_switch_that_has_failed_is_repeated_and_a_reload_does_not_hide_it() {
    let instances = Gateway::start_cluster(3, &version(0));
    succeeded(&push(&instances[0], &folder(1), &[]));
    all_serve(&instances, 1);
    // Without this instance, which has no file of the next generation.
    instances[2].signal("STOP");
    until("the session to end", || {
        let generations = instances[0].admin_json("/api/v1/routes/generations");
        generations["instances"].as_array().is_some_and(|instances| instances.len() == 2)
    });
    instances[..2].iter().for_each(|instance| instance.write_file("version.txt", b"7"));
    succeeded(&push(&instances[0], &version_of_file(), &[]));
    all_serve(&instances[..2], 7);
    instances[2].signal("CONT");
    until("the switch to fail", || instances[2].log().iter().any(|line| line.contains("reload rejected")));
    assert_eq!(served(&instances[2]), Some(1));
    let last_error = || instances[2].admin_json("/readyz")["last_reload"]["error"].clone();
    assert!(last_error().as_str().is_some_and(|error| error.contains("version.txt")), "{}", last_error());
    // A reload does not take the routes from before.
    instances[2].signal("HUP");
    until("another failure", || instances[2].log().iter().filter(|line| line.contains("reload rejected")).count() > 1);
    assert!(last_error().as_str().is_some_and(|error| error.contains("version.txt")), "{}", last_error());
    instances[2].write_file("version.txt", b"7");
    all_serve(&instances, 7);
}

/// Callers of all instances, while one generation after another is pushed, now and then by two at the same time.
#[test]
fn pushes_under_load_fail_no_call() {
    let rounds: u64 = std::env::var("CROSSDOCK_ROUNDS").map_or(20, |text| text.parse().expect("a number"));
    let instances = Gateway::start_cluster(3, &version(0));
    succeeded(&push(&instances[0], &folder(1), &[]));
    all_serve(&instances, 1);
    let (is_over, calls) = (AtomicBool::new(false), AtomicU64::new(0));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for gateway in &instances {
            scope.spawn(|| {
                let mut last = 1;
                while !is_over.load(Ordering::Relaxed) {
                    let now = served(gateway).expect("a version");
                    assert!(now >= last, "version {now} after {last}");
                    last = now;
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for number in 2..=rounds + 1 {
            let pushed = folder(number);
            let at = usize::try_from(number).expect("small") % 3;
            succeeded(&push(&instances[at], &pushed, &[]));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    all_serve(&instances, rounds + 1);
    let calls = calls.into_inner();
    println!("{rounds} pushes in {:?}, {calls} calls, none failed", begun.elapsed());
    assert!(calls > 100, "only {calls} calls");
    assert!(begun.elapsed() < Duration::from_secs(600), "a push takes too long");
}

/// The figures of all instances are summed, and an instance that does not answer is listed.
#[test]
fn figures_of_routes_are_summed_over_the_instances() {
    let mut instances = Gateway::start_cluster(3, &version(1));
    for (at, gateway) in instances.iter().enumerate() {
        for _ in 0..=at {
            assert_eq!(served(gateway), Some(1));
        }
    }
    let admins: Vec<String> = instances.iter().map(Gateway::admin).collect();
    let show = |more: &[&str]| {
        let mut command = Command::new(crossdock());
        command.args(["routes", "--cluster"]).args(more);
        for admin in &admins {
            command.args(["--admin", admin]);
        }
        succeeded(&command.output().expect("it runs"))
    };
    let summed: Value = serde_json::from_str(&show(&["--json"])).expect("JSON");
    let route = &summed["routes"][0];
    assert_eq!((route["requests"].as_u64(), route["availability"].as_f64()), (Some(6), Some(1.0)), "{summed}");
    assert!(route["latency_ms"]["p99"].as_f64() > Some(0.0), "{summed}");
    drop(instances.remove(0));
    let table = show(&[]);
    assert!(
        table.contains("not counted: ") && table.lines().nth(1).is_some_and(|line| line.contains(" 5 ")),
        "{table}"
    );
}

/// Some instances serve a generation first, until it is withdrawn or put into force on all.
#[test]
fn a_generation_can_be_staged_on_some_instances() {
    let mut instances = Gateway::start_cluster(3, &version(0));
    succeeded(&push(&instances[0], &folder(1), &[]));
    all_serve(&instances, 1);
    let serve = |instances: &[Gateway], expected: [u64; 3]| {
        until("each instance to serve its version", || {
            instances.iter().map(served).eq(expected.iter().copied().map(Some))
        });
    };
    let shown = succeeded(&push(&instances[0], &folder(2), &["--stage", "2"]));
    assert!(shown.contains("is served by instance 2"), "{shown}");
    serve(&instances, [1, 2, 1]);
    let other = push(&instances[0], &folder(3), &[]);
    assert!(!other.status.success() && text(&other.stderr).contains("prepared or staged"), "{}", text(&other.stderr));
    // A restart changes nothing, and more instances can be added.
    let gateway = instances.remove(1);
    instances.insert(1, gateway.restart());
    serve(&instances, [1, 2, 1]);
    succeeded(&push(&instances[0], &folder(2), &["--stage", "2", "--stage", "3"]));
    serve(&instances, [1, 2, 2]);
    let shown = succeeded(&run(&instances[2], &["history"]));
    assert!(shown.contains("is staged on instance 2, instance 3"), "{shown}");
    succeeded(&run(&instances[0], &["withdraw"]));
    all_serve(&instances, 1);
    assert!(!run(&instances[0], &["promote"]).status.success(), "none is staged");
    succeeded(&push(&instances[0], &folder(3), &["--stage", "1"]));
    serve(&instances, [3, 1, 1]);
    succeeded(&run(&instances[1], &["promote"]));
    all_serve(&instances, 3);
    let unknown = push(&instances[0], &folder(4), &["--stage", "9"]);
    assert!(text(&unknown.stderr).contains("there is no `instance 9`"), "{}", text(&unknown.stderr));
    succeeded(&run(&instances[0], &["rollback"]));
    all_serve(&instances, 1);
}

/// A folder is pushed whenever it changes, and what is not valid is not pushed.
#[test]
fn a_folder_can_be_watched() {
    let instances = Gateway::start_cluster(3, &version(0));
    let watched = folder(1);
    let mut command = Command::new(crossdock());
    command.args(["routes", "push", watched.path().to_str().expect("a path"), "--watch"]);
    command.args(["--admin", &instances[0].admin()]).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut watching = command.spawn().expect("it runs");
    all_serve(&instances, 1);
    write(&watched, "routes/version.yaml", "version: 1\nroutes: { version: { from: { nonsense: {} } } }\n");
    let mut problems = BufReader::new(watching.stderr.take().expect("its errors")).lines().map_while(Result::ok);
    assert!(problems.any(|line| line.contains("nonsense")), "the problem is reported");
    all_serve(&instances, 1);
    write(&watched, "routes/version.yaml", &version(2));
    all_serve(&instances, 2);
    watching.kill().expect("it is stopped");
    watching.wait().expect("it ends");
}
