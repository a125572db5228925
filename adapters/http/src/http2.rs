//! HTTP/2: validates requests from hyper as strictly as [`http1`](crate::http1) does, and processes them in the same way.

mod body;
mod head;

use std::any::Any;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use crossdock_message::ByteString;
use crossdock_ports::Ingress;
use crossdock_transport::{Peer, http2};
use futures_util::FutureExt as _;
use http::{HeaderName, HeaderValue, Request, StatusCode};
use http_body::Frame;
use hyper::body::Incoming;

use crate::http1::HeadLimits;
use crate::response::{Content, Length, Response};
use crate::settle::head_fault;
use crate::transaction;
use body::Body;

/// The client's connection preface (RFC 9113 §3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Handles one request. A panic of its handler is a response too.
pub(crate) async fn handle(
    listener: ByteString,
    ingress: std::rc::Rc<dyn Ingress>,
    peer: Peer,
    limits: HeadLimits,
    body_timeout: Duration,
    request: Request<Incoming>,
) -> http::Response<ResponseBody> {
    let (parts, mut incoming) = request.into_parts();
    let overloaded = http2::check_work(&parts.extensions).err();
    let work = parts.extensions.get::<Arc<http2::Work>>().map(|work| Arc::clone(work) as Arc<dyn Any + Send + Sync>);
    let head_only = parts.method == http::Method::HEAD;
    let expects_continue = parts.headers.contains_key(http::header::EXPECT);
    let response = match (overloaded, head::check(parts, &limits)) {
        (Some(fault), _) => {
            transaction::log_rejection(&listener, &*ingress, Some(&peer), &fault);
            transaction::reject(&fault, head_only)
        }
        (None, Ok(head)) => {
            let body = Body::new(&mut incoming, body_timeout);
            let processing = transaction::process(&listener, &*ingress, &head, body, Some(&peer), work);
            let processed = AssertUnwindSafe(processing).catch_unwind().await;
            processed.unwrap_or_else(|_| transaction::panic_response(head_only))
        }
        (None, Err(error)) => {
            let fault = head_fault(error);
            transaction::log_rejection(&listener, &*ingress, Some(&peer), &fault);
            transaction::reject(&fault, head_only)
        }
    };
    body::discard(incoming, expects_continue).await;
    respond(response)
}

/// The body of a response.
pub(crate) struct ResponseBody {
    content: Content,
    /// Bytes left of complete content; 0 for a stream.
    left: u64,
}

impl http2::ResponseBody for ResponseBody {
    fn is_stream(&self) -> bool {
        matches!(self.content, Content::Stream(_))
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        this.content.poll_next(cx).map(|chunk| {
            let chunk = chunk?;
            this.left = this.left.saturating_sub(chunk.len() as u64);
            Some(Ok(Frame::data(chunk)))
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, Content::Chunks(_)) && self.left == 0
    }
}

/// Converts a response for hyper.
fn respond(response: Response) -> http::Response<ResponseBody> {
    let Response { status, headers, content, length } = response;
    let left = match &content {
        Content::Chunks(chunks) => chunks.len() as u64,
        Content::Stream(_) => 0,
    };
    let mut response = http::Response::new(ResponseBody { content, left });
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let fields = response.headers_mut();
    for (name, value) in headers.iter() {
        let value = HeaderValue::from_maybe_shared(value.clone().into_bytes());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), value) {
            fields.append(name, value);
        }
    }
    if let Length::Known(length) = length {
        fields.insert(http::header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    response
}

/// Validates a head given as lines: method, target, header fields.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz_head(bytes: &[u8], limits: &HeadLimits) {
    use crate::request::RequestHead as _;
    use crossdock_ports::Fields as _;

    let mut lines = bytes.split(|byte| *byte == b'\n');
    let (Some(method), Some(target)) = (lines.next(), lines.next()) else { return };
    let mut request = Request::builder().method(method).uri(target);
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        request = request.header(&line[..colon], line.get(colon + 1..).unwrap_or_default());
    }
    let Ok(request) = request.body(()) else { return };
    let Ok(head) = head::check(request.into_parts().0, limits) else { return };
    assert!(head.get("host").is_some_and(|host| !host.is_empty() && !host.contains(&b'@')));
    assert!(head.path().starts_with('/') || head.path() == "*");
    assert!(head.values("cookie").count() <= 1);
    let _ = crate::path::normalize(head.path());
}
