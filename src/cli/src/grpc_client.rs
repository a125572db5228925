//! A gRPC client that uses the outbound port of the adapter.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossdock_contract::{CallType, Contracts};
use crossdock_message::{Body, BodyType, ByteString, Code, Deadline, Fault, Format, Message};
use crossdock_ports::{Adapter as _, WriteFormat, encode_body};
use crossdock_settings::{Diagnostics, Reader, Resolve, parse};

use crate::client::Response;
use crate::json_stream::stream_from_json;

/// A call.
pub(crate) struct GrpcCall<'a> {
    pub(crate) call: &'a CallType,
    /// The request message as JSON; a stream as an array.
    pub(crate) json: &'a str,
    pub(crate) metadata: &'a [(ByteString, ByteString)],
    pub(crate) timeout: Option<Duration>,
    /// Names of the reply metadata to return.
    pub(crate) reply_metadata: &'a [ByteString],
}

struct NoPlaceholders;

impl Resolve for NoPlaceholders {
    fn env(&self, name: &str) -> Result<String, String> {
        Err(format!("the environment variable `{name}` is not available here"))
    }

    fn file(&self, path: &str) -> Result<String, String> {
        Err(format!("the file `{path}` is not available here"))
    }
}

/// Makes a call and returns the reply as JSON, or its fault.
///
/// # Errors
/// If the call cannot be made.
pub(crate) async fn call(
    address: &str,
    contracts: &Contracts,
    request: &GrpcCall<'_>,
) -> Result<Result<Response, Fault>, String> {
    let call = request.call;
    let (service, method) = call.name.split_once('/').ok_or("the method must be `package.Service/Method`")?;
    let mut diagnostics = Diagnostics::new();
    let settings = format!("url: \"http://{address}\"\nservice: {service}\nfaults: all");
    let source = diagnostics.add_source("the call", settings);
    let spec = parse(source, &mut diagnostics).and_then(|node| {
        let mut reader = Reader::new(&mut diagnostics, &NoPlaceholders);
        crossdock_grpc::GrpcAdapter.read_service(&node, contracts, &mut reader)
    });
    let spec = spec.ok_or_else(|| diagnostics.render(false))?;
    let (_, operation) =
        spec.operations().into_iter().find(|(name, _)| name == method).ok_or("the service has no such method")?;
    let port = crossdock_grpc::GrpcAdapter.open_outbound(&*spec, 0).map_err(|error| error.to_string())?;
    let mut message = Message::new(ByteString::new(), ByteString::from_static("command"));
    let bytes = Bytes::copy_from_slice(request.json.as_bytes());
    let typed = Body::typed(bytes.into(), Format::Json, Arc::clone(&call.request) as Arc<dyn BodyType>);
    message.body = if call.client_streaming { stream_from_json(&typed)? } else { typed };
    for (name, value) in request.metadata {
        message.headers.append(name.clone(), value.clone()).map_err(|error| error.to_string())?;
    }
    message.deadline = request.timeout.and_then(|wait| Instant::now().checked_add(wait)).map(Deadline::at);
    Ok(match port.call(&*operation, &message, request.reply_metadata).await {
        Ok(reply) => to_response(reply, &*call.reply).await,
        Err(fault) => Err(fault),
    })
}

/// Converts a reply to JSON; a stream to an array.
async fn to_response(reply: Message, of_type: &dyn BodyType) -> Result<Response, Fault> {
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
            let consumed = || Fault::new(Code::Internal, "STREAM", "the stream was already consumed");
            let mut stream = stream.take().ok_or_else(consumed)?;
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
