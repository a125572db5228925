//! HTTP/2: what hyper gives is checked as strictly as the front checks HTTP/1.1, and answered in the same way.

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
use crossdock_adapter_api::Ingress;
use crossdock_message::ByteString;
use crossdock_transport::http2;
use futures_util::FutureExt as _;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use hyper::body::Incoming;

use crate::answer::{Answer, Content, Length};
use crate::exchange;
use crate::front::HeadLimits;
use crate::settle::{Asker, failure, refusal_fault};
use body::Body;

/// Bytes that open a connection of HTTP/2 (RFC 9113 §3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Answers one request, whatever happens.
pub(crate) async fn handle(
    listener: ByteString,
    ingress: std::rc::Rc<dyn Ingress>,
    limits: HeadLimits,
    body_timeout: Duration,
    request: Request<Incoming>,
) -> Response<AnswerBody> {
    let (parts, mut incoming) = request.into_parts();
    let refused = http2::check_work(&parts.extensions).err();
    let work = parts.extensions.get::<Arc<http2::Work>>().map(|work| Arc::clone(work) as Arc<dyn Any + Send + Sync>);
    let head_only = parts.method == http::Method::HEAD;
    let expects = parts.headers.contains_key(http::header::EXPECT);
    let answer = match (refused, head::check(parts, &limits)) {
        (Some(fault), _) => exchange::refused(&fault, head_only),
        (None, Ok(head)) => {
            let body = Body::new(&mut incoming, body_timeout);
            let answering = exchange::answer(&listener, &*ingress, &head, body, work);
            let answered = AssertUnwindSafe(answering).catch_unwind().await;
            answered.unwrap_or_else(|_| exchange::panicked(head_only))
        }
        (None, Err(refusal)) => failure(&refusal_fault(refusal), &Asker { head_only, wants_xml: false, id: None }),
    };
    body::discard(incoming, expects).await;
    respond(answer)
}

/// The body of an answer.
pub(crate) struct AnswerBody {
    content: Content,
    left: u64,
}

impl http2::ResponseBody for AnswerBody {
    fn is_stream(&self) -> bool {
        matches!(self.content, Content::Stream(_))
    }
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        this.content.poll_next(cx).map(|piece| {
            let piece = piece?;
            this.left = this.left.saturating_sub(piece.len() as u64);
            Some(Ok(Frame::data(piece)))
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, Content::Chunks(_)) && self.left == 0
    }
}

fn respond(answer: Answer) -> Response<AnswerBody> {
    let Answer { status, headers, content, length } = answer;
    let left = match &content {
        Content::Chunks(chunks) => chunks.len() as u64,
        Content::Stream(_) => 0,
    };
    let mut response = Response::new(AnswerBody { content, left });
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let written = response.headers_mut();
    for (name, value) in headers.iter() {
        let value = HeaderValue::from_maybe_shared(value.clone().into_bytes());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), value) {
            written.append(name, value);
        }
    }
    if let Length::Known(length) = length {
        written.insert(http::header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    response
}

/// Checks a head that lines of text describe: a method, a target, and headers.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz_head(bytes: &[u8], limits: &HeadLimits) {
    use crate::request::RequestHead as _;
    use crossdock_adapter_api::Fields as _;

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
