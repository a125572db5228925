//! The response body: messages, then the status in the trailers.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use crossdock_contract::Typed;
use crossdock_message::{Body, BodyStream, BodyType, ByteString, Code, Fault, Message};
use crossdock_ports::encode_body;
use crossdock_transport::http2;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use crate::config::PROTOBUF;
use crate::framing::{Encoding, frame_message};
use crate::{mapping, settle};

/// A response body.
pub(crate) enum ResponseBody {
    /// Complete data, and the trailers.
    Pieces(VecDeque<Bytes>, Option<HeaderMap>),
    Stream(Box<StreamBody>),
}

impl ResponseBody {
    /// No message: the status is in the headers.
    pub(super) fn none() -> Self {
        Self::Pieces(VecDeque::new(), None)
    }

    /// One message.
    pub(super) fn once(message: &Bytes, encoding: Option<Encoding>, trailers: HeaderMap) -> Result<Self, Fault> {
        let (first, second) = frame_message(message, encoding)?;
        let pieces = std::iter::once(first).chain(second).collect();
        Ok(Self::Pieces(pieces, Some(trailers)))
    }

    /// A stream of messages.
    pub(super) fn stream(stream: StreamBody) -> Self {
        Self::Stream(Box::new(stream))
    }
}

impl http2::ResponseBody for ResponseBody {
    fn is_stream(&self) -> bool {
        matches!(self, Self::Stream(_))
    }
}

impl http_body::Body for ResponseBody {
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

/// A streamed response, with back-pressure from the caller.
pub(super) struct StreamBody {
    /// `None` once it has ended.
    stream: Option<Box<dyn BodyStream>>,
    body_type: Option<Arc<Typed>>,
    encoding: Option<Encoding>,
    /// The second piece of a long message.
    rest: Option<Bytes>,
}

impl StreamBody {
    pub(super) fn new(stream: Box<dyn BodyStream>, body_type: Option<Arc<Typed>>, encoding: Option<Encoding>) -> Self {
        Self { stream: Some(stream), body_type, encoding, rest: None }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        if let Some(rest) = self.rest.take() {
            return Poll::Ready(Some(Frame::data(rest)));
        }
        let Some(stream) = &mut self.stream else { return Poll::Ready(None) };
        let Poll::Ready(next) = stream.poll_next(cx) else { return Poll::Pending };
        let message = next.map(|next| next.and_then(|body| self.encode(body)));
        let mut trailers = HeaderMap::new();
        match message {
            Some(Ok((first, second))) => {
                self.rest = second;
                return Poll::Ready(Some(Frame::data(first)));
            }
            None => {
                if let Some(mut stream) = self.stream.take() {
                    mapping::append(&stream.trailers(), &mut trailers);
                }
                settle::append_ok(&mut trailers);
            }
            Some(Err(fault)) => {
                // Dropping the stream cancels its source.
                self.stream = None;
                settle::append_fault(&fault, &mut trailers);
            }
        }
        Poll::Ready(Some(Frame::trailers(trailers)))
    }

    fn encode(&self, body: Body) -> Result<(Bytes, Option<Bytes>), Fault> {
        let mut message = Message::new(ByteString::new(), ByteString::new());
        message.body = body;
        let body_type = self.body_type.as_deref().map(|body_type| body_type as &dyn BodyType);
        let encoded =
            encode_body(&message, &PROTOBUF, body_type).map_err(|fault| Fault { code: Code::Internal, ..fault })?;
        frame_message(&encoded.chunks.to_bytes(), self.encoding)
    }
}
