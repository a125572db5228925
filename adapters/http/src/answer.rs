//! An answer that both versions of HTTP can write.

use std::task::{Context, Poll};

use bytes::Bytes;
use crossdock_message::{ByteString, Chunks, Headers};

use crate::streams::StreamAnswer;

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Headers,
    pub(crate) content: Content,
    pub(crate) length: Length,
}

/// How long an answer's body is; with HEAD, how long it would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// The status has no body.
    None,
    Known(u64),
    /// Known when it has ended.
    Open,
}

/// What an answer holds.
pub(crate) enum Content {
    /// Pieces that are all there.
    Chunks(Chunks),
    /// Messages that come one after another.
    Stream(StreamAnswer),
}

impl Content {
    /// The next piece.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        match self {
            Self::Chunks(chunks) => Poll::Ready(chunks.pop_front()),
            Self::Stream(stream) => stream.poll_next(cx),
        }
    }
}

impl Answer {
    /// With a body where the status and the question have one.
    pub(crate) fn new(status: u16, content: Content, head_only: bool) -> Self {
        // RFC 9110 §15.3.5, §15.4.5.
        let without_body = matches!(status, 204 | 304);
        let length = match &content {
            _ if without_body => Length::None,
            Content::Chunks(chunks) => Length::Known(chunks.len() as u64),
            Content::Stream(_) => Length::Open,
        };
        let content = if head_only || without_body { Content::Chunks(Chunks::new()) } else { content };
        Self { status, headers: Headers::new(), content, length }
    }

    /// Sets a header; one whose value cannot stand there is left out.
    pub(crate) fn set(&mut self, name: &'static str, value: impl Into<ByteString>) {
        let _ = self.headers.set(ByteString::from_static(name), value);
    }
}
