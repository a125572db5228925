//! AMQP interoperability with clients and services of aio-pika and amqplib.

use std::process::Command;

use crossdock_tests::{Backend, Gateway, Peer, RabbitMq, call, routes, run_peer};

type Library = fn(&RabbitMq, &[&str]) -> Command;

#[test]
#[ignore = "needs RabbitMQ, which tests/run installs"]
fn rabbitmq_messages_interoperate_with_aio_pika_and_amqplib() {
    let libraries: [(&str, Library); 2] = [("aio", RabbitMq::aio_pika), ("node", RabbitMq::amqplib)];
    let (broker, backend) = (RabbitMq::start(), Backend::start());
    for (name, library) in libraries {
        let queue = |part: &str| broker.name(&format!("{name}-{part}"));
        let run = |arguments: &[&str]| {
            let (is_success, output) = run_peer(&mut library(broker, arguments));
            assert!(is_success, "{name} {arguments:?}: {output}");
            output.trim().to_owned()
        };
        broker.run(&["declare", &queue("asked"), &queue("told"), &queue("taken"), &queue("dead")]);
        let _server = Peer::start(&mut library(broker, &["serve", &queue("served")]));
        let routes = routes(
            "amqp-peers",
            &[
                ("BACKEND", &backend.address),
                ("BROKER", &broker.url),
                ("SERVED", &queue("served")),
                ("TAKEN", &queue("taken")),
                ("ASKED", &queue("asked")),
                ("TOLD", &queue("told")),
                ("DEAD", &queue("dead")),
            ],
        );
        let listeners = format!(
            "public: {{ http: {{ bind: \"127.0.0.1:0\" }} }}\n  broker: {{ amqp: {{ url: \"{}\" }} }}",
            broker.url
        );
        let gateway = Gateway::start_with(&listeners, &routes);
        let body = "{ \"n\" : 1.10, \"ü\": \"085\" }";
        assert_eq!(call(&gateway.public(), "POST", "/ask", body).body, body, "{name}: HTTP to an AMQP service");
        assert_eq!(run(&["call", &queue("asked"), body]), body, "{name}: an AMQP client to HTTP");
        run(&["publish", &queue("told"), body]);
        assert_eq!(run(&["take", &queue("taken")]), body, "{name}: one-way from queue to queue");
    }
}
