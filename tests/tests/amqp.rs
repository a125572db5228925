//! The AMQP adapter with RabbitMQ and pika.

use crossdock_tests::{Backend, Gateway, Peer, RabbitMq, call, routes, until};
use serde_json::Value;

/// Parses pika's output: one JSON document per line.
fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

fn listeners(broker: &RabbitMq) -> String {
    format!("public: {{ http: {{ bind: \"127.0.0.1:0\" }} }}\n  broker: {{ amqp: {{ url: \"{}\" }} }}", broker.url)
}

fn is_empty(broker: &RabbitMq, queue: &str) -> bool {
    broker.run(&["depth", queue]) == "0"
}

#[test]
#[ignore = "needs RabbitMQ, which tests/run installs"]
fn rabbitmq_stores_messages_accepted_over_http() {
    let broker = RabbitMq::start();
    let queue = broker.name("intake");
    broker.run(&["declare", &queue]);
    let routes = routes("amqp-intake", &[("BROKER", &broker.url), ("QUEUE", &queue)]);
    let gateway = Gateway::start_with_files(&listeners(broker), &routes, &[]);
    let body = "{ \"n\" : 1.10, \"big\": 18446744073709551615 }";
    let answer = call(&gateway.public(), "POST", "/orders", body);
    assert_eq!(answer.status, 202, "{}", answer.body);
    let messages = lines(&broker.run(&["drain", &queue, "1"]));
    assert_eq!(messages[0]["body"], body, "byte for byte");
    assert_eq!((&messages[0]["content_type"], &messages[0]["delivery_mode"]), (&"application/json".into(), &2.into()));
    assert_eq!(messages[0]["expiration"], Value::Null, "an accepted message never expires");
    assert!(messages[0]["message_id"].as_str().is_some_and(|id| !id.is_empty()));
    for (path, reason, text) in [
        ("/lost", "UNROUTABLE", "there is no queue"),
        ("/announce", "UNROUTABLE", "no queue is bound to"),
        ("/gone", "NO_EXCHANGE", "cannot be used"),
    ] {
        let answer = call(&gateway.public(), "POST", path, "{}");
        assert_eq!(answer.status, 503, "{path}");
        assert!(answer.body.contains(reason) && answer.body.contains(text), "{path}: {}", answer.body);
    }
    assert_eq!(
        call(&gateway.public(), "POST", "/orders", body).status,
        202,
        "missing queues do not affect other operations"
    );
}

#[test]
#[ignore = "needs RabbitMQ, which tests/run installs"]
fn rabbitmq_returned_messages_fail_their_own_caller() {
    let broker = RabbitMq::start();
    let queue = broker.name("mixed");
    broker.run(&["declare", &queue]);
    let routes = routes("amqp-returns", &[("BROKER", &broker.url), ("QUEUE", &queue), ("SHORT_QUEUE", &queue)]);
    let gateway = Gateway::start_with_files(&listeners(broker), &routes, &[]);
    let callers: Vec<_> = (0..16)
        .map(|caller| {
            let address = gateway.public();
            std::thread::spawn(move || {
                for number in 0..50 {
                    let (path, status) = if (caller + number) % 3 == 0 { ("/lost", 503) } else { ("/good", 202) };
                    assert_eq!(call(&address, "POST", path, "{}").status, status, "{path}, message {number}");
                }
            })
        })
        .collect();
    for caller in callers {
        caller.join().expect("each caller gets its own result");
    }
    let good = (0..16).flat_map(|caller| (0..50).map(move |number| caller + number)).filter(|sum| sum % 3 != 0).count();
    assert_eq!(broker.run(&["depth", &queue]), good.to_string());
}

#[test]
#[ignore = "needs RabbitMQ, which tests/run installs"]
fn rabbitmq_returned_messages_fail_their_own_caller_while_others_time_out() {
    const CALLERS: usize = 24;
    const CALLS: usize = 150;
    let broker = RabbitMq::start();
    let (queue, short_queue) = (broker.name("patient"), broker.name("hasty"));
    broker.run(&["declare", &queue, &short_queue]);
    let routes = routes("amqp-returns", &[("BROKER", &broker.url), ("QUEUE", &queue), ("SHORT_QUEUE", &short_queue)]);
    let gateway = Gateway::start_with_files(&listeners(broker), &routes, &[]);
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let address = gateway.public();
            std::thread::spawn(move || {
                let mut counts = (0, 0, 0);
                for number in 0..CALLS {
                    let kind = (caller + number) % 4;
                    let path = ["/good", "/lost", "/good-soon", "/lost-soon"][kind];
                    let status = call(&address, "POST", path, "{}").status;
                    let allowed: &[u16] = [&[202][..], &[503], &[202, 503, 504], &[503, 504]][kind];
                    assert!(allowed.contains(&status), "{path}, message {number}: {status}");
                    counts.0 += usize::from(path == "/good");
                    counts.1 += usize::from(path == "/good-soon" && status == 202);
                    counts.2 += usize::from(status == 504);
                }
                counts
            })
        })
        .collect();
    let (mut good, mut accepted, mut late) = (0, 0, 0);
    for caller in callers {
        let counts = caller.join().expect("each caller gets its own result");
        (good, accepted, late) = (good + counts.0, accepted + counts.1, late + counts.2);
    }
    assert_eq!(broker.run(&["depth", &queue]), good.to_string());
    let arrived: usize = broker.run(&["depth", &short_queue]).parse().expect("a number");
    assert!((accepted..=CALLERS * CALLS / 4 + CALLERS).contains(&arrived), "{accepted} accepted, {arrived} arrived");
    assert!(late > 0, "some calls time out before the confirm");
    // All credit has been released.
    assert_eq!(call(&gateway.public(), "POST", "/good", "{}").status, 202);
}

#[test]
#[ignore = "needs RabbitMQ, which tests/run installs"]
fn rabbitmq_services_reply_to_http_calls() {
    let broker = RabbitMq::start();
    let queue = broker.name("stock");
    let _server = Peer::start(&mut broker.peer(&["serve", &queue]));
    let routes = routes("amqp-call", &[("BROKER", &broker.url), ("QUEUE", &queue)]);
    let gateway = Gateway::start_with_files(&listeners(broker), &routes, &[]);
    // The first call may need longer than the timeout, as it waits for the connection.
    until("a reply in time", || call(&gateway.public(), "POST", "/reserve", "{}").status == 200);
    let callers: Vec<_> = (0..8)
        .map(|caller| {
            let address = gateway.public();
            std::thread::spawn(move || {
                for number in 0..25 {
                    let body = format!("{{ \"caller\": {caller}, \"number\": {number}.0 }}");
                    let answer = call(&address, "POST", "/reserve", &body);
                    assert_eq!((answer.status, answer.body), (200, body));
                }
            })
        })
        .collect();
    for caller in callers {
        caller.join().expect("each caller gets its own reply");
    }
    let fault = call(&gateway.public(), "POST", "/reserve", "{\"fault\":5}");
    assert!(fault.status == 404 && fault.body.contains("asked to fail"), "{} {}", fault.status, fault.body);
    assert_eq!(call(&gateway.public(), "POST", "/reserve", "{\"fault\":\"silence\"}").status, 504);
    assert_eq!(call(&gateway.public(), "POST", "/reserve", "{}").status, 200, "later calls succeed");
    assert_eq!(call(&gateway.public(), "POST", "/nobody", "{}").status, 503, "without waiting for the timeout");
}

fn consumer_routes(backend: &Backend, queue: &str, operation: &str, entry: &str) -> String {
    routes(
        "amqp-consumer",
        &[("BACKEND", &backend.address), ("OPERATION", &operation), ("QUEUE", &queue), ("ENTRY", &entry)],
    )
}

#[test]
#[ignore = "needs RabbitMQ, which tests/run installs"]
fn rabbitmq_messages_are_acknowledged_after_the_http_call() {
    let broker = RabbitMq::start();
    let (queue, backend) = (broker.name("work"), Backend::start());
    broker.run(&["declare", &queue]);
    broker.run(&["publish", &queue, "{\"n\":#}", "300"]);
    let _gateway = Gateway::start_with_files(
        &listeners(broker),
        &consumer_routes(&backend, &queue, "/echo", "reject: discard"),
        &[],
    );
    until("all messages to be consumed", || backend.requests() == 300 && is_empty(broker, &queue));
}

#[test]
#[ignore = "needs RabbitMQ, which tests/run installs"]
fn rabbitmq_failing_messages_are_dead_lettered_unchanged() {
    let broker = RabbitMq::start();
    let (queue, backend) = (broker.name("poison"), Backend::start());
    let dead = format!("{queue}-dead");
    broker.run(&["declare", &queue, &dead]);
    let routes = routes("amqp-poison", &[("BACKEND", &backend.address), ("QUEUE", &queue), ("DEAD", &dead)]);
    let _gateway = Gateway::start_with_files(&listeners(broker), &routes, &[]);
    for (body, status, reason, attempts) in [
        ("{ \"code\" : \"422\" }", 3, "SERVICE_STATUS", 1),
        ("{ \"code\" : \"500\" }", 13, "SERVICE_STATUS", 3),
        ("{ \"code\" : \"404\" }", 5, "SERVICE_STATUS", 1),
        ("not JSON", 3, "BODY_MALFORMED", 1),
    ] {
        broker.run(&["publish", &queue, body, "1", "x-tenant=t-1", "crossdock-status=0"]);
        let output = broker.run(&["drain", &dead, "1"]);
        let letter = lines(&output).pop().unwrap_or_else(|| panic!("{body}: no dead letter"));
        assert_eq!(letter["body"], body, "the original bytes");
        let headers = &letter["headers"];
        assert_eq!((&headers["x-tenant"], &headers["crossdock-queue"]), (&"t-1".into(), &queue.as_str().into()));
        assert_eq!(
            (&headers["crossdock-status"], &headers["crossdock-attempts"]),
            (&status.into(), &attempts.into()),
            "{letter}"
        );
        assert_eq!(headers["crossdock-reason"], reason, "{letter}");
    }
    until("the queue to be empty", || is_empty(broker, &queue));
}

#[test]
#[ignore = "needs RabbitMQ, which tests/run installs"]
fn rabbitmq_dead_letters_are_not_copied_to_other_queues() {
    let broker = RabbitMq::start();
    let (queue, backend) = (broker.name("copied"), Backend::start());
    let dead = format!("{queue}-dead");
    broker.run(&["declare", &queue, &dead]);
    let routes = consumer_routes(&backend, &queue, "/status/404", &format!("dead_letter: {dead}"));
    let _gateway = Gateway::start_with_files(&listeners(broker), &routes, &[]);
    // The CC header makes the broker route the message to the queue a second time.
    broker.run(&["publish", &queue, "{}", "1", &format!("CC=[\"{queue}\"]"), "x-delivery-count=10"]);
    broker.run(&["publish", &queue, "{}", "1"]);
    let letters = lines(&broker.run(&["drain", &dead, "2"]));
    assert!(letters.iter().all(|letter| letter["headers"]["crossdock-attempts"] == 1), "{letters:?}");
    assert!(letters.iter().all(|letter| letter["headers"]["CC"] == Value::Null), "{letters:?}");
    until("the queue to be empty", || is_empty(broker, &queue));
    assert!(is_empty(broker, &dead) && backend.requests() == 2, "{} attempts", backend.requests());
}

#[test]
#[ignore = "needs RabbitMQ, which tests/run installs"]
fn rabbitmq_messages_of_at_most_once_routes_are_not_retried() {
    let broker = RabbitMq::start();
    let (queue, backend) = (broker.name("once"), Backend::start());
    broker.run(&["declare", &queue]);
    let routes = routes("amqp-at-most-once", &[("BACKEND", &backend.address), ("QUEUE", &queue)]);
    let gateway = Gateway::start_with_files(&listeners(broker), &routes, &[]);
    broker.run(&["publish", &queue, "{\"n\":#}", "20"]);
    until("all to be attempted", || backend.requests() == 20 && is_empty(broker, &queue));
    drop(gateway);
    let _gateway = Gateway::start_with_files(&listeners(broker), &routes, &[]);
    broker.run(&["publish", &queue, "{\"n\":#}", "1"]);
    until("one more attempt", || backend.requests() == 21 && is_empty(broker, &queue));
}

#[test]
#[ignore = "needs RabbitMQ, which tests/run installs"]
fn rabbitmq_requests_get_a_reply() {
    let broker = RabbitMq::start();
    let (queue, backend) = (broker.name("asked"), Backend::start());
    broker.run(&["declare", &queue]);
    let routes = consumer_routes(&backend, &queue, "/echo", "reject: discard");
    let gateway = Gateway::start_with_files(&listeners(broker), &routes, &[]);
    let body = "{ \"n\" : 1.10 }";
    let reply: Value = serde_json::from_str(&broker.run(&["call", &queue, body])).expect("a reply");
    assert_eq!((&reply["body"], &reply["correlation_id"]), (&body.into(), &"c-1".into()));
    drop(gateway);
    let routes = consumer_routes(&backend, &queue, "/status/404", "reject: discard");
    let _gateway = Gateway::start_with_files(&listeners(broker), &routes, &[]);
    let reply: Value = serde_json::from_str(&broker.run(&["call", &queue, body])).expect("a reply");
    assert_eq!(reply["headers"]["crossdock-status"], 5, "{reply}");
    assert!(reply["body"].as_str().is_some_and(|body| body.contains("google.rpc.ErrorInfo")), "{reply}");
}
