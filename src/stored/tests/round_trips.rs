//! What is stored comes back unchanged.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossdock_message::{
    Body, BodyType, ByteString, Code, Event, Fault, Format, Message, Origin, RequestContext, Retry, ServiceStatus,
    Time, TlsIdentity, TraceContext, Value,
};
use crossdock_ports::Outcome;
use crossdock_stored::{Error, restore, restore_outcome, store, store_outcome};

#[derive(Debug)]
struct Named(&'static str);

impl BodyType for Named {
    fn name(&self) -> &str {
        self.0
    }

    fn read(&self, _: &Bytes, _: Format) -> Result<Value, Fault> {
        Ok(Value::Null)
    }

    fn write(&self, _: &Value, _: Format) -> Result<Bytes, Fault> {
        Ok(Bytes::new())
    }

    fn recode(&self, bytes: &Bytes, _: Format, _: Format) -> Result<Bytes, Fault> {
        Ok(bytes.clone())
    }
}

fn message() -> Message {
    let mut context = RequestContext::new("request-1".into(), Instant::now());
    context.peer = Some("[::1]:4711".parse().expect("an address"));
    context.principal = Some("shop".into());
    context.claims.set("limit", Value::Int(7));
    context.tls = Some(Arc::new(TlsIdentity { server_name: Some("a.example".into()), certificate_sha256: None }));
    context.trace = Some(TraceContext { parent: "00-a-b-01".into(), state: Some("v=1".into()) });
    let mut message = Message::new("id-1".into(), "public".into());
    message.context = Some(Arc::new(context));
    message.content_type = Some("application/json; charset=utf-8".into());
    message.status = Some(201);
    for (name, value) in [("x-a", "1"), ("x-b", "2"), ("x-a", "3\t")] {
        message.headers.append(name, value).expect("a header");
    }
    message.trailers.append("x-t", "t").expect("a header");
    message.params.set("text", Value::Text("ü".into()));
    message.params.set("list", Value::List(vec![Value::Text("1".into()), Value::Text(ByteString::new())]));
    message.query = Some("a=%20&b".into());
    message.key = Some(Bytes::from_static(b"\0\xff"));
    message.time = Some(Time { seconds: -1, nanos: 999_999_999 });
    let mut event = Event::default();
    event.set("type", Value::Text("order.placed".into())).expect("an attribute");
    event.set("flag", Value::Bool(true)).expect("an attribute");
    message.event = Some(event);
    message.body = Body::raw(Bytes::from_static(b"{ \"a\" : 1.50 }").into(), Format::Json);
    message
}

/// All fields but those that are no data.
fn text(message: &Message) -> String {
    let context = message.context.as_deref().map(|of| {
        let RequestContext { id, peer, tls, principal, claims, trace, .. } = of;
        format!("{id} {peer:?} {tls:?} {principal:?} {claims:?} {trace:?}")
    });
    format!("{context:?} {:?}", Message { context: None, ..message.clone() })
}

#[test]
fn a_message_comes_back_unchanged() {
    let message = message();
    let stored = restore(store("http POST /", &message).expect("stored")).expect("restored");
    assert_eq!(stored.entry, "http POST /");
    let restored = stored.into_message(None, None).expect("a message");
    assert_eq!(text(&restored), text(&message));
}

#[test]
fn each_kind_of_body_comes_back() {
    let bodies = [
        Body::Empty,
        Body::Null,
        Body::present(Bytes::new().into(), Format::Raw),
        Body::raw(Bytes::from_static(b"\0\xff").into(), Format::Raw),
        Body::raw(Bytes::from_static(b"<a/>").into(), Format::Xml),
        Body::protobuf(Bytes::new().into()),
        Body::present(Bytes::from_static(b"\x02").into(), Format::Avro),
        Body::typed(Bytes::from_static(b"{}").into(), Format::Json, Arc::new(Named("shop.Order"))),
    ];
    for body in bodies {
        let message = Message { body, ..Message::new("1".into(), "s".into()) };
        let bytes = store("", &message).expect("stored");
        let restored = restore(bytes).expect("restored").into_message(Some(Arc::new(Named("shop.Order"))), None);
        assert_eq!(text(&restored.expect("a message")), text(&message));
    }
}

#[test]
fn what_cannot_be_read_is_an_error() {
    let body = Body::typed(Bytes::new().into(), Format::Protobuf, Arc::new(Named("shop.Order")));
    let typed = Message { body, ..Message::new("1".into(), "s".into()) };
    let bytes = store("", &typed).expect("stored");
    for of_type in [None, Some(Arc::new(Named("shop.Other")) as Arc<dyn BodyType>)] {
        let restored = restore(bytes.clone()).expect("restored").into_message(of_type, None);
        assert_eq!(restored.expect_err("another type"), Error::OtherType("shop.Order".to_owned()));
    }
    assert_eq!(restore(Bytes::from_static(b"\xff")).expect_err("damaged"), Error::Unreadable);
    let created = Message { body: Body::Value(Value::Null), ..Message::new("1".into(), "s".into()) };
    assert!(matches!(store("", &created), Err(Error::Value(_))));
}

#[test]
fn an_outcome_comes_back_unchanged() {
    let mut fault = Fault::new(Code::Unavailable, "BREAKER_OPEN", "the service is unavailable")
        .with_retry(Retry::After(Duration::from_millis(1_500)))
        .with_origin(Origin::Service("shop".into()))
        .with_http_status(502)
        .with_detail("field", "a");
    let mut service = ServiceStatus { status: Bytes::from_static(b"\x08\x05"), ..ServiceStatus::default() };
    service.headers.append("x-a", "1").expect("a header");
    fault.service = Some(Box::new(service));
    match restore_outcome(store_outcome(&Outcome::Failed(fault.clone())).expect("stored"), None).expect("restored") {
        Outcome::Failed(restored) => {
            assert_eq!(restored.reason.as_str(), fault.reason.as_str());
            assert_eq!(Fault { reason: fault.reason.clone(), ..restored }, fault);
        }
        outcome => panic!("{outcome:?}"),
    }
    let accepted = restore_outcome(store_outcome(&Outcome::Accepted).expect("stored"), None);
    assert!(matches!(accepted, Ok(Outcome::Accepted)));
    let reply = Message { context: None, ..message() };
    match restore_outcome(store_outcome(&Outcome::Replied(reply.clone())).expect("stored"), None).expect("restored") {
        Outcome::Replied(restored) => assert_eq!(text(&restored), text(&reply)),
        outcome => panic!("{outcome:?}"),
    }
}
