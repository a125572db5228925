//! The rules that every adapter must follow, as checks that it runs against itself.
//!
//! `tests/contract.rs` of an adapter implements [`Subject`] and calls [`run`]. A check panics with the rule that was violated.
//!
//! 1. Body and listed headers of a message arrive unchanged, byte for byte.
//! 2. A fault reaches the caller with its code, and does not affect other calls.
//! 3. Concurrent calls are independent: each gets its own reply.
//! 4. Without a server, the fault is UNAVAILABLE and says that the message was not processed.
//! 5. A port stays usable after a call was dropped.
//! 6. A listener that is stopped ends, and serves nothing afterwards.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crossdock_message::{Body, ByteString, Code, Fault, Format, Limits, Message, Record, RequestContext, Retry};
use crossdock_ports::{
    AdapterError, Admission, EntrySpec, Exchange, Head, Inbound, Ingress, LocalFuture, OpenIngress, OperationSpec,
    Outbound, Outcome,
};
use crossdock_settings::{Diagnostics, NoPlaceholders, Node, Reader, parse};
use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

/// The header that the suite sends through the adapter.
pub const HEADER: &str = "x-contract";

/// Reads settings from a text, like an [`Adapter`](crossdock_ports::Adapter)s do.
///
/// # Panics
/// With the errors in the settings.
pub fn read_settings<T>(text: &str, read: impl FnOnce(&Node, &mut Reader<'_>) -> Option<T>) -> T {
    let mut diagnostics = Diagnostics::new();
    let source = diagnostics.add_source("test", text);
    let node = parse(source, &mut diagnostics).expect("YAML");
    let value = read(&node, &mut Reader::new(&mut diagnostics, &NoPlaceholders));
    value.unwrap_or_else(|| panic!("{}", diagnostics.render(false)))
}

/// An adapter whose outbound port reaches its inbound listener.
pub trait Subject {
    /// Opens a listener on a free address.
    ///
    /// # Errors
    /// Why it cannot be opened.
    fn inbound(&self) -> Result<Box<dyn Inbound>, AdapterError>;
    /// Opens a port to the address of a listener.
    ///
    /// # Errors
    /// Why it cannot be opened.
    fn outbound(&self, address: &str) -> Result<Rc<dyn Outbound>, AdapterError>;
    /// An address without a server.
    fn unused_address(&self) -> String;
    /// The entry that accepts the messages of [`Subject::operation`].
    fn entry(&self) -> Arc<dyn EntrySpec>;
    /// An operation without parameters, whose body is that of [`Subject::body`].
    fn operation(&self) -> Arc<dyn OperationSpec>;

    /// A body that contains this JSON text, with its fields `fail` and `wait`.
    fn body(&self, json: &str) -> Body {
        Body::raw(Bytes::copy_from_slice(json.as_bytes()).into(), Format::Json)
    }

    /// The JSON text that a body contains, byte for byte.
    fn text(&self, body: &Body) -> Bytes {
        match body {
            Body::Raw { chunks, .. } => chunks.to_bytes(),
            other => panic!("rule 1: a reply's body stays raw, not {other:?}"),
        }
    }
}

/// Runs every check on the current thread's local runtime.
///
/// # Panics
/// With the rule that was violated.
pub async fn run(subject: &dyn Subject) {
    let inbound = subject.inbound().expect("the subject's listener opens");
    let address = inbound.address();
    let stop = CancellationToken::new();
    let served = tokio::spawn(inbound.run(
        1,
        Arc::new(Echo { entry: subject.entry() }),
        Box::pin(stop.clone().cancelled_owned()),
    ));
    let port = subject.outbound(&address).expect("the subject's port opens");
    let operation = subject.operation();

    passes_unchanged(subject, &*port, &*operation).await;
    faults_keep_their_code(subject, &*port, &*operation).await;
    calls_do_not_mix(subject, &*port, &*operation).await;
    a_dropped_call_leaves_the_port_usable(subject, &*port, &*operation).await;
    let nobody = subject.outbound(&subject.unused_address()).expect("a port to nowhere opens");
    nobody_there_is_unavailable(subject, &*nobody, &*operation).await;

    stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(10), served).await.expect("rule 6: stopping ends the run");
    ended.expect("rule 6: the run does not panic").expect("rule 6: the run ends without an error");
    let fresh = subject.outbound(&address).expect("a port opens");
    // A broker keeps requests without a consumer.
    let served = tokio::time::timeout(Duration::from_secs(1), call(subject, &*fresh, &*operation, "{}")).await;
    assert!(!matches!(served, Ok(Ok(_))), "rule 6: nothing is served after stopping");
}

fn message(subject: &dyn Subject, body: &str) -> Message {
    let mut message = Message::new("contract".into(), "contract".into());
    message.body = subject.body(body);
    message.content_type = matches!(message.body, Body::Raw { format: Format::Json, .. })
        .then(|| ByteString::from_static("application/json"));
    message.headers.append(HEADER, "kept, unchanged").expect("a header");
    message
}

async fn call(
    subject: &dyn Subject,
    port: &dyn Outbound,
    operation: &dyn OperationSpec,
    body: &str,
) -> Result<Message, Fault> {
    port.call(operation, &message(subject, body), &[ByteString::from_static(HEADER)]).await
}

async fn passes_unchanged(subject: &dyn Subject, port: &dyn Outbound, operation: &dyn OperationSpec) {
    let long = format!("{{\"long\":\"{}\"}}", "x".repeat(200_000));
    for body in ["{ \"n\" : 1.10 ,\n\t\"big\":18446744073709551615}", "[]", "\"\u{e9}\u{1f600}\"", &long] {
        let reply = call(subject, port, operation, body).await.expect("rule 1: a valid message gets a reply");
        assert_eq!(subject.text(&reply.body), body.as_bytes(), "rule 1: the body comes back byte for byte");
        assert_eq!(
            reply.headers.get(HEADER).map(|value| &**value),
            Some("kept, unchanged"),
            "rule 1: listed headers come back"
        );
    }
}

async fn faults_keep_their_code(subject: &dyn Subject, port: &dyn Outbound, operation: &dyn OperationSpec) {
    for code in [
        Code::InvalidArgument,
        Code::NotFound,
        Code::Aborted,
        Code::ResourceExhausted,
        Code::Internal,
        Code::Unavailable,
    ] {
        let body = format!("{{\"fail\":\"{}\"}}", code.name());
        let fault = call(subject, port, operation, &body).await.expect_err("rule 2: a fault is returned as a fault");
        assert_eq!(fault.code, code, "rule 2: the code arrives");
    }
    call(subject, port, operation, "{}").await.expect("rule 2: a call after a fault gets a reply");
}

async fn calls_do_not_mix(subject: &dyn Subject, port: &dyn Outbound, operation: &dyn OperationSpec) {
    let calls = (0..64).map(|number| async move {
        let body = format!("{{\"number\":{number},\"wait\":{}}}", (number * 7) % 5);
        let reply = call(subject, port, operation, &body).await.expect("rule 3: every call gets a reply");
        assert_eq!(subject.text(&reply.body), body.as_bytes(), "rule 3: each call gets its own reply");
    });
    join_all(calls).await;
}

async fn a_dropped_call_leaves_the_port_usable(
    subject: &dyn Subject,
    port: &dyn Outbound,
    operation: &dyn OperationSpec,
) {
    let dropped = Cell::new(0);
    for _ in 0..16 {
        let late = call(subject, port, operation, "{\"wait\":200}");
        if tokio::time::timeout(Duration::from_millis(5), late).await.is_err() {
            dropped.set(dropped.get() + 1);
        }
    }
    assert!(dropped.get() > 0, "rule 5: the check needs calls that are dropped");
    let reply =
        call(subject, port, operation, "{\"after\":1}").await.expect("rule 5: a call after dropped calls gets a reply");
    assert_eq!(subject.text(&reply.body), "{\"after\":1}", "rule 5: each call gets its own reply");
}

async fn nobody_there_is_unavailable(subject: &dyn Subject, port: &dyn Outbound, operation: &dyn OperationSpec) {
    let fault = call(subject, port, operation, "{}").await.expect_err("rule 4: a call without a server fails");
    assert_eq!(fault.code, Code::Unavailable, "rule 4: {fault}");
    assert_eq!(fault.retry, Retry::Same, "rule 4: the message was not processed");
}

/// Replies with the request, with a fault if the body has `fail`, and after a delay if it has `wait`.
struct Echo {
    entry: Arc<dyn EntrySpec>,
}

impl OpenIngress for Echo {
    fn open(&self) -> Rc<dyn Ingress> {
        Rc::new(EchoArbiter { entry: Arc::clone(&self.entry), count: RefCell::new(0) })
    }
}

struct EchoArbiter {
    entry: Arc<dyn EntrySpec>,
    count: RefCell<u64>,
}

struct EchoExchange;

impl Ingress for EchoArbiter {
    fn admit(&self, _: &mut Head<'_>) -> Result<Admission, Fault> {
        Ok(Admission {
            entry: Arc::clone(&self.entry),
            params: Record::new(),
            request_headers: Arc::new([ByteString::from_static(HEADER)]),
            exchange: Box::new(EchoExchange),
        })
    }

    fn new_id(&self) -> ByteString {
        *self.count.borrow_mut() += 1;
        format!("echo-{}", self.count.borrow()).into()
    }

    fn refused(&self, _: &str, _: &RequestContext, _: &Fault) {}

    fn entries(&self, _: &str) -> Vec<Arc<dyn EntrySpec>> {
        vec![Arc::clone(&self.entry)]
    }

    fn is_draining(&self) -> bool {
        false
    }
}

impl Exchange for EchoExchange {
    fn refuse(self: Box<Self>, _: &RequestContext, fault: Fault) -> Outcome {
        Outcome::Failed(fault)
    }

    fn dispatch(self: Box<Self>, message: Message) -> LocalFuture<'static, Outcome> {
        Box::pin(async move {
            let field = |name: &str| {
                let value = message.body.value(&Limits::default()).ok().flatten()?;
                value.get(name)?.scalar_text()
            };
            if let Some(wait) = field("wait").and_then(|text| text.parse().ok()) {
                tokio::time::sleep(Duration::from_millis(wait)).await;
            }
            match field("fail").and_then(|name| Code::from_name(&name)) {
                Some(code) => Outcome::Failed(Fault::new(code, "CONTRACT", "asked to fail")),
                None => Outcome::Replied(message),
            }
        })
    }
}
