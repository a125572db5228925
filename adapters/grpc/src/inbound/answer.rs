//! The body of an answer: messages, and the status behind them.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use crossdock_adapter_api::{WriteFormat, encode_body};
use crossdock_contract::Typed;
use crossdock_message::{Body, BodyStream, BodyType, ByteString, Code, Fault, Message};
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::connection::Busy;
use crate::framing::{Coding, framed};
use crate::{mapping, settle};

/// The body of an answer.
pub(crate) struct AnswerBody {
    content: Content,
    /// Ends the call where the body is dropped: sent whole, or given up.
    busy: Option<Busy>,
}

enum Content {
    /// Pieces that are there, and what comes behind them.
    Pieces(VecDeque<Bytes>, Option<HeaderMap>),
    Stream(Box<StreamAnswer>),
}

impl AnswerBody {
    /// No message: the status stands in the head.
    pub(super) fn none() -> Self {
        Self { content: Content::Pieces(VecDeque::new(), None), busy: None }
    }

    /// One message.
    pub(super) fn once(message: &Bytes, coding: Option<Coding>, trailers: HeaderMap) -> Result<Self, Fault> {
        let (first, second) = framed(message, coding)?;
        let pieces = std::iter::once(first).chain(second).collect();
        Ok(Self { content: Content::Pieces(pieces, Some(trailers)), busy: None })
    }

    /// Messages that come one after another.
    pub(super) fn stream(stream: StreamAnswer) -> Self {
        Self { content: Content::Stream(Box::new(stream)), busy: None }
    }

    pub(super) fn keep(&mut self, busy: Busy) {
        self.busy = Some(busy);
    }
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::convert::Infallible>>> {
        match &mut self.get_mut().content {
            Content::Pieces(pieces, trailers) => Poll::Ready(match pieces.pop_front() {
                Some(piece) => Some(Ok(Frame::data(piece))),
                None => trailers.take().map(|trailers| Ok(Frame::trailers(trailers))),
            }),
            Content::Stream(stream) => stream.poll_frame(cx).map(|frame| frame.map(Ok)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Pieces(pieces, trailers) => pieces.is_empty() && trailers.is_none(),
            Content::Stream(stream) => stream.stream.is_none() && stream.rest.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// An answer that comes one message after another, at the pace of the caller.
pub(super) struct StreamAnswer {
    /// Nothing once it has ended.
    stream: Option<Box<dyn BodyStream>>,
    of_type: Option<Arc<Typed>>,
    coding: Option<Coding>,
    /// The second piece of a long message.
    rest: Option<Bytes>,
}

impl StreamAnswer {
    pub(super) fn new(stream: Box<dyn BodyStream>, of_type: Option<Arc<Typed>>, coding: Option<Coding>) -> Self {
        Self { stream: Some(stream), of_type, coding, rest: None }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        if let Some(rest) = self.rest.take() {
            return Poll::Ready(Some(Frame::data(rest)));
        }
        let Some(stream) = &mut self.stream else { return Poll::Ready(None) };
        let Poll::Ready(next) = stream.poll_next(cx) else { return Poll::Pending };
        let written = next.map(|next| next.and_then(|body| self.written(body)));
        let mut trailers = HeaderMap::new();
        match written {
            Some(Ok((first, second))) => {
                self.rest = second;
                return Poll::Ready(Some(Frame::data(first)));
            }
            None => {
                if let Some(mut stream) = self.stream.take() {
                    mapping::append(&stream.trailers(), &mut trailers);
                }
                settle::ok(&mut trailers);
            }
            Some(Err(fault)) => {
                // Dropping the stream gives its source up.
                self.stream = None;
                settle::status(&fault, &mut trailers);
            }
        }
        Poll::Ready(Some(Frame::trailers(trailers)))
    }

    fn written(&self, body: Body) -> Result<(Bytes, Option<Bytes>), Fault> {
        let mut message = Message::new(ByteString::new(), ByteString::new());
        message.body = body;
        let of_type = self.of_type.as_deref().map(|of_type| of_type as &dyn BodyType);
        let encoded = encode_body(&message, &WriteFormat::Protobuf, of_type)
            .map_err(|fault| Fault { code: Code::Internal, ..fault })?;
        framed(&encoded.chunks.to_bytes(), self.coding)
    }
}
