//! Runs each example as its README describes, on free ports.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crossdock_tests::{
    Kafka, RabbitMq, Registry, Reply, call, crossdock, exchange, peers, repository, run_peer, until,
};

/// A process that prints `… 127.0.0.1:PORT` on the first output line with its sign. Killed on drop.
struct Process {
    child: Child,
    address: String,
}

impl Process {
    fn start(command: &mut Command, from_stderr: bool, sign: &str) -> Self {
        let (out, err) = if from_stderr { (Stdio::null(), Stdio::piped()) } else { (Stdio::piped(), Stdio::null()) };
        let mut child = command.stdout(out).stderr(err).spawn().expect("the process starts");
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let lines: Box<dyn std::io::Read + Send> = if from_stderr {
            Box::new(child.stderr.take().expect("its output"))
        } else {
            Box::new(child.stdout.take().expect("its output"))
        };
        let sign = sign.to_owned();
        std::thread::spawn(move || {
            let mut is_sent = false;
            for line in BufReader::new(lines).lines().map_while(Result::ok) {
                if !is_sent && line.contains(&sign) {
                    let address = line
                        .split("127.0.0.1:")
                        .nth(1)
                        .map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
                    is_sent = sender.send(address).is_ok();
                }
            }
        });
        let port =
            receiver.recv_timeout(std::time::Duration::from_secs(20)).expect("the process listens").expect("a port");
        Self { child, address: format!("127.0.0.1:{port}") }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts the example's service and a gateway in front of it.
fn start(example: &str, variable: &str) -> (Process, Process) {
    start_with(example, variable, "python3".into())
}

/// As [`start`], with this Python interpreter.
fn start_with(example: &str, variable: &str, python: PathBuf) -> (Process, Process) {
    let folder = repository().join("examples").join(example);
    let mut service = Command::new(python);
    let service = Process::start(service.args(["service.py", "0"]).current_dir(&folder), false, "listening");
    let mut gateway = Command::new(crossdock());
    gateway.args(["run", "--config", "config"]).current_dir(&folder);
    gateway.env("EXAMPLE_PUBLIC", "127.0.0.1:0").env(variable, format!("http://{}", service.address));
    let gateway = Process::start(&mut gateway, true, "listener started");
    (service, gateway)
}

fn assert_reply(reply: &Reply, status: u16, body: &str) {
    assert_eq!((reply.status, reply.body.as_str()), (status, body), "{reply:?}");
}

#[test]
fn rest_to_legacy_xml() {
    let (_service, gateway) = start("rest-to-legacy-xml", "EXAMPLE_CLAIMS");
    assert_reply(
        &call(&gateway.address, "GET", "/v1/claims/C-17", ""),
        200,
        r#"{"id":"C-17","amount":1234567890123456.70,"currency":"EUR","open":true,"parts":["085","12a"]}"#,
    );
    let reply = call(&gateway.address, "GET", "/v1/claims/none", "");
    assert_eq!(reply.status, 404);
    assert!(reply.body.contains("claim not found: none") && !reply.body.contains("CLM0417"), "{reply:?}");
    assert_reply(
        &call(&gateway.address, "POST", "/v1/claims/C-17/notes", r#"{"text":"seen & <noted>"}"#),
        201,
        r#"{"notes":1}"#,
    );
    assert_eq!(call(&gateway.address, "POST", "/v1/claims/C-17/notes", r#"{"text":""}"#).status, 400);
}

#[test]
fn content_based_routing() {
    let (service, gateway) = start("content-based-routing", "EXAMPLE_SERVICES");
    assert_reply(
        &call(&gateway.address, "POST", "/v1/orders", r#"{"id":"o-1","customer":"c-7","region":"eu","total":99.90}"#),
        200,
        r#"{"by":"fulfilment-new","order":{"id":"o-1","customer":{"id":"c-7","tier":"gold"},"total":99.90,"priority":true}}"#,
    );
    assert_reply(
        &call(&gateway.address, "POST", "/v1/orders", r#"{"id":"o-2","customer":"c-8","region":"us","total":5000.00}"#),
        200,
        r#"{"by":"fulfilment-old","order":{"id":"o-2","customer":{"id":"c-8","tier":"plain"},"total":5000.00,"priority":true}}"#,
    );
    until("both copies at the audit service", || {
        let seen = call(&service.address, "GET", "/seen", "").body;
        let seen: Vec<(String, String)> = serde_json::from_str(&seen).expect("JSON");
        seen.iter().filter(|(path, _)| path == "/audit").count() == 2
    });
}

/// A Python interpreter with gRPC.
fn python_with_grpc() -> PathBuf {
    peers("grpc").join("venv/bin/python")
}

#[test]
#[ignore = "needs gRPC for Python, which tests/run installs"]
fn grpcio_service_as_rest() {
    let (_service, gateway) = start_with("grpc-as-rest", "EXAMPLE_BOOKINGS", python_with_grpc());
    let call = |method: &str, path: &str, body: &str| call(&gateway.address, method, path, body);
    let request = r#"{"guest":"g-1","arrival":"2027-01-05T15:00:00Z","nights":2,"price":"9007199254740993"}"#;
    let booked = |state: &str| {
        format!(
            r#"{{"name":"hotels/7/bookings/1","guest":"g-1","arrival":"2027-01-05T15:00:00Z","nights":2,"state":"{state}","price":"9007199254740993"}}"#
        )
    };
    assert_reply(&call("POST", "/v1/hotels/7/bookings", request), 200, &booked("BOOKED"));
    assert_reply(&call("GET", "/v1/hotels/7/bookings/1", ""), 200, &booked("BOOKED"));
    let list = format!("[{}]", booked("BOOKED"));
    assert_reply(&call("GET", "/v1/hotels/7/bookings?states=BOOKED&page_size=10", ""), 200, &list);
    assert_reply(&call("GET", "/v1/hotels/7/bookings?states=CANCELLED", ""), 200, "[]");
    assert_reply(&call("POST", "/v1/hotels/7/bookings/1:cancel", ""), 200, &booked("CANCELLED"));
    let again = call("POST", "/v1/hotels/7/bookings/1:cancel", "{}");
    assert!(again.status == 400 && again.body.contains("already cancelled"), "{again:?}");
    let missing = call("GET", "/v1/hotels/7/bookings/9", "");
    assert!(missing.status == 404 && missing.body.contains("booking not found: hotels/7/bookings/9"), "{missing:?}");
    let wrong = call("POST", "/v1/hotels/7/bookings", r#"{"nights":"two"}"#);
    assert!(wrong.status == 400 && wrong.body.contains("`booking.nights`: expected a number (int32)"), "{wrong:?}");
}

#[test]
#[ignore = "needs gRPC for Python, which tests/run installs"]
fn grpcio_client_of_a_rest_service() {
    let (_service, gateway) = start("rest-as-grpc", "EXAMPLE_RATES");
    let query = |base: &str, currency: &str| {
        let mut client = Command::new(python_with_grpc());
        client.args(["client.py", &gateway.address, base, currency]);
        let (is_success, output) = run_peer(client.current_dir(repository().join("examples/rest-as-grpc")));
        assert!(is_success, "{output}");
        output.trim_end().to_owned()
    };
    assert_eq!(query("EUR", "USD"), "EUR/USD 1.08370000000000000001 30 first spot,forward");
    assert_eq!(query("EUR", "CHF"), "NOT_FOUND the service responded with status 404");
    assert_eq!(query("EURO", "USD"), "INVALID_ARGUMENT currency codes must have 3 letters");
}

#[test]
#[ignore = "needs gRPC for Python, which tests/run installs"]
fn grpcio_stream_as_events() {
    let (_service, gateway) = start_with("stream-as-events", "EXAMPLE_PRICES", python_with_grpc());
    let stream = |path: &str| {
        let mut curl = Command::new("curl");
        curl.args(["-sN", "--max-time", "10", &format!("http://{}{path}", gateway.address)]);
        run_peer(&mut curl).1
    };
    assert_eq!(
        stream("/v1/prices/abc/changes?changes=2&interval=0.01s"),
        "data: {\"symbol\":\"abc\",\"ticks\":\"-1\"}\n\ndata: {\"symbol\":\"abc\",\"ticks\":\"2\"}\n\n"
    );
    let halted = stream("/v1/prices/halted/lines?interval=0.01s");
    let lines: Vec<&str> = halted.lines().collect();
    assert_eq!(lines.len(), 3, "{halted}");
    assert!(lines[2].starts_with("{\"error\":{") && lines[2].contains("trading was halted"), "{halted}");
    let missing = call(&gateway.address, "GET", "/v1/prices/none/changes", "");
    assert!(missing.status == 404 && missing.body.contains("symbol not found"), "{missing:?}");
    let body = "{\"ticks\":5}\n{\"ticks\":\"-2\"}\n";
    let head = format!("POST /v1/sums HTTP/1.1\r\nHost: h\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let (replies, _) = exchange(&gateway.address, head.as_bytes(), 1);
    assert_reply(&replies[0], 200, "{\"ticks\":\"3\"}");
}

/// Starts a gateway with an example's settings, connected to RabbitMQ.
fn start_with_broker(example: &str, broker: &RabbitMq, variables: &[(&str, &str)]) -> Process {
    let mut gateway = Command::new(crossdock());
    gateway.args(["run", "--config", "config"]).current_dir(repository().join("examples").join(example));
    gateway.env("EXAMPLE_PUBLIC", "127.0.0.1:0").env("EXAMPLE_BROKER", &broker.url).envs(variables.iter().copied());
    Process::start(&mut gateway, true, "public")
}

#[test]
#[ignore = "needs RabbitMQ, which tests/run installs"]
fn rabbitmq_between_http_and_rest() {
    let broker = RabbitMq::start_private();
    broker.run(&["declare", "example-orders-dead"]);
    // The service is started later.
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let address = format!("http://127.0.0.1:{port}");
    let gateway = start_with_broker("queue-to-rest", &broker, &[("EXAMPLE_BOOKING", &address)]);
    let orders = |body: &str| call(&gateway.address, "POST", "/v1/orders", body).status;
    until("the queue to be declared", || orders(r#"{"id":"o-1","lines":[{"sku":"085","quantity":2}]}"#) == 202);
    assert_eq!(orders(r#"{"id":"o-2","lines":[{"sku":"086","quantity":0}]}"#), 202);
    assert_eq!(orders(r#"{"id":"o-3","lines":[]}"#), 400);
    let mut service = Command::new("python3");
    service.args(["service.py", &port.to_string()]).current_dir(repository().join("examples/queue-to-rest"));
    let service = Process::start(&mut service, false, "listening");
    let booked = r#"[{"order": "o-1", "articles": [{"sku": "085", "pieces": 2}]}]"#;
    until("the queued order to be booked", || call(&service.address, "GET", "/", "").body == booked);
    let letter: serde_json::Value =
        serde_json::from_str(&broker.run(&["drain", "example-orders-dead", "1"])).expect("a dead letter");
    assert_eq!(letter["body"], r#"{"id":"o-2","lines":[{"sku":"086","quantity":0}]}"#);
    assert_eq!(
        (&letter["headers"]["crossdock-status"], &letter["headers"]["crossdock-attempts"]),
        (&3.into(), &1.into())
    );
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_orders_in_order_for_each_customer() {
    let kafka = Kafka::start_private();
    kafka.run(&["create", "example-orders", "example-orders-dead"]);
    let folder = repository().join("examples/orders-over-kafka");
    let mut service = Command::new("python3");
    let service = Process::start(service.args(["service.py", "0"]).current_dir(&folder), false, "listening");
    let mut gateway = Command::new(crossdock());
    gateway.args(["run", "--config", "config"]).current_dir(&folder);
    gateway.env("EXAMPLE_PUBLIC", "127.0.0.1:0").env("EXAMPLE_KAFKA", &kafka.brokers);
    gateway.env("EXAMPLE_BOOKING", format!("http://{}", service.address));
    let gateway = Process::start(&mut gateway, true, "public");
    let orders = |body: &str| call(&gateway.address, "POST", "/v1/orders", body).status;
    // The first order of c-1 takes half a second; the others overtake it only if they are of other customers.
    for total in [50, 2, 1] {
        assert_eq!(orders(&format!("{{\"customer\":\"c-1\",\"total\":{total}}}")), 202);
    }
    assert_eq!(orders(r#"{"customer":"c-2","total":3}"#), 202);
    assert_eq!(orders(r#"{"customer":"c-3"}"#), 202);
    assert_eq!(orders(r#"{"customer":""}"#), 400);
    let booked = || call(&service.address, "GET", "/", "").body;
    until("another customer's order to be booked first", || booked() == r#"{"c-2": [3]}"#);
    until("the orders to be booked in order", || booked() == r#"{"c-1": [50, 2, 1], "c-2": [3]}"#);
    until("all to be settled", || kafka.committed("example-booking", "example-orders") == 5);
    let letters = kafka.read("example-orders-dead");
    assert_eq!((letters.len(), &letters[0]["value"]), (1, &serde_json::json!(r#"{"customer":"c-3"}"#)));
    assert_eq!(letters[0]["key"], "c-3");
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_service_as_rest() {
    let kafka = Kafka::start_private();
    let folder = repository().join("examples/prices-over-kafka");
    let mut gateway = Command::new(crossdock());
    gateway.args(["run", "--config", "config"]).current_dir(&folder);
    let gateway = gateway.env("EXAMPLE_PUBLIC", "127.0.0.1:0").env("EXAMPLE_KAFKA", &kafka.brokers);
    let gateway = Process::start(gateway, true, "public");
    let price = |body: &str| call(&gateway.address, "POST", "/v1/prices", body);
    assert_eq!(price(r#"{"sku":"085","pieces":0}"#).status, 400);
    until("the topics to be created", || price(r#"{"sku":"085","pieces":1}"#).status == 504);
    let mut service = Command::new(peers("kafka").join("venv/bin/python"));
    let mut service =
        service.args(["service.py", &kafka.brokers]).current_dir(&folder).spawn().expect("the service starts");
    until("the service to reply", || price(r#"{"sku":"085","pieces":2}"#).body == r#"{"total": "2.20"}"#);
    let unknown = price(r#"{"sku":"none","pieces":2}"#);
    assert!(unknown.status == 404 && unknown.body.contains("UNKNOWN_SKU"), "{unknown:?}");
    let _ = service.kill();
    let _ = service.wait();
}

#[test]
#[ignore = "needs RabbitMQ, Kafka and gRPC for Python, which tests/run installs"]
fn rabbitmq_over_kafka_to_grpc() {
    let (broker, kafka) = (RabbitMq::start_private(), Kafka::start_private());
    let folder = repository().join("examples/bridge-to-kafka");
    let mut service = Command::new(python_with_grpc());
    let service = Process::start(service.args(["service.py", "0"]).current_dir(&folder), false, "listening");
    let mut gateway = Command::new(crossdock());
    gateway.args(["run", "--config", "config"]).current_dir(&folder);
    gateway.env("EXAMPLE_PUBLIC", "127.0.0.1:0").env("EXAMPLE_BROKER", &broker.url);
    gateway.env("EXAMPLE_KAFKA", &kafka.brokers).env("EXAMPLE_SENSORS", format!("http://{}", service.address));
    let gateway = Process::start(&mut gateway, true, "public");
    until("the queue to be declared", || {
        broker.peer(&["depth", "example-measurements"]).output().expect("pika").status.success()
    });
    let mut send = Command::new(peers("amqp").join("venv/bin/python"));
    send.arg("send.py").arg(&broker.url).args(["s-1", "9007199254740993", "s-1", "2", "s-2", "3", "s-1", "many"]);
    assert!(run_peer(send.current_dir(&folder)).0);
    let values = |sensor: &str| call(&gateway.address, "GET", &format!("/v1/sensors/{sensor}"), "").body;
    until("the measurements to arrive", || values("s-1") == r#"{"values":["9007199254740993","2"]}"#);
    until("all to be recorded", || values("s-2") == r#"{"values":["3"]}"#);
    until("the invalid one to be dead-lettered", || kafka.run(&["count", "example-measurements-dead"]) == "1");
    assert_eq!(kafka.read("example-measurements-dead")[0]["key"], "s-1");
}

#[test]
#[ignore = "needs RabbitMQ and gRPC for Python, which tests/run installs"]
fn rabbitmq_service_as_grpc() {
    let broker = RabbitMq::start_private();
    let folder = repository().join("examples/amqp-as-grpc");
    let mut service = Command::new(peers("amqp").join("venv/bin/python"));
    let mut service =
        service.args(["service.py", &broker.url]).current_dir(&folder).spawn().expect("the service starts");
    let gateway = start_with_broker("amqp-as-grpc", &broker, &[]);
    let reserve = |sku: &str, pieces: &str| {
        let mut client = Command::new(python_with_grpc());
        run_peer(client.args(["client.py", &gateway.address, sku, pieces]).current_dir(&folder)).1.trim_end().to_owned()
    };
    until("the service to listen", || reserve("085", "2") == "085 2 40");
    assert_eq!(reserve("086", "1"), "086 1 9007199254740992");
    assert_eq!(reserve("none", "2"), "NOT_FOUND unknown SKU: none");
    assert_eq!(reserve("085", "0"), "INVALID_ARGUMENT pieces must be at least 1");
    let _ = service.kill();
    let _ = service.wait();
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_avro_to_webhook() {
    let (kafka, registry) = (Kafka::start_private(), Registry::start());
    kafka.run(&["create", "example-readings", "example-readings-dead", "example-alarms"]);
    let folder = repository().join("examples/avro-to-webhook");
    let mut service = Command::new("python3");
    let service = Process::start(service.args(["service.py", "0"]).current_dir(&folder), false, "listening");
    let mut sender = Command::new(peers("kafka").join("venv/bin/python"));
    let sent = sender.args(["send.py", &kafka.brokers, &registry.url]).current_dir(&folder).status();
    assert!(sent.expect("it runs").success());
    let mut gateway = Command::new(crossdock());
    gateway.args(["run", "--config", "config"]).current_dir(&folder);
    gateway.env("EXAMPLE_PUBLIC", "127.0.0.1:0").env("EXAMPLE_KAFKA", &kafka.brokers);
    gateway.env("EXAMPLE_REGISTRY", &registry.url).env("EXAMPLE_HOOK", format!("http://{}", service.address));
    let gateway = Process::start(&mut gateway, true, "public");
    until("all readings to be settled", || kafka.committed("example-webhook", "example-readings") == 3);
    let delivered: Vec<String> =
        serde_json::from_str(&call(&service.address, "GET", "/", "").body).expect("the delivered bodies");
    let expected = [("21.50", 0), ("40.01", 1), ("-3.00", 2)].map(|(celsius, minute)| {
        format!(r#"{{"sensor":"s-1","celsius":{celsius},"at":"2026-01-31T06:0{minute}:00Z","note":null}}"#)
    });
    assert_eq!(delivered, expected);
    let alarms = registry.run(&kafka, &["read", "example-alarms", "AVRO"], "");
    let alarm: serde_json::Value = serde_json::from_str(&alarms).expect("one alarm");
    assert_eq!((&alarm["celsius"], &alarm["at"]), (&"40.01".into(), &"2026-01-31T06:01:00+00:00".into()));
    let posted = r#"{"sensor":"s-2","celsius":41,"at":"2026-01-31T07:00:00Z"}"#;
    assert_eq!(call(&gateway.address, "POST", "/v1/readings", posted).status, 200);
    let alarms = registry.run(&kafka, &["read", "example-alarms", "AVRO"], "");
    assert!(alarms.contains(r#""sensor": "s-2", "celsius": "41.00""#), "{alarms}");
}
