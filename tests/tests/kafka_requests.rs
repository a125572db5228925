//! Requests and replies over topics, with aiokafka and Spring Kafka.

use std::collections::BTreeSet;
use std::time::Duration;

use crossdock_tests::{Backend, Gateway, Kafka, Peer, Recorder, Reply, call, routes, run_peer, until};
use serde_json::{Value, json};

/// An HTTP listener, and a member of a group that only this test uses.
fn listeners(kafka: &Kafka, group: &str) -> String {
    format!(
        "public: {{ http: {{ bind: \"127.0.0.1:0\" }} }}\n  topics: {{ kafka: {{ brokers: \"{}\", group: {group}, commit_interval: 100ms }} }}",
        kafka.brokers
    )
}

/// A gateway that sends requests to a topic.
fn asking(kafka: &Kafka, topic: &str, replies: &str) -> Gateway {
    Gateway::start(&routes("kafka-ask", &[("BROKERS", &kafka.brokers), ("TOPIC", &topic), ("REPLIES", &replies)]))
}

fn ask(gateway: &Gateway, body: &str) -> Reply {
    call(&gateway.public(), "POST", "/ask", body)
}

/// The status and the reason of a problem document.
fn failure(answer: &Reply) -> (u16, String) {
    let problem: Value = serde_json::from_str(&answer.body).expect(&answer.body);
    (answer.status, problem["reason"].as_str().unwrap_or_default().to_owned())
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_replies_reach_their_callers_by_every_convention() {
    let kafka = Kafka::start();
    for (headers, partitions) in [("spring", ", partitions: [1, 2]"), ("zilla", ""), ("plain", ", partitions: [2]")] {
        let (topic, replies) = (kafka.name(&format!("asked-{headers}")), kafka.name(&format!("replies-{headers}")));
        kafka.run(&["create", &topic, &format!("{replies}:3")]);
        // Neither old records nor those of others are taken for replies.
        let foreign = json!({ "value": "{\"id\":\"foreign\"}", "headers": [["kafka_correlationId", "x"], ["correlation-id", "x"]] });
        kafka.write(&replies, &[foreign.clone(), foreign]);
        let _server = Peer::start(&mut kafka.peer(&["serve", &topic, headers]));
        let settings = format!("topic: {replies}, headers: {headers}{partitions}");
        let gateways = [asking(kafka, &topic, &settings), asking(kafka, &topic, &settings)];
        for round in 0..6 {
            let body = format!("{{\"id\":\"{round}\"}}");
            let answer = ask(&gateways[round % 2], &body);
            assert_eq!((answer.status, &*answer.body), (200, &*body), "{headers}");
            let timeout: u64 = answer.header("x-timeout").expect("a header").parse().expect("milliseconds");
            assert!((1..=1000).contains(&timeout), "{timeout}");
        }
        let is_reply = |record: &&Value| !record["value"].as_str().expect("text").contains("foreign");
        let used: Vec<_> =
            kafka.read(&replies).iter().filter(is_reply).map(|reply| reply["partition"].clone()).collect();
        let allowed = |partition: &Value| match headers {
            "spring" => partition == 1 || partition == 2,
            "plain" => partition == 2,
            _ => true,
        };
        assert!(used.len() == 6 && used.iter().all(allowed), "{headers}: {used:?}");
    }
}

/// Three instances of a cluster, and a topic of replies with two partitions: two instances have one of their own, the third shares.
#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_reply_partitions_are_divided_among_the_instances_of_a_cluster() {
    let kafka = Kafka::start();
    let (topic, replies) = (kafka.name("claimed"), kafka.name("claimed-replies"));
    kafka.run(&["create", &topic, &format!("{replies}:2")]);
    let _server = Peer::start(&mut kafka.peer(&["serve", &topic]));
    let settings = format!("topic: {replies}, partitions: cluster");
    let values: [(&str, &dyn std::fmt::Display); 3] =
        [("BROKERS", &kafka.brokers), ("TOPIC", &topic), ("REPLIES", &settings)];
    let mut instances = Gateway::start_cluster(3, &routes("kafka-ask", &values));
    let counts = || {
        let records = kafka.read(&replies);
        [0, 1].map(|partition| records.iter().filter(|record| record["partition"] == partition).count())
    };
    // The partition in which all replies to a gateway arrive.
    let partition_of = |gateway: &Gateway| {
        let before = counts();
        until("a reply", || ask(gateway, r#"{"id":"1"}"#).status == 200);
        assert_eq!(ask(gateway, r#"{"id":"2"}"#).status, 200);
        let after = counts();
        let used: Vec<_> = [0, 1].into_iter().filter(|partition| before[*partition] != after[*partition]).collect();
        assert_eq!(used.len(), 1, "{before:?} {after:?}");
        used[0] as u64
    };
    // What an instance has said last: its partition, and whether it is its own.
    let said = |gateway: &Gateway| {
        let lines = gateway.log();
        let line = lines.iter().rev().find(|line| line.contains("replies arrive in a partition"))?;
        let line: Value = serde_json::from_str(line).expect("JSON");
        let is_own = line["fields"]["message"].as_str()?.contains("this instance alone");
        Some((line["fields"]["partition"].as_u64()?, is_own))
    };
    let own = |instances: &[Gateway]| {
        let said: Vec<_> = instances.iter().filter_map(said).collect();
        said.iter().filter(|(_, is_own)| *is_own).map(|(partition, _)| *partition).collect::<BTreeSet<_>>()
    };
    for gateway in &instances {
        until("a reply", || ask(gateway, r#"{"id":"0"}"#).status == 200);
    }
    until("two instances to have a partition of their own", || own(&instances).len() == 2);
    for gateway in &instances {
        let used = partition_of(gateway);
        assert_eq!(said(gateway).map(|(partition, _)| partition), Some(used));
    }
    // The third one claims what a killed instance used, once its session has ended.
    let owner = instances.iter().position(|gateway| said(gateway).is_some_and(|(_, is_own)| is_own));
    drop(instances.remove(owner.expect("an owner")));
    until("both partitions to have an owner", || own(&instances).len() == 2);
    assert_eq!(partition_of(&instances[0]), 1 - partition_of(&instances[1]));
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_services_report_faults_and_late_replies_are_kept() {
    let kafka = Kafka::start();
    let (topic, replies, late) = (kafka.name("served"), kafka.name("served-replies"), kafka.name("served-late"));
    kafka.run(&["create", &topic, &replies, &late]);
    let _server = Peer::start(&mut kafka.peer(&["serve", &topic]));
    let gateway = asking(kafka, &topic, &format!("topic: {replies}, late: {late}"));
    assert_eq!(failure(&ask(&gateway, r#"{"id":"1","fault":5}"#)), (404, "TEST".to_owned()));
    for fault in ["silence", "late"] {
        let answer = ask(&gateway, &format!(r#"{{"id":"2","fault":"{fault}"}}"#));
        assert_eq!(failure(&answer), (504, "SERVICE_TIMEOUT".to_owned()));
    }
    until("the late reply to be kept", || kafka.run(&["count", &late]).trim() == "1");
    let kept = &kafka.read(&late)[0];
    assert_eq!((&kept["key"], &kept["value"]), (&json!("2"), &json!(r#"{"id":"2","fault":"late"}"#)));
    let sent = kafka.read(&replies);
    assert_eq!(kept["headers"], sent.last().expect("replies")["headers"], "with its correlation id");
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_requests_fail_at_once_while_replies_cannot_be_received() {
    let kafka = Kafka::start();
    let (topic, replies) = (kafka.name("deaf"), kafka.name("deaf-replies"));
    kafka.run(&["create", &topic]);
    let _server = Peer::start(&mut kafka.peer(&["serve", &topic]));
    let gateway = asking(kafka, &topic, &format!("topic: {replies}"));
    assert_eq!(failure(&ask(&gateway, r#"{"id":"1"}"#)), (503, "UNREACHABLE".to_owned()));
    assert_eq!(kafka.run(&["count", &topic]).trim(), "0", "the request is not sent");
    let services = gateway.admin_json("/api/v1/services").to_string();
    assert!(services.contains("the topic does not exist"), "{services}");
    kafka.run(&["create", &replies]);
    until("replies to arrive", || ask(&gateway, r#"{"id":"2"}"#).status == 200);
    // The same when the topic disappears later.
    kafka.run(&["delete", &replies]);
    until("the loss to be noticed", || failure(&ask(&gateway, r#"{"id":"3"}"#)).1 == "UNREACHABLE");
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_requests_are_answered_by_every_convention() {
    let kafka = Kafka::start();
    let backend = Backend::start();
    for (headers, reply_to, partition) in
        [("spring", "kafka_replyTopic", Some("2")), ("zilla", "zilla:reply-to", None), ("plain", "reply-to", Some("1"))]
    {
        let (topic, replies) = (kafka.name(&format!("answered-{headers}")), kafka.name(&format!("answers-{headers}")));
        kafka.run(&["create", &topic, &format!("{topic}-dead"), &format!("{replies}:3"), &format!("{replies}-other")]);
        let values: [(&str, &dyn std::fmt::Display); 4] =
            [("BACKEND", &backend.address), ("TOPIC", &topic), ("REPLIES", &replies), ("HEADERS", &headers)];
        let gateway = Gateway::start_with(&listeners(kafka, &topic), &routes("kafka-answer", &values));
        let ask = |to: &str, value: &str| {
            let mut command = vec!["ask", &topic, to, value, "application/json", headers];
            command.extend(partition);
            serde_json::from_str::<Value>(&kafka.run(&command)).expect("JSON")
        };
        let reply = ask(&replies, r#"{"n":1.10}"#);
        assert_eq!((&reply["key"], &reply["value"]), (&json!("key"), &json!(r#"{"n":1.10}"#)), "{headers}: {reply}");
        if let Some(partition) = partition {
            assert_eq!(reply["partition"].to_string(), partition);
        }
        let fault = ask(&replies, &digits(6000));
        let reported = fault["headers"].as_array().expect("headers");
        assert!(reported.contains(&json!(["crossdock-status", "3"])), "{headers}: {fault}");
        assert!(fault["value"].as_str().expect("text").contains("google.rpc.ErrorInfo"), "{fault}");
        // A topic that is not listed is refused, and the request kept.
        kafka.write(&topic, &[json!({ "value": "{}", "headers": [[reply_to, format!("{replies}-other")]] })]);
        until("the request to be kept", || kafka.run(&["count", &format!("{topic}-dead")]) == "1");
        let dead = kafka.read(&format!("{topic}-dead"));
        assert_eq!(dead.len(), 1, "{headers}: {dead:?}");
        assert!(dead[0]["headers"].as_array().expect("headers").contains(&json!(["crossdock-reason", "REPLY_TO"])));
        drop(gateway);
    }
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_requests_that_nobody_waits_for_are_not_carried_out() {
    let kafka = Kafka::start();
    let (topic, replies) = (kafka.name("expired"), kafka.name("expired-replies"));
    kafka.run(&["create", &topic, &format!("{topic}-dead"), &format!("{replies}:1:max.message.bytes=2000")]);
    let service = Recorder::start(|_, _| (200, Duration::ZERO));
    let request = |id: &str, timeout: &str, timestamp: u64, pad: usize| {
        json!({ "key": id, "value": format!("{{\"id\":\"{id}\",\"pad\":\"{}\"}}", digits(pad)), "timestamp": timestamp, "headers": [
            ["kafka_replyTopic", replies], ["kafka_correlationId", id], ["crossdock-timeout", timeout], ["content-type", "application/json"],
        ] })
    };
    #[expect(clippy::disallowed_methods, reason = "the age of records counts from the time of the system")]
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis();
    let now = u64::try_from(now).expect("not so far in the future");
    kafka.write(
        &topic,
        &[
            request("old", "1000", now - 5000, 0),
            request("unreadable", "soon", now, 0),
            request("large", "60000", now, 3000),
            request("good", "60000", now, 0),
        ],
    );
    let values: [(&str, &dyn std::fmt::Display); 4] =
        [("BACKEND", &service.address), ("TOPIC", &topic), ("REPLIES", &replies), ("HEADERS", &"spring")];
    let gateway = Gateway::start_with(&listeners(kafka, &topic), &routes("kafka-answer", &values));
    until("all requests to be settled", || kafka.committed(&topic, &topic) == 4);
    drop(gateway);
    let processed = service.processed();
    assert!(processed.len() == 2 && processed[0].contains("large") && processed[1].contains("good"), "{processed:?}");
    let replies: Vec<_> = kafka.read(&replies).iter().map(|reply| (reply["key"].clone(), reason(reply))).collect();
    // A reply that the brokers refuse is replaced by a fault.
    let expected = [("old", "EXPIRED"), ("unreadable", "TIMEOUT"), ("large", "ANSWER_REFUSED"), ("good", "")];
    assert_eq!(replies, expected.map(|(key, reason)| (json!(key), reason.to_owned())));
}

#[test]
#[ignore = "needs Kafka, which tests/run installs"]
fn kafka_spring_asks_and_answers() {
    let kafka = Kafka::start();
    let (asked, answered) = (kafka.name("spring-asked"), kafka.name("spring-answered"));
    let replies = [format!("{asked}-replies"), format!("{answered}-replies")];
    kafka.run(&["create", &asked, &answered, &format!("{answered}-dead"), &replies[0], &replies[1]]);
    // A responder of Spring answers the gateway.
    let responder = Peer::start(&mut kafka.spring(&["serve", &asked]));
    let gateway = asking(kafka, &asked, &format!("topic: {}", replies[0]));
    let mut answer = None;
    until("the responder to join its group", || {
        answer = Some(ask(&gateway, r#"{"id":"1","n":1.10}"#)).filter(|answer| answer.status == 200);
        answer.is_some()
    });
    assert_eq!(answer.expect("an answer").body, r#"{"id":"1","n":1.10}"#);
    drop((gateway, responder));
    // The gateway answers Spring's ReplyingKafkaTemplate.
    let backend = Backend::start();
    let values: [(&str, &dyn std::fmt::Display); 4] =
        [("BACKEND", &backend.address), ("TOPIC", &answered), ("REPLIES", &replies[1]), ("HEADERS", &"spring")];
    let gateway = Gateway::start_with(&listeners(kafka, &answered), &routes("kafka-answer", &values));
    let (is_success, output) = run_peer(&mut kafka.spring(&["ask", &answered, &replies[1], r#"{"n":2.20}"#]));
    assert!(is_success && output.trim() == r#"{"n":2.20}"#, "{output}");
    drop(gateway);
}

/// Text that compresses badly.
fn digits(len: usize) -> String {
    let mut text: String = (0..len as u64 / 10).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_string()).collect();
    text.truncate(len);
    text
}

/// The reason of the fault that a reply reports.
fn reason(reply: &Value) -> String {
    let headers = reply["headers"].as_array().expect("headers");
    let found = headers.iter().find(|header| header[0] == "crossdock-reason");
    found.map_or_else(String::new, |header| header[1].as_str().expect("text").to_owned())
}
