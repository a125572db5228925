//! A gRPC client for the commands, which calls through the adapter's outbound port.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossdock_contract::{CallType, Contracts};
use crossdock_message::{Body, BodyType, ByteString, Code, Deadline, Fault, Format, Message};
use crossdock_ports::{Adapter as _, WriteFormat, encode_body};
use crossdock_settings::{Diagnostics, Reader, Resolve, parse};

use crate::client::Response;
use crate::listed::stream_of;

/// A call.
pub(crate) struct GrpcCall<'a> {
    pub(crate) call: &'a CallType,
    /// The message in JSON; a stream as the list of its messages.
    pub(crate) json: &'a str,
    pub(crate) metadata: &'a [(ByteString, ByteString)],
    pub(crate) timeout: Option<Duration>,
    /// Metadata of the reply that is wanted.
    pub(crate) wanted: &'a [ByteString],
}

struct NoPlaceholders;

impl Resolve for NoPlaceholders {
    fn env(&self, name: &str) -> Result<String, String> {
        Err(format!("`{name}` is not known here"))
    }

    fn file(&self, path: &str) -> Result<String, String> {
        Err(format!("`{path}` is not read here"))
    }
}

/// Makes a call. The answer is the reply in JSON, or the fault; the error is why there could be none.
pub(crate) async fn call(
    address: &str,
    contracts: &Contracts,
    request: &GrpcCall<'_>,
) -> Result<Result<Response, Fault>, String> {
    let call = request.call;
    let (service, method) = call.name.split_once('/').ok_or("the call has no method")?;
    let mut diagnostics = Diagnostics::new();
    let settings = format!("url: \"http://{address}\"\nservice: {service}\nfaults: all");
    let source = diagnostics.add_source("the call", settings);
    let spec = parse(source, &mut diagnostics).and_then(|node| {
        let mut reader = Reader::new(&mut diagnostics, &NoPlaceholders);
        crossdock_grpc::GrpcAdapter.read_service(&node, contracts, &mut reader)
    });
    let spec = spec.ok_or_else(|| diagnostics.render(false))?;
    let (_, operation) = spec.operations().into_iter().find(|(name, _)| name == method).ok_or("the method is gone")?;
    let port = crossdock_grpc::GrpcAdapter.open_outbound(&*spec, 0).map_err(|error| error.to_string())?;
    let mut message = Message::new(ByteString::new(), ByteString::from_static("command"));
    let bytes = Bytes::copy_from_slice(request.json.as_bytes());
    let typed = Body::typed(bytes.into(), Format::Json, Arc::clone(&call.request) as Arc<dyn BodyType>);
    message.body = if call.client_streaming { stream_of(&typed)? } else { typed };
    for (name, value) in request.metadata {
        message.headers.append(name.clone(), value.clone()).map_err(|error| error.to_string())?;
    }
    message.deadline = request.timeout.and_then(|wait| Instant::now().checked_add(wait)).map(Deadline::at);
    Ok(match port.call(&*operation, &message, request.wanted).await {
        Ok(reply) => told(reply, &*call.reply).await,
        Err(fault) => Err(fault),
    })
}

/// A reply as JSON; a stream as the list of its messages.
async fn told(reply: Message, of_type: &dyn BodyType) -> Result<Response, Fault> {
    let text_of = |body: Body| -> Result<String, Fault> {
        let mut message = Message::new(ByteString::new(), ByteString::new());
        message.body = body;
        let encoded = encode_body(&message, &WriteFormat::json(), Some(of_type))?;
        Ok(String::from_utf8_lossy(&encoded.chunks.to_bytes()).into_owned())
    };
    let headers = reply.headers.iter().chain(reply.trailers.iter());
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let body = match reply.body {
        Body::Stream(stream) => {
            let taken = || Fault::new(Code::Internal, "STREAM", "the stream was taken");
            let mut stream = stream.take().ok_or_else(taken)?;
            let mut texts = Vec::new();
            while let Some(body) = std::future::poll_fn(|cx| stream.poll_next(cx)).await {
                texts.push(text_of(body?)?);
            }
            format!("[{}]", texts.join(","))
        }
        body => text_of(body)?,
    };
    Ok(Response { status: 200, headers, body })
}
