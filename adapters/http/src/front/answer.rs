//! Answers as actix writes them.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_http::body::{BodySize, MessageBody};
use actix_http::header::{HeaderName, HeaderValue};
use actix_http::{Response, StatusCode};
use bytes::Bytes;

use super::connection::Connection;
use crate::answer::{Answer, Content, Length};
use crate::request::HeadRefusal;
use crate::settle;

/// The body of an answer; tells the connection when all of it is in actix's buffer, or given up.
pub(crate) struct AnswerBody {
    size: BodySize,
    content: Content,
    connection: Rc<Connection>,
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        self.connection.answered();
    }
}

impl MessageBody for AnswerBody {
    type Error = std::convert::Infallible;

    fn size(&self) -> BodySize {
        self.size
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        self.get_mut().content.poll_next(cx).map(|piece| piece.map(Ok))
    }
}

/// An answer, written to the connection of its request.
pub(crate) fn respond(answer: Answer, connection: Rc<Connection>) -> Response<AnswerBody> {
    let Answer { status, headers, content, length } = answer;
    let close = !connection.body_is_done() || connection.is_draining();
    if close {
        connection.close_after_answer();
    }
    let size = match length {
        Length::None => BodySize::None,
        Length::Known(length) => BodySize::Sized(length),
        Length::Open => BodySize::Stream,
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = Response::with_body(status, AnswerBody { size, content, connection });
    if close {
        response.head_mut().set_connection_type(actix_http::ConnectionType::Close);
    }
    for (name, value) in headers.iter() {
        let value = HeaderValue::from_maybe_shared(value.clone().into_bytes());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), value) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

/// The whole answer to a request that the front refuses.
pub(super) fn refusal(refusal: HeadRefusal) -> Bytes {
    let HeadRefusal { status, .. } = refusal;
    let (body, media_type) = settle::problem_document(&settle::refusal_fault(refusal), status, None, false);
    let reason =
        StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Bad Request");
    let mut answer = format!(
        "HTTP/1.1 {status} {reason}\r\ncontent-type: {media_type}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(&body);
    answer.into()
}
