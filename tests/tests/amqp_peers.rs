//! The gateway between clients and services that speak AMQP by libraries of others: aio-pika and amqplib.

use std::process::Command;

use crossdock_tests::{Backend, Gateway, Peer, RabbitMq, call, judged};

type Library = fn(&RabbitMq, &[&str]) -> Command;

#[test]
#[ignore = "needs RabbitMQ, which tests/run installs"]
fn rabbitmq_clients_and_services_of_other_libraries() {
    let libraries: [(&str, Library); 2] = [("aio", RabbitMq::aio_pika), ("node", RabbitMq::amqplib)];
    let (broker, backend) = (RabbitMq::start(), Backend::start());
    for (name, library) in libraries {
        let queue = |part: &str| broker.name(&format!("{name}-{part}"));
        let said = |arguments: &[&str]| {
            let (good, told) = judged(&mut library(broker, arguments));
            assert!(good, "{name} {arguments:?}: {told}");
            told.trim().to_owned()
        };
        broker.run(&["declare", &queue("asked"), &queue("told"), &queue("taken"), &queue("dead")]);
        let _server = Peer::start(&mut library(broker, &["serve", &queue("served")]));
        let routes = format!(
            "version: 1
services:
  web: {{ http: {{ url: \"http://{}\", operations: {{ echo: {{ post: /echo }} }} }} }}
  there: {{ amqp: {{ url: \"{}\", operations: {{ ask: {{ queue: {}, reply: true }}, tell: {{ queue: {} }} }} }} }}
routes:
  out: {{ from: {{ http: {{ listen: public, post: /ask }} }}, steps: [ {{ call: there.ask }} ] }}
  in: {{ from: {{ amqp: {{ listen: broker, queue: {}, dead_letter: {dead}, reply_to: [] }} }}, steps: [ {{ call: web.echo }} ] }}
  through: {{ from: {{ amqp: {{ listen: broker, queue: {}, dead_letter: {dead} }} }}, steps: [ {{ send: there.tell }} ] }}
",
            backend.address,
            broker.url,
            queue("served"),
            queue("taken"),
            queue("asked"),
            queue("told"),
            dead = queue("dead"),
        );
        let listeners = format!(
            "public: {{ http: {{ bind: \"127.0.0.1:0\" }} }}\n  broker: {{ amqp: {{ url: \"{}\" }} }}",
            broker.url
        );
        let gateway = Gateway::start_with(&listeners, &routes);
        let body = "{ \"n\" : 1.10, \"ü\": \"085\" }";
        assert_eq!(call(&gateway.public(), "POST", "/ask", body).body, body, "{name}: a service over there");
        assert_eq!(said(&["call", &queue("asked"), body]), body, "{name}: a client over there");
        said(&["publish", &queue("told"), body]);
        assert_eq!(said(&["take", &queue("taken")]), body, "{name}: a message from there to there");
    }
}
