//! Values with schemas of Apicurio Registry, written and read by fastavro, Google's protobuf and Confluent's client for Python.

use std::time::Duration;

use crossdock_tests::{Gateway, Kafka, Network, Proxy, Recorder, Registry, call, routes, until, until_within};
use serde_json::{Value, json};

const COUNTRY: &str = r#"{"type":"enum","name":"geo.Country","symbols":["CH","DE"]}"#;
const ORDER: &str = r#"{"type":"record","name":"shop.Order","fields":[
    {"name":"id","type":"long"},
    {"name":"price","type":{"type":"bytes","logicalType":"decimal","precision":20,"scale":2}},
    {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"to","type":["null","geo.Country"],"default":null},
    {"name":"lines","type":{"type":"array","items":{"type":"record","name":"Line","fields":[
        {"name":"sku","type":"string"},{"name":"weight","type":"double"}]}}}EXTRA]}"#;
const NOTES: &str = r#"syntax = "proto3"; package shop;
message Order { int64 id = 1; }
message Note { string text = 1; message Line { int64 number = 1; } Line line = 2; }"#;

const SEAT: &str = r#"{"type":"object","properties":{"row":{"type":"string","pattern":"^[A-Z]$"}},"required":["row"]}"#;
const TICKET: &str = r#"{"$schema":"http://json-schema.org/draft-07/schema#","title":"Ticket","type":"object",
    "properties":{"id":{"type":"integer","minimum":1},"price":{"type":"number"},"seats":{"type":"array","items":{"$ref":"seat.json"}}},
    "required":["id"],"additionalProperties":false}"#;

/// Topics and subjects whose names begin with a name, and a gateway between them.
struct Shop {
    kafka: &'static Kafka,
    registry: &'static Registry,
    topic: String,
    service: Recorder,
    gateway: Gateway,
}

impl Shop {
    fn open(name: &str) -> Self {
        let (kafka, registry) = (Kafka::start(), Registry::start());
        let topic = kafka.name(name);
        let names = [
            "",
            "-written",
            "-notes",
            "-notes-written",
            "-originals",
            "-copied",
            "-tickets",
            "-tickets-written",
            "-dead",
        ];
        let topics = names.map(|name| format!("{topic}{name}"));
        kafka.run(&[&["create"][..], &topics.each_ref().map(String::as_str)].concat());
        registry.run(kafka, &["register", &format!("{topic}-country"), "AVRO"], COUNTRY);
        for name in ["-value", "-originals-value"] {
            let reference = format!("geo.Country={topic}-country");
            let subject = format!("{topic}{name}");
            registry.run(kafka, &["register", &subject, "AVRO", &reference], &ORDER.replace("EXTRA", ""));
        }
        registry.run(kafka, &["register", &format!("{topic}-notes-value"), "PROTOBUF"], NOTES);
        registry.run(kafka, &["register", &format!("{topic}-seat"), "JSON"], SEAT);
        let reference = format!("seat.json={topic}-seat");
        registry.run(kafka, &["register", &format!("{topic}-tickets-value"), "JSON", &reference], TICKET);
        let service = Recorder::start(|_, _| (200, Duration::ZERO));
        let gateway = Self::start_gateway(kafka, &topic, &service, &registry.url, "at-least-once");
        Self { kafka, registry, topic, service, gateway }
    }

    fn start_gateway(kafka: &Kafka, topic: &str, service: &Recorder, url: &str, delivery: &str) -> Gateway {
        let listeners = format!(
            "public: {{ http: {{ bind: \"127.0.0.1:0\" }} }}\n  topics: {{ kafka: {{ brokers: \"{}\", group: {topic}, commit_interval: 100ms }} }}",
            kafka.brokers
        );
        let values: [(&str, &dyn std::fmt::Display); 4] =
            [("BROKERS", &kafka.brokers), ("REGISTRY", &url), ("BACKEND", &service.address), ("TOPIC", &topic)];
        let routes = routes("kafka-registry", &values);
        let routes = routes.replace("  deliver:\n", &format!("  deliver:\n    delivery: {delivery}\n"));
        Gateway::start_with(&listeners, &routes)
    }

    fn name(&self, suffix: &str) -> String {
        format!("{}{suffix}", self.topic)
    }

    fn run(&self, arguments: &[&str], input: &str) -> String {
        self.registry.run(self.kafka, arguments, input)
    }

    /// Sends a body to a route; its status, and the problem document of a failure.
    fn post(&self, path: &str, body: &str) -> (u16, Value) {
        let reply = call(&self.gateway.public(), "POST", path, body);
        (reply.status, serde_json::from_str(&reply.body).unwrap_or_default())
    }
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_registry_schemas_say_what_received_values_are() {
    let shop = Shop::open("typed");
    let first = r#"{"id":9007199254740993,"price":12345678901234567.10,"at":"2026-01-31T06:00:00.123+00:00","to":"CH","lines":[{"sku":"a","weight":0.1}]}"#;
    shop.run(&["write", &shop.topic, "AVRO"], first);
    // A newer version of the schema: each value is read by its own.
    let extra = r#", {"name":"note","type":["null","string","long"],"default":null}"#;
    let (subject, reference) = (shop.name("-value"), format!("geo.Country={}", shop.name("-country")));
    shop.run(&["register", &subject, "AVRO", &reference], &ORDER.replace("EXTRA", extra));
    let second = r#"{"id":2,"price":0.00,"at":"1969-12-31T23:59:59.999+00:00","to":null,"lines":[],"note":7}"#;
    shop.run(&["write", &shop.topic, "AVRO"], second);
    let notes = "{\"text\":\"héllo\",\"line\":{\"number\":\"9007199254740993\"}}\n{}";
    shop.run(&["write", &shop.name("-notes"), "PROTOBUF", "shop.Note"], notes);
    shop.run(&["write", &shop.name("-notes"), "PROTOBUF", "shop.Order"], r#"{"id":"5"}"#);
    until("all values to be delivered", || shop.service.processed().len() == 5);
    let (mut found, mut expected) = (
        shop.service.processed(),
        vec![
            r#"{"id":9007199254740993,"price":12345678901234567.10,"at":"2026-01-31T06:00:00.123Z","to":"CH","lines":[{"sku":"a","weight":0.1}]}"#,
            r#"{"id":2,"price":0.00,"at":"1969-12-31T23:59:59.999Z","to":null,"lines":[],"note":{"long":7}}"#,
            r#"{"text":"héllo","line":{"number":"9007199254740993"}}"#,
            "{}",
            r#"{"id":"5"}"#,
        ],
    );
    found.sort();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_registry_schemas_say_how_values_are_written() {
    let shop = Shop::open("written");
    let order =
        r#"{"id":9007199254740993,"price":1.5,"at":"2026-01-31T06:00:00.123Z","lines":[{"sku":"a","weight":1}]}"#;
    assert_eq!(shop.post("/orders", order).0, 202);
    let read = shop.run(&["read", &shop.name("-written"), "AVRO"], "");
    let expected = json!({ "id": 9_007_199_254_740_993_i64, "price": "1.50", "at": "2026-01-31T06:00:00.123000+00:00", "to": null, "lines": [{ "sku": "a", "weight": 1.0 }] });
    assert_eq!(serde_json::from_str::<Value>(&read).expect("JSON"), expected);
    assert_eq!(shop.kafka.read(&shop.name("-written"))[0]["key"], "9007199254740993");
    assert_eq!(shop.post("/notes", r#"{"text":"x","line":{"number":"7"}}"#).0, 202);
    let read = shop.run(&["read", &shop.name("-notes-written"), "PROTOBUF"], "");
    assert_eq!(serde_json::from_str::<Value>(&read).expect("JSON"), json!({ "text": "x", "line": { "number": "7" } }));
    for (path, body, field) in [
        ("/orders", order.replace("\"lines\"", "\"Lines\""), "Lines"),
        ("/orders", order.replace("\"price\":1.5,", ""), "price"),
        ("/orders", order.replace("1.5", "1.005"), "price"),
        ("/orders", order.replace("\"a\"", "5"), "lines[0].sku"),
        ("/notes", r#"{"text":5}"#.to_owned(), "text"),
    ] {
        let (status, problem) = shop.post(path, &body);
        assert_eq!((status, problem["field"].as_str()), (400, Some(field)), "{problem}");
    }
    // The newest version has a field without a default; the first one is still written where an operation names it.
    let (subject, reference) = (shop.name("-value"), format!("geo.Country={}", shop.name("-country")));
    shop.run(
        &["register", &subject, "AVRO", &reference],
        &ORDER.replace("EXTRA", r#",{"name":"by","type":"string","default":"shop"}"#),
    );
    assert_eq!(shop.post("/first", order).0, 202);
    let (status, problem) = shop.post("/lost", order);
    assert_eq!(status, 503, "a subject that does not exist: {problem}");
    assert_eq!(shop.kafka.read(&shop.name("-written")).len(), 2, "nothing else was written");
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_registry_json_is_checked_in_both_directions_and_passes_unchanged() {
    let shop = Shop::open("tickets");
    shop.run(&["write", &shop.name("-tickets"), "JSON"], r#"{"id":1,"price":1.5,"seats":[{"row":"A"}]}"#);
    until("the value to be delivered", || shop.service.processed().len() == 1);
    let id = shop.kafka.read(&shop.name("-tickets"))[0]["value"].as_str().expect("text").as_bytes()[..5].to_vec();
    // Values that do not match the schema are dead-lettered, whichever client framed them; the others keep their bytes.
    let framed = |json: &str| {
        let bytes = [&id[..], json.as_bytes()].concat();
        json!({ "value": format!("hex:{}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()) })
    };
    let exact = "{ \"id\": 12345678901234567890,\n \"price\": 1.50 }";
    shop.kafka.write(&shop.name("-tickets"), &[framed(r#"{"id":0}"#), framed(exact), framed(r#"{"id":1,"id":2}"#)]);
    until("all offsets to be committed", || shop.kafka.committed(&shop.topic, &shop.name("-tickets")) == 4);
    assert_eq!(shop.service.processed()[1..], [exact]);
    let letters = shop.kafka.read(&shop.name("-dead"));
    assert_eq!(letters.len(), 2, "{letters:?}");
    assert!(letters[0].to_string().contains("`id`: value is less than the minimum of 1"), "{}", letters[0]);
    // Towards a topic.
    assert_eq!(shop.post("/tickets", exact).0, 202);
    let written = shop.kafka.read(&shop.name("-tickets-written"));
    assert!(written[0]["value"].as_str().expect("text").ends_with(exact), "{}", written[0]);
    let read = shop.run(&["read", &shop.name("-tickets-written"), "JSON"], "");
    let read: Value = serde_json::from_str(&read).expect("JSON");
    assert_eq!(read, json!({ "id": 12_345_678_901_234_567_890_u64, "price": 1.5 }));
    for (body, field) in [
        (r#"{"id":"secret"}"#, "id"),
        (r#"{"price":1}"#, "id"),
        (r#"{"id":1,"seats":[{"row":"A"},{"row":"secret"}]}"#, "seats[1].row"),
        (r#"{"id":1,"seats":[{}]}"#, "seats[0].row"),
        (r#"{"id":1,"extra":2}"#, "extra"),
    ] {
        let (status, problem) = shop.post("/tickets", body);
        assert_eq!((status, problem["field"].as_str()), (400, Some(field)), "{problem}");
        assert!(!problem.to_string().contains("secret"), "{problem}");
    }
    assert_eq!(shop.kafka.read(&shop.name("-tickets-written")).len(), 1, "nothing else was written");
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_registry_values_that_cannot_be_read_are_dead_lettered() {
    let shop = Shop::open("unreadable");
    let order = r#"{"id":1,"price":0.00,"at":"2026-01-31T06:00:00+00:00","to":null,"lines":[]}"#;
    shop.run(&["write", &shop.name("-originals"), "AVRO"], order);
    let valid = shop.kafka.read(&shop.name("-originals"))[0]["value"].as_str().expect("bytes").to_owned();
    let hex = if let Some(hex) = valid.strip_prefix("hex:") {
        hex.to_owned()
    } else {
        valid.bytes().map(|byte| format!("{byte:02x}")).collect()
    };
    let value = |hex: String| json!({ "value": format!("hex:{hex}") });
    let records = [
        value("00ffffffff00".to_owned()),
        value("7b7d".to_owned()),
        value("01".to_owned() + &hex[2..]),
        value(hex[..hex.len() - 2].to_owned()),
        value(hex.clone() + "00"),
        value(hex.clone()),
        json!({ "key": "gone", "value": null }),
    ];
    shop.kafka.write(&shop.topic, &records);
    until("the valid value to be delivered", || shop.service.processed().len() == 1);
    until("all offsets to be committed", || shop.kafka.committed(&shop.topic, &shop.topic) == 7);
    let letters = shop.kafka.read(&shop.name("-dead"));
    let reasons: Vec<String> = letters
        .iter()
        .map(|letter| {
            let headers = letter["headers"].as_array().expect("headers");
            let reason = headers.iter().find(|header| header[0] == "crossdock-reason").expect("a reason");
            reason[1].as_str().expect("text").to_owned()
        })
        .collect();
    // A tombstone has no value to read, and no field `id`.
    assert_eq!(
        reasons,
        ["SCHEMA", "SCHEMA_NUMBER", "SCHEMA_NUMBER", "BODY_MALFORMED", "BODY_MALFORMED", "FIELD_MISSING"]
    );
    assert_eq!(letters[0]["value"], "hex:00ffffffff00", "as received");
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_registry_outages_delay_values_and_lose_none() {
    let shop = Shop::open("outage");
    outage(shop, "at-least-once");
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_registry_outages_lose_no_value_that_is_processed_at_most_once() {
    let shop = Shop::open("outage-once");
    outage(shop, "at-most-once");
}

fn outage(shop: Shop, delivery: &str) {
    let order =
        |id: usize| format!(r#"{{"id":{id},"price":0.00,"at":"2026-01-31T06:00:00+00:00","to":null,"lines":[]}}"#);
    let Shop { kafka, registry, topic, service, mut gateway } = shop;
    let write = |orders: &str| registry.run(kafka, &["write", &topic, "AVRO"], orders);
    let address = registry.url.trim_start_matches("http://").split('/').next().expect("an address").to_owned();
    let proxy = Proxy::start(address.parse().expect("an address"));
    let url = registry.url.replace(&address, &proxy.address.to_string());
    proxy.set(Network::Cut);
    // A gateway that knows no schema yet. The other one has to leave the group, which would wait for it.
    gateway.signal("TERM");
    gateway.wait();
    let gateway = Shop::start_gateway(kafka, &topic, &service, &url, delivery);
    write(&(1..=20).map(order).collect::<Vec<_>>().join("\n"));
    assert!(matches!(call(&gateway.public(), "POST", "/orders", &order(21)).status, 503 | 504));
    // After the timeout of a request to the registry.
    until_within(Duration::from_secs(30), "the outage to be reported", || {
        gateway.log().iter().any(|line| line.contains("SCHEMA_REGISTRY"))
    });
    assert!(service.processed().is_empty() && kafka.read(&format!("{topic}-dead")).is_empty());
    proxy.set(Network::Whole);
    until("all values to be delivered", || service.processed().len() == 20);
    assert_eq!(call(&gateway.public(), "POST", "/orders", &order(21)).status, 202);
    // Schemas that are known need no registry.
    proxy.set(Network::Cut);
    write(&order(22));
    until("a value of a known schema to be delivered", || service.processed().len() == 21);
    assert_eq!(call(&gateway.public(), "POST", "/orders", &order(23)).status, 202);
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_registry_values_of_the_same_schema_pass_unchanged() {
    let shop = Shop::open("passed");
    let order =
        r#"{"id":1,"price":-0.05,"at":"2026-01-31T06:00:00+00:00","to":"DE","lines":[{"sku":"é","weight":-0.0}]}"#;
    shop.run(&["write", &shop.name("-originals"), "AVRO"], order);
    until("the value to be copied", || !shop.kafka.read(&shop.name("-copied")).is_empty());
    let value = |topic: &str| shop.kafka.read(&shop.name(topic))[0]["value"].clone();
    assert_eq!(value("-copied"), value("-originals"));
}
