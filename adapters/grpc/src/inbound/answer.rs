//! The body of an answer: messages, and the status behind them.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use crossdock_adapter_api::{WriteFormat, encode_body};
use crossdock_contract::Typed;
use crossdock_message::{Body, BodyStream, BodyType, ByteString, Code, Fault, Message};
use crossdock_transport::http2::ResponseBody;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use crate::framing::{Coding, framed};
use crate::{mapping, settle};

/// The body of an answer.
pub(crate) enum AnswerBody {
    /// Pieces that are there, and what comes behind them.
    Pieces(VecDeque<Bytes>, Option<HeaderMap>),
    Stream(Box<StreamAnswer>),
}

impl AnswerBody {
    /// No message: the status stands in the head.
    pub(super) fn none() -> Self {
        Self::Pieces(VecDeque::new(), None)
    }

    /// One message.
    pub(super) fn once(message: &Bytes, coding: Option<Coding>, trailers: HeaderMap) -> Result<Self, Fault> {
        let (first, second) = framed(message, coding)?;
        let pieces = std::iter::once(first).chain(second).collect();
        Ok(Self::Pieces(pieces, Some(trailers)))
    }

    /// Messages that come one after another.
    pub(super) fn stream(stream: StreamAnswer) -> Self {
        Self::Stream(Box::new(stream))
    }
}

impl ResponseBody for AnswerBody {
    fn is_stream(&self) -> bool {
        matches!(self, Self::Stream(_))
    }
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::convert::Infallible>>> {
        match self.get_mut() {
            Self::Pieces(pieces, trailers) => Poll::Ready(match pieces.pop_front() {
                Some(piece) => Some(Ok(Frame::data(piece))),
                None => trailers.take().map(|trailers| Ok(Frame::trailers(trailers))),
            }),
            Self::Stream(stream) => stream.poll_frame(cx).map(|frame| frame.map(Ok)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Pieces(pieces, trailers) => pieces.is_empty() && trailers.is_none(),
            Self::Stream(stream) => stream.stream.is_none() && stream.rest.is_none(),
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
