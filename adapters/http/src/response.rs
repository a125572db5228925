//! A response, independent of the HTTP version.

use std::task::{Context, Poll};

use bytes::Bytes;
use crossdock_message::{ByteString, Chunks, Headers};

use crate::streams::StreamContent;

/// A response to the client.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Headers,
    pub(crate) content: Content,
    pub(crate) length: Length,
}

/// The length of a response's content in bytes; for HEAD, of the content that GET would return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// The status does not allow content.
    None,
    Known(u64),
    /// The content is a stream.
    Unknown,
}

/// The content of a response.
pub(crate) enum Content {
    /// Complete content.
    Chunks(Chunks),
    /// Messages written as the route produces them.
    Stream(StreamContent),
}

impl Content {
    /// The next chunk; `None` at the end.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        match self {
            Self::Chunks(chunks) => Poll::Ready(chunks.pop_front()),
            Self::Stream(stream) => stream.poll_next(cx),
        }
    }
}

impl Response {
    /// Drops the content of a response to HEAD and of a status that does not allow any.
    pub(crate) fn new(status: u16, content: Content, head_only: bool) -> Self {
        // RFC 9110 §15.3.5, §15.4.5.
        let has_no_content = matches!(status, 204 | 304);
        let length = match &content {
            _ if has_no_content => Length::None,
            Content::Chunks(chunks) => Length::Known(chunks.len() as u64),
            Content::Stream(_) => Length::Unknown,
        };
        let content = if head_only || has_no_content { Content::Chunks(Chunks::new()) } else { content };
        Self { status, headers: Headers::new(), content, length }
    }

    /// Sets a header field. An invalid value is ignored.
    pub(crate) fn set(&mut self, name: &'static str, value: impl Into<ByteString>) {
        let _ = self.headers.set(ByteString::from_static(name), value);
    }
}
