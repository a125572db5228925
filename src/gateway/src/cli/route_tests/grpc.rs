//! A test that is a call of gRPC: made through the adapter's own port, as any caller would.

use std::sync::Arc;
use std::time::Instant;

use crossdock_adapter_api::{Adapter as _, WriteFormat, encode_body};
use crossdock_message::{Body, BodyType, ByteString, Code, Deadline, Fault, Format, Message, StreamCell};
use crossdock_routing::{Plan, RoutePlan, RouteTest};
use crossdock_settings::{Diagnostics, Reader, parse};

use super::stub::Stubs;
use super::{Answer, NoPlaceholders, Running, entry_kind, judge_coded};

pub(super) async fn run_one(
    running: &Running,
    plan: &Plan,
    route: &RoutePlan,
    test: &RouteTest,
    stubs: &Stubs,
) -> Result<(), String> {
    let mut entries = route.entries.iter();
    let entry =
        entries.find(|entry| entry_kind(running, entry) == Some("grpc")).ok_or("the route takes no call of gRPC")?;
    let address = running.listener(&entry.address().listener).ok_or("the route's listener does not run")?;
    let call = entry.call_type().ok_or("the route has no contract")?;
    let (service, method) = call.name.split_once('/').ok_or("the call has no method")?;
    let mut diagnostics = Diagnostics::new();
    let source = diagnostics.add_source("test", format!("url: \"http://{address}\"\nservice: {service}\nfaults: all"));
    let spec = parse(source, &mut diagnostics).and_then(|node| {
        let mut reader = Reader::new(&mut diagnostics, &NoPlaceholders);
        crossdock_grpc::GrpcAdapter.read_service(&node, &plan.contracts, &mut reader)
    });
    let spec = spec.ok_or_else(|| diagnostics.render(false))?;
    let (_, operation) = spec.operations().into_iter().find(|(name, _)| name == method).ok_or("the method is gone")?;
    let port = crossdock_grpc::GrpcAdapter.open_outbound(&*spec, 0).map_err(|error| error.to_string())?;
    let mut message = Message::new(ByteString::new(), ByteString::from_static("test"));
    let text = test.given.body.as_ref().map_or("{}", |(text, _)| text);
    let typed = Body::typed(
        text.to_owned().into_bytes().into_iter().collect::<bytes::Bytes>().into(),
        Format::Json,
        Arc::clone(&call.request) as Arc<dyn BodyType>,
    );
    message.body = if call.client_streaming { super::stub::stream_of(&typed)? } else { typed };
    for (name, value) in &test.given.headers {
        message.headers.append(name.clone(), value.clone()).map_err(|error| error.to_string())?;
    }
    message.deadline = test.given.timeout.and_then(|wait| Instant::now().checked_add(wait)).map(Deadline::at);
    let wanted: Vec<ByteString> = test.expect.headers.iter().map(|(name, _)| name.clone()).collect();
    let told = match port.call(&*operation, &message, &wanted).await {
        Ok(reply) => told(reply, &*call.reply).await,
        Err(fault) => Err(fault),
    };
    match told {
        Ok(answer) => judge_coded(test, &answer, None, stubs),
        Err(fault) => {
            let answer = Answer { status: 0, headers: Vec::new(), body: fault.message.to_string() };
            judge_coded(test, &answer, Some(fault.code), stubs)
        }
    }
}

/// A reply as JSON; a stream as the list of its messages.
async fn told(reply: Message, of_type: &dyn BodyType) -> Result<Answer, Fault> {
    let text_of = |body: Body| -> Result<String, Fault> {
        let mut message = Message::new(ByteString::new(), ByteString::new());
        message.body = body;
        let encoded = encode_body(&message, &WriteFormat::Json, Some(of_type))?;
        Ok(String::from_utf8_lossy(&encoded.chunks.to_bytes()).into_owned())
    };
    let headers = reply.headers.iter().chain(reply.trailers.iter());
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let body = match reply.body {
        Body::Stream(stream) => {
            let taken = || Fault::new(Code::Internal, "STREAM", "the stream was taken");
            let mut stream = StreamCell::take(&stream).ok_or_else(taken)?;
            let mut texts = Vec::new();
            while let Some(body) = std::future::poll_fn(|cx| stream.poll_next(cx)).await {
                texts.push(text_of(body?)?);
            }
            format!("[{}]", texts.join(","))
        }
        body => text_of(body)?,
    };
    Ok(Answer { status: 200, headers, body })
}
