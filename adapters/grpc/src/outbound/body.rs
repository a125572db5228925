//! The request body of a call.

use std::collections::VecDeque;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use crossdock_contract::Typed;
use crossdock_message::{Body, BodyStream, BodyType, ByteString, Fault, Message};
use crossdock_ports::encode_body;
use http_body::{Frame, SizeHint};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::config::PROTOBUF;
use crate::framing::{Encoding, frame_message};

/// The request body: one message or a stream.
pub(crate) struct CallBody {
    pieces: VecDeque<Bytes>,
    stream: Option<MessageStream>,
}

/// A stream of messages.
struct MessageStream {
    stream: Box<dyn BodyStream>,
    body_type: Arc<Typed>,
    encoding: Option<Encoding>,
    /// The fault that ended the stream, for the task that waits for the reply.
    fault_slot: Arc<Mutex<Option<Fault>>>,
    /// Resolves when the call has ended. The caller may keep its stream open for much longer.
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// The request stream failed or was cancelled; HTTP/2 resets it with CANCEL.
#[derive(Debug)]
pub(crate) struct StreamCancelled(h2::Error);

impl StreamCancelled {
    fn new() -> Self {
        Self(h2::Reason::CANCEL.into())
    }
}

impl std::fmt::Display for StreamCancelled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the request stream was cancelled")
    }
}

impl std::error::Error for StreamCancelled {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

impl CallBody {
    /// One message.
    pub(super) fn once(message: &Bytes, encoding: Option<Encoding>) -> Result<Self, Fault> {
        let (first, second) = frame_message(message, encoding)?;
        Ok(Self { pieces: std::iter::once(first).chain(second).collect(), stream: None })
    }

    /// Framed messages.
    pub(super) fn from_framed(bytes: Bytes) -> Self {
        Self { pieces: VecDeque::from([bytes]), stream: None }
    }

    /// A stream of messages, until `cancelled`.
    pub(super) fn stream(
        stream: Box<dyn BodyStream>,
        body_type: Arc<Typed>,
        encoding: Option<Encoding>,
        fault_slot: Arc<Mutex<Option<Fault>>>,
        cancelled: CancellationToken,
    ) -> Self {
        let cancelled = Box::pin(cancelled.cancelled_owned());
        Self {
            pieces: VecDeque::new(),
            stream: Some(MessageStream { stream, body_type, encoding, fault_slot, cancelled }),
        }
    }
}

impl MessageStream {
    fn encode(&self, body: Body) -> Result<(Bytes, Option<Bytes>), Fault> {
        let mut message = Message::new(ByteString::new(), ByteString::new());
        message.body = body;
        let encoded = encode_body(&message, &PROTOBUF, Some(&*self.body_type as &dyn BodyType))?;
        frame_message(&encoded.chunks.to_bytes(), self.encoding)
    }
}

impl http_body::Body for CallBody {
    type Data = Bytes;
    type Error = StreamCancelled;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StreamCancelled>>> {
        let this = self.get_mut();
        if let Some(messages) = &mut this.stream
            && messages.cancelled.as_mut().poll(cx).is_ready()
        {
            this.stream = None;
            this.pieces.clear();
            return Poll::Ready(Some(Err(StreamCancelled::new())));
        }
        if let Some(piece) = this.pieces.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let Some(messages) = &mut this.stream else { return Poll::Ready(None) };
        let Poll::Ready(next) = messages.stream.poll_next(cx) else { return Poll::Pending };
        match next.map(|next| next.and_then(|body| messages.encode(body))) {
            None => {
                this.stream = None;
                Poll::Ready(None)
            }
            Some(Ok((first, second))) => {
                this.pieces.extend(second);
                Poll::Ready(Some(Ok(Frame::data(first))))
            }
            Some(Err(fault)) => {
                if let Ok(mut slot) = messages.fault_slot.lock() {
                    *slot = Some(fault);
                }
                this.stream = None;
                Poll::Ready(Some(Err(StreamCancelled::new())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty() && self.stream.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
