//! AMQP connections and addresses with RabbitMQ and pika: TLS, routing keys from fields, late replies, header types.

use crossdock_tests::{Backend, Gateway, Peer, RabbitMq, call, routes, until, write_certificates};
use serde_json::Value;

fn first_line(text: &str) -> Value {
    serde_json::from_str(text.lines().next().expect("a line")).expect("JSON")
}

#[test]
#[ignore = "needs RabbitMQ, which tests/run installs"]
fn rabbitmq_is_reached_over_mutual_tls() {
    let certificates = tempfile::tempdir().expect("a folder");
    write_certificates(certificates.path());
    let file = |name: &str| certificates.path().join(name).display().to_string();
    let broker = RabbitMq::start_with_tls(certificates.path());
    broker.run(&["declare", "secure", "dead"]);
    let url = broker.tls_url.as_deref().expect("an address for TLS");
    let good =
        format!("{{ ca: \"{}\", cert: \"{}\", key: \"{}\" }}", file("ca.pem"), file("client.pem"), file("client.key"));
    let nobody = format!("{{ ca: \"{}\" }}", file("ca.pem"));
    let distrusting = format!("{{ ca: \"{}\" }}", file("other-ca.pem"));
    let listeners = format!(
        "public: {{ http: {{ bind: \"127.0.0.1:0\" }} }}\n  broker: {{ amqp: {{ url: \"{url}\", tls: {good} }} }}"
    );
    let backend = Backend::start();
    let routes = routes(
        "amqp-tls",
        &[
            ("BROKER", &url),
            ("BACKEND", &backend.address),
            ("GOOD", &good),
            ("NOBODY", &nobody),
            ("DISTRUSTING", &distrusting),
        ],
    );
    let gateway = Gateway::start_with_files(&listeners, &routes, &[]);
    assert_eq!(call(&gateway.public(), "POST", "/good", "{\"n\":1}").status, 202);
    until("the message to be published and consumed over TLS", || backend.requests() == 1);
    for path in ["/nobody", "/distrusting"] {
        let answer = call(&gateway.public(), "POST", path, "{}");
        assert!(
            answer.status == 503 && answer.body.contains("UNREACHABLE"),
            "{path}: {} {}",
            answer.status,
            answer.body
        );
    }
}

#[test]
#[ignore = "needs RabbitMQ, which tests/run installs"]
fn rabbitmq_routing_keys_are_built_from_fields() {
    let broker = RabbitMq::start();
    let name = |part: &str| broker.name(part);
    broker.run(&["bind", "amq.topic", &name("eu"), "placed.eu.*"]);
    broker.run(&["bind", "amq.topic", &name("us"), "placed.us.#"]);
    let routes = routes("amqp-routing-keys", &[("BROKER", &broker.url)]);
    let gateway = Gateway::start(&routes);
    let post = |path: &str, body: &str| call(&gateway.public(), "POST", path, body);
    assert_eq!(post("/orders/eu", "{\"urgency\":3}").status, 202);
    assert_eq!(post("/forward/us.west.coast", "{}").status, 202);
    let message = first_line(&broker.run(&["drain", &name("eu"), "1"]));
    assert_eq!((&message["body"], &message["priority"]), (&"{\"region\":\"eu\",\"urgency\":3}".into(), &7.into()));
    assert_eq!(first_line(&broker.run(&["drain", &name("us"), "1"]))["body"], "{}");
    for (path, body) in
        [("/orders/eu.x", "{\"urgency\":3}"), ("/orders/eu", "{\"urgency\":\"\"}"), ("/forward/us..x", "{}")]
    {
        let answer = post(path, body);
        assert!(
            answer.status == 400 && answer.body.contains("ADDRESS_FIELD"),
            "{path}: {} {}",
            answer.status,
            answer.body
        );
    }
}

#[test]
#[ignore = "needs RabbitMQ, which tests/run installs"]
fn rabbitmq_late_replies_go_to_the_late_reply_queue() {
    let broker = RabbitMq::start();
    let (queue, late) = (broker.name("slow"), broker.name("late"));
    broker.run(&["declare", &late]);
    let _server = Peer::start(&mut broker.peer(&["serve", &queue]));
    let routes = routes("amqp-late-replies", &[("BROKER", &broker.url), ("LATE", &late), ("QUEUE", &queue)]);
    let gateway = Gateway::start(&routes);
    // The first call may need longer than the timeout, as it waits for the connection; its reply is late as well then.
    until("a reply in time", || call(&gateway.public(), "POST", "/ask", "{}").body == "{}");
    assert_eq!(call(&gateway.public(), "POST", "/ask", "{\"fault\":\"late\"}").status, 504);
    let mut reply = Value::Null;
    until("the late reply", || {
        reply = first_line(&broker.run(&["drain", &late, "1"]));
        reply["body"] == "{\"fault\":\"late\"}"
    });
    assert_eq!(reply["delivery_mode"], 2);
    assert!(reply["correlation_id"].as_str().is_some_and(|id| id.contains('-')), "the request's own id: {reply}");
}

#[test]
#[ignore = "needs RabbitMQ, which tests/run installs"]
fn rabbitmq_timestamp_and_decimal_headers_become_exact_text() {
    let broker = RabbitMq::start();
    let (queue, dead) = (broker.name("typed"), broker.name("typed-dead"));
    broker.run(&["declare", &queue, &dead]);
    broker.run(&[
        "publish",
        &queue,
        "{}",
        "1",
        "x-at=@1700000000",
        "x-price=$12.25",
        "x-small=$0.007",
        "x-many=[1,\"a\"]",
    ]);
    let backend = Backend::start();
    let routes = routes("amqp-headers", &[("BACKEND", &backend.address), ("QUEUE", &queue), ("DEAD", &dead)]);
    let _gateway = Gateway::start_with(&format!("broker: {{ amqp: {{ url: \"{}\" }} }}", broker.url), &routes);
    until("the message to arrive", || backend.requests() == 1);
    let head = backend.last_head().to_lowercase();
    for line in ["x-at: 2023-11-14t22:13:20z", "x-price: 12.25", "x-small: 0.007", "x-many: 1", "x-many: a"] {
        assert!(head.contains(line), "{line} is not in {head}");
    }
}
