//! The API of a cluster, over HTTP and gRPC, with the Rust client and a generated one in Python.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crossdock_client::{Client, LockOptions, Message, Options};
use crossdock_tests::{
    Connection, Gateway, Recorder, Reply, call, crossdock, peers, repository, routes, until, until_within,
    write_certificates,
};
use serde_json::{Value, json};

/// A token, and its digest.
fn new_token() -> (String, String) {
    let output = Command::new(crossdock()).arg("token").output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let word = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).expect(name).trim().to_owned();
    (word("token:"), word("digest:"))
}

/// A file of clients with one that may do everything, and one that may do little.
struct Clients {
    all: String,
    little: String,
    file: String,
}

impl Clients {
    fn new() -> Self {
        let ((all, all_digest), (little, little_digest)) = (new_token(), new_token());
        let everything = "[ locks, sequences, enqueue, consume, state, operate ]";
        let file = format!(
            "version: 1\nclients:\n  all: {{ token: \"{all_digest}\", scopes: {everything} }}\n  \
             little: {{ token: \"{little_digest}\", scopes: [ \"locks:stock/\", \"enqueue:orders\" ] }}\n"
        );
        Self { all, little, file }
    }
}

fn cluster(clients: &Clients, recorder: &Recorder) -> Vec<Gateway> {
    let instances = Gateway::start_cluster_of(
        3,
        "public: { http: { bind: \"127.0.0.1:0\" } }",
        &routes("api", &[("BACKEND", &recorder.address)]),
        ", api: { bind: \"127.0.0.1:0\", access: clients.yaml }",
        &[("clients.yaml", clients.file.as_bytes())],
    );
    until("the cluster to answer", || {
        post(&instances[0], &clients.all, "sequences/take", &json!({ "sequence": "first" })).status == 200
    });
    instances
}

/// A call over HTTP.
fn post(gateway: &Gateway, token: &str, method: &str, body: &Value) -> Reply {
    let body = body.to_string();
    let mut connection = Connection::open(&gateway.api());
    let head = format!(
        "POST /v1/{method} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n"
    );
    connection.send(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes());
    connection.receive(false).expect("an answer")
}

fn json_of(reply: &Reply) -> Value {
    serde_json::from_str(&reply.body).unwrap_or_else(|_| panic!("{}: {}", reply.status, reply.body))
}

#[track_caller]
fn refused(reply: &Reply, status: u16, code: &str) {
    assert_eq!((reply.status, json_of(reply)["code"].as_str()), (status, Some(code)), "{}", reply.body);
}

#[test]
fn any_instance_serves_any_call_of_a_client() {
    let (clients, recorder) = (Clients::new(), Recorder::start(|_, _| (200, Duration::ZERO)));
    let instances = cluster(&clients, &recorder);
    let [first, second, third] = &instances[..] else { panic!("three instances") };
    let ask = |gateway: &Gateway, method: &str, body: Value| post(gateway, &clients.all, method, &body);
    let opened = ask(first, "sessions/open", json!({ "ttlMs": 5_000, "label": "test" }));
    let session = json_of(&opened)["session"].clone();
    let claims = json!([{ "lock": "stock/7" }]);
    let acquire =
        |number: u64, wait: u64| json!({ "session": session, "number": number, "claims": claims, "waitMs": wait });
    let granted = ask(second, "locks/acquire", acquire(1, 0));
    assert_eq!(granted.status, 200, "{}", granted.body);
    assert_eq!(json_of(&ask(third, "locks/acquire", acquire(1, 0))), json_of(&granted), "it is the same request");
    let refusal = call(&third.public(), "POST", "/locked", "");
    assert!(refusal.status == 503 && refusal.body.contains("LOCK_TIMEOUT"), "routes see the lock: {}", refusal.body);
    refused(&ask(first, "locks/acquire", acquire(2, 0)), 409, "ABORTED");
    let listed = json_of(&ask(first, "locks/list", json!({ "prefix": "stock/" })));
    let holder = &listed["locks"][0]["holders"][0];
    assert_eq!(
        (&holder["label"], &holder["token"]),
        (&json!("client all: test"), &json_of(&granted)["token"]),
        "{listed}"
    );
    assert_eq!(ask(third, "sessions/keep-alive", json!({ "session": session })).status, 200);

    // What is refused, or repeated by a call that has left, changes nothing.
    let other = json!({ "session": session, "number": 1, "claims": [{ "lock": "other" }] });
    refused(&ask(first, "locks/acquire", other), 400, "INVALID_ARGUMENT");
    let waits = acquire(9, 10_000).to_string();
    let left = |gateway: &Gateway| {
        let mut connection = Connection::open(&gateway.api());
        let head = format!(
            "POST /v1/locks/acquire HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n",
            clients.all
        );
        connection.send(format!("{head}content-length: {}\r\n\r\n{waits}", waits.len()).as_bytes());
        connection
    };
    let waiters = |count: u64| {
        let listed = json_of(&ask(third, "locks/list", json!({ "prefix": "stock/7" })));
        let lock = &listed["locks"][0];
        lock["holdersCount"] == 1 && lock["waitersCount"].as_u64().unwrap_or(0) == count
    };
    let one = left(first);
    until("a request to wait", || waiters(1));
    let two = left(second);
    std::thread::park_timeout(Duration::from_millis(500));
    drop(one);
    std::thread::park_timeout(Duration::from_millis(300));
    assert!(waiters(1), "the second call repeats it");
    drop(two);
    until("nobody to wait", || waiters(0));
    refused(
        &ask(second, "sequences/take", json!({ "sequence": "a", "count": "18446744073709551615" })),
        400,
        "INVALID_ARGUMENT",
    );

    // One that waits is granted the lock once it is released, at another instance.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| ask(first, "locks/acquire", acquire(3, 10_000)));
        until("a request to wait", || {
            json_of(&ask(second, "locks/list", json!({}))).to_string().contains("\"waitersCount\":1")
        });
        assert_eq!(ask(second, "locks/release", json!({ "session": session, "number": 1 })).status, 200);
        let next = waiting.join().expect("no panic");
        let token = |reply: &Reply| json_of(reply)["token"].as_str().and_then(|token| token.parse::<u64>().ok());
        assert!(token(&next) > token(&granted), "tokens rise: {} {}", next.body, granted.body);
    });
    assert_eq!(ask(second, "sessions/close", json!({ "session": session })).status, 200);
    refused(&ask(third, "sessions/keep-alive", json!({ "session": session })), 409, "FAILED_PRECONDITION");
    until("the lock to be free for the route", || call(&third.public(), "POST", "/locked", "").status == 200);

    let numbers: Vec<u64> = instances
        .iter()
        .map(|gateway| json_of(&ask(gateway, "sequences/take", json!({ "sequence": "a", "count": 10 }))))
        .map(|taken| taken["first"].as_str().expect("a number").parse().expect("a number"))
        .collect();
    assert_eq!(numbers, [1, 11, 21]);
    let metrics = call(&second.admin(), "GET", "/metrics", "").body;
    assert!(metrics.contains("crossdock_api_calls_total{method=\"Locks/Acquire\",code=\"OK\"} 1"), "{metrics}");
    let state = json_of(&ask(second, "cluster/state", json!({})));
    assert_eq!((&state["instance"], state["members"].as_array().map(Vec::len)), (&json!("2"), Some(3)), "{state}");
}

#[test]
fn a_client_may_do_what_its_scopes_say_and_no_more() {
    let (clients, recorder) = (Clients::new(), Recorder::start(|_, _| (200, Duration::ZERO)));
    let instances = cluster(&clients, &recorder);
    let gateway = &instances[0];
    let little = |method: &str, body: Value| post(gateway, &clients.little, method, &body);
    refused(&post(gateway, "another", "sessions/open", &json!({ "ttlMs": 5_000 })), 401, "UNAUTHENTICATED");
    let session = json_of(&little("sessions/open", json!({ "ttlMs": 5_000 })))["session"].clone();
    let acquire =
        |lock: &str, number: u64| json!({ "session": session, "number": number, "claims": [{ "lock": lock }] });
    assert_eq!(little("locks/acquire", acquire("stock/1", 1)).status, 200);
    refused(&little("locks/acquire", acquire("other", 2)), 403, "PERMISSION_DENIED");
    let steal = json!({ "session": session, "number": 3, "claims": [{ "lock": "stock/1" }], "steal": "mine" });
    refused(&little("locks/acquire", steal), 403, "PERMISSION_DENIED");
    refused(&little("locks/break", json!({ "lock": "stock/1", "reason": "r" })), 403, "PERMISSION_DENIED");
    refused(&little("locks/list", json!({})), 403, "PERMISSION_DENIED");
    refused(&little("sequences/take", json!({ "sequence": "a" })), 403, "PERMISSION_DENIED");
    refused(&little("cluster/state", json!({})), 403, "PERMISSION_DENIED");
    // Neither the session of another client nor what belongs to routes.
    let other = |method: &str, body: Value| post(gateway, &clients.all, method, &body);
    refused(&other("locks/release", json!({ "session": session, "number": 1 })), 409, "FAILED_PRECONDITION");
    refused(&other("sessions/close", json!({ "session": session })), 409, "FAILED_PRECONDITION");
    let own = json_of(&other("sessions/open", json!({ "ttlMs": 5_000 })))["session"].clone();
    for lock in ["entry broker/a", "readers a", "idempotency/a/b", "replies a"] {
        let request = json!({ "session": own, "number": 1, "claims": [{ "lock": lock }] });
        refused(&other("locks/acquire", request), 403, "PERMISSION_DENIED");
    }
    refused(&other("queues/enqueue", json!({ "queue": "route a" })), 403, "PERMISSION_DENIED");

    for (method, body, status, code) in [
        ("locks/nothing", json!({}), 404, "UNIMPLEMENTED"),
        ("locks/acquire", json!({ "sesion": 1 }), 400, "INVALID_ARGUMENT"),
        ("locks/acquire", json!({ "session": own, "number": 0 }), 400, "INVALID_ARGUMENT"),
        ("locks/acquire", json!({ "session": own, "number": 9 }), 400, "INVALID_ARGUMENT"),
        (
            "locks/acquire",
            json!({ "session": "1", "number": 1, "claims": [{ "lock": "a" }] }),
            409,
            "FAILED_PRECONDITION",
        ),
        ("sessions/open", json!({ "ttlMs": 10 }), 400, "INVALID_ARGUMENT"),
        ("queues/consume", json!({}), 501, "UNIMPLEMENTED"),
    ] {
        refused(&other(method, body), status, code);
    }
    let mut connection = Connection::open(&gateway.api());
    let head = format!(
        "POST /v1/cluster/state HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: text/plain\r\n",
        clients.all
    );
    connection.send(format!("{head}content-length: 2\r\n\r\n{{}}").as_bytes());
    refused(&connection.receive(false).expect("an answer"), 415, "INVALID_ARGUMENT");

    // A changed file takes effect, and one that is not valid changes nothing.
    let (token, digest) = new_token();
    gateway.write_file("clients.yaml", b"version: 1\nclients: { a: { scopes: [ nothing ] } }\n");
    until("the file to be refused", || {
        gateway.log().iter().any(|line| line.contains("clients of the API is not valid"))
    });
    assert_eq!(other("cluster/state", json!({})).status, 200);
    let file = format!("version: 1\nclients:\n  new: {{ token: \"{digest}\", scopes: [ state ] }}\n");
    gateway.write_file("clients.yaml", file.as_bytes());
    until("the file to be read", || post(gateway, &token, "cluster/state", &json!({})).status == 200);
    refused(&other("cluster/state", json!({})), 401, "UNAUTHENTICATED");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

fn client(instances: &[&Gateway], clients: &Clients) -> Client {
    let addresses: Vec<String> = instances.iter().map(|gateway| format!("http://{}", gateway.api())).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let options = Options { token: Some(clients.all.clone()), ..Options::default() };
    Client::new(&addresses, &options).expect("a client")
}

#[test]
fn a_lock_of_a_call_is_released_with_it_and_its_loss_is_told() {
    let (clients, recorder) = (Clients::new(), Recorder::start(|_, _| (200, Duration::ZERO)));
    let mut instances = cluster(&clients, &recorder);
    let runtime = runtime();
    let one = LockOptions { wait: Duration::ZERO, ttl: Duration::from_secs(2), ..LockOptions::default() };
    runtime.block_on(async {
        let (here, there) = (client(&[&instances[0]], &clients), client(&[&instances[1]], &clients));
        let first = here.lock("a", one.clone()).await.expect("a lock");
        let busy = there.lock("a", one.clone()).await.expect_err("it is held");
        assert_eq!(busy.code(), tonic::Code::Aborted, "{busy}");
        let token = first.token();
        drop(first);
        let waits = LockOptions { wait: Duration::from_secs(5), ..one.clone() };
        let mut second = there.lock("a", waits.clone()).await.expect("the lock");
        assert!(second.token() > token);
        // Asked for, then taken away.
        let operate = |method: &str| {
            let reply = post(&instances[2], &clients.all, method, &json!({ "lock": "a", "reason": "maintenance" }));
            assert_eq!(json_of(&reply)["holders"], "1", "{}", reply.body);
        };
        operate("locks/revoke");
        assert_eq!(second.revoked().await, "maintenance");
        operate("locks/break");
        assert!(second.lost().await.contains("maintenance"));
        assert!(!second.is_held());
        // A caller that does not wait any more leaves nothing behind.
        let held = here.lock("a", one.clone()).await.expect("the lock");
        let abandoned = tokio::time::timeout(Duration::from_millis(300), there.lock("a", waits.clone())).await;
        assert!(abandoned.is_err());
        drop(held);
        until("nobody to hold the lock or to wait", || {
            !post(&instances[2], &clients.all, "locks/list", &json!({})).body.contains("\"a\"")
        });
    });
    // With its instance, the lock is lost after its time.
    runtime.block_on(async {
        let mut held = client(&[&instances[0]], &clients).lock("b", one.clone()).await.expect("a lock");
        drop(instances.remove(0));
        held.lost().await;
        let begun = Instant::now();
        let waits = LockOptions { wait: Duration::from_secs(20), ..one.clone() };
        client(&[&instances[0]], &clients).lock("b", waits).await.expect("the lock, after the session");
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    });
}

#[test]
fn a_session_keeps_its_locks_and_its_place_when_instances_fail() {
    let (clients, recorder) = (Clients::new(), Recorder::start(|_, _| (200, Duration::ZERO)));
    let mut instances = cluster(&clients, &recorder);
    let runtime = runtime();
    runtime.block_on(async {
        let all: Vec<&Gateway> = instances.iter().collect();
        let (holder, waiter) = (client(&all, &clients), client(&all, &clients));
        drop(all);
        let ttl = Duration::from_secs(3);
        let (one, two) = (
            holder.open_session(ttl, "one").await.expect("a session"),
            waiter.open_session(ttl, "two").await.expect("a session"),
        );
        let options = LockOptions { wait: Duration::from_secs(30), ..LockOptions::default() };
        let held = one.acquire("c", options.clone()).await.expect("a lock");
        let waiting = tokio::spawn(async move {
            let held = two.acquire("c", options).await.expect("the lock");
            (held.token(), two)
        });
        let list = |instances: &[Gateway]| post(&instances[1], &clients.all, "locks/list", &json!({})).body;
        until("the second one to wait", || list(&instances).contains("\"waitersCount\":1"));
        // Both use the first instance, which is killed; the session lives on at others for longer than its time.
        let gateway = instances.remove(0);
        instances.insert(0, gateway.restart());
        // Another one stops in good order.
        let mut gateway = instances.remove(2);
        gateway.signal("TERM");
        gateway.wait();
        instances.insert(2, gateway.restart());
        tokio::time::sleep(ttl + Duration::from_secs(1)).await;
        assert!(held.is_held() && !waiting.is_finished());
        let listed = list(&instances);
        assert!(listed.contains("\"waitersCount\":1") && listed.contains("client all: one"), "{listed}");
        let token = held.token();
        drop(held);
        let (next, two) =
            tokio::time::timeout(Duration::from_secs(5), waiting).await.expect("in time").expect("no panic");
        assert!(next > token);
        two.close().await.expect("closed");
        one.close().await.expect("closed");
        assert!(holder.next_number("n").await.expect("a number") < waiter.next_number("n").await.expect("a number"));
    });
}

/// Clients and routes use the same queues.
#[test]
fn messages_go_between_clients_and_routes() {
    let (clients, recorder) = (Clients::new(), Recorder::start(|_, _| (200, Duration::ZERO)));
    let instances = cluster(&clients, &recorder);
    runtime().block_on(async {
        let client = client(&instances.iter().collect::<Vec<_>>(), &clients);
        let message = |number: u64| Message {
            key: "a".to_owned(),
            body: format!("{{\"number\":{number}.50}}").into(),
            content_type: "application/json".to_owned(),
            headers: vec![("X-Tenant".to_owned(), "t".to_owned())],
            id: Some((format!("id {number}"), Duration::from_secs(60))),
            ..Message::default()
        };
        for number in 1..=3 {
            assert!(!client.enqueue("orders", message(number)).await.expect("added").is_duplicate);
        }
        assert!(client.enqueue("orders", message(2)).await.expect("known").is_duplicate);
        let other = Message { body: "{}".into(), ..message(2) };
        let refused = client.enqueue("orders", other).await.expect_err("another message");
        assert_eq!(refused.code(), tonic::Code::AlreadyExists, "{refused}");
        let expected: Vec<String> = (1..=3).map(|number| format!("{{\"number\":{number}.50,\"seen\":true}}")).collect();
        until("the route to process them", || recorder.processed().len() == 3);
        assert_eq!(recorder.processed(), expected);

        let added = call(&instances[1].public(), "POST", "/letters", "{\"key\":\"k\",\"text\":\"hello\"}");
        assert_eq!(added.status, 202, "{}", added.body);
        let mut consumer = client.consume("letters", 4).await.expect("a consumer");
        let delivery = consumer.next().await.expect("a message");
        assert_eq!(
            (&*delivery.message.key, &delivery.message.body[..]),
            ("k", &b"{\"key\":\"k\",\"text\":\"hello\"}"[..])
        );
        assert_eq!((&*delivery.message.content_type, delivery.message.attempts), ("application/json", 0));
        delivery.retry(Duration::from_millis(10)).await.expect("settled");
        let again = consumer.next().await.expect("it is delivered again");
        assert_eq!(again.message.attempts, 1);
        again.reject("not wanted").await.expect("settled");
        until("a dead letter", || {
            let listed = post(&instances[2], &clients.all, "queues/list", &json!({ "prefix": "letters" }));
            json_of(&listed)["queues"][0]["deadLetters"] == "1"
        });
    });
}

/// Two clients consume a queue at different instances, one of which is killed.
#[test]
fn consumers_lose_and_overtake_nothing_when_an_instance_fails() {
    const KEYS: u64 = 8;
    const EACH: u64 = 30;
    let (clients, recorder) = (Clients::new(), Recorder::start(|_, _| (200, Duration::ZERO)));
    let mut instances = cluster(&clients, &recorder);
    let seen: std::sync::Mutex<BTreeMap<String, Vec<u64>>> = std::sync::Mutex::default();
    runtime().block_on(async {
        let all: Vec<&Gateway> = instances.iter().collect();
        let producer = client(&all, &clients);
        let consumers = [client(&[all[0], all[1]], &clients), client(&[all[2], all[1]], &clients)];
        drop(all);
        for number in 0..EACH {
            for key in 0..KEYS {
                let message = Message { key: format!("k{key}"), body: number.to_string().into(), ..Message::default() };
                producer.enqueue("jobs", message).await.expect("added");
            }
        }
        let consume = async |client: &Client| {
            loop {
                let Ok(mut consumer) = client.consume("jobs", 4).await else { continue };
                while let Ok(delivery) = consumer.next().await {
                    let number = std::str::from_utf8(&delivery.message.body).expect("text").parse().expect("a number");
                    seen.lock().expect("no panic").entry(delivery.message.key.clone()).or_default().push(number);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    if delivery.done().await.is_err() {
                        break;
                    }
                }
            }
        };
        let count = || seen.lock().expect("no panic").values().flatten().collect::<Vec<_>>().len() as u64;
        let kill = async {
            while count() < KEYS * EACH / 4 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let gateway = instances.remove(0);
            instances.insert(0, gateway.restart());
            let distinct = || {
                let seen = seen.lock().expect("no panic");
                seen.values().map(|numbers| numbers.iter().collect::<BTreeSet<_>>().len() as u64).sum::<u64>()
            };
            let until = Instant::now() + Duration::from_secs(30);
            while distinct() < KEYS * EACH && Instant::now() < until {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            () = kill => {}
            () = async { tokio::join!(consume(&consumers[0]), consume(&consumers[1])); } => {}
        }
    });
    let seen = seen.into_inner().expect("no panic");
    assert_eq!(seen.len() as u64, KEYS);
    for (key, numbers) in &seen {
        let mut known = BTreeSet::new();
        let firsts: Vec<u64> = numbers.iter().copied().filter(|number| known.insert(*number)).collect();
        assert_eq!(firsts, (0..EACH).collect::<Vec<_>>(), "{key}: {numbers:?}");
    }
}

#[test]
fn a_client_can_be_identified_by_its_certificate() {
    let folder = tempfile::tempdir().expect("a folder");
    write_certificates(folder.path());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let read = |name: &str| std::fs::read(folder.path().join(name)).expect(name);
    let output = Command::new("openssl").args(["x509", "-in", &path("client.pem"), "-outform", "der"]).output();
    let certificate = output.expect("openssl runs").stdout;
    let digest: String = sha256_of(&certificate);
    let file =
        format!("version: 1\nclients:\n  tls: {{ certificate: \"sha256:{digest}\", scopes: [ locks, sequences ] }}\n");
    let api = format!(
        ", api: {{ bind: \"127.0.0.1:0\", access: clients.yaml, tls: {{ cert: \"{}\", key: \"{}\", client_ca: \"{}\" }} }}",
        path("server.pem"),
        path("server.key"),
        path("ca.pem")
    );
    let recorder = Recorder::start(|_, _| (200, Duration::ZERO));
    let instances = Gateway::start_cluster_of(
        1,
        "public: { http: { bind: \"127.0.0.1:0\" } }",
        &routes("api", &[("BACKEND", &recorder.address)]),
        &api,
        &[("clients.yaml", file.as_bytes())],
    );
    let port = instances[0].api().rsplit(':').next().expect("a port").to_owned();
    let address = format!("https://localhost:{port}");
    runtime().block_on(async {
        let options = |name: &str| Options {
            ca: Some(read("ca.pem")),
            identity: Some((read(&format!("{name}.pem")), read(&format!("{name}.key")))),
            ..Options::default()
        };
        let client = Client::new(&[&address], &options("client")).expect("a client");
        assert_eq!(client.next_number("a").await.expect("a number"), 1);
        let denied = client.state().await.expect_err("no scope");
        assert_eq!(denied.code(), tonic::Code::PermissionDenied, "{denied}");
        // Of the same authority, and unknown; of another authority.
        let unknown = Client::new(&[&address], &options("server")).expect("a client").next_number("a").await;
        assert_eq!(unknown.expect_err("no client").code(), tonic::Code::Unauthenticated);
        assert!(Client::new(&[&address], &options("stranger")).expect("a client").next_number("a").await.is_err());
    });
}

/// The SHA-256 digest of bytes in hexadecimal digits.
fn sha256_of(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bytes");
    std::fs::write(&file, bytes).expect("a file");
    let output = Command::new("sha256sum").arg(&file).output().expect("sha256sum runs");
    String::from_utf8(output.stdout).expect("text").split(' ').next().expect("a digest").to_owned()
}

fn python(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(peers("grpc").join("venv/bin/python"));
    command.current_dir(folder).args(arguments);
    command.output().expect("Python runs")
}

#[test]
#[ignore = "needs Python's gRPC, which tests/run installs"]
fn the_example_in_python_runs_with_generated_code() {
    let (clients, recorder) = (Clients::new(), Recorder::start(|_, _| (200, Duration::ZERO)));
    let instances = cluster(&clients, &recorder);
    let folder = tempfile::tempdir().expect("a folder");
    let schemas = format!("-I{}", repository().join("schemas").display());
    let generated = python(
        folder.path(),
        &["-m", "grpc_tools.protoc", &schemas, "--python_out=.", "--grpc_python_out=.", "gateway.proto"],
    );
    assert!(generated.status.success(), "{}", String::from_utf8_lossy(&generated.stderr));
    let example = repository().join("examples/cluster-api/client.py");
    std::fs::copy(example, folder.path().join("client.py")).expect("the example");
    let ran = python(folder.path(), &["client.py", &instances[0].api(), &clients.all]);
    let (out, problem) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{out}\n{problem}");
    for expected in
        ["held stock/7 with token", "numbers from 1", "asked to release: maintenance", "lost: ", "letter 1", "letter 2"]
    {
        assert!(out.contains(expected), "{expected}: {out}\n{problem}");
    }
    until_within(Duration::from_secs(5), "the lock to be free", || {
        !post(&instances[1], &clients.all, "locks/list", &json!({})).body.contains("stock/7")
    });
}
