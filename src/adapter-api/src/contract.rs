//! What every adapter must do, as checks that it runs against itself.
//!
//! An adapter's `tests/contract.rs` implements [`Subject`] and calls [`run`]. A check panics with a sentence that says
//! which rule was broken.
//!
//! 1. A message comes through with body and listed headers unchanged, byte for byte.
//! 2. A fault reaches the caller with its code, and nothing of another call.
//! 3. Calls at once do not mix: each gets its own answer.
//! 4. Where nobody serves, the fault is UNAVAILABLE and says that the message was not carried out.
//! 5. A call that is dropped leaves the port usable.
//! 6. Stopping ends the listener's run, and nothing is served afterwards.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crossdock_message::{Body, ByteString, Code, Fault, Format, Limits, Message, Record, RequestContext, Retry};
use crossdock_settings::{Diagnostics, Node, Reader, Resolve, parse};
use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::{AdapterError, EntrySpec};
use crate::{Admission, Exchange, Head, Inbound, Ingress, LocalFuture, OpenIngress, OperationSpec, Outbound, Outcome};

/// The header that the suite carries through the adapter.
pub const HEADER: &str = "x-contract";

struct NoPlaceholders;

impl Resolve for NoPlaceholders {
    fn env(&self, name: &str) -> Result<String, String> {
        Err(format!("no {name}"))
    }

    fn file(&self, path: &str) -> Result<String, String> {
        Err(format!("no {path}"))
    }
}

/// Reads settings from their text, as [`Adapter`](crate::Adapter)s do.
///
/// # Panics
/// With what is wrong with them.
pub fn read_settings<T>(text: &str, read: impl FnOnce(&Node, &mut Reader<'_>) -> Option<T>) -> T {
    let mut diagnostics = Diagnostics::new();
    let source = diagnostics.add_source("test", text);
    let node = parse(source, &mut diagnostics).expect("YAML");
    let value = read(&node, &mut Reader::new(&mut diagnostics, &NoPlaceholders));
    value.unwrap_or_else(|| panic!("{}", diagnostics.render(false)))
}

/// One adapter, set up so that its outbound port reaches its inbound listener.
pub trait Subject {
    /// A listener on an address of its own.
    ///
    /// # Errors
    /// Why it could not be opened.
    fn inbound(&self) -> Result<Box<dyn Inbound>, AdapterError>;
    /// A port to that listener's address.
    ///
    /// # Errors
    /// Why it could not be made.
    fn outbound(&self, address: &str) -> Result<Rc<dyn Outbound>, AdapterError>;
    /// An address where nobody serves.
    fn nowhere(&self) -> String;
    /// The entry that takes what [`Subject::operation`] sends.
    fn entry(&self) -> Arc<dyn EntrySpec>;
    /// An operation without parameters, with a JSON body or another that [`Subject::body`] makes.
    fn operation(&self) -> Arc<dyn OperationSpec>;

    /// The body that carries this JSON text. Its value has the fields `fail` and `wait` that the text has.
    fn body(&self, json: &str) -> Body {
        Body::raw(Bytes::copy_from_slice(json.as_bytes()).into(), Format::Json)
    }

    /// The JSON text that a body carries, byte for byte.
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
/// With the rule that was broken.
pub async fn run(subject: &dyn Subject) {
    let inbound = subject.inbound().expect("the subject's listener opens");
    let address = inbound.address();
    let stop = CancellationToken::new();
    let served = tokio::spawn(inbound.run(1, Arc::new(Echo { entry: subject.entry() }), stop.clone()));
    let port = subject.outbound(&address).expect("the subject's port opens");
    let operation = subject.operation();

    passes_unchanged(subject, &*port, &*operation).await;
    faults_keep_their_code(subject, &*port, &*operation).await;
    calls_do_not_mix(subject, &*port, &*operation).await;
    a_dropped_call_leaves_the_port_usable(subject, &*port, &*operation).await;
    let nobody = subject.outbound(&subject.nowhere()).expect("a port to nowhere opens");
    nobody_there_is_unavailable(subject, &*nobody, &*operation).await;

    stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(10), served).await.expect("rule 6: stopping ends the run");
    ended.expect("rule 6: the run does not panic").expect("rule 6: the run ends without an error");
    let fresh = subject.outbound(&address).expect("a port opens");
    // A broker keeps a request that nobody takes.
    let served = tokio::time::timeout(Duration::from_secs(1), call(subject, &*fresh, &*operation, "{}")).await;
    assert!(!matches!(served, Ok(Ok(_))), "rule 6: nothing is served after stopping");
}

fn message(subject: &dyn Subject, body: &str) -> Message {
    let mut message = Message::new("contract".into(), "contract".into());
    message.body = subject.body(body);
    message.content_type = matches!(message.body, Body::Raw { format: Format::Json, .. })
        .then(|| ByteString::from_static("application/json"));
    message.headers.append(HEADER, "kept, as it is").expect("a header");
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
        let reply = call(subject, port, operation, body).await.expect("rule 1: a good message is answered");
        assert_eq!(subject.text(&reply.body), body.as_bytes(), "rule 1: the body comes back byte for byte");
        assert_eq!(
            reply.headers.get(HEADER).map(|value| &**value),
            Some("kept, as it is"),
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
        let fault = call(subject, port, operation, &body).await.expect_err("rule 2: a fault is a fault");
        assert_eq!(fault.code, code, "rule 2: the code arrives");
    }
    call(subject, port, operation, "{}").await.expect("rule 2: a call after a fault is answered");
}

async fn calls_do_not_mix(subject: &dyn Subject, port: &dyn Outbound, operation: &dyn OperationSpec) {
    let calls = (0..64).map(|number| async move {
        let body = format!("{{\"number\":{number},\"wait\":{}}}", (number * 7) % 5);
        let reply = call(subject, port, operation, &body).await.expect("rule 3: every call is answered");
        assert_eq!(subject.text(&reply.body), body.as_bytes(), "rule 3: each call gets its own answer");
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
        call(subject, port, operation, "{\"after\":1}").await.expect("rule 5: a call after dropped ones is answered");
    assert_eq!(subject.text(&reply.body), "{\"after\":1}", "rule 5: and gets its own answer");
}

async fn nobody_there_is_unavailable(subject: &dyn Subject, port: &dyn Outbound, operation: &dyn OperationSpec) {
    let fault = call(subject, port, operation, "{}").await.expect_err("rule 4: nobody answers");
    assert_eq!(fault.code, Code::Unavailable, "rule 4: {fault}");
    assert_eq!(fault.retry, Retry::Same, "rule 4: the message was not carried out");
}

/// Answers with what it got; with a fault where the body says `fail`; late where it says `wait`.
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
