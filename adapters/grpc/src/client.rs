//! A gRPC client that uses the outbound port of the adapter.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossdock_contract::{CallType, Contracts};
use crossdock_message::{Body, BodyType, ByteString, Code, Deadline, Fault, Format, Message, stream_from_json};
use crossdock_ports::{
    Adapter as _, EntrySpec, LocalFuture, TestClient, TestReply, TestRequest, WriteFormat, encode_body,
};
use crossdock_settings::{Diagnostics, NoPlaceholders, Reader, parse};

use crate::GrpcAdapter;

/// A call.
#[derive(Debug)]
pub struct GrpcCall<'a> {
    /// The method.
    pub call: &'a CallType,
    /// The request message as JSON; a stream as an array.
    pub json: &'a str,
    /// Metadata of the request.
    pub metadata: &'a [(ByteString, ByteString)],
    /// The deadline, from the start of the call.
    pub timeout: Option<Duration>,
    /// Names of the reply metadata to return.
    pub reply_metadata: &'a [ByteString],
}

/// A reply.
#[derive(Debug)]
pub struct Reply {
    /// The requested metadata, of headers and trailers.
    pub metadata: Vec<(String, String)>,
    /// The reply message as JSON; a stream as an array.
    pub json: String,
}

/// Makes a call and returns the reply as JSON, or its fault.
///
/// # Errors
/// Why the call cannot be made.
pub async fn call(
    address: &str,
    contracts: &Contracts,
    request: &GrpcCall<'_>,
) -> Result<Result<Reply, Fault>, String> {
    let call = request.call;
    let (service, method) = call.name.split_once('/').ok_or("the method must be `package.Service/Method`")?;
    let mut diagnostics = Diagnostics::new();
    let settings = format!("url: \"http://{address}\"\nservice: {service}\nfaults: all");
    let source = diagnostics.add_source("the call", settings);
    let spec = parse(source, &mut diagnostics).and_then(|node| {
        let mut reader = Reader::new(&mut diagnostics, &NoPlaceholders);
        GrpcAdapter.read_service(&node, contracts, &mut reader)
    });
    let spec = spec.ok_or_else(|| diagnostics.render(false))?;
    let (_, operation) =
        spec.operations().into_iter().find(|(name, _)| name == method).ok_or("the service has no such method")?;
    let port = GrpcAdapter.open_outbound(&*spec, 0).map_err(|error| error.to_string())?;
    let mut message = Message::new(ByteString::new(), ByteString::from_static("command"));
    let bytes = Bytes::copy_from_slice(request.json.as_bytes());
    let typed = Body::typed(bytes.into(), Format::Json, Arc::clone(&call.request) as Arc<dyn BodyType>);
    message.body =
        if call.client_streaming { stream_from_json(&typed).map_err(|error| error.to_string())? } else { typed };
    for (name, value) in request.metadata {
        message.headers.append(name.clone(), value.clone()).map_err(|error| error.to_string())?;
    }
    message.deadline = request.timeout.and_then(|wait| Instant::now().checked_add(wait)).map(Deadline::at);
    Ok(match port.call(&*operation, &message, request.reply_metadata).await {
        Ok(reply) => to_json(reply, &*call.reply).await,
        Err(fault) => Err(fault),
    })
}

/// Converts a reply to JSON; a stream to an array.
async fn to_json(reply: Message, of_type: &dyn BodyType) -> Result<Reply, Fault> {
    let text_of = |body: Body| -> Result<String, Fault> {
        let mut message = Message::new(ByteString::new(), ByteString::new());
        message.body = body;
        let encoded = encode_body(&message, &WriteFormat::json(), Some(of_type))?;
        Ok(String::from_utf8_lossy(&encoded.chunks.to_bytes()).into_owned())
    };
    let metadata = reply.headers.iter().chain(reply.trailers.iter());
    let metadata = metadata.map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let json = match reply.body {
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
    Ok(Reply { metadata, json })
}

pub(crate) struct GrpcTestClient;

impl TestClient for GrpcTestClient {
    fn listener(&self) -> &'static str {
        "bind: \"127.0.0.1:0\""
    }

    fn send<'a>(
        &'a self,
        address: &'a str,
        entry: &'a dyn EntrySpec,
        contracts: &'a Contracts,
        request: &'a TestRequest,
    ) -> LocalFuture<'a, Result<TestReply, String>> {
        Box::pin(async move {
            let request = GrpcCall {
                call: entry.call_type().ok_or("the entry is opaque: a test can only call entries with a contract")?,
                json: request.body.as_ref().map_or("{}", |(text, _)| text),
                metadata: &request.headers,
                timeout: request.timeout,
                reply_metadata: &request.reply_headers,
            };
            Ok(match call(address, contracts, &request).await? {
                Ok(reply) => TestReply { status: None, headers: reply.metadata, body: reply.json, code: None },
                Err(fault) => TestReply {
                    status: None,
                    headers: Vec::new(),
                    body: fault.message.to_string(),
                    code: Some(fault.code),
                },
            })
        })
    }
}
