//! The `crossdock` commands as a user runs them.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};

use crossdock_tests::{Backend, Gateway, Kafka, RabbitMq, call, crossdock, repository};

fn run(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(crossdock())
        .args(arguments)
        .current_dir(repository())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    match child.stdin.take().expect("its input").write_all(input.as_bytes()) {
        // The command may exit before it reads all input.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        result => result.expect("its input is read"),
    }
    child.wait_with_output().expect("the command ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn demo(variable: &str, broker: &str) -> Output {
    // They use the same ports if these are free.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    Command::new(crossdock())
        .args(["demo", "--once"])
        .current_dir(repository())
        .env("CROSSDOCK_BROKER", "amqp://127.0.0.1:1")
        .env_remove("CROSSDOCK_KAFKA")
        .env(variable, broker)
        .output()
        .expect("it runs")
}

#[test]
#[ignore = "needs RabbitMQ, which tests/run installs"]
fn rabbitmq_is_used_by_the_demo() {
    let output = demo("CROSSDOCK_BROKER", &RabbitMq::start().url);
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{shown}{}", text(&output.stderr));
    assert!(shown.contains("12 calls passed, 0 failed"), "{shown}");
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_is_used_by_the_demo() {
    let output = demo("CROSSDOCK_KAFKA", &Kafka::start().brokers);
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{shown}{}", text(&output.stderr));
    assert!(shown.contains("12 calls passed, 0 failed"), "{shown}");
}

#[test]
fn the_demo_of_a_cluster_succeeds() {
    let output = Command::new(crossdock()).args(["demo", "--cluster"]).output().expect("it runs");
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{shown}{}", text(&output.stderr));
    assert!(
        shown.contains("no update was lost") && shown.contains("none is lost, each account is in order"),
        "{shown}"
    );
}

#[test]
fn the_demo_succeeds_without_a_broker() {
    let output = demo("CROSSDOCK_BROKER", "amqp://127.0.0.1:1");
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{shown}{}", text(&output.stderr));
    for broker in ["RabbitMQ", "Kafka"] {
        assert!(shown.contains(&format!("requests through {broker} are skipped")), "{shown}");
    }
    assert!(shown.contains("10 calls passed, 0 failed"), "{shown}");
    assert!(
        shown.contains("<FindOrder xmlns=\"urn:legacy:orders\" version=\"2\"><OrderNo>1001</OrderNo></FindOrder>"),
        "{shown}"
    );
}

#[test]
fn contracts_are_shown_and_used_for_conversions() {
    let contract = "config/contracts/stock.proto";
    let shown = text(&run(&["contract", "show", contract], "").stdout);
    assert!(shown.contains("GET /v1/stock/{sku}") && shown.contains("stream of stock.v1.Item"), "{shown}");
    let schema = text(&run(&["contract", "show", contract, "--as", "json-schema"], "").stdout);
    let schema: serde_json::Value = serde_json::from_str(&schema).expect("JSON");
    assert_eq!(schema["$defs"]["stock.v1.Line"]["properties"]["sku"]["type"], "string");
    let convert = |from: &str, to: &str, input: &str| {
        run(&["convert", "--from", from, "--to", to, "--contract", contract, "--type", "stock.v1.Item"], input)
    };
    let output = convert("json", "proto-text", r#"{"sku":"085","quantity":"9007199254740993","state":"AVAILABLE"}"#);
    assert_eq!(text(&output.stdout), "sku: \"085\"\nquantity: 9007199254740993\nstate: AVAILABLE\n");
    let output = convert("proto-text", "proto", "sku: \"085\"");
    assert_eq!(output.stdout, b"\x0a\x03085");
    let output = convert("proto", "json", "\n\u{3}085\u{10}\u{1}");
    assert_eq!(text(&output.stdout), "{\"sku\":\"085\",\"quantity\":\"1\"}\n");
    let output = convert("json", "proto", "{\"sku\":\n 85}");
    assert_eq!(
        (output.status.code(), text(&output.stderr)),
        (Some(1), "line 2, column 2: `sku`: expected a string, found a number\n".into())
    );
    let output = run(&["convert", "--from", "json", "--to", "proto"], "{}");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("add `--contract FILE --type NAME`"), "{}", text(&output.stderr));
}

#[test]
fn convert_is_exact_and_locates_errors() {
    let exact = "{\"b\":1.10,\"a\":18446744073709551615,\"c\":[12345678901234567.89,-0,\"085\"]}";
    let output = run(&["convert", "--from", "json", "--to", "json"], exact);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), format!("{exact}\n")));
    let output =
        run(&["convert", "--from", "json", "--to", "xml", "--root", "{urn:a}r"], "{\"@v\":1.0,\"i\":[1,2.50]}");
    assert_eq!(
        text(&output.stdout),
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><r xmlns=\"urn:a\" v=\"1.0\"><i>1</i><i>2.50</i></r>\n"
    );
    let output = run(&["convert", "--from", "xml", "--to", "json"], "<r><i>1</i></r>");
    assert_eq!(text(&output.stdout), "{\"$root\":\"r\",\"i\":[{\"$text\":\"1\"}]}\n");
    let output = run(&["convert", "--from", "json", "--to", "json"], "{\"a\":1,\n \"a\":2}");
    assert_eq!(
        (output.status.code(), text(&output.stderr)),
        (Some(1), "line 2, column 2: duplicate key \"a\"\n".to_owned())
    );
    assert_eq!(run(&["convert", "--from", "json", "--to", "xml"], "{}").status.code(), Some(2));
    assert_eq!(run(&["convert", "--from", "xml", "--to", "xml", "--root", "r"], "<a/>").status.code(), Some(2));
}

#[test]
fn eval_prints_value_type_and_cost() {
    let output =
        run(&["eval", "req.lines.map(l, l.price * l.quantity)"], "{\"lines\":[{\"price\":1.10,\"quantity\":2}]}");
    let shown = text(&output.stdout);
    assert!(shown.starts_with("value: [2.20]\ntype: a list\ncost: ") && shown.ends_with(" bytes\n"), "{shown}");
    let output = run(&["eval", "size(req.l) + size(req.none)", "--format", "xml"], "<r><l/><l/></r>");
    assert!(text(&output.stdout).starts_with("value: 2\n"), "{}", text(&output.stdout));
    // An expression without inputs does not read a message.
    assert!(text(&run(&["eval", "1.10 * 2"], "").stdout).starts_with("value: 2.20\ntype: a decimal\n"));
    let output = run(&["eval", "req.a = 1"], "{}");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr), "`=` is not an operator\n  req.a = 1\n        ^\n  write `==` to compare\n");
    let output = run(&["eval", "req.b + 1"], "{\"a\":1}");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(1), "`req.b` is missing\n".to_owned()));
    assert_eq!(run(&["eval"], "").status.code(), Some(2));
}

#[test]
fn the_function_reference_is_up_to_date() {
    let shown = text(&run(&["eval", "--functions"], "").stdout);
    let page = repository().join("src/expression/FUNCTIONS.md");
    if std::env::var_os("CROSSDOCK_BLESS").is_some() {
        std::fs::write(&page, &shown).expect("the page");
    }
    let is_same = std::fs::read_to_string(page).expect("the page") == shown;
    assert!(is_same, "src/expression/FUNCTIONS.md is out of date: regenerate it with CROSSDOCK_BLESS=1");
}

#[test]
fn usage_errors_and_failures_have_different_exit_codes() {
    assert_eq!(run(&["nothing"], "").status.code(), Some(2));
    assert_eq!(run(&["check", "/nowhere"], "").status.code(), Some(2));
    let output = run(&["explain", "get-ordr"], "");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("did you mean `get-order`"), "{}", text(&output.stderr));
    let output = run(&["run", "--config", "/nowhere"], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("--config FOLDER"), "{}", text(&output.stderr));
    assert_eq!(run(&["routes", "--admin", "127.0.0.1:1"], "").status.code(), Some(1));
}

#[test]
fn help_lists_every_command() {
    let help = text(&run(&["--help"], "").stdout);
    for command in ["run", "demo", "check", "test", "explain", "convert", "eval", "schema", "dlq", "routes"] {
        assert!(help.lines().any(|line| line.trim_start().starts_with(command)), "{command} is not in\n{help}");
    }
    assert!(help.contains("Exit codes"), "{help}");
}

#[test]
fn a_running_gateway_reports_throughput_latency_and_availability_per_route() {
    let backend = Backend::start();
    let gateway = Gateway::start(&format!(
        "version: 1
services: {{ echo: {{ http: {{ url: \"http://{}\", operations: {{ post: {{ post: /slow/20 }} }} }}, concurrency: 10 }} }}
routes: {{ slow: {{ from: {{ http: {{ listen: public, post: /slow }} }}, steps: [ {{ call: echo.post }} ] }} }}
",
        backend.address
    ));
    for _ in 0..5 {
        assert_eq!(call(&gateway.public(), "POST", "/slow", "{}").status, 200);
    }
    let routes = gateway.admin_json("/api/v1/routes");
    let route = &routes["routes"][0];
    assert_eq!((&route["name"], &route["requests"], &route["availability"]), (&"slow".into(), &5.into(), &1.0.into()));
    let latency = &route["latency_ms"];
    let part = |name: &str| latency[name].as_f64().expect(name);
    assert!(part("processing") >= 20.0 && part("processing") < 200.0, "{latency}");
    assert!((part("request") + part("processing") + part("response") - part("mean")).abs() < 0.01, "{latency}");
    let capacity = route["capacity_per_s"].as_f64().expect("a number");
    assert!((capacity - 10.0 / (part("processing") / 1000.0)).abs() < 1.0, "{route}");
    assert!(route["throughput_per_s"].as_f64().expect("a number") > 0.0, "{route}");
    let table = text(&run(&["routes", "--admin", &gateway.admin()], "").stdout);
    assert!(table.lines().nth(1).is_some_and(|line| line.starts_with("slow")), "{table}");
    let metrics = call(&gateway.admin(), "GET", "/metrics", "").body;
    for line in [
        "crossdock_route_requests_total{route=\"slow\",code=\"ok\"} 5",
        "crossdock_service_calls_total{service=\"echo\",code=\"ok\"} 5",
        "crossdock_ready 1",
    ] {
        assert!(metrics.lines().any(|other| other == line), "{line} is not in\n{metrics}");
    }
    assert_eq!(call(&gateway.admin(), "GET", "/livez", "").status, 200);
    assert!(gateway.resident_kib() < 60 * 1024, "{} KiB", gateway.resident_kib());
}

#[test]
fn the_admin_listener_rejects_foreign_host_names() {
    let backend = Backend::start();
    let gateway = Gateway::start(&format!(
        "version: 1\nservices: {{ e: {{ http: {{ url: \"http://{}\", operations: {{ p: {{ post: /echo }} }} }} }} }}\nroutes: {{}}\n",
        backend.address
    ));
    let ask = |host: &str| {
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        crossdock_tests::exchange(&gateway.admin(), request.as_bytes(), 1).0[0].status
    };
    assert_eq!((ask("127.0.0.1"), ask("localhost:9900"), ask("evil.example")), (200, 200, 403));
    assert_eq!((ask("[::1]"), ask("[::1]:9900"), ask("evil@localhost")), (200, 200, 403));
    assert_eq!(ask("evil.example\r\nX-Forwarded-Host: localhost\r\nForwarded: host=localhost"), 403);
}
