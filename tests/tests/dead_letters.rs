//! `crossdock dlq` with RabbitMQ and Kafka.

use std::path::Path;
use std::process::{Command, Output};

use crossdock_tests::{Gateway, Kafka, RabbitMq, crossdock, until};
use serde_json::{Value, json};

fn dlq(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(crossdock());
    command.arg("dlq").args(arguments).arg("--config").arg(folder).output().expect("it runs")
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
#[ignore = "needs RabbitMQ, which tests/run installs"]
fn rabbitmq_dead_letters_are_listed_shown_replayed_and_dropped() {
    let broker = RabbitMq::start();
    let (queue, dead, other) = (broker.name("looked"), broker.name("looked-dead"), broker.name("looked-other"));
    let twin = broker.name("looked-twin");
    broker.run(&["declare", &queue, &dead, &other, &twin]);
    // Two listeners of one broker share its queues.
    let listeners =
        format!("broker: {{ amqp: {{ url: \"{0}\" }} }}\n  twin: {{ amqp: {{ url: \"{0}\" }} }}", broker.url);
    let routes = format!(
        "version: 1
services:
  out: {{ amqp: {{ url: \"{}\", operations: {{ put: {{ queue: {other} }} }} }} }}
routes:
  take:
    from: {{ amqp: {{ listen: broker, queue: {queue}, dead_letter: {dead}, max: 100B }} }}
    steps: [ {{ require: {{ that: req.n > 2, message: \"n is ${{req.n}}\" }} }}, {{ send: out.put }} ]
  twin:
    from: {{ amqp: {{ listen: twin, queue: {twin}, dead_letter: {dead} }} }}
    steps: [ {{ send: out.put }} ]
",
        broker.url
    );
    let mut gateway = Gateway::start_with(&listeners, &routes);
    broker.run(&["publish", &queue, "{\"n\": #}", "5", "x-kept=yes", "Crossdock-Queue=elsewhere"]);
    broker.run(&["publish", &queue, &format!("{{\"n\": \"{}\"}}", "x".repeat(100)), "1"]);
    // Not dead-lettered by the gateway; it claims to come from a queue that no route consumes.
    broker.run(&["publish", &dead, "foreign", "1", &format!("crossdock-queue={other}")]);
    until("all messages to be settled", || {
        broker.run(&["depth", &dead]) == "5" && broker.run(&["depth", &other]) == "2"
    });
    gateway.signal("TERM");
    assert_eq!(gateway.wait().code, Some(0));

    let folder = gateway.folder();
    let list = || -> Vec<Value> {
        let lines = stdout(&dlq(folder, &["list", "--json"]));
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let letters = list();
    assert_eq!(letters.len(), 5);
    let first = letters.iter().find(|letter| letter["id"] == format!("{queue}-1")).expect("the second message");
    assert_eq!((&first["reason"], &first["code"]), (&"REQUIRED".into(), &"invalid_argument".into()));
    assert_eq!((&first["error"], &first["attempts"]), (&"n is 1".into(), &1.into()));
    assert_eq!(first["source"], queue);
    assert_eq!(list().len(), 5, "listing removes nothing");
    let table = stdout(&dlq(folder, &["list", "--reason", "BODY_TOO_LARGE"]));
    assert!(table.contains("BODY_TOO_LARGE") && table.ends_with("1 dead letters\n"), "{table}");
    assert!(!table.contains("REQUIRED"), "{table}");

    let whole: Value = serde_json::from_str(&stdout(&dlq(folder, &["show", &format!("{queue}-1")]))).expect("JSON");
    assert_eq!((&whole["body"], &whole["headers"][0][1]), (&"{\"n\": 1}".into(), &"yes".into()));
    assert_eq!(stdout(&dlq(folder, &["show", "--body", &format!("{queue}-2")])), "{\"n\": 2}");

    assert_eq!(stdout(&dlq(folder, &["replay", "--reason", "REQUIRED"])), "3 replayed\n");
    let output = broker.run(&["drain", &queue, "3"]);
    let mut replayed: Vec<Value> = output.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    // Messages in flight at once were dead-lettered in any order.
    replayed.sort_by_key(|message| message["body"].to_string());
    let bodies: Vec<&str> = replayed.iter().filter_map(|message| message["body"].as_str()).collect();
    assert_eq!(bodies, ["{\"n\": 0}", "{\"n\": 1}", "{\"n\": 2}"]);
    let headers: Vec<&str> = replayed[0]["headers"].as_object().expect("headers").keys().map(String::as_str).collect();
    assert_eq!((headers, &replayed[0]["message_id"]), (vec!["x-kept"], &format!("{queue}-0").into()));

    let foreign = dlq(folder, &["replay", &format!("{dead}-0")]);
    let problem = String::from_utf8_lossy(&foreign.stderr).into_owned();
    assert!(foreign.status.code() == Some(1) && problem.contains("no route consumes"), "{problem}");
    assert_eq!(dlq(folder, &["drop", "nothing-of-that-name"]).status.code(), Some(1));
    assert_eq!(dlq(folder, &["drop"]).status.code(), Some(2), "a selection is required");
    assert_eq!(list().len(), 2, "both remain");
    assert_eq!(stdout(&dlq(folder, &["drop", "--all"])), "2 deleted\n");
    assert_eq!(list().len(), 0);
}

#[test]
#[ignore = "needs RabbitMQ, which tests/run installs"]
fn rabbitmq_a_missing_dead_letter_queue_does_not_hide_the_others() {
    let broker = RabbitMq::start();
    let (missing, there) = (broker.name("dlq-a-missing"), broker.name("dlq-b-there"));
    broker.run(&["declare", &there]);
    broker.run(&["publish", &there, "{}", "2"]);
    let folder = tempfile::tempdir().expect("a folder");
    let settings = format!("version: 1\nlisteners: {{ broker: {{ amqp: {{ url: \"{}\" }} }} }}\n", broker.url);
    std::fs::write(folder.path().join("crossdock.yaml"), settings).expect("settings");
    std::fs::create_dir(folder.path().join("routes")).expect("a folder");
    let route = |queue: &str| {
        format!(
            "  {queue}: {{ from: {{ amqp: {{ listen: broker, queue: {queue}-from, dead_letter: {queue} }} }}, steps: [ {{ respond: {{}} }} ] }}\n"
        )
    };
    let routes = format!("version: 1\nroutes:\n{}{}", route(&missing), route(&there));
    std::fs::write(folder.path().join("routes/routes.yaml"), routes).expect("routes");
    for (command, expected) in [(vec!["list"], "2 dead letters\n"), (vec!["drop", "--all"], "2 deleted\n")] {
        let output = dlq(folder.path(), &command);
        let (text, problem) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(text.ends_with(expected), "{text} {problem}");
        assert!(problem.contains(&missing) && output.status.code() == Some(1), "{problem}");
    }
    assert_eq!(broker.run(&["depth", &there]), "0");
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_dead_letters_are_listed_shown_replayed_and_dropped() {
    let kafka = Kafka::start();
    let (topic, dead, out) = (kafka.name("letters"), kafka.name("letters-dead"), kafka.name("letters-out"));
    kafka.run(&["create", &format!("{topic}:3"), &dead, &out]);
    let listeners =
        format!("topics: {{ kafka: {{ brokers: \"{}\", group: {topic}, commit_interval: 100ms }} }}", kafka.brokers);
    let routes = format!(
        "version: 1
services:
  out: {{ kafka: {{ brokers: \"{}\", operations: {{ put: {{ topic: {out} }} }} }} }}
routes:
  take:
    from: {{ kafka: {{ listen: topics, topic: {topic}, format: json, dead_letter: {dead} }} }}
    steps: [ {{ require: {{ that: req.n > 2, message: \"n is ${{req.n}}\" }} }}, {{ send: out.put }} ]
",
        kafka.brokers
    );
    let record = |n: u32| json!({ "key": "k", "value": format!("{{\"n\": {n}}}"), "headers": [["x-kept", "yes"]], "partition": 1, "timestamp": 1_700_000_000_000_u64 });
    let mut gateway = Gateway::start_with(&listeners, &routes);
    kafka.write(&topic, &(0..5).map(record).collect::<Vec<_>>());
    // By Spring's recoverer, from a topic that no route consumes.
    let spring = [["kafka_dlt-original-topic", "elsewhere"], ["kafka_dlt-exception-message", "it failed"]];
    kafka.write(&dead, &[json!({ "key": "k", "value": null, "headers": spring })]);
    until("all records to be settled", || kafka.committed(&topic, &topic) == 5 && kafka.run(&["count", &dead]) == "4");
    let folder = gateway.folder();
    let list = || -> Vec<Value> {
        let lines = stdout(&dlq(folder, &["list", "--json"]));
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let letters = list();
    assert_eq!(letters.len(), 4);
    let id = |letter: &Value| letter["id"].as_str().expect("text").to_owned();
    let of = |n: u32| letters.iter().find(|letter| letter["error"] == format!("n is {n}")).expect("a dead letter");
    assert_eq!((&of(1)["reason"], &of(1)["source"]), (&"REQUIRED".into(), &topic.as_str().into()));
    let foreign = letters.iter().find(|letter| letter["source"] == "elsewhere").expect("Spring's");
    assert_eq!(foreign["error"], "it failed");
    let shown: Value = serde_json::from_str(&stdout(&dlq(folder, &["show", &id(of(1))]))).expect("JSON");
    assert_eq!((&shown["body"], &shown["headers"][0][1]), (&"{\"n\": 1}".into(), &"yes".into()));

    // Replayed records keep all but the reason; they fail again and are dead-lettered with the number of replays.
    assert_eq!(stdout(&dlq(folder, &["replay", &id(of(1))])), "1 replayed\n");
    until("the record to fail again", || list().len() == 4);
    let again = kafka.read(&topic).into_iter().find(|record| record["offset"] == 5).expect("the replayed record");
    let sent = record(1);
    for field in ["key", "value", "partition", "timestamp"] {
        assert_eq!(again[field], sent[field], "{field}");
    }
    assert_eq!(again["headers"], json!([["x-kept", "yes"], ["crossdock-replays", "1"]]));
    assert!(list().iter().all(|letter| id(letter) != id(of(1))), "what was replayed is not listed");
    let last = kafka.read(&dead).pop().expect("a dead letter");
    assert!(last["headers"].as_array().expect("headers").contains(&json!(["crossdock-replays", "1"])), "{last}");

    let refused = dlq(folder, &["replay", &id(foreign)]);
    let problem = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && problem.contains("no route consumes"), "{problem}");
    assert_eq!(stdout(&dlq(folder, &["drop", &id(of(0))])), "1 deleted\n");
    assert_eq!(list().len(), 3);
    // A replay that always fails ends.
    let endless = json!({ "key": "k", "value": "{\"n\": 0}", "headers": [["crossdock-replays", "10"]] });
    kafka.write(&topic, &[endless]);
    until("the record to be dead-lettered", || list().len() == 4);
    let newest = id(list().last().expect("a dead letter"));
    let refused = dlq(folder, &["replay", &newest]);
    let problem = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && problem.contains("replayed 10 times"), "{problem}");
    assert_eq!(stdout(&dlq(folder, &["drop", "--all"])), "4 deleted\n");
    assert_eq!(list().len(), 0);
    gateway.signal("TERM");
    assert_eq!(gateway.wait().code, Some(0));
}
