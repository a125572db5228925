//! A message that is sent to several receivers, some of which fail at first, is completed: nothing is sent again.

use std::time::Duration;

use crossdock_tests::{Gateway, Kafka, RabbitMq, Recorder, until};
use serde_json::{Value, json};

const ROUTES: &str = "version: 1
services:
  topics:
    kafka:
      brokers: \"@BROKERS@\"
      operations:
        first: { topic: @NAME@-first }
        branch: { topic: @NAME@-branch }
        line: { topic: @NAME@-line, key: \"{sku}\" }
  web:
    http:
      url: \"http://@WEB@\"
      operations: { branch: { post: /branch }, line: { post: /line } }
routes:
  orders:
    from:
      - kafka: { listen: topics, topic: @NAME@, reject: discard, backoff: 20ms, backoff_max: 40ms }
      - amqp: { listen: broker, queue: @NAME@, declare: create, reject: discard, backoff: 20ms, backoff_max: 40ms }
    steps:
      - send: topics.first
      - multicast: [ [ { send: topics.branch } ], [ { send: web.branch } ] ]
      - split: { each: req.lines, as: line, steps: [ { send: topics.line }, { send: web.line } ] }
";

#[test]
#[ignore = "needs RabbitMQ and Kafka, which tests/run installs"]
fn kafka_and_rabbitmq_fan_outs_that_failed_in_part_send_only_what_failed() {
    let (kafka, broker) = (Kafka::start(), RabbitMq::start());
    let name = broker.name("fan-out");
    let topics = ["", "-first", "-branch", "-line"].map(|place| format!("{name}{place}"));
    kafka.run(&["create", &topics[0], &topics[1], &topics[2], &topics[3]]);
    // Whatever number a request has: two of three fail.
    let web = Recorder::start(|number, _| (if number % 3 == 0 { 200 } else { 503 }, Duration::ZERO));
    let routes = ROUTES.replace("@BROKERS@", &kafka.brokers).replace("@NAME@", &name);
    let listeners = format!(
        "public: {{ http: {{ bind: \"127.0.0.1:0\" }} }}
  broker: {{ amqp: {{ url: \"{}\" }} }}
  topics: {{ kafka: {{ brokers: \"{}\", group: {name} }} }}",
        broker.url, kafka.brokers
    );
    let gateway = Gateway::start_with(&listeners, &routes.replace("@WEB@", &web.address.to_string()));
    until("the queue to be declared", || broker.peer(&["depth", &name]).output().expect("pika").status.success());
    let line = |sku: &str| json!({ "sku": sku });
    // Equal lines are different parts.
    let order = json!({ "id": 1, "lines": [line("a"), line("b"), line("a"), line("c")] }).to_string();
    let headers = json!([["content-type", "application/json"]]);
    let values = |place: usize| {
        let values = kafka.read(&topics[place]).into_iter().map(|record| record["value"].clone());
        values.map(|value| serde_json::from_str(value.as_str().expect("text")).expect("JSON")).collect::<Vec<Value>>()
    };
    let expected: Value = serde_json::from_str(&order).expect("JSON");
    for (source, received) in [("kafka", 1), ("amqp", 2)] {
        if source == "kafka" {
            kafka.write(&topics[0], &[json!({ "value": order, "headers": headers })]);
        } else {
            broker.run(&["publish", &name, &order]);
        }
        until("all parts to be delivered", || web.processed().len() == received * 5);
        assert_eq!(values(1), vec![expected.clone(); received], "{source}");
        assert_eq!(values(2), vec![expected.clone(); received], "{source}");
        let lines: Vec<_> = values(3).iter().map(|value| value["sku"].as_str().expect("text").to_owned()).collect();
        assert_eq!(lines, ["a", "b", "a", "c"].repeat(received), "{source}");
    }
    assert!(web.requests() > 10, "some requests failed: {}", web.requests());
    drop(gateway);
}
