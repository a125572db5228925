//! Streams over HTTP: responses as NDJSON or server-sent events, requests as NDJSON.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use crossdock_contract::Typed;
use crossdock_message::{Body, BodyStream, BodyType, ByteString, Code, Fault, Format, Message, StreamCell};
use crossdock_ports::{WriteFormat, encode_body};

use crate::config::{StreamFormat, TypedEntry};
use crate::problem::problem_document;

/// The media type of a stream.
pub(crate) fn media_type(format: StreamFormat) -> &'static str {
    match format {
        StreamFormat::Ndjson => "application/x-ndjson",
        StreamFormat::Sse => "text/event-stream",
    }
}

/// The content of a streamed response. The client's reading rate limits how fast the stream is polled.
///
/// A fault is the last line or event, because the status has already been sent: a line `{"error": …}` or an event `error`,
/// with the problem document of an error response.
pub(crate) struct StreamContent {
    stream: Option<Box<dyn BodyStream>>,
    of_type: Arc<Typed>,
    format: StreamFormat,
}

impl StreamContent {
    pub(crate) fn new(stream: Box<dyn BodyStream>, of_type: Arc<Typed>, format: StreamFormat) -> Self {
        Self { stream: Some(stream), of_type, format }
    }

    /// The next line or event; `None` at the end.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(None) };
        let Poll::Ready(next) = stream.poll_next(cx) else { return Poll::Pending };
        match next.map(|next| next.and_then(|body| self.encode(body))) {
            None => {
                self.stream = None;
                Poll::Ready(None)
            }
            Some(Ok(json)) => Poll::Ready(Some(self.frame(&json, false))),
            Some(Err(fault)) => {
                // Dropping the stream cancels its source.
                self.stream = None;
                let (problem, _) = problem_document(&fault, fault.to_http(), None, false);
                Poll::Ready(Some(self.frame(&problem, true)))
            }
        }
    }

    fn encode(&self, body: Body) -> Result<Bytes, Fault> {
        let mut message = Message::new(ByteString::new(), ByteString::new());
        message.body = body;
        let encoded = encode_body(&message, &WriteFormat::json(), Some(&*self.of_type as &dyn BodyType));
        encoded.map(|body| body.chunks.to_bytes()).map_err(|fault| Fault { code: Code::Internal, ..fault })
    }

    /// A line or an event. The JSON has no line breaks.
    fn frame(&self, json: &[u8], is_error: bool) -> Bytes {
        let (before, after): (&[u8], &[u8]) = match (self.format, is_error) {
            (StreamFormat::Ndjson, false) => (b"", b"\n"),
            (StreamFormat::Ndjson, true) => (b"{\"error\":", b"}\n"),
            (StreamFormat::Sse, false) => (b"data: ", b"\n\n"),
            (StreamFormat::Sse, true) => (b"event: error\ndata: ", b"\n\n"),
        };
        [before, json, after].concat().into()
    }
}

/// The request messages in a complete NDJSON body.
struct NdjsonRequests {
    rest: Bytes,
    /// The number of the current line, from 1.
    line: usize,
    of_type: Arc<Typed>,
}

impl BodyStream for NdjsonRequests {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Body, Fault>>> {
        loop {
            if self.rest.is_empty() {
                return Poll::Ready(None);
            }
            let end = memchr::memchr(b'\n', &self.rest);
            let mut line = self.rest.split_to(end.map_or(self.rest.len(), |end| end + 1));
            self.line += 1;
            let content = line.trim_ascii_end().len();
            line.truncate(content);
            if line.is_empty() {
                continue;
            }
            let recoded = self.of_type.recode(&line, Format::Json, Format::Protobuf);
            let body = recoded
                .map(|wire| Body::typed(wire.into(), Format::Protobuf, Arc::clone(&self.of_type) as Arc<dyn BodyType>));
            return Poll::Ready(Some(body.map_err(|fault| {
                let message = format!("message {}: {}", self.line, fault.message);
                Fault { message: message.into(), ..fault }
            })));
        }
    }
}

/// The stream of request messages in an NDJSON body.
///
/// # Errors
/// INVALID_ARGUMENT (415) for a body of another format.
pub(crate) fn parse_requests(typed: &TypedEntry, body: Body) -> Result<Body, Fault> {
    let rest = match body {
        Body::Empty | Body::Null => Bytes::new(),
        // `application/x-ndjson` has no `Format` of its own.
        Body::Raw { chunks, format: Format::Raw | Format::Json, .. } => chunks.to_bytes(),
        _ => {
            let message = "the body must be NDJSON (application/x-ndjson)";
            return Err(Fault::caller(Code::InvalidArgument, "BODY_FORMAT", message).with_http_status(415));
        }
    };
    let requests = NdjsonRequests { rest, line: 0, of_type: Arc::clone(&typed.call.request) };
    Ok(Body::Stream(StreamCell::new(Box::new(requests))))
}
