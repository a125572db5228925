//! Responses, written by actix.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_http::StatusCode;
use actix_http::body::{BodySize, MessageBody};
use actix_http::header::{HeaderName, HeaderValue};
use bytes::Bytes;

use super::connection::Connection;
use crate::problem::problem_document;
use crate::request::HeadError;
use crate::response::{Content, Length, Response};
use crate::settle;

/// The body of a response. Dropping it marks the response as buffered by actix or abandoned.
pub(crate) struct ResponseBody {
    size: BodySize,
    content: Content,
    connection: Rc<Connection>,
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.connection.mark_buffered();
    }
}

impl MessageBody for ResponseBody {
    type Error = std::convert::Infallible;

    fn size(&self) -> BodySize {
        self.size
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        self.get_mut().content.poll_next(cx).map(|chunk| chunk.map(Ok))
    }
}

/// Converts a response for actix, to be written to the connection of its request.
pub(crate) fn respond(response: Response, connection: Rc<Connection>) -> actix_http::Response<ResponseBody> {
    let Response { status, headers, content, length } = response;
    let close = !connection.is_body_done() || connection.is_draining();
    if close {
        connection.close_after_response();
    }
    let size = match length {
        Length::None => BodySize::None,
        Length::Known(length) => BodySize::Sized(length),
        Length::Unknown => BodySize::Stream,
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = actix_http::Response::with_body(status, ResponseBody { size, content, connection });
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

/// The complete response to a rejected head.
pub(super) fn reject(error: HeadError) -> Bytes {
    let HeadError { status, .. } = error;
    let (body, media_type) = problem_document(&settle::head_fault(error), status, None, false);
    let reason =
        StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Bad Request");
    let mut response = format!(
        "HTTP/1.1 {status} {reason}\r\ncontent-type: {media_type}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    response.extend_from_slice(&body);
    response.into()
}
